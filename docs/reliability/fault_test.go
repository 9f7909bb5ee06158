package reliability_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"dappco.re/go/core/store"
)

func TestFullDisk_Device(t *testing.T) {
	t.Parallel()
	mountPoint := t.TempDir()
	mount(t, mountPoint, "-t", "tmpfs", "-o", "size=2m", "tmpfs")
	ballast := func(number int) string { return filepath.Join(mountPoint, "ballast"+strconv.Itoa(number)) }
	for number := range 2 {
		if err := os.WriteFile(ballast(number), make([]byte, 400_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	databasePath := filepath.Join(mountPoint, databaseName)
	disk := newFullDisk(t, databasePath)
	disk.fill()
	os.Remove(ballast(0))
	disk.hasRoom()
	disk.fill()
	disk.store.Close() // cannot merge the log, which is not an error of anything acknowledged
	os.Remove(ballast(1))
	disk.open(databasePath)
	disk.hasRoom()
	disk.check()
	disk.store.Close()
	checkIntegrity(t, databasePath)
}

// mount mounts something until the test ends, or until unmount is called.
func mount(t testing.TB, mountPoint string, arguments ...string) (unmount func()) {
	t.Helper()
	require(t, "root")
	require(t, "mount")
	if runtime.GOOS != "linux" {
		lacking(t, "mounts as Linux does")
	}
	if output, err := exec.Command("mount", append(arguments, mountPoint)...).CombinedOutput(); err != nil {
		lacking(t, fmt.Sprintf("may not mount %v: %v: %s", arguments, err, output))
	}
	unmount = sync.OnceFunc(func() {
		if output, err := exec.Command("umount", mountPoint).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, output)
		}
	})
	t.Cleanup(unmount)
	return unmount
}

func TestFullDisk_PageLimit(t *testing.T) {
	t.Parallel()
	databasePath := filepath.Join(t.TempDir(), databaseName)
	disk := newFullDisk(t, databaseURI(databasePath)+"&_pragma=max_page_count(256)")
	if err := disk.store.Set("ballast", "", strings.Repeat("b", 400_000)); err != nil {
		t.Fatal(err)
	}
	disk.acknowledged.Add(1)
	disk.fill()
	if err := disk.store.Delete("ballast", ""); err != nil {
		t.Fatal(err)
	}
	disk.acknowledged.Add(1)
	disk.hasRoom()
	disk.check()
	disk.store.Close()
	disk.open(databasePath)
	disk.check()
	checkIntegrity(t, databasePath)
}

// fullDisk is a store on a disk that can be filled, and what sixteen writers have had acknowledged.
type fullDisk struct {
	t                            testing.TB
	seed                         uint64
	store                        *store.Store
	written                      []map[string]string // by writer, whose number is its group
	acknowledged, failed, events atomic.Int64
}

func newFullDisk(t testing.TB, databasePath string) *fullDisk {
	disk := &fullDisk{t: t, seed: newSeed(t)}
	for range 16 {
		disk.written = append(disk.written, map[string]string{})
	}
	disk.open(databasePath)
	return disk
}

func (disk *fullDisk) open(databasePath string) {
	disk.store = openStore(disk.t, databasePath)
	disk.store.OnChange(func(store.Event) { disk.events.Add(1) })
}

// each runs the writers, so that they share commits.
func (disk *fullDisk) each(run func(number int)) {
	var group sync.WaitGroup
	for number := range disk.written {
		group.Go(func() { run(number) })
	}
	group.Wait()
}

// set writes and reads again: what was acknowledged is there, and after an error the entry is as it was.
func (disk *fullDisk) set(number int, key, value string) error {
	group := strconv.Itoa(number)
	err := disk.store.Set(group, key, value)
	if err == nil {
		disk.written[number][key] = value
		disk.acknowledged.Add(1)
	} else {
		disk.failed.Add(1)
	}
	want, exists := disk.written[number][key]
	if got, readError := disk.store.Get(group, key); got != want || (readError == nil) != exists {
		disk.t.Errorf("Get after Set: %v: %d bytes, %v; want %d bytes, present: %t", err, len(got), readError, len(want), exists)
	}
	return err
}

// fill writes more than there is room for: new keys first, then further values of these.
func (disk *fullDisk) fill() {
	disk.t.Helper()
	acknowledged, failed := disk.acknowledged.Load(), disk.failed.Load()
	disk.each(func(number int) {
		random := newRandom(disk.seed, uint64(acknowledged)<<8|uint64(number))
		for round := range 32 {
			disk.set(number, strconv.Itoa(round%16), newValue(random, 100_000))
		}
	})
	acknowledged, failed = disk.acknowledged.Load()-acknowledged, disk.failed.Load()-failed
	if failed == 0 || acknowledged == 0 {
		disk.t.Fatalf("%d writes were acknowledged and %d failed; want some of each", acknowledged, failed)
	}
	disk.t.Logf("filling the disk: %d writes acknowledged, %d failed", acknowledged, failed)
	disk.check()
}

// hasRoom sees that every writer can write again, with the store as it is.
func (disk *fullDisk) hasRoom() {
	disk.t.Helper()
	disk.each(func(number int) {
		if err := disk.set(number, "after", "written when there was room again"); err != nil {
			disk.t.Errorf("Set when there is room again: %v", err)
		}
	})
}

func (disk *fullDisk) check() {
	disk.t.Helper()
	for number, want := range disk.written {
		if got, err := disk.store.GetAll(strconv.Itoa(number)); err != nil || !maps.Equal(got, want) {
			disk.t.Errorf("GetAll(%d): %d entries, %v; want the %d acknowledged", number, len(got), err, len(want))
		}
	}
	if events, acknowledged := disk.events.Load(), disk.acknowledged.Load(); events != acknowledged {
		disk.t.Errorf("%d events for %d acknowledged writes; want one for each", events, acknowledged)
	}
}

// A child of the I/O error tests does what it is told on its standard input, one command a line, and answers each
// in one line. Its writes come from as many goroutines as there are writes, so that they share commits.
func init() {
	roles["obey"] = func() {
		writers, err := strconv.Atoi(os.Args[2])
		if err != nil {
			fatalf("%v", err)
		}
		obedient := &obedient{path: os.Args[1], writers: writers}
		if answer := obedient.reopen(); answer != "0" {
			fatalf("New: %s", answer)
		}
		commands := bufio.NewScanner(os.Stdin)
		for commands.Scan() {
			command, group, _ := strings.Cut(commands.Text(), " ")
			switch command {
			case "write":
				fmt.Println(obedient.write(group))
			case "read":
				fmt.Println(obedient.read(group))
			case "events":
				fmt.Println(obedient.events.Load())
			case "reopen":
				fmt.Println(obedient.reopen())
			default:
				fatalf("command %q", commands.Text())
			}
		}
	}
}

type obedient struct {
	path    string
	writers int
	store   *store.Store
	events  atomic.Int64
}

func obedientValue(group, key string) string { return strings.Repeat(group+key, 2000) }

// reopen answers 0 or an error. That of Close is not one: it may be that of the injected failure.
func (obedient *obedient) reopen() string {
	if obedient.store != nil {
		obedient.store.Close()
	}
	var err error
	if obedient.store, err = store.New(obedient.path); err != nil {
		return err.Error()
	}
	obedient.store.OnChange(func(store.Event) { obedient.events.Add(1) })
	return "0"
}

// write answers how many writes were acknowledged, and an error of one that was not.
func (obedient *obedient) write(name string) string {
	var acknowledged atomic.Int64
	var failure atomic.Value
	var group sync.WaitGroup
	for number := range obedient.writers {
		group.Go(func() {
			key := strconv.Itoa(number)
			if err := obedient.store.Set(name, key, obedientValue(name, key)); err != nil {
				failure.Store(err.Error())
			} else {
				acknowledged.Add(1)
			}
		})
	}
	group.Wait()
	if text := failure.Load(); text != nil {
		return fmt.Sprint(acknowledged.Load(), " ", text)
	}
	return fmt.Sprint(acknowledged.Load())
}

// read answers how many entries the group has.
func (obedient *obedient) read(group string) string {
	entries, err := obedient.store.GetAll(group)
	if err != nil {
		return err.Error()
	}
	for key, value := range entries {
		if value != obedientValue(group, key) {
			return fmt.Sprintf("%s/%s holds %d bytes that were never written", group, key, len(value))
		}
	}
	return strconv.Itoa(len(entries))
}

// TestIOError_NothingAcknowledgedIsLost lets system calls of a running child fail for a while.
func TestIOError_NothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, calls, cause string
		lasts              bool // until the store is opened anew
	}{
		{"Flush", "fsync,fdatasync", "EIO", true},
		{"Write", "pwrite64", "EIO", false},
		{"NoSpace", "pwrite64", "ENOSPC", false},
	} {
		for _, writers := range []int{1, 16} {
			t.Run(fmt.Sprintf("%s/Writers=%d", test.name, writers), func(t *testing.T) {
				ioError(t, test.calls, test.cause, test.lasts, writers)
			})
		}
	}
}

func ioError(t *testing.T, calls, cause string, lasts bool, writers int) {
	require(t, "strace")
	databasePath := filepath.Join(t.TempDir(), databaseName)
	child := startObedient(t, databasePath, writers)
	all, twice := strconv.Itoa(writers), strconv.Itoa(2*writers)
	child.expect("write before", all)
	repair := breakCalls(t, child.process.Pid, calls, cause)
	child.expect("write broken", "0 store.Set: broken/")
	child.expect("read before", all)
	child.expect("events", all)
	repair()
	if lasts {
		child.expect("write repaired", "0 store.Set: repaired/")
		child.expect("events", all)
	} else {
		child.expect("write repaired", all)
		child.expect("events", twice)
	}
	child.expect("read before", all)
	child.expect("reopen", "0")
	child.expect("write reopened", all)
	child.stop()

	storeInstance := openStore(t, databasePath)
	want := map[string]int{"before": writers, "broken": 0, "repaired": writers, "reopened": writers}
	if lasts {
		want["repaired"] = 0
	}
	for group, atLeast := range want { // what failed may have happened
		entries, err := storeInstance.GetAll(group)
		if err != nil || len(entries) < atLeast {
			t.Errorf("GetAll(%q): %d entries, %v; want %d", group, len(entries), err, atLeast)
		}
		for key, value := range entries {
			if value != obedientValue(group, key) {
				t.Errorf("%s/%s holds %d bytes that were never written", group, key, len(value))
			}
		}
	}
	checkIntegrity(t, databasePath)
	t.Logf("%d writes failed with %s of %s, 0 of them acknowledged; 0 acknowledged writes lost", writers, cause, calls)
}

// TestIOError_DeviceFails has the flush fail for real: the file system lies on a device whose own disk is full. When
// it is mounted anew, only what has reached the device is there.
func TestIOError_DeviceFails(t *testing.T) {
	t.Parallel()
	require(t, "mkfs.ext4")
	host, mountPoint := t.TempDir(), t.TempDir()
	mount(t, host, "-t", "tmpfs", "-o", "size=12m", "tmpfs")
	device, ballast := filepath.Join(host, "device"), filepath.Join(host, "ballast")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(device, 64<<20); err != nil {
		t.Fatal(err)
	}
	// Without a journal, since an error in that would stop the file system for good.
	if output, err := exec.Command("mkfs.ext4", "-q", "-O", "^has_journal", device).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, output)
	}
	unmount := mount(t, mountPoint, "-o", "loop", device)
	databasePath := filepath.Join(mountPoint, databaseName)
	child := startObedient(t, databasePath, 16)
	child.expect("write before", "16")
	if err := os.WriteFile(ballast, make([]byte, 12<<20), 0o600); err == nil {
		t.Fatal("the device's disk is not full")
	}
	// The first of these may still find room that the device has already.
	filling := 0
	for groups, failed := 0, false; !failed; groups++ {
		if groups == 20 {
			t.Fatal("20 × 16 writes on a device that is full; want some to fail")
		}
		var acknowledged int
		_, err := fmt.Sscan(child.ask("write filling"+strconv.Itoa(groups)), &acknowledged)
		if err != nil {
			t.Fatal(err)
		}
		filling += acknowledged
		failed = acknowledged < 16
	}
	child.expect("write broken", "0 store.Set: broken/")
	child.expect("read before", "16")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	child.expect("write repaired", "0 store.Set: repaired/")
	child.expect("events", strconv.Itoa(16+filling))
	child.expect("read before", "16")
	child.expect("reopen", "0")
	child.expect("write reopened", "16")
	child.stop()
	unmount()
	mount(t, mountPoint, "-o", "loop", device)
	storeInstance := openStore(t, databasePath)
	for prefix, want := range map[string]int{"before": 16, "filling": filling, "reopened": 16} {
		if count, err := storeInstance.CountAll(prefix); count < want || err != nil {
			t.Errorf("CountAll(%q) of the device mounted anew: %d, %v; want the %d acknowledged", prefix, count, err, want)
		}
	}
	checkIntegrity(t, databasePath)
	storeInstance.Close() // before the unmounting
	t.Logf("%d writes acknowledged before the device failed, 16 after the store was opened anew", 16+filling)
}

type obedientChild struct {
	t       testing.TB
	process *os.Process
	input   io.WriteCloser
	output  *bufio.Reader
	stop    func()
}

func startObedient(t testing.TB, databasePath string, writers int) *obedientChild {
	t.Helper()
	command := newChild(t, "obey", databasePath, strconv.Itoa(writers))
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		input.Close() // which ends the child, without closing its store
		command.Wait()
	})
	t.Cleanup(stop)
	return &obedientChild{t, command.Process, input, bufio.NewReader(output), stop}
}

// ask gives a command and returns the answer.
func (child *obedientChild) ask(command string) string {
	child.t.Helper()
	if _, err := fmt.Fprintln(child.input, command); err != nil {
		child.t.Fatalf("%s: %v", command, err)
	}
	answer, err := child.output.ReadString('\n')
	if err != nil {
		child.t.Fatalf("%s: answered %q, %v", command, answer, err)
	}
	return strings.TrimSuffix(answer, "\n")
}

// expect wants an answer that is, or where it is an error begins with, what is given.
func (child *obedientChild) expect(command, want string) {
	child.t.Helper()
	if answer := child.ask(command); answer != want && !(strings.Contains(want, " ") && strings.HasPrefix(answer, want)) {
		child.t.Fatalf("%s: answered %q; want %q", command, answer, want)
	}
}

// breakCalls makes system calls of a process fail until repair is called.
func breakCalls(t testing.TB, process int, calls, cause string) (repair func()) {
	t.Helper()
	tracer := exec.Command("strace", "-f", "-p", strconv.Itoa(process), "-o", os.DevNull,
		"-e", "trace="+calls, "-e", "signal=none", "-e", "inject="+calls+":error="+cause)
	messages, err := tracer.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(messages)
	if line, _ := reader.ReadString('\n'); !strings.Contains(line, "attached") {
		tracer.Wait()
		lacking(t, "strace may not attach here: "+line)
	}
	go io.Copy(io.Discard, reader) // the threads that it attaches to later
	repair = sync.OnceFunc(func() {
		tracer.Process.Signal(os.Interrupt)
		tracer.Wait()
	})
	t.Cleanup(repair)
	return repair
}
