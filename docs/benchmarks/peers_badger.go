package main

import (
	"errors"
	"iter"

	"github.com/dgraph-io/badger/v4"
)

// badger with SyncWrites syncs its log before a transaction is acknowledged. It
// hands transactions that commit at the same time to one goroutine, which still
// syncs for each of them: SyncWrites is the only documented way to have every
// write on the disk, and it does not share.
var badgerPeer = peer{
	name:     "badger",
	syncs:    "`SyncWrites`; transactions that commit at the same time are written by one goroutine, which syncs after each",
	faster:   "it is a log-structured merge tree: a write is one append and one insertion into a skip list in memory, and pages are sorted later, in the background, by other goroutines; for that it holds tens of megabytes, in which it looks up recent writes, with no query engine",
	volatile: true,
	open: func(options options) (database, error) {
		settings := badger.DefaultOptions(options.path).
			WithSyncWrites(true).
			WithInMemory(options.path == "").
			WithLogger(nil)
		opened, err := badger.Open(settings)
		if err != nil {
			return nil, err
		}
		database := badgerDatabase{DB: opened}
		database.walker = database
		return database, nil
	},
}

type badgerDatabase struct {
	*badger.DB
	ordered[[]byte]
}

func (database badgerDatabase) Get(group, key string) (value string, err error) {
	err = database.View(func(transaction *badger.Txn) error {
		item, err := transaction.Get([]byte(pathOf(group, key)))
		if err != nil {
			return err
		}
		return item.Value(func(found []byte) error {
			value = string(found)
			return nil
		})
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		err = errNotFound
	}
	return value, err
}

func (database badgerDatabase) Set(group, key, value string) error {
	return database.Update(func(transaction *badger.Txn) error {
		return transaction.Set([]byte(pathOf(group, key)), []byte(value))
	})
}

func (database badgerDatabase) Load(entries iter.Seq[entry]) error {
	batch := database.NewWriteBatch()
	defer batch.Cancel()
	for entry := range entries {
		if err := batch.Set([]byte(pathOf(entry.group, entry.key)), []byte(entry.value)); err != nil {
			return err
		}
	}
	return batch.Flush()
}

func (database badgerDatabase) walk(prefix string, values bool, visit func(path, value []byte) string) error {
	return database.View(func(transaction *badger.Txn) error {
		settings := badger.DefaultIteratorOptions
		settings.PrefetchValues, settings.Prefix = values, []byte(prefix)
		iterator := transaction.NewIterator(settings)
		defer iterator.Close()
		for iterator.Rewind(); iterator.Valid(); {
			item, next := iterator.Item(), ""
			if values {
				err := item.Value(func(value []byte) error {
					next = visit(item.Key(), value)
					return nil
				})
				if err != nil {
					return err
				}
			} else {
				next = visit(item.Key(), nil)
			}
			if next == "" {
				iterator.Next()
			} else {
				iterator.Seek([]byte(next))
			}
		}
		return nil
	})
}
