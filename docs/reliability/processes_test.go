package reliability_test

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dappco.re/go/core/store"
)

const processes, goroutinesOfProcess = 4, 8

// patience is how long a write waits for another process.
const patience = 5 * time.Second

// runProcesses runs a role in several processes at the same time, and returns the lines that each wrote. They
// begin together: each opens the store when its standard input ends.
func runProcesses(t *testing.T, role string, arguments func(process int) []string) [][]string {
	t.Helper()
	lines := make([][]string, processes)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for process := range processes {
		child := newChild(t, role, arguments(process)...)
		child.Stdin = reader
		output, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			scanner := bufio.NewScanner(output)
			for scanner.Scan() {
				lines[process] = append(lines[process], scanner.Text())
			}
			if err := child.Wait(); err != nil {
				t.Errorf("process %d: %v", process, err)
			}
		})
	}
	reader.Close()
	writer.Close()
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return lines
}

func awaitStart() { bufio.NewReader(os.Stdin).ReadByte() }

// TestProcesses_MixedWorkLosesNothing has each process do all that the store offers, under a quota that has room for
// exactly what all of them may ever hold, so that no refusal is right; and open and close the file all the time.
func TestProcesses_MixedWorkLosesNothing(t *testing.T) {
	t.Parallel()
	workload := workload{Path: filepath.Join(t.TempDir(), databaseName), Seed: newSeed(t), Exact: true,
		Writers: goroutinesOfProcess, Operations: scale(40, 800, 3000), MaximumSize: 20_000}
	past := newHistory()
	for process := range processes {
		workload.First = process * goroutinesOfProcess
		past.begin(workload)
	}
	began := time.Now()
	opened, gaveUp := 0, 0
	for _, lines := range runProcesses(t, "contend", func(process int) []string {
		workload.First = process * goroutinesOfProcess
		return []string{workload.argument()}
	}) {
		for _, line := range lines {
			if line == "opened" {
				opened++
				continue
			}
			if strings.HasSuffix(line, busy) {
				gaveUp++
			}
			if err := past.acknowledge(line); err != nil {
				t.Fatal(err)
			}
		}
	}
	took := time.Since(began)
	if want := processes * goroutinesOfProcess * workload.Operations; past.acknowledged+gaveUp != want {
		t.Errorf("%d writes acknowledged; want %d", past.acknowledged, want)
	}
	if _, err := past.examine(workload.Path); err != nil {
		t.Error(err)
	}
	t.Logf("%d writes from %d processes × %d goroutines in %v, %d openings meanwhile: 0 lost, 0 refused, 0 busy before 5 s, %d after",
		past.acknowledged, processes, goroutinesOfProcess, took.Round(time.Millisecond), opened, gaveUp)
}

func init() {
	roles["contend"] = func() {
		workload := parseWorkload(os.Args[1])
		awaitStart()
		stop := make(chan struct{})
		var opener sync.WaitGroup
		opener.Go(func() {
			ticks := time.NewTicker(20 * time.Millisecond)
			for {
				select {
				case <-stop:
					return
				case <-ticks.C:
				}
				began := time.Now()
				storeInstance, err := store.New(workload.Path)
				if err == nil {
					_, err = storeInstance.CountAll("")
				}
				if err == nil {
					err = storeInstance.Close()
				}
				if err != nil {
					fatalf("opening after %v: %v", time.Since(began), err)
				}
				fmt.Fprintln(os.Stdout, "opened")
			}
		})
		workload.run()
		close(stop)
		opener.Wait()
	}
}

// TestProcesses_QuotaIsExact has 32 goroutines of four processes fill one quota, empty it and fill it again: what
// fits is admitted, nothing more, and a watching reader never sees more.
func TestProcesses_QuotaIsExact(t *testing.T) {
	t.Parallel()
	databasePath := filepath.Join(t.TempDir(), databaseName)
	rounds, limit := scale(3, 25, 200), 50
	storeInstance := openStore(t, databasePath)
	scopedStore, err := store.NewScoped(storeInstance, namespace)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reads := 0
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if count, err := scopedStore.CountAll(""); err != nil || count > limit {
				t.Errorf(`CountAll("") = %d, %v; want at most %d`, count, err, limit)
				return
			}
			reads++
		}
	})
	admitted, refusals := 0, 0
	for round := range rounds {
		admittedNow := 0
		for _, lines := range runProcesses(t, "fill", func(process int) []string {
			return []string{databasePath, strconv.Itoa(process), strconv.Itoa(limit)}
		}) {
			var done, refused int
			if _, err := fmt.Sscan(strings.Join(lines, " "), &done, &refused); err != nil {
				t.Fatalf("report %q: %v", lines, err)
			}
			admittedNow += done
			refusals += refused
		}
		count, err := scopedStore.CountAll("")
		if admittedNow != limit || count != limit || err != nil {
			t.Fatalf("round %d: %d admitted, CountAll = %d, %v; want exactly %d", round, admittedNow, count, err, limit)
		}
		admitted += admittedNow
		for process := range processes {
			if err := scopedStore.DeleteGroup("p" + strconv.Itoa(process)); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	reader.Wait()
	t.Logf("%d rounds: %d writes admitted, %d refused, %d reads meanwhile; 0 over the limit of %d, 0 refused while there was room",
		rounds, admitted, refusals, reads, limit)
}

func init() {
	roles["fill"] = func() {
		limit, err := strconv.Atoi(os.Args[3])
		if err != nil {
			fatalf("%v", err)
		}
		awaitStart()
		storeInstance, err := store.New(os.Args[1])
		if err != nil {
			fatalf("New: %v", err)
		}
		var done, refused atomic.Int64
		var group sync.WaitGroup
		for number := range goroutinesOfProcess {
			group.Go(func() {
				scopedStore, err := store.NewScopedWithQuota(storeInstance, namespace, store.QuotaConfig{MaxKeys: limit})
				if err != nil {
					fatalf("NewScopedWithQuota: %v", err)
				}
				for round := range 4 {
					err := scopedStore.Set("p"+os.Args[2], fmt.Sprintf("%d/%d", number, round), "x")
					if errors.Is(err, store.QuotaExceededError) {
						refused.Add(1)
					} else if err != nil {
						fatalf("Set: %v", err)
					} else {
						done.Add(1)
					}
				}
			})
		}
		group.Wait()
		fmt.Println(done.Load(), refused.Load())
		if err := storeInstance.Close(); err != nil {
			fatalf("Close: %v", err)
		}
	}
}

// TestProcesses_ReadsShowNothingThatNeverLived has a process read while another one writes what has expired when it
// is written. Each lock of the reader is delayed, so that writes fall between the begin of a read and its snapshot.
func TestProcesses_ReadsShowNothingThatNeverLived(t *testing.T) {
	t.Parallel()
	require(t, "strace")
	databasePath := filepath.Join(t.TempDir(), databaseName)
	storeInstance := openStore(t, databasePath)
	reads := scale(10, 40, 1000)
	reader := childCommand(t, "look for the dead", []string{"strace", "-f", "-o", os.DevNull, "-e", "signal=none", "-e", "trace=fcntl",
		"-e", "inject=fcntl:delay_enter=2000", testBinary(t), databasePath, strconv.Itoa(reads)})
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- reader.Wait() }()
	writes := 0
	for {
		select {
		case err := <-ended:
			if err != nil {
				requireTracing(t, reader)
				t.Errorf("the reader: %v", err)
			}
			t.Logf("%d reads of each kind beside %d writes of what had expired: 0 saw any", reads, writes)
			return
		default:
		}
		if err := storeInstance.SetWithTTL("group", "key", "value", 0); err != nil {
			t.Fatal(err)
		}
		writes++
		time.Sleep(8 * time.Millisecond) // a reader begins its snapshot again after each write that comes between
	}
}

func init() {
	roles["look for the dead"] = func() {
		storeInstance, err := store.New(os.Args[1])
		if err != nil {
			fatalf("New: %v", err)
		}
		rounds, err := strconv.Atoi(os.Args[2])
		if err != nil {
			fatalf("%v", err)
		}
		for range rounds {
			count, err := storeInstance.Count("group")
			everything, err2 := storeInstance.CountAll("")
			entries, err3 := storeInstance.GetAll("group")
			rendered, err4 := storeInstance.Render("{{len .}}", "group")
			groups, err5 := storeInstance.Groups("")
			if err := errors.Join(err, err2, err3, err4, err5); err != nil {
				fatalf("%v", err)
			}
			if count+everything+len(entries)+len(groups) > 0 || rendered != "0" {
				fatalf("Count = %d, CountAll = %d, GetAll = %v, Groups = %v, Render = %s; want nothing, 0 and 0", count, everything, entries, groups, rendered)
			}
		}
		if err := storeInstance.Close(); err != nil {
			fatalf("Close: %v", err)
		}
	}
}

// TestProcesses_CreatingDropsNoLock has a New open by a URI what another New of the process has just made and not yet
// closed: that close, which is delayed, must not take SQLite's locks away.
func TestProcesses_CreatingDropsNoLock(t *testing.T) {
	t.Parallel()
	require(t, "strace")
	databasePath := filepath.Join(t.TempDir(), databaseName)
	child := childCommand(t, "create", []string{"strace", "-f", "-o", os.DevNull, "-e", "signal=none", "-P", databasePath, "-e", "trace=close",
		"-e", "inject=close:delay_enter=500000:when=1", testBinary(t), databasePath})
	input, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		child.Wait()
		requireTracing(t, child)
		t.Fatalf("the child: %q, %v", line, err)
	}
	inode, err := exec.Command("stat", "-c", "%i", databasePath).Output()
	if err != nil {
		t.Fatal(err)
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(locks), ":"+strings.TrimSpace(string(inode))+" ") {
		t.Errorf("nobody holds a lock on the file that two stores have open:\n%s", locks)
	}
	input.Close()
	if err := child.Wait(); err != nil {
		t.Errorf("the child: %v", err)
	}
}

func init() {
	roles["create"] = func() {
		made := make(chan *store.Store)
		open := func(path string) *store.Store {
			storeInstance, err := store.New(path)
			if err == nil {
				err = storeInstance.Set("group", path, "value")
			}
			if err != nil {
				fatalf("%s: %v", path, err)
			}
			return storeInstance
		}
		go func() { made <- open(os.Args[1]) }()
		for { // until it is made, and the close has begun or is about to
			if _, err := os.Stat(os.Args[1]); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		stores := []*store.Store{open("file:" + os.Args[1]), <-made}
		fmt.Println("open")
		awaitStart() // here: the end of the input
		for _, each := range stores {
			if err := each.Close(); err != nil {
				fatalf("Close: %v", err)
			}
		}
	}
}

// TestProcesses_HeldLockDelaysWritesOnly has another process hold the write lock: writes wait, reads go on.
func TestProcesses_HeldLockDelaysWritesOnly(t *testing.T) {
	t.Parallel()
	databasePath := filepath.Join(t.TempDir(), databaseName)
	storeInstance := openStore(t, databasePath)
	if err := storeInstance.Set("g", "k", "before"); err != nil {
		t.Fatal(err)
	}
	release := holdLock(t, databasePath)
	results := make(chan error, 16)
	for number := range cap(results) {
		go func() { results <- storeInstance.Set("g", strconv.Itoa(number), "meanwhile") }()
	}
	reads := readUntil(t, storeInstance, time.After(300*time.Millisecond))
	select {
	case err := <-results:
		t.Fatalf("Set while another process holds the lock: %v; want it to wait", err)
	default:
	}
	release()
	for range cap(results) {
		if err := <-results; err != nil {
			t.Errorf("Set once the lock is free: %v", err)
		}
	}
	if count, err := storeInstance.Count("g"); count != 1+cap(results) || err != nil {
		t.Errorf("Count = %d, %v; want %d", count, err, 1+cap(results))
	}
	t.Logf("%d reads while %d writes waited", reads, cap(results))
}

// TestProcesses_BusyOnlyAfterFiveSeconds has another process never let the lock go.
func TestProcesses_BusyOnlyAfterFiveSeconds(t *testing.T) {
	t.Parallel()
	if scale(0, 1, 1) == 0 {
		t.Skip("takes five seconds; RELIABILITY=ci runs it")
	}
	databasePath := filepath.Join(t.TempDir(), databaseName)
	storeInstance := openStore(t, databasePath)
	if err := storeInstance.Set("g", "k", "before"); err != nil {
		t.Fatal(err)
	}
	holdLock(t, databasePath)
	var waiting sync.WaitGroup
	for number := range 16 {
		waiting.Go(func() {
			began := time.Now()
			err := storeInstance.Set("g", strconv.Itoa(number), "meanwhile")
			if waited := time.Since(began); err == nil || waited < patience {
				t.Errorf("Set while another process holds the lock: %v after %v; want an error after %v", err, waited, patience)
			}
		})
	}
	ended := make(chan time.Time)
	go func() {
		waiting.Wait()
		close(ended)
	}()
	t.Logf("%d reads while 16 writes waited", readUntil(t, storeInstance, ended))
}

// readUntil reads again and again, and wants more reads than could have each waited for the lock.
func readUntil(t *testing.T, storeInstance *store.Store, end <-chan time.Time) (reads int) {
	t.Helper()
	for {
		select {
		case <-end:
			if reads < 100 {
				t.Errorf("%d reads while writes waited; want them to go on", reads)
			}
			return reads
		default:
		}
		if value, err := storeInstance.Get("g", "k"); value != "before" || err != nil {
			t.Fatalf("Get while writes wait: %q, %v", value, err)
		}
		reads++
	}
}

// holdLock makes another process take the write lock; release ends it.
func holdLock(t *testing.T, databasePath string) (release func()) {
	t.Helper()
	holder := newChild(t, "hold", databasePath)
	input, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		input.Close()
		holder.Wait()
	})
	t.Cleanup(release)
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatalf("holder: %q, %v", line, err)
	}
	return release
}

func init() {
	roles["hold"] = func() {
		database, err := sql.Open("sqlite", databaseURI(os.Args[1]))
		if err == nil {
			database.SetMaxOpenConns(1)
			_, err = database.Exec("BEGIN IMMEDIATE")
		}
		if err != nil {
			fatalf("BEGIN IMMEDIATE: %v", err)
		}
		fmt.Println("held")
		awaitStart() // here: the end of the input
		database.Close()
	}
}
