package store_test

import (
	"cmp"
	"errors"
	"fmt"
	"log"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dappco.re/go/core/store"
)

// watcherBuffer is how many events a watcher holds for a reader that is behind.
const watcherBuffer = 256

func setEvent(group, key, value string) store.Event {
	return store.Event{Type: store.EventSet, Group: group, Key: key, Value: value}
}

func deleteEvent(group, key string) store.Event {
	return store.Event{Type: store.EventDelete, Group: group, Key: key}
}

func deleteGroupEvent(group string) store.Event {
	return store.Event{Type: store.EventDeleteGroup, Group: group}
}

// bufferedEvents takes what lies in the watcher's buffer: everything that concerns it, once the writes have returned.
func bufferedEvents(watcher *store.Watcher) []store.Event {
	var events []store.Event
	for {
		select {
		case event, ok := <-watcher.Events:
			if !ok {
				return events
			}
			events = append(events, event)
		default:
			return events
		}
	}
}

// withoutTime makes events comparable.
func withoutTime(events []store.Event) []store.Event {
	events = slices.Clone(events)
	for index := range events {
		events[index].Timestamp = time.Time{}
	}
	return events
}

func wantEvents(t testing.TB, watcher *store.Watcher, want ...store.Event) {
	t.Helper()
	if got := withoutTime(bufferedEvents(watcher)); !slices.Equal(got, want) {
		t.Fatalf("watcher got %+v, want %+v", got, want)
	}
}

// wantEnded fails unless the watcher's channel is closed; it must have been emptied before.
func wantEnded(t testing.TB, watcher *store.Watcher) {
	t.Helper()
	select {
	case event, ok := <-watcher.Events:
		if ok {
			t.Fatalf("receive from an ended watcher = %+v, want a closed channel", event)
		}
	default:
		t.Fatal("the watcher's channel is open, want it closed")
	}
}

// recordChanges registers a callback and returns the events that it has seen so far.
func recordChanges(storeInstance *store.Store) func() []store.Event {
	var mutex sync.Mutex // guards events
	var events []store.Event
	storeInstance.OnChange(func(event store.Event) {
		mutex.Lock()
		defer mutex.Unlock()
		events = append(events, event)
	})
	return func() []store.Event {
		mutex.Lock()
		defer mutex.Unlock()
		return withoutTime(events)
	}
}

// noError is check for goroutines other than the test's own.
func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// concurrently runs body in count goroutines and waits for all of them.
func concurrently(count int, body func(index int)) {
	var group sync.WaitGroup
	for index := range count {
		group.Go(func() { body(index) })
	}
	group.Wait()
}

// finishes fails the test if body hangs. It belongs into a bubble, whose clock runs on once everybody waits.
func finishes(t testing.TB, what string, body func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		body()
	}()
	select {
	case <-done:
	case <-time.After(time.Hour):
		t.Fatalf("%s hangs", what)
	}
}

// panicOf returns what body panicked with, or nil.
func panicOf(body func()) (value any) {
	defer func() { value = recover() }()
	body()
	return nil
}

// goroutineID is the number in the first line of a stack trace, the only name that a goroutine has.
func goroutineID() string {
	trace := make([]byte, 64)
	return strings.Fields(string(trace[:runtime.Stack(trace, false)]))[1]
}

// poison makes every write that touches the key "poisoned" fail as SQLite's action says: ABORT ends the statement,
// ROLLBACK the whole transaction, as a full disk does.
func poison(t testing.TB, databasePath, action string) {
	t.Helper()
	database := openSQL(t, databasePath)
	for _, when := range []string{"INSERT", "UPDATE", "DELETE"} {
		row := "NEW"
		if when == "DELETE" {
			row = "OLD"
		}
		execSQL(t, database, fmt.Sprintf(`CREATE TRIGGER poison_%s BEFORE %s ON entries WHEN %s.entry_key = 'poisoned'
			BEGIN SELECT RAISE(%s, 'poisoned'); END`, when, when, row, action))
	}
}

func TestEventType_String(t *testing.T) {
	for eventType, want := range map[store.EventType]string{
		store.EventSet:         "set",
		store.EventDelete:      "delete",
		store.EventDeleteGroup: "delete_group",
		-1:                     "unknown",
		1000:                   "unknown",
	} {
		if got := eventType.String(); got != want {
			t.Errorf("EventType(%d).String() = %q, want %q", int(eventType), got, want)
		}
	}
}

func TestEventType_IsInt(t *testing.T) {
	if kind := reflect.TypeFor[store.EventType]().Kind(); kind != reflect.Int {
		t.Fatalf("EventType is of kind %v, want int", kind)
	}
}

func TestStore_EventsOfEachMethod(t *testing.T) {
	const binary = "\x00%_*\xff"
	for _, test := range []struct {
		name string
		call func(storeInstance *store.Store) error
		want []store.Event
	}{
		{"Set new", func(s *store.Store) error { return s.Set("config", "size", "10") },
			[]store.Event{setEvent("config", "size", "10")}},
		{"Set another value", func(s *store.Store) error { return s.Set("config", "colour", "green") },
			[]store.Event{setEvent("config", "colour", "green")}},
		{"Set the same value", func(s *store.Store) error { return s.Set("config", "colour", "blue") },
			[]store.Event{setEvent("config", "colour", "blue")}},
		{"Set empty", func(s *store.Store) error { return s.Set("", "", "") },
			[]store.Event{setEvent("", "", "")}},
		{"Set bytes", func(s *store.Store) error { return s.Set(binary, binary, binary) },
			[]store.Event{setEvent(binary, binary, binary)}},
		{"SetWithTTL", func(s *store.Store) error { return s.SetWithTTL("session", "token", "abc123", time.Hour) },
			[]store.Event{setEvent("session", "token", "abc123")}},
		{"SetWithTTL elapsed", func(s *store.Store) error { return s.SetWithTTL("session", "token", "abc123", -1) },
			[]store.Event{setEvent("session", "token", "abc123")}},
		{"SetWithTTL elapsed over a live entry", func(s *store.Store) error { return s.SetWithTTL("config", "colour", "red", 0) },
			[]store.Event{setEvent("config", "colour", "red")}},
		{"Delete", func(s *store.Store) error { return s.Delete("config", "colour") },
			[]store.Event{deleteEvent("config", "colour")}},
		{"Delete a missing key", func(s *store.Store) error { return s.Delete("config", "missing") }, nil},
		{"Delete an expired entry", func(s *store.Store) error { return s.Delete("mixed", "expired") }, nil},
		{"Delete twice", func(s *store.Store) error {
			return errors.Join(s.Delete("config", "colour"), s.Delete("config", "colour"))
		}, []store.Event{deleteEvent("config", "colour")}},
		{"DeleteGroup", func(s *store.Store) error { return s.DeleteGroup("config") },
			[]store.Event{deleteGroupEvent("config")}},
		{"DeleteGroup with an expired entry", func(s *store.Store) error { return s.DeleteGroup("mixed") },
			[]store.Event{deleteGroupEvent("mixed")}},
		{"DeleteGroup missing", func(s *store.Store) error { return s.DeleteGroup("missing") }, nil},
		{"DeleteGroup expired", func(s *store.Store) error { return s.DeleteGroup("expired") }, nil},
		{"DeleteGroup twice", func(s *store.Store) error {
			return errors.Join(s.DeleteGroup("config"), s.DeleteGroup("config"))
		}, []store.Event{deleteGroupEvent("config")}},
		{"reads and purges", func(s *store.Store) error {
			if _, err := s.Get("expired", "only"); !errors.Is(err, store.NotFoundError) {
				return fmt.Errorf("Get of an expired entry: %w", err)
			}
			_, errGet := s.Get("config", "colour")
			_, errGetAll := s.GetAll("config")
			_, errCount := s.CountAll("")
			_, errGroups := s.Groups("")
			_, errRender := s.Render("{{.colour}}", "config")
			_, errPurge := s.PurgeExpired()
			for _, err := range s.All("config") {
				errGet = errors.Join(errGet, err)
			}
			return errors.Join(errGet, errGetAll, errCount, errGroups, errRender, errPurge)
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
				check(t, storeInstance.Set("config", "colour", "blue"))
				check(t, storeInstance.Set("mixed", "live", "1"))
				check(t, storeInstance.SetWithTTL("mixed", "expired", "2", 0))
				check(t, storeInstance.SetWithTTL("expired", "only", "3", 0))
				watcher := storeInstance.Watch("*", "*")
				changes := recordChanges(storeInstance)
				check(t, test.call(storeInstance))
				wantEvents(t, watcher, test.want...)
				if got := changes(); !slices.Equal(got, test.want) {
					t.Fatalf("callback got %+v, want %+v", got, test.want)
				}
			})
		})
	}
}

func TestStore_Delete_EmitsUntilTheEntryExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance := newMemoryStore(t)
		watcher := storeInstance.Watch("*", "*")
		for _, key := range []string{"first", "second"} {
			check(t, storeInstance.SetWithTTL("session", key, "abc123", 30*time.Second))
		}
		bufferedEvents(watcher)
		time.Sleep(30*time.Second - 1)
		check(t, storeInstance.Delete("session", "first"))
		wantEvents(t, watcher, deleteEvent("session", "first"))
		time.Sleep(time.Millisecond + 1)
		check(t, storeInstance.Delete("session", "second"))
		check(t, storeInstance.DeleteGroup("session"))
		wantEvents(t, watcher)
	})
}

func TestStore_ExpiryIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		database := openSQL(t, databasePath)
		wantRows := func(after string, want int) {
			t.Helper()
			var got int
			check(t, database.QueryRow(`SELECT count(*) FROM entries`).Scan(&got))
			if got != want {
				t.Fatalf("%d rows after %s, want %d: nothing was there to be silent about", got, after, want)
			}
		}
		for _, key := range []string{"read", "purged"} {
			check(t, storeInstance.SetWithTTL("session", key, "abc123", time.Second))
		}
		watcher := storeInstance.Watch("*", "*")
		changes := recordChanges(storeInstance)
		time.Sleep(2 * time.Second)
		checkMissing(t, storeInstance, "session", "read")
		wantRows("the lazy delete", 1)
		purged, err := storeInstance.PurgeExpired()
		check(t, err)
		if purged != 1 {
			t.Fatalf("PurgeExpired() = %d, want 1", purged)
		}
		wantEvents(t, watcher)

		check(t, storeInstance.SetWithTTL("session", "background", "abc123", time.Second))
		want := setEvent("session", "background", "abc123")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		wantRows("the background purge", 0)
		wantEvents(t, watcher, want)
		if got := changes(); !slices.Equal(got, []store.Event{want}) {
			t.Fatalf("callback got %+v, want %+v", got, want)
		}
	})
}

func TestStore_EventTimestampIsTheTimeOfTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance := newMemoryStore(t)
		watcher := storeInstance.Watch("*", "*")
		for _, write := range []func() error{
			func() error { return storeInstance.Set("config", "colour", "blue") },
			func() error { return storeInstance.Delete("config", "colour") },
			func() error { return storeInstance.SetWithTTL("config", "colour", "blue", time.Hour) },
			func() error { return storeInstance.DeleteGroup("config") },
		} {
			time.Sleep(time.Minute)
			check(t, write())
			event := <-watcher.Events
			if age := time.Since(event.Timestamp); age < 0 || age > time.Millisecond {
				t.Errorf("Timestamp of %+v is %v old, want that of the write", event, age)
			}
		}
	})
}

func TestStore_EventTimestampsDoNotRunBackwards(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		watcher := storeInstance.Watch("*", "*")
		var last time.Time
		for range 20 {
			concurrently(16, func(writer int) {
				group := strconv.Itoa(writer)
				for index := range 5 {
					noError(t, storeInstance.Set(group, strconv.Itoa(index), "value"))
				}
				noError(t, storeInstance.Delete(group, "0"))
				noError(t, storeInstance.DeleteGroup(group))
			})
			for _, event := range bufferedEvents(watcher) {
				if event.Timestamp.Before(last) {
					t.Fatalf("Timestamp of %+v is %v before that of the event before it", event, last.Sub(event.Timestamp))
				}
				last = event.Timestamp
			}
		}
	})
}

// TestStore_EventTimestampsWaitForAClockThatWasSetBack takes a store to where the clock shows an earlier year.
func TestStore_EventTimestampsWaitForAClockThatWasSetBack(t *testing.T) {
	storeInstance, _ := newFileStore(t)
	var times []time.Time
	storeInstance.OnChange(func(event store.Event) { times = append(times, event.Timestamp) })
	check(t, storeInstance.Set("config", "colour", "blue"))
	synctest.Test(t, func(t *testing.T) { check(t, storeInstance.Set("config", "colour", "green")) })
	if times[1].Before(times[0]) {
		t.Errorf("the second event is of %v, the first of %v", times[1], times[0])
	}
}

func TestStore_Watch_Filters(t *testing.T) {
	events := []store.Event{
		setEvent("config", "colour", "1"), setEvent("config", "size", "2"), setEvent("config", "", "3"),
		setEvent("Config", "colour", "4"), setEvent("configuration", "colour", "5"), setEvent("", "colour", "6"),
		setEvent("con*", "col*", "7"), setEvent("*", "*", "8"), setEvent("tenant-a:config", "colour", "9"),
		deleteEvent("config", "size"), deleteGroupEvent("config"), deleteGroupEvent("Config"), deleteGroupEvent("*"),
	}
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		tests := []struct {
			group, key string
			want       []int // which of the events
			watcher    *store.Watcher
		}{
			{group: "*", key: "*", want: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
			{group: "config", key: "*", want: []int{0, 1, 2, 9, 10}},
			{group: "config", key: "colour", want: []int{0, 10}},
			{group: "config", key: "size", want: []int{1, 9, 10}},
			{group: "config", key: "missing", want: []int{10}},
			{group: "config", key: "", want: []int{2, 10}},
			{group: "*", key: "colour", want: []int{0, 3, 4, 5, 8, 10, 11, 12}},
			{group: "", key: "*", want: []int{5}},
			{group: "con*", key: "*", want: []int{6}},
			{group: "con*", key: "col*", want: []int{6}},
			{group: "conf", key: "*"},
			{group: "config", key: "Colour", want: []int{10}},
			{group: "tenant-a:config", key: "colour", want: []int{8}},
			{group: "tenant-a:*", key: "*"},
			{group: "%", key: "%"},
		}
		for index := range tests {
			tests[index].watcher = storeInstance.Watch(tests[index].group, tests[index].key)
		}
		for _, event := range events {
			switch event.Type {
			case store.EventSet:
				check(t, storeInstance.Set(event.Group, event.Key, event.Value))
			case store.EventDelete:
				check(t, storeInstance.Delete(event.Group, event.Key))
			case store.EventDeleteGroup:
				check(t, storeInstance.DeleteGroup(event.Group))
			}
		}
		for _, test := range tests {
			var want []store.Event
			for _, index := range test.want {
				want = append(want, events[index])
			}
			if got := withoutTime(bufferedEvents(test.watcher)); !slices.Equal(got, want) {
				t.Errorf("Watch(%q, %q) got %+v, want %+v", test.group, test.key, got, want)
			}
		}
	})
}

func TestStore_Watch_SeesEveryWriteThatBeginsAfterIt(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		var done atomic.Bool
		var others sync.WaitGroup
		for writer := range 4 {
			others.Go(func() {
				for !done.Load() {
					noError(t, storeInstance.Set("others", strconv.Itoa(writer), "value"))
				}
			})
		}
		for index := range 200 {
			value := strconv.Itoa(index)
			watcher := storeInstance.Watch("mine", "*")
			noError(t, storeInstance.Set("mine", "key", value))
			if got := withoutTime(bufferedEvents(watcher)); !slices.Equal(got, []store.Event{setEvent("mine", "key", value)}) {
				t.Errorf("a fresh watcher got %+v, want the set of %q", got, value)
				break
			}
			storeInstance.Unwatch(watcher)
		}
		done.Store(true)
		others.Wait()
	})
}

// TestStore_Watch_ReplayGivesTheStore applies the events to a map: only in commit order, and with none missing, added or
// of a write that changed nothing, does the map become what the store holds.
func TestStore_Watch_ReplayGivesTheStore(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		groups := []string{"config", "session"}
		replayed := map[string]map[string]string{"config": {}, "session": {}}
		watcher := storeInstance.Watch("*", "*")
		for round := range 12 {
			concurrently(16, func(writer int) {
				random := rand.New(rand.NewPCG(uint64(round), uint64(writer)))
				for index := range watcherBuffer / 16 {
					group, key := groups[random.IntN(2)], strconv.Itoa(random.IntN(3))
					switch random.IntN(8) {
					case 0:
						noError(t, storeInstance.DeleteGroup(group))
					case 1, 2:
						noError(t, storeInstance.Delete(group, key))
					default:
						noError(t, storeInstance.Set(group, key, fmt.Sprint(round, writer, index)))
					}
				}
			})
			for _, event := range bufferedEvents(watcher) {
				entries := replayed[event.Group]
				switch event.Type {
				case store.EventSet:
					entries[event.Key] = event.Value
				case store.EventDelete:
					if _, ok := entries[event.Key]; !ok {
						t.Fatalf("round %d: %+v, but the events before it left nothing to delete", round, event)
					}
					delete(entries, event.Key)
				case store.EventDeleteGroup:
					if len(entries) == 0 {
						t.Fatalf("round %d: %+v, but the events before it left nothing to delete", round, event)
					}
					clear(entries)
				}
			}
			for _, group := range groups {
				got, err := storeInstance.GetAll(group)
				check(t, err)
				if !maps.Equal(got, replayed[group]) {
					t.Fatalf("round %d: GetAll(%q) = %v, the events give %v", round, group, got, replayed[group])
				}
			}
		}
	})
}

func TestStore_Watch_AllWatchersSeeOneOrder(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		first, second := storeInstance.Watch("*", "*"), storeInstance.Watch("config", "*")
		concurrently(16, func(writer int) {
			for index := range watcherBuffer / 16 {
				noError(t, storeInstance.Set("config", strconv.Itoa(writer), strconv.Itoa(index)))
			}
		})
		events := bufferedEvents(first)
		if len(events) != watcherBuffer {
			t.Fatalf("watcher got %d events, want %d", len(events), watcherBuffer)
		}
		if got := bufferedEvents(second); !slices.Equal(got, events) {
			t.Fatalf("watchers disagree: %+v and %+v", events, got)
		}
		next := map[string]int{}
		for _, event := range events {
			if want := strconv.Itoa(next[event.Key]); event.Value != want {
				t.Fatalf("writer %s: event of write %s, want %s first", event.Key, event.Value, want)
			}
			next[event.Key]++
		}
	})
}

func TestStore_Watch_OtherStoresAreNotSeen(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	other, database := openStore(t, databasePath), openSQL(t, databasePath)
	watcher, otherWatcher := storeInstance.Watch("*", "*"), other.Watch("*", "*")
	changes := recordChanges(storeInstance)
	check(t, other.Set("config", "colour", "blue"))
	execSQL(t, database, `UPDATE entries SET entry_value = 'green'`)
	checkValue(t, storeInstance, "config", "colour", "green")
	wantEvents(t, watcher)
	wantEvents(t, otherWatcher, setEvent("config", "colour", "blue"))
	if got := changes(); len(got) != 0 {
		t.Fatalf("callback got %+v of another store's write", got)
	}
	// What is removed was written elsewhere, but the removal is this store's.
	check(t, storeInstance.Delete("config", "colour"))
	wantEvents(t, watcher, deleteEvent("config", "colour"))
	wantEvents(t, otherWatcher)
}

func TestWatcher_FullBufferDropsTheNewest(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		slow, quick := storeInstance.Watch("config", "*"), storeInstance.Watch("config", "*")
		if got := cap(slow.Events); got != watcherBuffer {
			t.Fatalf("cap(watcher.Events) = %d, want %d", got, watcherBuffer)
		}
		var kept []store.Event
		for index := range watcherBuffer + 20 {
			event := setEvent("config", "colour", strconv.Itoa(index))
			if index < watcherBuffer {
				kept = append(kept, event)
			}
			check(t, storeInstance.Set(event.Group, event.Key, event.Value))
			wantEvents(t, quick, event)
		}
		wantEvents(t, slow, kept...)
		check(t, storeInstance.Set("config", "colour", "after the loss"))
		wantEvents(t, slow, setEvent("config", "colour", "after the loss"))
	})
}

func TestWatcher_LenAndCapRevealEveryLoss(t *testing.T) {
	storeInstance := newMemoryStore(t)
	watcher := storeInstance.Watch("*", "*")
	const writes = 5_000
	var written atomic.Int64
	var writer sync.WaitGroup
	received := 0
	begun := make(chan struct{}) // so that what is lost lies between events, and not behind the last
	writer.Go(func() {
		defer storeInstance.Unwatch(watcher)
		for index := range writes {
			noError(t, storeInstance.Set("config", "colour", strconv.Itoa(index)))
			written.Store(int64(index))
			if index == 2*watcherBuffer {
				<-begun
			}
		}
	})
	losses, last, suspected := 0, -1, -1
	for event := range watcher.Events {
		if received == watcherBuffer/2 {
			close(begun)
		}
		if len(watcher.Events) >= cap(watcher.Events)-1 {
			suspected = received
		}
		number := atoi(t, event.Value)
		if number != last+1 {
			losses++
			// The buffer was full when the loss happened, and the next receive found it so: that was one of the last 256.
			if suspected < 0 || suspected < received-watcherBuffer {
				t.Fatalf("event %d came after %d, and no receive found the buffer full", number, last)
			}
		}
		last = number
		received++
		if received%1000 == 1 { // fall behind
			for int(written.Load()) < min(number+2*watcherBuffer, writes-1) {
				runtime.Gosched()
			}
		}
	}
	writer.Wait()
	if losses == 0 {
		t.Fatal("nothing was lost: the test has shown nothing")
	}
}

func TestWatcher_EventIsCommittedAndVisible(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	watcher := storeInstance.Watch("config", "counter")
	var writer sync.WaitGroup
	writer.Go(func() {
		defer storeInstance.Unwatch(watcher)
		for index := range watcherBuffer - 1 {
			noError(t, storeInstance.Set("config", "counter", strconv.Itoa(index)))
		}
	})
	for event := range watcher.Events {
		number := atoi(t, event.Value)
		elsewhere := queryInt(t, database, `SELECT CAST(entry_value AS INTEGER) FROM entries`)
		value, err := storeInstance.Get("config", "counter")
		check(t, err)
		if got := atoi(t, value); got < number || elsewhere < number {
			t.Fatalf("after the event of %d the store holds %d, and another connection reads %d", number, got, elsewhere)
		}
	}
	writer.Wait()
}

func TestStore_Watch_CostsAbout20KB(t *testing.T) {
	storeInstance := newMemoryStore(t)
	heap := func() int {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc)
	}
	const count = 200
	before := heap()
	watchers := make([]*store.Watcher, count)
	for index := range watchers {
		watchers[index] = storeInstance.Watch("config", "*")
	}
	if each := (heap() - before) / count; each > 32<<10 {
		t.Errorf("a watcher costs %d bytes, want about 20,000", each)
	}
	for _, watcher := range watchers {
		storeInstance.Unwatch(watcher)
	}
	clear(watchers)
	if left := (heap() - before) / count; left > 2<<10 {
		t.Errorf("%d bytes of a watcher are left after Unwatch", left)
	}
	check(t, storeInstance.Set("config", "colour", "blue"))
}

func TestStore_Unwatch_EndsTheRangeLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance := newMemoryStore(t)
		watcher, other := storeInstance.Watch("config", "*"), storeInstance.Watch("config", "*")
		check(t, storeInstance.Set("config", "colour", "blue"))
		storeInstance.Unwatch(watcher)
		check(t, storeInstance.Set("config", "colour", "green"))
		finishes(t, "the range over an unwatched watcher", func() {
			var got []store.Event
			for event := range watcher.Events {
				got = append(got, event)
			}
			if got := withoutTime(got); !slices.Equal(got, []store.Event{setEvent("config", "colour", "blue")}) {
				t.Errorf("after Unwatch the buffer gave %+v, want the one event before it", got)
			}
		})
		wantEvents(t, other, setEvent("config", "colour", "blue"), setEvent("config", "colour", "green"))
	})
}

func TestStore_Unwatch_OfWhatItDoesNotWatchIsNoOp(t *testing.T) {
	storeInstance, other := newMemoryStore(t), newMemoryStore(t)
	watcher := other.Watch("config", "*")
	handMade := make(chan store.Event, 1)
	storeInstance.Unwatch(nil)
	storeInstance.Unwatch(&store.Watcher{})
	storeInstance.Unwatch(&store.Watcher{Events: handMade})
	storeInstance.Unwatch(&store.Watcher{Events: watcher.Events})
	storeInstance.Unwatch(watcher)
	handMade <- store.Event{} // panics if it was closed
	check(t, other.Set("config", "colour", "blue"))
	wantEvents(t, watcher, setEvent("config", "colour", "blue"))

	own := storeInstance.Watch("config", "*")
	storeInstance.Unwatch(&store.Watcher{Events: own.Events})
	check(t, storeInstance.Set("config", "colour", "green"))
	wantEvents(t, own, setEvent("config", "colour", "green"))
	storeInstance.Unwatch(own)
	storeInstance.Unwatch(own)
	wantEnded(t, own)
	last := storeInstance.Watch("config", "*")
	check(t, storeInstance.Close())
	storeInstance.Unwatch(last)
	storeInstance.Unwatch(own)
	storeInstance.Unwatch(nil)
	wantEnded(t, last)
}

// TestStore_Close_EndsTheWatchersThatBeginMeanwhile has goroutines watch a store that closes.
func TestStore_Close_EndsTheWatchersThatBeginMeanwhile(t *testing.T) {
	for range 40 {
		storeInstance := newMemoryStore(t)
		var watching, begun sync.WaitGroup
		watched := make([][]*store.Watcher, 16)
		begun.Add(len(watched))
		for number := range watched {
			watching.Go(func() {
				for range 1_000 {
					watcher := storeInstance.Watch("*", "*")
					watched[number] = append(watched[number], watcher)
					if len(watched[number]) == 1 {
						begun.Done()
					}
					select {
					case <-watcher.Events: // the store is closed
						return
					default:
					}
				}
			})
		}
		begun.Wait()
		check(t, storeInstance.Close())
		watching.Wait()
		for _, watchers := range watched {
			for _, watcher := range watchers {
				wantEnded(t, watcher)
			}
		}
	}
}

// TestStore_Close_DuringWrites_EachHappenedOrNot closes a store in the middle of concurrent writes: those that returned nil,
// those that the watcher and the callback saw and those in the file must be the same.
func TestStore_Close_DuringWrites_EachHappenedOrNot(t *testing.T) {
	for round := range 10 {
		databasePath := filepath.Join(t.TempDir(), "store.db")
		storeInstance := openStore(t, databasePath)
		watcher := storeInstance.Watch("*", "*")
		changes := recordChanges(storeInstance)
		var acknowledged sync.Map
		var count atomic.Int64
		enough := make(chan struct{})
		var closing sync.WaitGroup
		closing.Go(func() {
			<-enough
			noError(t, storeInstance.Close())
		})
		concurrently(15, func(writer int) {
			for index := range watcherBuffer / 15 {
				key := fmt.Sprint(writer, "-", index)
				if err := storeInstance.Set("config", key, ""); errors.Is(err, os.ErrClosed) {
					return
				} else if err != nil {
					t.Error(err)
					return
				}
				acknowledged.Store(key, true)
				if count.Add(1) == int64(1+round*15) {
					close(enough)
				}
			}
		})
		closing.Wait()

		var watched, called []string
		for event := range watcher.Events {
			watched = append(watched, event.Key)
		}
		for _, event := range changes() {
			called = append(called, event.Key)
		}
		entries, err := openStore(t, databasePath).GetAll("config")
		check(t, err)
		stored := slices.Sorted(maps.Keys(entries))
		slices.Sort(watched)
		slices.Sort(called)
		if !slices.Equal(watched, stored) || !slices.Equal(called, stored) || int(count.Load()) != len(stored) {
			t.Fatalf("round %d: %d writes returned nil, the watcher saw %d, the callback %d, the file holds %d",
				round, count.Load(), len(watched), len(called), len(stored))
		}
		for _, key := range stored {
			if _, ok := acknowledged.Load(key); !ok {
				t.Fatalf("round %d: the write of %s returned ErrClosed and is in the file", round, key)
			}
		}
	}
}

func TestStore_OnChange_RunsInTheWritersGoroutine(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		storeInstance.OnChange(func(event store.Event) {
			if got := goroutineID(); got != event.Key {
				t.Errorf("the callback for a write of goroutine %s ran in %s", event.Key, got)
			}
		})
		concurrently(16, func(int) {
			own := goroutineID()
			for index := range 20 {
				noError(t, storeInstance.Set("config", own, strconv.Itoa(index)))
			}
		})
	})
}

func TestStore_OnChange_MissesNothingAndKeepsEachWritersOrder(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		const writers, writes = 16, 40 // more than a watcher holds
		changes := recordChanges(storeInstance)
		returned := make([]int, writers)
		concurrently(writers, func(writer int) {
			seen := 0
			unregister := storeInstance.OnChange(func(event store.Event) {
				if event.Group == strconv.Itoa(writer) {
					seen++
				}
			})
			defer unregister()
			for index := range writes {
				noError(t, storeInstance.Set(strconv.Itoa(writer), "counter", strconv.Itoa(index)))
				if seen == index+1 {
					returned[writer]++
				}
			}
		})
		for writer, got := range returned {
			if got != writes {
				t.Errorf("writer %d: %d of %d writes returned after their callback", writer, got, writes)
			}
		}
		next := map[string]int{}
		for _, event := range changes() {
			if want := strconv.Itoa(next[event.Group]); event.Value != want {
				t.Fatalf("writer %s: callback for write %s, want %s first", event.Group, event.Value, want)
			}
			next[event.Group]++
		}
		for writer := range writers {
			if got := next[strconv.Itoa(writer)]; got != writes {
				t.Errorf("writer %d: the callback saw %d writes, want %d", writer, got, writes)
			}
		}
	})
}

func TestStore_OnChange_RunsInTheOrderOfRegistration(t *testing.T) {
	storeInstance := newMemoryStore(t)
	var order []string
	register := func(name string) func() {
		return storeInstance.OnChange(func(store.Event) { order = append(order, name) })
	}
	wantOrder := func(value string, want ...string) {
		t.Helper()
		order = nil
		check(t, storeInstance.Set("config", "colour", value))
		if !slices.Equal(order, want) {
			t.Fatalf("callbacks ran as %v, want %v", order, want)
		}
	}
	var want []string
	unregister := map[string]func(){}
	for _, name := range strings.Split("jihgfedcba", "") {
		unregister[name] = register(name)
		want = append(want, name)
	}
	wantOrder("blue", want...)
	unregister["h"]()
	unregister["j"]()
	register("h")
	wantOrder("green", "i", "g", "f", "e", "d", "c", "b", "a", "h")
}

func TestStore_OnChange_ComesAfterCommitAndWatchers(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	early := storeInstance.Watch("config", "*")
	var late *store.Watcher
	calls := 0
	storeInstance.OnChange(func(event store.Event) {
		calls++
		wantEvents(t, early, withoutTime([]store.Event{event})...)
		wantEvents(t, late, withoutTime([]store.Event{event})...)
		checkValue(t, storeInstance, "config", "colour", event.Value)
		var elsewhere string
		check(t, database.QueryRow(`SELECT entry_value FROM entries`).Scan(&elsewhere))
		if elsewhere != event.Value {
			t.Errorf("in the callback another connection reads %q, want %q", elsewhere, event.Value)
		}
	})
	late = storeInstance.Watch("*", "colour")
	check(t, storeInstance.Set("config", "colour", "blue"))
	check(t, storeInstance.Set("config", "colour", "green"))
	if calls != 2 {
		t.Fatalf("%d callbacks for 2 writes", calls)
	}
}

func TestStore_OnChange_WatchersAndCallbacksGetTheSameEvent(t *testing.T) {
	storeInstance := newMemoryStore(t)
	watcher := storeInstance.Watch("*", "*")
	var called store.Event
	storeInstance.OnChange(func(event store.Event) { called = event })
	check(t, storeInstance.Set("config", "colour", "blue"))
	if watched := <-watcher.Events; watched != called {
		t.Fatalf("watcher got %+v, callback %+v", watched, called)
	}
}

func TestStore_OnChange_BlockedCallbackHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, _ := newFileStore(t)
		watcher := storeInstance.Watch("*", "*")
		blocked, release := make(chan struct{}), make(chan struct{})
		var others atomic.Int64
		storeInstance.OnChange(func(event store.Event) {
			if event.Key == "blocks" {
				close(blocked)
				<-release
				return
			}
			others.Add(1)
		})
		var writer sync.WaitGroup
		writer.Go(func() { noError(t, storeInstance.Set("config", "blocks", "")) })
		<-blocked
		finishes(t, "work beside a callback that blocks", func() {
			concurrently(8, func(index int) {
				noError(t, storeInstance.Set("config", strconv.Itoa(index), ""))
				_, err := storeInstance.GetAll("config")
				noError(t, err)
				storeInstance.Unwatch(storeInstance.Watch("config", "*"))
				storeInstance.OnChange(func(store.Event) {})()
			})
		})
		close(release)
		writer.Wait()
		if got := others.Load(); got != 8 {
			t.Errorf("%d callbacks ran beside the blocked one, want 8", got)
		}
		if got := len(bufferedEvents(watcher)); got != 9 {
			t.Errorf("watcher got %d events, want 9", got)
		}
	})
}

func TestStore_OnChange_RegisteredInsideSeesTheNext(t *testing.T) {
	storeInstance := newMemoryStore(t)
	var inner []string
	var register sync.Once
	storeInstance.OnChange(func(store.Event) {
		register.Do(func() {
			storeInstance.OnChange(func(event store.Event) { inner = append(inner, event.Value) })
		})
	})
	check(t, storeInstance.Set("config", "colour", "blue"))
	check(t, storeInstance.Set("config", "colour", "green"))
	if want := []string{"green"}; !slices.Equal(inner, want) {
		t.Fatalf("a callback registered during the first event saw %v, want %v", inner, want)
	}
}

func TestStore_OnChange_UnregistersItselfAndOthersInside(t *testing.T) {
	storeInstance := newMemoryStore(t)
	counts := map[string]int{}
	var unregisterSelf, unregisterBefore func()
	unregisterBefore = storeInstance.OnChange(func(store.Event) { counts["before"]++ })
	unregisterSelf = storeInstance.OnChange(func(store.Event) {
		counts["self"]++
		unregisterSelf()
		unregisterBefore()
	})
	storeInstance.OnChange(func(store.Event) { counts["after"]++ })
	for index := range 3 {
		check(t, storeInstance.Set("config", "colour", strconv.Itoa(index)))
	}
	if want := map[string]int{"before": 1, "self": 1, "after": 3}; !maps.Equal(counts, want) {
		t.Fatalf("callbacks ran %v times, want %v", counts, want)
	}
}

func TestStore_OnChange_UnregisterIsIdempotent(t *testing.T) {
	storeInstance := newMemoryStore(t)
	count := 0
	callback := func(store.Event) { count++ }
	first := storeInstance.OnChange(callback)
	storeInstance.OnChange(callback)
	check(t, storeInstance.Set("config", "colour", "blue"))
	if count != 2 {
		t.Fatalf("one function registered twice ran %d times, want 2", count)
	}
	concurrently(8, func(int) { first() })
	first()
	check(t, storeInstance.Set("config", "colour", "green"))
	if count != 3 {
		t.Fatalf("after unregistering one of two, again and again, the second write ran %d callbacks, want 1", count-2)
	}
}

func TestStore_OnChange_NilRegistersNothing(t *testing.T) {
	storeInstance := newMemoryStore(t)
	unregister := storeInstance.OnChange(nil)
	check(t, storeInstance.Set("config", "colour", "blue"))
	unregister()
	unregister()
	check(t, storeInstance.Set("config", "colour", "green"))
}

func TestStore_OnChange_NestedWriteRunsItsCallbacksFirst(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		watcher := storeInstance.Watch("*", "*")
		var order []string
		storeInstance.OnChange(func(event store.Event) {
			order = append(order, "first "+event.Group)
			if event.Group == "config" {
				noError(t, storeInstance.Set("audit", event.Key, event.Value))
			}
		})
		storeInstance.OnChange(func(event store.Event) { order = append(order, "second "+event.Group) })
		check(t, storeInstance.Set("config", "colour", "blue"))
		if want := []string{"first config", "first audit", "second audit", "second config"}; !slices.Equal(order, want) {
			t.Errorf("callbacks ran as %q, want %q", order, want)
		}
		wantEvents(t, watcher, setEvent("config", "colour", "blue"), setEvent("audit", "colour", "blue"))
	})
}

func TestStore_OnChange_NestedWritesOfManyWriters(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		storeInstance.OnChange(func(event store.Event) {
			if event.Group == "config" {
				noError(t, storeInstance.Set("audit", event.Key, event.Value))
			}
		})
		const writers, writes = 16, 10
		finishes(t, "writing inside the callbacks of many writers", func() {
			concurrently(writers, func(writer int) {
				for index := range writes {
					noError(t, storeInstance.Set("config", fmt.Sprint(writer, "-", index), ""))
				}
			})
		})
		count, err := storeInstance.Count("audit")
		check(t, err)
		checkEqual(t, `Count("audit")`, count, writers*writes)
	})
}

func TestStore_OnChange_MayCallEveryMethod(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.SetWithTTL("session", "token", "abc123", 0))
		inside := false
		ran := 0
		storeInstance.OnChange(func(event store.Event) {
			if inside {
				return
			}
			inside = true
			defer func() { inside = false }()
			ran++
			scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 10})
			check(t, err)
			noError(t, callEveryMethod(scopedStore))
			noError(t, callEveryMethod(storeInstance))
			watcher := storeInstance.Watch("config", "*")
			unregister := storeInstance.OnChange(func(store.Event) {})
			noError(t, storeInstance.Set("config", "nested", event.Value))
			wantEvents(t, watcher, setEvent("config", "nested", event.Value))
			unregister()
			storeInstance.Unwatch(watcher)
		})
		finishes(t, "a callback that calls every method", func() {
			noError(t, storeInstance.Set("outer", "colour", "blue"))
			noError(t, storeInstance.Delete("outer", "colour"))
		})
		if ran != 2 {
			t.Errorf("%d outer callbacks for 2 writes", ran)
		}
	})
}

func TestStore_OnChange_MayClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		watcher := storeInstance.Watch("*", "*")
		remaining := 0
		storeInstance.OnChange(func(store.Event) { noError(t, storeInstance.Close()) })
		storeInstance.OnChange(func(store.Event) { remaining++ })
		finishes(t, "Close inside a callback", func() { noError(t, storeInstance.Set("config", "colour", "blue")) })
		if remaining != 1 {
			t.Errorf("the callback after the one that closed ran %d times, want 1", remaining)
		}
		wantEvents(t, watcher, setEvent("config", "colour", "blue"))
		wantEnded(t, watcher)
		wantErrorIs(t, storeInstance.Set("config", "colour", "green"), os.ErrClosed)
		checkValue(t, openStore(t, databasePath), "config", "colour", "blue")
	})
}

func TestStore_OnChange_PanicReachesTheCallerAndKeepsTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		watcher := storeInstance.Watch("*", "*")
		var before, after int
		storeInstance.OnChange(func(store.Event) { before++ })
		unregister := storeInstance.OnChange(func(store.Event) { panic("callback") })
		storeInstance.OnChange(func(store.Event) { after++ })
		scopedStore, err := store.NewScoped(storeInstance, "tenant-a")
		check(t, err)
		writes := []func() error{
			func() error { return storeInstance.Set("config", "colour", "blue") },
			func() error { return storeInstance.SetWithTTL("session", "token", "abc123", time.Hour) },
			func() error { return storeInstance.Delete("config", "colour") },
			func() error { return storeInstance.DeleteGroup("session") },
			func() error { return scopedStore.Set("config", "colour", "green") },
		}
		for index, write := range writes {
			finishes(t, "a write whose callback panics", func() {
				if got := panicOf(func() { noError(t, write()) }); got != "callback" {
					t.Errorf("write %d: panic = %v, want that of the callback", index, got)
				}
			})
		}
		if before != len(writes) || after != 0 {
			t.Errorf("callbacks before the panic ran %d times, after it %d, want %d and 0", before, after, len(writes))
		}
		wantEvents(t, watcher, setEvent("config", "colour", "blue"), setEvent("session", "token", "abc123"),
			deleteEvent("config", "colour"), deleteGroupEvent("session"), setEvent("tenant-a:config", "colour", "green"))
		unregister()
		finishes(t, "a write after a panic", func() { noError(t, storeInstance.Set("config", "size", "10")) })
		if after != 1 {
			t.Errorf("the callback after the unregistered one ran %d times, want 1", after)
		}
		check(t, storeInstance.Close())
		reopened := openStore(t, databasePath)
		checkValue(t, reopened, "tenant-a:config", "colour", "green")
		checkValue(t, reopened, "config", "size", "10")
		checkMissing(t, reopened, "config", "colour")
	})
}

func TestStore_OnChange_PanicOfOneWriterSparesTheOthers(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		watcher := storeInstance.Watch("*", "*")
		storeInstance.OnChange(func(event store.Event) {
			if event.Value == "panics" {
				panic(event.Key)
			}
			if event.Value == "exits" {
				runtime.Goexit()
			}
		})
		const writers, writes = 16, 15
		var returned atomic.Int64
		concurrently(writers, func(writer int) {
			for index := range writes {
				key, value := fmt.Sprint(writer, "-", index), "returns"
				if writer%2 == 0 {
					value = "panics"
				}
				if writer%4 == 1 && index == writes-1 {
					value = "exits"
				}
				var want any
				if value == "panics" {
					want = key
				}
				if got := panicOf(func() { noError(t, storeInstance.Set("config", key, value)) }); got != want {
					t.Errorf("Set of %s panicked with %v, want %v", key, got, want)
				}
				returned.Add(1)
			}
		})
		if got, want := returned.Load(), int64(writers*writes-writers/4); got != want {
			t.Errorf("%d writes came back, want %d", got, want)
		}
		if got := len(bufferedEvents(watcher)); got != writers*writes {
			t.Errorf("watcher got %d events, want %d", got, writers*writes)
		}
		count, err := storeInstance.Count("config")
		check(t, err)
		if count != writers*writes {
			t.Errorf("Count = %d, want %d", count, writers*writes)
		}
	})
}

func TestStore_OnChange_GoexitLeavesTheStoreUsable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, _ := newFileStore(t)
		watcher := storeInstance.Watch("*", "*")
		unregister := storeInstance.OnChange(func(store.Event) { runtime.Goexit() })
		returned := false
		finishes(t, "a write whose callback exits", func() {
			noError(t, storeInstance.Set("config", "colour", "blue"))
			returned = true
		})
		if returned {
			t.Error("Set returned to a goroutine that its callback had ended")
		}
		unregister()
		finishes(t, "a write after runtime.Goexit", func() { noError(t, storeInstance.Set("config", "size", "10")) })
		checkValue(t, storeInstance, "config", "colour", "blue")
		wantEvents(t, watcher, setEvent("config", "colour", "blue"), setEvent("config", "size", "10"))
	})
}

func TestStore_FailedWriteEmitsNothing(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	check(t, storeInstance.Set("poisoned group", "poisoned", "1"))
	check(t, storeInstance.Set("poisoned group", "live", "1"))
	poison(t, databasePath, "ABORT")
	watcher := storeInstance.Watch("*", "*")
	changes := recordChanges(storeInstance)
	for name, err := range map[string]error{
		"Set":         storeInstance.Set("config", "poisoned", "2"),
		"SetWithTTL":  storeInstance.SetWithTTL("config", "poisoned", "2", time.Hour),
		"overwrite":   storeInstance.Set("poisoned group", "poisoned", "2"),
		"Delete":      storeInstance.Delete("poisoned group", "poisoned"),
		"DeleteGroup": storeInstance.DeleteGroup("poisoned group"),
	} {
		if err == nil {
			t.Errorf("%s of a poisoned key succeeded: nothing failed", name)
		}
	}
	if got := append(bufferedEvents(watcher), changes()...); len(got) != 0 {
		t.Errorf("failed writes emitted %+v", got)
	}
	checkValue(t, storeInstance, "poisoned group", "live", "1")
	check(t, storeInstance.Set("config", "colour", "blue"))
	wantEvents(t, watcher, setEvent("config", "colour", "blue"))
}

func TestStore_NoEventBeforeTheCommit(t *testing.T) {
	storeInstance, hook := openWithCommitHook(t, filepath.Join(t.TempDir(), "store.db"))
	watcher := storeInstance.Watch("*", "*")
	changes := recordChanges(storeInstance)
	commits := 0
	hook.set(func() int32 {
		commits++
		if watched, called := len(watcher.Events), len(changes()); watched != 0 || called != 0 {
			t.Errorf("inside the commit the watcher has %d events and the callback had %d, want none", watched, called)
		}
		return 0
	})
	check(t, storeInstance.Set("config", "colour", "blue"))
	hook.set(nil)
	if commits == 0 {
		t.Error("no commit was seen")
	}
	wantEvents(t, watcher, setEvent("config", "colour", "blue"))
}

func TestStore_FailedFlushEmitsNothing(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	check(t, storeInstance.Set("config", "colour", "blue"))
	watcher := storeInstance.Watch("*", "*")
	changes := recordChanges(storeInstance)
	breakFlush(t, databasePath)
	for name, err := range map[string]error{
		"Set":         storeInstance.Set("config", "colour", "green"),
		"SetWithTTL":  storeInstance.SetWithTTL("session", "token", "abc123", time.Hour),
		"Delete":      storeInstance.Delete("config", "colour"),
		"DeleteGroup": storeInstance.DeleteGroup("config"),
	} {
		if err == nil {
			t.Errorf("%s returned nil without a flush", name)
		}
	}
	concurrently(8, func(writer int) {
		if err := storeInstance.Set("config", strconv.Itoa(writer), ""); err == nil {
			t.Error("Set returned nil after a flush that failed")
		}
	})
	if got := append(bufferedEvents(watcher), changes()...); len(got) != 0 {
		t.Errorf("writes whose flush failed emitted %+v", got)
	}
}

func TestStore_BusyWriteEmitsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		watcher := storeInstance.Watch("*", "*")
		changes := recordChanges(storeInstance)
		release := lockForWriting(t, databasePath)
		concurrently(4, func(writer int) {
			if err := storeInstance.Set("config", strconv.Itoa(writer), ""); err == nil {
				t.Error("Set succeeded while another connection held the write lock")
			}
		})
		release()
		if got := append(bufferedEvents(watcher), changes()...); len(got) != 0 {
			t.Errorf("busy writes emitted %+v", got)
		}
		check(t, storeInstance.Set("config", "colour", "blue"))
		wantEvents(t, watcher, setEvent("config", "colour", "blue"))
	})
}

// TestStore_SharedCommitThatFails_EmitsEachEventOnce lets every seventh write of many end the transaction that it shares:
// the others run again, and neither that nor the order of it may show in their events.
func TestStore_SharedCommitThatFails_EmitsEachEventOnce(t *testing.T) {
	for _, action := range []string{"ABORT", "ROLLBACK"} {
		t.Run(action, func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			poison(t, databasePath, action)
			watcher := storeInstance.Watch("*", "*")
			changes := recordChanges(storeInstance)
			var want []store.Event
			for writer := range 16 {
				for index := range 16 {
					if (writer+index)%7 != 0 {
						want = append(want, setEvent(strconv.Itoa(writer), strconv.Itoa(index), "value"))
					}
				}
			}
			concurrently(16, func(writer int) {
				for index := range 16 {
					if (writer+index)%7 != 0 {
						noError(t, storeInstance.Set(strconv.Itoa(writer), strconv.Itoa(index), "value"))
					} else if err := storeInstance.Set(strconv.Itoa(writer), "poisoned", "value"); err == nil {
						t.Error("Set of a poisoned key succeeded")
					}
				}
			})
			for source, got := range map[string][]store.Event{
				"watcher": withoutTime(bufferedEvents(watcher)), "callback": changes(),
			} {
				slices.SortStableFunc(got, func(a, b store.Event) int { return compareNumbers(a.Group, b.Group) })
				if !slices.Equal(got, want) {
					t.Errorf("%s got %d events, want the %d of the writes that succeeded, each once and in its writer's order",
						source, len(got), len(want))
				}
			}
		})
	}
}

// TestStore_WriteTriedAgainAlone_IsJudgedAgain lets a shared commit fail and then, alone, the first of its writes, so that the
// second, which had something to remove the first time, finds nothing.
func TestStore_WriteTriedAgainAlone_IsJudgedAgain(t *testing.T) {
	for name, remove := range map[string]func(storeInstance *store.Store) error{
		"Delete":      func(storeInstance *store.Store) error { return storeInstance.Delete("config", "colour") },
		"DeleteGroup": func(storeInstance *store.Store) error { return storeInstance.DeleteGroup("config") },
	} {
		t.Run(name, func(t *testing.T) {
			onEachPathInBubble(t, func(t *testing.T, databasePath string) {
				storeInstance, hook := openWithCommitHook(t, databasePath)
				watcher := storeInstance.Watch("config", "*")
				commits := 0
				hook.afterGather = func() int32 {
					if commits++; commits <= 2 {
						return 1
					}
					return 0
				}
				errs := hook.gather(storeInstance,
					func() error { return storeInstance.Set("config", "colour", "blue") },
					func() error { return remove(storeInstance) })
				if errs[0] == nil || errs[1] != nil {
					t.Fatalf("Set = %v, %s = %v, want the first to fail alone", errs[0], name, errs[1])
				}
				wantEvents(t, watcher)
			})
		})
	}
}

func compareNumbers(first, second string) int {
	return cmp.Or(cmp.Compare(len(first), len(second)), cmp.Compare(first, second))
}

func TestStore_EventsUnderChurn(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		storeInstance.OnChange(func(event store.Event) {
			if event.Value == "0" {
				storeInstance.OnChange(func(store.Event) {})()
			}
		})
		concurrently(8, func(index int) {
			var watchers []*store.Watcher
			for turn := range 60 {
				watcher := storeInstance.Watch("*", "*")
				watchers = append(watchers, watcher)
				err := storeInstance.Set("config", strconv.Itoa(index), strconv.Itoa(turn))
				if err != nil && !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
				concurrently(2, func(int) { storeInstance.Unwatch(watcher) })
				if index == 0 && turn == 40 {
					noError(t, storeInstance.Close())
				}
			}
			for _, watcher := range watchers {
				bufferedEvents(watcher)
				wantEnded(t, watcher)
			}
		})
	})
}

func ExampleStore_Watch() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer storeInstance.Close()

	watcher := storeInstance.Watch("config", "*")
	if err := storeInstance.Set("config", "colour", "blue"); err != nil {
		log.Fatal(err)
	}
	if err := storeInstance.Set("session", "token", "abc123"); err != nil {
		log.Fatal(err)
	}
	if err := storeInstance.DeleteGroup("config"); err != nil {
		log.Fatal(err)
	}
	storeInstance.Unwatch(watcher)

	for event := range watcher.Events {
		fmt.Printf("%s %s/%s %q\n", event.Type, event.Group, event.Key, event.Value)
	}
	// Output:
	// set config/colour "blue"
	// delete_group config/ ""
}

// A watcher's buffer is bounded, and a reader that is too slow loses the newest events. It can tell: a buffer that was
// full is still all but full just after the next receive.
func ExampleWatcher() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer storeInstance.Close()

	watcher := storeInstance.Watch("config", "colour")
	for number := range 1000 {
		if err := storeInstance.Set("config", "colour", fmt.Sprintf("blue %d", number)); err != nil {
			log.Fatal(err)
		}
	}
	storeInstance.Unwatch(watcher)

	var colour string
	for event := range watcher.Events {
		colour = event.Value
		if len(watcher.Events) >= cap(watcher.Events)-1 {
			// What is left in the buffer is older than what the store holds.
			for len(watcher.Events) > 0 {
				<-watcher.Events
			}
			if colour, err = storeInstance.Get("config", "colour"); err != nil {
				log.Fatal(err)
			}
		}
	}
	fmt.Println(colour)
	// Output:
	// blue 999
}

func ExampleStore_Unwatch() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer storeInstance.Close()

	watcher := storeInstance.Watch("*", "*")
	storeInstance.Unwatch(watcher)
	storeInstance.Unwatch(watcher)
	_, open := <-watcher.Events
	fmt.Println(open)
	// Output:
	// false
}

func ExampleStore_OnChange() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer storeInstance.Close()

	// A callback may write too, and is called for what it writes.
	unregister := storeInstance.OnChange(func(event store.Event) {
		fmt.Println(event.Type, event.Group, event.Key, event.Value)
		if event.Group == "config" {
			if err := storeInstance.Set("audit", event.Key, event.Type.String()); err != nil {
				log.Fatal(err)
			}
		}
	})
	if err := storeInstance.Set("config", "colour", "blue"); err != nil {
		log.Fatal(err)
	}
	unregister()
	if err := storeInstance.Set("config", "colour", "green"); err != nil {
		log.Fatal(err)
	}
	// Output:
	// set config colour blue
	// set audit colour set
}

func ExampleEventType_String() {
	fmt.Println(store.EventSet, store.EventDelete, store.EventDeleteGroup, store.EventType(-1))
	// Output:
	// set delete delete_group unknown
}

func BenchmarkStore_Watch(b *testing.B) {
	for _, count := range []int{0, 1, 100} {
		b.Run(fmt.Sprintf("watchers=%d", count), func(b *testing.B) {
			storeInstance := newMemoryStore(b)
			var readers sync.WaitGroup
			var delivered atomic.Int64
			for range count {
				watcher := storeInstance.Watch("config", "*")
				readers.Go(func() {
					received := int64(0)
					for range watcher.Events {
						received++
					}
					delivered.Add(received)
				})
			}
			benchmarkSet(b, storeInstance)
			check(b, storeInstance.Close())
			readers.Wait()
			if count > 0 {
				b.ReportMetric(100*float64(delivered.Load())/float64(count*b.N), "%delivered")
			}
		})
	}
}

func BenchmarkStore_OnChange(b *testing.B) {
	for _, count := range []int{0, 1, 100} {
		b.Run(fmt.Sprintf("callbacks=%d", count), func(b *testing.B) {
			storeInstance := newMemoryStore(b)
			called := 0
			for range count {
				storeInstance.OnChange(func(store.Event) { called++ })
			}
			benchmarkSet(b, storeInstance)
			if called != count*b.N {
				b.Fatalf("%d callbacks, want %d", called, count*b.N)
			}
		})
	}
}

// benchmarkSet measures overwrites that change the value: SQLite writes nothing otherwise.
func benchmarkSet(b *testing.B, writer interface {
	Set(group, key, value string) error
}) {
	values := [2]string{"blue", "green"}
	turn := 0
	b.ReportAllocs()
	for b.Loop() {
		turn++
		check(b, writer.Set("config", "colour", values[turn%2]))
	}
}
