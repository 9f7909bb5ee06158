package main

import (
	"errors"
	"fmt"

	"dappco.re/go/core/store"
)

// The store needs no setting: every write is on the disk when it returns, and
// writers that come together share commits and flushes by themselves.
var storePeer = peer{
	name:       "store",
	syncs:      "always; concurrent writers share commits and syncs without being asked",
	volatile:   true,
	sqliteFile: true,
	open: func(options options) (database, error) {
		path := options.path
		if path == "" {
			path = ":memory:"
		}
		storeInstance, err := store.New(path)
		if err != nil {
			return nil, err
		}
		return storeDatabase{storeInstance}, nil
	},
}

type storeDatabase struct{ *store.Store }

func (database storeDatabase) Get(group, key string) (string, error) {
	value, err := database.Store.Get(group, key)
	if err != nil && errors.Is(err, store.NotFoundError) {
		err = errNotFound
	}
	return value, err
}

func (database storeDatabase) Stream(group string, yield func(key, value string)) error {
	for entry, err := range database.All(group) {
		if err != nil {
			return err
		}
		yield(entry.Key, entry.Value)
	}
	return nil
}

func (database storeDatabase) Within(namespace string, limit int) (func(group, key, value string) error, error) {
	scopedStore, err := store.NewScopedWithQuota(database.Store, namespace, store.QuotaConfig{MaxKeys: limit})
	if err != nil {
		return nil, err
	}
	return func(group, key, value string) error {
		err := scopedStore.Set(group, key, value)
		if errors.Is(err, store.QuotaExceededError) {
			return fmt.Errorf("%w: %w", errRefused, err)
		}
		return err
	}, nil
}

func (database storeDatabase) SetExpired(group, key, value string) error {
	return database.SetWithTTL(group, key, value, 0)
}

func (database storeDatabase) Watch(received func()) (stop func()) {
	watcher := database.Store.Watch("*", "*")
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for range watcher.Events {
			received()
		}
	}()
	return func() {
		database.Unwatch(watcher)
		<-drained
	}
}
