package main

import (
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// pebble with pebble.Sync syncs its log before a write is acknowledged. Its
// commit pipeline queues the writes that come meanwhile behind one sync: it does
// that by itself.
var pebblePeer = peer{
	name:     "pebble",
	syncs:    "`pebble.Sync`; its commit pipeline puts concurrent writes behind one sync",
	faster:   "it is a log-structured merge tree: a write is one append and one insertion into a skip list in memory, and pages are sorted later, in the background, by other goroutines; concurrent writers prepare their batches in parallel and queue for nothing but the log; recent writes are looked up in memory, with no query engine",
	volatile: true,
	open: func(options options) (database, error) {
		settings := &pebble.Options{Logger: quiet{}}
		path := options.path
		if path == "" {
			path, settings.FS = "memory", vfs.NewMem()
		}
		opened, err := pebble.Open(path, settings)
		if err != nil {
			return nil, err
		}
		database := pebbleDatabase{DB: opened}
		database.walker = database
		return database, nil
	},
}

// quiet keeps pebble's progress reports out of ours.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "pebble: "+format+"\n", arguments...)
	os.Exit(1)
}

type pebbleDatabase struct {
	*pebble.DB
	ordered[[]byte]
}

func (database pebbleDatabase) Get(group, key string) (string, error) {
	found, closer, err := database.DB.Get([]byte(pathOf(group, key)))
	if errors.Is(err, pebble.ErrNotFound) {
		return "", errNotFound
	}
	if err != nil {
		return "", err
	}
	value := string(found)
	return value, closer.Close()
}

func (database pebbleDatabase) Set(group, key, value string) error {
	return database.DB.Set([]byte(pathOf(group, key)), []byte(value), pebble.Sync)
}

func (database pebbleDatabase) Load(entries iter.Seq[entry]) error {
	batch := database.NewBatch()
	defer batch.Close()
	for entry := range entries {
		if err := batch.Set([]byte(pathOf(entry.group, entry.key)), []byte(entry.value), nil); err != nil {
			return err
		}
	}
	return batch.Commit(pebble.Sync)
}

func (database pebbleDatabase) walk(prefix string, values bool, visit func(path, value []byte) string) error {
	iterator, err := database.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: []byte(successor(prefix))})
	if err != nil {
		return err
	}
	for valid := iterator.First(); valid; {
		var value []byte
		if values {
			value = iterator.Value()
		}
		if next := visit(iterator.Key(), value); next == "" {
			valid = iterator.Next()
		} else {
			valid = iterator.SeekGE([]byte(next))
		}
	}
	return errors.Join(iterator.Error(), iterator.Close())
}
