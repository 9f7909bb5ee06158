package reliability_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// systemCall is one call of a traced process. Its start and end are its places in the record: the tracer lets no
// thread go on before it has noted the end of the call, so what a call caused stands after that.
type systemCall struct {
	start, end int // end is math.MaxInt for a call that did not return
	name       string
	descriptor string // a number, or AT_FDCWD
	path       string // of the descriptor, or of what was opened or removed
	data       []byte // that was written
	offset     int64  // of the data; for ftruncate the size
	creates    bool
	err        string // such as EIO
}

// tracedCalls change files, or names in directories, or put them on the disk. Whether they are all that do is
// seen by TestPowerLoss, which compares the files with what the record makes of them.
const tracedCalls = "pwrite64,write,writev,pwritev,pwritev2,sendfile,copy_file_range,ftruncate,truncate,fallocate," +
	"fsync,fdatasync,sync_file_range,open,openat,creat,rename,renameat,renameat2,link,linkat,unlink,unlinkat"

// traceChild runs a role under strace until it ends, and returns its calls in the order of their starts.
func traceChild(t testing.TB, inject string, role string, arguments ...string) []*systemCall {
	t.Helper()
	require(t, "strace")
	recordPath := filepath.Join(t.TempDir(), "record")
	commandLine := []string{"strace", "-f", "-y", "-xx", "-s", "1000000", "-e", "signal=none", "-e", "trace=" + tracedCalls, "-o", recordPath}
	if inject != "" {
		commandLine = append(commandLine, "-e", "inject="+inject)
	} else {
		commandLine = append(commandLine, "--seccomp-bpf") // other calls run at full speed
	}
	child := childCommand(t, role, append(append(commandLine, testBinary(t)), arguments...))
	if err := child.Run(); err != nil {
		requireTracing(t, child)
		t.Fatalf("%s under strace: %v", role, err)
	}
	calls, err := readRecord(recordPath)
	if err != nil {
		t.Fatal(err)
	}
	return calls
}

// requireTracing is require for a child that has failed, if the reason is that its tracer may not trace here.
func requireTracing(t testing.TB, child *exec.Cmd) {
	t.Helper()
	if strings.Contains(fmt.Sprint(child.Stderr), "PTRACE") {
		lacking(t, fmt.Sprintf("strace may not trace here: %s", child.Stderr))
	}
}

func readRecord(recordPath string) ([]*systemCall, error) {
	file, err := os.Open(recordPath)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var calls []*systemCall
	unfinished := map[string]*systemCall{} // by thread
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<26)
	for place := 0; scanner.Scan(); place++ {
		thread, text, _ := strings.Cut(scanner.Text(), " ")
		text = strings.TrimLeft(text, " ")
		switch {
		case strings.HasPrefix(text, "+++"), strings.HasPrefix(text, "---"):
		case strings.HasPrefix(text, "<... "):
			call := unfinished[thread]
			if call == nil {
				return nil, fmt.Errorf("record: %q ends a call that did not begin", text)
			}
			delete(unfinished, thread)
			if err := call.finish(text, place); err != nil {
				return nil, err
			}
		default:
			call, err := parseCall(text, place)
			if err != nil {
				return nil, err
			}
			calls = append(calls, call)
			if strings.HasSuffix(text, "<unfinished ...>") {
				unfinished[thread] = call
			} else if err := call.finish(text, place); err != nil {
				return nil, err
			}
		}
	}
	return calls, scanner.Err()
}

// parseCall reads the part of a line that is known when a call begins. Within quotes and angle brackets, strace
// was asked to write hexadecimal digits alone, so that the other punctuation is its own.
func parseCall(text string, place int) (*systemCall, error) {
	name, arguments, _ := strings.Cut(text, "(")
	if i := strings.LastIndex(arguments, " = "); i >= 0 {
		arguments = arguments[:i]
	}
	arguments = strings.TrimRight(strings.TrimSuffix(arguments, " <unfinished ...>"), " )")
	call := &systemCall{start: place, end: math.MaxInt, name: name}
	call.describe(arguments)
	parts := strings.Split(arguments, ", ")
	var err error
	switch name {
	case "write":
		call.data = unhex(strings.Trim(parts[1], `"`))
	case "pwrite64":
		call.data = unhex(strings.Trim(parts[1], `"`))
		call.offset, err = strconv.ParseInt(parts[3], 10, 64)
	case "ftruncate":
		call.offset, err = strconv.ParseInt(parts[1], 10, 64)
	case "open", "openat", "unlink", "unlinkat":
		call.path = string(unhex(strings.Split(arguments, `"`)[1]))
		call.creates = strings.Contains(arguments, "O_CREAT")
	}
	if err != nil {
		return nil, fmt.Errorf("record: %q: %w", text, err)
	}
	return call, nil
}

// finish reads the result of a call.
func (call *systemCall) finish(text string, place int) error {
	call.end = place
	i := strings.LastIndex(text, " = ")
	if i < 0 {
		return fmt.Errorf("record: no result in %q", text)
	}
	result, cause, _ := strings.Cut(text[i+3:], " ")
	if result == "-1" || result == "?" {
		call.err, _, _ = strings.Cut(cause, " ")
		if call.err == "" {
			call.err = "?" // the process ended first
		}
		return nil
	}
	if call.name == "pwrite64" {
		if written, err := strconv.Atoi(result); err != nil || written != len(call.data) {
			return fmt.Errorf("record: %q wrote only a part of %d bytes", text, len(call.data))
		}
	}
	call.describe(result) // what was opened: absolute, and free of symbolic links
	return nil
}

// describe takes a descriptor, which strace follows with its path: 5<\x2f\x77>.
func (call *systemCall) describe(text string) {
	descriptor, rest, ok := strings.Cut(text, "<")
	if !ok || strings.ContainsAny(descriptor, `" `) {
		return
	}
	path, rest, _ := strings.Cut(rest, ">")
	call.descriptor, call.path = descriptor, string(unhex(path))
	if strings.HasPrefix(rest, "(deleted)") {
		call.path += " (deleted)"
	}
}

// unhex decodes the \x2f\x77 of strace.
func unhex(text string) []byte {
	result := make([]byte, len(text)/4)
	if _, err := hex.Decode(result, bytes.ReplaceAll([]byte(text), []byte(`\x`), nil)); err != nil {
		panic(fmt.Sprintf("record: %q: %v", text, err))
	}
	return result
}

// isReport says whether the call is a child's report, on its standard output.
func (call *systemCall) isReport() bool { return call.name == "write" && call.descriptor == "1" }

func (call *systemCall) isFlush() bool { return call.name == "fsync" || call.name == "fdatasync" }
