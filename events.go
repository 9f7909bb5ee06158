package store

import (
	"slices"
	"sync"
	"time"
)

// watcherBuffer is how many events wait for a watcher's reader.
const watcherBuffer = 256

// EventType says what a write did.
type EventType int

const (
	EventSet         EventType = iota // a key was written: [Store.Set], [Store.SetWithTTL]
	EventDelete                       // a key that had not expired was removed: [Store.Delete]
	EventDeleteGroup                  // a group was removed with all its keys: [Store.DeleteGroup]
)

// String returns "set", "delete", "delete_group" or "unknown".
func (eventType EventType) String() string {
	switch eventType {
	case EventSet:
		return "set"
	case EventDelete:
		return "delete"
	case EventDeleteGroup:
		return "delete_group"
	}
	return "unknown"
}

// Event tells of a write that is on the disk: of every Set and SetWithTTL, and of a Delete
// or DeleteGroup that removed what had not expired.
type Event struct {
	Type      EventType
	Group     string    // the full name: "tenant-a:config" for a scoped write
	Key       string    // empty for EventDeleteGroup
	Value     string    // set for EventSet alone
	Timestamp time.Time // when the write was on the disk; never before the store's previous event
}

// Watcher receives the events of one store in the order of their commits. [Store.Watch]
// makes one.
//
// Its channel holds 256 events; while it is full, further ones are dropped, so that no
// writer ever waits. The receive that follows a drop therefore leaves the buffer all but
// full: a single reader that finds it so must assume a loss, empty the buffer and read the
// store again. Events of writes that such a read has seen may still follow it, so that what
// mirrors the store may step back until they have passed.
//
//	watcher := storeInstance.Watch("config", "*")
//	settings, err := storeInstance.GetAll("config") // watch first, then read
//	if err != nil {
//		return err
//	}
//	for event := range watcher.Events {
//		if len(watcher.Events) >= cap(watcher.Events)-1 {
//			for len(watcher.Events) > 0 {
//				<-watcher.Events // older than what is read next
//			}
//			if settings, err = storeInstance.GetAll("config"); err != nil {
//				return err // settings is out of date until such a read succeeds
//			}
//			continue
//		}
//		switch event.Type {
//		case store.EventSet:
//			settings[event.Key] = event.Value
//		case store.EventDelete:
//			delete(settings, event.Key)
//		case store.EventDeleteGroup:
//			clear(settings)
//		}
//	}
type Watcher struct {
	// Events is closed by [Store.Unwatch] and [Store.Close]; what is in its buffer then
	// can still be received.
	Events <-chan Event

	events     chan Event // the same channel
	group, key string
}

// Watch returns a watcher of a key in a group. Each of the two is an exact name, or "*" for
// any.
//
//	watcher := storeInstance.Watch("config", "colour") // or "*"
//	defer storeInstance.Unwatch(watcher)
//	for event := range watcher.Events { // until another goroutine calls Unwatch or Close
//		fmt.Println(event.Type, event.Key, event.Value)
//	}
//
// The group is the full name, "tenant-a:config" for one of a scope; to follow a whole
// namespace, watch "*" and look at [Event.Group]. The watcher gets every matching event of
// a write that begins after Watch returned, and every EventDeleteGroup of its group,
// whatever its key. On a closed store its channel is closed. What is named "*" cannot be
// watched alone.
func (store *Store) Watch(group, key string) *Watcher {
	events := make(chan Event, watcherBuffer)
	watcher := &Watcher{Events: events, events: events, group: group, key: key}
	store.watchers.mutex.Lock()
	defer store.watchers.mutex.Unlock()
	if store.closed() { // under the lock, so that Close misses no watcher
		close(events)
		return watcher
	}
	store.watchers.list = append(store.watchers.list, watcher)
	return watcher
}

// Unwatch removes a watcher and closes its channel. It does nothing for nil, for a watcher
// that was removed before and for one of another store.
func (store *Store) Unwatch(watcher *Watcher) { store.watchers.remove(watcher) }

// OnChange registers a callback for every event of this store, and returns a function that
// unregisters it and may be called more than once.
//
//	unregister := storeInstance.OnChange(func(event store.Event) {
//		log.Println(event.Type, event.Group, event.Key)
//	})
//	defer unregister()
//
// A callback runs in the goroutine of the writer, once the write is on the disk and the
// watchers have it, before the write returns. The callbacks of one event run in the order
// of their registration; those of different writers may run at the same time. A callback
// misses no event, and may call any method of the store, Close included; its own writes
// call it as well. Once it is unregistered, a write under way may still call it. If it
// panics, the remaining callbacks are skipped and the panic reaches the writer's caller,
// while the write stays. A nil callback is never called.
func (store *Store) OnChange(callback func(Event)) func() {
	if callback == nil || store.closed() {
		return func() {}
	}
	return store.callbacks.add(callback)
}

// watchers is the registry of a store's watchers.
type watchers struct {
	// mutex protects the fields below and every send and close of a watcher's channel, so
	// that none is sent to when closed. Sends do not block.
	mutex sync.Mutex
	list  []*Watcher
	last  time.Time // the timestamp given last
}

func (watchers *watchers) remove(watcher *Watcher) {
	watchers.mutex.Lock()
	defer watchers.mutex.Unlock()
	if index := slices.Index(watchers.list, watcher); index >= 0 {
		watchers.list = slices.Delete(watchers.list, index, index+1)
		close(watcher.events)
	}
}

// send gives the calls of a round that changed something their timestamp, and their events,
// in the order of the calls, to the watchers.
func (watchers *watchers) send(round []*call) {
	watchers.mutex.Lock()
	defer watchers.mutex.Unlock()
	// Without its monotonic reading, which would hide that the wall clock was set back.
	if now := time.Now().Round(0); now.After(watchers.last) {
		watchers.last = now
	}
	for _, each := range round {
		if each.event == nil || each.err != nil {
			continue
		}
		each.event.Timestamp = watchers.last
		for _, watcher := range watchers.list {
			if watcher.wants(each.event) {
				select {
				case watcher.events <- *each.event:
				default:
				}
			}
		}
	}
}

func (watcher *Watcher) wants(event *Event) bool {
	return (watcher.group == "*" || watcher.group == event.Group) &&
		(watcher.key == "*" || watcher.key == event.Key || event.Type == EventDeleteGroup)
}

func (watchers *watchers) close() {
	watchers.mutex.Lock()
	defer watchers.mutex.Unlock()
	for _, watcher := range watchers.list {
		close(watcher.events)
	}
	watchers.list = nil
}

// callbacks is the registry of a store's callbacks.
type callbacks struct {
	mutex sync.Mutex // protects list, never while a callback runs
	list  []*func(Event)
}

func (callbacks *callbacks) add(callback func(Event)) (unregister func()) {
	callbacks.mutex.Lock()
	defer callbacks.mutex.Unlock()
	added := &callback
	callbacks.list = append(callbacks.list, added)
	return func() { callbacks.remove(added) }
}

// remove makes a new list: run may be using the old one.
func (callbacks *callbacks) remove(callback *func(Event)) {
	callbacks.mutex.Lock()
	defer callbacks.mutex.Unlock()
	callbacks.list = slices.DeleteFunc(slices.Clone(callbacks.list), func(each *func(Event)) bool { return each == callback })
}

func (callbacks *callbacks) run(event Event) {
	callbacks.mutex.Lock()
	list := callbacks.list
	callbacks.mutex.Unlock()
	for _, callback := range list {
		(*callback)(event)
	}
}
