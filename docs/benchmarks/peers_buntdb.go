package main

import (
	"errors"
	"iter"

	"github.com/tidwall/buntdb"
)

// buntdb holds everything in memory and appends to a log. SyncPolicy Always
// syncs the log with every transaction, under the database's lock: it has no
// way for concurrent writers to share a sync.
var buntdbPeer = peer{
	name:     "buntdb",
	syncs:    "`SyncPolicy: Always`; each transaction syncs alone under the database's lock",
	faster:   "it holds all data in memory in a B-tree of Go values, so that a read neither leaves the process nor copies a value, and a write is one append to the log; data must fit into memory, and opening reads all of it",
	volatile: true,
	open: func(options options) (database, error) {
		path := options.path
		if path == "" {
			path = ":memory:"
		}
		bunt, err := buntdb.Open(path)
		if err != nil {
			return nil, err
		}
		var config buntdb.Config
		err = bunt.ReadConfig(&config)
		config.SyncPolicy = buntdb.Always
		err = errors.Join(err, bunt.SetConfig(config))
		database := buntdbDatabase{DB: bunt}
		database.walker = database
		return database, err
	},
}

type buntdbDatabase struct {
	*buntdb.DB
	ordered[string]
}

func (database buntdbDatabase) Get(group, key string) (value string, err error) {
	err = database.View(func(transaction *buntdb.Tx) (err error) {
		value, err = transaction.Get(pathOf(group, key))
		return err
	})
	if errors.Is(err, buntdb.ErrNotFound) {
		err = errNotFound
	}
	return value, err
}

func (database buntdbDatabase) Set(group, key, value string) error {
	return database.Update(func(transaction *buntdb.Tx) error {
		_, _, err := transaction.Set(pathOf(group, key), value, nil)
		return err
	})
}

func (database buntdbDatabase) Load(entries iter.Seq[entry]) error {
	return database.Update(func(transaction *buntdb.Tx) error {
		for entry := range entries {
			if _, _, err := transaction.Set(pathOf(entry.group, entry.key), entry.value, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (database buntdbDatabase) walk(prefix string, _ bool, visit func(path, value string) string) error {
	return database.View(func(transaction *buntdb.Tx) error {
		for start := prefix; start != ""; {
			from := start
			start = ""
			err := transaction.AscendRange("", from, successor(prefix), func(path, value string) bool {
				start = visit(path, value)
				return start == ""
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
