package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// machine is what the figures depend on.
type machine struct {
	Processor  string
	Cores      int
	Kernel     string
	Filesystem string // that the databases lie on
	Go         string
	Modules    []string // path and version of what the peers are made of
	Fsync      struct{ Median, P90 time.Duration }
}

func describeMachine(directory string) (machine machine, err error) {
	machine.Processor = runtime.GOARCH
	machine.Cores = runtime.GOMAXPROCS(0)
	machine.Kernel = runtime.GOOS
	machine.Filesystem = filesystemOf(directory)
	machine.Go = runtime.Version()
	if model := fieldOf("/proc/cpuinfo", "model name"); model != "" {
		machine.Processor = model
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		machine.Kernel += " " + strings.TrimSpace(string(release))
	}
	machine.Modules = modulesInUse()
	times, err := measureFsync(directory)
	if err != nil {
		return machine, err
	}
	machine.Fsync.Median = times[len(times)/2]
	machine.Fsync.P90 = times[len(times)*9/10]
	return machine, nil
}

// fieldOf reads the first "name : value" of a file below /proc.
func fieldOf(path, name string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(content) {
		if field, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(field)) == name {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}

// filesystemOf finds the mount with the longest path above a directory.
func filesystemOf(directory string) string {
	directory, err := filepath.Abs(directory)
	if err != nil {
		return "unknown"
	}
	file, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "unknown"
	}
	defer file.Close()
	longest, filesystem := 0, "unknown"
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 3 {
			continue
		}
		mount := strings.TrimSuffix(fields[1], "/")
		if strings.HasPrefix(directory+"/", mount+"/") && len(mount) >= longest {
			longest, filesystem = len(mount), fields[2]
		}
	}
	return filesystem
}

// modulesInUse are the versions of the peers, as this program was built.
func modulesInUse() (modules []string) {
	peers := []string{
		"modernc.org/sqlite", "zombiezen.com/go/sqlite", "github.com/mattn/go-sqlite3", "go.etcd.io/bbolt",
		"github.com/tidwall/buntdb", "github.com/dgraph-io/badger/v4", "github.com/cockroachdb/pebble/v2",
	}
	information, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, module := range information.Deps {
		if slices.Contains(peers, module.Path) {
			modules = append(modules, module.Path+" "+module.Version)
		}
	}
	return modules
}

// measureFsync appends a page to a file and syncs it, for a third of a second or
// a thousand times, and returns the times of the syncs in ascending order.
func measureFsync(directory string) (times []time.Duration, err error) {
	path := filepath.Join(directory, "fsync")
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	defer file.Close()
	page := make([]byte, 4096)
	for begun := time.Now(); len(times) == 0 || len(times) < 1_000 && time.Since(begun) < time.Second/3; {
		if _, err := file.Write(page); err != nil {
			return nil, err
		}
		started := time.Now()
		if err := file.Sync(); err != nil {
			return nil, fmt.Errorf("measuring fsync: %w", err)
		}
		times = append(times, time.Since(started))
	}
	slices.Sort(times)
	return times, nil
}
