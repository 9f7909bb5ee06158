package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// small is the usual content: ten thousand values of 100 bytes.
func small(run *run) dataset {
	return dataset{groups: run.size(100, 4), keys: run.size(100, 5), size: 100}
}

func getTrial(name, figureName string, goroutines int, memory bool) trial {
	return trial{
		name:    name,
		figures: []figure{{figureName, nanoseconds}},
		start: func(run *run) (func() error, error) {
			data := small(run)
			database, err := run.keep(memory, callers{all: goroutines}, data)
			if err != nil {
				return nil, err
			}
			share := data.everything()
			return func() error {
				perCall, err := run.drive(goroutines, func(goroutine, turn int) error {
					return share.get(database, goroutine*7919+turn)
				})
				run.record(figureName, perCall)
				return err
			}, nil
		},
	}
}

func startSetNew(run *run) (func() error, error) {
	if !run.peer.volatile {
		return nil, errNoCounterpart
	}
	data := dataset{groups: run.size(200, 2), keys: run.size(100, 5), size: 100}
	entries := slices.Collect(data.entries())
	return func() (err error) {
		database, err := run.open(true, alone, dataset{})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, database.end()) }()
		started := time.Now()
		for i := range entries {
			if err := database.Set(entries[i].group, entries[i].key, entries[i].value); err != nil {
				return err
			}
		}
		run.record("new", float64(time.Since(started))/float64(len(entries)))
		share := data.everything()
		for i := range entries {
			if err := share.get(database, i); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func startOverwrite(run *run) (func() error, error) {
	data := small(run)
	database, err := run.keep(true, alone, data)
	if err != nil {
		return nil, err
	}
	return run.overwriting(database, data.shares(1, data.count()), func(perCall float64) {
		run.record("overwrite", perCall)
	}), nil
}

// overwriting measures goroutines that each overwrite their share, and reads
// back what they wrote last.
func (run *run) overwriting(database database, shares []*share, record func(perCall float64)) func() error {
	return func() error {
		perCall, err := run.drive(len(shares), func(goroutine, _ int) error {
			return shares[goroutine].overwrite(database)
		})
		if err != nil {
			return err
		}
		record(perCall)
		if run.peer.writeOnly {
			return nil
		}
		for _, share := range shares {
			if err := share.check(database, 1+500/len(shares)); err != nil {
				return err
			}
		}
		return nil
	}
}

func durableTrial(name, figureName string, goroutines, groups int) trial {
	return trial{
		name:    name,
		figures: []figure{{figureName, perSecond}},
		appends: true,
		start: func(run *run) (func() error, error) {
			goroutines := run.size(goroutines, min(goroutines, 16))
			data := dataset{groups: run.size(groups, 100), keys: run.size(100, 1), size: 100}
			database, err := run.keep(false, callers{goroutines, goroutines}, data)
			if err != nil {
				return nil, err
			}
			return run.overwriting(database, data.shares(goroutines, data.count()), func(perCall float64) {
				run.record(figureName, 1e9/perCall)
			}), nil
		},
	}
}

func startBeside(run *run) (func() error, error) {
	data := small(run)
	database, err := run.keep(false, callers{all: 2, writers: 1}, data)
	if err != nil {
		return nil, err
	}
	shares := data.shares(2, data.count())
	read, written := shares[0], shares[1]
	times := make([]float64, 0, 1<<20)
	return func() error {
		times = times[:0]
		before, started := written.turn, time.Now()
		_, err := run.drive(2, func(goroutine, turn int) error {
			if goroutine == 1 {
				return written.overwrite(database)
			}
			started := time.Now()
			err := read.get(database, turn)
			times = append(times, float64(time.Since(started)))
			return err
		})
		if err != nil {
			return err
		}
		run.record("writes", float64(written.turn-before)/time.Since(started).Seconds())
		slices.Sort(times)
		run.record("p50", times[len(times)/2])
		run.record("p99", times[len(times)*99/100])
		return written.check(database, 500)
	}, nil
}

func getAllTrial(name, figureName string, memory bool) trial {
	return trial{
		name:    name,
		figures: []figure{{figureName, nanoseconds}},
		start: func(run *run) (func() error, error) {
			data := dataset{groups: 1, keys: run.size(10_000, 20), size: 100}
			database, err := run.keep(memory, alone, data)
			if err != nil {
				return nil, err
			}
			reader, ok := database.database.(groupReader)
			if !ok {
				return nil, errNoCounterpart
			}
			entries := slices.Collect(data.entries())
			return func() error {
				var all map[string]string
				perCall, err := run.drive(1, func(int, int) (err error) {
					all, err = reader.GetAll(groupName(0))
					return err
				})
				if err != nil {
					return err
				}
				run.record(figureName, perCall)
				for _, entry := range entries {
					if all[entry.key] != entry.value {
						return fmt.Errorf("GetAll gave %.20q… for %q, want %.20q…", all[entry.key], entry.key, entry.value)
					}
				}
				return wantCount("GetAll", len(all), len(entries))
			}, nil
		},
	}
}

func streamTrial(name, figureName string, memory bool) trial {
	return trial{
		name:    name,
		figures: []figure{{figureName, nanoseconds}},
		start: func(run *run) (func() error, error) {
			data := dataset{groups: 1, keys: run.size(100_000, 50), size: 100}
			database, err := run.keep(memory, alone, data)
			if err != nil {
				return nil, err
			}
			reader, ok := database.database.(groupReader)
			if !ok {
				return nil, errNoCounterpart
			}
			entries := slices.Collect(data.entries())
			return func() error {
				perCall, err := run.drive(1, func(int, int) error {
					return streamAll(reader, entries)
				})
				run.record(figureName, perCall)
				return err
			}, nil
		},
	}
}

// streamAll compares a group's stream with its entries in the order of their keys.
func streamAll(reader groupReader, entries []entry) error {
	seen, wrong := 0, ""
	err := reader.Stream(entries[0].group, func(key, value string) {
		if seen < len(entries) && (key != entries[seen].key || value != entries[seen].value) {
			wrong = key
		}
		seen++
	})
	if err != nil {
		return err
	}
	if wrong != "" {
		return fmt.Errorf("the stream is out of order or has a wrong value at %q", wrong)
	}
	return wantCount("the stream", seen, len(entries))
}

func startGroups(run *run) (func() error, error) {
	groups, keys := run.size(1_000, 1_000), run.size(100, 2)
	data := dataset{groups: groups + groups/10, keys: keys, size: 100}
	database, err := run.keep(false, alone, data)
	if err != nil {
		return nil, err
	}
	counter, ok := database.database.(counter)
	if !ok {
		return nil, errNoCounterpart
	}
	return func() error {
		perCall, err := run.drive(1, func(int, int) error {
			names, err := counter.Groups("tenant-a:")
			if err != nil {
				return err
			}
			for i, name := range names {
				if name != groupName(i) {
					return fmt.Errorf("Groups gave %q at %d, want %q", name, i, groupName(i))
				}
			}
			return wantCount("Groups", len(names), groups)
		})
		if err != nil {
			return err
		}
		run.record("Groups", perCall)
		perCall, err = run.drive(1, func(_, turn int) error {
			count, err := counter.Count(groupName(turn % groups))
			return errors.Join(err, wantCount("Count", count, keys))
		})
		if err != nil {
			return err
		}
		run.record("Count", perCall)
		perCall, err = run.drive(1, func(int, int) error {
			count, err := counter.CountAll("tenant-a:")
			return errors.Join(err, wantCount("CountAll", count, groups*keys))
		})
		run.record("CountAll", perCall)
		return err
	}, nil
}

func startQuota(run *run) (func() error, error) {
	const batch = 50
	keys := make([]string, batch+1)
	for i := range keys {
		keys[i] = fmt.Sprintf("new-%03d", i)
	}
	var measures []func() error
	for _, namespace := range []struct {
		figure  string
		groups  int // of 100 keys each
		limited bool
	}{
		{"with 100 keys", 1, true},
		{"with 100,000 keys", run.size(1_000, 2), true},
		{"no limit", run.size(1_000, 2), false},
	} {
		data := dataset{groups: namespace.groups, keys: 100, size: 100}
		database, err := run.keep(true, alone, data)
		if err != nil {
			return nil, err
		}
		keeper, ok := database.database.(quotaKeeper)
		if !ok {
			return nil, errNoCounterpart
		}
		set := func(group, key, value string) error { return database.Set("tenant-a:"+group, key, value) }
		if namespace.limited {
			if set, err = keeper.Within("tenant-a", data.count()+batch); err != nil {
				return nil, err
			}
		}
		measures = append(measures, func() error {
			perSet, err := run.newKeys(keys, set, keeper, namespace.limited)
			run.record(namespace.figure, perSet)
			return err
		})
	}
	return func() error {
		for _, measure := range measures {
			if err := measure(); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// newKeys writes all keys but the last, which must be refused where there is a
// limit, and deletes them, over and over. Only the writes are timed.
func (run *run) newKeys(
	keys []string, set func(group, key, value string) error, deleter deleter, limited bool,
) (perSet float64, err error) {
	value := textsOf(100)[0]
	batch, beyond := keys[:len(keys)-1], keys[len(keys)-1]
	var took time.Duration
	sets := 0
	_, err = run.drive(1, func(int, int) error {
		started := time.Now()
		for _, key := range batch {
			if err := set("new", key, value); err != nil {
				return err
			}
		}
		took += time.Since(started)
		sets += len(batch)
		if limited {
			if err := set("new", beyond, value); !errors.Is(err, errRefused) {
				return fmt.Errorf("a Set beyond the limit gave %v, want a refusal", err)
			}
		}
		for _, key := range batch {
			if err := deleter.Delete("tenant-a:new", key); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(took) / float64(max(1, sets)), err
}

func purgeTrial(name string, scattered bool) trial {
	longestFigure, wholeFigure := name+": longest other Set", name+": whole purge"
	return trial{
		name:    name,
		figures: []figure{{longestFigure, nanoseconds}, {wholeFigure, nanoseconds}},
		start: func(run *run) (func() error, error) {
			if err := needs[purger](run); err != nil {
				return nil, err
			}
			data := dataset{label: name, groups: run.size(200, 4), keys: run.size(1_000, 10), size: 100}
			data.expiresAt = data.halfExpired(scattered)
			return func() error { return run.purge(data, longestFigure, wholeFigure) }, nil
		},
	}
}

// purge measures a purge beside a goroutine that writes all the time.
func (run *run) purge(data dataset, longestFigure, wholeFigure string) (err error) {
	database, err := run.open(false, callers{2, 2}, data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.end()) }()
	others := dataset{groups: 1, keys: 100, size: 50}.everything()
	var (
		longest  time.Duration
		purged   int64
		whole    time.Duration
		setErr   error
		stop     atomic.Bool
		began    = make(chan struct{})
		setsDone = make(chan struct{})
	)
	for index := range others.entries {
		others.entries[index].group = "tenant-b:other"
	}
	go func() {
		defer close(setsDone)
		for turn := 0; setErr == nil && (turn < 2 || !stop.Load()); turn++ {
			started := time.Now()
			setErr = others.overwrite(database)
			if turn == 0 {
				close(began) // a first Set warms up and does not count
				continue
			}
			longest = max(longest, time.Since(started))
		}
	}()
	<-began
	started := time.Now()
	purged, err = database.database.(purger).PurgeExpired()
	whole = time.Since(started)
	stop.Store(true)
	<-setsDone
	if err := errors.Join(err, setErr); err != nil {
		return err
	}
	run.record(longestFigure, float64(longest))
	run.record(wholeFigure, float64(whole))

	if err := wantCount("PurgeExpired", int(purged), data.count()/2); err != nil {
		return err
	}
	for index := 0; index < data.count(); index += max(1, data.count()/200) {
		entry := data.entry(index)
		switch value, err := database.Get(entry.group, entry.key); {
		case entry.expiresAt != 0 && !errors.Is(err, errNotFound):
			return fmt.Errorf("Get of an expired entry gave %v, want none", err)
		case entry.expiresAt == 0 && (err != nil || value != entry.value):
			return fmt.Errorf("Get of an entry that is alive gave %.20q…, %v", value, err)
		}
	}
	return others.check(database, 100)
}

func startWatch(run *run) (func() error, error) {
	const watchers = 100
	if err := needs[watchable](run); err != nil {
		return nil, err
	}
	data := small(run)
	database, err := run.keep(true, alone, data)
	if err != nil {
		return nil, err
	}
	shares := data.shares(1, data.count())
	return func() error {
		if err := run.overwriting(database, shares, func(perCall float64) { run.record("no watcher", perCall) })(); err != nil {
			return err
		}
		// One counter for all would make the watchers wait for each other.
		var counts [watchers]struct {
			received int64
			_        [56]byte // keeps the next one off this cache line
		}
		var stops []func()
		for i := range counts {
			stops = append(stops, database.database.(watchable).Watch(func() { counts[i].received++ }))
		}
		before := shares[0].turn
		err := run.overwriting(database, shares, func(perCall float64) { run.record("100 watchers", perCall) })()
		received, sent := int64(0), int64(watchers*(shares[0].turn-before))
		for i, stop := range stops {
			stop()
			received += counts[i].received
		}
		run.record("delivered", 100*float64(received)/float64(sent))
		if err == nil && (received == 0 || received > sent) {
			err = fmt.Errorf("%d events arrived of %d", received, sent)
		}
		return err
	}, nil
}

// million is a large content, the same for the workloads that ask for one.
func million(run *run) dataset {
	return dataset{groups: run.size(1_000, 20), keys: run.size(1_000, 10), size: 32}
}

func startBackground(run *run) (func() error, error) {
	const expired = 10
	if err := needs[purger](run); err != nil {
		return nil, err
	}
	database, err := run.keep(false, alone, million(run))
	if err != nil {
		return nil, err
	}
	purger := database.database.(purger)
	serial := 0
	// once gives the time of one purge. That of the store's own goroutine may
	// come first, once a minute: then there is nothing left to measure.
	once := func() (time.Duration, int64, error) {
		for range expired {
			serial++
			if err := purger.SetExpired("tenant-b:expired", fmt.Sprintf("key-%06d", serial), "over"); err != nil {
				return 0, 0, err
			}
		}
		started := time.Now()
		purged, err := purger.PurgeExpired()
		return time.Since(started), purged, err
	}
	return func() error {
		var times []float64
		for len(times) < run.size(9, 1) {
			took, purged, err := once()
			if err == nil && purged != expired {
				took, purged, err = once()
			}
			if err := errors.Join(err, wantCount("PurgeExpired", int(purged), expired)); err != nil {
				return err
			}
			times = append(times, float64(took))
		}
		run.record("purge of 10", median(times))
		return nil
	}, nil
}

func valuesTrial(name, label string, size, keys int) trial {
	setFigure, getFigure := "Set, "+label, "Get, "+label
	return trial{
		name:    name,
		figures: []figure{{setFigure, nanoseconds}, {getFigure, nanoseconds}},
		start: func(run *run) (func() error, error) {
			data := dataset{groups: 1, keys: run.size(keys, 3), size: size}
			database, err := run.keep(false, alone, data)
			if err != nil {
				return nil, err
			}
			shares := data.shares(1, data.count())
			overwrite := run.overwriting(database, shares, func(perCall float64) { run.record(setFigure, perCall) })
			return func() error {
				if err := overwrite(); err != nil {
					return err
				}
				perCall, err := run.drive(1, func(_, turn int) error { return shares[0].get(database, turn) })
				run.record(getFigure, perCall)
				return err
			}, nil
		},
	}
}

func startSmallBesideLarge(run *run) (func() error, error) {
	data := dataset{label: "large", groups: 1, keys: run.size(1_024, 4), size: 100, large: run.size(32, 2)}
	database, err := run.keep(false, alone, data)
	if err != nil {
		return nil, err
	}
	share := data.everything()
	return func() error {
		perCall, err := run.drive(1, func(_, turn int) error { return share.get(database, turn) })
		run.record("Get, small beside 1 MiB", perCall)
		return err
	}, nil
}

func sizeTrial(name, figureName string, size, count int) trial {
	const writers = 64
	return trial{
		name:    name,
		figures: []figure{{figureName, factor}},
		once:    true,
		start: func(run *run) (func() error, error) {
			return func() error {
				data := dataset{groups: run.size(100, 4), keys: run.size(count/100, 5), size: size}
				database, err := run.open(false, callers{writers, writers}, dataset{})
				if err != nil {
					return err
				}
				payload := 0
				shares := data.shares(writers, data.count())
				for _, share := range shares {
					for _, entry := range share.entries {
						payload += len(entry.group) + len(entry.key) + len(entry.value)
					}
				}
				err = parallel(writers, func(goroutine int) error {
					for _, entry := range shares[goroutine].entries {
						if err := database.Set(entry.group, entry.key, entry.value); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
				share := data.everything()
				for i := range 100 {
					if err := share.get(database, i); err != nil {
						return err
					}
				}
				if err := database.Close(); err != nil {
					return err
				}
				written, err := bytesBelow(database.directory)
				run.record(figureName, float64(written)/float64(payload))
				return errors.Join(err, database.remove())
			}, nil
		},
	}
}

func bytesBelow(directory string) (total int64, err error) {
	err = filepath.WalkDir(directory, func(_ string, found fs.DirEntry, err error) error {
		if err != nil || found.IsDir() {
			return err
		}
		information, err := found.Info()
		if err == nil {
			total += information.Size()
		}
		return err
	})
	return total, err
}

func startOpening(run *run) (func() error, error) {
	data := small(run)
	database, err := run.open(false, alone, data)
	if err != nil {
		return nil, err
	}
	run.finally(database.remove)
	if err := database.Close(); err != nil {
		return nil, err
	}
	share := data.everything()
	return func() error {
		var times []float64
		_, err := run.drive(1, func(_, turn int) error {
			started := time.Now()
			opened, err := run.peer.open(database.options)
			if err != nil {
				return err
			}
			times = append(times, float64(time.Since(started)))
			return errors.Join(share.get(opened, turn), opened.Close())
		})
		run.record("opening", median(times))
		return err
	}, nil
}

func startIdle(run *run) (func() error, error) {
	const stores = 4
	return func() error {
		heap, goroutines := heapAndGoroutines()
		var opened []*instance
		for range stores {
			database, err := run.open(false, alone, dataset{})
			if err != nil {
				return err
			}
			opened = append(opened, database)
		}
		heapAfter, goroutinesAfter := heapAndGoroutines()
		run.record("heap", max(0, heapAfter-heap)/stores)
		run.record("goroutines", max(0, goroutinesAfter-goroutines)/stores)
		for _, database := range opened {
			if err := database.end(); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func heapAndGoroutines() (heap, goroutines float64) {
	var statistics runtime.MemStats
	runtime.GC()
	runtime.GC() // the second one frees what finalizers and pools held back
	runtime.ReadMemStats(&statistics)
	return float64(statistics.HeapAlloc), float64(runtime.NumGoroutine())
}

func startGrowth(run *run) (func() error, error) {
	if !run.peer.sqliteFile {
		return nil, errNoCounterpart
	}
	large := million(run)
	base := dataset{groups: run.size(10, 2), keys: large.keys, size: large.size}
	type size struct {
		database database
		counter  counter
		data     dataset
		share    *share
	}
	var sizes []size
	for _, data := range []dataset{base, large} {
		database, err := run.keep(false, alone, data)
		if err != nil {
			return nil, err
		}
		counter, ok := database.database.(counter)
		if !ok {
			return nil, errNoCounterpart
		}
		sizes = append(sizes, size{database, counter, data, data.shares(1, base.count())[0]})
	}
	return func() error {
		for _, measured := range []struct {
			figure string
			call   func(size size, turn int) error
		}{
			{"Get", func(size size, turn int) error { return size.share.get(size.database, turn) }},
			{"Set", func(size size, _ int) error { return size.share.overwrite(size.database) }},
			{"Count", func(size size, turn int) error {
				count, err := size.counter.Count(groupName(turn * 7 % size.data.groups))
				return errors.Join(err, wantCount("Count", count, size.data.keys))
			}},
		} {
			var perCall [2]float64
			for i, size := range sizes {
				var err error
				perCall[i], err = run.drive(1, func(_, turn int) error { return measured.call(size, turn) })
				if err != nil {
					return err
				}
			}
			run.record(measured.figure, perCall[1])
			run.record(measured.figure+", growth", perCall[1]/perCall[0])
		}
		return sizes[1].share.check(sizes[1].database, 500)
	}, nil
}

func startAllocations(run *run) (func() error, error) {
	data := dataset{groups: 1, keys: run.size(10_000, 20), size: 100}
	database, err := run.keep(true, alone, data)
	if err != nil {
		return nil, err
	}
	share := data.everything()
	entries := slices.Collect(data.entries())
	return func() error {
		calls := min(2_000, len(entries))
		if reader, ok := database.database.(groupReader); ok {
			allocated, err := allocations(1, func(int) error { return streamAll(reader, entries) })
			if err != nil {
				return err
			}
			run.record("streamed entry", allocated/float64(len(entries)))
		}
		get, err := allocations(calls, func(i int) error { return share.get(database, i) })
		if err != nil {
			return err
		}
		run.record("Get", get)
		set, err := allocations(calls, func(int) error { return share.overwrite(database) })
		if err != nil {
			return err
		}
		run.record("Set", set)
		if watched, ok := database.database.(watchable); ok {
			stop := watched.Watch(func() {})
			withEvent, err := allocations(calls, func(int) error { return share.overwrite(database) })
			stop()
			if err != nil {
				return err
			}
			run.record("event", max(0, withEvent-set))
		}
		return nil
	}, nil
}

// allocations is how many a call makes on average, goroutines that it wakes included.
func allocations(calls int, call func(i int) error) (float64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range calls {
		if err := call(i); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(calls), nil
}

func wantCount(what string, got, want int) error {
	if got != want {
		return fmt.Errorf("%s gave %d, want %d", what, got, want)
	}
	return nil
}

// parallel runs a function in so many goroutines and returns the first error.
func parallel(goroutines int, work func(goroutine int) error) error {
	errs := make([]error, goroutines)
	var group sync.WaitGroup
	for goroutine := range goroutines {
		group.Go(func() { errs[goroutine] = work(goroutine) })
	}
	group.Wait()
	return cmp.Or(errs...)
}
