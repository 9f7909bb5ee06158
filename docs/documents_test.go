// Package docs_test runs the programs and the shell commands that the documents show.
package docs_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"dappco.re/go/core/store"
)

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

func TestDocuments_GoBlocksAreProgramsThatRun(t *testing.T) {
	documents := []string{"../README.md", "../CODEX.md"}
	for _, pattern := range []string{"*.md", "*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, found...)
	}
	programs := 0
	for _, document := range documents {
		content, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range goBlock.FindAllSubmatch(content, -1) {
			programs++
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(document), i), func(t *testing.T) { runProgram(t, block[1]) })
		}
	}
	if programs == 0 {
		t.Error("no document shows a program")
	}
}

// runProgram builds a program as a part of this module and runs it in an empty directory.
func runProgram(t *testing.T, source []byte) {
	directory := t.TempDir()
	sourceFile, program := filepath.Join(directory, "main.go"), filepath.Join(directory, "program.exe")
	if err := os.WriteFile(sourceFile, source, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"go", "vet", sourceFile}, {"go", "build", "-o", program, sourceFile}} {
		if output, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, output)
		}
	}
	running := exec.Command(program)
	running.Dir = t.TempDir()
	if output, err := running.CombinedOutput(); err != nil {
		t.Errorf("the program failed: %v\n%s", err, output)
	}
}

// operations are the sections of operations.md with a command. Each is run on a store that
// has an entry, a tenant's entry, an expired one and a table of another program.
var operations = map[string]struct {
	closed bool // the stores of the file are closed meanwhile
	check  func(operated operated)
}{
	"Back up": {check: func(operated operated) {
		operated.set("config", "colour", "green")
		mode, err := os.Stat("copy.db")
		operated.check(err)
		operated.same("mode of the copy", mode.Mode(), os.FileMode(0o600))
		operated.same("colour in the copy", operated.reopen("copy.db").get("config", "colour"), "blue")
		if output, err := operated.shell(strings.ReplaceAll(operated.command, "application.db", "mistyped.db")); err == nil {
			operated.Errorf("a mistyped name: no error, but %q", output)
		}
	}},
	"Restore": {closed: true, check: func(operated operated) {
		operated.same("colour", operated.reopen("application.db").get("config", "colour"), "restored")
	}},
	"Read": {check: func(operated operated) {
		operated.same("output", operated.output, "config|colour|blue\ntenant-a:config|colour|red\n")
	}},
	"Bring data in": {closed: true, check: func(operated operated) {
		operated.same("brought in", operated.reopen("application.db").get("config", "theme"), "dark")
	}},
	"Shrink": {closed: true, check: func(operated operated) {
		content, err := os.ReadFile("application.db")
		operated.check(err)
		if strings.Contains(string(content), "deleted-value") {
			operated.Error("what was deleted is still in the file")
		}
		operated.same("colour", operated.reopen("application.db").get("config", "colour"), "blue")
	}},
	"Count again": {closed: true, check: func(operated operated) {
		operated = operated.reopen("application.db")
		tenant, err := store.NewScopedWithQuota(operated.store, "tenant-a", store.QuotaConfig{MaxKeys: 2})
		operated.check(err)
		operated.check(tenant.Set("config", "second", "x"))
		if err := tenant.Set("config", "third", "x"); !errors.Is(err, store.QuotaExceededError) {
			operated.Errorf("a third key: %v, want %v", err, store.QuotaExceededError)
		}
	}},
}

// operated is a store in application.db of the current directory, and what a command that
// ran there has printed.
type operated struct {
	*testing.T
	store           *store.Store
	command, output string
}

func (operated operated) check(err error) {
	operated.Helper()
	if err != nil {
		operated.Fatal(err)
	}
}

func (operated operated) same(what string, got, want any) {
	operated.Helper()
	if got != want {
		operated.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func (operated operated) set(group, key, value string) {
	operated.Helper()
	operated.check(operated.store.Set(group, key, value))
}

func (operated operated) get(group, key string) string {
	operated.Helper()
	value, err := operated.store.Get(group, key)
	operated.check(err)
	return value
}

func (operated operated) reopen(path string) operated {
	operated.Helper()
	reopened, err := store.New(path)
	operated.check(err)
	operated.Cleanup(func() { _ = reopened.Close() })
	operated.store = reopened
	return operated
}

func (operated operated) shell(command string) (string, error) {
	output, err := exec.Command("sh", "-euc", command).CombinedOutput()
	return string(output), err
}

func TestDocuments_OperationsDoWhatTheySay(t *testing.T) {
	if _, err := exec.LookPath("sqlite3"); err != nil {
		if os.Getenv("RELIABILITY_REQUIRE") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	content, err := os.ReadFile("operations.md")
	if err != nil {
		t.Fatal(err)
	}
	packageComment, err := os.ReadFile("../doc.go")
	if err != nil {
		t.Fatal(err)
	}
	commandBlock := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	ran := 0
	for section := range strings.SplitSeq(string(content), "\n## ") {
		title, text, _ := strings.Cut(section, "\n")
		commands := commandBlock.FindAllStringSubmatch(text, -1)
		if len(commands) == 0 {
			continue
		}
		ran++
		t.Run(title, func(t *testing.T) {
			operation, found := operations[title]
			if !found || len(commands) != 1 {
				t.Fatalf("%d commands that no test checks", len(commands))
			}
			if command := strings.ReplaceAll(commands[0][1], "application.db", "state.db"); title == "Back up" && !strings.Contains(string(packageComment), command) {
				t.Errorf("the package comment does not have %q", command)
			}
			t.Chdir(t.TempDir())
			operated := operated{T: t, command: commands[0][1]}.reopen("copy.db") // for Restore
			operated.set("config", "colour", "restored")
			operated.check(operated.store.Close())
			if !operation.closed {
				operated.check(os.Remove("copy.db"))
			}
			operated = operated.reopen("application.db")
			operated.set("config", "colour", "blue")
			operated.set("config", "old", "deleted-value")
			operated.check(operated.store.Delete("config", "old"))
			operated.check(operated.store.SetWithTTL("session", "token", "abc123", -1))
			tenant, err := store.NewScopedWithQuota(operated.store, "tenant-a", store.QuotaConfig{MaxKeys: 2})
			operated.check(err)
			operated.check(tenant.Set("config", "colour", "red"))
			database, err := sql.Open("sqlite", "application.db") // not the shell, which might be too old to write beside the store
			operated.check(err)
			_, err = database.Exec("CREATE TABLE settings (name, value); INSERT INTO settings VALUES ('theme', 'dark')")
			operated.check(errors.Join(err, database.Close()))
			if operation.closed {
				log, err := os.ReadFile("application.db-wal")
				operated.check(err)
				operated.check(operated.store.Close())
				operated.check(os.WriteFile("application.db-wal", log, 0o600)) // as a crash would leave it
			}
			operated.output, err = operated.shell(operated.command)
			if err != nil {
				t.Fatalf("%s: %v\n%s", operated.command, err, operated.output)
			}
			operation.check(operated)
		})
	}
	if ran != len(operations) {
		t.Errorf("%d sections have a command, %d are tested", ran, len(operations))
	}
}
