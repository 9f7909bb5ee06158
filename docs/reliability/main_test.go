package reliability_test

import (
	"bytes"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"dappco.re/go/core/store"
)

// roles are the programs that the test binary becomes when RELIABILITY_ROLE names one. The files that need a
// child process add to it in init; the role finds its arguments in os.Args[1:].
var roles = map[string]func(){}

var seedFlag = flag.Uint64("seed", 0, "seed of everything random (0: RELIABILITY_SEED, or a fresh one)")

func TestMain(m *testing.M) {
	if name := os.Getenv("RELIABILITY_ROLE"); name != "" {
		role, ok := roles[name]
		if !ok {
			fatalf("no role %q", name)
		}
		role()
		os.Exit(0)
	}
	flag.Parse()
	switch os.Getenv("RELIABILITY") {
	case "", "short", "ci", "long":
	default:
		fatalf("RELIABILITY=%s: want short, ci or long", os.Getenv("RELIABILITY"))
	}
	os.Exit(m.Run())
}

// fatalf ends a child, whose parent shows what it wrote to its standard error.
func fatalf(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(2)
}

// scale returns the length of a test that RELIABILITY asks for.
func scale(short, ci, long int) int {
	switch os.Getenv("RELIABILITY") {
	case "ci":
		return ci
	case "long":
		return long
	}
	return short
}

// require skips the test where the machine lacks what it needs: "root", or a program to be found in PATH. With
// RELIABILITY_REQUIRE=1 the lack is a failure, so that a CI machine cannot lose a test in silence.
func require(t testing.TB, tool string) {
	t.Helper()
	missing := false
	if tool == "root" {
		missing = os.Geteuid() != 0
	} else {
		_, err := exec.LookPath(tool)
		missing = err != nil
	}
	if missing {
		lacking(t, "needs "+tool+", which is not here")
	}
}

// lacking ends a test that cannot run here, for a reason that require cannot see beforehand.
func lacking(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("RELIABILITY_REQUIRE") == "1" {
		t.Fatal(reason + " (RELIABILITY_REQUIRE=1)")
	}
	t.Skip(reason)
}

// newSeed returns the seed of a test's random choices and prints it if the test fails.
func newSeed(t testing.TB) uint64 {
	t.Helper()
	seed := *seedFlag
	if text := os.Getenv("RELIABILITY_SEED"); seed == 0 && text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("RELIABILITY_SEED: %v", err)
		}
	}
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to repeat these choices: RELIABILITY_SEED=%d", seed)
		}
	})
	return seed
}

// newRandom returns the generator of one part of a test, so that parts which run at the same time, or in a
// child, make the same choices whatever the others do.
func newRandom(seed, part uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, part))
}

// newChild returns the command that runs a role of this test binary. What it writes to its standard error is
// shown if the test fails.
func newChild(t testing.TB, role string, arguments ...string) *exec.Cmd {
	t.Helper()
	return childCommand(t, role, append([]string{testBinary(t)}, arguments...))
}

// childCommand is newChild for a command line that has another program, such as a tracer, in front.
func childCommand(t testing.TB, role string, commandLine []string) *exec.Cmd {
	t.Helper()
	command := exec.Command(commandLine[0], commandLine[1:]...)
	command.Env = append(os.Environ(), "RELIABILITY_ROLE="+role)
	errorOutput := new(bytes.Buffer)
	command.Stderr = errorOutput
	t.Cleanup(func() {
		if t.Failed() && errorOutput.Len() > 0 {
			t.Logf("%s wrote: %s", role, errorOutput)
		}
	})
	return command
}

func testBinary(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// openStore opens a store that the test's end closes, unless the test did.
func openStore(t testing.TB, databasePath string) *store.Store {
	t.Helper()
	storeInstance, err := store.New(databasePath)
	if err != nil {
		t.Fatalf("New(%q): %v", databasePath, err)
	}
	t.Cleanup(func() { storeInstance.Close() })
	return storeInstance
}

// openDatabase opens the file through database/sql with one connection, beside the store or without it.
func openDatabase(t testing.TB, databasePath string) *sql.DB {
	t.Helper()
	database, err := sql.Open("sqlite", databaseURI(databasePath))
	if err != nil {
		t.Fatal(err)
	}
	database.SetMaxOpenConns(1)
	t.Cleanup(func() { database.Close() })
	return database
}

func databaseURI(databasePath string) string {
	return "file:" + (&url.URL{Path: databasePath}).EscapedPath() + "?_pragma=busy_timeout(5000)"
}

// checkIntegrity lets SQLite examine the whole file.
func checkIntegrity(t testing.TB, databasePath string) {
	t.Helper()
	if err := integrity(databasePath); err != nil {
		t.Error(err)
	}
}

func integrity(databasePath string) error {
	database, err := sql.Open("sqlite", databaseURI(databasePath))
	if err != nil {
		return err
	}
	defer database.Close()
	var result string
	if err := database.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		return fmt.Errorf("integrity_check of %s: %q, %v; want ok", databasePath, result, err)
	}
	return nil
}
