package reliability_test

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"dappco.re/go/core/store"
)

const historyWorkers = 16

var historyKeys = []string{"a", "b", "c", "d"}

// TestHistory_OneCommitOrderExplainsAll lets 16 goroutines read and write few keys while watchers listen. All
// watchers must see one order, and commits in that order must explain what every read found: each value must have
// been current at a moment of the call that read it, so that no read misses a write that returned before it began.
func TestHistory_OneCommitOrderExplainsAll(t *testing.T) {
	for _, test := range []struct {
		name   string
		file   bool
		stores int
	}{
		{name: "memory", stores: 1},
		{name: "file", file: true, stores: 1},
		{name: "two stores on a file", file: true, stores: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			seed := newSeed(t)
			calls := 0
			for round := range scale(1, 8, 100) {
				path := ":memory:"
				if test.file {
					path = filepath.Join(t.TempDir(), "store.db")
				}
				calls += runHistory(t, path, test.stores, scale(200, 500, 2000), seed+uint64(round))
			}
			t.Logf("%d calls explained", calls)
		})
	}
}

// runHistory returns how many calls it checked. Each store writes a group of its own and reads all.
func runHistory(t *testing.T, path string, stores, calls int, seed uint64) int {
	t.Helper()
	clock := new(clock)
	var recorders []*recorderOfGroup
	for number := range stores {
		recorders = append(recorders, newRecorderOfGroup(t, path, fmt.Sprint("group", number)))
	}
	var workers []*historyWorker
	var group sync.WaitGroup
	for number := range historyWorkers {
		worker := &historyWorker{
			clock: clock, number: number / stores, random: newRandom(seed, uint64(number)),
			home: recorders[number%stores], recorders: recorders, observed: make([][]observation, stores),
		}
		worker.home.workers = append(worker.home.workers, worker)
		workers = append(workers, worker)
	}
	for _, worker := range workers {
		group.Go(func() { worker.run(t, calls) })
	}
	group.Wait()
	for number, recorder := range recorders {
		commits := recorder.finish(t)
		var observations []observation
		for _, worker := range workers {
			observations = append(observations, worker.observed[number]...)
		}
		if err := explain(commits, observations); err != nil {
			t.Fatalf("seed %d, %s: %v", seed, recorder.group, err)
		}
	}
	return calls * historyWorkers
}

// clock counts the beginnings and ends of calls, so that real time has an exact order.
type clock struct{ atomic.Int64 }

// span is when a call began and returned.
type span struct{ called, returned int64 }

func (clock *clock) time(call func()) span {
	called := clock.Add(1)
	call()
	return span{called, clock.Add(1)}
}

// commit is a write that changed something.
type commit struct {
	span
	eventType  store.EventType
	key, value string
}

// observation is what a read found: of the keys it asked for, those that have a value.
type observation struct {
	span
	keys   []string
	values map[string]string
}

// recorderOfGroup collects what is written to a group through one store, and what the store's watchers see of it.
type recorderOfGroup struct {
	storeInstance *store.Store
	group         string
	workers       []*historyWorker
	watchers      []*drain
	calledBack    atomic.Int64
}

// drain reads a watcher as fast as it can.
type drain struct {
	*store.Watcher
	key    string // "*" for any
	events []store.Event
	done   chan struct{}
}

func newRecorderOfGroup(t *testing.T, path, group string) *recorderOfGroup {
	t.Helper()
	recorder := &recorderOfGroup{storeInstance: openStore(t, path), group: group}
	for _, filter := range [][2]string{{"*", "*"}, {group, "*"}, {group, historyKeys[0]}, {"*", historyKeys[1]}} {
		drain := &drain{Watcher: recorder.storeInstance.Watch(filter[0], filter[1]), key: filter[1], done: make(chan struct{})}
		recorder.watchers = append(recorder.watchers, drain)
		go func() {
			defer close(drain.done)
			for event := range drain.Events {
				drain.events = append(drain.events, event)
			}
		}()
	}
	recorder.storeInstance.OnChange(recorder.onChange)
	return recorder
}

// onChange runs in the goroutine of the writer. Only one worker deletes a key, and one the group, so that a
// deletion's event tells that worker whether it removed anything.
func (recorder *recorderOfGroup) onChange(event store.Event) {
	recorder.calledBack.Add(1)
	switch event.Type {
	case store.EventDelete:
		recorder.workers[slices.Index(historyKeys, event.Key)].removed = true
	case store.EventDeleteGroup:
		recorder.workers[0].removed = true
	}
}

// pace waits while a watcher's buffer is half full: the rest is more than what the workers can add, so none
// of the watchers may lose anything.
func (recorder *recorderOfGroup) pace() {
	for _, drain := range recorder.watchers {
		for len(drain.Events) > cap(drain.Events)/2 {
			runtime.Gosched()
		}
	}
}

// finish ends the watchers, compares what they saw, and returns the commits in their order.
func (recorder *recorderOfGroup) finish(t *testing.T) []commit {
	t.Helper()
	for _, drain := range recorder.watchers {
		recorder.storeInstance.Unwatch(drain.Watcher)
		<-drain.done
	}
	order := recorder.watchers[0].events
	if got, want := len(order), int(recorder.calledBack.Load()); got != want {
		t.Errorf("a watcher of everything saw %d events, callbacks %d", got, want)
	}
	if !slices.IsSortedFunc(order, func(a, b store.Event) int { return a.Timestamp.Compare(b.Timestamp) }) {
		t.Error("timestamps run backwards")
	}
	for _, drain := range recorder.watchers[1:] {
		want := slices.DeleteFunc(slices.Clone(order), func(event store.Event) bool {
			return drain.key != "*" && event.Key != drain.key && event.Type != store.EventDeleteGroup
		})
		if !slices.Equal(drain.events, want) {
			t.Errorf("the watcher of key %q saw %d events in an order of its own; the one of everything saw %d of them", drain.key, len(drain.events), len(want))
		}
	}
	written := map[commit][]span{} // by commits without their span
	for _, worker := range recorder.workers {
		for _, commit := range worker.commits {
			span := commit.span
			commit.span = noSpan
			written[commit] = append(written[commit], span)
		}
	}
	var commits []commit
	for _, event := range order {
		next := commit{eventType: event.Type, key: event.Key, value: event.Value}
		spans := written[next]
		if len(spans) == 0 || event.Group != recorder.group {
			t.Fatalf("an event of no write: %v", event)
		}
		written[next] = spans[1:]
		next.span = spans[0]
		commits = append(commits, next)
	}
	for commit, spans := range written {
		if len(spans) > 0 {
			t.Fatalf("a write without an event: %v", commit)
		}
	}
	return commits
}

var noSpan span

// historyWorker makes random calls and notes each one.
type historyWorker struct {
	*clock
	number    int // among those who write the same group; that of the key that it may delete
	random    *rand.Rand
	home      *recorderOfGroup   // of the group that it writes
	recorders []*recorderOfGroup // of the groups that it reads
	removed   bool               // its deletion's event was seen
	commits   []commit
	observed  [][]observation // by group
}

func (worker *historyWorker) run(t *testing.T, calls int) {
	for call := range calls {
		worker.home.pace()
		key := historyKeys[worker.random.IntN(len(historyKeys))]
		switch choice := worker.random.IntN(40); {
		case choice < 14:
			worker.set(t, key, fmt.Sprint(worker.number, "-", call))
		case choice < 18 && worker.number < len(historyKeys):
			worker.delete(t)
		case choice == 18 && worker.number == 0:
			worker.deleteGroup(t)
		case choice < 24:
			worker.getAll(t)
		default:
			worker.get(t, key)
		}
		if t.Failed() {
			return
		}
	}
}

func (worker *historyWorker) set(t *testing.T, key, value string) {
	span := worker.time(func() { noError(t, worker.home.storeInstance.Set(worker.home.group, key, value)) })
	worker.commits = append(worker.commits, commit{span, store.EventSet, key, value})
}

func (worker *historyWorker) delete(t *testing.T) {
	key := historyKeys[worker.number]
	worker.removed = false
	span := worker.time(func() { noError(t, worker.home.storeInstance.Delete(worker.home.group, key)) })
	worker.noteRemoval(commit{span, store.EventDelete, key, ""}, []string{key})
}

func (worker *historyWorker) deleteGroup(t *testing.T) {
	worker.removed = false
	span := worker.time(func() { noError(t, worker.home.storeInstance.DeleteGroup(worker.home.group)) })
	worker.noteRemoval(commit{span, store.EventDeleteGroup, "", ""}, historyKeys)
}

// noteRemoval notes a commit or, if nothing was removed, that the keys were missing.
func (worker *historyWorker) noteRemoval(commit commit, keys []string) {
	if worker.removed {
		worker.commits = append(worker.commits, commit)
		return
	}
	number := slices.Index(worker.recorders, worker.home)
	worker.observed[number] = append(worker.observed[number], observation{commit.span, keys, nil})
}

// get reads a group of any store through any store.
func (worker *historyWorker) get(t *testing.T, key string) {
	number := worker.random.IntN(len(worker.recorders))
	values := map[string]string{}
	span := worker.time(func() {
		value, err := worker.reader().Get(worker.recorders[number].group, key)
		if err == nil {
			values[key] = value
		} else if !errors.Is(err, store.NotFoundError) {
			t.Error(err)
		}
	})
	worker.observed[number] = append(worker.observed[number], observation{span, []string{key}, values})
}

func (worker *historyWorker) getAll(t *testing.T) {
	number := worker.random.IntN(len(worker.recorders))
	var values map[string]string
	span := worker.time(func() {
		var err error
		values, err = worker.reader().GetAll(worker.recorders[number].group)
		noError(t, err)
	})
	worker.observed[number] = append(worker.observed[number], observation{span, historyKeys, values})
}

func (worker *historyWorker) reader() *store.Store {
	return worker.recorders[worker.random.IntN(len(worker.recorders))].storeInstance
}

// noError is for goroutines, in which a test cannot be ended.
func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// step is what a commit made of one key.
type step struct {
	position int // of the commit; the first is 1, and 0 is the empty store
	live     bool
}

// explain looks for a moment within each commit's call, in the order of the commits, at which it may have taken
// effect so that every observation saw the state of a moment within its own call. It fails only if there is none.
//
// An observation that found the values of some commits ran after the last of these and before the first that
// replaced one, so it bounds the moments of these two; since the moments ascend, a bound passes on to the later
// ones from below and to the earlier ones from above.
func explain(commits []commit, observations []observation) error {
	type written struct{ key, value string }
	steps, stepOf := map[string][]step{}, map[written]int{}
	for _, key := range historyKeys {
		steps[key] = []step{{}}
	}
	earliest, latest := make([]int64, len(commits)+2), make([]int64, len(commits)+2) // by position, and of the end
	latest[len(commits)+1] = math.MaxInt64
	for i, commit := range commits {
		earliest[i+1], latest[i+1] = commit.called, commit.returned
		for _, key := range historyKeys {
			if commit.eventType == store.EventDeleteGroup || commit.key == key {
				stepOf[written{key, commit.value}] = len(steps[key])
				steps[key] = append(steps[key], step{i + 1, commit.eventType == store.EventSet})
			}
		}
	}
	type window struct{ first, last int } // the positions after which an observation can have been made
	windows := make([]window, len(observations))
	for i, seen := range observations {
		window := window{0, len(commits)}
		for key, value := range seen.values {
			found, ok := stepOf[written{key, value}]
			if !ok || !steps[key][found].live {
				return fmt.Errorf("%v found %s=%s, which was never committed", seen.span, key, value)
			}
			window.first = max(window.first, steps[key][found].position)
			if found+1 < len(steps[key]) {
				window.last = min(window.last, steps[key][found+1].position-1)
			}
		}
		if window.first > window.last {
			return fmt.Errorf("%v found %v, which never were there together", seen.span, seen.values)
		}
		latest[window.first] = min(latest[window.first], seen.returned)
		earliest[window.last+1] = max(earliest[window.last+1], seen.called)
		windows[i] = window
	}
	for i := 1; i < len(earliest); i++ {
		earliest[i] = max(earliest[i], earliest[i-1])
	}
	for i := len(latest) - 2; i > 0; i-- {
		latest[i] = min(latest[i], latest[i+1])
	}
	for i, commit := range commits {
		if earliest[i+1] > latest[i+1] {
			return fmt.Errorf("commit %d of %d, %v: can only have happened after %d and before %d", i+1, len(commits), commit, earliest[i+1], latest[i+1])
		}
	}
	for i, seen := range observations {
		if len(seen.values) < len(seen.keys) && !missingWithin(steps, earliest, latest, seen, windows[i].first, windows[i].last) {
			return fmt.Errorf("%v found only %v of %q, which were there", seen.span, seen.values, seen.keys)
		}
	}
	return nil
}

// missingWithin tells whether the keys that an observation did not find can all have been missing at its time.
func missingWithin(steps map[string][]step, earliest, latest []int64, seen observation, first, last int) bool {
	first += sort.Search(last-first, func(i int) bool { return latest[first+i+1] >= seen.called })
	for position := first; position <= last && earliest[position] <= seen.returned; position++ {
		if latest[position+1] >= seen.called && !slices.ContainsFunc(seen.keys, func(key string) bool {
			_, found := seen.values[key]
			after := sort.Search(len(steps[key]), func(i int) bool { return steps[key][i].position > position })
			return !found && steps[key][after-1].live
		}) {
			return true
		}
	}
	return false
}

// TestHistory_ExplainRefusesAnomalies shows that the checker above sees what it is for.
func TestHistory_ExplainRefusesAnomalies(t *testing.T) {
	set := func(called, returned int64, key, value string) commit {
		return commit{span{called, returned}, store.EventSet, key, value}
	}
	found := func(called, returned int64, key, value string) observation {
		return observation{span{called, returned}, []string{key}, map[string]string{key: value}}
	}
	for _, test := range []struct {
		name         string
		valid        bool
		commits      []commit
		observations []observation
	}{
		{"a read beside a write may find the old value", true, []commit{set(1, 2, "a", "1"), set(3, 6, "a", "2")}, []observation{found(4, 5, "a", "1")}},
		{"a read beside a write may find the new value", true, []commit{set(1, 2, "a", "1"), set(3, 6, "a", "2")}, []observation{found(4, 5, "a", "2")}},
		{"a read after a write finds the old value", false, []commit{set(1, 2, "a", "1"), set(3, 4, "a", "2")}, []observation{found(5, 6, "a", "1")}},
		{"a read finds what is written later", false, []commit{set(3, 4, "a", "1")}, []observation{found(1, 2, "a", "1")}},
		{"a read finds the old value after another found the new one", false, []commit{set(1, 2, "a", "1"), set(3, 8, "a", "2")}, []observation{found(4, 5, "a", "2"), found(6, 7, "a", "1")}},
		{"a read finds what nobody wrote", false, []commit{set(1, 2, "a", "1")}, []observation{found(3, 4, "a", "2")}},
		{"a read misses what was written", false, []commit{set(1, 2, "a", "1")}, []observation{{span{3, 4}, []string{"a"}, nil}}},
		{"a read beside a write may miss it", true, []commit{set(1, 4, "a", "1")}, []observation{{span{2, 3}, []string{"a"}, nil}}},
		{"a read finds what was deleted", false, []commit{set(1, 2, "a", "1"), {span{3, 4}, store.EventDelete, "a", ""}}, []observation{found(5, 6, "a", "1")}},
		{"a read after a deletion misses the key", true, []commit{set(1, 2, "a", "1"), {span{3, 4}, store.EventDeleteGroup, "", ""}}, []observation{{span{5, 6}, []string{"a"}, nil}}},
		{"the order contradicts real time", false, []commit{set(3, 4, "a", "2"), set(1, 2, "b", "1")}, nil},
		{"a snapshot mixes two moments", false, []commit{set(1, 2, "a", "1"), set(3, 4, "b", "1"), set(5, 10, "a", "2"), set(6, 11, "b", "2")}, []observation{{span{7, 8}, []string{"a", "b"}, map[string]string{"a": "1", "b": "2"}}}},
		{"a snapshot of one moment", true, []commit{set(1, 2, "a", "1"), set(3, 4, "b", "1"), set(5, 10, "a", "2"), set(6, 11, "b", "2")}, []observation{{span{7, 8}, []string{"a", "b"}, map[string]string{"a": "2", "b": "1"}}}},
		{"a snapshot misses a key that was there at each of its moments", false, []commit{set(1, 2, "b", "1"), set(3, 10, "a", "1")}, []observation{{span{4, 5}, []string{"a", "b"}, map[string]string{"a": "1"}}}},
	} {
		if err := explain(test.commits, test.observations); (err == nil) != test.valid {
			t.Errorf("%s: explain returns %v", test.name, err)
		}
	}
}

// TestHistory_TwoStoresShareKeys lets two stores write the same keys of one file. No watcher sees the order of all
// these commits, so the checker asks whether there is one.
func TestHistory_TwoStoresShareKeys(t *testing.T) {
	seed := newSeed(t)
	path := filepath.Join(t.TempDir(), "store.db")
	stores := []*store.Store{openStore(t, path), openStore(t, path)}
	clock := new(clock)
	histories := make([]map[string]*cluster, len(historyKeys)) // by key and value
	for number, key := range historyKeys {
		histories[number] = map[string]*cluster{"first": {}}
		histories[number]["first"].write(clock.time(func() { noError(t, stores[0].Set("group", key, "first")) }))
	}
	var mutex sync.Mutex // of histories
	var group sync.WaitGroup
	for worker := range historyWorkers {
		group.Go(func() {
			random := newRandom(seed, uint64(worker))
			for call := range scale(120, 1000, 20_000) {
				storeInstance, number := stores[random.IntN(2)], random.IntN(len(historyKeys))
				value, writes := fmt.Sprint(worker, "-", call), random.IntN(2) == 0
				span := clock.time(func() {
					var err error
					if writes {
						err = storeInstance.Set("group", historyKeys[number], value)
					} else {
						value, err = storeInstance.Get("group", historyKeys[number])
					}
					noError(t, err)
				})
				mutex.Lock()
				history := histories[number]
				if history[value] == nil {
					history[value] = new(cluster)
				}
				if writes {
					history[value].write(span)
				} else {
					history[value].reads = append(history[value].reads, span)
				}
				mutex.Unlock()
			}
		})
	}
	group.Wait()
	for number, history := range histories {
		if err := linearisable(history); err != nil {
			t.Errorf("key %q: %v", historyKeys[number], err)
		}
	}
}

// cluster is the calls that wrote and read one value.
type cluster struct {
	written bool
	writing span
	reads   []span
}

func (cluster *cluster) write(span span) { cluster.written, cluster.writing = true, span }

// linearisable tells whether some order of the writes explains all reads, where each value is written once. From the
// first end of a call that saw a value to the last beginning of one, that value must be current; where the first
// end comes after the last beginning, one moment between them is enough. So two such periods must not overlap,
// and no such choice of moments may lie within a period of another value.
func linearisable(history map[string]*cluster) error {
	type zone struct {
		from, to int64
		value    string
	}
	var periods, moments []zone
	for value, cluster := range history {
		if !cluster.written {
			return fmt.Errorf("%q was read, but never written", value)
		}
		end, beginning := cluster.writing.returned, cluster.writing.called
		for _, read := range cluster.reads {
			if read.returned < cluster.writing.called {
				return fmt.Errorf("%q was read at %v and written at %v", value, read, cluster.writing)
			}
			end, beginning = min(end, read.returned), max(beginning, read.called)
		}
		if end < beginning {
			periods = append(periods, zone{end, beginning, value})
		} else {
			moments = append(moments, zone{beginning, end, value})
		}
	}
	slices.SortFunc(periods, func(a, b zone) int { return cmp.Compare(a.from, b.from) })
	for i := 1; i < len(periods); i++ {
		if periods[i].from < periods[i-1].to {
			return fmt.Errorf("%v and %v overlap", periods[i-1], periods[i])
		}
	}
	for _, moment := range moments {
		next := sort.Search(len(periods), func(i int) bool { return periods[i].to > moment.to })
		if next < len(periods) && periods[next].from < moment.from {
			return fmt.Errorf("%v lies within %v", moment, periods[next])
		}
	}
	return nil
}

// TestHistory_LinearisableRefusesAnomalies shows that the checker above sees what it is for.
func TestHistory_LinearisableRefusesAnomalies(t *testing.T) {
	for _, test := range []struct {
		name    string
		valid   bool
		history map[string]*cluster
	}{
		{"reads follow the writes", true, map[string]*cluster{"1": {true, span{1, 2}, []span{{3, 4}}}, "2": {true, span{5, 6}, []span{{7, 8}}}}},
		{"a read beside a write may find the old value", true, map[string]*cluster{"1": {true, span{1, 2}, []span{{4, 5}}}, "2": {true, span{3, 6}, nil}}},
		{"a read after a write finds the old value", false, map[string]*cluster{"1": {true, span{1, 2}, []span{{5, 6}}}, "2": {true, span{3, 4}, nil}}},
		{"a read finds what is written later", false, map[string]*cluster{"1": {true, span{3, 4}, []span{{1, 2}}}}},
		{"a read finds what nobody wrote", false, map[string]*cluster{"1": {false, span{}, []span{{1, 2}}}}},
		{"reads see two concurrent writes in either order", false, map[string]*cluster{"1": {true, span{1, 20}, []span{{3, 4}, {7, 8}}}, "2": {true, span{2, 19}, []span{{5, 6}}}}},
	} {
		if err := linearisable(test.history); (err == nil) != test.valid {
			t.Errorf("%s: linearisable returns %v", test.name, err)
		}
	}
}

// TestWatcher_LengthRevealsEveryLoss has a reader that is too slow at times. Before each gap in what it receives,
// and before the end if the last events are missing, the buffer must have been found full just after a receive.
func TestWatcher_LengthRevealsEveryLoss(t *testing.T) {
	random := newRandom(newSeed(t), 0)
	storeInstance := openStore(t, ":memory:")
	fast, slow := storeInstance.Watch("*", "*"), storeInstance.Watch("*", "*")
	positions := map[string]int{} // of the values in the commit order
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		for event := range fast.Events {
			positions[event.Value] = len(positions)
		}
	}()
	writes := make(chan struct{}, 256) // which the slow reader counts in its pauses
	var group sync.WaitGroup
	for writer := range 4 {
		group.Go(func() {
			for i := range scale(5000, 50_000, 1_000_000) {
				for len(fast.Events) > cap(fast.Events)/2 {
					runtime.Gosched()
				}
				noError(t, storeInstance.Set("group", strconv.Itoa(writer), fmt.Sprint(writer, "-", i)))
				select {
				case writes <- struct{}{}:
				default:
				}
			}
		})
	}
	go func() {
		group.Wait()
		close(writes)
		storeInstance.Unwatch(fast)
		storeInstance.Unwatch(slow)
	}()

	type received struct {
		value string
		full  bool
	}
	var sequence []received
	for event := range slow.Events {
		sequence = append(sequence, received{event.Value, len(slow.Events) >= cap(slow.Events)-1})
		if random.IntN(300) == 0 {
			for range random.IntN(600) {
				<-writes
			}
		}
	}
	<-reading

	lost, lastFull, last := 0, math.MinInt, -1
	check := func(i, position int) {
		t.Helper()
		if missing := position - last - 1; missing > 0 {
			lost += missing
			if lastFull < i-cap(slow.Events) {
				t.Fatalf("%d events are missing before the %dth received, and none of the %d before it found the buffer full", missing, i, cap(slow.Events))
			}
		}
		last = position
	}
	for i, received := range sequence {
		position, ok := positions[received.value]
		if !ok || position <= last {
			t.Fatalf("the slow reader got %q out of order", received.value)
		}
		check(i, position)
		if received.full {
			lastFull = i
		}
	}
	check(len(sequence), len(positions))
	if lost == 0 {
		t.Fatal("the slow reader has lost nothing")
	}
	t.Logf("%d of %d events lost, all revealed", lost, len(positions))
}
