package main

import (
	"bytes"
	"iter"

	"go.etcd.io/bbolt"
)

// bbolt syncs every transaction. Concurrent writers share one through Batch,
// with MaxBatchSize at the number of writers, so that a batch starts as soon as
// all have come instead of after MaxBatchDelay. A lone writer uses Update:
// "Batch is only useful when there are multiple goroutines calling it".
var bboltPeer = peer{
	name:   "bbolt",
	syncs:  "every transaction; concurrent writers share one through `Batch`, with `MaxBatchSize` at their number",
	faster: "its file is mapped into memory: a read follows pointers through a B+ tree, with no system call, no lock and no query engine; it has one ordered tree where a table has a second one as its index, and no expiry to check; a batch includes all waiting writers and writes each page that they changed once",
	open: func(options options) (database, error) {
		bolt, err := bbolt.Open(options.path, 0o600, nil)
		if err != nil {
			return nil, err
		}
		bolt.MaxBatchSize = options.callers.writers
		write := bolt.Batch
		if options.callers.writers == 1 {
			write = bolt.Update
		}
		err = bolt.Update(func(transaction *bbolt.Tx) error {
			_, err := transaction.CreateBucketIfNotExists(bboltBucket)
			return err
		})
		database := bboltDatabase{DB: bolt, write: write}
		database.walker = database
		return database, err
	},
}

var bboltBucket = []byte("entries")

type bboltDatabase struct {
	*bbolt.DB
	ordered[[]byte]
	write func(func(*bbolt.Tx) error) error
}

func (database bboltDatabase) Get(group, key string) (value string, err error) {
	err = database.View(func(transaction *bbolt.Tx) error {
		found := transaction.Bucket(bboltBucket).Get([]byte(pathOf(group, key)))
		if found == nil {
			return errNotFound
		}
		value = string(found)
		return nil
	})
	return value, err
}

func (database bboltDatabase) Set(group, key, value string) error {
	return database.write(func(transaction *bbolt.Tx) error {
		return transaction.Bucket(bboltBucket).Put([]byte(pathOf(group, key)), []byte(value))
	})
}

func (database bboltDatabase) Load(entries iter.Seq[entry]) error {
	return database.Update(func(transaction *bbolt.Tx) error {
		bucket := transaction.Bucket(bboltBucket)
		for entry := range entries {
			if err := bucket.Put([]byte(pathOf(entry.group, entry.key)), []byte(entry.value)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (database bboltDatabase) walk(prefix string, _ bool, visit func(path, value []byte) string) error {
	return database.View(func(transaction *bbolt.Tx) error {
		cursor, start := transaction.Bucket(bboltBucket).Cursor(), []byte(prefix)
		for key, value := cursor.Seek(start); bytes.HasPrefix(key, start); {
			if next := visit(key, value); next == "" {
				key, value = cursor.Next()
			} else {
				key, value = cursor.Seek([]byte(next))
			}
		}
		return nil
	})
}
