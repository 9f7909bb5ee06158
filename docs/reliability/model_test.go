package reliability_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"text/template"
	"time"

	"dappco.re/go/core/store"
)

// TestModel_EveryShapeMatchesMap plays random operations, clock steps among them, on each shape of a store and on
// a plain map, which says what every call must return and every subscriber must see. A failure names its seed.
func TestModel_EveryShapeMatchesMap(t *testing.T) {
	seed := newSeed(t)
	for part := range uint64(scale(8, 160, 5000)) {
		input := randomInput(seed+part, 1000)
		for _, shape := range shapes {
			if shape.file && part%4 > 0 {
				continue // each write waits for the disk
			}
			t.Run(fmt.Sprintf("%s/seed=%d", shape.name, seed+part), func(t *testing.T) { replay(t, shape, input) })
		}
	}
}

func randomInput(seed uint64, length int) []byte {
	random := newRandom(seed, 0)
	input := make([]byte, length)
	for i := range input {
		input[i] = byte(random.Uint32())
	}
	return input
}

// keyValues is what a Store and its scopes have in common.
type keyValues interface {
	Get(group, key string) (string, error)
	Set(group, key, value string) error
	SetWithTTL(group, key, value string, ttl time.Duration) error
	Delete(group, key string) error
	DeleteGroup(group string) error
	Count(group string) (int, error)
	CountAll(groupPrefix string) (int, error)
	GetAll(group string) (map[string]string, error)
	All(group string) iter.Seq2[store.KeyValue, error]
	Groups(groupPrefix string) ([]string, error)
	GroupsSeq(groupPrefix string) iter.Seq2[string, error]
	GetSplit(group, key, separator string) (iter.Seq[string], error)
	GetFields(group, key string) (iter.Seq[string], error)
	Render(templateSource, group string) (string, error)
	PurgeExpired() (int64, error)
}

// shape is one way to come by the same entries.
type shape struct {
	name   string
	file   bool
	stores int  // Store values on the file, used alternately
	byHand bool // scopes without a limit are replaced by prefixed
}

var shapes = []shape{
	{name: "memory", stores: 1},
	{name: "file", stores: 1, file: true},
	{name: "pair", stores: 2, file: true},
	{name: "prefixed", stores: 1, byHand: true},
}

// scopes are the views that every store is used through, beside itself.
var scopes = []struct {
	namespace string
	quota     store.QuotaConfig
}{
	{"a", store.QuotaConfig{}},
	{"A", store.QuotaConfig{}},
	{"a", store.QuotaConfig{MaxKeys: 3, MaxGroups: 2}},
	{"A", store.QuotaConfig{MaxGroups: 1}},
	{"a-b", store.QuotaConfig{MaxKeys: 2}},
}

// The names overlap where a careless prefix, pattern or comparison would mix them up.
var (
	groupNames = []string{"", "a", "a:", "a:x", "A:x", "a-b:x", "x", "X", "*", "%", "x\x00", "a:\xff", "a:\xff\xff", "é"}
	keyNames   = []string{"", "k", "K", "k\x00", "k/k", "*", "_", "\xff", "ключ"}
)

// prefixed is a Store used as a scope would use it, the prefix written out by hand.
type prefixed struct {
	*store.ScopedStore // for PurgeExpired, which a Store does not limit
	storeInstance      *store.Store
	prefix             string
}

func (prefixed prefixed) Get(group, key string) (string, error) {
	return prefixed.storeInstance.Get(prefixed.prefix+group, key)
}

func (prefixed prefixed) Set(group, key, value string) error {
	return prefixed.storeInstance.Set(prefixed.prefix+group, key, value)
}

func (prefixed prefixed) SetWithTTL(group, key, value string, ttl time.Duration) error {
	return prefixed.storeInstance.SetWithTTL(prefixed.prefix+group, key, value, ttl)
}

func (prefixed prefixed) Delete(group, key string) error {
	return prefixed.storeInstance.Delete(prefixed.prefix+group, key)
}

func (prefixed prefixed) DeleteGroup(group string) error {
	return prefixed.storeInstance.DeleteGroup(prefixed.prefix + group)
}

func (prefixed prefixed) Count(group string) (int, error) {
	return prefixed.storeInstance.Count(prefixed.prefix + group)
}

func (prefixed prefixed) CountAll(groupPrefix string) (int, error) {
	return prefixed.storeInstance.CountAll(prefixed.prefix + groupPrefix)
}

func (prefixed prefixed) GetAll(group string) (map[string]string, error) {
	return prefixed.storeInstance.GetAll(prefixed.prefix + group)
}

func (prefixed prefixed) All(group string) iter.Seq2[store.KeyValue, error] {
	return prefixed.storeInstance.All(prefixed.prefix + group)
}

func (prefixed prefixed) Groups(groupPrefix string) ([]string, error) {
	groups, err := prefixed.storeInstance.Groups(prefixed.prefix + groupPrefix)
	for i, group := range groups {
		groups[i] = strings.TrimPrefix(group, prefixed.prefix)
	}
	return groups, err
}

func (prefixed prefixed) GroupsSeq(groupPrefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for group, err := range prefixed.storeInstance.GroupsSeq(prefixed.prefix + groupPrefix) {
			if !yield(strings.TrimPrefix(group, prefixed.prefix), err) {
				return
			}
		}
	}
}

func (prefixed prefixed) GetSplit(group, key, separator string) (iter.Seq[string], error) {
	return prefixed.storeInstance.GetSplit(prefixed.prefix+group, key, separator)
}

func (prefixed prefixed) GetFields(group, key string) (iter.Seq[string], error) {
	return prefixed.storeInstance.GetFields(prefixed.prefix+group, key)
}

func (prefixed prefixed) Render(templateSource, group string) (string, error) {
	return prefixed.storeInstance.Render(templateSource, prefixed.prefix+group)
}

// view is a store or a scope, with what the model knows of it.
type view struct {
	keyValues
	side   *side
	prefix string
	quota  store.QuotaConfig
}

func (view *view) String() string {
	return fmt.Sprintf("store %d %q %v", view.side.number, view.prefix, view.quota)
}

// side is one of the open stores and those who listen to it.
type side struct {
	number        int
	storeInstance *store.Store
	views         []*view   // the store itself comes first
	opened        time.Time // when the minutes of its purge began
	watchers      []*watcher
	callbacks     []*callback
	unregister    map[int]func() // by callback
	lastTimestamp time.Time
}

type watcher struct {
	*store.Watcher
	group, key string
	queue      []store.Event // what its buffer must hold
}

// callback is the model's knowledge of one.
type callback struct {
	id    int
	kind  callbackKind
	spent bool // once and spawner: it had its turn
}

type callbackKind int

const (
	recorder callbackKind = iota
	once                  // unregisters itself when it is called
	spawner               // registers a recorder when it is first called
	echo                  // writes to echoGroup
	callbackKinds
)

const (
	echoGroup   = "echo"
	spawnOffset = 1 << 20 // from a spawner's id to that of its recorder
)

// call says that a callback was called.
type call struct {
	callback int
	event    store.Event // without its time
}

type entryName struct{ group, key string }

// row is what the table holds under a name.
type row struct {
	value    string
	deadline time.Time // never: the zero time
	maybe    bool      // it has expired, and something may have removed it
}

var (
	never     = time.Time{}
	longSince = time.Unix(0, 0)
)

// tolerance is how much longer than its TTL an entry may live.
const tolerance = time.Millisecond

// alive is undecided within the tolerance after the deadline: settle sees to it that nobody asks then.
func (row row) alive(now time.Time) bool {
	return row.deadline == never || now.Before(row.deadline)
}

// journalLine is a row that was written or, where there is none, removed.
type journalLine struct {
	entryName
	row *row
}

// session plays operations on a store and keeps the model of it.
type session struct {
	t                      *testing.T
	shape                  shape
	path                   string
	input                  []byte
	sides                  []*side
	rows                   map[entryName]row
	journal                []journalLine // by which a stream knows what it may have met
	calls                  []call        // of callbacks, as they came
	expected               []call
	chosen                 int // by target
	chosenGroup, chosenKey string
	sequence               int // of values and callbacks, to tell them apart
	depth                  int // of the loops in whose bodies operations run
	trail                  []string
	ended                  time.Time
}

// replay plays the operations that input encodes on a store of the given shape.
func replay(t *testing.T, shape shape, input []byte) {
	t.Helper()
	defer watchdog()()
	session := &session{shape: shape, path: ":memory:", input: input, rows: map[entryName]row{}}
	if shape.file {
		session.path = filepath.Join(t.TempDir(), "store.db")
	}
	synctest.Test(t, func(t *testing.T) {
		session.t = t
		defer session.showTrail()
		for number := range shape.stores {
			session.sides = append(session.sides, session.open(number))
		}
		defer func() {
			for _, side := range session.sides {
				side.storeInstance.Close() // after a failure the bubble waits for its goroutines
			}
		}()
		for len(session.input) > 0 {
			session.operate()
		}
		session.audit()
		session.ended = time.Now()
		for _, side := range session.sides {
			session.close(side)
		}
	})
	if shape.file {
		session.checkFile(t)
	}
}

// watchdog ends the process, with all stacks, unless the function that it returns is called in time. A call that
// hangs in a bubble is silent otherwise, since the purge's timer keeps the bubble's clock running.
func watchdog() (stop func()) {
	timer := time.AfterFunc(2*time.Minute, func() {
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		panic("a call hangs")
	})
	return func() { timer.Stop() }
}

func (session *session) showTrail() {
	if session.t.Failed() {
		session.t.Logf("the last operations:\n%s", strings.Join(session.trail[max(0, len(session.trail)-50):], "\n"))
	}
}

func (session *session) notef(format string, arguments ...any) {
	session.trail = append(session.trail, strings.Repeat("\t", session.depth)+fmt.Sprintf(format, arguments...))
}

func (session *session) check(err error) {
	session.t.Helper()
	if err != nil {
		session.t.Fatalf("got error: %v", err)
	}
}

// operate plays one operation; the number of its cases is an operation's weight.
func (session *session) operate() {
	switch session.choose(48) {
	case 0, 1, 2, 3, 4, 5:
		session.set()
	case 6, 7, 8, 9, 10:
		session.setWithTTL()
	case 11, 12, 13:
		session.delete()
	case 14, 15:
		session.deleteGroup()
	case 16, 17, 18, 19:
		session.get()
	case 20:
		session.getSplit()
	case 21:
		session.getFields()
	case 22:
		session.count()
	case 23:
		session.countAll()
	case 24, 25:
		session.getAll()
	case 26, 27:
		session.groups()
	case 28, 29, 30:
		session.all()
	case 31, 32:
		session.groupsSeq()
	case 33:
		session.render()
	case 34, 35:
		session.purgeExpired()
	case 36, 37:
		session.stepClock()
	case 38, 39:
		session.stepToDeadline()
	case 40, 41:
		session.watch()
	case 42:
		session.unwatch()
	case 43:
		session.receive()
	case 44:
		session.onChange()
	case 45:
		session.unregister()
	case 46:
		session.fill()
	case 47:
		session.reopen()
	}
	if !slices.Equal(session.calls, session.expected) {
		session.t.Fatalf("callbacks saw %.2000q\nwant %.2000q", fmt.Sprint(session.calls), fmt.Sprint(session.expected))
	}
	session.calls, session.expected = nil, nil
	session.settle()
}

// choose takes a number below limit from the input; 0 when that has run out.
func (session *session) choose(limit int) int {
	if len(session.input) == 0 {
		return 0
	}
	chosen := int(session.input[0]) % limit
	session.input = session.input[1:]
	return chosen
}

func choice[T any](session *session, options []T) T { return options[session.choose(len(options))] }

// target is what the next operation is about: often the same again, so that operations meet.
func (session *session) target() (*view, string, string) {
	views := choice(session, session.sides).views
	if session.choose(2) == 0 && session.chosen < len(views) {
		return views[session.chosen], session.chosenGroup, session.chosenKey
	}
	session.chosen = max(0, session.choose(2*len(views))-len(views)) // mostly the store itself
	session.chosenGroup, session.chosenKey = choice(session, groupNames), choice(session, keyNames)
	return views[session.chosen], session.chosenGroup, session.chosenKey
}

func (session *session) value() string {
	session.sequence++
	value := strconv.Itoa(session.sequence)
	switch code := session.choose(64); {
	case code < 2:
		return ""
	case code < 4:
		return value + strings.Repeat(" 0123456789abcdef", 6000)
	case code < 12:
		return "\x00\xff, " + value
	case code < 32:
		return " one,two\u00a0three,, " + value + "\n"
	}
	return value
}

// What the model says.

func (session *session) live(group, key string) (string, bool) {
	row, ok := session.rows[entryName{group, key}]
	return row.value, ok && row.alive(time.Now())
}

func (session *session) liveGroup(group string) map[string]string {
	live, now := map[string]string{}, time.Now()
	for name, row := range session.rows {
		if name.group == group && row.alive(now) {
			live[name.key] = row.value
		}
	}
	return live
}

// liveGroups returns the groups whose names begin with prefix, and how many live keys each has.
func (session *session) liveGroups(prefix string) map[string]int {
	live, now := map[string]int{}, time.Now()
	for name, row := range session.rows {
		if strings.HasPrefix(name.group, prefix) && row.alive(now) {
			live[name.group]++
		}
	}
	return live
}

func total(groups map[string]int) int {
	total := 0
	for _, count := range groups {
		total += count
	}
	return total
}

func (session *session) put(name entryName, row row) {
	session.rows[name] = row
	session.journal = append(session.journal, journalLine{name, &row})
}

func (session *session) remove(name entryName) {
	delete(session.rows, name)
	session.journal = append(session.journal, journalLine{name, nil})
}

// doubt notes that those of the rows which have expired may have been removed.
func (session *session) doubt(doubtful func(entryName) bool) {
	now := time.Now()
	for name, row := range session.rows {
		if doubtful(name) && !row.alive(now) {
			row.maybe = true
			session.rows[name] = row
		}
	}
}

// refusal returns which limit keeps the view from writing the key, "" for none.
func (session *session) refusal(view *view, group, key string) string {
	if _, ok := session.live(group, key); ok || view.quota == (store.QuotaConfig{}) {
		return ""
	}
	groups := session.liveGroups(view.prefix)
	switch {
	case view.quota.MaxKeys > 0 && total(groups) >= view.quota.MaxKeys:
		return "key"
	case view.quota.MaxGroups > 0 && groups[group] == 0 && len(groups) >= view.quota.MaxGroups:
		return "group"
	}
	return ""
}

// emit tells the model's subscribers of an event that the store's have seen already.
func (session *session) emit(side *side, event store.Event) {
	for _, watcher := range side.watchers {
		ofGroup := watcher.group == "*" || watcher.group == event.Group
		ofKey := watcher.key == "*" || watcher.key == event.Key || event.Type == store.EventDeleteGroup
		if ofGroup && ofKey && len(watcher.queue) < cap(watcher.Events) {
			watcher.queue = append(watcher.queue, event)
		}
	}
	for _, current := range slices.Clone(side.callbacks) {
		if current.kind == once && current.spent {
			continue
		}
		session.expected = append(session.expected, call{current.id, event})
		switch {
		case current.kind == once:
			current.spent = true
			side.callbacks = slices.DeleteFunc(side.callbacks, func(other *callback) bool { return other == current })
		case current.kind == spawner && !current.spent:
			current.spent = true
			side.callbacks = append(side.callbacks, &callback{id: current.id + spawnOffset})
		case current.kind == echo && event.Group != echoGroup:
			session.put(entryName{echoGroup, event.Key}, row{value: event.Group})
			session.emit(side, store.Event{Type: store.EventSet, Group: echoGroup, Key: event.Key, Value: event.Group})
		}
	}
}

// Writes.

func (session *session) set() {
	view, group, key := session.target()
	value := session.value()
	session.notef("%v.Set(%q, %q, %.20q)", view, group, key, value)
	session.write(view, "Set", group, key, row{value: value}, func() error { return view.Set(group, key, value) })
}

func (session *session) setWithTTL() {
	view, group, key := session.target()
	value := session.value()
	ttl := choice(session, []time.Duration{math.MinInt64, -1, 0, 1, tolerance, 3 * tolerance / 2, time.Second,
		59 * time.Second, time.Minute, time.Hour, math.MaxInt64})
	deadline := time.Now().Add(ttl)
	if ttl <= 0 {
		deadline = longSince
	}
	session.notef("%v.SetWithTTL(%q, %q, %.20q, %v)", view, group, key, value, ttl)
	session.write(view, "SetWithTTL", group, key, row{value: value, deadline: deadline}, func() error {
		return view.SetWithTTL(group, key, value, ttl)
	})
}

// write writes a row through the store and in the model, which says whether that is allowed.
func (session *session) write(view *view, method, group, key string, row row, write func() error) {
	session.t.Helper()
	name := entryName{view.prefix + group, key}
	limit := session.refusal(view, name.group, key)
	err := write()
	if view.quota != (store.QuotaConfig{}) {
		session.doubt(func(entryName) bool { return true }) // it makes room if that may help
	}
	if limit == "" {
		session.check(err)
		session.put(name, row)
		session.emit(view.side, store.Event{Type: store.EventSet, Group: name.group, Key: key, Value: row.value})
		return
	}
	prefix := fmt.Sprintf("store.%s: %s/%s: quota exceeded: ", method, name.group, key)
	if !errors.Is(err, store.QuotaExceededError) {
		session.t.Fatalf("got error %v, want one for the limit on %ss", err, limit)
	}
	reason, ok := strings.CutPrefix(err.Error(), prefix)
	if !ok || limitNamed(reason) != limit {
		session.t.Fatalf("got error %q, want %q and the limit on %ss", err, prefix, limit)
	}
}

// limitNamed returns which of the two limits an error names.
func limitNamed(reason string) string {
	reason = strings.ToLower(reason)
	switch key, group := strings.Contains(reason, "key"), strings.Contains(reason, "group"); {
	case key && !group:
		return "key"
	case group && !key:
		return "group"
	}
	return ""
}

func (session *session) delete() {
	view, group, key := session.target()
	session.notef("%v.Delete(%q, %q)", view, group, key)
	name := entryName{view.prefix + group, key}
	_, ok := session.live(name.group, key)
	session.check(view.Delete(group, key))
	if !ok {
		session.doubt(func(other entryName) bool { return other == name })
		return
	}
	session.remove(name)
	session.emit(view.side, store.Event{Type: store.EventDelete, Group: name.group, Key: key})
}

func (session *session) deleteGroup() {
	view, group, _ := session.target()
	session.notef("%v.DeleteGroup(%q)", view, group)
	full := view.prefix + group
	live := session.liveGroup(full)
	session.check(view.DeleteGroup(group))
	for key := range live {
		session.remove(entryName{full, key})
	}
	session.doubt(func(other entryName) bool { return other.group == full })
	if len(live) > 0 {
		session.emit(view.side, store.Event{Type: store.EventDeleteGroup, Group: full})
	}
}

// fill writes more entries than a page of a stream or a watcher's buffer holds; fewer where each takes a flush.
func (session *session) fill() {
	view, group, _ := session.target()
	view, group = view.side.views[0], view.prefix+group // a limit would refuse most of them
	count := 1 + session.choose(256)
	switch {
	case session.shape.file:
		count = 1 + count/8
	case session.choose(4) == 0:
		count *= 6
	}
	session.notef("%v.Set(%q, \"00000\" …) × %d", view, group, count)
	for i := range count {
		session.sequence++
		key, value := fmt.Sprintf("%05d", i), strconv.Itoa(session.sequence)
		session.write(view, "Set", group, key, row{value: value}, func() error { return view.Set(group, key, value) })
	}
}

func (session *session) purgeExpired() {
	view, _, _ := session.target()
	var certain, doubtful []entryName // to be removed
	now := time.Now()
	for name, row := range session.rows {
		if !strings.HasPrefix(name.group, view.prefix) || row.alive(now) {
			continue
		}
		delete(session.rows, name)
		if row.maybe {
			doubtful = append(doubtful, name)
		} else {
			certain = append(certain, name)
		}
	}
	session.notef("%v.PurgeExpired()", view)
	got, err := view.PurgeExpired()
	session.check(err)
	if least, most := len(certain), len(certain)+len(doubtful); int(got) < least || int(got) > most {
		session.t.Fatalf("got %d, want %d to %d: %q and perhaps %q", got, least, most, certain, doubtful)
	}
}

// Reads.

func (session *session) get() {
	view, group, key := session.target()
	session.notef("%v.Get(%q, %q)", view, group, key)
	value, err := view.Get(group, key)
	if !session.missing(view, "Get", group, key, err) {
		session.wantValue(view, group, key, value)
	} else {
		delete(session.rows, entryName{view.prefix + group, key}) // Get removes what has expired
	}
}

func (session *session) wantValue(view *view, group, key, got string) {
	session.t.Helper()
	if want, _ := session.live(view.prefix+group, key); got != want {
		session.t.Fatalf("got %.100q, want %.100q", got, want)
	}
}

// missing tells whether the model knows no live entry, and checks that a read's error says the same.
func (session *session) missing(view *view, method, group, key string, err error) bool {
	session.t.Helper()
	full := view.prefix + group
	if _, ok := session.live(full, key); ok {
		session.check(err)
		return false
	}
	if prefix := fmt.Sprintf("store.%s: %s/%s: ", method, full, key); !errors.Is(err, store.NotFoundError) || !strings.HasPrefix(err.Error(), prefix) {
		session.t.Fatalf("got error %q, want NotFoundError after %q", err, prefix)
	}
	return true
}

func (session *session) getSplit() {
	separator := choice(session, []string{"", ",", " ", "\x00", ", "})
	session.parts("GetSplit", fmt.Sprintf(", %q", separator),
		func(view *view, group, key string) (iter.Seq[string], error) {
			return view.GetSplit(group, key, separator)
		},
		func(value string) []string { return strings.Split(value, separator) })
}

func (session *session) getFields() {
	session.parts("GetFields", "",
		func(view *view, group, key string) (iter.Seq[string], error) { return view.GetFields(group, key) },
		strings.Fields)
}

func (session *session) parts(method, argument string, get func(*view, string, string) (iter.Seq[string], error), split func(string) []string) {
	session.t.Helper()
	view, group, key := session.target()
	session.notef("%v.%s(%q, %q%s)", view, method, group, key, argument)
	parts, err := get(view, group, key)
	if session.missing(view, method, group, key, err) {
		session.doubt(func(other entryName) bool { return other == entryName{view.prefix + group, key} })
		return
	}
	value, _ := session.live(view.prefix+group, key)
	if got, want := slices.Collect(parts), split(value); !slices.Equal(got, want) {
		session.t.Fatalf("got %.200q, want %.200q", got, want)
	}
}

func (session *session) count() {
	view, group, _ := session.target()
	session.notef("%v.Count(%q)", view, group)
	got, err := view.Count(group)
	session.check(err)
	if want := len(session.liveGroup(view.prefix + group)); got != want {
		session.t.Fatalf("got %d, want %d", got, want)
	}
}

func (session *session) countAll() {
	view, prefix, _ := session.target()
	session.wantCountAll(view, prefix)
}

func (session *session) wantCountAll(view *view, prefix string) {
	session.t.Helper()
	session.notef("%v.CountAll(%q)", view, prefix)
	got, err := view.CountAll(prefix)
	session.check(err)
	if want := total(session.liveGroups(view.prefix + prefix)); got != want {
		session.t.Fatalf("got %d, want %d", got, want)
	}
}

func (session *session) getAll() {
	view, group, _ := session.target()
	session.wantAll(view, group)
}

func (session *session) wantAll(view *view, group string) {
	session.t.Helper()
	session.notef("%v.GetAll(%q)", view, group)
	got, err := view.GetAll(group)
	session.check(err)
	if want := session.liveGroup(view.prefix + group); got == nil || !maps.Equal(got, want) {
		session.t.Fatalf("got %.1000q, want %.1000q", fmt.Sprint(got), fmt.Sprint(want))
	}
}

func (session *session) groups() {
	view, prefix, _ := session.target()
	session.wantGroups(view, prefix)
}

func (session *session) wantGroups(view *view, prefix string) []string {
	session.t.Helper()
	session.notef("%v.Groups(%q)", view, prefix)
	got, err := view.Groups(prefix)
	session.check(err)
	var want []string
	for _, group := range slices.Sorted(maps.Keys(session.liveGroups(view.prefix + prefix))) {
		want = append(want, group[len(view.prefix):])
	}
	if !slices.Equal(got, want) {
		session.t.Fatalf("got %q, want %q", got, want)
	}
	return got
}

// audit compares everything that can be read.
func (session *session) audit() {
	session.t.Helper()
	for _, side := range session.sides {
		for _, view := range side.views {
			session.wantCountAll(view, "")
			for _, group := range session.wantGroups(view, "") {
				session.wantAll(view, group)
			}
		}
	}
}

func (session *session) render() {
	view, group, _ := session.target()
	source := choice(session, []string{"{{range $key, $value := .}}{{$key}}={{$value}};{{end}}", "{{.k}}, {{.K}}, {{len .}}", "{{.k.x}}", "{{"})
	session.notef("%v.Render(%q, %q)", view, source, group)
	got, err := view.Render(source, group)
	want, prefix := render("", source, session.liveGroup(view.prefix+group))
	if prefix == "" {
		session.check(err)
	} else if err == nil || !strings.HasPrefix(err.Error(), prefix) {
		session.t.Fatalf("got error %v, want one after %q", err, prefix)
	}
	if got != want {
		session.t.Fatalf("got %.200q, want %.200q", got, want)
	}
}

// render is what Render does with a template of that name; instead of an error it returns how that must begin.
func render(name, source string, data map[string]string) (output, errorPrefix string) {
	parsed, err := template.New(name).Parse(source)
	if err != nil {
		return "", "store.Render: parse: "
	}
	var builder strings.Builder
	if err := parsed.Execute(&builder, data); err != nil {
		return "", "store.Render: exec: "
	}
	return builder.String(), ""
}

// all streams a group, with operations in the loop body. What is written meanwhile may or may not be seen.
func (session *session) all() {
	view, group, _ := session.target()
	full, before, start, stop := view.prefix+group, maps.Clone(session.rows), len(session.journal), session.stop()
	session.notef("%v.All(%q), stopped after %d", view, group, stop)
	seen := map[string]bool{}
	last := ""
	for entry, err := range view.All(group) {
		session.check(err)
		if len(seen) > 0 && entry.Key <= last {
			session.t.Fatalf("All yields %q after %q", entry.Key, last)
		}
		if !session.wasLive(before, start, func(name entryName, row row) bool {
			return name == entryName{full, entry.Key} && row.value == entry.Value
		}) {
			session.t.Fatalf("All yields %.100q, which is none of that key's values", entry)
		}
		last = entry.Key
		seen[last] = true
		if session.body(); len(seen) == stop {
			break
		}
	}
	session.untouched(before, start, func(name entryName) {
		if name.group == full && !seen[name.key] && (len(seen) < stop || name.key < last) {
			session.t.Fatalf("All has missed %q", name.key)
		}
	})
}

// groupsSeq streams names, likewise.
func (session *session) groupsSeq() {
	view, prefix, _ := session.target()
	full, before, start, stop := view.prefix+prefix, maps.Clone(session.rows), len(session.journal), session.stop()
	session.notef("%v.GroupsSeq(%q), stopped after %d", view, prefix, stop)
	seen := map[string]bool{}
	last := ""
	for group, err := range view.GroupsSeq(prefix) {
		session.check(err)
		group = view.prefix + group
		if len(seen) > 0 && group <= last {
			session.t.Fatalf("GroupsSeq yields %q after %q", group, last)
		}
		if !strings.HasPrefix(group, full) || !session.wasLive(before, start, func(name entryName, row row) bool { return name.group == group }) {
			session.t.Fatalf("GroupsSeq yields %q, which has no live entry", group)
		}
		last = group
		seen[last] = true
		if session.body(); len(seen) == stop {
			break
		}
	}
	session.untouched(before, start, func(name entryName) {
		if strings.HasPrefix(name.group, full) && !seen[name.group] && (len(seen) < stop || name.group < last) {
			session.t.Fatalf("GroupsSeq has missed %q", name.group)
		}
	})
}

// stop returns after how many yields a loop ends.
func (session *session) stop() int {
	if session.choose(4) == 0 {
		return 1 + session.choose(8)
	}
	return math.MaxInt
}

// body plays what stands in a loop body: often nothing.
func (session *session) body() {
	if session.depth == 2 || len(session.input) == 0 || session.choose(4) > 0 {
		return
	}
	session.depth++
	session.operate()
	session.depth--
}

// wasLive tells whether a row of the start or a later one matches, whose deadline is still ahead. Of those that the loop has
// overwritten or removed settle knows nothing, so that they may be within the tolerance.
func (session *session) wasLive(before map[entryName]row, start int, matches func(entryName, row) bool) bool {
	now := time.Now().Add(-tolerance)
	for name, row := range before {
		if row.alive(now) && matches(name, row) {
			return true
		}
	}
	return slices.ContainsFunc(session.journal[start:], func(line journalLine) bool {
		return line.row != nil && line.row.alive(now) && matches(line.entryName, *line.row)
	})
}

// untouched calls visit for the entries that have been alive from the start until now without a write.
func (session *session) untouched(before map[entryName]row, start int, visit func(entryName)) {
	touched := map[entryName]bool{}
	for _, line := range session.journal[start:] {
		touched[line.entryName] = true
	}
	now := time.Now()
	for name, row := range before {
		if !touched[name] && row.alive(now) {
			visit(name)
		}
	}
}

// The clock.

func (session *session) stepClock() {
	step := choice(session, []time.Duration{1, tolerance, 10 * tolerance, time.Second, 59 * time.Second, time.Minute, 10 * time.Minute})
	session.notef("the clock steps by %v", step)
	session.sleep(step)
}

// stepToDeadline steps to the last moment of the next entry that expires, or to the first at which it must have.
func (session *session) stepToDeadline() {
	now := time.Now()
	deadline := never
	for _, row := range session.rows {
		if row.deadline.After(now) && (deadline == never || row.deadline.Before(deadline)) {
			deadline = row.deadline
		}
	}
	if deadline == never || deadline.Sub(now) > time.Hour {
		return
	}
	step := deadline.Sub(now) + choice(session, []time.Duration{-1, tolerance})
	session.notef("the clock steps by %v, next to a deadline", step)
	session.sleep(step)
}

// settle waits until of every entry it is certain whether it lives.
func (session *session) settle() {
	for {
		wait, now := time.Duration(0), time.Now()
		for _, row := range session.rows {
			if late := now.Sub(row.deadline); row.deadline != never && late >= 0 && late < tolerance {
				wait = tolerance - late
			}
		}
		if wait == 0 {
			return
		}
		session.sleep(wait)
	}
}

// sleep lets the background purges run that come due, and removes from the model what they removed.
func (session *session) sleep(step time.Duration) {
	before := time.Now()
	time.Sleep(step)
	synctest.Wait()
	for _, side := range session.sides {
		purged := side.opened.Add(time.Since(side.opened).Truncate(time.Minute))
		if !purged.After(before) {
			continue
		}
		for name, row := range session.rows {
			switch {
			case row.alive(purged):
			case row.alive(purged.Add(-tolerance)):
				row.maybe = true
				session.rows[name] = row
			default:
				delete(session.rows, name)
			}
		}
	}
}

// Subscribers.

func (session *session) watch() {
	view, group, key := session.target()
	side, group := view.side, view.prefix+group
	switch session.choose(4) {
	case 0:
		group = "*"
	case 1:
		group, key = "*", "*"
	}
	if len(side.watchers) == 6 {
		return
	}
	session.notef("Watch(%q, %q)", group, key)
	added := &watcher{Watcher: side.storeInstance.Watch(group, key), group: group, key: key}
	if got := cap(added.Events); got != 256 {
		session.t.Fatalf("the buffer holds %d, want 256", got)
	}
	side.watchers = append(side.watchers, added)
}

// unwatch unwatches twice: the second is a no-op.
func (session *session) unwatch() {
	side := choice(session, session.sides)
	if len(side.watchers) == 0 {
		return
	}
	chosen := session.choose(len(side.watchers))
	removed := side.watchers[chosen]
	side.watchers = slices.Delete(side.watchers, chosen, chosen+1)
	session.notef("Unwatch(Watch(%q, %q))", removed.group, removed.key)
	side.storeInstance.Unwatch(removed.Watcher)
	side.storeInstance.Unwatch(removed.Watcher)
	session.wantEnded(removed)
}

// receive takes some of the events that a watcher holds.
func (session *session) receive() {
	side := choice(session, session.sides)
	if len(side.watchers) == 0 {
		return
	}
	watcher, count := choice(session, side.watchers), 1+session.choose(256)
	session.notef("receive %d from Watch(%q, %q)", count, watcher.group, watcher.key)
	session.wantEvents(watcher, count)
}

// wantEvents receives up to count events and compares them.
func (session *session) wantEvents(watcher *watcher, count int) {
	session.t.Helper()
	if got, want := len(watcher.Events), len(watcher.queue); got != want {
		session.t.Fatalf("Watch(%q, %q) holds %d events, want %d", watcher.group, watcher.key, got, want)
	}
	for range min(count, len(watcher.queue)) {
		got := <-watcher.Events
		got.Timestamp = never
		if want := watcher.queue[0]; got != want {
			session.t.Fatalf("Watch(%q, %q) got %.300q, want %.300q", watcher.group, watcher.key, fmt.Sprint(got), fmt.Sprint(want))
		}
		watcher.queue = watcher.queue[1:]
	}
}

// wantEnded expects the events in the buffer, and then a closed channel.
func (session *session) wantEnded(watcher *watcher) {
	session.t.Helper()
	session.wantEvents(watcher, len(watcher.queue))
	select {
	case event, ok := <-watcher.Events:
		if ok {
			session.t.Fatalf("got event %v after the end", event)
		}
	default:
		session.t.Fatalf("the channel is still open")
	}
}

func (session *session) onChange() {
	side := choice(session, session.sides)
	if len(side.callbacks) >= 6 {
		return
	}
	session.sequence++
	added := &callback{id: session.sequence, kind: callbackKind(session.choose(int(callbackKinds)))}
	session.notef("OnChange(%d, kind %d)", added.id, added.kind)
	side.callbacks = append(side.callbacks, added)
	session.register(side, added.id, added.kind)
}

// register registers the callback itself; what it does to the model is in emit.
func (session *session) register(side *side, id int, kind callbackKind) {
	spent := false
	side.unregister[id] = side.storeInstance.OnChange(func(event store.Event) {
		if kind == once && spent {
			return
		}
		session.record(side, id, event)
		switch {
		case kind == once:
			side.unregister[id]()
		case kind == spawner && !spent:
			session.register(side, id+spawnOffset, recorder)
		case kind == echo && event.Group != echoGroup:
			session.check(side.storeInstance.Set(echoGroup, event.Key, event.Group))
		}
		spent = true
	})
}

func (session *session) record(side *side, id int, event store.Event) {
	if now := time.Now(); event.Timestamp.IsZero() || event.Timestamp.Before(side.lastTimestamp) || event.Timestamp.After(now) {
		session.t.Fatalf("an event is of %v, the one before it of %v; it is %v", event.Timestamp, side.lastTimestamp, now)
	}
	side.lastTimestamp = event.Timestamp
	event.Timestamp = never
	session.calls = append(session.calls, call{id, event})
}

// unregister unregisters twice: the second is a no-op.
func (session *session) unregister() {
	side := choice(session, session.sides)
	if len(side.callbacks) == 0 {
		return
	}
	chosen := session.choose(len(side.callbacks))
	id := side.callbacks[chosen].id
	side.callbacks = slices.Delete(side.callbacks, chosen, chosen+1)
	session.notef("unregister %d", id)
	side.unregister[id]()
	side.unregister[id]()
}

// Opening and closing.

func (session *session) open(number int) *side {
	session.t.Helper()
	storeInstance, err := store.New(session.path)
	session.check(err)
	opened := &side{number: number, storeInstance: storeInstance, opened: time.Now(), unregister: map[int]func(){}}
	opened.views = []*view{{keyValues: storeInstance, side: opened}}
	for _, scope := range scopes {
		scopedStore, err := store.NewScopedWithQuota(storeInstance, scope.namespace, scope.quota)
		session.check(err)
		added := &view{keyValues: scopedStore, side: opened, prefix: scope.namespace + ":", quota: scope.quota}
		if session.shape.byHand && scope.quota == (store.QuotaConfig{}) {
			added.keyValues = prefixed{scopedStore, storeInstance, added.prefix}
		}
		opened.views = append(opened.views, added)
	}
	return opened
}

// reopen closes one store and opens it again, which only a file survives.
func (session *session) reopen() {
	chosen := session.choose(len(session.sides))
	if session.depth > 0 || !session.shape.file {
		return
	}
	session.notef("Close and New")
	session.close(session.sides[chosen])
	session.sides[chosen] = session.open(chosen)
	session.audit()
}

func (session *session) close(side *side) {
	session.t.Helper()
	session.check(side.storeInstance.Close())
	session.check(side.storeInstance.Close())
	for _, watcher := range side.watchers {
		session.wantEnded(watcher)
		side.storeInstance.Unwatch(watcher.Watcher)
	}
	for _, unregister := range side.unregister {
		unregister()
	}
	for _, view := range side.views {
		_, getError := view.Get("group", "key")
		_, purgeError := view.PurgeExpired()
		errs := []error{getError, purgeError, view.Set("group", "key", "value"), view.DeleteGroup("group")}
		for _, err := range view.All("group") {
			errs = append(errs, err)
		}
		for i, err := range errs {
			if !errors.Is(err, os.ErrClosed) || len(errs) != 5 {
				session.t.Fatalf("call %d on a closed store: %v, want os.ErrClosed, and that 5 times, not %d", i, err, len(errs))
			}
		}
	}
}

// checkFile compares the closed file's rows with the model's.
func (session *session) checkFile(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(session.path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the log of a closed store: %v, want none", err)
	}
	checkIntegrity(t, session.path)
	database := openDatabase(t, session.path)
	rows, err := database.Query("SELECT CAST(group_name AS BLOB), CAST(entry_key AS BLOB), CAST(entry_value AS BLOB), expires_at FROM entries")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var group, key, value []byte
		var expiresAt sql.NullInt64
		if err := rows.Scan(&group, &key, &value, &expiresAt); err != nil {
			t.Fatal(err)
		}
		name := entryName{string(group), string(key)}
		want, ok := session.rows[name]
		delete(session.rows, name)
		if !ok || want.value != string(value) || expiresAt.Valid != (want.deadline != never) {
			t.Errorf("the file holds %q = %.100q, %v; want %v, %.100q, %v", name, value, expiresAt, ok, want.value, want.deadline)
		} else if late := time.UnixMilli(expiresAt.Int64).Sub(want.deadline); want.deadline.After(longSince) && (late < 0 || late > tolerance) {
			t.Errorf("the file holds %q until %v after its deadline", name, late)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for name, row := range session.rows {
		if !row.maybe {
			t.Errorf("the file has lost %q = %.100q (alive: %v)", name, row.value, row.alive(session.ended))
		}
	}
}
