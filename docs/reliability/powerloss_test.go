package reliability_test

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// disk is a model of a directory on a disk that keeps what was flushed and, of all else, whatever it likes: none
// of it, all of it, or any of its sectors, whatever their order. It never un-writes what lies next to a write.
type disk struct {
	directory string
	files     map[string]*inode  // the directory as the processes see it
	names     map[string][]*name // what each name may stand for after a power loss; the first is the flushed state
	flushes   int
	logs      int // headers of logs that were written
}

type inode struct {
	content []byte // as the processes see it
	durable []byte
	pending []*change // what may or may not have reached the disk, in its order
}

// change is a write, or where data is nil the setting of a size.
type change struct {
	end    int // its place in the record; math.MaxInt while it is under way
	offset int64
	data   []byte
	lost   bool // a flush of it failed: the kernel takes it for written and will not flush it again
}

// name is a state of a directory entry: no file where inode is nil.
type name struct {
	end   int
	inode *inode
}

func newDisk(directory string) *disk {
	return &disk{directory: directory, files: map[string]*inode{}, names: map[string][]*name{}}
}

// concerns says whether the call may change what the disk keeps. The -shm is not kept, and a file that has no
// name any more cannot be found again.
func (disk *disk) concerns(call *systemCall) bool {
	if call.err != "" && !call.isFlush() || strings.HasSuffix(call.path, "-shm") || strings.HasSuffix(call.path, " (deleted)") {
		return false
	}
	return call.path == disk.directory || strings.HasPrefix(call.path, disk.directory+"/")
}

// begin lets a call start: from then on a part of it may have happened. It returns what its end does.
func (disk *disk) begin(call *systemCall) (finish func() error, err error) {
	nothing := func() error { return nil }
	base := filepath.Base(call.path)
	file := disk.files[base]
	switch call.name {
	case "pwrite64", "ftruncate":
		if file == nil {
			break
		}
		if call.name == "pwrite64" && call.offset == 0 && strings.HasSuffix(base, "-wal") {
			disk.logs++
		}
		change := &change{end: math.MaxInt, offset: call.offset, data: call.data}
		file.write(change)
		return func() error { change.end = call.end; return nil }, nil
	case "fsync", "fdatasync":
		disk.flushes++
		switch {
		case call.path == disk.directory && call.err == "":
			return func() error { disk.flushNames(call.start); return nil }, nil
		case call.path == disk.directory:
			return nothing, nil
		case file == nil:
		case call.err == "":
			return func() error { file.flush(call.start); return nil }, nil
		default:
			return func() error { file.fail(call.start); return nil }, nil
		}
	case "open", "openat":
		if call.path == disk.directory || file != nil {
			return nothing, nil
		}
		if call.creates {
			disk.enter(base, &inode{}, call.end)
			return nothing, nil
		}
	case "unlink", "unlinkat":
		disk.enter(base, nil, call.end)
		return nothing, nil
	}
	return nil, fmt.Errorf("the model cannot do %s of %s", call.name, call.path)
}

func (disk *disk) enter(base string, file *inode, end int) {
	if file == nil {
		delete(disk.files, base)
	} else {
		disk.files[base] = file
	}
	if disk.names[base] == nil {
		disk.names[base] = []*name{{inode: nil}}
	}
	disk.names[base] = append(disk.names[base], &name{end, file})
}

// flushNames keeps, of each name, the last state that a flush which began at start must have seen.
func (disk *disk) flushNames(start int) {
	for base, states := range disk.names {
		last := 0
		for i, state := range states {
			if state.end < start {
				last = i
			}
		}
		disk.names[base] = states[last:]
	}
}

func (file *inode) flush(start int) {
	file.pending = slices.DeleteFunc(file.pending, func(change *change) bool {
		if change.end >= start || change.lost {
			return false
		}
		file.durable = change.apply(file.durable)
		return true
	})
}

func (file *inode) write(change *change) {
	file.content = change.apply(file.content)
	for _, earlier := range file.pending {
		// A page is written as a whole, with what an earlier flush failed to write of it.
		if earlier.lost && earlier.offset/pageSize >= change.offset/pageSize &&
			earlier.offset < change.offset+int64(len(change.data)) {
			earlier.lost = false
		}
	}
	file.pending = append(file.pending, change)
}

// fail notes that a flush, which began at start, has not done its work, and that the kernel will not try again.
func (file *inode) fail(start int) {
	var pending []*change
	for _, one := range file.pending {
		if one.end >= start || one.data == nil {
			pending = append(pending, one)
			continue
		}
		for part := range one.split(pageSize) {
			part.end, part.lost = one.end, true
			pending = append(pending, part)
		}
	}
	file.pending = pending
}

func (change *change) apply(content []byte) []byte {
	size := change.offset + int64(len(change.data))
	if int64(len(content)) < size || change.data == nil {
		content = resize(content, size)
	}
	copy(content[change.offset:], change.data)
	return content
}

func resize(content []byte, size int64) []byte {
	if size <= int64(len(content)) {
		return content[:size:size]
	}
	return append(content, make([]byte, size-int64(len(content)))...)
}

// A disk writes sectors, a kernel pages.
const sectorSize, pageSize = 512, 4096

// crash returns the files after a power loss. How much of what was not flushed has reached the disk is chosen at
// random: of the data and of the names apart, and mostly neither all nor nothing.
func (disk *disk) crash(random *rand.Rand) map[string][]byte {
	kept, keptNames := keep(random), keep(random)
	torn, junk := random.IntN(2) == 0, random.IntN(4) == 0
	result := map[string][]byte{}
	for _, base := range slices.Sorted(maps.Keys(disk.names)) {
		states := disk.names[base]
		state := states[0]
		for _, later := range states[1:] {
			if random.Float64() < keptNames {
				state = later
			}
		}
		if state.inode != nil {
			result[base] = state.inode.crash(random, kept, torn, junk)
		}
	}
	return result
}

func keep(random *rand.Rand) float64 { return []float64{0, 0.1, 0.5, 0.9, 1}[random.IntN(5)] }

func (file *inode) crash(random *rand.Rand, kept float64, torn, junk bool) []byte {
	content := bytes.Clone(file.durable)
	for _, change := range file.pending {
		if change.data == nil || !torn {
			if random.Float64() < kept {
				content = change.apply(content)
			}
			continue
		}
		for sector := range change.split(sectorSize) {
			if random.Float64() < kept {
				content = sector.apply(content)
			} else if junk && sector.offset >= int64(len(content)) {
				// The file has grown, and what the new sector holds was never written.
				content = sector.apply(content)
				for i := range sector.data {
					content[sector.offset+int64(i)] = byte(random.Uint32())
				}
			}
		}
	}
	return content
}

// split cuts a write at the multiples of a size.
func (whole *change) split(size int64) iter.Seq[*change] {
	return func(yield func(*change) bool) {
		offset, data := whole.offset, whole.data
		for len(data) > 0 {
			length := min(int64(len(data)), size-offset%size)
			if !yield(&change{offset: offset, data: data[:length:length]}) {
				return
			}
			offset, data = offset+length, data[length:]
		}
	}
}

// recordReplay walks through a record. At the places where a call on the files begins or ends it lets the power fail,
// and examines what is left: at random ones, or at all of them as often as the number of states allows.
type recordReplay struct {
	directory string // that the child used
	calls     []*systemCall
	history   *history
	states    int  // how many to examine, about
	cut       bool // the record goes on, beyond what can be asked of anybody
}

func (replay recordReplay) run(t *testing.T, random *rand.Rand) *disk {
	t.Helper()
	disk := newDisk(replay.directory)
	steps := replay.steps(disk)
	scratch := scratchDirectory(t)
	states := 0
	for _, place := range slices.Sorted(maps.Keys(steps)) {
		for _, step := range steps[place] {
			if err := step(); err != nil {
				t.Fatalf("place %d of the record: %v", place, err)
			}
		}
		for range replay.ways(random, len(steps)) {
			states++
			if err := replay.examine(scratch, disk.crash(random), random); err != nil {
				t.Fatalf("place %d of the record, %d acknowledged, flushes that failed at %v: %v",
					place, replay.history.acknowledged, replay.failures(), err)
			}
		}
	}
	if !replay.cut {
		replay.compare(t, disk)
	}
	t.Logf("record of %d steps: %d flushes, %d logs begun, %d acknowledged writes; %d power losses, 0 lost",
		len(steps), disk.flushes, disk.logs, replay.history.acknowledged, states)
	return disk
}

// ways returns how often the power is to fail at one of the places.
func (replay recordReplay) ways(random *rand.Rand, places int) int {
	ways := replay.states / places
	if random.IntN(places) < replay.states%places {
		ways++
	}
	return ways
}

// steps are what happens at each place of the record that matters: a call on the files begins or ends, or a
// report begins, from when on it counts.
func (replay recordReplay) steps(disk *disk) map[int][]func() error {
	steps := map[int][]func() error{}
	at := func(place int, step func() error) { steps[place] = append(steps[place], step) }
	for _, call := range replay.calls {
		if call.isReport() {
			at(call.start, func() error { return replay.history.acknowledge(string(call.data)) })
		} else if disk.concerns(call) {
			finish := func() error { return nil }
			at(call.start, func() (err error) {
				finish, err = disk.begin(call)
				return err
			})
			if call.end != math.MaxInt {
				at(call.end, func() error { return finish() })
			}
		}
	}
	return steps
}

// examine builds the files and looks at them as the program would that finds them when the power is back. The
// -shm holds nothing that matters, so it may be gone or hold anything.
func (replay recordReplay) examine(scratch string, files map[string][]byte, random *rand.Rand) error {
	directory, err := os.MkdirTemp(scratch, "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	if random.IntN(2) == 0 {
		files[databaseName+"-shm"] = bytes.Repeat([]byte{byte(random.Uint32())}, 32<<10)
	}
	for base, content := range files {
		if err := os.WriteFile(filepath.Join(directory, base), content, 0o600); err != nil {
			return err
		}
	}
	_, err = replay.history.examine(filepath.Join(directory, databaseName))
	return err
}

// compare sees that the record was complete: the files are what it makes of them.
func (replay recordReplay) compare(t *testing.T, disk *disk) {
	t.Helper()
	for base, file := range disk.files {
		content, err := os.ReadFile(filepath.Join(replay.directory, base))
		if err != nil || !bytes.Equal(content, file.content) {
			t.Errorf("the record makes %d bytes of %s, which holds %d, %v; want the same", len(file.content), base, len(content), err)
		}
	}
}

// scratchDirectory is in memory where that can be had: what is written there is read once.
func scratchDirectory(t *testing.T) string {
	t.Helper()
	scratch, err := os.MkdirTemp("/dev/shm", "reliability")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(scratch) })
	return scratch
}

const databaseName = "store.db"

// TestPowerLoss_NothingAcknowledgedIsLost records children that write several logs full, so that checkpoints and
// logs begun anew lie in the record, and lets the power fail in the middle of everything.
func TestPowerLoss_NothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		writers     int
		logs        int // that must have been begun
		operations  int
		maximumSize int
		states      int
		beside      bool
	}{
		{"NewFile", 4, 1, scale(4, 10, 40), 1000, scale(60, 800, 2500), false},
		{"BesideAnother", 4, 1, scale(2, 5, 20), 1000, scale(60, 800, 2500), true},
		{"OneWriter", 1, 3, scale(0, 900, 900), 20_000, scale(0, 800, 9000), false},
		{"SixteenWriters", 16, scale(2, 3, 3), scale(45, 90, 90), 20_000, scale(50, 800, 9000), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.operations == 0 {
				t.Skip("RELIABILITY=ci runs it")
			}
			seed := newSeed(t)
			workload := workload{Path: filepath.Join(t.TempDir(), databaseName), Seed: seed,
				Writers: test.writers, Operations: test.operations, MaximumSize: test.maximumSize, Beside: test.beside}
			if disk := powerLoss(t, workload, "", test.states); disk.logs < test.logs {
				t.Errorf("the record has %d logs begun; want %d, so that checkpoints and restarts lie in it", disk.logs, test.logs)
			}
		})
	}
}

// TestPowerLoss_AfterAFailedFlush lets a flush of the log fail. The model takes what it should have flushed for
// lost, as kernels do: no later flush of the file brings it to the disk.
func TestPowerLoss_AfterAFailedFlush(t *testing.T) {
	t.Parallel()
	seed := newSeed(t)
	for round := range scale(1, 10, 20) {
		workload := workload{Path: filepath.Join(t.TempDir(), databaseName), Seed: seed, Round: round,
			Writers: 4, Operations: 20, MaximumSize: 4000, Reopen: true}
		inject := fmt.Sprintf("fsync:error=EIO:when=%d", 5+newRandom(seed, uint64(round)).IntN(30))
		powerLoss(t, workload, inject, scale(50, 200, 250))
	}
}

// failures are the places of the flushes that failed.
func (replay recordReplay) failures() (places []int) {
	for _, call := range replay.calls {
		if call.name == "fsync" && call.err != "" {
			places = append(places, call.start)
		}
	}
	return places
}

// untilItFailsAgain cuts a record where a file's flush fails twice in a row: the tracer counts for each thread, so it
// may fail the very flush by which Close makes up for another, and nobody can bring data to a disk that takes none.
func untilItFailsAgain(calls []*systemCall) (kept []*systemCall, cut bool) {
	failed := map[string]bool{}
	for index, call := range calls {
		if call.name != "fsync" {
			continue
		}
		if call.err != "" && failed[call.path] {
			return calls[:index], true
		}
		failed[call.path] = call.err != ""
	}
	return calls, false
}

func powerLoss(t *testing.T, workload workload, inject string, states int) *disk {
	t.Helper()
	replay := recordReplay{directory: filepath.Dir(workload.Path), history: newHistory(), states: states}
	replay.history.begin(workload)
	replay.calls = traceChild(t, inject, "workload", workload.argument())
	replay.calls, replay.cut = untilItFailsAgain(replay.calls)
	return replay.run(t, newRandom(workload.Seed, 1<<32))
}
