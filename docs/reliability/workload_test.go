package reliability_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dappco.re/go/core/store"
)

// The workload is what the children of these tests do: writers, each a goroutine with groups of its own, choose
// their operations from the seed, their number and nothing else, and write one line for each that the store
// acknowledged. So the parent can tell from those lines alone what the store must hold: for each writer the
// effect of what was acknowledged, and perhaps that of the one operation that was under way.

const (
	plainGroups, plainKeys   = 3, 8
	scopedGroups, scopedKeys = 3, 4
	namespace                = "tenant"
)

// workload is what parent and child must agree on. It travels as the child's argument.
type workload struct {
	Path           string
	Seed           uint64
	Round          int  // the writers of another round choose differently
	First, Writers int  // numbers of the writers
	Operations     int  // of each writer; 0: until killed
	MaximumSize    int  // of a value
	Exact          bool // the quota has room for what all may hold at most, so a refusal is an error
	Reopen         bool // after a failed write open the store anew and go on
	Beside         bool // the log is that of another store, which opened a finished file and does not write
}

func (workload workload) argument() string {
	argument, err := json.Marshal(workload)
	if err != nil {
		panic(err)
	}
	return string(argument)
}

func parseWorkload(argument string) (workload workload) {
	if err := json.Unmarshal([]byte(argument), &workload); err != nil {
		fatalf("workload %s: %v", argument, err)
	}
	return workload
}

// quota is one that the workload meets often, unless it is to have room.
func (workload workload) quota() store.QuotaConfig {
	writers := workload.Writers
	if workload.Exact {
		writers *= processes
		return store.QuotaConfig{MaxKeys: writers * scopedGroups * scopedKeys, MaxGroups: writers * scopedGroups}
	}
	return store.QuotaConfig{MaxKeys: writers * scopedGroups * scopedKeys / 2, MaxGroups: writers*(scopedGroups-1) + 1}
}

type operation struct {
	call              string
	scoped            bool
	group, key, value string
	ttl               time.Duration
}

// Outcomes of an operation, as a child reports them.
const (
	done    = "done"
	refused = "refused" // by the quota
	busy    = "busy"    // another process held the lock for as long as a write has patience
	failed  = "failed"  // by an injected fault; the write may have happened
)

func (operation operation) run(storeInstance *store.Store, scopedStore *store.ScopedStore) error {
	// What Store and ScopedStore have in common, so that one switch serves both.
	var target interface {
		Set(group, key, value string) error
		SetWithTTL(group, key, value string, ttl time.Duration) error
		Delete(group, key string) error
		DeleteGroup(group string) error
		PurgeExpired() (int64, error)
	} = storeInstance
	if operation.scoped {
		target = scopedStore
	}
	switch operation.call {
	case "Set":
		return target.Set(operation.group, operation.key, operation.value)
	case "SetWithTTL":
		return target.SetWithTTL(operation.group, operation.key, operation.value, operation.ttl)
	case "Delete":
		return target.Delete(operation.group, operation.key)
	case "DeleteGroup":
		return target.DeleteGroup(operation.group)
	case "PurgeExpired":
		_, err := target.PurgeExpired()
		return err
	}
	panic("no operation " + operation.call)
}

type address struct{ group, key string }

// rows are the live entries of one writer, under full group names.
type rows map[address]string

func (rows rows) apply(operation operation) {
	group := operation.group
	if operation.scoped {
		group = namespace + ":" + group
	}
	switch operation.call {
	case "Set", "SetWithTTL":
		if operation.call == "SetWithTTL" && operation.ttl <= 0 {
			delete(rows, address{group, operation.key})
		} else {
			rows[address{group, operation.key}] = operation.value
		}
	case "Delete":
		delete(rows, address{group, operation.key})
	case "DeleteGroup":
		maps.DeleteFunc(rows, func(address address, _ string) bool { return address.group == group })
	}
}

// admit says whether the quota lets the operation happen.
func (rows rows) admit(operation operation, quota store.QuotaConfig) bool {
	if !operation.scoped || operation.call != "Set" && operation.call != "SetWithTTL" {
		return true
	}
	keys, groups := 0, map[string]bool{}
	for address := range rows {
		if strings.HasPrefix(address.group, namespace+":") {
			keys++
			groups[address.group] = true
		}
	}
	group := namespace + ":" + operation.group
	if _, exists := rows[address{group, operation.key}]; exists {
		return true
	}
	return keys < quota.MaxKeys && (groups[group] || len(groups) < quota.MaxGroups)
}

// writer is one goroutine of the workload in the child, and its shadow in the parent.
type writer struct {
	number      int
	random      *rand.Rand
	maximumSize int
	sequence    int       // of the operation that comes next
	next        operation // which the store may be doing now
	candidates  []rows    // one, or more once an operation has failed
}

func (workload workload) newWriter(number int, candidates []rows) *writer {
	writer := &writer{
		number:      number,
		random:      newRandom(workload.Seed, uint64(workload.Round)<<16|uint64(number)),
		maximumSize: workload.MaximumSize,
		candidates:  candidates,
	}
	writer.choose()
	return writer
}

func (writer *writer) choose() {
	operation := operation{call: "Set", scoped: writer.random.IntN(3) == 0}
	switch n := writer.random.IntN(100); {
	case n < 12:
		operation.call = "Delete"
	case n < 15:
		operation.call = "DeleteGroup"
	case n < 17:
		operation.call = "PurgeExpired"
	case n < 35:
		operation.call = "SetWithTTL"
		operation.ttl = time.Duration(writer.random.IntN(3)) * time.Hour // a third has elapsed at once
	}
	groups, keys := plainGroups, plainKeys
	if operation.scoped {
		groups, keys = scopedGroups, scopedKeys
	}
	operation.group = fmt.Sprintf("w%d/%d", writer.number, writer.random.IntN(groups))
	operation.key = "k" + strconv.Itoa(writer.random.IntN(keys))
	if strings.HasPrefix(operation.call, "Set") {
		operation.value = newValue(writer.random, writer.maximumSize)
	}
	writer.next = operation
}

// newValue returns at least ten random bytes, so that no two values are equal and none can be torn unseen.
// Short ones are as frequent as long ones.
func newValue(random *rand.Rand, maximumSize int) string {
	size := int(10 * math.Pow(float64(maximumSize)/10, random.Float64()))
	value := make([]byte, 0, size+8)
	for len(value) < size {
		n := random.Uint64()
		value = append(value, byte(n), byte(n>>8), byte(n>>16), byte(n>>24), byte(n>>32), byte(n>>40), byte(n>>48), byte(n>>56))
	}
	return string(value[:size])
}

// advance notes the outcome of the writer's next operation and chooses the one after it.
func (writer *writer) advance(outcome string) {
	switch outcome {
	case done:
		for _, rows := range writer.candidates {
			rows.apply(writer.next)
		}
	case failed:
		writer.candidates = append(writer.candidates, writer.after()...)
	}
	writer.sequence++
	writer.choose()
}

// after returns what each candidate would be if the next operation has happened.
func (writer *writer) after() []rows {
	var result []rows
	for _, rows := range writer.candidates {
		rows = maps.Clone(rows)
		rows.apply(writer.next)
		result = append(result, rows)
	}
	return result
}

func init() {
	roles["workload"] = func() { parseWorkload(os.Args[1]).run() }
}

// run is the child. It never closes the store that it used last: a crash would not do so either.
func (workload workload) run() {
	var writers []*writer
	for number := range workload.Writers {
		writers = append(writers, workload.newWriter(workload.First+number, nil))
	}
	if workload.Beside {
		finished, _, err := workload.open()
		if err == nil {
			err = finished.Close()
		}
		var reader *store.Store
		if err == nil {
			reader, err = store.New(workload.Path)
		}
		if err == nil {
			_, err = reader.CountAll("")
		}
		if err != nil {
			fatalf("the store beside: %v", err)
		}
	}
	attempts := 1
	if workload.Reopen {
		attempts = 10 // more than a handful of failures was not injected
	}
	for range attempts {
		storeInstance, scopedStore, err := workload.open()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		var group sync.WaitGroup
		for _, writer := range writers {
			group.Go(func() {
				for workload.Operations == 0 || writer.sequence < workload.Operations {
					if !workload.step(writer, storeInstance, scopedStore) {
						return
					}
				}
			})
		}
		group.Wait()
		if !slices.ContainsFunc(writers, func(writer *writer) bool { return writer.sequence < workload.Operations }) {
			return
		}
		storeInstance.Close() // its error is that of the failed flush
	}
	fatalf("no store in %d attempts", attempts)
}

func (workload workload) open() (*store.Store, *store.ScopedStore, error) {
	storeInstance, err := store.New(workload.Path)
	if err != nil {
		return nil, nil, err
	}
	scopedStore, err := store.NewScopedWithQuota(storeInstance, namespace, workload.quota())
	if err != nil {
		storeInstance.Close()
	}
	return storeInstance, scopedStore, err
}

// step does one operation and reports it in one system call, so that lines never mix. It returns false after a
// failed write where those are expected.
func (workload workload) step(writer *writer, storeInstance *store.Store, scopedStore *store.ScopedStore) bool {
	began := time.Now()
	outcome := done
	err := writer.next.run(storeInstance, scopedStore)
	waited := time.Since(began)
	switch {
	case err == nil:
	case waited >= patience && strings.Contains(err.Error(), "locked"):
		outcome = busy
	case errors.Is(err, store.QuotaExceededError) && !workload.Exact:
		outcome = refused
	case workload.Reopen:
		outcome = failed
	default:
		fatalf("writer %d: %s after %v: %v", writer.number, writer.next.call, waited, err)
	}
	fmt.Fprintf(os.Stdout, "%d %d %s\n", writer.number, writer.sequence, outcome)
	writer.advance(outcome)
	return outcome != failed
}

// history is what the parent knows of a file: the shadows of the writers, moved on by what the children report.
type history struct {
	writers      map[int]*writer
	acknowledged int
	quota        *store.QuotaConfig // where one writer is alone, so that its refusals can be foretold
}

func newHistory() *history { return &history{writers: map[int]*writer{}} }

// begin adds the writers of a workload, or begins another round of theirs.
func (history *history) begin(workload workload) {
	for number := workload.First; number < workload.First+workload.Writers; number++ {
		candidates := []rows{{}}
		if previous := history.writers[number]; previous != nil {
			candidates = previous.candidates
		}
		history.writers[number] = workload.newWriter(number, candidates)
	}
	if quota := workload.quota(); workload.Writers == 1 {
		history.quota = &quota
	}
}

// acknowledge takes one line of a child.
func (history *history) acknowledge(line string) error {
	var number, sequence int
	var outcome string
	if _, err := fmt.Sscan(line, &number, &sequence, &outcome); err != nil {
		return fmt.Errorf("report %q: %w", line, err)
	}
	writer := history.writers[number]
	if writer == nil || writer.sequence != sequence {
		return fmt.Errorf("report %q of an operation that cannot be under way", line)
	}
	if quota := history.quota; quota != nil && (outcome == done || outcome == refused) {
		if admitted := writer.candidates[0].admit(writer.next, *quota); admitted != (outcome == done) {
			return fmt.Errorf("report %q of %s %s/%s, whose quota admits it: %t", line, writer.next.call, writer.next.group, writer.next.key, admitted)
		}
	}
	writer.advance(outcome)
	if outcome == done || outcome == refused {
		history.acknowledged++
	}
	return nil
}

// follow acknowledges what a child reports until its output ends, and calls each after every line.
func (history *history) follow(output io.Reader, each func()) error {
	reader := bufio.NewReader(output)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return nil // a line that was not finished was not written: the pipe takes it whole
		}
		if err := history.acknowledge(line); err != nil {
			return err
		}
		each()
	}
}

// check compares an opened store with the history: all that was acknowledged is there, nothing is torn, nothing
// appears that was never written, counts and quotas agree with the rows. It returns the rows of each writer.
func (history *history) check(storeInstance *store.Store) (map[int]rows, error) {
	found := map[int]rows{}
	for number := range history.writers {
		found[number] = rows{}
	}
	groups, err := storeInstance.Groups("")
	if err != nil {
		return nil, err
	}
	total, scopedTotal, scopedGroupTotal := 0, 0, 0
	for _, group := range groups {
		entries, err := storeInstance.GetAll(group)
		if err != nil {
			return nil, err
		}
		if count, err := storeInstance.Count(group); err != nil || count != len(entries) {
			return nil, fmt.Errorf("Count(%q) = %d, %v; want %d as in GetAll", group, count, err, len(entries))
		}
		name, scoped := strings.CutPrefix(group, namespace+":")
		total += len(entries)
		if scoped {
			scopedTotal += len(entries)
			scopedGroupTotal++
		}
		var number int
		if _, err := fmt.Sscanf(name, "w%d/", &number); err != nil || found[number] == nil {
			return nil, fmt.Errorf("group %q was never written", group)
		}
		for key, value := range entries {
			found[number][address{group, key}] = value
		}
	}
	if count, err := storeInstance.CountAll(""); err != nil || count != total {
		return nil, fmt.Errorf(`CountAll("") = %d, %v; want %d as in GetAll`, count, err, total)
	}
	for number, writer := range history.writers {
		if err := writer.matches(found[number]); err != nil {
			return nil, fmt.Errorf("writer %d after %d operations: %w", number, writer.sequence, err)
		}
	}
	return found, checkQuota(storeInstance, scopedTotal, scopedGroupTotal)
}

// matches reports how the rows differ from all that the writer may have left.
func (writer *writer) matches(found rows) error {
	for _, want := range append(writer.after(), writer.candidates...) {
		if maps.Equal(found, want) {
			return nil
		}
	}
	want, difference := writer.candidates[0], []string{}
	for address, value := range want {
		if got, ok := found[address]; !ok {
			difference = append(difference, fmt.Sprintf("%v of %d bytes is lost", address, len(value)))
		} else if got != value {
			difference = append(difference, fmt.Sprintf("%v holds %d bytes, not the %d written", address, len(got), len(value)))
		}
	}
	for address, value := range found {
		if _, ok := want[address]; !ok {
			difference = append(difference, fmt.Sprintf("%v of %d bytes appeared", address, len(value)))
		}
	}
	return fmt.Errorf("%s (%s %s/%s under way)", strings.Join(difference, ", "), writer.next.call, writer.next.group, writer.next.key)
}

// settle makes what was found the only candidate, before the next round.
func (history *history) settle(found map[int]rows) {
	for number, writer := range history.writers {
		writer.candidates = []rows{found[number]}
	}
}

// checkQuota sees the counts that quotas rest on: limits set just above the number of live rows admit what they
// must and nothing more.
func checkQuota(storeInstance *store.Store, keys, groups int) error {
	limited, err := store.NewScopedWithQuota(storeInstance, namespace, store.QuotaConfig{MaxKeys: keys + 2, MaxGroups: groups + 1})
	if err != nil {
		return err
	}
	for _, step := range []struct {
		group, key string
		want       error
	}{
		{"probe", "first", nil},
		{"another", "first", store.QuotaExceededError}, // a group too many
		{"probe", "second", nil},
		{"probe", "third", store.QuotaExceededError}, // a key too many
	} {
		if err := limited.Set(step.group, step.key, "probe"); !errors.Is(err, step.want) {
			return fmt.Errorf("with %d live keys in %d groups: Set(%q, %q): %v; want %v", keys, groups, step.group, step.key, err, step.want)
		}
	}
	return limited.DeleteGroup("probe")
}

// examine opens the file with the store, checks it, and lets SQLite check it too.
func (history *history) examine(databasePath string) (map[int]rows, error) {
	storeInstance, err := store.New(databasePath)
	if err != nil {
		return nil, err
	}
	defer storeInstance.Close()
	found, err := history.check(storeInstance)
	if err != nil {
		return nil, err
	}
	return found, integrity(databasePath)
}

// copyFiles copies a database and its log, which no process has open, and leaves out the -shm, which SQLite
// makes anew.
func copyFiles(from, to string) error {
	for _, suffix := range []string{"", "-wal", "-journal"} {
		content, err := os.ReadFile(from + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to+suffix, content, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
