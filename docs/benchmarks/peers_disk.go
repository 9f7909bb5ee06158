package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// disk is the least that a durable write can be: it appends each to a file and knows
// nothing else. Writers that come while a sync is under way share the next one.
var diskPeer = peer{
	name:      "disk",
	syncs:     "one `fsync` of an appended file; writers that come during a sync share the next one",
	faster:    "it only appends: nothing can be read back, so it is no store",
	writeOnly: true,
	open: func(options options) (database, error) {
		file, err := os.OpenFile(options.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		database := &diskDatabase{file: file}
		database.synced.L = &database.mutex
		return database, nil
	},
}

type diskDatabase struct {
	file *os.File

	mutex   sync.Mutex // protects what follows
	synced  sync.Cond  // the leader came back
	pending []byte     // what has been written since the last sync began
	spare   []byte     // the other buffer, to be used in turns
	round   int        // of the sync that pending waits for
	reached int        // the last round that is on the disk
	leading bool       // a writer is syncing
	size    int64      // what has been accepted
	err     error
}

func (database *diskDatabase) Get(string, string) (string, error) { return "", errNoCounterpart }

func (database *diskDatabase) Set(group, key, value string) error {
	database.mutex.Lock()
	defer database.mutex.Unlock()
	before := len(database.pending)
	database.pending = append(database.pending, group...)
	database.pending = append(database.pending, 0)
	database.pending = append(database.pending, key...)
	database.pending = append(database.pending, 0)
	database.pending = append(database.pending, value...)
	database.pending = append(database.pending, '\n')
	database.size += int64(len(database.pending) - before)
	mine := database.round + 1
	for database.leading && database.reached < mine {
		database.synced.Wait()
	}
	if database.reached < mine {
		database.lead()
	}
	return database.err
}

// lead writes and syncs what is pending. Its caller holds the mutex.
func (database *diskDatabase) lead() {
	database.leading = true
	database.round++
	writing := database.pending
	database.pending = database.spare[:0]
	database.mutex.Unlock()
	_, err := database.file.Write(writing)
	err = errors.Join(err, database.file.Sync())
	database.mutex.Lock()
	database.spare = writing
	database.err = errors.Join(database.err, err)
	database.reached = database.round
	database.leading = false
	database.synced.Broadcast()
}

// Close checks that all that was acknowledged is in the file.
func (database *diskDatabase) Close() error {
	information, err := database.file.Stat()
	if err == nil && information.Size() != database.size {
		err = fmt.Errorf("the file has %d bytes, not the %d that were acknowledged", information.Size(), database.size)
	}
	return errors.Join(err, database.file.Close())
}
