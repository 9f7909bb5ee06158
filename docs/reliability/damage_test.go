package reliability_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dappco.re/go/core/store"
)

// damagedLog is a database with a log that a lone writer left behind, one transaction after another, and what the
// store held after each.
type damagedLog struct {
	database, log []byte
	states        []map[address]string // before the first write of the log, after it, …
	sizes         []int64              // of the log when the write of the state was acknowledged
	scratch       string
	frameSize     int
}

const logWrites = 50

// A child of these tests writes with a store that it leaves open when it ends, and reports the size of the log
// after each write. (A stat by name takes no lock away.)
func init() {
	roles["log"] = func() {
		for life := range 2 { // the log belongs to the second life, so that the database is not empty
			storeInstance, err := store.New(os.Args[1])
			if err != nil {
				fatalf("New: %v", err)
			}
			for number := range logWrites {
				if err := logWrite(storeInstance, life*logWrites+number); err != nil {
					fatalf("%v", err)
				}
				if info, err := os.Stat(os.Args[1] + "-wal"); err == nil && life == 1 {
					fmt.Println(info.Size())
				}
			}
			if life == 0 {
				if err := storeInstance.Close(); err != nil {
					fatalf("Close: %v", err)
				}
			}
		}
	}
}

// logWrite is the write of a number, which the parent repeats on a store of its own to know what it does.
func logWrite(storeInstance *store.Store, number int) error {
	group := "g" + strconv.Itoa(number%3)
	switch number % 10 {
	case 7:
		return storeInstance.Delete(group, "k"+strconv.Itoa(number%5))
	case 9:
		return storeInstance.DeleteGroup(group)
	}
	return storeInstance.Set(group, "k"+strconv.Itoa(number%5), strings.Repeat(fmt.Sprintf("<%d>", number), 1+number*number%300))
}

func newDamagedLog(t *testing.T) *damagedLog {
	t.Helper()
	damaged := &damagedLog{scratch: scratchDirectory(t)}
	databasePath := filepath.Join(t.TempDir(), databaseName)
	output, err := newChild(t, "log", databasePath).Output()
	if err != nil {
		t.Fatal(err)
	}
	// Before the first write the log may hold what opening wrote.
	damaged.sizes = []int64{0}
	for line := range strings.Lines(string(output)) {
		size, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		damaged.sizes = append(damaged.sizes, size)
	}
	if damaged.database, err = os.ReadFile(databasePath); err != nil {
		t.Fatal(err)
	}
	if damaged.log, err = os.ReadFile(databasePath + "-wal"); err != nil {
		t.Fatal(err)
	}
	damaged.frameSize = frameHeaderSize + int(damaged.database[16])<<8 + int(damaged.database[17])
	twin := openStore(t, ":memory:")
	for number := range 2 * logWrites {
		if number >= logWrites {
			damaged.states = append(damaged.states, contents(t, twin))
		}
		if err := logWrite(twin, number); err != nil {
			t.Fatal(err)
		}
	}
	damaged.states = append(damaged.states, contents(t, twin))
	if len(damaged.sizes) != len(damaged.states) {
		t.Fatalf("%d acknowledgements; want %d", len(damaged.sizes)-1, len(damaged.states)-1)
	}
	return damaged
}

func contents(t testing.TB, storeInstance *store.Store) map[address]string {
	t.Helper()
	result, err := readContents(storeInstance)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func readContents(storeInstance *store.Store) (map[address]string, error) {
	result := map[address]string{}
	groups, err := storeInstance.Groups("")
	for _, group := range groups {
		entries, err := storeInstance.GetAll(group)
		if err != nil {
			return nil, err
		}
		for key, value := range entries {
			result[address{group, key}] = value
		}
	}
	return result, err
}

// open opens the database with the log given in place of its own, and returns the last state that what it finds
// there is, or -1.
func (damaged *damagedLog) open(t *testing.T, log []byte) (state int, err error) {
	t.Helper()
	databasePath := filepath.Join(damaged.scratch, databaseName)
	for _, file := range []struct {
		path    string
		content []byte
	}{{databasePath, damaged.database}, {databasePath + "-wal", log}} {
		if err := os.WriteFile(file.path, file.content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			os.Remove(databasePath + suffix)
		}
	}()
	storeInstance, err := store.New(databasePath)
	if err != nil {
		return -1, err
	}
	defer storeInstance.Close()
	found, err := readContents(storeInstance)
	if err != nil {
		return -1, err
	}
	for state := len(damaged.states) - 1; state >= 0; state-- {
		if maps.Equal(found, damaged.states[state]) {
			return state, nil
		}
	}
	return -1, nil
}

// TestLog_EveryCutIsAPrefix cuts the log around every boundary of its frames and at places between.
func TestLog_EveryCutIsAPrefix(t *testing.T) {
	t.Parallel()
	damaged := newDamagedLog(t)
	random := newRandom(newSeed(t), 0)
	cuts := []int{0, 1, logHeaderSize - 1}
	for boundary := logHeaderSize; boundary <= len(damaged.log); boundary += damaged.frameSize {
		cuts = append(cuts, boundary-1, boundary, boundary+1)
	}
	for range scale(50, 500, 5000) {
		cuts = append(cuts, random.IntN(len(damaged.log)+1))
	}
	cuts = slices.DeleteFunc(cuts, func(cut int) bool { return cut > len(damaged.log) })
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	last, reached := 0, map[int]bool{}
	for _, cut := range cuts {
		state, err := damaged.open(t, damaged.log[:cut])
		if err != nil || state < last {
			t.Fatalf("log of %d bytes cut to %d: state %d, %v; want a state from %d on", len(damaged.log), cut, state, err, last)
		}
		for acknowledged, size := range damaged.sizes {
			if size <= int64(cut) && state < acknowledged {
				t.Fatalf("log of %d bytes cut to %d: state %d; want %d, which was acknowledged at %d bytes", len(damaged.log), cut, state, acknowledged, size)
			}
		}
		last, reached[state] = state, true
	}
	if len(reached) != len(damaged.states) {
		t.Errorf("the cuts led to %d states; want all %d", len(reached), len(damaged.states))
	}
	t.Logf("%d cuts of a log of %d bytes and %d commits: each a prefix", len(cuts), len(damaged.log), logWrites)
}

// TestLog_DamageIsAPrefixOrAnError changes the log where a disk might: bits, whole sectors, frames in one another's
// places, bytes after its end.
func TestLog_DamageIsAPrefixOrAnError(t *testing.T) {
	t.Parallel()
	damaged := newDamagedLog(t)
	random := newRandom(newSeed(t), 0)
	damages := []struct {
		name   string
		do     func(random *rand.Rand, log []byte) []byte
		rounds int
	}{
		{"header", func(random *rand.Rand, log []byte) []byte {
			log[random.IntN(logHeaderSize)] ^= 1 << random.IntN(8)
			return log
		}, scale(32, 256, 1000)},
		{"bit", func(random *rand.Rand, log []byte) []byte {
			log[random.IntN(len(log))] ^= 1 << random.IntN(8)
			return log
		}, scale(100, 800, 5000)},
		{"frame header", func(random *rand.Rand, log []byte) []byte {
			frame := logHeaderSize + random.IntN(len(log)/damaged.frameSize)*damaged.frameSize
			log[frame+random.IntN(frameHeaderSize)] ^= 1 << random.IntN(8)
			return log
		}, scale(50, 300, 2000)},
		{"zeroed sector", func(random *rand.Rand, log []byte) []byte {
			sector := log[random.IntN(len(log)/sectorSize)*sectorSize:][:sectorSize]
			clear(sector)
			return log
		}, scale(30, 200, 1000)},
		{"swapped frames", func(random *rand.Rand, log []byte) []byte {
			frames := len(log) / damaged.frameSize
			one := log[logHeaderSize+random.IntN(frames)*damaged.frameSize:][:damaged.frameSize]
			other := log[logHeaderSize+random.IntN(frames)*damaged.frameSize:][:damaged.frameSize]
			saved := bytes.Clone(one)
			copy(one, other)
			copy(other, saved)
			return log
		}, scale(30, 200, 1000)},
		{"junk after the end", func(random *rand.Rand, log []byte) []byte {
			return append(log, newValue(random, 100_000)...)
		}, scale(20, 100, 500)},
	}
	for _, damage := range damages {
		prefixes, failures := 0, 0
		for range damage.rounds {
			log := damage.do(random, bytes.Clone(damaged.log))
			state, err := damaged.open(t, log)
			switch {
			case err != nil && !strings.HasPrefix(err.Error(), "store."):
				t.Errorf("%s: error %q; want one of the store", damage.name, err)
			case err != nil:
				failures++
			case state < 0:
				t.Errorf("%s: the store holds what no prefix of the commits left (first difference in the log at byte %d)",
					damage.name, difference(log, damaged.log))
			default:
				prefixes++
			}
		}
		t.Logf("%s: %d damaged logs, %d led to a prefix, %d to an error", damage.name, damage.rounds, prefixes, failures)
	}
}

func difference(one, other []byte) int {
	for i := range min(len(one), len(other)) {
		if one[i] != other[i] {
			return i
		}
	}
	return min(len(one), len(other))
}
