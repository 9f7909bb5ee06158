package reliability_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dappco.re/go/core/store"
)

const soakWorkers = 8

// TestSoak_ResourcesLevelOff works on a file for as long as RELIABILITY_SOAK says (10m, say) and samples what the
// process and the file take. What grows without end grows in the second half of the run too.
func TestSoak_ResourcesLevelOff(t *testing.T) {
	duration := time.Duration(scale(1, 20, 3600)) * time.Second
	if text := os.Getenv("RELIABILITY_SOAK"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("RELIABILITY_SOAK: %v", err)
		}
	}
	seed := newSeed(t)
	path := filepath.Join(t.TempDir(), "store.db")
	storeInstance := openStore(t, path)

	stop := make(chan struct{})
	calls := make([]int, soakWorkers)
	var group sync.WaitGroup
	for number := range soakWorkers {
		group.Go(func() {
			worker := &soakWorker{path: path, storeInstance: storeInstance, random: newRandom(seed, uint64(number))}
			for ; ; calls[number]++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := worker.call(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	const samples = 40
	var taken []sample
	for range samples {
		time.Sleep(duration / samples)
		sample, err := takeSample(path)
		if err != nil {
			t.Error(err)
		}
		taken = append(taken, sample)
	}
	close(stop)
	group.Wait()

	total := 0
	for _, count := range calls {
		total += count
	}
	t.Logf("%d calls in %v", total, duration)
	for _, measure := range measures {
		first, second := measure.worst(taken[:samples/2]), measure.worst(taken[samples/2:])
		t.Logf("%s: at most %d in the first half, %d in the second", measure.name, first, second)
		if limit := first + first/2 + measure.slack; second > limit {
			t.Errorf("%s grew from %d to %d, want at most %d", measure.name, first, second, limit)
		}
	}

	// With nobody else about, a write cuts the log back, and closing takes it away.
	for range 2 {
		noError(t, storeInstance.Set("soak", "last", "value"))
	}
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() > 4<<20 {
		t.Errorf("the log at rest: %v, %v; want at most 4 MiB", info, err)
	}
	noError(t, storeInstance.Close())
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the log of the closed store: %v, want none", err)
	}
	checkIntegrity(t, path)
}

// sample is what the process and the file took at one moment, in the order of measures.
type sample [6]int

// measures name what is sampled, each with the growth that is noise.
var measures = []measure{
	{0, "goroutines", 8},
	{1, "file descriptors", 8},
	{2, "Go heap (KiB)", 8 << 10},
	{3, "resident memory (KiB)", 32 << 10},
	{4, "database file (KiB)", 4 << 10},
	{5, "log file (KiB)", 4 << 10},
}

type measure struct {
	index int
	name  string
	slack int
}

func (measure measure) worst(samples []sample) int {
	return slices.MaxFunc(samples, func(a, b sample) int { return cmp.Compare(a[measure.index], b[measure.index]) })[measure.index]
}

// takeSample leaves out what only Linux tells.
func takeSample(path string) (sample, error) {
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	sample := sample{runtime.NumGoroutine(), 0, int(memory.HeapAlloc >> 10), 0, sizeOf(path), sizeOf(path + "-wal")}
	if runtime.GOOS != "linux" {
		return sample, nil
	}
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return sample, err
	}
	sample[1] = len(descriptors)
	statistics, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return sample, err
	}
	pages, err := strconv.Atoi(string(bytes.Fields(statistics)[1]))
	sample[3] = pages * os.Getpagesize() >> 10
	return sample, err
}

func sizeOf(path string) int {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return int(info.Size() >> 10)
}

// soakWorker makes one random call after another. Its keys are few, so that what is stored levels off.
type soakWorker struct {
	path          string
	storeInstance *store.Store
	random        *rand.Rand
}

func (worker *soakWorker) call() error {
	group, key := fmt.Sprint("group", worker.random.IntN(20)), fmt.Sprint("key", worker.random.IntN(50))
	switch choice := worker.random.IntN(100); {
	case choice < 30:
		return worker.storeInstance.Set(group, key, worker.value())
	case choice < 45:
		return worker.storeInstance.SetWithTTL(group, key, worker.value(), time.Duration(worker.random.IntN(200))*time.Millisecond)
	case choice < 55:
		return worker.storeInstance.Delete(group, key)
	case choice < 56:
		return worker.storeInstance.DeleteGroup(group)
	case choice < 57:
		_, err := worker.storeInstance.PurgeExpired()
		return err
	case choice < 67:
		return worker.setLimited(group, key)
	case choice < 70:
		return worker.stream(group)
	case choice < 72:
		_, err := worker.storeInstance.Render("{{len .}} {{.key1}}", group)
		return err
	case choice < 74:
		return worker.listen(group, key)
	case choice < 75:
		return worker.openAgain(group, key)
	default:
		if _, err := worker.storeInstance.Get(group, key); !errors.Is(err, store.NotFoundError) {
			return err
		}
		return nil
	}
}

// value is small mostly, large at times.
func (worker *soakWorker) value() string {
	length := 10 + worker.random.IntN(500)
	if worker.random.IntN(50) == 0 {
		length *= 200
	}
	return strings.Repeat(strconv.Itoa(worker.random.IntN(10)), length)
}

func (worker *soakWorker) setLimited(group, key string) error {
	namespace := fmt.Sprint("tenant-", worker.random.IntN(5))
	scopedStore, err := store.NewScopedWithQuota(worker.storeInstance, namespace, store.QuotaConfig{MaxKeys: 20, MaxGroups: 5})
	if err != nil {
		return err
	}
	if worker.random.IntN(10) == 0 {
		return scopedStore.DeleteGroup(group)
	}
	ttl := time.Duration(worker.random.IntN(500)) * time.Millisecond
	if err := scopedStore.SetWithTTL(group, key, worker.value(), ttl); !errors.Is(err, store.QuotaExceededError) {
		return err
	}
	return nil
}

// stream deletes what it reads, and stops early at times.
func (worker *soakWorker) stream(group string) error {
	for entry, err := range worker.storeInstance.All(group) {
		if err != nil {
			return err
		}
		if worker.random.IntN(10) == 0 {
			if err := worker.storeInstance.Delete(group, entry.Key); err != nil {
				return err
			}
		}
		if worker.random.IntN(40) == 0 {
			break
		}
	}
	for _, err := range worker.storeInstance.GroupsSeq("group1") {
		if err != nil {
			return err
		}
	}
	return nil
}

// listen watches for a moment, with events left in the buffer.
func (worker *soakWorker) listen(group, key string) error {
	watcher := worker.storeInstance.Watch("*", "*")
	defer worker.storeInstance.Unwatch(watcher)
	defer worker.storeInstance.OnChange(func(store.Event) {})()
	return worker.storeInstance.Set(group, key, worker.value())
}

// openAgain uses a second store on the file for a moment.
func (worker *soakWorker) openAgain(group, key string) error {
	second, err := store.New(worker.path)
	if err != nil {
		return err
	}
	second.Watch("*", "*")
	return errors.Join(second.Set(group, key, worker.value()), second.Close())
}
