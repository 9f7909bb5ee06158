package reliability_test

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dappco.re/go/core/store"
)

// kinds are the writes whose flush is looked for. Each works in a group of its own, which holds the key "old" and
// an expired entry.
var kinds = []struct {
	name    string
	changes bool // there are pages to be found in the log
	event   bool
	run     func(storeInstance *store.Store, scopedStore *store.ScopedStore, group, value string) error
}{
	{"Set", true, true, func(s *store.Store, _ *store.ScopedStore, group, value string) error {
		return s.Set(group, "new", value)
	}},
	{"SetWithTTL", true, true, func(s *store.Store, _ *store.ScopedStore, group, value string) error {
		return s.SetWithTTL(group, "new", value, time.Hour)
	}},
	{"SetWithTTL elapsed", true, true, func(s *store.Store, _ *store.ScopedStore, group, value string) error {
		return s.SetWithTTL(group, "new", value, 0)
	}},
	{"Set unchanged", false, true, func(s *store.Store, _ *store.ScopedStore, group, _ string) error {
		return s.Set(group, "old", "old")
	}},
	{"Delete", true, true, func(s *store.Store, _ *store.ScopedStore, group, _ string) error {
		return s.Delete(group, "old")
	}},
	{"Delete missing", false, false, func(s *store.Store, _ *store.ScopedStore, group, _ string) error {
		return s.Delete(group, "missing")
	}},
	{"DeleteGroup", true, true, func(s *store.Store, _ *store.ScopedStore, group, _ string) error {
		return s.DeleteGroup(group)
	}},
	{"DeleteGroup missing", false, false, func(s *store.Store, _ *store.ScopedStore, group, _ string) error {
		return s.DeleteGroup(group + " missing")
	}},
	{"PurgeExpired", true, false, func(s *store.Store, _ *store.ScopedStore, _, _ string) error {
		return purged(s.PurgeExpired())
	}},
	{"scoped Set", true, true, func(_ *store.Store, s *store.ScopedStore, group, value string) error {
		return s.Set(group, "new", value)
	}},
	{"scoped SetWithTTL", true, true, func(_ *store.Store, s *store.ScopedStore, group, value string) error {
		return s.SetWithTTL(group, "new", value, time.Hour)
	}},
	{"scoped Delete", true, true, func(_ *store.Store, s *store.ScopedStore, group, _ string) error {
		return s.Delete(group, "old")
	}},
	{"scoped DeleteGroup", true, true, func(_ *store.Store, s *store.ScopedStore, group, _ string) error {
		return s.DeleteGroup(group)
	}},
	{"scoped PurgeExpired", true, false, func(_ *store.Store, s *store.ScopedStore, _, _ string) error {
		return purged(s.PurgeExpired())
	}},
}

// errNothing is that of a purge whose rows another one removed, so that it has nothing to wait for.
var errNothing = errors.New("nothing was removed")

func purged(removed int64, err error) error {
	if err == nil && removed == 0 {
		return errNothing
	}
	return err
}

// A child of the flush tests reports "begin", "event" (a callback's), "watched" (a watcher's) and "end" of each
// write, which has a name that nothing else contains and that its value, if any, repeats.
func init() {
	roles["flush"] = func() {
		goroutines, err := strconv.Atoi(os.Args[2])
		if err != nil {
			fatalf("%v", err)
		}
		storeInstance, err := store.New(os.Args[1])
		if err != nil {
			fatalf("New: %v", err)
		}
		var group sync.WaitGroup
		for number := range goroutines {
			group.Go(func() {
				for kind := range kinds {
					flushOne(storeInstance, number, kind)
				}
			})
		}
		group.Wait()
	}
	// A child that only reads, and by that removes what has expired.
	roles["look"] = func() {
		storeInstance, err := store.New(os.Args[1])
		if err != nil {
			fatalf("New: %v", err)
		}
		if value, err := storeInstance.Get("group", "key"); err != nil || value != "value" {
			fatalf("Get = %q, %v", value, err)
		}
		if os.Args[2] == "expired" {
			if _, err := storeInstance.Get("group", "expired"); !errors.Is(err, store.NotFoundError) {
				fatalf("Get of what has expired: %v", err)
			}
		}
		if err := storeInstance.Close(); err != nil {
			fatalf("Close: %v", err)
		}
	}
}

func flushOne(storeInstance *store.Store, number, kind int) {
	name := writeName(number, kind)
	tenant := fmt.Sprintf("tenant%d", number)
	scopedStore, err := store.NewScopedWithQuota(storeInstance, tenant, store.QuotaConfig{MaxKeys: 100, MaxGroups: 100})
	if err != nil {
		fatalf("%s: NewScopedWithQuota: %v", name, err)
	}
	for _, err := range []error{
		storeInstance.Set(name, "old", "old"),
		storeInstance.SetWithTTL(name, "expired", "old", 0),
		scopedStore.Set(name, "old", "old"),
		scopedStore.SetWithTTL(name, "expired", "old", 0),
	} {
		if err != nil {
			fatalf("%s: %v", name, err)
		}
	}
	report := func(what string) { fmt.Fprintf(os.Stdout, "%s %s\n", what, name) }
	fullGroup := name
	if strings.HasPrefix(kinds[kind].name, "scoped ") {
		fullGroup = tenant + ":" + name
	}
	watcher := storeInstance.Watch(fullGroup, "*")
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if _, ok := <-watcher.Events; ok {
			report("watched")
		}
	}()
	unregister := storeInstance.OnChange(func(event store.Event) {
		if event.Group == fullGroup {
			report("event")
		}
	})
	defer unregister()
	report("begin")
	err = kinds[kind].run(storeInstance, scopedStore, name, "value of "+name)
	switch {
	case errors.Is(err, errNothing):
		report("nothing")
	case err != nil:
		fatalf("%s: %v", name, err)
	}
	report("end")
	if !kinds[kind].event {
		storeInstance.Unwatch(watcher)
	}
	<-watched
	storeInstance.Unwatch(watcher)
}

func writeName(number, kind int) string {
	return fmt.Sprintf("<%s by %d>", kinds[kind].name, number)
}

// TestFlush_BeginsAfterThePagesAndEndsBeforeAnybodyKnows looks, for each kind of write, for the flush of the log
// between the pages that it wrote and the first that anybody could learn of it.
func TestFlush_BeginsAfterThePagesAndEndsBeforeAnybodyKnows(t *testing.T) {
	t.Parallel()
	for _, goroutines := range []int{1, 16} {
		t.Run(fmt.Sprintf("Goroutines=%d", goroutines), func(t *testing.T) {
			databasePath := filepath.Join(t.TempDir(), databaseName)
			calls := traceChild(t, "", "flush", databasePath, strconv.Itoa(goroutines))
			trace := newFlushTrace(databasePath+"-wal", calls)
			for number := range goroutines {
				for kind := range kinds {
					trace.check(t, number, kind, goroutines == 1)
				}
			}
			const preparations = 4
			writes := goroutines * len(kinds) * (1 + preparations)
			if goroutines > 1 && 2*len(trace.flushes) > writes {
				t.Errorf("%d writes from %d goroutines took %d flushes; want at most half as many", writes, goroutines, len(trace.flushes))
			}
			t.Logf("%d writes of %d kinds from %d goroutines: %d flushes of the log", writes, len(kinds), goroutines, len(trace.flushes))
		})
	}
}

// flushTrace is what a record says of the log and of the writes.
type flushTrace struct {
	flushes []*systemCall
	pages   []*systemCall                     // written to the log
	commits []*systemCall                     // those of them that end a transaction
	reports map[string]map[string]*systemCall // by the name of the write and by what is reported
}

func newFlushTrace(logPath string, calls []*systemCall) *flushTrace {
	trace := &flushTrace{reports: map[string]map[string]*systemCall{}}
	ends := false
	for _, call := range calls {
		switch {
		case call.isReport():
			what, name, _ := strings.Cut(strings.TrimSuffix(string(call.data), "\n"), " ")
			if trace.reports[name] == nil {
				trace.reports[name] = map[string]*systemCall{}
			}
			trace.reports[name][what] = call
		case call.path != logPath || call.err != "":
		case call.isFlush():
			trace.flushes = append(trace.flushes, call)
		case call.name == "pwrite64" && len(call.data) == frameHeaderSize:
			// The size of the database stands in the header of the last frame of a transaction alone.
			ends = binary.BigEndian.Uint32(call.data[4:]) != 0
		case call.name == "pwrite64" && len(call.data) > logHeaderSize:
			trace.pages = append(trace.pages, call)
			if ends {
				trace.commits = append(trace.commits, call)
			}
		}
	}
	return trace
}

const logHeaderSize, frameHeaderSize = 32, 24

func (trace *flushTrace) check(t *testing.T, number, kind int, alone bool) {
	t.Helper()
	name := writeName(number, kind)
	reports := trace.reports[name]
	if reports["nothing"] != nil && !alone {
		return
	}
	begin, known := reports["begin"], reports["end"]
	if begin == nil || known == nil {
		t.Fatalf("%s: reports %v; want begin and end", name, reports)
	}
	for _, what := range []string{"event", "watched"} {
		if report := reports[what]; (report != nil) != kinds[kind].event {
			t.Errorf("%s: %s reported: %t; want %t", name, what, report != nil, kinds[kind].event)
		} else if report != nil && report.start < known.start {
			known = report
		}
	}
	committed := begin
	if page := trace.page(begin, known, name, alone); page != nil {
		committed = page
		for _, commit := range trace.commits {
			if commit.start >= page.start {
				committed = commit
				break
			}
		}
	} else if alone && kinds[kind].changes {
		t.Errorf("%s: no page of it is in the log before it is reported", name)
	}
	for _, flush := range trace.flushes {
		if flush.start > committed.end && flush.end < known.start {
			return
		}
	}
	t.Errorf("%s: no flush of the log lies between the end of its commit (place %d of the record) and the first report (place %d)",
		name, committed.end, known.start)
}

// page returns a page of the write: where it is alone, the last one of all; in company, the first that holds its
// value, which exists for some kinds only.
func (trace *flushTrace) page(begin, known *systemCall, name string, alone bool) (found *systemCall) {
	for _, page := range trace.pages {
		if page.start < begin.end || page.start > known.start {
			continue
		}
		if alone {
			found = page
		} else if bytes.Contains(page.data, []byte("value of "+name)) {
			return page
		}
	}
	return found
}

// A child that writes to a log that another program has begun without a flush, so that SQLite has no reason for one of its name.
func init() {
	roles["write beside"] = func() {
		database, err := sql.Open("sqlite", databaseURI(os.Args[1]))
		if err != nil {
			fatalf("%v", err)
		}
		if _, err := database.Exec("PRAGMA synchronous = OFF; INSERT INTO entries VALUES ('group', 'other', '', NULL)"); err != nil {
			fatalf("%v", err)
		}
		storeInstance, err := store.New(os.Args[1])
		if err != nil {
			fatalf("New: %v", err)
		}
		if err := storeInstance.Set("group", "key", "value"); err != nil {
			fatalf("Set: %v", err)
		}
		os.Stdout.WriteString("end\n")
	}
}

// TestFlush_IncludesTheNameOfTheLog looks for the flush of the directory between the making of the log and the end of the first
// write.
func TestFlush_IncludesTheNameOfTheLog(t *testing.T) {
	t.Parallel()
	databasePath := filepath.Join(t.TempDir(), databaseName)
	if err := openStore(t, databasePath).Close(); err != nil {
		t.Fatal(err)
	}
	created, flushed := false, false
	for _, call := range traceChild(t, "", "write beside", databasePath) {
		switch {
		case call.creates && call.path == databasePath+"-wal":
			created, flushed = true, false
		case created && call.isFlush() && call.err == "" && call.path == filepath.Dir(databasePath):
			flushed = true
		case call.isReport():
			if !created || !flushed {
				t.Errorf("the log was made: %t; its name was flushed before Set returned: %t", created, flushed)
			}
			return
		}
	}
	t.Error("Set did not return")
}

// TestFlush_CloseFlushesWhatHasNotBeen counts the flushes of a store that only reads, and of one whose read removes
// what has expired, which waits for no flush: Close makes up for it.
func TestFlush_CloseFlushesWhatHasNotBeen(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]bool{"nothing": false, "expired": true} {
		t.Run(what, func(t *testing.T) {
			databasePath := filepath.Join(t.TempDir(), databaseName)
			storeInstance := openStore(t, databasePath)
			if err := errors.Join(storeInstance.Set("group", "key", "value"), storeInstance.SetWithTTL("group", "expired", "value", 0),
				storeInstance.Close()); err != nil {
				t.Fatal(err)
			}
			flushes := 0
			for _, call := range traceChild(t, "", "look", databasePath, what) {
				if call.isFlush() {
					flushes++
				}
			}
			if flushes > 0 != want {
				t.Errorf("a store that has written %s: %d flushes", what, flushes)
			}
		})
	}
}
