// The tour reads a directory into a store, a group for each folder and an entry for each file, and
// shows on that data what the store does. It compares what it is about to say with the files and with
// the store, and fails if any of it would be untrue.
//
//	go run ./docs/tour [-store PATH] [DIRECTORY]
//
// Without -store it makes a temporary file, which it names and keeps. In a store that holds other
// entries it writes under unused names, so that those entries stay as they are. It leaves the entries
// of the files, and the counts that a store's first quota adds.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"dappco.re/go/core/store"
)

const (
	usage = "usage: go run ./docs/tour [-store PATH] [DIRECTORY]"

	// modulePath is how the tour finds the repository, which it reads when no directory is named.
	modulePath = "dappco.re/go/core/store"

	// maximumBytes is the longest value that a store takes.
	maximumBytes = 1_000_000_000
)

// usageError is a mistake in the command line: exit status 2 instead of 1.
type usageError struct{ error }

// file is a regular file of the directory, and the entry that it becomes.
type file struct {
	path   string // on the disk
	folder string // from the directory, with slashes
	group  string // tour.root and the folder
	name   string
	size   int
	digest uint64 // of the content that was stored
	text   bool
	gone   bool // before it could be read
}

// tour is one run; its sections are in sections.go.
type tour struct {
	storeInstance *store.Store
	scoped        *store.ScopedStore // for what is not a file, in the namespace scratch
	databasePath  string
	directory     string
	files         []*file
	perGroup      map[string]int // files

	root                  string // precedes each folder: nothing in a store without other entries
	scratch, north, south string // namespaces

	outputError error
}

func main() {
	if group := os.Getenv(writerVariable); group != "" {
		exit(writeUntilKilled(os.Args[1], group))
	}
	exit(run(os.Args[1:]))
}

func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "tour:", strings.ReplaceAll(err.Error(), "\n", "; "))
	if errors.As(err, new(usageError)) {
		os.Exit(2)
	}
	os.Exit(1)
}

// run looks at everything that it was given before it creates anything.
func run(arguments []string) error {
	databasePath, directory, err := parse(arguments)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println(usage)
		return nil
	}
	if err != nil {
		return usageError{fmt.Errorf("%w (%s)", err, usage)}
	}
	if directory, err = resolve(directory); err != nil {
		return err
	}
	if err := checkApart(databasePath, directory); err != nil {
		return err
	}
	files, err := list(directory, databasePath)
	if err != nil {
		return err
	}
	temporary := ""
	if databasePath == "" {
		if temporary, err = os.MkdirTemp("", "tour-"); err != nil {
			return err
		}
		databasePath = filepath.Join(temporary, "tour.db")
	}
	tour := &tour{
		databasePath: databasePath, directory: directory, files: files, perGroup: map[string]int{},
		scratch: "scratch", north: "north", south: "south",
	}
	if err := tour.fill(); err != nil {
		if temporary != "" {
			err = errors.Join(err, os.RemoveAll(temporary))
		}
		return err
	}
	if err := tour.show(); err != nil {
		return errors.Join(err, tour.storeInstance.Close(), fmt.Errorf("the store is kept in %s", databasePath))
	}
	return tour.outputError
}

// parse returns an empty databasePath for a temporary store. It cleans no path, for that would change
// the meaning of one with ".." behind a link.
func parse(arguments []string) (databasePath, directory string, err error) {
	flags := flag.NewFlagSet("tour", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("store", "", func(value string) error {
		databasePath = value
		if value == "" || value == ":memory:" || strings.HasPrefix(value, "file:") || os.IsPathSeparator(value[len(value)-1]) {
			return errors.New("the tour needs the plain path of a file")
		}
		return nil
	})
	if err := flags.Parse(arguments); err != nil {
		return "", "", err
	}
	if databasePath != "" && !filepath.IsAbs(databasePath) { // the command at the end is for any directory
		working, err := os.Getwd()
		if err != nil {
			return "", "", err
		}
		databasePath = working + string(filepath.Separator) + databasePath
	}
	switch flags.NArg() {
	case 0:
		directory, err = repository()
	case 1:
		directory = flags.Arg(0)
	default:
		err = fmt.Errorf("%d directories, and the tour reads one", flags.NArg())
	}
	return databasePath, directory, err
}

// repository looks for the module from the working directory upwards.
func repository() (string, error) {
	directory, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		content, err := os.ReadFile(filepath.Join(directory, "go.mod"))
		if words := strings.Fields(string(content)); err == nil && len(words) > 1 && words[1] == modulePath {
			return directory, nil
		}
		parent := filepath.Dir(directory)
		if parent == directory {
			return "", errors.New("name a directory: this is not the repository")
		}
		directory = parent
	}
}

// resolve returns the directory's path without links, because filepath.WalkDir follows none.
func resolve(directory string) (string, error) {
	info, err := os.Stat(directory)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is not a directory", directory)
	}
	resolved, err := filepath.EvalSymlinks(directory)
	if err != nil {
		return "", err
	}
	return filepath.Abs(resolved)
}

// checkApart refuses a store inside the directory: the tour would read the file that it is writing,
// and closing it after that would drop SQLite's locks on it.
func checkApart(databasePath, directory string) error {
	if databasePath == "" {
		return nil
	}
	directoryInfo, err := os.Stat(directory)
	if err != nil {
		return err
	}
	resolved, err := filepath.EvalSymlinks(databasePath)
	if err != nil { // a file to be made, or one that store.New will complain of
		folder, name := filepath.Split(databasePath)
		if folder, err = filepath.EvalSymlinks(folder); err != nil {
			return err
		}
		resolved = filepath.Join(folder, name)
	}
	for path := resolved; path != filepath.Dir(path); path = filepath.Dir(path) {
		info, err := os.Stat(filepath.Dir(path))
		if err == nil && os.SameFile(info, directoryInfo) {
			return usageError{fmt.Errorf("-store %s lies inside %s, which is to be read: choose a path outside it",
				databasePath, directory)}
		}
	}
	return nil
}

// list finds every regular file below the directory and opens each once, so that one that cannot be
// read is known before there is a store.
func list(directory, databasePath string) (files []*file, err error) {
	databaseInfo, _ := os.Stat(databasePath) // nil for a store that is still to be made
	err = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != directory {
			return nil // removed while the tour was looking
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := statReadable(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case os.SameFile(info, databaseInfo):
			return usageError{fmt.Errorf("%s is the store itself", path)}
		case info.Size() > maximumBytes:
			return fmt.Errorf("%s has %s bytes, and a value at most %s", path, number(info.Size()), number(maximumBytes))
		}
		relative, err := filepath.Rel(directory, path)
		if err != nil {
			return err
		}
		files = append(files, &file{path: path, folder: filepath.ToSlash(filepath.Dir(relative)), name: entry.Name()})
		return nil
	})
	return files, err
}

func statReadable(path string) (fs.FileInfo, error) {
	opened, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return opened.Stat()
}

// fill opens the store and loads the files. A failure leaves none of them behind.
func (tour *tour) fill() (err error) {
	if tour.storeInstance, err = store.New(tour.databasePath); err != nil {
		return err
	}
	if err = tour.chooseRoot(); err == nil {
		if err = tour.load(); err != nil {
			err = errors.Join(err, parallel("", len(tour.files), func(index int) error {
				return tour.storeInstance.Delete(tour.files[index].group, tour.files[index].name)
			}))
		}
	}
	if err != nil {
		return errors.Join(err, tour.storeInstance.Close())
	}
	return nil
}

// chooseRoot names the groups so that none is that of a live entry.
func (tour *tour) chooseRoot() error {
	others, err := tour.storeInstance.CountAll("")
	if err == nil && others > 0 {
		tour.root, err = tour.free("tour", "/")
		tour.root += "/"
	}
	for _, file := range tour.files {
		file.group = tour.root + file.folder
	}
	return err
}

// free returns the first of name, name-2, name-3, … that, with the separator, begins no group.
func (tour *tour) free(name, separator string) (string, error) {
	candidate := name
	for next := 2; ; next++ {
		count, err := tour.storeInstance.CountAll(candidate + separator)
		if err != nil || count == 0 {
			return candidate, err
		}
		candidate = fmt.Sprintf("%s-%d", name, next)
	}
}

// sqlite3 is the command, for a shell, that shows what is in the file.
func (tour *tour) sqlite3() string {
	const query = "SELECT group_name, count(*) FROM entries GROUP BY 1 LIMIT 9"
	path := tour.databasePath
	switch {
	case runtime.GOOS == "windows":
		path = `"` + path + `"`
	case strings.ContainsFunc(path, needsQuotes):
		path = "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return fmt.Sprintf("sqlite3 %s %q", path, query)
}

func needsQuotes(letter rune) bool {
	return !unicode.IsLetter(letter) && !unicode.IsDigit(letter) && !strings.ContainsRune("/._-+:@", letter)
}

func (tour *tour) namespaces() []*string { return []*string{&tour.scratch, &tour.north, &tour.south} }

// fullName is the group's name in the store, which a watcher and the sqlite3 shell need.
func (tour *tour) fullName(group string) string { return tour.scratch + ":" + group }

// busiest is the first part of a folder below which most files are, hidden ones aside.
func (tour *tour) busiest() string {
	counts := map[string]int{}
	for _, file := range tour.files {
		if first, _, _ := strings.Cut(file.folder, "/"); !strings.HasPrefix(first, ".") {
			counts[first]++
		}
	}
	busiest := ""
	for _, first := range slices.Sorted(maps.Keys(counts)) {
		if counts[first] > counts[busiest] {
			busiest = first
		}
	}
	return busiest
}

// sample is the largest files, in the order of their sizes.
func (tour *tour) sample() []*file {
	sample := slices.Clone(tour.files)
	for made := len(sample); made < leastSample; made++ {
		sample = append(sample, &file{folder: "made-up", name: fmt.Sprintf("file-%d", made), size: 100 * made})
	}
	slices.SortFunc(sample, func(a, b *file) int { return strings.Compare(a.sizeKey(), b.sizeKey()) })
	return sample[max(0, len(sample)-sampleFiles):]
}

// sizeKey is a key whose byte order is that of the sizes.
func (file *file) sizeKey() string {
	return fmt.Sprintf("%09d %s", file.size, file.shortPath())
}

// shortPath begins in the directory.
func (file *file) shortPath() string { return path.Join(file.folder, file.name) }

// arguments are those of a call, as Go source.
func (file *file) arguments() string { return quote(file.group, 35) + ", " + quote(file.name, 25) }

// example is the arguments for the longest text or, where there is none, for a file that might be.
func (tour *tour) example() string {
	return cmp.Or(tour.longestText(), &file{group: tour.root + "docs", name: "README"}).arguments()
}

// parallel calls work with 0, 1, … below count from several goroutines, until one fails.
func parallel(verb string, count int, work func(index int) error) error {
	var next, done atomic.Int64
	defer progress(verb, count, &done)()
	return together(goroutines, func() error {
		for index := int(next.Add(1)) - 1; index < count; index = int(next.Add(1)) - 1 {
			if err := work(index); err != nil {
				next.Store(int64(count))
				return err
			}
			done.Add(1)
		}
		return nil
	})
}

func together(workers int, work func() error) error {
	failures := make([]error, workers)
	var running sync.WaitGroup
	for index := range failures {
		running.Go(func() { failures[index] = work() })
	}
	running.Wait()
	return cmp.Or(failures...)
}

// progress shows on a terminal, until stop is called, how many are done.
func progress(verb string, count int, done *atomic.Int64) (stop func()) {
	info, err := os.Stderr.Stat()
	if verb == "" || err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return func() {}
	}
	stopped := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				fmt.Fprintf(os.Stderr, "\r%s of %s files %s ", number(done.Load()), number(count), verb)
			case <-stopped:
				fmt.Fprintf(os.Stderr, "\r%50s\r", "")
				return
			}
		}
	})
	return func() {
		close(stopped)
		shown.Wait()
	}
}

// expect keeps the tour honest: what it is about to say is compared with what is so.
func expect[T comparable](err error, what string, got, want T) error {
	if err == nil && got != want {
		err = fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return err
}

func (tour *tour) heading(title string, calls ...string) {
	tour.print("\n%s\n", title)
	for _, call := range calls {
		tour.print("    %s\n", call)
	}
	if len(calls) > 0 {
		tour.print("\n")
	}
}

func (tour *tour) say(format string, arguments ...any) {
	tour.print("  "+format+"\n", arguments...)
}

func (tour *tour) print(format string, arguments ...any) {
	_, err := fmt.Printf(format, arguments...)
	tour.outputError = cmp.Or(tour.outputError, err)
}

func number[T int | int64](count T) string {
	digits := strconv.FormatInt(int64(count), 10)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

func size(bytes int64) string {
	switch {
	case bytes < 1e3:
		return fmt.Sprintf("%d bytes", bytes)
	case bytes < 1e6:
		return fmt.Sprintf("%.1f kB", float64(bytes)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}

func perSecond[T int | int64](count T, elapsed time.Duration) T {
	return T(float64(count) / max(elapsed, time.Microsecond).Seconds()) // a coarse clock may show no time at all
}

// round leaves about three digits.
func round(elapsed time.Duration) time.Duration {
	unit := time.Microsecond / 10
	for unit*1000 < elapsed {
		unit *= 10
	}
	return elapsed.Round(unit)
}

// quote shows a name of any bytes on one line of bounded width, its end rather than its beginning.
func quote(name string, columns int) string {
	quoted := []rune(strconv.Quote(name))
	if len(quoted) > columns {
		quoted = append([]rune(`"…`), quoted[len(quoted)-columns+2:]...)
	}
	return string(quoted)
}
