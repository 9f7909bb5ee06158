// The command benchmarks measures the store and its peers on the same work and
// writes a report:
//
//	go run .                                  # everything, into README.md
//	go run . -only get,durable/64 -peers store,floor
//	go run . -smoke                           # every workload once, answers only
//
// A peer that gives a wrong answer has failed the workload, and the command
// exits with status 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	var settings settings
	flag.StringVar(&settings.only, "only", "", "workloads or workload/trial, with commas between them (default all)")
	flag.StringVar(&settings.peers, "peers", "", "peers, with commas between them (default all)")
	flag.IntVar(&settings.rounds, "rounds", 5, "how often each peer takes its turn")
	flag.StringVar(&settings.directory, "dir", ".", "where the databases are made, on the disk that is to be measured")
	flag.StringVar(&settings.json, "json", "", "write every value to this file too")
	flag.StringVar(&settings.report, "report", "", "write the report to this file, its charts beside it (default README.md, or standard output, without charts, if -only or -peers is given)")
	flag.BoolVar(&settings.smoke, "smoke", false, "run every workload and peer once with tiny sizes and check the answers alone")
	flag.Parse()
	err := errors.New("there are no arguments, only flags")
	if flag.NArg() == 0 {
		err = settings.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

type settings struct {
	only, peers, directory, json, report string
	rounds                               int
	smoke                                bool
}

func (settings settings) run() (err error) {
	selected, err := selectWorkloads(settings.only)
	if err != nil {
		return err
	}
	peers, err := selectPeers(settings.peers)
	if err != nil {
		return err
	}
	if settings.rounds < 1 {
		return errors.New("-rounds must be at least 1")
	}
	if settings.json != "" { // now, not when all is measured, it turns out that it cannot be written
		file, err := os.OpenFile(settings.json, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		file.Close()
	}
	directory, err := os.MkdirTemp(settings.directory, ".benchmarks-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	removeOnInterrupt(directory)

	bench := &bench{
		directory: directory,
		smoke:     settings.smoke,
		window:    150 * time.Millisecond,
		rounds:    settings.rounds,
		peers:     peers,
		templates: map[string]string{},
		results:   results{values: map[figureID]map[string][]float64{}},
	}
	if settings.smoke {
		bench.window, bench.rounds = 2*time.Millisecond, 1
	}
	report := report{started: time.Now(), bench: bench, workloads: selected}
	if report.machine, err = describeMachine(directory); err != nil {
		return err
	}
	bench.runAll(selected)
	report.took = time.Since(report.started)

	if err := settings.write(report); err != nil {
		return err
	}
	for _, failure := range bench.results.failures {
		err = errors.Join(err, fmt.Errorf("%s/%s: %s: %w", failure.workload, failure.trial, failure.peer, failure.err))
	}
	return err
}

// runAll runs every trial and shows on a terminal how far it is.
func (bench *bench) runAll(selected []workload) {
	total, done := 0, 0
	for _, workload := range selected {
		total += len(workload.trials)
	}
	started := time.Now()
	terminal := isTerminal(os.Stderr)
	bench.progress = func(format string, arguments ...any) {
		if terminal {
			fmt.Fprintf(os.Stderr, "\r\033[K%v  %d of %d  %s", time.Since(started).Round(time.Second),
				done+1, total, fmt.Sprintf(format, arguments...))
		}
	}
	for _, workload := range selected {
		for _, trial := range workload.trials {
			bench.trial(workload, trial)
			done++
		}
	}
	if terminal {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
}

// write puts the report where it belongs. That of a smoke test is made as well,
// and thrown away.
func (settings settings) write(report report) error {
	if settings.json != "" {
		if err := writeFile(settings.json, report.json); err != nil {
			return err
		}
	}
	path := settings.report
	switch {
	case settings.smoke:
		path = filepath.Join(report.directory, "README.md")
	case path == "" && settings.only == "" && settings.peers == "":
		path = "README.md"
	case path == "":
		return report.markdown(os.Stdout)
	}
	if err := report.draw(filepath.Dir(path)); err != nil {
		return err
	}
	return writeFile(path, report.markdown)
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return write(file)
}

func selectWorkloads(only string) ([]workload, error) {
	if only == "" {
		return workloads, nil
	}
	wanted := slices.Compact(slices.Sorted(strings.SplitSeq(only, ",")))
	used := make([]bool, len(wanted))
	wants := func(name string) bool {
		at := slices.Index(wanted, name)
		if at >= 0 {
			used[at] = true
		}
		return at >= 0
	}
	var selected []workload
	for _, workload := range workloads {
		whole := wants(workload.name)
		var trials []trial
		for _, trial := range workload.trials {
			if wants(workload.name+"/"+trial.name) || whole {
				trials = append(trials, trial)
			}
		}
		workload.trials = trials
		workload.goals = slices.DeleteFunc(slices.Clone(workload.goals), func(goal goal) bool {
			return !slices.ContainsFunc(workload.figures(), func(figure figure) bool { return figure.name == goal.figure })
		})
		if trials != nil {
			selected = append(selected, workload)
		}
	}
	if at := slices.Index(used, false); at >= 0 {
		var names []string
		for _, workload := range workloads {
			for _, trial := range workload.trials {
				names = append(names, workload.name+"/"+trial.name)
			}
		}
		return nil, fmt.Errorf("-only: there is no %q; there are %s", wanted[at], strings.Join(names, " "))
	}
	return selected, nil
}

func selectPeers(names string) ([]peer, error) {
	peers := allPeers()
	if names == "" {
		return peers, nil
	}
	wanted := strings.Split(names, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(peers, func(peer peer) bool { return peer.name == name }) {
			var names []string
			for _, peer := range peers {
				names = append(names, peer.name)
			}
			return nil, fmt.Errorf("-peers: there is no %q; there are %s", name, strings.Join(names, " "))
		}
	}
	return slices.DeleteFunc(peers, func(peer peer) bool { return !slices.Contains(wanted, peer.name) }), nil
}

func isTerminal(file *os.File) bool {
	information, err := file.Stat()
	return err == nil && information.Mode()&os.ModeCharDevice != 0
}

// removeOnInterrupt leaves no databases behind when the run is interrupted.
func removeOnInterrupt(directory string) {
	interrupted, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(interrupted, func() {
		for range 100 { // the run goes on making files
			if os.RemoveAll(directory) == nil {
				break
			}
		}
		os.Exit(130)
	})
}
