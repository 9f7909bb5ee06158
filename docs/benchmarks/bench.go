package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"
)

// bench runs trials and keeps what they showed.
type bench struct {
	directory string // for the files
	smoke     bool
	window    time.Duration // how long a figure is measured
	rounds    int
	peers     []peer
	progress  func(format string, arguments ...any)

	serial    int               // of the last database
	templates map[string]string // SQLite files by the name of their dataset
	results   results
}

// results are the values of each figure and peer, one for each round.
type results struct {
	values   map[figureID]map[string][]float64
	failures []failure
}

type figureID struct{ workload, figure string }

// failure is a wrong answer, or none.
type failure struct {
	workload, trial, peer string
	err                   error
}

// run is one peer in one trial.
type run struct {
	*bench
	peer     peer
	measure  func() error // nil before its first turn
	ended    bool         // it has no counterpart, or failed
	recorded map[string][]float64
	closers  []func() error

	keepsFile bool
}

// trial lets all peers take turns, in a different order in each trial and round, so that none
// always follows the same one.
func (bench *bench) trial(workload workload, trial trial) {
	var runs []*run
	for _, peer := range bench.peers {
		if !peer.writeOnly || trial.appends {
			runs = append(runs, &run{bench: bench, peer: peer, recorded: map[string][]float64{}})
		}
	}
	rounds := bench.rounds
	if trial.once {
		rounds = 1
	}
	name := fnv.New64a()
	io.WriteString(name, workload.name+"/"+trial.name)
	random := rand.New(rand.NewPCG(4, name.Sum64()))
	for round := range rounds {
		for _, i := range random.Perm(len(runs)) {
			run := runs[i]
			if run.ended {
				continue
			}
			bench.progress("%s/%s: round %d of %d, %s", workload.name, trial.name, round+1, rounds, run.peer.name)
			if err := run.turn(trial); err != nil {
				run.ended, run.recorded = true, nil
				if !errors.Is(err, errNoCounterpart) {
					bench.results.failures = append(bench.results.failures, failure{workload.name, trial.name, run.peer.name, err})
				}
			}
		}
	}
	for _, run := range runs {
		if err := run.close(); err != nil {
			bench.results.failures = append(bench.results.failures, failure{workload.name, trial.name, run.peer.name, err})
		}
		bench.results.add(workload.name, run)
	}
}

// turn measures a run once more. A file that is kept is open in its own turns alone, and
// made anew for each: nobody's work in the background goes on in another's turn. Besides,
// all SQLite files of a process share one page cache, from which the least recently used
// page goes, whosever it is (SQLITE_ENABLE_MEMORY_MANAGEMENT).
func (run *run) turn(trial trial) (err error) {
	if run.measure == nil {
		if run.measure, err = trial.start(run); err != nil {
			return err
		}
	}
	runtime.GC()
	if err := run.measure(); err != nil || !run.keepsFile {
		return err
	}
	run.measure = nil
	return run.close()
}

// add takes over what a run recorded in every round.
func (results *results) add(workload string, run *run) {
	for name, values := range run.recorded {
		id := figureID{workload, name}
		if results.values[id] == nil {
			results.values[id] = map[string][]float64{}
		}
		results.values[id][run.peer.name] = values
	}
}

func (run *run) record(figure string, value float64) {
	run.recorded[figure] = append(run.recorded[figure], value)
}

// size picks between a measurement's size and that of a smoke test.
func (run *run) size(full, smoke int) int {
	if run.smoke {
		return smoke
	}
	return full
}

func (run *run) finally(closer func() error) { run.closers = append(run.closers, closer) }

func (run *run) close() (err error) {
	for _, closer := range run.closers {
		err = errors.Join(err, closer())
	}
	run.closers = nil
	return err
}

// drive calls from so many goroutines, each at least once, until the window is
// over, and returns the time that passed divided by the number of calls.
func (run *run) drive(goroutines int, call func(goroutine, turn int) error) (perCall float64, err error) {
	var stop atomic.Bool
	var calls atomic.Int64
	started := time.Now()
	timer := time.AfterFunc(run.window, func() { stop.Store(true) })
	defer timer.Stop()
	err = parallel(goroutines, func(goroutine int) error {
		turn := 0
		defer func() { calls.Add(int64(turn)) }()
		for {
			if err := call(goroutine, turn); err != nil {
				stop.Store(true)
				return err
			}
			if turn++; stop.Load() {
				return nil
			}
		}
	})
	return float64(time.Since(started)) / float64(max(1, calls.Load())), err
}

// instance is an opened database with the directory that is its own.
type instance struct {
	database
	options   options
	directory string
}

// end closes a database and removes its files.
func (instance *instance) end() error { return errors.Join(instance.Close(), instance.remove()) }

func (instance *instance) remove() error {
	if instance.directory == "" {
		return nil
	}
	return os.RemoveAll(instance.directory)
}

// keep opens a database for the whole trial, or a file for a turn.
func (run *run) keep(memory bool, callers callers, data dataset) (*instance, error) {
	opened, err := run.open(memory, callers, data)
	if err == nil {
		run.finally(opened.end)
		run.keepsFile = run.keepsFile || !memory
	}
	return opened, err
}

// open opens a database that holds the entries of a dataset. An SQLite file is
// filled before it is opened, the rest by the peer's own quickest way; files are then
// closed and opened once more, so that nobody sorts what it was filled with in a turn.
func (run *run) open(memory bool, callers callers, data dataset) (*instance, error) {
	opened := &instance{options: options{callers: callers}}
	if memory {
		if !run.peer.volatile {
			return nil, errNoCounterpart
		}
	} else {
		run.serial++
		opened.directory = filepath.Join(run.directory, fmt.Sprintf("%s-%d", run.peer.name, run.serial))
		if err := os.Mkdir(opened.directory, 0o700); err != nil {
			return nil, err
		}
		opened.options.path = filepath.Join(opened.directory, "data")
	}
	filled := data.count() == 0 || run.peer.writeOnly
	if run.peer.sqliteFile && !memory && !filled {
		if err := run.copyTemplate(data, opened.options.path); err != nil {
			return nil, err
		}
		filled = true
	}
	var err error
	if opened.database, err = run.peer.open(opened.options); err != nil {
		return nil, err
	}
	if filled {
		return opened, nil
	}
	if err := fill(opened.database, data); err != nil {
		return nil, errors.Join(err, opened.end())
	}
	if !memory {
		if err = opened.Close(); err == nil {
			opened.database, err = run.peer.open(opened.options)
		}
	}
	return opened, err
}

func fill(database database, data dataset) error {
	if loader, ok := database.(loader); ok {
		return loader.Load(data.entries())
	}
	for entry := range data.entries() {
		if err := database.Set(entry.group, entry.key, entry.value); err != nil {
			return err
		}
	}
	return nil
}

// copyTemplate makes an SQLite file with a dataset, which is written only once.
func (bench *bench) copyTemplate(data dataset, path string) error {
	template, ok := bench.templates[data.name()]
	if !ok {
		template = filepath.Join(bench.directory, "template-"+data.name())
		if err := loadSQLite(template, data.entries()); err != nil {
			return err
		}
		bench.templates[data.name()] = template
	}
	return copyFile(template, path)
}

// copyFile syncs what it wrote, so that nobody's sync has to wait for it later.
func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if _, err := io.Copy(target, source); err != nil {
		return err
	}
	return target.Sync()
}

// needs returns errNoCounterpart for a peer whose database lacks a capability,
// before anything large is written for it.
func needs[capability any](run *run) error {
	database, err := run.open(run.peer.volatile, alone, dataset{})
	if err != nil {
		return err
	}
	_, ok := database.database.(capability)
	err = database.end()
	if err == nil && !ok {
		err = errNoCounterpart
	}
	return err
}
