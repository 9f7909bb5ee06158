package main

import (
	"errors"
	"iter"
	"slices"
)

// peer is one store under test. The comment on its adapter says how the peer syncs
// every acknowledged write and how it lets concurrent writers share a sync.
type peer struct {
	name   string
	syncs  string // for the report: how an acknowledged write reaches the disk
	faster string // for the report: why it is faster where it is

	volatile   bool // it can be opened in memory
	sqliteFile bool // it opens an SQLite file that loadSQLite wrote
	writeOnly  bool // it can only append: there is nothing to read

	open func(options) (database, error)
}

// options are what a workload asks of the database that a peer opens.
type options struct {
	path    string // a file, or a directory that does not exist yet; "" is memory
	callers callers
}

// callers are how many goroutines will call at the same time, and how many of them write.
type callers struct{ all, writers int }

var alone = callers{1, 1}

// database is what every peer can do. A Set has reached the disk when it
// returns, unless the database is in memory.
type database interface {
	Get(group, key string) (string, error)
	Set(group, key, value string) error
	Close() error
}

// The rest are capabilities. A peer that lacks what a workload needs is left
// out of it.
type (
	// loader puts many entries in by the quickest way that the peer has.
	loader interface {
		Load(entries iter.Seq[entry]) error
	}
	groupReader interface {
		GetAll(group string) (map[string]string, error)
		// Stream yields the entries of a group in the order of their keys.
		Stream(group string, yield func(key, value string)) error
	}
	counter interface {
		// Groups returns the names that begin with prefix, in their order.
		Groups(prefix string) ([]string, error)
		Count(group string) (int, error)
		CountAll(prefix string) (int, error)
	}
	deleter interface {
		Delete(group, key string) error
	}
	quotaKeeper interface {
		deleter
		// Within returns a Set that refuses, with errRefused, a new key in a
		// namespace that holds limit keys. The namespace is put before its group.
		Within(namespace string, limit int) (func(group, key, value string) error, error)
	}
	purger interface {
		// SetExpired stores an entry whose time is over.
		SetExpired(group, key, value string) error
		PurgeExpired() (int64, error)
	}
	watchable interface {
		// Watch calls received for each event in a goroutine of its own, until
		// stop, which returns when all that was buffered has been received.
		Watch(received func()) (stop func())
	}
)

var (
	errNoCounterpart = errors.New("no counterpart")
	errNotFound      = errors.New("not found")
	errRefused       = errors.New("quota exceeded")
)

// cgoPeers is filled where cgo is at hand.
var cgoPeers []peer

func allPeers() []peer {
	return slices.Concat(
		[]peer{storePeer, floorPeer, zombiezenPeer},
		cgoPeers,
		[]peer{bboltPeer, buntdbPeer, badgerPeer, pebblePeer, diskPeer},
	)
}
