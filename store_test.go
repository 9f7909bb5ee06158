package store_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"go/version"
	"io/fs"
	"iter"
	"log"
	"maps"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"dappco.re/go/core/store"
	"modernc.org/sqlite"
)

// helperRole is the environment variable that turns the test binary into one of the helperRoles.
const helperRole = "STORE_TEST_ROLE"

// helperRoles are the other programs of these tests.
var helperRoles = map[string]func(){
	"copy":       helper(copyDatabase),
	"create":     helper(createAndPrintModes),
	"fault":      helper(faultInADriverCall),
	"leave WAL":  helper(leaveWAL),
	"open":       helper(openAndPrintErrors),
	"share":      helper(shareFile),
	"write on":   helper(writeOn),
	"write once": helper(writeOnce),
}

func helper(run func(arguments []string) error) func() {
	return func() {
		if err := run(os.Args[1:]); err != nil {
			log.Fatal(err)
		}
	}
}

func TestMain(m *testing.M) {
	sqlite.RegisterConnectionHook(runConnectionHook)
	if role, ok := helperRoles[os.Getenv(helperRole)]; ok {
		role()
		return
	}
	os.Exit(m.Run())
}

// ---- Examples ----

func ExampleNew() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	if err := storeInstance.Set("config", "colour", "blue"); err != nil {
		fmt.Println(err)
		return
	}
	colourValue, err := storeInstance.Get("config", "colour")
	fmt.Println(colourValue, err)

	_, err = store.New("")
	fmt.Println(err != nil)
	// Output:
	// blue <nil>
	// true
}

func ExampleStore_Close() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	watcher := storeInstance.Watch("config", "*")
	fmt.Println(storeInstance.Set("config", "colour", "blue"))
	fmt.Println(storeInstance.Close())

	for event := range watcher.Events {
		fmt.Println(event.Type, event.Key)
	}
	err = storeInstance.Set("config", "colour", "green")
	fmt.Println(errors.Is(err, os.ErrClosed))
	// Output:
	// <nil>
	// <nil>
	// set colour
	// true
}

// ---- The package ----

func TestEngine_HasTheWALResetFix(t *testing.T) {
	database := openSQL(t, filepath.Join(t.TempDir(), "engine.db"))
	var got string
	check(t, database.QueryRow("SELECT sqlite_version()").Scan(&got))
	if olderThan(got, "3.51.3") {
		t.Errorf("SQLite is %s, want 3.51.3 or newer: older ones corrupt files that two connections share", got)
	}
}

func TestModule_RequiresTheDriverAlone(t *testing.T) {
	module := readGoMod(t, "go.mod")
	if want := "dappco.re/go/core/store"; module.Module.Path != want {
		t.Errorf("module is %s, want %s", module.Module.Path, want)
	}
	if len(module.Replace)+len(module.Exclude)+len(module.Tool) > 0 {
		t.Errorf("go.mod replaces %v, excludes %v, has tools %v; want none", module.Replace, module.Exclude, module.Tool)
	}
	for _, required := range module.Require {
		switch {
		case required.Path == "modernc.org/sqlite":
			if required.Indirect || olderThan(required.Version[1:], "1.62.0") {
				t.Errorf("go.mod requires %+v, want it direct, v1.62.0 or newer", required)
			}
		case !required.Indirect:
			t.Errorf("go.mod requires %s directly, want modernc.org/sqlite alone", required.Path)
		}
	}
}

func TestModule_PinsWhatTheDriverPins(t *testing.T) {
	module := readGoMod(t, "go.mod")
	driverGoMod := readGoMod(t, strings.TrimSpace(runGo(t, "list", "-m", "-f", "{{.GoMod}}", "modernc.org/sqlite")))
	if got, want := module.version("modernc.org/libc"), driverGoMod.version("modernc.org/libc"); got != want {
		t.Errorf("go.mod requires modernc.org/libc %s, the driver %s", got, want)
	}
	if module.Go != driverGoMod.Go {
		t.Errorf("go directive is %s, want the driver's own, %s", module.Go, driverGoMod.Go)
	}
}

func TestPackage_RootHoldsNoFurtherFile(t *testing.T) {
	files, err := os.ReadDir(".")
	check(t, err)
	var got []string
	for _, file := range files {
		if !strings.HasPrefix(file.Name(), ".") {
			got = append(got, file.Name())
		}
	}
	checkSame(t, "root", got, strings.Fields(`CODEX.md README.md doc.go docs events.go events_test.go go.mod go.sum
		scope.go scope_test.go store.go store_test.go`))
}

func TestPackage_ImportsTheStandardLibraryAndTheDriver(t *testing.T) {
	for name, file := range parsePackage(t, func(string) bool { return true }) {
		for _, imported := range file.Imports {
			path, err := strconv.Unquote(imported.Path.Value)
			check(t, err)
			first, _, _ := strings.Cut(path, "/")
			standard := !strings.Contains(first, ".") && path != "C"
			if !standard && path != "dappco.re/go/core/store" && path != "modernc.org/sqlite" {
				t.Errorf("%s imports %q", name, path)
			}
		}
	}
}

func TestPackage_ExportsExactlyTheRFC(t *testing.T) {
	want := strings.Split(strings.TrimSpace(`
const EventDelete
const EventDeleteGroup
const EventSet
func (*ScopedStore) All(group string) iter.Seq2[KeyValue, error]
func (*ScopedStore) Count(group string) (int, error)
func (*ScopedStore) CountAll(groupPrefix string) (int, error)
func (*ScopedStore) Delete(group, key string) error
func (*ScopedStore) DeleteGroup(group string) error
func (*ScopedStore) Get(group, key string) (string, error)
func (*ScopedStore) GetAll(group string) (map[string]string, error)
func (*ScopedStore) GetFields(group, key string) (iter.Seq[string], error)
func (*ScopedStore) GetSplit(group, key, separator string) (iter.Seq[string], error)
func (*ScopedStore) Groups(groupPrefix string) ([]string, error)
func (*ScopedStore) GroupsSeq(groupPrefix string) iter.Seq2[string, error]
func (*ScopedStore) Namespace() string
func (*ScopedStore) PurgeExpired() (int64, error)
func (*ScopedStore) Render(templateSource, group string) (string, error)
func (*ScopedStore) Set(group, key, value string) error
func (*ScopedStore) SetWithTTL(group, key, value string, ttl time.Duration) error
func (*Store) All(group string) iter.Seq2[KeyValue, error]
func (*Store) Close() error
func (*Store) Count(group string) (int, error)
func (*Store) CountAll(groupPrefix string) (int, error)
func (*Store) Delete(group, key string) error
func (*Store) DeleteGroup(group string) error
func (*Store) Get(group, key string) (string, error)
func (*Store) GetAll(group string) (map[string]string, error)
func (*Store) GetFields(group, key string) (iter.Seq[string], error)
func (*Store) GetSplit(group, key, separator string) (iter.Seq[string], error)
func (*Store) Groups(groupPrefix string) ([]string, error)
func (*Store) GroupsSeq(groupPrefix string) iter.Seq2[string, error]
func (*Store) OnChange(callback func(Event)) func()
func (*Store) PurgeExpired() (int64, error)
func (*Store) Render(templateSource, group string) (string, error)
func (*Store) Set(group, key, value string) error
func (*Store) SetWithTTL(group, key, value string, ttl time.Duration) error
func (*Store) Unwatch(watcher *Watcher)
func (*Store) Watch(group, key string) *Watcher
func (EventType) String() string
func New(databasePath string) (*Store, error)
func NewScoped(storeInstance *Store, namespace string) (*ScopedStore, error)
func NewScopedWithQuota(storeInstance *Store, namespace string, quota QuotaConfig) (*ScopedStore, error)
type Event struct
type Event.Group string
type Event.Key string
type Event.Timestamp time.Time
type Event.Type EventType
type Event.Value string
type EventType int
type KeyValue struct
type KeyValue.Key string
type KeyValue.Value string
type QuotaConfig struct
type QuotaConfig.MaxGroups int
type QuotaConfig.MaxKeys int
type ScopedStore struct
type Store struct
type Watcher struct
type Watcher.Events <-chan Event
var NotFoundError
var QuotaExceededError
`), "\n")
	var got []string
	for _, file := range parsePackage(t, func(name string) bool { return !strings.HasSuffix(name, "_test.go") }) {
		for _, declaration := range file.Decls {
			got = append(got, exported(t, declaration)...)
		}
	}
	checkSame(t, "exported", got, want)
}

// The sentinels are variables of type error.
var _ = []*error{&store.NotFoundError, &store.QuotaExceededError}

// KeyValue and QuotaConfig have these fields, in this order, and no others.
var (
	_ = store.KeyValue{"", ""}  //nolint:govet // the order is the point
	_ = store.QuotaConfig{0, 0} //nolint:govet
)

// exported renders what a declaration adds to the package's surface, a line for each identifier, method and field.
func exported(t testing.TB, declaration ast.Decl) []string {
	t.Helper()
	render := func(node any) string {
		var text strings.Builder
		check(t, format.Node(&text, token.NewFileSet(), node))
		return text.String()
	}
	var lines []string
	switch declaration := declaration.(type) {
	case *ast.FuncDecl:
		declaration.Doc, declaration.Body = nil, nil
		if declaration.Recv != nil {
			receiver := declaration.Recv.List[0]
			if !ast.IsExported(strings.TrimPrefix(render(receiver.Type), "*")) {
				return nil
			}
			receiver.Names = nil
		}
		if declaration.Name.IsExported() {
			lines = append(lines, render(declaration))
		}
	case *ast.GenDecl:
		for _, spec := range declaration.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					if name.IsExported() {
						lines = append(lines, declaration.Tok.String()+" "+name.Name)
					}
				}
			case *ast.TypeSpec:
				if !spec.Name.IsExported() {
					continue
				}
				structure, ok := spec.Type.(*ast.StructType)
				if !ok || spec.Assign.IsValid() {
					spec.Doc, spec.Comment = nil, nil
					lines = append(lines, "type "+render(spec))
					continue
				}
				lines = append(lines, "type "+spec.Name.Name+" struct")
				for _, field := range structure.Fields.List {
					if len(field.Names) == 0 { // embedded: its methods would be exported too
						lines = append(lines, "type "+spec.Name.Name+" embeds "+render(field.Type))
					}
					for _, name := range field.Names {
						if name.IsExported() {
							lines = append(lines, "type "+spec.Name.Name+"."+name.Name+" "+render(field.Type))
						}
					}
				}
			}
		}
	}
	return lines
}

func parsePackage(t testing.TB, wanted func(name string) bool) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	check(t, err)
	files := map[string]*ast.File{}
	for _, name := range names {
		if wanted(name) {
			files[name], err = parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			check(t, err)
		}
	}
	return files
}

type goMod struct {
	Module  struct{ Path string }
	Go      string
	Require []struct {
		Path, Version string
		Indirect      bool
	}
	Replace, Exclude, Tool []any
}

func (module goMod) version(path string) string {
	for _, required := range module.Require {
		if required.Path == path {
			return required.Version
		}
	}
	return "not at all"
}

func readGoMod(t testing.TB, file string) goMod {
	t.Helper()
	var module goMod
	check(t, json.Unmarshal([]byte(runGo(t, "mod", "edit", "-json", file)), &module))
	return module
}

func runGo(t testing.TB, arguments ...string) string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command to read go.mod with")
	}
	output, err := exec.Command("go", arguments...).Output()
	if err != nil {
		t.Fatalf("go %q: %v", arguments, err)
	}
	return string(output)
}

// olderThan compares dotted versions, which go/version does once they look like Go's own.
func olderThan(dotted, than string) bool { return version.Compare("go"+dotted, "go"+than) < 0 }

// ---- Opening: names ----

func TestNew_PlainPathNamesThatVeryFile(t *testing.T) {
	names := []string{
		"plain.db", "with space.db", "naïve-日本-\U0001F511.db", "plus+&=;,.db", "hash#tag.db", "percent%41%20%.db", "quote'`.db",
		"file%3Ax.db", "100%",
	}
	if runtime.GOOS != "windows" {
		names = append(names, " ", "question?mark.db", "x?mode=memory", "x?_pragma=user_version(7)", "?", `double".db`, `back\slash.db`,
			"new\nline.db", "bell\a.db", "file:colon.db", ":memory:", "sub//file.db", ".//file.db")
	}
	if runtime.GOOS == "linux" {
		names = append(names, "invalid\xff\xfeUTF-8.db", "//file.db")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			file := filepath.Join(directory, name)
			check(t, os.MkdirAll(filepath.Dir(file), 0o700))
			checkFileStore(t, directory+"/"+name, file)
		})
	}
}

func TestNew_RelativePathNamesThatVeryFile(t *testing.T) {
	names := []string{"plain.db", "-dash", "100%", "FILE:x", "File:x.db", "memory:", "./:memory:", "./file:x", ":memory: ", "file"}
	if runtime.GOOS == "windows" {
		names = []string{"plain.db", "-dash", "100%", "file"}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			t.Chdir(directory)
			checkFileStore(t, name, filepath.Join(directory, name))
		})
	}
}

func TestNew_LeadingDoubleSlash(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("two leading slashes mean something else here")
	}
	databasePath := filepath.Join(t.TempDir(), "store.db")
	checkFileStore(t, "/"+databasePath, databasePath)
}

// checkFileStore makes a store by databasePath and checks that it is the one file wantFile and nothing beside it.
func checkFileStore(t *testing.T, databasePath, wantFile string) {
	t.Helper()
	storeInstance, err := store.New(databasePath)
	check(t, err)
	check(t, storeInstance.Set("config", "colour", "blue"))
	check(t, storeInstance.Close())
	var files []string
	for name := range snapshot(t, filepath.Dir(wantFile)) {
		files = append(files, name)
	}
	checkSame(t, "files", files, []string{filepath.Base(wantFile)})
	reopened := openStore(t, databasePath)
	checkValue(t, reopened, "config", "colour", "blue")
	checkValue(t, sqlReader{openSQL(t, wantFile)}, "config", "colour", "blue")
}

func TestNew_RelativePathSurvivesChangeOfDirectory(t *testing.T) {
	directory := t.TempDir()
	t.Chdir(directory)
	storeInstance := openStore(t, "store.db")
	t.Chdir(t.TempDir())
	check(t, storeInstance.Set("config", "colour", "blue"))
	checkValue(t, sqlReader{openSQL(t, filepath.Join(directory, "store.db"))}, "config", "colour", "blue")
}

func TestNew_MemoryIsPrivateAndLeavesNoFile(t *testing.T) {
	directory := t.TempDir()
	t.Chdir(directory)
	first, second := newMemoryStore(t), newMemoryStore(t)
	check(t, first.Set("config", "colour", "blue"))
	checkMissing(t, second, "config", "colour")
	checkSame(t, "files", slices.Collect(maps.Keys(snapshot(t, directory))), nil)
}

func TestNew_URIReachesTheDriver(t *testing.T) {
	t.Run("percent escapes", func(t *testing.T) {
		directory := t.TempDir()
		t.Chdir(directory)
		checkFileStore(t, "file:with%20space%23.db", filepath.Join(directory, "with space#.db"))
	})
	t.Run("parameters", func(t *testing.T) {
		databasePath := filepath.Join(t.TempDir(), "store.db")
		openStore(t, fileURI(databasePath, "_pragma=user_version(7)"))
		var userVersion int
		check(t, openSQL(t, databasePath).QueryRow("PRAGMA user_version").Scan(&userVersion))
		if userVersion != 7 {
			t.Errorf("user_version = %d, want the 7 that the URI asks for", userVersion)
		}
	})
	t.Run("mode=rw", func(t *testing.T) {
		databasePath := filepath.Join(t.TempDir(), "store.db")
		if storeInstance, err := store.New(fileURI(databasePath, "mode=rw")); err == nil {
			storeInstance.Close()
			t.Error("New with mode=rw made a missing file")
		}
	})
	for _, uri := range []string{"file::memory:", "file:name?mode=memory", "file:shared?mode=memory&cache=shared"} {
		t.Run(uri, func(t *testing.T) {
			directory := t.TempDir()
			t.Chdir(directory)
			storeInstance := openStore(t, uri)
			check(t, storeInstance.Set("config", "colour", "blue"))
			checkValue(t, storeInstance, "config", "colour", "blue")
			checkSame(t, "files", slices.Collect(maps.Keys(snapshot(t, directory))), nil)
		})
	}
}

func TestNew_AppliesABusyTimeoutWhileItOpens(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db")
	synctest.Test(t, func(t *testing.T) {
		var timeouts []string
		storeInstance, err := openHooked(databasePath, func(connection sqlite.ExecQuerierContext) error {
			return connection.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(
				func(action sqlite.AuthorizerActionCode, pragma, argument, _, _ string) sqlite.AuthorizerReturnCode {
					if action == sqlite.AuthPragma && pragma == "busy_timeout" {
						timeouts = append(timeouts, argument)
					}
					return sqlite.AuthorizerOK
				})
		})
		check(t, err)
		check(t, storeInstance.Close())
		if len(timeouts) < 2 || timeouts[0] != "5000" || timeouts[len(timeouts)-1] != "0" {
			t.Errorf("busy timeouts %q in milliseconds, want 5000 at first and 0 at last", timeouts)
		}
	})
}

func TestNew_OwnSettingsWinOverTheURI(t *testing.T) {
	queries := map[string]string{
		"pragmas": "_pragma=journal_mode(delete)&_pragma=synchronous(off)&_pragma=fullfsync(0)&_pragma=checkpoint_fullfsync(0)" +
			"&_pragma=journal_size_limit(-1)&_pragma=busy_timeout(60000)&_pragma=temp_store(file)&_pragma=wal_autocheckpoint(0)",
		"shorthands": "_journal_mode=DELETE&_synchronous=OFF&_busy_timeout=60000",
		"none":       "",
	}
	for name, query := range queries {
		t.Run(name, func(t *testing.T) {
			var connection sqlite.ExecQuerierContext
			storeInstance, err := openHooked(fileURI(filepath.Join(t.TempDir(), "store.db"), query),
				func(opened sqlite.ExecQuerierContext) error { connection = opened; return nil })
			check(t, err)
			defer storeInstance.Close()
			for pragma, accepted := range map[string][]string{
				"journal_mode":         {"wal"},
				"synchronous":          {"1", "2", "3"},
				"fullfsync":            {"1"},
				"checkpoint_fullfsync": {"1"},
				"journal_size_limit":   {"4194304"},
				"cache_spill":          {"1000"},
				"wal_autocheckpoint":   {"1000"},
				"temp_store":           {"2"},
				"busy_timeout":         {"0"}, // the store waits itself, off the connection
			} {
				if got := queryPragma(t, connection, pragma); !slices.Contains(accepted, got) {
					t.Errorf("PRAGMA %s = %s, want one of %q", pragma, got, accepted)
				}
			}
		})
	}
}

func queryPragma(t testing.TB, connection sqlite.ExecQuerierContext, name string) string {
	t.Helper()
	rows, err := connection.QueryContext(context.Background(), "PRAGMA "+name, nil)
	check(t, err)
	defer rows.Close()
	row := make([]driver.Value, 1)
	check(t, rows.Next(row))
	return fmt.Sprint(row[0])
}

// TestNew_RefusesToReadTextsAsTimes has a URI ask for what would return other values than were stored.
func TestNew_RefusesToReadTextsAsTimes(t *testing.T) {
	directory := t.TempDir()
	checkRefused(t, directory, fileURI(foreignFile(t, directory, entriesTable), "_texttotime=1"))
}

func TestNew_OtherJournalModeIsAnError(t *testing.T) {
	for _, query := range []string{"nolock=1", "vfs=unix-none", "vfs=unix-none&_pragma=journal_mode(memory)"} { // SQLite has no WAL without locks
		t.Run(query, func(t *testing.T) {
			if runtime.GOOS == "windows" && query != "nolock=1" {
				t.Skip("no such VFS")
			}
			storeInstance, err := store.New(fileURI(filepath.Join(t.TempDir(), "store.db"), query))
			if err == nil {
				storeInstance.Close()
			}
			wantErrorText(t, err, "store.New: ", "journal")
		})
	}
}

func TestNew_SymbolicLinkMeansItsTarget(t *testing.T) {
	links := map[string]func(t *testing.T, directory string) (oldname string){
		"absolute": func(_ *testing.T, directory string) string { return filepath.Join(directory, "data", "target.db") },
		"relative": func(*testing.T, string) string { return filepath.Join("data", "target.db") },
		"chain": func(t *testing.T, directory string) string {
			symlink(t, "target.db", filepath.Join(directory, "data", "middle.db"))
			return filepath.Join("data", "middle.db")
		},
	}
	for name, oldname := range links {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			target, link := filepath.Join(directory, "data", "target.db"), filepath.Join(directory, "link.db")
			check(t, os.Mkdir(filepath.Dir(target), 0o700))
			check(t, os.WriteFile(target, nil, 0o600))
			symlink(t, oldname(t, directory), link)
			throughLink, throughTarget := openStore(t, link), openStore(t, target)
			check(t, throughLink.Set("config", "colour", "blue"))
			checkValue(t, throughTarget, "config", "colour", "blue")
			check(t, throughTarget.Set("config", "colour", "green"))
			checkValue(t, throughLink, "config", "colour", "green")
			if _, err := os.Stat(target + "-wal"); err != nil {
				t.Errorf("no log beside the target: %v", err)
			}
			if _, err := os.Lstat(link + "-wal"); err == nil {
				t.Error("a log beside the link")
			}
		})
	}
}

// TestNew_DotsBehindALinkMeanTheParentOfItsTarget has paths that would name other files if ".." undid the link before it.
func TestNew_DotsBehindALinkMeanTheParentOfItsTarget(t *testing.T) {
	directory := t.TempDir()
	check(t, errors.Join(os.MkdirAll(filepath.Join(directory, "b", "c"), 0o700), os.Mkdir(filepath.Join(directory, "b", "sub"), 0o700),
		os.Mkdir(filepath.Join(directory, "a"), 0o700)))
	symlink(t, filepath.Join("..", "b", "c"), filepath.Join(directory, "a", "link"))
	if runtime.GOOS == "windows" {
		t.Skip("where it does")
	}
	t.Chdir(directory)
	for index, databasePath := range []string{"a/link/../sub/0.db", directory + "/a/link/../sub/1.db"} {
		check(t, openStore(t, databasePath).Set("config", "colour", "blue"))
		if _, err := os.Stat(fmt.Sprintf("b/sub/%d.db", index)); err != nil {
			t.Errorf("New(%q): %v", databasePath, err)
		}
	}
}

// TestNew_LengthIsThatOfThePathWithoutLinks makes a short path that links lead on to one that SQLite refuses, and a long one that
// they lead back from.
func TestNew_LengthIsThatOfThePathWithoutLinks(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("paths are limited otherwise here")
	}
	directory, err := filepath.EvalSymlinks(t.TempDir())
	check(t, err)
	name := strings.Repeat("d", 200)
	deep := filepath.Join(directory, name, name, name)
	check(t, os.MkdirAll(filepath.Join(deep, "bottom"), 0o700))
	symlink(t, filepath.Join(deep, "bottom"), filepath.Join(directory, "short"))
	link := strings.Repeat("l", 200)
	symlink(t, ".", filepath.Join(directory, link))
	t.Run("absolute", func(t *testing.T) {
		checkRefused(t, deep, filepath.Join(directory, "short", "store.db"))
		checkRefused(t, deep, filepath.Join(directory, "short")+"/../store.db")
		check(t, openStore(t, filepath.Join(directory, link, link, link, "0.db")).Set("config", "colour", "blue"))
	})
	t.Run("relative", func(t *testing.T) {
		t.Chdir(filepath.Join(directory, "short")) // sets PWD, which is how a shell would have come here
		checkRefused(t, deep, "store.db")
		t.Chdir(filepath.Join(directory, link, link, link))
		check(t, openStore(t, "1.db").Set("config", "colour", "blue"))
	})
}

func TestNew_RefusesADevice(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no such path")
	}
	_, err := store.New(os.DevNull)
	wantErrorText(t, err, fmt.Sprintf("store.New: open %q: ", os.DevNull), "not a regular file")
}

func symlink(t testing.TB, oldname, newname string) {
	t.Helper()
	err := os.Symlink(oldname, newname)
	if err == nil {
		_, err = os.Lstat(newname) // Wine says that it has made one, and has not
	}
	if runtime.GOOS == "windows" && err != nil {
		t.Skip(err)
	}
	check(t, err)
}

// ---- Opening: creating ----

func TestNew_FilesAreForTheirOwnerAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the directory's rules apply here")
	}
	// The shell takes the umask away, which would hide a file that only chmod, or nothing, makes private.
	databasePath := filepath.Join(t.TempDir(), "store.db")
	command := helperCommand(t, "create", databasePath)
	command.Path, command.Args = "/bin/sh", append([]string{"sh", "-c", `umask 0; exec "$0" "$@"`}, command.Args...)
	got := strings.Split(strings.TrimSpace(runHelper(t, command)), "\n")
	checkSame(t, "modes", got, []string{"at first -rw-------", " -rw-------", "-wal -rw-------", "-shm -rw-------"})
}

func TestNew_FollowsNothingThatIsInThePlaceOfItsFiles(t *testing.T) {
	for name, place := range map[string]func(t *testing.T, path string){
		"link":      func(t *testing.T, path string) { symlink(t, fileOf("other")(t, t.TempDir()), path) },
		"directory": func(t *testing.T, path string) { check(t, os.Mkdir(path, 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			databasePath := filepath.Join(t.TempDir(), "store.db")
			place(t, databasePath+"-shm")
			before, err := os.Stat(databasePath + "-shm")
			check(t, err)
			_, err = store.New(databasePath)
			wantErrorText(t, err, "store.New: ")
			after, err := os.Stat(databasePath + "-shm")
			check(t, err)
			checkEqual(t, "mode", after.Mode(), before.Mode())
			if _, err := os.Lstat(databasePath); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("New has made the file: %v", err)
			}
		})
	}
}

func TestNew_WhatARemovedStoreLeftBecomesPrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the directory's rules apply here")
	}
	databasePath := filepath.Join(t.TempDir(), "store.db")
	for _, suffix := range []string{"-wal", "-shm"} {
		check(t, os.WriteFile(databasePath+suffix, make([]byte, 32768), 0o666))
		check(t, os.Chmod(databasePath+suffix, 0o666)) // whatever the umask
	}
	storeInstance := openStore(t, databasePath)
	check(t, storeInstance.Set("config", "colour", "blue"))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		information, err := os.Stat(databasePath + suffix)
		check(t, err)
		if mode := information.Mode().Perm(); mode != 0o600 {
			t.Errorf("store.db%s has the mode %v, want it private", suffix, mode)
		}
	}
}

// createAndPrintModes makes a store and prints the mode of its file as SQLite opens it, and of its files after a write.
func createAndPrintModes(arguments []string) error {
	databasePath := arguments[0]
	storeInstance, err := openHooked(databasePath, func(sqlite.ExecQuerierContext) error {
		information, err := os.Stat(databasePath)
		if err != nil {
			fmt.Println("at first -rw-------") // SQLite has not made it yet
			return nil
		}
		fmt.Println("at first", information.Mode())
		return nil
	})
	if err != nil {
		return err
	}
	defer storeInstance.Close()
	if err := storeInstance.Set("config", "colour", "blue"); err != nil {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		information, err := os.Stat(databasePath + suffix)
		if err != nil {
			return err
		}
		fmt.Println(suffix, information.Mode())
	}
	return nil
}

func TestNew_EmptyFileBecomesAStoreAndKeepsItsMode(t *testing.T) {
	for _, mode := range []os.FileMode{0o600, 0o640, 0o644, 0o666} {
		t.Run(mode.String(), func(t *testing.T) {
			databasePath := filepath.Join(t.TempDir(), "store.db")
			check(t, os.WriteFile(databasePath, nil, mode))
			check(t, os.Chmod(databasePath, mode)) // whatever the umask made of it
			for range 2 {                          // an empty file, then a store
				storeInstance := openStore(t, databasePath)
				check(t, storeInstance.Set("config", "colour", "blue"))
				information, err := os.Stat(databasePath)
				check(t, err)
				if got := information.Mode(); got != mode && runtime.GOOS != "windows" {
					t.Errorf("mode is %v after New, want %v as before", got, mode)
				}
				check(t, storeInstance.Close())
			}
		})
	}
}

func TestNew_NeverDeletesAFile(t *testing.T) {
	// Another process may have opened the file between its creation and the failure.
	for _, existing := range []bool{false, true} {
		t.Run(fmt.Sprintf("existing=%t", existing), func(t *testing.T) {
			databasePath := filepath.Join(t.TempDir(), "store.db")
			if existing {
				check(t, os.WriteFile(databasePath, nil, 0o600))
			}
			there := false
			failure := errors.New("no connection today")
			storeInstance, err := openHooked(databasePath, func(sqlite.ExecQuerierContext) error {
				_, err := os.Stat(databasePath)
				there = err == nil
				return failure
			})
			if storeInstance != nil {
				t.Error("New returned a store together with an error")
			}
			wantErrorIs(t, err, failure)
			if _, err := os.Stat(databasePath); there && err != nil {
				t.Errorf("the file was there before New failed, now: %v", err)
			}
			checkFileStore(t, databasePath, databasePath)
		})
	}
}

// ---- Opening: locks ----

func TestNew_DropsNoLockOfAnOpenStore(t *testing.T) {
	// Closing any descriptor of the file drops SQLite's locks for the whole process. Another process then takes the log away, which
	// it cannot do while the lock of an open store is there.
	steps := map[string]func(t *testing.T, storeInstance *store.Store, databasePath string){
		"open":       func(*testing.T, *store.Store, string) {},
		"open again": func(t *testing.T, _ *store.Store, databasePath string) { check(t, openStore(t, databasePath).Close()) },
		"open by a link": func(t *testing.T, _ *store.Store, databasePath string) {
			symlink(t, databasePath, databasePath+".link")
			check(t, openStore(t, databasePath+".link").Close())
		},
		"open by another name": func(t *testing.T, _ *store.Store, databasePath string) {
			t.Chdir(filepath.Dir(databasePath))
			check(t, openStore(t, filepath.Base(databasePath)).Close())
		},
		"fail to open": func(t *testing.T, _ *store.Store, databasePath string) {
			failure := errors.New("no connection today")
			_, err := openHooked(databasePath, func(sqlite.ExecQuerierContext) error { return failure })
			wantErrorIs(t, err, failure)
		},
		"open with a separator": func(t *testing.T, _ *store.Store, databasePath string) {
			_, err := store.New(databasePath + string(filepath.Separator))
			wantErrorText(t, err, "store.New: ")
		},
		"use": func(t *testing.T, storeInstance *store.Store, _ string) {
			prepareWrites(t, storeInstance)
			for _, method := range methods(storeInstance) {
				check(t, method.run())
			}
		},
		"quota": func(t *testing.T, storeInstance *store.Store, _ string) {
			scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 9})
			check(t, err)
			check(t, scopedStore.Set("config", "colour", "blue"))
		},
	}
	paths, stores := map[string]string{}, map[string]*store.Store{}
	for name, step := range steps {
		stores[name], paths[name] = newFileStore(t)
		step(t, stores[name], paths[name])
	}
	names := slices.Sorted(maps.Keys(steps))
	leave := func() []string {
		var arguments []string
		for _, name := range names {
			arguments = append(arguments, paths[name])
		}
		return strings.Split(strings.TrimSpace(runHelper(t, helperCommand(t, "leave WAL", arguments...))), "\n")
	}
	for i, got := range leave() {
		if !strings.Contains(got, "locked") {
			t.Errorf("%s: another process took the log away beside an open store: %s", names[i], got)
		}
		for _, suffix := range []string{"", "-shm"} { // an older SQLite would have asked for the first alone
			if !locked(t, paths[names[i]]+suffix) {
				t.Errorf("%s: nobody holds a lock on store.db%s any more", names[i], suffix)
			}
		}
	}
	for _, name := range names {
		check(t, stores[name].Set("config", "colour", "blue"))
		check(t, stores[name].Close())
	}
	for i, got := range leave() {
		if got != "delete" {
			t.Errorf("%s: another process could not take the log away beside a closed store: %s", names[i], got)
		}
		checkValue(t, sqlReader{openSQL(t, paths[names[i]])}, "config", "colour", "blue")
	}
}

// locked reports whether anybody holds a lock on a file, as far as the system can tell.
func locked(t testing.TB, path string) bool {
	t.Helper()
	if runtime.GOOS != "linux" {
		return true
	}
	information, err := os.Stat(path)
	check(t, err)
	for range 20 { // the list may lack some while others come and go
		locks, err := os.ReadFile("/proc/locks")
		check(t, err)
		inode := reflect.ValueOf(information.Sys()).Elem().FieldByName("Ino").Uint()
		if strings.Contains(string(locks), fmt.Sprintf(":%d ", inode)) {
			return true
		}
	}
	return false
}

// leaveWAL tries to end the WAL mode of each file, which SQLite grants to its only user, and prints what came of it.
func leaveWAL(paths []string) error {
	for _, databasePath := range paths {
		database, err := sql.Open("sqlite", fileURI(databasePath, ""))
		if err != nil {
			return err
		}
		var mode string
		if err := database.QueryRow("PRAGMA journal_mode = DELETE").Scan(&mode); err != nil {
			mode = err.Error()
		}
		fmt.Println(mode)
		if err := database.Close(); err != nil {
			return err
		}
	}
	return nil
}

// ---- Opening: errors ----

func TestNew_ThatFailsLeavesNoDescriptor(t *testing.T) {
	needsProc(t)
	count := func() int {
		descriptors, err := os.ReadDir("/proc/self/fd")
		check(t, err)
		return len(descriptors)
	}
	databasePath := filepath.Join(t.TempDir(), "store.db")
	check(t, openStore(t, databasePath).Close()) // the runtime takes descriptors for itself with the first file
	before := count()
	for step := int64(1); ; step++ {
		var steps atomic.Int64
		steps.Store(step)
		storeInstance, err := openRefusing(databasePath, &steps)
		if err == nil {
			check(t, storeInstance.Close())
			return
		}
		if got := count() - before; got != 0 {
			t.Fatalf("New, which failed at step %d, left %d descriptors open", step, got)
		}
	}
}

func TestNew_ErrorNamesThePathAndCreatesNothing(t *testing.T) {
	separator := string(filepath.Separator)
	paths := map[string]func(t *testing.T, directory string) (databasePath string){
		"empty": func(*testing.T, string) string { return "" },
		"NUL": func(_ *testing.T, directory string) string {
			return filepath.Join(directory, "store\x00.db")
		},
		"NUL after an existing store": func(t *testing.T, directory string) string {
			check(t, openStore(t, filepath.Join(directory, "store.db")).Close())
			return filepath.Join(directory, "store.db\x00")
		},
		"missing directory": func(_ *testing.T, directory string) string { return filepath.Join(directory, "missing", "store.db") },
		"file as directory": func(t *testing.T, directory string) string {
			check(t, os.WriteFile(filepath.Join(directory, "file"), nil, 0o600))
			return filepath.Join(directory, "file", "store.db")
		},
		"directory":                     func(_ *testing.T, directory string) string { return directory },
		"directory with a separator":    func(_ *testing.T, directory string) string { return directory + separator },
		"missing file with a separator": func(_ *testing.T, directory string) string { return filepath.Join(directory, "store") + separator },
		"missing file with two separators": func(_ *testing.T, directory string) string {
			return filepath.Join(directory, "store") + separator + separator
		},
		"store with a separator": func(t *testing.T, directory string) string {
			check(t, openStore(t, filepath.Join(directory, "store.db")).Close())
			return filepath.Join(directory, "store.db") + separator
		},
		"dot":     func(t *testing.T, directory string) string { t.Chdir(directory); return "." },
		"dot dot": func(t *testing.T, directory string) string { t.Chdir(directory); return ".." },
		"dangling link": func(t *testing.T, directory string) string {
			symlink(t, "missing.db", filepath.Join(directory, "link"))
			return filepath.Join(directory, "link")
		},
		"link to a dangling link": func(t *testing.T, directory string) string {
			symlink(t, "missing.db", filepath.Join(directory, "dangling"))
			symlink(t, "dangling", filepath.Join(directory, "link"))
			return filepath.Join(directory, "link")
		},
		"link to itself": func(t *testing.T, directory string) string {
			symlink(t, "link", filepath.Join(directory, "link"))
			return filepath.Join(directory, "link")
		},
		"link to a directory": func(t *testing.T, directory string) string {
			symlink(t, ".", filepath.Join(directory, "link"))
			return filepath.Join(directory, "link")
		},
		"text":      fileOf(strings.Repeat("This is no database, just a text that is long enough to be one.\n", 200)),
		"one byte":  fileOf("\n"),
		"zeros":     fileOf(strings.Repeat("\x00", 8192)),
		"half text": fileOf("SQLite format 3\x00 says this text of somebody who likes it"),
		"damaged schema": func(t *testing.T, directory string) string {
			databasePath := filepath.Join(directory, "store.db")
			check(t, openStore(t, databasePath).Close())
			file, err := os.OpenFile(databasePath, os.O_WRONLY, 0)
			check(t, err)
			_, err = file.WriteAt(bytes.Repeat([]byte{0xff}, 512), 100)
			check(t, errors.Join(err, file.Close()))
			return databasePath
		},
		"write version of the future": func(t *testing.T, directory string) string {
			databasePath := filepath.Join(directory, "store.db")
			check(t, openStore(t, databasePath).Close())
			file, err := os.OpenFile(databasePath, os.O_WRONLY, 0)
			check(t, err)
			_, err = file.WriteAt([]byte{3}, 18)
			check(t, errors.Join(err, file.Close()))
			return databasePath
		},
		"UTF-16": func(t *testing.T, directory string) string {
			return foreignFile(t, directory, "PRAGMA encoding = 'UTF-16'", entriesTable)
		},
		"UTF-16 of other tables": func(t *testing.T, directory string) string {
			return foreignFile(t, directory, "PRAGMA encoding = 'UTF-16be'", "CREATE TABLE other (a)")
		},
	}
	for name, prepare := range paths {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			checkRefused(t, directory, prepare(t, directory))
		})
	}
}

// checkRefused checks that New refuses the path, names it, and leaves everything in directory as it was.
func checkRefused(t testing.TB, directory, databasePath string) {
	t.Helper()
	before := snapshot(t, directory)
	storeInstance, err := store.New(databasePath)
	if storeInstance != nil {
		t.Errorf("New(%q) returned a store", databasePath)
	}
	wantErrorText(t, err, fmt.Sprintf("store.New: open %q: ", databasePath))
	if after := snapshot(t, directory); !maps.Equal(before, after) {
		t.Errorf("New(%q) changed the directory from %q to %q, or their content", databasePath,
			slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
	}
}

func fileOf(content string) func(*testing.T, string) string {
	return func(t *testing.T, directory string) string {
		databasePath := filepath.Join(directory, "file")
		check(t, os.WriteFile(databasePath, []byte(content), 0o600))
		return databasePath
	}
}

func TestNew_LongPathWorksOrIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("paths are limited otherwise here")
	}
	// Somewhere below these lengths SQLite, or the system for the names of its other files, refuses the path.
	long := func(directory string, length int) string {
		for length-len(directory) > 200 {
			directory = filepath.Join(directory, strings.Repeat("d", 100))
		}
		check(t, os.MkdirAll(directory, 0o700))
		return filepath.Join(directory, strings.Repeat("f", length-len(directory)-1))
	}
	tooLong := 0
	try := func(t *testing.T, databasePath string) {
		directory := filepath.Dir(databasePath)
		storeInstance, err := store.New(databasePath)
		if err != nil {
			tooLong++
			wantErrorText(t, err, fmt.Sprintf("%q", databasePath))
			if files := snapshot(t, directory); len(files) > 0 {
				t.Errorf("New left %d files behind", len(files))
			}
			return
		}
		err = storeInstance.Set("config", "colour", "blue")
		check(t, errors.Join(err, storeInstance.Close()))
		checkValue(t, openStore(t, databasePath), "config", "colour", "blue")
	}
	for _, length := range []int{490, 500, 501, 502, 503, 504, 505, 506, 507, 508, 509, 510, 511, 512, 513, 514, 520, 600, 1000, 3000} {
		t.Run(fmt.Sprint("path of ", length), func(t *testing.T) { try(t, long(t.TempDir(), length)) })
	}
	for length := 244; length <= 256; length++ {
		t.Run(fmt.Sprint("name of ", length), func(t *testing.T) {
			t.Chdir(t.TempDir())
			try(t, strings.Repeat("f", length))
		})
	}
	if tooLong == 0 {
		t.Error("no path was too long, which this test means to try")
	}
}

func TestNew_WithoutPermissionNamesThePathAndCreatesNothing(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions work otherwise here")
	}
	base := t.TempDir()
	made := func(name string) string {
		directory := filepath.Join(base, name)
		check(t, os.Mkdir(directory, 0o777))
		check(t, os.Chmod(directory, 0o777))
		t.Cleanup(func() { os.Chmod(directory, 0o777) })
		return directory
	}
	setMode := func(path string, mode os.FileMode) string {
		check(t, os.Chmod(path, mode))
		return path
	}
	storeIn := func(directory string) string {
		databasePath := filepath.Join(directory, "store.db")
		storeInstance := openStore(t, databasePath)
		check(t, storeInstance.Set("config", "colour", "blue"))
		check(t, storeInstance.Close())
		return databasePath
	}
	var paths, directories []string
	add := func(name string, prepare func(directory string) (databasePath string)) {
		directory := made(name)
		paths, directories = append(paths, prepare(directory)), append(directories, directory)
	}
	add("store that may only be read", func(directory string) string { return setMode(storeIn(directory), 0o444) })
	add("store that may not be read", func(directory string) string { return setMode(storeIn(directory), 0) })
	add("empty file that may only be read", func(directory string) string {
		return setMode(fileOf("")(t, directory), 0o444)
	})
	for what, mode := range map[string]os.FileMode{
		"that may only be read": 0o555,
		"that may not be read":  0o333, // so that its names could not be flushed
	} {
		add("new file in a directory "+what, func(directory string) string {
			return filepath.Join(setMode(directory, mode), "store.db")
		})
		add("empty file in a directory "+what, func(directory string) string {
			databasePath := setMode(fileOf("")(t, directory), 0o666)
			setMode(directory, mode)
			return databasePath
		})
		add("store in a directory "+what, func(directory string) string {
			databasePath := setMode(storeIn(directory), 0o666)
			setMode(directory, mode)
			return databasePath
		})
	}
	look := func(directory string) map[string]string {
		if information, err := os.Stat(directory); err == nil && information.Mode().Perm() == 0o333 {
			setMode(directory, 0o777)
			defer setMode(directory, 0o333)
		}
		return snapshot(t, directory)
	}
	before := map[string]map[string]string{}
	for _, directory := range directories {
		before[directory] = look(directory)
	}
	command := helperCommand(t, "open", paths...)
	if os.Getuid() == 0 { // root may write everywhere, so the helper must be somebody else, and reach these files
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			t.Skip("root without setpriv cannot give its rights up")
		}
		for directory := base; directory != filepath.Dir(directory); directory = filepath.Dir(directory) {
			if information, err := os.Stat(directory); err == nil && information.Mode().Perm()&1 == 0 {
				setMode(directory, 0o711)
				t.Cleanup(func() { setMode(directory, information.Mode()) })
			}
		}
		binary := filepath.Join(base, "helper")
		content, err := os.ReadFile(command.Path)
		check(t, err)
		check(t, os.WriteFile(binary, content, 0o755))
		setMode(binary, 0o755)
		command.Path, command.Args = setpriv,
			append([]string{setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", binary}, command.Args[1:]...)
	}
	printed := strings.Split(strings.TrimSpace(runHelper(t, command)), "\n")
	if len(printed) != len(paths) {
		t.Fatalf("the helper printed %q, want a line for each of %d paths", printed, len(paths))
	}
	for i, got := range printed {
		name := filepath.Base(directories[i])
		if want := fmt.Sprintf("store.New: open %q: ", paths[i]); !strings.HasPrefix(got, want) {
			t.Errorf("%s: New says %q, want an error that begins with %q", name, got, want)
		}
		if after := look(directories[i]); !maps.Equal(before[directories[i]], after) {
			t.Errorf("%s: New changed its files from %q to %q, or their content", name,
				slices.Sorted(maps.Keys(before[directories[i]])), slices.Sorted(maps.Keys(after)))
		}
	}
}

// openAndPrintErrors prints the error of New for each path, in a line of its own.
func openAndPrintErrors(paths []string) error {
	for _, databasePath := range paths {
		storeInstance, err := store.New(databasePath)
		if err == nil {
			storeInstance.Close()
		}
		fmt.Println(strings.ReplaceAll(fmt.Sprint(err), "\n", " "))
	}
	return nil
}

// ---- The table ----

// entriesTable is the table of the contract, as another program may make it.
const entriesTable = "CREATE TABLE entries (group_name TEXT NOT NULL, entry_key TEXT NOT NULL, entry_value TEXT NOT NULL, " +
	"expires_at INTEGER, PRIMARY KEY (group_name, entry_key))"

// foreignFile makes a database by the statements, as another program would, and returns its path.
func foreignFile(t testing.TB, directory string, statements ...string) (databasePath string) {
	t.Helper()
	databasePath = filepath.Join(directory, "foreign.db")
	database := openSQL(t, databasePath)
	for _, statement := range statements {
		execSQL(t, database, statement)
	}
	check(t, database.Close())
	return databasePath
}

func TestNew_EntriesCanBeReadByAnyone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		check(t, storeInstance.Set("config", "colour", "blue"))
		check(t, storeInstance.SetWithTTL("session", "token", "abc123", time.Minute))
		database := openSQL(t, databasePath)
		checkSame(t, "columns", queryLines(t, database,
			"SELECT name || ' ' || type || ' ' || `notnull` || ' ' || pk || ' ' || hidden FROM pragma_table_xinfo('entries')"), []string{
			"group_name TEXT 1 1 0", "entry_key TEXT 1 2 0", "entry_value TEXT 1 0 0", "expires_at INTEGER 0 0 0",
		})
		checkSame(t, "tables", queryLines(t, database, "SELECT type || ' ' || wr || ' ' || strict FROM pragma_table_list('entries')"),
			[]string{"table 0 0"})
		checkSame(t, "rows", queryLines(t, database,
			"SELECT concat_ws(' ', group_name, entry_key, entry_value, coalesce(expires_at, 'never'), typeof(entry_value)) FROM entries"),
			[]string{
				"config colour blue never text",
				fmt.Sprint("session token abc123 ", time.Now().Add(time.Minute).UnixMilli(), " text"),
			})
	})
}

func TestNew_AcceptsAnIndexOfItsNameInOtherLetters(t *testing.T) {
	databasePath := foreignFile(t, t.TempDir(), entriesTable, `CREATE INDEX Entries_Expires_At ON entries (expires_at)`,
		`INSERT INTO entries VALUES ('config', 'colour', 'blue', NULL)`)
	checkValue(t, openStore(t, databasePath), "config", "colour", "blue")
}

func TestNew_AcceptsTheTableOfAnotherProgram(t *testing.T) {
	tables := map[string]string{
		"as documented": entriesTable,
		"other order": `CREATE TABLE entries (expires_at INTEGER, entry_value TEXT NOT NULL, entry_key TEXT NOT NULL, group_name TEXT NOT NULL,
			PRIMARY KEY (group_name, entry_key))`,
		"quoted": `create table if not exists "entries" ("group_name" text not null, [entry_key] text not null,
			'entry_value' text not null, expires_at integer, primary key ("group_name", "entry_key")) -- mine`,
		"without NOT NULL": `CREATE TABLE entries (group_name TEXT, entry_key TEXT, entry_value TEXT, expires_at INTEGER,
			PRIMARY KEY (group_name, entry_key))`,
		"one NOT NULL": `CREATE TABLE entries (group_name TEXT, entry_key TEXT NOT NULL, entry_value TEXT, expires_at INTEGER,
			CONSTRAINT named PRIMARY KEY (group_name, entry_key))`,
		"with a collation": `CREATE TABLE entries (group_name TEXT NOT NULL COLLATE  BINARY, entry_key TEXT NOT NULL COLLATE "binary",
			entry_value TEXT NOT NULL DEFAULT 'collate', expires_at INTEGER, -- COLLATE NOCASE will not do
			PRIMARY KEY (group_name, entry_key))`,
	}
	for name, table := range tables {
		t.Run(name, func(t *testing.T) {
			databasePath := foreignFile(t, t.TempDir(), table,
				"INSERT INTO entries (group_name, entry_key, entry_value, expires_at) VALUES ('config', 'colour', 'blue', NULL), ('config', 'size', 'small', 9e15), ('config', 'old', 'gone', 1)")
			storeInstance := openStore(t, databasePath)
			checkValue(t, storeInstance, "config", "colour", "blue")
			checkValue(t, storeInstance, "config", "size", "small")
			checkMissing(t, storeInstance, "config", "old")
			check(t, storeInstance.Set("config", "colour", "green"))
			check(t, storeInstance.SetWithTTL("session", "token", "abc123", time.Hour))
			check(t, storeInstance.Delete("config", "size"))
			got, err := storeInstance.GetAll("config")
			check(t, err)
			if want := map[string]string{"colour": "green"}; !maps.Equal(got, want) {
				t.Errorf("GetAll = %q, want %q", got, want)
			}
			check(t, storeInstance.Close())
			checkValue(t, openStore(t, databasePath), "session", "token", "abc123")
		})
	}
}

func TestNew_AcceptsATriggerOfThatName(t *testing.T) {
	check(t, registerBackwards())
	databasePath := foreignFile(t, t.TempDir(), entriesTable, "CREATE TABLE other (a)",
		"CREATE TRIGGER entries AFTER INSERT ON other BEGIN SELECT 1 ORDER BY new.a COLLATE backwards; END")
	check(t, openStore(t, databasePath).Set("config", "colour", "blue"))
}

// registerBackwards makes a collation known to the connections that are opened afterwards, once in a process.
var registerBackwards = sync.OnceValue(func() error {
	return sqlite.RegisterCollationUtf8("backwards", func(left, right string) int { return strings.Compare(right, left) })
})

func TestNew_RefusesAnotherTable(t *testing.T) {
	check(t, registerBackwards())
	changed := func(old, new string) []string {
		if !strings.Contains(entriesTable, old) {
			t.Fatalf("no %q to change", old)
		}
		return []string{strings.Replace(entriesTable, old, new, 1)}
	}
	tables := map[string][]string{
		"other columns":     {"CREATE TABLE entries (id INTEGER PRIMARY KEY, body TEXT)"},
		"other case":        {"CREATE TABLE ENTRIES (id INTEGER PRIMARY KEY, body TEXT)"},
		"missing column":    changed(", expires_at INTEGER", ""),
		"further column":    changed("expires_at INTEGER", "expires_at INTEGER, owner TEXT"),
		"added column":      {entriesTable, "ALTER TABLE entries ADD COLUMN owner TEXT"},
		"virtual column":    changed("expires_at INTEGER", "expires_at INTEGER, size AS (length(entry_value))"),
		"stored column":     changed("expires_at INTEGER", "expires_at INTEGER, size AS (length(entry_value)) STORED"),
		"generated value":   changed("entry_value TEXT NOT NULL", "entry_value TEXT AS (entry_key)"),
		"BLOB value":        changed("entry_value TEXT", "entry_value BLOB"),
		"untyped value":     changed("entry_value TEXT", "entry_value"),
		"numeric value":     changed("entry_value TEXT", "entry_value NUMERIC"),
		"integer key":       changed("entry_key TEXT", "entry_key INTEGER"),
		"text expiry":       changed("expires_at INTEGER", "expires_at TEXT"),
		"real expiry":       changed("expires_at INTEGER", "expires_at REAL"),
		"NOT NULL expiry":   changed("expires_at INTEGER", "expires_at INTEGER NOT NULL"),
		"no key":            changed(", PRIMARY KEY (group_name, entry_key)", ""),
		"unique key alone":  changed("PRIMARY KEY", "UNIQUE"),
		"descending key":    changed("(group_name, entry_key)", "(group_name DESC, entry_key)"),
		"key the other way": changed("(group_name, entry_key)", "(entry_key, group_name)"),
		"key of the group":  changed("(group_name, entry_key)", "(group_name)"),
		"key of three":      changed("(group_name, entry_key)", "(group_name, entry_key, expires_at)"),
		"further key":       changed("entry_key TEXT NOT NULL", "entry_key TEXT NOT NULL UNIQUE"),
		"NOCASE group":      changed("group_name TEXT NOT NULL", "group_name TEXT NOT NULL COLLATE NOCASE"),
		"NOCASE key":        changed("entry_key TEXT NOT NULL", "entry_key TEXT NOT NULL COLLATE NOCASE"),
		"RTRIM value":       changed("entry_value TEXT NOT NULL", "entry_value TEXT NOT NULL COLLATE RTRIM"),
		"NOCASE expiry":     changed("expires_at INTEGER", "expires_at INTEGER COLLATE NOCASE"),
		"NOCASE column of a BINARY key": {strings.Replace(strings.Replace(entriesTable, "group_name TEXT", "group_name TEXT COLLATE NOCASE", 1),
			"(group_name, ", "(group_name COLLATE BINARY, ", 1)},
		"added collation of a BINARY key": {strings.Replace(strings.Replace(entriesTable, "group_name TEXT", "group_name TEXT COLLATE Backwards", 1),
			"(group_name, ", "(group_name COLLATE BINARY, ", 1)},
		"NOCASE primary key": changed("(group_name, entry_key)", "(group_name, entry_key COLLATE NOCASE)"),
		"WITHOUT ROWID":      {entriesTable + " WITHOUT ROWID"},
		"STRICT":             {entriesTable + " STRICT"},
		"view":               {"CREATE VIEW entries AS SELECT 'a' AS group_name, 'b' AS entry_key, 'c' AS entry_value, NULL AS expires_at"},
		"index of that name": {"CREATE TABLE other (a)", "CREATE INDEX entries ON other (a)"},
		"virtual table":      {"CREATE VIRTUAL TABLE entries USING fts5 (group_name, entry_key, entry_value, expires_at)"},
		"with rows":          {"CREATE TABLE entries (a, b)", "INSERT INTO entries VALUES (1, 2)"},
	}
	for name, statements := range tables {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			checkRefused(t, directory, foreignFile(t, directory, statements...))
		})
	}
}

// TestNew_RefusesAUniqueIndex has another program add one to the store's own table.
func TestNew_RefusesAUniqueIndex(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	check(t, storeInstance.Close())
	database := openSQL(t, databasePath)
	execSQL(t, database, "CREATE INDEX ordinary ON entries (entry_value)")
	check(t, openStore(t, databasePath).Close())
	execSQL(t, database, "create unique index further on Entries (entry_value)")
	check(t, database.Close())
	checkRefused(t, filepath.Dir(databasePath), databasePath)
}

func TestNew_ATriggerMayHaveTheNameOfTheTable(t *testing.T) {
	databasePath := foreignFile(t, t.TempDir(), "CREATE TABLE other (a)", "CREATE TRIGGER entries AFTER INSERT ON other BEGIN SELECT 1; END")
	check(t, openStore(t, databasePath).Set("config", "colour", "blue"))
}

func TestNew_LeavesOtherTablesAlone(t *testing.T) {
	const other = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema WHERE tbl_name NOT LIKE 'entries%' AND name NOT LIKE 'entries%'"
	databasePath := foreignFile(t, t.TempDir(), "CREATE TABLE other (a PRIMARY KEY, b UNIQUE)", "CREATE INDEX other_index ON other (b)",
		"CREATE VIEW other_view AS SELECT a FROM other", "CREATE TRIGGER other_trigger AFTER INSERT ON other BEGIN SELECT 1; END",
		"INSERT INTO other VALUES (1, 'one'), (2, 'two')", "PRAGMA user_version = 7", "PRAGMA application_id = 8")
	before := func() [][]string {
		database := openSQL(t, databasePath)
		defer database.Close()
		return [][]string{queryLines(t, database, other), queryLines(t, database, "SELECT a || b FROM other"),
			queryLines(t, database, "PRAGMA user_version"), queryLines(t, database, "PRAGMA application_id")}
	}
	want := before()
	storeInstance := openStore(t, databasePath)
	prepareWrites(t, storeInstance)
	scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 9, MaxGroups: 9})
	check(t, err)
	for _, method := range append(methods(storeInstance), methods(scopedStore)...) {
		if err := method.run(); err != nil && !errors.Is(err, store.NotFoundError) {
			t.Fatal(err)
		}
	}
	if got := before(); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("another program's objects are %q, want %q as before", got, want)
	}
	checkSame(t, "tables of another name", queryLines(t, openSQL(t, databasePath),
		`SELECT name FROM sqlite_schema WHERE name NOT GLOB 'other*' AND name NOT GLOB 'sqlite_autoindex_*' AND name <> 'entries' AND name NOT GLOB 'entries[_]*'`), nil)
}

func TestNew_AcceptsAStoreOfAnyJournalMode(t *testing.T) {
	for _, mode := range []string{"delete", "truncate", "persist", "wal"} {
		t.Run(mode, func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			check(t, storeInstance.Set("config", "colour", "blue"))
			check(t, storeInstance.Close())
			database := openSQL(t, databasePath)
			execSQL(t, database, "PRAGMA journal_mode = "+mode)
			check(t, database.Close())
			reopened := openStore(t, databasePath)
			checkValue(t, reopened, "config", "colour", "blue")
			check(t, reopened.Set("config", "colour", "green"))
			checkSame(t, "journal mode", queryLines(t, openSQL(t, databasePath), "PRAGMA journal_mode"), []string{"wal"})
		})
	}
}

func TestStore_VacuumIntoMakesABackup(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	check(t, storeInstance.Set("config", "colour", "blue"))
	copyPath := filepath.Join(t.TempDir(), "copy.db")
	check(t, os.WriteFile(copyPath, nil, 0o600)) // whose mode the copy keeps
	made, err := os.Stat(copyPath)
	check(t, err)
	execSQL(t, openSQL(t, databasePath), "VACUUM INTO '"+copyPath+"'")
	copied, err := os.Stat(copyPath)
	check(t, err)
	checkEqual(t, "mode of the copy", copied.Mode(), made.Mode())
	check(t, storeInstance.Set("config", "colour", "green"))
	checkValue(t, openStore(t, copyPath), "config", "colour", "blue")
	checkValue(t, storeInstance, "config", "colour", "green")
}

func TestStore_RowsOfAnotherProgramReadAsBytes(t *testing.T) {
	databasePath := foreignFile(t, t.TempDir(), strings.ReplaceAll(entriesTable, " NOT NULL", ""),
		"INSERT INTO entries VALUES ('group', 'blob', x'00ff41', NULL), ('group', 'null', NULL, NULL), ('group', 'number', 42, NULL), ('group', 'text', 'blue', NULL)")
	storeInstance := openStore(t, databasePath)
	want := map[string]string{"blob": "\x00\xffA", "null": "", "number": "42", "text": "blue"}
	for key, value := range want {
		checkValue(t, storeInstance, "group", key, value)
	}
	got, err := storeInstance.GetAll("group")
	check(t, err)
	if !maps.Equal(got, want) {
		t.Errorf("GetAll = %q, want %q", got, want)
	}
	streamed := map[string]string{}
	for entry, err := range storeInstance.All("group") {
		check(t, err)
		streamed[entry.Key] = entry.Value
	}
	if !maps.Equal(streamed, want) {
		t.Errorf("All = %q, want %q", streamed, want)
	}
	rendered, err := storeInstance.Render("{{.blob}}{{.null}}{{.text}}", "group")
	check(t, err)
	if want := "\x00\xffAblue"; rendered != want {
		t.Errorf("Render = %q, want %q", rendered, want)
	}
}

func TestStore_OddRowsOfAnotherProgramFailNoMethod(t *testing.T) {
	odd := []string{"NULL", "x''", "x'6100'", "x'ff'", "x'67726f7570'", "'group'", "''", "'a'", "5"}
	expiries := []string{"NULL", "1", "9e15", "'soon'", "x'00'", "1.5", "-1", "9e999"}
	var rows []string
	for i, group := range odd {
		for j, key := range odd {
			rows = append(rows, fmt.Sprintf("(%s, %s, %s, %s)", group, key, odd[(i+j)%len(odd)], expiries[(i*3+j)%len(expiries)]))
		}
	}
	databasePath := foreignFile(t, t.TempDir(), strings.ReplaceAll(entriesTable, " NOT NULL", ""), "INSERT INTO entries VALUES "+strings.Join(rows, ", "))
	storeInstance := openStore(t, databasePath)
	scopedStore, err := store.NewScopedWithQuota(storeInstance, "a", store.QuotaConfig{MaxKeys: 9, MaxGroups: 9})
	check(t, err)
	for range 2 {
		for _, method := range append(methods(storeInstance), methods(scopedStore)...) {
			if err := method.run(); err != nil && !errors.Is(err, store.NotFoundError) {
				t.Errorf("%s: %v", method.name, err)
			}
		}
	}
	check(t, storeInstance.Set("group", "key", "value"))
	checkValue(t, storeInstance, "group", "key", "value")
	for _, group := range []string{"", "a", "group", "5", "\xff"} {
		seen := 0
		for entry, err := range storeInstance.All(group) {
			check(t, err)
			check(t, storeInstance.Delete(group, entry.Key))
			if seen++; seen > len(rows) {
				t.Fatalf("All(%q) does not end", group)
			}
		}
		_, err := storeInstance.GetAll(group)
		check(t, err)
		check(t, storeInstance.DeleteGroup(group))
		if got, err := storeInstance.Count(group); err != nil || got != 0 {
			t.Errorf("Count(%q) = %d, %v; want 0 after DeleteGroup", group, got, err)
		}
	}
}

func TestStore_BlobKeysOfAnotherProgramStayUnseen(t *testing.T) {
	// As text, most of them would come before the key, and some more than a page of a stream.
	databasePath := foreignFile(t, t.TempDir(), strings.ReplaceAll(entriesTable, " NOT NULL", ""),
		"INSERT INTO entries VALUES ('group', 'key', 'value', NULL), ('group', CAST('key' AS BLOB), 'other', NULL), (CAST('group' AS BLOB), 'key', 'other', NULL)",
		`INSERT INTO entries WITH RECURSIVE n (i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < 999)
			SELECT iif(i < 600, 'group', 'blobs'), CAST(printf('%04d', i) AS BLOB), 'value', NULL FROM n`)
	storeInstance := openStore(t, databasePath)
	checkEqual(t, "Count", must[int](t)(storeInstance.Count("group")), 1)
	checkEqual(t, "CountAll", must[int](t)(storeInstance.CountAll("")), 1)
	checkGroup(t, storeInstance, "group", map[string]string{"key": "value"})
	checkSame(t, "Groups", must[[]string](t)(storeInstance.Groups("")), []string{"group"})
	for _, group := range []string{"group", "blobs"} {
		for entry, err := range storeInstance.All(group) {
			check(t, err)
			if group != "group" || entry.Key != "key" {
				t.Fatalf("All(%q) yields %q", group, entry.Key)
			}
		}
	}
	watcher := storeInstance.Watch("*", "*")
	check(t, storeInstance.DeleteGroup("blobs"))
	checkEqual(t, "events", len(watcher.Events), 0)
}

// ---- Durability ----

// writes are the store's ways to write, each with something to change after prepareWrites.
var writes = []struct {
	name string
	run  func(storeInstance *store.Store) error
}{
	{"Set", func(storeInstance *store.Store) error { return storeInstance.Set("config", "colour", "green") }},
	{"SetWithTTL", func(storeInstance *store.Store) error {
		return storeInstance.SetWithTTL("session", "token", "abc123", time.Hour)
	}},
	{"Delete", func(storeInstance *store.Store) error { return storeInstance.Delete("config", "size") }},
	{"DeleteGroup", func(storeInstance *store.Store) error { return storeInstance.DeleteGroup("prefs") }},
	{"PurgeExpired", func(storeInstance *store.Store) error { _, err := storeInstance.PurgeExpired(); return err }},
}

func prepareWrites(t testing.TB, storeInstance *store.Store) {
	t.Helper()
	check(t, storeInstance.Set("config", "colour", "blue"))
	check(t, storeInstance.Set("config", "size", "small"))
	check(t, storeInstance.Set("prefs", "locale", "en-GB"))
	check(t, storeInstance.SetWithTTL("session", "old", "gone", 0))
}

func TestStore_ReturnedWriteIsInTheFile(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	prepareWrites(t, storeInstance)
	rows := []string{"config colour blue", "config size small", "prefs locale en-GB", "session old gone"}
	changes := map[string]func(){
		"Set":          func() { rows[0] = "config colour green" },
		"SetWithTTL":   func() { rows = append(rows, "session token abc123") },
		"Delete":       func() { rows = slices.Delete(rows, 1, 2) },
		"DeleteGroup":  func() { rows = slices.Delete(rows, 1, 2) },
		"PurgeExpired": func() { rows = slices.Delete(rows, 1, 2) },
	}
	for _, write := range writes {
		check(t, write.run(storeInstance))
		changes[write.name]()
		copied := filepath.Join(t.TempDir(), "copy.db") // made by another process: see TestNew_DropsNoLockOfAnOpenStore
		runHelper(t, helperCommand(t, "copy", databasePath, copied))
		checkSame(t, "rows after "+write.name, queryLines(t, openSQL(t, copied),
			"SELECT concat_ws(' ', group_name, entry_key, entry_value) FROM entries"), rows)
	}
}

// copyDatabase copies a database file and its log, as a crash would leave them.
func copyDatabase(arguments []string) error {
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(arguments[0] + suffix)
		if err == nil {
			err = os.WriteFile(arguments[1]+suffix, content, 0o600)
		}
		if err != nil && !(suffix != "" && errors.Is(err, os.ErrNotExist)) {
			return err
		}
	}
	return nil
}

func TestStore_ReturnedWriteSurvivesKill(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db")
	command := helperCommand(t, "write on", databasePath)
	command.Stdout = nil
	output, err := command.StdoutPipe()
	check(t, err)
	check(t, command.Start())
	acknowledged := map[string]bool{}
	for lines := bufio.NewScanner(output); lines.Scan(); {
		if acknowledged[lines.Text()] = true; len(acknowledged) == 300 {
			check(t, command.Process.Kill())
		}
	}
	if err := command.Wait(); err == nil || len(acknowledged) < 300 {
		t.Fatalf("the writer ended with %v after %d writes, want it killed", err, len(acknowledged))
	}
	storeInstance := openStore(t, databasePath)
	for key := range acknowledged {
		if strings.HasSuffix(key, ".") { // the last line may have been cut by the kill
			checkValue(t, storeInstance, "group", key, "value of "+key)
		}
	}
	checkSame(t, "integrity", queryLines(t, openSQL(t, databasePath), "PRAGMA integrity_check"), []string{"ok"})
}

// writeOn writes from eight goroutines until it is killed, and prints the key of each write that returned.
func writeOn(arguments []string) error {
	storeInstance, err := store.New(arguments[0])
	if err != nil {
		return err
	}
	failures := make(chan error)
	for writer := range 8 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d-%d.", writer, i)
				if err := storeInstance.Set("group", key, "value of "+key); err != nil {
					failures <- err
					return
				}
				os.Stdout.WriteString(key + "\n")
			}
		}()
	}
	return <-failures
}

func TestStore_WriteFailsWhenItsFlushFails(t *testing.T) {
	// What returns nil here was acknowledged without a flush.
	unchanged := []struct {
		name string
		run  func(storeInstance *store.Store) error
	}{
		{"Set of the same value", func(storeInstance *store.Store) error { return storeInstance.Set("config", "colour", "blue") }},
		{"Delete of a missing key", func(storeInstance *store.Store) error { return storeInstance.Delete("config", "missing") }},
		{"DeleteGroup of a missing group", func(storeInstance *store.Store) error { return storeInstance.DeleteGroup("missing") }},
	}
	for _, write := range append(unchanged, writes...) {
		t.Run(write.name, func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			prepareWrites(t, storeInstance)
			breakFlush(t, databasePath)
			wantErrorIs(t, write.run(storeInstance), syscall.EINVAL)
		})
	}
}

func TestStore_FailedFlushEndsWritingUntilReopened(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	prepareWrites(t, storeInstance)
	watcher := storeInstance.Watch("*", "*")
	called := 0
	defer storeInstance.OnChange(func(store.Event) { called++ })()
	database := openSQL(t, databasePath)
	insertRows(t, database, "session", "expired", 1, 1)
	rows := countRows(t, database)
	breakFlush(t, databasePath)
	wantErrorIs(t, storeInstance.Set("config", "size", "large"), syscall.EINVAL)
	mendFlush(t, databasePath) // the kernel says only once that it could not write, so a flush that succeeds means nothing
	for _, write := range writes {
		wantErrorIs(t, write.run(storeInstance), syscall.EINVAL)
	}
	scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 9})
	if err == nil {
		err = scopedStore.Set("config", "colour", "blue")
	}
	wantErrorIs(t, err, syscall.EINVAL)
	if len(watcher.Events) != 0 || called != 0 {
		t.Errorf("failed writes sent %d events and made %d calls, want none", len(watcher.Events), called)
	}
	checkValue(t, storeInstance, "config", "colour", "blue")
	checkValue(t, storeInstance, "prefs", "locale", "en-GB")
	checkMissing(t, storeInstance, "session", "old")
	for _, method := range methods(storeInstance)[:firstWrite] {
		check(t, method.run())
	}
	checkMissing(t, storeInstance, "session", "expired")
	if got := countRows(t, database); got < rows {
		t.Errorf("%d of %d rows are left, want none removed by a Get", got, rows)
	}
	check(t, database.Close())
	storeInstance.Close() // may say that the flush failed
	check(t, storeInstance.Close())
	reopened := openStore(t, databasePath)
	check(t, reopened.Set("config", "size", "large"))
	checkValue(t, reopened, "config", "size", "large")
	checkValue(t, reopened, "config", "colour", "blue")
}

// TestStore_Close_FlushesWhatWasCommittedWithoutAFlush closes a store whose last commit, a lazy delete, nothing has flushed.
// That this flush fails can be seen where Close may not make up for it, while another program holds the write lock.
func TestStore_Close_FlushesWhatWasCommittedWithoutAFlush(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	check(t, storeInstance.SetWithTTL("session", "token", "abc123", 0))
	checkMissing(t, storeInstance, "session", "token")
	database := openSQL(t, databasePath)
	if left := countRows(t, database); left != 0 {
		t.Fatalf("the lazy delete left %d entries", left)
	}
	execSQL(t, database, `BEGIN IMMEDIATE`)
	breakFlush(t, databasePath)
	err := storeInstance.Close()
	wantErrorText(t, err, "store.Close: ", "flush")
	wantSQLiteError(t, err, 5)
	execSQL(t, database, `ROLLBACK`)
}

func TestStore_Close_WritesALongLogAgain(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	value := strings.Repeat("x", 1<<20)
	for _, key := range []string{"a", "b", "c"} {
		check(t, storeInstance.Set("group", key, value))
	}
	breakFlush(t, databasePath)
	wantErrorIs(t, storeInstance.Set("group", "d", value), syscall.EINVAL)
	mendFlush(t, databasePath)
	finishes(t, "Close", func() { check(t, storeInstance.Close()) })
	reopened := openStore(t, databasePath)
	for _, key := range []string{"a", "b", "c"} {
		checkValue(t, reopened, "group", key, value)
	}
}

func TestStore_FailedFlushFailsEveryWriteThatSharedIt(t *testing.T) {
	needsProc(t) // a skip in the hook would end a goroutine of the test's
	synctest.Test(t, func(t *testing.T) {
		databasePath := filepath.Join(t.TempDir(), "store.db")
		storeInstance, hook := openWithCommitHook(t, databasePath)
		watcher := storeInstance.Watch("*", "*")
		var calls []func() error
		for i := range 8 {
			calls = append(calls, func() error { return storeInstance.Set("group", strconv.Itoa(i), "value") })
		}
		hook.afterGather = func() int32 { hook.set(nil); breakFlush(t, databasePath); return 0 }
		for _, err := range hook.gather(storeInstance, calls...) {
			wantErrorIs(t, err, syscall.EINVAL)
		}
		if got := len(watcher.Events); got != 1 {
			t.Errorf("%d events, want that of the one write that was flushed", got)
		}
	})
}

// redirected are the descriptors that redirectFlush replaced. They belong to a store now and must never be closed by a finaliser.
var redirected []*os.File

// redirectFlush puts a file in the place of the descriptor through which the store flushes its log. SQLite has another one, which it
// opened with further flags.
func redirectFlush(t testing.TB, databasePath, name string) {
	t.Helper()
	needsProc(t)
	descriptors, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	chosen, chosenFlags := -1, uint64(0)
	for _, descriptor := range descriptors {
		if name, err := os.Readlink("/proc/self/fd/" + descriptor.Name()); err != nil || name != databasePath+"-wal" {
			continue
		}
		information, err := os.ReadFile("/proc/self/fdinfo/" + descriptor.Name())
		check(t, err)
		_, text, _ := strings.Cut(string(information), "flags:")
		flags, err := strconv.ParseUint(strings.Fields(text)[0], 8, 64)
		check(t, err)
		if chosen < 0 || flags < chosenFlags {
			chosen, chosenFlags = atoi(t, descriptor.Name()), flags
		}
	}
	if chosen < 0 {
		t.Fatalf("no descriptor of %s-wal", databasePath)
	}
	replaceDescriptor(t, os.NewFile(uintptr(chosen), "log"), name)
	t.Cleanup(func() { mendFlush(t, databasePath) }) // so that the store can be closed without an error
}

// needsProc skips a test that looks at the process's descriptors.
func needsProc(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("no /proc to find descriptors in")
	}
}

// breakFlush makes the store's next flush of its log fail: the null device cannot be flushed.
func breakFlush(t testing.TB, databasePath string) {
	t.Helper()
	redirectFlush(t, databasePath, os.DevNull)
}

// mendFlush puts the log back in its place, if the store has not been closed meanwhile.
func mendFlush(t testing.TB, databasePath string) {
	t.Helper()
	last := redirected[len(redirected)-1]
	if name, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", last.Fd())); name == last.Name() {
		replaceDescriptor(t, last, databasePath+"-wal")
	}
}

// replaceDescriptor closes a file and opens another one under its number.
func replaceDescriptor(t testing.TB, file *os.File, name string) {
	t.Helper()
	descriptor := file.Fd()
	check(t, file.Close())
	for range 64 { // each takes the lowest free number
		file, err := os.OpenFile(name, os.O_RDWR, 0)
		check(t, err)
		if file.Fd() == descriptor {
			redirected = append(redirected, file)
			return
		}
		defer file.Close()
	}
	t.Fatalf("descriptor %d could not be taken", descriptor)
}

func TestStore_ReadsDoNotWaitForTheDisk(t *testing.T) {
	// A file that has much to flush keeps a write waiting, which others see before it returns.
	const reads = 10
	dirty := func() string {
		name := filepath.Join(t.TempDir(), "dirty")
		check(t, os.WriteFile(name, bytes.Repeat([]byte("x"), 32<<20), 0o600))
		return name
	}
	storeInstance, databasePath := newFileStore(t)
	check(t, storeInstance.Set("config", "colour", "blue"))

	file, err := os.OpenFile(dirty(), os.O_RDWR, 0)
	check(t, err)
	began := time.Now()
	check(t, errors.Join(file.Sync(), file.Close()))
	flushing := time.Since(began)
	began = time.Now()
	for range 2 * reads {
		checkValue(t, storeInstance, "config", "colour", "blue")
	}
	if reading := time.Since(began); reading > flushing {
		t.Skipf("flushing takes %v here, and as many reads as it should not hinder %v", flushing, reading)
	}

	// More than once, since other work on the machine may keep this goroutine from reading.
	most := 0
	for attempt := 0; attempt < 20 && most < reads; attempt++ {
		redirectFlush(t, databasePath, dirty())
		want := "green " + strconv.Itoa(attempt)
		var returned atomic.Bool
		results := make(chan error, 1)
		go func() {
			err := storeInstance.Set("config", "colour", want)
			returned.Store(true)
			results <- err
		}()
		seen := 0
		for !returned.Load() {
			if got, err := storeInstance.Get("config", "colour"); err != nil {
				t.Fatal(err)
			} else if got == want {
				seen++
			}
		}
		check(t, <-results)
		most = max(most, seen)
	}
	if most < reads {
		t.Errorf("%d reads saw the write while it was being flushed, want at least %d: reads wait for the disk", most, reads)
	}
}

func TestStore_LogIsCutBackTo4MiB(t *testing.T) {
	size := func(databasePath string) int64 {
		information, err := os.Stat(databasePath + "-wal")
		check(t, err)
		return information.Size()
	}
	grow := map[string]func(t *testing.T, storeInstance *store.Store, databasePath string){
		"one large value": func(t *testing.T, storeInstance *store.Store, _ string) {
			check(t, storeInstance.Set("group", "large", strings.Repeat("x", 12<<20)))
		},
		"beside a reader": func(t *testing.T, storeInstance *store.Store, databasePath string) {
			database := openSQL(t, databasePath)
			execSQL(t, database, "BEGIN")
			queryLines(t, database, "SELECT count(*) FROM entries")
			for i := range 12 {
				check(t, storeInstance.Set("group", strconv.Itoa(i), strings.Repeat("x", 1<<20)))
			}
			execSQL(t, database, "COMMIT")
		},
	}
	for name, grow := range grow {
		t.Run(name, func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			grow(t, storeInstance, databasePath)
			if got := size(databasePath); got < 8<<20 {
				t.Fatalf("the log has %d bytes, want it grown beyond its limit first", got)
			}
			for i := range 3 {
				check(t, storeInstance.Set("config", "colour", strconv.Itoa(i)))
			}
			if got := size(databasePath); got > 4<<20 {
				t.Errorf("the log still has %d bytes after three writes, want 4 MiB at most", got)
			}
		})
	}
}

// TestStore_LogIsCutBackWhateverThePageSize has a file of another program whose pages are as large as SQLite makes them.
func TestStore_LogIsCutBackWhateverThePageSize(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db")
	execSQL(t, openSQL(t, databasePath), "PRAGMA page_size = 65536; CREATE TABLE other (a)")
	storeInstance := openStore(t, databasePath)
	for i := range 150 {
		check(t, storeInstance.Set("group", strconv.Itoa(i), strings.Repeat("x", 100_000)))
	}
	for i := range 3 {
		check(t, storeInstance.Set("config", "colour", strconv.Itoa(i)))
	}
	information, err := os.Stat(databasePath + "-wal")
	check(t, err)
	if got := information.Size(); got > 5<<20 {
		t.Errorf("the log has %d bytes, want some 4 MiB at most", got)
	}
}

func TestStore_HoldsNoMoreForTheCallsItHasServed(t *testing.T) {
	storeInstance := newMemoryStore(t)
	check(t, storeInstance.Set("config", "colour", "blue"))
	heap := func() uint64 {
		var statistics runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&statistics)
		return statistics.HeapAlloc
	}
	before := heap()
	for range 20_000 {
		checkValue(t, storeInstance, "config", "colour", "blue")
	}
	if after := heap(); after > before+512<<10 {
		t.Errorf("the heap grew by %d KiB with 20,000 calls", (after-before)>>10)
	}
	runtime.KeepAlive(storeInstance)
}

// TestStore_IdleStoreKeepsNoLargeValue measures what is left of Go's heap behind the last call.
func TestStore_IdleStoreKeepsNoLargeValue(t *testing.T) {
	const size = 64 << 20
	storeInstance, _ := newFileStore(t)
	heap := func() int64 {
		var statistics runtime.MemStats
		for range 2 { // what a sync.Pool holds lives through one
			runtime.GC()
		}
		runtime.ReadMemStats(&statistics)
		return int64(statistics.HeapAlloc)
	}
	before := heap()
	for _, test := range []struct {
		name string
		call func() error
	}{
		{"Set", func() error { return storeInstance.Set("config", "large", strings.Repeat("x", size)) }},
		{"Get", func() error { _, err := storeInstance.Get("config", "large"); return err }},
		{"All", func() error {
			for _, err := range storeInstance.All("config") {
				check(t, err)
			}
			return nil
		}},
		{"GetAll", func() error { _, err := storeInstance.GetAll("config"); return err }},
	} {
		check(t, test.call())
		if kept := heap() - before; kept > size/2 {
			t.Errorf("%d bytes are still held behind %s", kept, test.name)
		}
	}
}

// TestStore_WriteGoesOnOnceItsDirectoryCanBeOpened moves the directory, whose names the first write has to flush.
func TestStore_WriteGoesOnOnceItsDirectoryCanBeOpened(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a directory with open files cannot be moved, nor be flushed")
	}
	directory := filepath.Join(t.TempDir(), "data")
	check(t, os.Mkdir(directory, 0o700))
	storeInstance := openStore(t, filepath.Join(directory, "store.db"))
	check(t, os.Rename(directory, directory+"-moved"))
	wantErrorText(t, storeInstance.Set("config", "colour", "blue"), "store.Set: config/colour: flush: ")
	check(t, os.Rename(directory+"-moved", directory))
	check(t, storeInstance.Set("config", "colour", "green"))
	checkValue(t, storeInstance, "config", "colour", "green")
	check(t, storeInstance.Close())
}

func TestStore_NoTransactionIsOpenWhileCallerCodeRuns(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	prepareWrites(t, storeInstance)
	database := openSQL(t, databasePath)
	execSQL(t, database, "PRAGMA busy_timeout = 0; CREATE TABLE other (a)")
	checkIdle := func(where string) {
		execSQL(t, database, "INSERT INTO other DEFAULT VALUES") // fails beside a writer, and the checkpoint beside a reader
		var busy, frames, moved int
		check(t, database.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved))
		if busy != 0 {
			t.Errorf("a transaction is open in %s: a checkpoint has to wait", where)
		}
	}
	for range storeInstance.All("config") {
		checkIdle("a loop over All")
	}
	for range storeInstance.GroupsSeq("") {
		checkIdle("a loop over GroupsSeq")
	}
	defer storeInstance.OnChange(func(event store.Event) { checkIdle("a callback for " + event.Type.String()) })()
	for _, write := range writes {
		check(t, write.run(storeInstance))
	}
	fields, err := storeInstance.GetFields("config", "colour")
	check(t, err)
	for range fields {
		checkIdle("a loop over GetFields")
	}
}

func TestStore_KeepsItsOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened atomic.Int64
		setConnectionHook(t, func(sqlite.ExecQuerierContext) error { opened.Add(1); return nil })
		storeInstance := openStore(t, "file::memory:?_pragma=max_page_count(64)")
		check(t, storeInstance.Set("config", "colour", "blue"))
		for range 3 { // a failed statement
			wantSQLiteError(t, storeInstance.Set("group", "large", strings.Repeat("x", 1<<20)), sqliteFull)
		}
		time.Sleep(48 * time.Hour) // age, idleness
		checkValue(t, storeInstance, "config", "colour", "blue")
		if got := opened.Load(); got != 1 {
			t.Errorf("the store opened %d connections, want 1", got)
		}
	})
}

// ---- Close ----

func TestStore_Close_EveryOtherMethodFailsAsClosed(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		prepareWrites(t, storeInstance)
		scopedStore, err := store.NewScoped(storeInstance, "tenant-a")
		check(t, err)
		withQuota, err := store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 1, MaxGroups: 1})
		check(t, err)
		check(t, storeInstance.Close())
		for kind, storage := range map[string]entries{"Store": storeInstance, "ScopedStore": scopedStore, "ScopedStore with a quota": withQuota} {
			for _, method := range methods(storage) {
				err := method.run()
				if !errors.Is(err, os.ErrClosed) {
					t.Errorf("%s.%s of a closed store: %v, want os.ErrClosed", kind, method.name, err)
				} else if want := "store." + method.name + ": "; !strings.HasPrefix(err.Error(), want) {
					t.Errorf("%s.%s of a closed store: %q, want it to begin with %q", kind, method.name, err, want)
				}
			}
		}
		if _, err := store.NewScopedWithQuota(storeInstance, "tenant-b", store.QuotaConfig{MaxKeys: 1}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("NewScopedWithQuota of a closed store: %v, want os.ErrClosed", err)
		}
		if _, err := store.NewScoped(storeInstance, "tenant-b"); err != nil {
			t.Errorf("NewScoped of a closed store: %v, want no error", err)
		}
	})
}

func TestStore_Close_WatchAndOnChangeAfterwards(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Close())
		watcher := storeInstance.Watch("*", "*")
		if got := endedEvents(t, watcher); len(got) > 0 {
			t.Errorf("Watch of a closed store: received %v", got)
		}
		storeInstance.Unwatch(watcher)
		unregister := storeInstance.OnChange(func(store.Event) { t.Error("callback called") })
		unregister()
		unregister()
	})
}

func TestStore_Close_SecondReturnsNil(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		var closing sync.WaitGroup
		for range 8 {
			closing.Go(func() {
				if err := storeInstance.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		closing.Wait()
		check(t, storeInstance.Close())
	})
}

func TestStore_Close_EndsWatchersAndKeepsTheirEvents(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		watchers := []*store.Watcher{storeInstance.Watch("*", "*"), storeInstance.Watch("group", "1"), storeInstance.Watch("none", "*")}
		for i := range 3 {
			check(t, storeInstance.Set("group", strconv.Itoa(i), "value"))
		}
		check(t, storeInstance.Close())
		for i, want := range []int{3, 1, 0} {
			if got := len(endedEvents(t, watchers[i])); got != want {
				t.Errorf("watcher %d had %d events left after Close, want %d", i, got, want)
			}
		}
	})
}

func TestStore_Close_LeavesNoGoroutine(t *testing.T) {
	for name, databasePath := range map[string]string{"memory": ":memory:", "file": filepath.Join(t.TempDir(), "store.db")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // a bubble fails when a goroutine stays behind
				storeInstance, err := store.New(databasePath)
				check(t, err)
				storeInstance.Watch("*", "*")
				prepareWrites(t, storeInstance)
				time.Sleep(150 * time.Second) // two rounds of the purge
				check(t, storeInstance.Close())
			})
		})
	}
}

func TestStore_Close_LeavesOnlyTheFile(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	second := openStore(t, databasePath)
	prepareWrites(t, storeInstance)
	check(t, storeInstance.Close())
	check(t, second.Set("config", "colour", "green"))
	checkValue(t, second, "config", "colour", "green")
	check(t, second.Close())
	checkSame(t, "files", slices.Collect(maps.Keys(snapshot(t, filepath.Dir(databasePath)))), []string{filepath.Base(databasePath)})
	checkValue(t, openStore(t, databasePath), "config", "colour", "green")
}

func TestStore_Close_WaitsForNoReader(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	prepareWrites(t, storeInstance)
	database := openSQL(t, databasePath)
	execSQL(t, database, "BEGIN")
	queryLines(t, database, "SELECT count(*) FROM entries")
	check(t, storeInstance.Set("config", "colour", "green")) // so that a blocking checkpoint would wait for the reader
	began := time.Now()
	check(t, storeInstance.Close())
	if waited := time.Since(began); waited >= 5*time.Second {
		t.Errorf("Close took %v beside a reader, which is a busy timeout", waited)
	}
	execSQL(t, database, "COMMIT")
}

func TestStore_Close_EndsAWriteThatWaitsForAnotherProcess(t *testing.T) {
	for _, write := range writes {
		t.Run(write.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storeInstance, databasePath := newFileStore(t)
				prepareWrites(t, storeInstance)
				release := lockForWriting(t, databasePath)
				before := queryLines(t, openSQL(t, databasePath), "SELECT * FROM (SELECT group_name || entry_key || entry_value FROM entries)")
				results := make(chan error, 1)
				go func() { results <- write.run(storeInstance) }()
				time.Sleep(time.Second)
				began := time.Now()
				check(t, storeInstance.Close())
				if waited := time.Since(began); waited > 0 {
					t.Errorf("Close waited %v for another process", waited)
				}
				wantErrorIs(t, <-results, os.ErrClosed)
				if waited := time.Since(began); waited > 0 {
					t.Errorf("the write went on for %v after Close", waited)
				}
				release()
				checkSame(t, "rows", queryLines(t, openSQL(t, databasePath), "SELECT group_name || entry_key || entry_value FROM entries"), before)
			})
		})
	}
}

func TestStore_Close_WaitsForNoCallback(t *testing.T) {
	onEachPathInBubble(t, func(t *testing.T, databasePath string) {
		storeInstance := openStore(t, databasePath)
		entered, release, results := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		storeInstance.OnChange(func(store.Event) { close(entered); <-release })
		go func() { results <- storeInstance.Set("config", "colour", "blue") }()
		<-entered
		check(t, storeInstance.Close()) // a deadlock here would fail the bubble
		close(release)
		check(t, <-results)
	})
}

func TestStore_Close_InsideALoopEndsIt(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		for i := range 16 { // more than one page
			check(t, storeInstance.Set("group", strconv.Itoa(i), strings.Repeat("x", 1<<20)))
		}
		var errs []error
		for _, err := range storeInstance.All("group") {
			if err != nil {
				errs = append(errs, err)
			}
			check(t, storeInstance.Close())
		}
		if len(errs) != 1 || !errors.Is(errs[0], os.ErrClosed) {
			t.Errorf("a loop whose store was closed saw the errors %v, want os.ErrClosed once", errs)
		}
	})
}

func TestStore_Close_LetsCommittedWritesFinish(t *testing.T) {
	onEachPathInBubble(t, func(t *testing.T, databasePath string) {
		storeInstance, hook := openWithCommitHook(t, databasePath)
		watcher := storeInstance.Watch("*", "*")
		entered, release, closed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		hook.set(func() int32 { hook.set(nil); close(entered); <-release; return 0 })
		errs := make([]error, 9)
		var writing sync.WaitGroup
		write := func(i int) {
			writing.Go(func() { errs[i] = storeInstance.Set("group", strconv.Itoa(i), "value") })
		}
		write(0)
		<-entered // the first write is inside its commit, the others wait for it
		for i := 1; i < len(errs); i++ {
			write(i)
		}
		synctest.Wait()
		go func() { closed <- storeInstance.Close() }()
		synctest.Wait()
		close(release)
		check(t, <-closed)
		writing.Wait()
		var acknowledged, sent []string
		for i, err := range errs {
			if err == nil {
				acknowledged = append(acknowledged, strconv.Itoa(i))
			} else {
				wantErrorIs(t, err, os.ErrClosed)
			}
		}
		for _, event := range endedEvents(t, watcher) {
			sent = append(sent, event.Key)
		}
		checkSame(t, "watched", sent, acknowledged)
		if databasePath != ":memory:" {
			checkSame(t, "kept", queryLines(t, openSQL(t, databasePath), "SELECT entry_key FROM entries"), acknowledged)
		}
	})
}

func TestStore_Close_SeveralAtOnceLeaveNoLog(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	for range rounds {
		databasePath := filepath.Join(t.TempDir(), "store.db")
		var closing sync.WaitGroup
		begin := make(chan struct{})
		for range 3 {
			storeInstance, err := store.New(databasePath)
			check(t, err)
			check(t, storeInstance.Set("config", "colour", "blue"))
			closing.Go(func() {
				<-begin
				if err := storeInstance.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		closing.Wait()
		if left := snapshot(t, filepath.Dir(databasePath)); len(left) > 1 {
			t.Fatalf("beside the file of closed stores lie %d more", len(left)-1)
		}
	}
}

func TestStore_Close_WhileEveryMethodRuns(t *testing.T) {
	for round := range 8 {
		databasePath := ":memory:"
		if round%2 == 0 {
			databasePath = filepath.Join(t.TempDir(), "store.db")
		}
		storeInstance := openStore(t, databasePath)
		prepareWrites(t, storeInstance)
		scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 9, MaxGroups: 9})
		check(t, err)
		var running, begun sync.WaitGroup
		run := func(name string, call func() error) {
			begun.Add(1)
			running.Go(func() {
				for first := true; ; first = false {
					err := call()
					if first {
						begun.Done()
					}
					if errors.Is(err, os.ErrClosed) {
						return
					}
					if err != nil && !errors.Is(err, store.NotFoundError) {
						t.Errorf("%s beside Close: %v", name, err)
						return
					}
				}
			})
		}
		for _, method := range append(methods(storeInstance), methods(scopedStore)...) {
			run(method.name, method.run)
		}
		acknowledged := make([]int, 4)
		for writer := range acknowledged {
			run("Set", func() error {
				err := storeInstance.Set("counters", strconv.Itoa(writer), strconv.Itoa(acknowledged[writer]+1))
				if err == nil {
					acknowledged[writer]++
				}
				return err
			})
		}
		begun.Wait()
		check(t, storeInstance.Close())
		running.Wait()
		if databasePath == ":memory:" {
			continue
		}
		reopened := openStore(t, databasePath)
		for writer, want := range acknowledged {
			checkValue(t, reopened, "counters", strconv.Itoa(writer), strconv.Itoa(want))
		}
	}
}

func TestStore_Close_EveryAcknowledgedWriteReachesTheWatcher(t *testing.T) {
	for range 10 {
		storeInstance, _ := newFileStore(t)
		watcher := storeInstance.Watch("*", "*")
		var acknowledged atomic.Int64
		var writing sync.WaitGroup
		begun := make(chan struct{}, 8)
		for writer := range 8 {
			writing.Go(func() {
				for i := range cap(watcher.Events) / 8 { // no more than the buffer holds
					if err := storeInstance.Set(strconv.Itoa(writer), strconv.Itoa(i), ""); err != nil {
						if !errors.Is(err, os.ErrClosed) {
							t.Error(err)
						}
						return
					}
					acknowledged.Add(1)
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		<-begun
		check(t, storeInstance.Close())
		writing.Wait()
		if received := int64(len(endedEvents(t, watcher))); received != acknowledged.Load() {
			t.Errorf("the watcher received %d events of %d acknowledged writes", received, acknowledged.Load())
		}
	}
}

// ---- Costs ----

func TestStore_CostsFourDescriptorsAtMost(t *testing.T) {
	needsProc(t)
	count := func() int {
		descriptors, err := os.ReadDir("/proc/self/fd")
		check(t, err)
		return len(descriptors)
	}
	warm, _ := newFileStore(t) // the runtime takes descriptors for itself with the first file
	check(t, warm.Close())
	before := count()
	storeInstance, _ := newFileStore(t)
	for range 5 {
		prepareWrites(t, storeInstance)
		for _, method := range methods(storeInstance) {
			check(t, method.run())
		}
		prepareWrites(t, storeInstance)
	}
	if got := count() - before; got < 3 || got > 4 {
		t.Errorf("an open store costs %d descriptors, want three or four", got)
	}
	check(t, storeInstance.Close())
	if got := count() - before; got != 0 {
		t.Errorf("a closed store left %d descriptors open", got)
	}
}

func TestStore_CostsAFixedNumberOfGoroutines(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		prepareWrites(t, storeInstance)
		before := runtime.NumGoroutine()
		var busy sync.WaitGroup
		for range 32 {
			busy.Go(func() {
				for _, method := range methods(storeInstance) {
					if err := method.run(); err != nil && !errors.Is(err, store.NotFoundError) {
						t.Error(err)
					}
				}
			})
		}
		busy.Wait()
		for range 100 {
			storeInstance.Watch("*", "*")
		}
		for began := time.Now(); time.Since(began) < 5*time.Second; { // those that have just ended may still be counted
			if runtime.NumGoroutine() <= before {
				return
			}
			runtime.Gosched()
		}
		t.Errorf("%d goroutines after use, want the %d from before", runtime.NumGoroutine(), before)
	})
}

func TestStore_CostsLessThanAMegabyteWhenOpened(t *testing.T) {
	resident := func() int {
		debug.FreeOSMemory()
		content, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Skip("no /proc to read the memory from")
		}
		return atoi(t, strings.Fields(string(content))[1]) * os.Getpagesize()
	}
	newFileStore(t)
	const stores = 32
	before := resident()
	for range stores {
		newFileStore(t)
	}
	if got := (resident() - before) / stores; got >= 1<<20 {
		t.Errorf("an open store costs %d bytes, want less than a megabyte", got)
	}
}

func TestNew_TakesNoLongerForALargeFile(t *testing.T) {
	small, databasePath := newFileStore(t)
	check(t, small.Close())
	openAndClose := func() { check(t, openStore(t, databasePath).Close()) }
	smallTime := fastest(10, openAndClose)
	database := openSQL(t, databasePath)
	execSQL(t, database, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
		INSERT INTO entries SELECT printf('group-%05d', i / 100), printf('key-%05d', i), hex(zeroblob(200)), iif(i % 2, 9000000000000 + i, NULL) FROM n`)
	check(t, database.Close())
	if largeTime := fastest(10, openAndClose); largeTime > 8*smallTime {
		t.Errorf("New and Close take %v for a file of 30,000 entries, %v for an empty one", largeTime, smallTime)
	}
}

// ---- Faults ----

const (
	sqliteBusy    = 5
	sqliteCorrupt = 11
	sqliteFull    = 13
)

// wantSQLiteError checks that err has an error of the engine as its cause, with that primary result code.
func wantSQLiteError(t testing.TB, err error, code int) {
	t.Helper()
	var sqliteError *sqlite.Error
	if !errors.As(err, &sqliteError) || sqliteError.Code()&0xff != code {
		t.Fatalf("got error %v, want one that wraps SQLite's %d", err, code)
	}
}

func TestStore_FullDisk_FailsTheWriteAlone(t *testing.T) {
	for name, uri := range map[string]string{"memory": "file::memory:", "file": fileURI(filepath.Join(t.TempDir(), "store.db"), "")} {
		t.Run(name, func(t *testing.T) {
			storeInstance := openStore(t, uri+"?_pragma=max_page_count(100)")
			prepareWrites(t, storeInstance)
			check(t, storeInstance.Set("group", "ballast", strings.Repeat("x", 200<<10)))
			large := strings.Repeat("secret", 100<<10)
			for key, before := range map[string]string{"colour": "blue", "size": "small"} {
				err := storeInstance.Set("config", key, large)
				wantSQLiteError(t, err, sqliteFull)
				wantErrorText(t, err, "store.Set: config/"+key+": ")
				if strings.Contains(err.Error(), "secret") {
					t.Error("the error quotes the value")
				}
				checkValue(t, storeInstance, "config", key, before)
			}
			wantSQLiteError(t, storeInstance.SetWithTTL("config", "new", large, time.Hour), sqliteFull)
			checkMissing(t, storeInstance, "config", "new")
			check(t, storeInstance.Set("config", "colour", "green"))
			wantSQLiteError(t, storeInstance.Set("group", "more", strings.Repeat("x", 200<<10)), sqliteFull)
			check(t, storeInstance.Delete("group", "ballast")) // makes room
			check(t, storeInstance.Set("group", "more", strings.Repeat("x", 200<<10)))
			checkValue(t, storeInstance, "config", "colour", "green")
		})
	}
}

func TestStore_FullDisk_InASharedCommitLosesNoOther(t *testing.T) {
	onEachPathInBubble(t, func(t *testing.T, databasePath string) {
		uri := "file::memory:?_pragma=max_page_count(200)"
		if databasePath != ":memory:" {
			uri = fileURI(databasePath, "_pragma=max_page_count(200)")
		}
		storeInstance, hook := openWithCommitHook(t, uri)
		prepareWrites(t, storeInstance)
		large := strings.Repeat("x", 1<<20)
		calls := []func() error{
			func() error { return storeInstance.Set("config", "colour", large) },
			func() error { return storeInstance.Delete("config", "size") },
			func() error { return storeInstance.Set("group", "large", large) },
		}
		for i := range 16 {
			calls = append(calls, func() error { return storeInstance.Set("group", strconv.Itoa(i), "value") })
			if i%4 == 0 {
				calls = append(calls, func() error { return storeInstance.SetWithTTL("large", strconv.Itoa(i), large, time.Hour) })
			}
		}
		for i, err := range hook.gather(storeInstance, calls...) {
			isLarge := i == 0 || i == 2 || i > 2 && (i-3)%5 == 1
			if isLarge {
				wantSQLiteError(t, err, sqliteFull)
			} else if err != nil {
				t.Errorf("write %d failed with those that had no room: %v", i, err)
			}
		}
		verify := func(reader *store.Store) {
			t.Helper()
			checkValue(t, reader, "config", "colour", "blue")
			checkMissing(t, reader, "config", "size")
			got, err := reader.GetAll("group")
			check(t, err)
			if len(got) != 16 {
				t.Errorf("%d of 16 acknowledged writes are there", len(got))
			}
			if got, err := reader.CountAll("large"); got != 0 || err != nil {
				t.Errorf("CountAll = %d, %v; want none of the failed writes", got, err)
			}
		}
		verify(storeInstance)
		check(t, storeInstance.Set("config", "colour", "blue"))
		if databasePath != ":memory:" {
			check(t, storeInstance.Close())
			verify(openStore(t, databasePath))
		}
	})
}

func TestStore_FullDisk_WorksOnWhenThereIsRoom(t *testing.T) {
	directory := t.TempDir()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	if output, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", directory).CombinedOutput(); err != nil {
		t.Skipf("no small disk: %v: %s", err, output)
	}
	t.Cleanup(func() { check(t, exec.Command("umount", directory).Run()) })
	databasePath, ballast := filepath.Join(directory, "store.db"), filepath.Join(directory, "ballast")
	storeInstance := openStore(t, databasePath)
	prepareWrites(t, storeInstance)
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v, want no space left", err)
	}

	kept, refused := map[string]bool{}, 0
	fill := func() {
		t.Helper()
		results := make([]error, 64)
		var writing sync.WaitGroup
		for i := range results {
			writing.Go(func() { results[i] = storeInstance.Set("group", strconv.Itoa(i), strings.Repeat("x", 2000)) })
		}
		writing.Wait()
		for i, err := range results {
			if err == nil {
				kept[strconv.Itoa(i)] = true
			} else {
				wantErrorText(t, err, "store.Set: group/"+strconv.Itoa(i)+": ")
				refused++
			}
		}
	}
	verify := func(reader *store.Store) {
		t.Helper()
		checkValue(t, reader, "config", "colour", "blue")
		got, err := reader.GetAll("group")
		check(t, err)
		checkSame(t, "entries", slices.Collect(maps.Keys(got)), slices.Collect(maps.Keys(kept)))
	}
	fill()
	if refused == 0 {
		t.Fatal("64 writes of 2,000 bytes had room on a full disk")
	}
	verify(storeInstance)
	check(t, os.Remove(ballast))
	refused = 0
	fill()
	if refused > 0 {
		t.Errorf("%d writes were refused when there was room again", refused)
	}
	verify(storeInstance)

	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v, want no space left", err)
	}
	check(t, storeInstance.Close()) // which may leave the log behind, since it cannot be merged
	check(t, os.Remove(ballast))
	verify(openStore(t, databasePath))
}

func TestStore_DamagedPage_FailsOnlyWhatNeedsIt(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	const marker = "the value whose page is damaged"
	for i := range 400 {
		value := strings.Repeat("x", 500)
		if i == 200 {
			value = marker + strings.Repeat("y", 1000)
		}
		check(t, storeInstance.Set(fmt.Sprintf("group-%03d", i), "key", value))
	}
	check(t, storeInstance.Close())
	content, err := os.ReadFile(databasePath)
	check(t, err)
	page := bytes.Index(content, []byte(marker)) / 4096 * 4096
	copy(content[page:], bytes.Repeat([]byte{0xff}, 4096))
	check(t, os.WriteFile(databasePath, content, 0o600))

	damaged := openStore(t, databasePath)
	_, err = damaged.Get("group-200", "key")
	wantSQLiteError(t, err, sqliteCorrupt)
	wantErrorText(t, err, "store.Get: group-200/key: ")
	_, err = damaged.GetAll("group-200")
	wantSQLiteError(t, err, sqliteCorrupt)
	failures := 0
	for _, err := range damaged.All("group-200") {
		wantSQLiteError(t, err, sqliteCorrupt)
		failures++
	}
	if failures != 1 {
		t.Errorf("All yielded %d errors, want one", failures)
	}
	for _, group := range []string{"group-000", "group-399"} {
		checkValue(t, damaged, group, "key", strings.Repeat("x", 500))
	}
	wantSQLiteError(t, damaged.Set("group-200", "key", "value"), sqliteCorrupt)
	check(t, damaged.Set("group-000", "key", "value"))
	checkValue(t, damaged, "group-000", "key", "value")
}

func TestStore_FailingWriteInASharedCommitFailsAlone(t *testing.T) {
	for _, action := range []string{"ABORT", "FAIL", "ROLLBACK"} { // the last ends the whole transaction by itself
		t.Run(action, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				databasePath := filepath.Join(t.TempDir(), "store.db")
				storeInstance, hook := openWithCommitHook(t, databasePath)
				prepareWrites(t, storeInstance)
				database := openSQL(t, databasePath)
				execSQL(t, database, `CREATE TRIGGER poison BEFORE INSERT ON entries WHEN NEW.entry_key = 'poison'
					BEGIN SELECT RAISE(`+action+`, 'poisoned'); END`)
				execSQL(t, database, `CREATE TRIGGER keep BEFORE DELETE ON entries WHEN OLD.group_name = 'prefs'
					BEGIN SELECT RAISE(`+action+`, 'not this one'); END`)
				watcher := storeInstance.Watch("*", "*")
				var calls []func() error
				for i := range 9 {
					calls = append(calls, func() error { return storeInstance.Set("group", strconv.Itoa(i), "value") })
				}
				calls = slices.Insert(calls, 4, func() error { return storeInstance.Set("group", "poison", "secret") },
					func() error { return storeInstance.DeleteGroup("prefs") })
				calls = slices.Insert(calls, 0, func() error { return storeInstance.Set("group", "poison", "secret") })
				calls = append(calls, func() error { return storeInstance.Set("group", "poison", "secret") })
				wrong := map[int]string{0: "store.Set: group/poison: ", 5: "store.Set: group/poison: ", 6: "store.DeleteGroup: prefs: ",
					12: "store.Set: group/poison: "}
				for i, err := range hook.gather(storeInstance, calls...) {
					if prefix, ok := wrong[i]; ok {
						wantErrorText(t, err, prefix)
						if strings.Contains(err.Error(), "secret") {
							t.Errorf("%q quotes the value", err)
						}
					} else if err != nil {
						t.Errorf("write %d failed with another: %v", i, err)
					}
				}
				got, err := storeInstance.GetAll("group")
				check(t, err)
				if len(got) != 9 {
					t.Errorf("%d of 9 acknowledged writes are there", len(got))
				}
				checkValue(t, storeInstance, "prefs", "locale", "en-GB")
				checkSame(t, "committed", queryLines(t, database, "SELECT entry_key FROM entries WHERE group_name = 'group'"),
					slices.Collect(maps.Keys(got)))
				if got, want := len(watcher.Events), 1+9; got != want { // that of gather itself, and the nine
					t.Errorf("%d events, want %d", got, want)
				}
			})
		})
	}
}

func TestStore_FailedCommitHasNotHappened(t *testing.T) {
	onEachPathInBubble(t, func(t *testing.T, databasePath string) {
		storeInstance, hook := openWithCommitHook(t, databasePath)
		prepareWrites(t, storeInstance)
		watcher := storeInstance.Watch("*", "*")
		hook.set(func() int32 { return 1 }) // turns the commit into a rollback
		for _, write := range writes {
			if err := write.run(storeInstance); err == nil {
				t.Errorf("%s returned nil although its commit failed", write.name)
			}
		}
		hook.set(nil)
		checkValue(t, storeInstance, "config", "colour", "blue")
		checkValue(t, storeInstance, "config", "size", "small")
		checkValue(t, storeInstance, "prefs", "locale", "en-GB")
		checkMissing(t, storeInstance, "session", "token")
		if len(watcher.Events) > 0 {
			t.Errorf("%d events of failed writes", len(watcher.Events))
		}
	})
}

func TestStore_FailedSharedCommitIsTriedAgainOneByOne(t *testing.T) {
	onEachPathInBubble(t, func(t *testing.T, databasePath string) {
		storeInstance, hook := openWithCommitHook(t, databasePath)
		watcher := storeInstance.Watch("*", "*")
		var calls []func() error
		for i := range 16 {
			calls = append(calls, func() error { return storeInstance.Set("group", strconv.Itoa(i), "value") })
		}
		hook.afterGather = func() int32 { hook.set(nil); return 1 } // the first commit of those that were waiting
		for i, err := range hook.gather(storeInstance, calls...) {
			if err != nil {
				t.Errorf("write %d of a shared commit that failed once: %v", i, err)
			}
		}
		if got, err := storeInstance.Count("group"); err != nil || got != 16 {
			t.Errorf("Count = %d, %v; want 16", got, err)
		}
		if got, want := len(watcher.Events), 1+16; got != want { // gather's own write has one too
			t.Errorf("%d events, want %d, one for each write", got, want)
		}
	})
}

func TestStore_DriverPanicBecomesAnErrorAndEndsTheStore(t *testing.T) {
	onEachPathInBubble(t, func(t *testing.T, databasePath string) {
		storeInstance, hook := openWithCommitHook(t, databasePath)
		prepareWrites(t, storeInstance)
		scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 1})
		check(t, err)
		const cause = "index out of range"
		hook.set(outOfRange)
		wantErrorText(t, storeInstance.Set("config", "colour", "green"), "store.Set: config/colour: ", cause)
		for _, method := range append(methods(storeInstance), methods(scopedStore)...) {
			wantErrorText(t, method.run(), "store."+method.name+": ", cause)
		}
		_, err = store.NewScopedWithQuota(storeInstance, "tenant-b", store.QuotaConfig{MaxKeys: 1})
		wantErrorText(t, err, cause)
		storeInstance.Close() // whatever it says of such a connection, it returns
		check(t, storeInstance.Close())
	})
}

// TestStore_DriverPanicLetsGoOfTheFile wants another store to write beside one whose write, alone or with others, has panicked.
func TestStore_DriverPanicLetsGoOfTheFile(t *testing.T) {
	for _, together := range []bool{false, true} {
		t.Run(fmt.Sprint(together), func(t *testing.T) {
			databasePath := filepath.Join(t.TempDir(), "store.db")
			synctest.Test(t, func(t *testing.T) {
				storeInstance, hook := openWithCommitHook(t, databasePath)
				other := openStore(t, databasePath)
				if together {
					hook.afterGather = outOfRange
					hook.gather(storeInstance, func() error { return storeInstance.Set("config", "size", "small") },
						func() error { return storeInstance.Set("config", "colour", "blue") })
				} else {
					hook.set(outOfRange)
					wantErrorText(t, storeInstance.Set("config", "colour", "blue"), "panicked")
				}
				began := time.Now()
				check(t, other.Set("config", "colour", "green"))
				checkEqual(t, "time that the other store waited", time.Since(began), 0)
				storeInstance.Close()
				checkValue(t, other, "config", "colour", "green")
				checkMissing(t, other, "config", "size")
			})
		})
	}
}

// TestStore_DriverPanicWritesNothing has each write panic once, when it is about to be committed.
func TestStore_DriverPanicWritesNothing(t *testing.T) {
	for _, write := range writes {
		t.Run(write.name, func(t *testing.T) {
			databasePath := filepath.Join(t.TempDir(), "store.db")
			storeInstance, hook := openWithCommitHook(t, databasePath)
			prepareWrites(t, storeInstance)
			const everything = "SELECT concat_ws(' ', group_name, entry_key, entry_value, expires_at) FROM entries ORDER BY 1"
			before := queryLines(t, openSQL(t, databasePath), everything)
			hook.set(func() int32 {
				hook.set(nil)
				return outOfRange()
			})
			wantErrorText(t, write.run(storeInstance), "panicked")
			storeInstance.Close()
			checkSame(t, "entries", queryLines(t, openSQL(t, databasePath), everything), before)
		})
	}
}

// TestStore_DriverPanicLeavesNothingUncounted has a Set panic when it has written the entry and is about to count it.
func TestStore_DriverPanicLeavesNothingUncounted(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db")
	counting := false
	storeInstance, err := openHooked(databasePath, func(connection sqlite.ExecQuerierContext) error {
		connection.(sqlite.HookRegisterer).RegisterPreUpdateHook(func(data sqlite.SQLitePreUpdateData) {
			if counting && data.TableName == "entries_counts" {
				outOfRange()
			}
		})
		return nil
	})
	check(t, err)
	newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0)
	counting = true
	wantErrorText(t, storeInstance.Set("tenant-a:config", "colour", "blue"), "panicked")
	storeInstance.Close()
	checkMissing(t, openStore(t, databasePath), "tenant-a:config", "colour")
	checkSame(t, "counts", queryLines(t, openSQL(t, databasePath), "SELECT keys FROM entries_counts"), nil)
}

// TestStore_DriverFaultBecomesAnError has the driver follow a pointer to nowhere, which ends a program that does not ask for a
// panic, and so in a process of its own.
func TestStore_DriverFaultBecomesAnError(t *testing.T) {
	if got := runHelper(t, helperCommand(t, "fault")); got != "an error" {
		t.Errorf("the process printed %q", got)
	}
}

func faultInADriverCall([]string) error {
	address, opened := uintptr(1)<<(strconv.IntSize-20), false
	storeInstance, err := openHooked(":memory:", func(connection sqlite.ExecQuerierContext) error {
		connection.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 {
			if !opened {
				return 0
			}
			return **(**int32)(unsafe.Pointer(&address))
		})
		return nil
	})
	opened = true
	if err == nil && !strings.Contains(fmt.Sprint(storeInstance.Set("config", "colour", "blue")), "panicked") {
		err = errors.New("the write did not tell of it")
	}
	if err == nil {
		fmt.Print("an error")
	}
	return err
}

func TestStore_DriverPanicInASharedCommitFailsAll(t *testing.T) {
	onEachPathInBubble(t, func(t *testing.T, databasePath string) {
		storeInstance, hook := openWithCommitHook(t, databasePath)
		const cause = "index out of range"
		var calls []func() error
		for i := range 8 {
			calls = append(calls, func() error { return storeInstance.Set("group", strconv.Itoa(i), "value") })
		}
		for range 4 {
			calls = append(calls, func() error { return storeInstance.Delete("group", "missing") })
		}
		hook.afterGather = outOfRange
		for _, err := range hook.gather(storeInstance, calls...) {
			wantErrorText(t, err, cause)
		}
		storeInstance.Close()
	})
}

// outOfRange panics as the driver may on a damaged file.
func outOfRange() int32 {
	var none []int32
	return none[len(none)]
}

func TestNew_DriverPanicBecomesAnError(t *testing.T) {
	storeInstance, err := openHooked(":memory:", func(connection sqlite.ExecQuerierContext) error {
		return connection.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(
			func(sqlite.AuthorizerActionCode, string, string, string, string) sqlite.AuthorizerReturnCode {
				panic(errors.ErrUnsupported)
			})
	})
	if storeInstance != nil {
		t.Error("New returned a store")
	}
	wantErrorText(t, err, "store.New: ", "panic")
}

// TestStore_WhatReadsBeforeItWritesHoldsTheLock lets another program try to write between the statements of a write.
func TestStore_WhatReadsBeforeItWritesHoldsTheLock(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db")
	var between atomic.Pointer[func()]
	storeInstance, err := openHooked(databasePath, func(connection sqlite.ExecQuerierContext) error {
		return connection.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(
			func(action sqlite.AuthorizerActionCode, table, _, _, _ string) sqlite.AuthorizerReturnCode {
				if run := between.Load(); run != nil && table == "entries" && (action == sqlite.AuthDelete || action == sqlite.AuthInsert) {
					(*run)() // while the statement is compiled, in the transaction that has read before
				}
				return sqlite.AuthorizerOK
			})
	})
	check(t, err)
	t.Cleanup(func() { check(t, storeInstance.Close()) })
	other := openSQL(t, databasePath)
	execSQL(t, other, `PRAGMA busy_timeout = 0; INSERT INTO entries VALUES ('config', 'colour', 'blue', NULL), ('session', 'token', 'abc123', 1)`)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 1)
	tries := 0
	run := func() {
		tries++
		if _, err := other.Exec(`UPDATE entries SET entry_value = 'red'`); err == nil {
			t.Error("another program wrote what a write had read")
		}
	}
	between.Store(&run)
	check(t, storeInstance.DeleteGroup("config"))
	check(t, scopedStore.Set("config", "colour", "green"))
	checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), 1)
	if tries < 3 {
		t.Errorf("the other program tried %d times, want once in each write", tries)
	}
}

// openRefusing opens a store on whose connection SQLite's authoriser refuses one of its checks while statements are
// compiled: the one that is as many away as steps says.
func openRefusing(databasePath string, steps *atomic.Int64) (*store.Store, error) {
	return openHooked(databasePath, func(connection sqlite.ExecQuerierContext) error {
		return connection.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(
			func(_ sqlite.AuthorizerActionCode, pragma, _, _, _ string) sqlite.AuthorizerReturnCode {
				if pragma == "wal_checkpoint" { // a purge goes on without
					return sqlite.AuthorizerOK
				}
				if steps.Add(-1) == 0 {
					return sqlite.AuthorizerDeny
				}
				return sqlite.AuthorizerOK
			})
	})
}

// TestNew_EachStatementThatFailsIsAnError lets one step after the other fail, and wants New to work afterwards.
func TestNew_EachStatementThatFailsIsAnError(t *testing.T) {
	stride := int64(1)
	if testing.Short() {
		stride = 7
	}
	for _, file := range []struct {
		name, setUp string
	}{
		{"new file", ""},
		{"table of another program", `CREATE TABLE entries (group_name TEXT, entry_key TEXT, entry_value TEXT, expires_at INTEGER,
			PRIMARY KEY (group_name, entry_key)); INSERT INTO entries VALUES ('config', 'colour', 'blue', NULL)`},
	} {
		t.Run(file.name, func(t *testing.T) {
			directory := t.TempDir()
			for step := int64(1); ; step += stride {
				databasePath := filepath.Join(directory, strconv.FormatInt(step, 10))
				if file.setUp != "" {
					database := openSQL(t, databasePath)
					execSQL(t, database, file.setUp)
					check(t, database.Close())
				}
				var steps atomic.Int64
				steps.Store(step)
				storeInstance, err := openRefusing(databasePath, &steps)
				if steps.Load() > 0 { // it was not reached
					check(t, err)
					check(t, storeInstance.Close())
					if step < 20 {
						t.Errorf("New compiles statements of %d steps, too few to believe", step)
					}
					return
				}
				if err == nil {
					check(t, storeInstance.Close())
				}
				wantErrorText(t, err, "store.New: ", "auth")
				storeInstance = openStore(t, databasePath)
				check(t, storeInstance.Set("config", "size", "large"))
				if file.setUp != "" {
					if value, err := storeInstance.Get("config", "colour"); err != nil || value != "blue" {
						t.Errorf("Get after step %d failed: %q, %v", step, value, err)
					}
				}
				check(t, storeInstance.Close())
			}
		})
	}
}

// TestStore_EachStatementThatFailsFailsItsCallAlone lets one step of a call after the other fail.
func TestStore_EachStatementThatFailsFailsItsCallAlone(t *testing.T) {
	calls := map[string]func(*store.Store) func() error{
		"NewScopedWithQuota": func(storeInstance *store.Store) func() error {
			return func() error {
				return second(store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 1}))
			}
		},
		"Set into a namespace with room": func(storeInstance *store.Store) func() error {
			scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 1)
			return func() error { return scopedStore.Set("config", "colour", "red") }
		},
		"Set into a namespace full of what has expired": func(storeInstance *store.Store) func() error {
			scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 1)
			check(t, scopedStore.SetWithTTL("config", "gone", "", 0))
			return func() error { return scopedStore.Set("config", "colour", "red") }
		},
		"PurgeExpired of a namespace": func(storeInstance *store.Store) func() error {
			return func() error { return second(newScope(t, storeInstance, "tenant-a").PurgeExpired()) }
		},
	}
	for index, each := range methods(newMemoryStore(t)) {
		calls[each.name] = func(storeInstance *store.Store) func() error { return methods(storeInstance)[index].run }
	}
	for name, prepare := range calls {
		t.Run(name, func(t *testing.T) {
			for step := int64(1); ; step++ {
				var steps atomic.Int64
				storeInstance, err := openRefusing(":memory:", &steps)
				check(t, err)
				check(t, storeInstance.Set("config", "colour", "blue"))
				check(t, storeInstance.SetWithTTL("tenant-a:session", "token", "abc123", 0))
				call := prepare(storeInstance)
				steps.Store(step)
				err = call()
				if steps.Load() > 0 { // it was not reached
					check(t, err)
					check(t, storeInstance.Close())
					return
				}
				wantErrorText(t, err, "store.", "auth")
				if err := call(); err != nil {
					t.Fatalf("after a failure at step %d: %v", step, err)
				}
				check(t, storeInstance.Close())
			}
		})
	}
}

// ---- Concurrency and processes ----

func TestStore_WriteWaitsFiveSecondsForAnotherProcess(t *testing.T) {
	for _, write := range writes {
		t.Run(write.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storeInstance, databasePath := newFileStore(t)
				prepareWrites(t, storeInstance)
				release := lockForWriting(t, databasePath)
				began := time.Now()
				err := write.run(storeInstance)
				if waited := time.Since(began); waited < 5*time.Second || waited > 5*time.Second+200*time.Millisecond {
					t.Errorf("%s gave up after %v, want 5 s", write.name, waited)
				}
				wantSQLiteError(t, err, sqliteBusy)
				wantErrorText(t, err, "store."+write.name+": ")
				release()
				check(t, write.run(storeInstance))
			})
		})
	}
}

func TestStore_WriteSucceedsWhenAnotherProcessIsDoneInTime(t *testing.T) {
	for _, write := range writes {
		t.Run(write.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storeInstance, databasePath := newFileStore(t)
				prepareWrites(t, storeInstance)
				release := lockForWriting(t, databasePath)
				results := make(chan error, 1)
				began := time.Now()
				go func() { results <- write.run(storeInstance) }()
				time.Sleep(4900 * time.Millisecond)
				release()
				check(t, <-results)
				if waited := time.Since(began); waited > 5*time.Second {
					t.Errorf("%s returned after %v, want it right after 4.9 s", write.name, waited)
				}
			})
		})
	}
}

func TestStore_WriteNeverGivesUpEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		lockForWriting(t, databasePath)
		var writers sync.WaitGroup
		for number := range 20 { // while another one waits between its tries
			writers.Go(func() {
				time.Sleep(time.Duration(number) * 3700 * time.Microsecond)
				began := time.Now()
				err := storeInstance.Set("group", strconv.Itoa(number), "value")
				if waited := time.Since(began); err == nil || waited < 5*time.Second {
					t.Errorf("write %d: %v after %v, want an error after 5 s", number, err, waited)
				}
			})
		}
		writers.Wait()
	})
}

// TestStore_WriteWaitsNoLongerBesideOthers has a crowd of writers wait for another process, while reads hold the connection
// for long: in the pragma for the length of the log, which SQLite compiles anew for every Get of what has expired.
func TestStore_WriteWaitsNoLongerBesideOthers(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db")
	synctest.Test(t, func(t *testing.T) {
		storeInstance, err := openHooked(databasePath, func(connection sqlite.ExecQuerierContext) error {
			return connection.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(
				func(action sqlite.AuthorizerActionCode, pragma, _, _, _ string) sqlite.AuthorizerReturnCode {
					if action == sqlite.AuthPragma && pragma == "wal_checkpoint" {
						time.Sleep(50 * time.Millisecond)
					}
					return sqlite.AuthorizerOK
				})
		})
		check(t, err)
		defer storeInstance.Close()
		check(t, storeInstance.SetWithTTL("session", "token", "abc123", 0))
		lockForWriting(t, databasePath)
		end := make(chan struct{})
		var reader, writers sync.WaitGroup
		reader.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					if _, err := storeInstance.Get("session", "token"); !errors.Is(err, store.NotFoundError) {
						t.Errorf("Get of what has expired: %v", err)
					}
				}
			}
		})
		for number := range 200 {
			writers.Go(func() {
				time.Sleep(time.Duration(number) * 100 * time.Millisecond)
				began := time.Now()
				err := storeInstance.Set("group", strconv.Itoa(number), "value")
				if waited := time.Since(began); err == nil || waited < 5*time.Second || waited > 5500*time.Millisecond {
					t.Errorf("write %d: %v after %v, want an error after 5 s", number, err, waited)
				}
			})
		}
		writers.Wait()
		close(end)
		reader.Wait()
	})
}

func TestStore_WriteWaitsAnewWhereAnotherHasWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		for range 3 { // twelve seconds in all
			release := lockForWriting(t, databasePath)
			result := make(chan error, 1)
			go func() { result <- storeInstance.Set("group", "key", "value") }()
			time.Sleep(4 * time.Second)
			release()
			check(t, <-result)
		}
	})
}

func TestNew_WaitsForNoWriterOfAStore(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	check(t, storeInstance.Set("group", "key", "value"))
	defer lockForWriting(t, databasePath)()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		other := must[*store.Store](t)(store.New(databasePath))
		checkValue(t, other, "group", "key", "value")
		check(t, other.Close())
		checkEqual(t, "the wait", time.Since(began), 0)
	})
}

func TestStore_EachWriteWaitsFromItsOwnCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		release := lockForWriting(t, databasePath)
		began := time.Now()
		type result struct {
			err    error
			waited time.Duration
		}
		results := make([]chan result, 3)
		for i := range results { // called at 0, 2 and 4 s
			results[i] = make(chan result, 1)
			go func() {
				err := storeInstance.Set("group", strconv.Itoa(i), "value")
				results[i] <- result{err, time.Since(began)}
			}()
			time.Sleep(2 * time.Second)
		}
		time.Sleep(500 * time.Millisecond)
		release() // at 6.5 s
		for i, wanted := range []struct {
			failed        bool
			after, before time.Duration
		}{
			{true, 5 * time.Second, 5200 * time.Millisecond},
			{false, 6500 * time.Millisecond, 6700 * time.Millisecond},
			{false, 6500 * time.Millisecond, 6700 * time.Millisecond},
		} {
			got := <-results[i]
			if (got.err != nil) != wanted.failed || got.waited < wanted.after || got.waited > wanted.before {
				t.Errorf("write %d: %v after %v; want failed=%t between %v and %v", i, got.err, got.waited, wanted.failed, wanted.after, wanted.before)
			}
		}
	})
}

func TestStore_ReadsGoOnWhileAWriteWaitsForAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		prepareWrites(t, storeInstance)
		scopedStore, err := store.NewScoped(storeInstance, "tenant-a")
		check(t, err)
		release := lockForWriting(t, databasePath)
		results := make(chan error, 3)
		for i := range cap(results) {
			go func() { results <- storeInstance.Set("group", strconv.Itoa(i), "value") }()
		}
		began := time.Now()
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			for _, method := range append(methods(storeInstance)[:firstWrite], methods(scopedStore)[:firstWrite]...) {
				now := time.Now()
				if err := method.run(); err != nil && !errors.Is(err, store.NotFoundError) {
					t.Errorf("%s while a write waits: %v", method.name, err)
				}
				if waited := time.Since(now); waited > 0 {
					t.Errorf("%s waited %v with a write", method.name, waited)
				}
			}
			if len(results) > 0 {
				t.Fatalf("the write ended with %v after %v, before the reads", <-results, time.Since(began))
			}
		}
		release()
		for range cap(results) {
			check(t, <-results)
		}
	})
}

func TestNew_WaitsForAnotherProcess(t *testing.T) {
	fresh := filepath.Join(t.TempDir(), "fresh.db")
	existing, existingPath := newFileStore(t)
	check(t, existing.Close())
	for name, databasePath := range map[string]string{"fresh": fresh, "store": existingPath} {
		t.Run(name, func(t *testing.T) {
			database := openSQL(t, databasePath)
			execSQL(t, database, "BEGIN EXCLUSIVE")
			execSQL(t, database, "CREATE TABLE other (a)")
			results := make(chan error, 1)
			go func() {
				storeInstance, err := store.New(databasePath)
				if err == nil {
					err = storeInstance.Set("config", "colour", "blue")
					err = errors.Join(err, storeInstance.Close())
				}
				results <- err
			}()
			// Long enough for New to find the lock, far shorter than its five seconds.
			execSQL(t, database, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO other SELECT i FROM n`)
			execSQL(t, database, "COMMIT")
			check(t, <-results)
		})
	}
}

// TestNew_WaitsByTheClockOfABubble finds a lock that lasts as long as New waits, and one that does not. SQLite's own wait, in
// real time, must be over once it has come to nothing.
func TestNew_WaitsByTheClockOfABubble(t *testing.T) {
	if testing.Short() {
		t.Skip("SQLite waits for five seconds")
	}
	late := 10 * time.Millisecond
	if runtime.GOOS == "windows" {
		late = 250 * time.Millisecond // SQLite sleeps by the bubble's clock here, 100 ms at once, and more than it counts
	}
	for _, test := range []struct{ lock, waits time.Duration }{
		{time.Hour, 5 * time.Second},
		{time.Second, time.Second},
	} {
		t.Run(test.lock.String(), func(t *testing.T) {
			t.Parallel()
			databasePath := foreignFile(t, t.TempDir(), "CREATE TABLE other (a)")
			synctest.Test(t, func(t *testing.T) {
				database := openSQL(t, databasePath)
				execSQL(t, database, "BEGIN EXCLUSIVE")
				var locking sync.WaitGroup
				locking.Go(func() {
					time.Sleep(test.lock)
					execSQL(t, database, "COMMIT")
				})
				began := time.Now()
				storeInstance, err := store.New(databasePath)
				waited := time.Since(began)
				locking.Wait()
				if err == nil {
					check(t, storeInstance.Close())
				}
				if waited < test.waits || waited > test.waits+late || (err == nil) != (test.lock < 5*time.Second) {
					t.Errorf("New = %v after %v beside a lock of %v", err, waited, test.lock)
				}
			})
		})
	}
}

func TestNew_ManyOnOneFreshFile(t *testing.T) {
	for range 10 {
		databasePath := filepath.Join(t.TempDir(), "store.db")
		stores := make([]*store.Store, 8)
		var opening sync.WaitGroup
		for i := range stores {
			opening.Go(func() {
				storeInstance, err := store.New(databasePath)
				if err == nil {
					stores[i] = storeInstance
					err = storeInstance.Set("group", strconv.Itoa(i), "value")
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		opening.Wait()
		if !locked(t, databasePath) {
			t.Error("the New that made the file dropped the locks of another")
		}
		for _, storeInstance := range stores {
			if storeInstance != nil {
				check(t, storeInstance.Close())
			}
		}
		if got, err := openStore(t, databasePath).Count("group"); err != nil || got != 8 {
			t.Errorf("Count = %d, %v; want 8 writes through 8 stores", got, err)
		}
	}
}

func TestStore_ConcurrentWritesShareCommits(t *testing.T) {
	onEachPathInBubble(t, func(t *testing.T, databasePath string) {
		storeInstance, hook := openWithCommitHook(t, databasePath)
		before := hook.commits.Load()
		for i := range 10 {
			check(t, storeInstance.Set("alone", strconv.Itoa(i), "value"))
		}
		if got := hook.commits.Load() - before; got != 10 {
			t.Errorf("10 writes one after the other took %d commits, want 10", got)
		}
		var calls []func() error
		for i := range 64 {
			calls = append(calls, func() error { return storeInstance.Set("group", strconv.Itoa(i), "value") })
		}
		before = hook.commits.Load()
		for _, err := range hook.gather(storeInstance, calls...) {
			check(t, err)
		}
		if got := hook.commits.Load() - before; got > 4 {
			t.Errorf("65 writes together took %d commits, want them shared", got)
		}
		if got, err := storeInstance.Count("group"); err != nil || got != 64 {
			t.Errorf("Count = %d, %v; want 64", got, err)
		}
	})
}

func TestStore_ReturnedWriteIsSeenByEveryCallThatBeginsLater(t *testing.T) {
	writer, databasePath := newFileStore(t)
	reader := openStore(t, databasePath)
	prepareWrites(t, writer)
	stop := make(chan struct{})
	var reading, writing sync.WaitGroup
	for range 2 { // so that the checked reads meet others and share with them
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := reader.Get("prefs", "locale"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 4 {
		writing.Go(func() {
			group, key := "group-"+strconv.Itoa(i), "key"
			for n := range 50 {
				want := strconv.Itoa(n)
				if err := writer.Set(group, key, want); err != nil {
					t.Error(err)
					return
				}
				for name, storeInstance := range map[string]*store.Store{"the same": writer, "another": reader} {
					got, err := storeInstance.Get(group, key)
					if err != nil || got != want {
						t.Errorf("Get through %s store = %q, %v; want %q, which was written before", name, got, err, want)
						return
					}
				}
				if err := writer.Delete(group, key); err != nil {
					t.Error(err)
					return
				}
				if got, err := reader.Count(group); err != nil || got != 0 {
					t.Errorf("Count through another store = %d, %v; want 0 after Delete", got, err)
					return
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
}

func TestStore_SeveralStoresReadAndWriteWithoutBusyErrors(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db")
	var running sync.WaitGroup
	for i := range 3 {
		storeInstance := openStore(t, databasePath)
		for j := range 3 {
			running.Go(func() {
				if err := shareStore(storeInstance, fmt.Sprint(i, "-", j)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	running.Wait()
}

func TestStore_SeveralProcessesShareAFile(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db") // which the processes make, all at once
	var running sync.WaitGroup
	for i := range 3 {
		command := helperCommand(t, "share", databasePath, strconv.Itoa(i))
		running.Go(func() {
			if err := command.Run(); err != nil { // it has said why
				t.Errorf("process %d: %v", i, err)
			}
		})
	}
	running.Wait()
	storeInstance := openStore(t, databasePath)
	for i := range 3 {
		for j := range 4 {
			group := fmt.Sprint(i, "-", j)
			if got, err := storeInstance.Count(group); err != nil || got != sharedWrites {
				t.Errorf("Count(%q) = %d, %v; want %d", group, got, err, sharedWrites)
			}
		}
	}
	checkSame(t, "integrity", queryLines(t, openSQL(t, databasePath), "PRAGMA integrity_check"), []string{"ok"})
}

const sharedWrites = 40

// shareFile uses a store that other processes use as well.
func shareFile(arguments []string) error {
	storeInstance, err := store.New(arguments[0])
	if err != nil {
		return err
	}
	results := make(chan error)
	for i := range 4 {
		go func() { results <- shareStore(storeInstance, arguments[1]+"-"+strconv.Itoa(i)) }()
	}
	for range 4 {
		err = errors.Join(err, <-results)
	}
	return errors.Join(err, storeInstance.Close())
}

// shareStore writes, reads back, and does all that reads before it writes: an expired Get, a purge, a quota.
func shareStore(storeInstance *store.Store, group string) error {
	scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-"+group, store.QuotaConfig{MaxKeys: 2})
	if err != nil {
		return err
	}
	for i := range sharedWrites {
		key := strconv.Itoa(i)
		if err := storeInstance.Set(group, key, key); err != nil {
			return err
		}
		if got, err := storeInstance.Get(group, key); err != nil || got != key {
			return fmt.Errorf("Get(%q, %q) = %q, %w; want %q", group, key, got, err, key)
		}
		if err := scopedStore.SetWithTTL("session", key, "", 0); err != nil {
			return err
		}
		if got, err := scopedStore.Get("session", key); !errors.Is(err, store.NotFoundError) {
			return fmt.Errorf("Get of an expired entry = %q, %w; want NotFoundError", got, err)
		}
		if err := scopedStore.Set("config", "colour", key); err != nil {
			return err
		}
		if i%10 == 0 {
			if _, err := storeInstance.PurgeExpired(); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestStore_SeesTheWritesOfAnotherProcess(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	for i := range 3 {
		value := strconv.Itoa(i)
		runHelper(t, helperCommand(t, "write once", databasePath, "config", "colour", value))
		checkValue(t, storeInstance, "config", "colour", value)
	}
}

// writeOnce writes one entry: path, group, key, value.
func writeOnce(arguments []string) error {
	storeInstance, err := store.New(arguments[0])
	if err != nil {
		return err
	}
	return errors.Join(storeInstance.Set(arguments[1], arguments[2], arguments[3]), storeInstance.Close())
}

// ---- Helpers ----

func newMemoryStore(t testing.TB) *store.Store {
	t.Helper()
	return openStore(t, ":memory:")
}

func newFileStore(t testing.TB) (*store.Store, string) {
	t.Helper()
	databasePath := filepath.Join(t.TempDir(), "store.db")
	return openStore(t, databasePath), databasePath
}

func openStore(t testing.TB, databasePath string) *store.Store {
	t.Helper()
	storeInstance, err := store.New(databasePath)
	check(t, err)
	t.Cleanup(func() { check(t, storeInstance.Close()) })
	return storeInstance
}

// onEachKind runs test on an in-memory store and on one in a file.
func onEachKind(t *testing.T, test func(t *testing.T, storeInstance *store.Store)) {
	t.Run("memory", func(t *testing.T) { test(t, newMemoryStore(t)) })
	t.Run("file", func(t *testing.T) {
		storeInstance, _ := newFileStore(t)
		test(t, storeInstance)
	})
}

// onEachPathInBubble runs test in a bubble of fake time, for an in-memory store and for one in a file, which test opens itself.
func onEachPathInBubble(t *testing.T, test func(t *testing.T, databasePath string)) {
	for name, databasePath := range map[string]string{"memory": ":memory:", "file": filepath.Join(t.TempDir(), "store.db")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, databasePath) })
		})
	}
}

// entries is what Store and ScopedStore have in common.
type entries interface {
	Get(group, key string) (string, error)
	Set(group, key, value string) error
	SetWithTTL(group, key, value string, ttl time.Duration) error
	Delete(group, key string) error
	DeleteGroup(group string) error
	Count(group string) (int, error)
	CountAll(groupPrefix string) (int, error)
	GetAll(group string) (map[string]string, error)
	All(group string) iter.Seq2[store.KeyValue, error]
	Groups(groupPrefix string) ([]string, error)
	GroupsSeq(groupPrefix string) iter.Seq2[string, error]
	GetSplit(group, key, separator string) (iter.Seq[string], error)
	GetFields(group, key string) (iter.Seq[string], error)
	Render(templateSource, group string) (string, error)
	PurgeExpired() (int64, error)
}

type method struct {
	name string
	run  func() error
}

// firstWrite is the index of the first of the methods that write.
const firstWrite = 10

// methods calls each of what Store and ScopedStore have in common once, in a way that is no error after prepareWrites.
func methods(storage entries) []method {
	return []method{
		{"Get", func() error { _, err := storage.Get("config", "colour"); return err }},
		{"Count", func() error { _, err := storage.Count("config"); return err }},
		{"CountAll", func() error { _, err := storage.CountAll(""); return err }},
		{"GetAll", func() error { _, err := storage.GetAll("config"); return err }},
		{"All", func() error { return rangeOver(storage.All("config")) }},
		{"Groups", func() error { _, err := storage.Groups(""); return err }},
		{"GroupsSeq", func() error { return rangeOver(storage.GroupsSeq("")) }},
		{"GetSplit", func() error { _, err := storage.GetSplit("config", "colour", ","); return err }},
		{"GetFields", func() error { _, err := storage.GetFields("config", "colour"); return err }},
		{"Render", func() error { _, err := storage.Render("{{.colour}}", "config"); return err }},
		{"Set", func() error { return storage.Set("config", "colour", "green") }},
		{"SetWithTTL", func() error { return storage.SetWithTTL("config", "colour", "green", time.Hour) }},
		{"Delete", func() error { return storage.Delete("config", "size") }},
		{"DeleteGroup", func() error { return storage.DeleteGroup("prefs") }},
		{"PurgeExpired", func() error { _, err := storage.PurgeExpired(); return err }},
	}
}

// rangeOver ranges over a sequence and returns the error that it yields, which must be the last thing.
func rangeOver[V any](sequence iter.Seq2[V, error]) error {
	var last error
	for _, err := range sequence {
		if last != nil {
			return fmt.Errorf("a sequence went on after %v", last)
		}
		last = err
	}
	return last
}

// fileURI names the file at databasePath, whatever characters that holds; query is added as it is.
func fileURI(databasePath, query string) string {
	databasePath = filepath.ToSlash(databasePath)
	if filepath.VolumeName(databasePath) != "" {
		databasePath = "/" + databasePath
	}
	return (&url.URL{Scheme: "file", Path: databasePath, RawQuery: query}).String()
}

// openSQL opens a connection to a file beside the store's own, as another program would.
func openSQL(t testing.TB, databasePath string) *sql.DB {
	t.Helper()
	database, err := sql.Open("sqlite", fileURI(databasePath, "_pragma=busy_timeout(5000)"))
	check(t, err)
	database.SetMaxOpenConns(1)
	t.Cleanup(func() { check(t, database.Close()) })
	return database
}

func execSQL(t testing.TB, database *sql.DB, query string, arguments ...any) {
	t.Helper()
	if _, err := database.Exec(query, arguments...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// queryLines returns the rows of a query of one column.
func queryLines(t testing.TB, database *sql.DB, query string) []string {
	t.Helper()
	rows, err := database.Query(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var line string
		check(t, rows.Scan(&line))
		lines = append(lines, line)
	}
	check(t, rows.Err())
	return lines
}

// sqlReader reads entries as another program would.
type sqlReader struct{ database *sql.DB }

func (reader sqlReader) Get(group, key string) (value string, err error) {
	err = reader.database.QueryRow("SELECT entry_value FROM entries WHERE group_name = ? AND entry_key = ?", group, key).Scan(&value)
	return value, err
}

// lockForWriting takes the write lock of a file as another process would, until release is called.
func lockForWriting(t testing.TB, databasePath string) (release func()) {
	t.Helper()
	database := openSQL(t, databasePath)
	execSQL(t, database, "BEGIN IMMEDIATE")
	return func() { execSQL(t, database, "ROLLBACK") }
}

// snapshot reads all below directory: names relative to it, and what they hold.
func snapshot(t testing.TB, directory string) map[string]string {
	t.Helper()
	files := map[string]string{}
	check(t, filepath.WalkDir(directory, func(path string, file fs.DirEntry, err error) error {
		if err != nil || path == directory {
			return err
		}
		content := []byte(file.Type().String())
		if file.Type().IsRegular() {
			content, err = os.ReadFile(path)
		}
		files[strings.TrimPrefix(path, directory+string(filepath.Separator))] = string(content)
		return err
	}))
	return files
}

// connectionHook sees every connection of the driver as it is opened, the store's own included.
var connectionHook atomic.Pointer[func(connection sqlite.ExecQuerierContext) error]

func runConnectionHook(connection sqlite.ExecQuerierContext, _ string) error {
	if hook := connectionHook.Load(); hook != nil {
		return (*hook)(connection)
	}
	return nil
}

func setConnectionHook(t testing.TB, hook func(connection sqlite.ExecQuerierContext) error) {
	connectionHook.Store(&hook)
	t.Cleanup(func() { connectionHook.Store(nil) })
}

// openHooked is store.New, whose connection passes through hook first.
func openHooked(databasePath string, hook func(connection sqlite.ExecQuerierContext) error) (*store.Store, error) {
	connectionHook.Store(&hook)
	defer connectionHook.Store(nil)
	return store.New(databasePath)
}

// commitHook runs inside every commit of a store's connection, after it was counted. What it returns, if not zero, makes the commit fail.
type commitHook struct {
	commits     atomic.Int64
	run         atomic.Pointer[func() int32]
	afterGather func() int32 // what runs in the commits that follow the one of gather
}

func openWithCommitHook(t testing.TB, databasePath string) (*store.Store, *commitHook) {
	t.Helper()
	hook := &commitHook{}
	storeInstance, err := openHooked(databasePath, func(connection sqlite.ExecQuerierContext) error {
		connection.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 {
			hook.commits.Add(1)
			if run := hook.run.Load(); run != nil {
				return (*run)()
			}
			return 0
		})
		return nil
	})
	check(t, err)
	t.Cleanup(func() { storeInstance.Close() })
	return storeInstance, hook
}

func (hook *commitHook) set(run func() int32) {
	if run == nil {
		hook.run.Store(nil)
		return
	}
	hook.run.Store(&run)
}

// gather runs the calls, each in a goroutine, while the commit of another write keeps the connection, so that all of them wait for
// it together when that is over. It returns their errors, and works in a bubble alone.
func (hook *commitHook) gather(storeInstance *store.Store, calls ...func() error) []error {
	entered, release := make(chan struct{}), make(chan struct{})
	hook.set(func() int32 {
		hook.set(hook.afterGather)
		close(entered)
		<-release
		return 0
	})
	var running sync.WaitGroup
	running.Go(func() { storeInstance.Set("gather", "first", "") })
	<-entered
	errs := make([]error, len(calls))
	for i, call := range calls {
		running.Go(func() { errs[i] = call() })
		synctest.Wait() // so that they wait in the order of the list
	}
	close(release)
	running.Wait()
	return errs
}

// helperCommand is the test binary in another role, in a process of its own.
func helperCommand(t testing.TB, role string, arguments ...string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	check(t, err)
	command := exec.Command(executable, arguments...)
	command.Env = append(os.Environ(), helperRole+"="+role)
	command.Stderr = os.Stderr
	return command
}

// runHelper runs a helper to its end and returns what it printed.
func runHelper(t testing.TB, command *exec.Cmd) string {
	t.Helper()
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%q: %v", command.Args, err)
	}
	return string(output)
}

// endedEvents returns what is left in the buffer of a watcher, which must have been ended.
func endedEvents(t testing.TB, watcher *store.Watcher) []store.Event {
	t.Helper()
	events := bufferedEvents(watcher)
	wantEnded(t, watcher)
	return events
}

func atoi(t testing.TB, text string) int {
	t.Helper()
	number, err := strconv.Atoi(text)
	check(t, err)
	return number
}

// checkSame compares lists as sets, and prints what is missing and what is too much.
func checkSame(t testing.TB, what string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if slices.Equal(got, want) {
		return
	}
	in := func(list []string) func(string) bool {
		return func(one string) bool { return slices.Contains(list, one) }
	}
	t.Errorf("%s: got %d, want %d; missing %q, too much %q", what, len(got), len(want),
		slices.DeleteFunc(slices.Clone(want), in(got)), slices.DeleteFunc(slices.Clone(got), in(want)))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func checkValue(t testing.TB, reader interface {
	Get(group, key string) (string, error)
}, group, key, want string) {
	t.Helper()
	got, err := reader.Get(group, key)
	if err != nil || got != want {
		t.Fatalf("Get(%.100q, %.100q) = %.100q, %v; want %.100q", group, key, got, err, want)
	}
}

func checkMissing(t testing.TB, reader interface {
	Get(group, key string) (string, error)
}, group, key string) {
	t.Helper()
	if got, err := reader.Get(group, key); !errors.Is(err, store.NotFoundError) {
		t.Fatalf("Get(%.100q, %.100q) = %.100q, %v; want NotFoundError", group, key, got, err)
	}
}

func wantErrorIs(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got error %v, want %v", err, target)
	}
}

func wantErrorText(t testing.TB, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("got error %v, want %q in it", err, part)
		}
	}
}

// awkwardNames hold what a store could mistake for something else: an end of text, a pattern, SQL, another case.
var awkwardNames = []string{
	"", "\x00", "\x00\x00", "a", "a\x00", "a\x00b", "ab", "A", "aB", " ", "a ", "a\n", "\xff", "\xff\xff", "\xff\xfe",
	"a\xff", "\xc3(", "\xed\xa0\x80", "é", "e\u0301", "\uffff", "\U0010ffff", "%", "_", "a%", "a_", "*", "a*", "?", "a?", "[ab]", `\`,
	"'", `"`, "a'b", "';DROP TABLE entries;--", ":", "a:", "a:b", "NULL", "0", "00", "1e0",
}

// onEachClockedKind is onEachKind under synctest's clock.
func onEachClockedKind(t *testing.T, test func(t *testing.T, storeInstance *store.Store)) {
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, newMemoryStore(t)) })
	})
	withClockedFile(t, func(t *testing.T, storeInstance *store.Store, _ *sql.DB) { test(t, storeInstance) })
}

// withClockedFile runs test under synctest's clock, on a store in a file and with another program's connection to it.
func withClockedFile(t *testing.T, test func(t *testing.T, storeInstance *store.Store, database *sql.DB)) {
	t.Run("file", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			test(t, storeInstance, openSQL(t, databasePath))
		})
	})
}

// drain collects a sequence to its end and fails if anything follows an error.
func drain[Item any](t testing.TB, sequence iter.Seq2[Item, error]) ([]Item, error) {
	t.Helper()
	var items []Item
	var failure error
	for item, err := range sequence {
		if failure != nil {
			t.Fatalf("the sequence yielded %.100v, %v after the error %v", item, err, failure)
		}
		if failure = err; err == nil {
			items = append(items, item)
		}
	}
	return items, failure
}

// all drains a sequence that must not fail.
func all[Item any](t testing.TB, sequence iter.Seq2[Item, error]) []Item {
	t.Helper()
	items, err := drain(t, sequence)
	check(t, err)
	return items
}

// must is for what only prepares a test.
func must[Result any](t testing.TB) func(Result, error) Result {
	return func(result Result, err error) Result {
		t.Helper()
		check(t, err)
		return result
	}
}

func checkEqual[Result comparable](t testing.TB, call string, got, want Result) {
	t.Helper()
	if got != want {
		t.Fatalf("%s = %.200s, want %.200s", call, fmt.Sprint(got), fmt.Sprint(want))
	}
}

func checkList(t testing.TB, call string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s gave %d names %.500q, want %d names %.500q", call, len(got), got, len(want), want)
	}
}

// checkGroup compares what every reading method says of a group, whose name begins no other, with want.
func checkGroup(t testing.TB, storeInstance *store.Store, group string, want map[string]string) {
	t.Helper()
	wantKeys := slices.Sorted(maps.Keys(want))
	var wantGroups []string
	if len(want) > 0 {
		wantGroups = []string{group}
	}
	entries := must[map[string]string](t)(storeInstance.GetAll(group))
	if !maps.Equal(entries, want) {
		t.Fatalf("GetAll(%q) = %.500q, want %.500q", group, entries, want)
	}
	var keys, rendered []string
	for _, entry := range all(t, storeInstance.All(group)) {
		keys = append(keys, entry.Key)
		checkEqual(t, "value from All of "+entry.Key, entry.Value, want[entry.Key])
	}
	checkList(t, "All", keys, wantKeys)
	checkList(t, "Groups", must[[]string](t)(storeInstance.Groups(group)), wantGroups)
	checkList(t, "GroupsSeq", all(t, storeInstance.GroupsSeq(group)), wantGroups)
	checkEqual(t, "Count", must[int](t)(storeInstance.Count(group)), len(want))
	checkEqual(t, "CountAll", must[int](t)(storeInstance.CountAll(group)), len(want))
	for _, key := range wantKeys {
		rendered = append(rendered, key+"="+want[key]+";")
	}
	text := must[string](t)(storeInstance.Render("{{range $key, $value := .}}{{$key}}={{$value}};{{end}}", group))
	checkEqual(t, "Render", text, strings.Join(rendered, ""))
	for _, key := range wantKeys {
		checkValue(t, storeInstance, group, key, want[key])
	}
}

// setAll calls set for each name, from several goroutines that share commits.
func setAll(t testing.TB, names []string, set func(name string) error) {
	t.Helper()
	var group sync.WaitGroup
	var next atomic.Int64
	for range 32 {
		group.Go(func() {
			for index := next.Add(1) - 1; index < int64(len(names)); index = next.Add(1) - 1 {
				if err := set(names[index]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func numberedNames(count int) []string {
	names := make([]string, count)
	for index := range names {
		names[index] = fmt.Sprintf("name-%06d", index)
	}
	return names
}

// insertRows adds rows beside the store, their group and key made from printf formats of 1 to count.
func insertRows(t testing.TB, database *sql.DB, groupFormat, keyFormat string, count int, expiresAt any) {
	t.Helper()
	execSQL(t, database, `
		WITH RECURSIVE counter(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM counter WHERE number < ?3)
		INSERT INTO entries (group_name, entry_key, entry_value, expires_at)
		SELECT printf(?1, number), printf(?2, number), 'blue', ?4 FROM counter`,
		groupFormat, keyFormat, count, expiresAt)
}

// countRows counts what lies in the file, expired or not.
func countRows(t testing.TB, database *sql.DB) int {
	t.Helper()
	return queryInt(t, database, "SELECT count(*) FROM entries")
}

// fastest is the shortest of several runs: the figure that other load on the machine disturbs least.
func fastest(rounds int, run func()) time.Duration {
	shortest := time.Duration(math.MaxInt64)
	for range rounds {
		start := time.Now()
		run()
		shortest = min(shortest, time.Since(start))
	}
	return shortest
}

// readingMethods is each method that reads, called on one entry or its group.
var readingMethods = []struct {
	name string
	call func(t testing.TB, storeInstance *store.Store, group, key string) error
}{
	{"Get", func(t testing.TB, storeInstance *store.Store, group, key string) error {
		_, err := storeInstance.Get(group, key)
		return err
	}},
	{"GetSplit", func(t testing.TB, storeInstance *store.Store, group, key string) error {
		_, err := storeInstance.GetSplit(group, key, ",")
		return err
	}},
	{"GetFields", func(t testing.TB, storeInstance *store.Store, group, key string) error {
		_, err := storeInstance.GetFields(group, key)
		return err
	}},
	{"Count", func(t testing.TB, storeInstance *store.Store, group, _ string) error {
		_, err := storeInstance.Count(group)
		return err
	}},
	{"CountAll", func(t testing.TB, storeInstance *store.Store, group, _ string) error {
		_, err := storeInstance.CountAll(group)
		return err
	}},
	{"GetAll", func(t testing.TB, storeInstance *store.Store, group, _ string) error {
		_, err := storeInstance.GetAll(group)
		return err
	}},
	{"All", func(t testing.TB, storeInstance *store.Store, group, _ string) error {
		_, err := drain(t, storeInstance.All(group))
		return err
	}},
	{"Groups", func(t testing.TB, storeInstance *store.Store, group, _ string) error {
		_, err := storeInstance.Groups(group)
		return err
	}},
	{"GroupsSeq", func(t testing.TB, storeInstance *store.Store, group, _ string) error {
		_, err := drain(t, storeInstance.GroupsSeq(group))
		return err
	}},
	{"Render", func(t testing.TB, storeInstance *store.Store, group, _ string) error {
		_, err := storeInstance.Render("{{.colour}}", group)
		return err
	}},
}

// writingMethods is each method that writes, called on one entry or its group.
var writingMethods = []struct {
	name string
	call func(storeInstance *store.Store, group, key, value string) error
}{
	{"Set", func(storeInstance *store.Store, group, key, value string) error {
		return storeInstance.Set(group, key, value)
	}},
	{"SetWithTTL", func(storeInstance *store.Store, group, key, value string) error {
		return storeInstance.SetWithTTL(group, key, value, time.Hour)
	}},
	{"Delete", func(storeInstance *store.Store, group, key, _ string) error {
		return storeInstance.Delete(group, key)
	}},
	{"DeleteGroup", func(storeInstance *store.Store, group, _, _ string) error {
		return storeInstance.DeleteGroup(group)
	}},
}

// Entries: byte strings

func TestStore_Set_NamesMatchByteForByte(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		setAll(t, awkwardNames, func(group string) error {
			for _, key := range awkwardNames {
				if err := storeInstance.Set(group, key, group+"→"+key); err != nil {
					return err
				}
			}
			return nil
		})
		for _, group := range awkwardNames {
			for _, key := range awkwardNames {
				checkValue(t, storeInstance, group, key, group+"→"+key)
			}
			checkEqual(t, fmt.Sprintf("Count(%q)", group), must[int](t)(storeInstance.Count(group)), len(awkwardNames))
		}
	})
}

func TestStore_Set_ValuesRoundTrip(t *testing.T) {
	everyByte := make([]byte, 1<<16)
	for index := range everyByte {
		everyByte[index] = byte(index * 31 >> 3)
	}
	values := append(slices.Clone(awkwardNames), string(everyByte), strings.Repeat("\x00", 5000), strings.Repeat("\xff", 1<<20))
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, value := range values {
			check(t, storeInstance.Set("config", "colour", value))
			checkValue(t, storeInstance, "config", "colour", value)
			checkEqual(t, "GetAll", must[map[string]string](t)(storeInstance.GetAll("config"))["colour"], value)
			checkEqual(t, "All", all(t, storeInstance.All("config"))[0].Value, value)
			checkEqual(t, "Render", must[string](t)(storeInstance.Render("{{.colour}}", "config")), value)
		}
	})
}

func TestStore_Set_BytesSurviveReopening(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	want := map[string]string{}
	for _, name := range awkwardNames {
		check(t, storeInstance.Set("config\x00\xff", name, name))
		want[name] = name
	}
	check(t, storeInstance.Close())
	checkGroup(t, openStore(t, databasePath), "config\x00\xff", want)
}

func TestStore_Delete_MatchesByteForByte(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		remaining := map[string]string{}
		for _, key := range awkwardNames {
			check(t, storeInstance.Set("config", key, key))
			remaining[key] = key
		}
		for _, key := range awkwardNames {
			check(t, storeInstance.Delete("config", key))
			delete(remaining, key)
			if got := must[map[string]string](t)(storeInstance.GetAll("config")); !maps.Equal(got, remaining) {
				t.Fatalf("after Delete(%q, %q) GetAll = %q, want %q", "config", key, got, remaining)
			}
		}
	})
}

func TestStore_DeleteGroup_MatchesByteForByte(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, group := range awkwardNames {
			check(t, storeInstance.Set(group, "colour", "blue"))
			check(t, storeInstance.Set(group, "shape", "round"))
		}
		remaining := slices.Sorted(slices.Values(awkwardNames))
		for _, group := range awkwardNames {
			check(t, storeInstance.DeleteGroup(group))
			remaining = slices.DeleteFunc(remaining, func(name string) bool { return name == group })
			checkList(t, fmt.Sprintf("after DeleteGroup(%q) Groups", group), must[[]string](t)(storeInstance.Groups("")), remaining)
			checkEqual(t, "CountAll", must[int](t)(storeInstance.CountAll("")), 2*len(remaining))
		}
	})
}

func TestStore_Prefixes_MatchLiterally(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		groups := append(slices.Clone(awkwardNames), "tenant:a", "tenant:b", "Tenant:a", "tenant", "tenant;", "tenan\xff", "tenan\ufffd", "tenan\xc3\xa9", "\xff\xff\xffz")
		slices.Sort(groups)
		setAll(t, groups, func(group string) error {
			return errors.Join(storeInstance.Set(group, "colour", "blue"), storeInstance.Set(group, "shape", "round"))
		})
		prefixes := append(slices.Clone(groups), "tenant:", "Tenant:", "TENANT:", "tenant:c", "t%", "t_nant:", "t*", "\xff\xff\xff", "\xfe", "tenan\x80", "tenan\xc3", "tenan\xef\xbf", "t\xff\xff")
		for _, prefix := range prefixes {
			want := slices.DeleteFunc(slices.Clone(groups), func(group string) bool { return !strings.HasPrefix(group, prefix) })
			checkList(t, fmt.Sprintf("Groups(%q)", prefix), must[[]string](t)(storeInstance.Groups(prefix)), want)
			checkList(t, fmt.Sprintf("GroupsSeq(%q)", prefix), all(t, storeInstance.GroupsSeq(prefix)), want)
			checkEqual(t, fmt.Sprintf("CountAll(%q)", prefix), must[int](t)(storeInstance.CountAll(prefix)), 2*len(want))
		}
	})
}

// Entries: length

func TestStore_ErrorsRepeatNoLongName(t *testing.T) {
	storeInstance := newMemoryStore(t)
	scopedStore := newScope(t, storeInstance, "tenant-a")
	check(t, storeInstance.Close()) // so that each call fails
	long := strings.Repeat("n", 5<<20)
	for _, storage := range []entries{storeInstance, scopedStore} {
		for name, err := range map[string]error{
			"Get":         second(storage.Get(long, "key")),
			"GetSplit":    second(storage.GetSplit("group", long, ",")),
			"GetFields":   second(storage.GetFields(long, long)),
			"Count":       second(storage.Count(long)),
			"CountAll":    second(storage.CountAll(long)),
			"GetAll":      second(storage.GetAll(long)),
			"Render":      second(storage.Render("", long)),
			"Groups":      second(storage.Groups(long)),
			"All":         rangeOver(storage.All(long)),
			"GroupsSeq":   rangeOver(storage.GroupsSeq(long)),
			"Set":         storage.Set(long, "key", ""),
			"SetWithTTL":  storage.SetWithTTL("group", long, "", time.Hour),
			"Delete":      storage.Delete(long, "key"),
			"DeleteGroup": storage.DeleteGroup(long),
		} {
			wantErrorIs(t, err, os.ErrClosed)
			if text := err.Error(); len(text) > 200 || !strings.HasPrefix(text, "store."+name+": (a ") {
				t.Errorf("%s: an error of %d bytes, %.100q", name, len(text), text)
			}
		}
	}
}

func TestStore_ErrorsQuoteNamesUpTo4MiBTogether(t *testing.T) {
	storeInstance := newMemoryStore(t)
	for _, test := range []struct {
		group, key int
		quoted     bool
	}{{2 << 20, 2 << 20, true}, {2 << 20, 2<<20 + 1, false}, {2<<20 + 1, 2 << 20, false}, {1, 4 << 20, false}, {4 << 20, 1, false}} {
		group, key := strings.Repeat("g", test.group), strings.Repeat("k", test.key)
		_, err := storeInstance.Get(group, key)
		wantErrorIs(t, err, store.NotFoundError)
		if quoted := strings.Contains(err.Error(), group+"/"+key); quoted != test.quoted || !quoted && len(err.Error()) > 200 {
			t.Errorf("names of %d and %d bytes make an error of %d bytes", test.group, test.key, len(err.Error()))
		}
	}
}

// TestStore_LongTextIsRefused needs address space alone: nothing may look at a text that its length already forbids.
// It runs in a process of its own, since Go clears, and so touches, a slice that lies where others lay before.
func TestStore_LongTextIsRefused(t *testing.T) {
	if testing.Short() || strconv.IntSize == 32 {
		t.Skip("needs four GiB of address space")
	}
	const ownProcess = "STORE_TEST_LONG_TEXT"
	if os.Getenv(ownProcess) == "" {
		command := exec.Command(must[string](t)(os.Executable()), "-test.v", "-test.timeout=1m", "-test.run=^"+t.Name()+"$")
		command.Env = append(os.Environ(), ownProcess+"=1")
		if output, err := command.CombinedOutput(); err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()) {
			t.Fatalf("%v: %v\n%s", command, err, output)
		}
		return
	}
	const limit = 1_000_000_000
	// Cut to its lowest 32 bits this length leaves "config" alone, a name that exists.
	length := int64(1)<<32 + int64(len("config"))
	content := make([]byte, length)
	copy(content, "config")
	longest := unsafe.String(&content[0], len(content))

	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("config", "config", "blue"))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, long := range []string{longest[:limit+1], longest} {
			refused := func(method string, err error) {
				t.Helper()
				if err == nil {
					t.Fatalf("%s with %d bytes succeeded", method, len(long))
				}
				wantErrorText(t, err, "store."+method+": ")
				for cause := err; cause != nil; cause = errors.Unwrap(cause) {
					if len(cause.Error()) > 1000 {
						t.Fatalf("%s with %d bytes: the error has %d bytes", method, len(long), len(cause.Error()))
					}
				}
			}
			for _, method := range readingMethods {
				switch method.name {
				case "CountAll", "Groups", "GroupsSeq":
					continue
				case "Get", "GetSplit", "GetFields":
					refused(method.name, method.call(t, storeInstance, "config", long))
				}
				refused(method.name, method.call(t, storeInstance, long, "config"))
			}
			for _, method := range writingMethods {
				refused(method.name, method.call(storeInstance, long, "config", "red"))
				if method.name != "DeleteGroup" {
					refused(method.name, method.call(storeInstance, "config", long, "red"))
				}
				if strings.HasPrefix(method.name, "Set") {
					refused(method.name, method.call(storeInstance, "config", "config", long))
				}
			}
			scopedStore := newScope(t, storeInstance, "tenant-a")
			_, err := scopedStore.Get(long, "config")
			refused("Get", err)
			refused("Set", scopedStore.Set(long, "config", "red"))
			// A prefix is no name: it may be refused, but it matches nothing.
			if count, err := storeInstance.CountAll(long); err == nil && count != 0 {
				t.Fatalf("CountAll of a prefix of %d bytes = %d", len(long), count)
			}
			if groups, err := storeInstance.Groups(long); err == nil && len(groups) != 0 {
				t.Fatalf("Groups of a prefix of %d bytes = %q", len(long), groups)
			}
			if groups, err := drain(t, storeInstance.GroupsSeq(long)); err == nil && len(groups) != 0 {
				t.Fatalf("GroupsSeq of a prefix of %d bytes = %q", len(long), groups)
			}
			checkGroup(t, storeInstance, "config", map[string]string{"config": "blue"})
			checkEqual(t, "CountAll", must[int](t)(storeInstance.CountAll("")), 1)
		}
		runtime.ReadMemStats(&after)
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 64<<20 {
			t.Fatalf("refusing allocated %d bytes", allocated)
		}
	})
	runtime.KeepAlive(content)
}

// Entries: writes

func TestStore_Set_ReplacesTheValue(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, value := range []string{"blue", "red", "red", ""} {
			check(t, storeInstance.Set("config", "colour", value))
			checkGroup(t, storeInstance, "config", map[string]string{"colour": value})
		}
	})
}

func TestStore_SetWithTTL_ReplacesTheValue(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("config", "colour", "blue"))
		check(t, storeInstance.SetWithTTL("config", "colour", "red", time.Hour))
		checkGroup(t, storeInstance, "config", map[string]string{"colour": "red"})
	})
}

func TestStore_Delete_RemovesOneEntry(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("config", "colour", "blue"))
		check(t, storeInstance.Set("config", "shape", "round"))
		check(t, storeInstance.Set("prefs", "colour", "red"))
		check(t, storeInstance.Delete("config", "colour"))
		checkMissing(t, storeInstance, "config", "colour")
		checkGroup(t, storeInstance, "config", map[string]string{"shape": "round"})
		checkGroup(t, storeInstance, "prefs", map[string]string{"colour": "red"})
	})
}

func TestStore_Delete_OfAMissingKeyIsNoError(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Delete("config", "colour"))
		check(t, storeInstance.Set("config", "colour", "blue"))
		check(t, storeInstance.Delete("config", "shape"))
		checkGroup(t, storeInstance, "config", map[string]string{"colour": "blue"})
	})
}

func TestStore_DeleteGroup_RemovesTheWholeGroup(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		setAll(t, numberedNames(1200), func(key string) error { return storeInstance.Set("config", key, "blue") })
		check(t, storeInstance.Set("configuration", "colour", "red"))
		check(t, storeInstance.DeleteGroup("config"))
		checkEqual(t, "Count", must[int](t)(storeInstance.Count("config")), 0)
		checkGroup(t, storeInstance, "configuration", map[string]string{"colour": "red"})
	})
}

func TestStore_DeleteGroup_OfAMissingGroupIsNoError(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("config", "colour", "blue"))
		check(t, storeInstance.DeleteGroup("prefs"))
		checkGroup(t, storeInstance, "config", map[string]string{"colour": "blue"})
	})
}

// TestStore_DeleteGroup_IsAtomic refuses one row in the middle: had others gone in a transaction of their own, they would
// stay gone.
func TestStore_DeleteGroup_IsAtomic(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	insertRows(t, database, "config", "key-%07d", 8000, nil)
	execSQL(t, database, `CREATE TRIGGER refuse BEFORE DELETE ON entries WHEN old.entry_key = 'key-0004000'
		BEGIN SELECT RAISE(ABORT, 'refused'); END`)
	wantErrorText(t, storeInstance.DeleteGroup("config"), "store.DeleteGroup: ", "refused")
	checkEqual(t, "Count", must[int](t)(storeInstance.Count("config")), 8000)
}

func TestStore_Writes_ErrorsQuoteNoValue(t *testing.T) {
	const secret = "abc123-secret"
	for _, refused := range []struct{ event, key string }{{"INSERT", "shape"}, {"UPDATE", "colour"}, {"DELETE", "colour"}} {
		storeInstance, databasePath := newFileStore(t)
		check(t, storeInstance.Set("config", "colour", secret))
		execSQL(t, openSQL(t, databasePath), "CREATE TRIGGER refuse BEFORE "+refused.event+" ON entries BEGIN SELECT RAISE(ABORT, 'refused'); END")
		for _, method := range writingMethods {
			if deletes := strings.HasPrefix(method.name, "Delete"); deletes != (refused.event == "DELETE") {
				continue
			}
			err := method.call(storeInstance, "config", refused.key, secret)
			wantErrorText(t, err, "store."+method.name+": config", "refused")
			wantNoText(t, err, secret)
			checkGroup(t, storeInstance, "config", map[string]string{"colour": secret})
		}
	}
}

// wantNoText looks for text in an error and in everything that it wraps.
func wantNoText(t testing.TB, err error, text string) {
	t.Helper()
	if err == nil {
		return
	}
	if message := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(message, text) {
		t.Fatalf("error %.500q quotes %q", message, text)
	}
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		wantNoText(t, wrapper.Unwrap(), text)
	case interface{ Unwrap() []error }:
		for _, cause := range wrapper.Unwrap() {
			wantNoText(t, cause, text)
		}
	}
}

// Entries: reads

func TestStore_Get_NamesTheMissingEntry(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("config", "shape", "round"))
		_, err := storeInstance.Get("config", "colour")
		wantErrorIs(t, err, store.NotFoundError)
		checkEqual(t, "error of Get", err.Error(), "store.Get: config/colour: not found")
	})
}

func TestStore_GetSplit_NamesTheMissingEntry(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		_, err := storeInstance.GetSplit("config", "colour", ",")
		wantErrorIs(t, err, store.NotFoundError)
		checkEqual(t, "error of GetSplit", err.Error(), "store.GetSplit: config/colour: not found")
	})
}

func TestStore_GetFields_NamesTheMissingEntry(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		_, err := storeInstance.GetFields("config", "colour")
		wantErrorIs(t, err, store.NotFoundError)
		checkEqual(t, "error of GetFields", err.Error(), "store.GetFields: config/colour: not found")
	})
}

var splitValues = []string{"", ",", "a", "a,b,c", ",a,,b,", "a, b", "äöü", "a\xffb\xc3", "a\x00b", "aXXbXXXc", "x→y→z", " a  b\t\nc ", "\u00a0a\u2003b\u0085c", "   "}

func TestStore_GetSplit_FollowsStringsSplit(t *testing.T) {
	storeInstance := newMemoryStore(t)
	for _, value := range splitValues {
		check(t, storeInstance.Set("config", "list", value))
		for _, separator := range []string{"", ",", "XX", "→", "\x00", "\xff", " ", "longer than any value"} {
			parts := must[iter.Seq[string]](t)(storeInstance.GetSplit("config", "list", separator))
			checkList(t, fmt.Sprintf("GetSplit of %q by %q", value, separator), slices.Collect(parts), strings.Split(value, separator))
		}
	}
}

func TestStore_GetFields_FollowsStringsFields(t *testing.T) {
	storeInstance := newMemoryStore(t)
	for _, value := range splitValues {
		check(t, storeInstance.Set("config", "list", value))
		fields := must[iter.Seq[string]](t)(storeInstance.GetFields("config", "list"))
		checkList(t, fmt.Sprintf("GetFields of %q", value), slices.Collect(fields), strings.Fields(value))
	}
}

func TestStore_GetSplit_StopsEarlyAndWritesInTheLoop(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("config", "list", "a,b,c"))
		for part := range must[iter.Seq[string]](t)(storeInstance.GetSplit("config", "list", ",")) {
			check(t, storeInstance.Set("config", "list", part))
			break
		}
		checkValue(t, storeInstance, "config", "list", "a")
		for field := range must[iter.Seq[string]](t)(storeInstance.GetFields("config", "list")) {
			check(t, storeInstance.Set("config", "list", field+field))
			break
		}
		checkValue(t, storeInstance, "config", "list", "aa")
	})
}

func TestStore_GetAll_IsNeverNil(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		entries := must[map[string]string](t)(storeInstance.GetAll("config"))
		if entries == nil || len(entries) != 0 {
			t.Fatalf("GetAll of a missing group = %#v, want an empty map", entries)
		}
	})
}

func TestStore_GetAll_BelongsToTheCaller(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("config", "colour", "blue"))
		entries := must[map[string]string](t)(storeInstance.GetAll("config"))
		entries["colour"] = "red"
		checkGroup(t, storeInstance, "config", map[string]string{"colour": "blue"})
	})
}

// checkSnapshots calls read while another program replaces all of a large group at once: read returns the values that
// it saw, which must be the same in each entry.
func checkSnapshots(t *testing.T, read func(storeInstance *store.Store) ([]string, error)) {
	t.Helper()
	const keys = 1500
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	insertRows(t, database, "config", "key-%07d", keys, nil)
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for number := 0; ; number++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := database.Exec("UPDATE entries SET entry_value = ?1", strconv.Itoa(number)); err != nil {
				done <- err
				return
			}
		}
	}()
	seen := map[string]bool{}
	for len(seen) < 10 && !t.Failed() {
		values, err := read(storeInstance)
		if err != nil {
			t.Error(err)
		} else if len(values) != keys || slices.Min(values) != slices.Max(values) {
			t.Errorf("read %d values between %q and %q, want %d equal ones", len(values), slices.Min(values), slices.Max(values), keys)
		} else {
			seen[values[0]] = true
		}
	}
	close(stop)
	check(t, <-done)
}

// TestStore_GetAll_BeginsAnewAfterASharedTransactionThatFailed has a GetAll share its transaction with a Get whose statement is
// refused, and another program write in between.
func TestStore_GetAll_BeginsAnewAfterASharedTransactionThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		databasePath := filepath.Join(t.TempDir(), "store.db")
		var database *sql.DB
		var armed atomic.Bool
		storeInstance, err := openHooked(databasePath, func(connection sqlite.ExecQuerierContext) error {
			return connection.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(
				func(_ sqlite.AuthorizerActionCode, _, column, _, _ string) sqlite.AuthorizerReturnCode {
					switch {
					case !armed.Load():
					case column == "entry_value": // Get's statement is prepared
						armed.Store(false)
						execSQL(t, database, `DELETE FROM entries; INSERT INTO entries VALUES ('config', 'size', 'large', NULL)`)
						return sqlite.AuthorizerDeny
					case column == "group_name": // CountAll's is
						time.Sleep(time.Second)
					}
					return sqlite.AuthorizerOK
				})
		})
		check(t, err)
		defer storeInstance.Close()
		check(t, storeInstance.Set("config", "colour", "blue"))
		check(t, second(storeInstance.GetAll("config"))) // which prepares its statements
		database = openSQL(t, databasePath)
		queryInt(t, database, `SELECT count(*) FROM entries`)
		armed.Store(true)
		var calls sync.WaitGroup
		calls.Go(func() { noError(t, second(storeInstance.CountAll(""))) })
		synctest.Wait()
		var got map[string]string
		calls.Go(func() {
			var err error
			got, err = storeInstance.GetAll("config")
			noError(t, err)
		})
		synctest.Wait()
		calls.Go(func() { noError(t, second(storeInstance.Get("config", "size"))) })
		calls.Wait()
		if want := map[string]string{"size": "large"}; !maps.Equal(got, want) {
			t.Errorf("GetAll returned %q, want %q", got, want)
		}
	})
}

func TestStore_GetAll_IsOneSnapshot(t *testing.T) {
	checkSnapshots(t, func(storeInstance *store.Store) ([]string, error) {
		entries, err := storeInstance.GetAll("config")
		return slices.Collect(maps.Values(entries)), err
	})
}

func TestStore_Render_IsOneSnapshot(t *testing.T) {
	checkSnapshots(t, func(storeInstance *store.Store) ([]string, error) {
		text, err := storeInstance.Render("{{range .}}{{.}} {{end}}", "config")
		return strings.Fields(text), err
	})
}

func TestStore_Groups_AreInAscendingOrder(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		names := numberedNames(1500)
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		setAll(t, names, func(group string) error { return storeInstance.Set(group, "colour", "blue") })
		slices.Sort(names)
		checkList(t, "Groups", must[[]string](t)(storeInstance.Groups("")), names)
	})
}

func TestStore_Groups_NamesEachGroupOnce(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		setAll(t, numberedNames(2500), func(key string) error { return storeInstance.Set("config", key, "blue") })
		check(t, storeInstance.Set("prefs", "colour", "red"))
		want := []string{"config", "prefs"}
		checkList(t, "Groups", must[[]string](t)(storeInstance.Groups("")), want)
		checkList(t, "GroupsSeq", all(t, storeInstance.GroupsSeq("")), want)
	})
}

// Entries: costs

// checkCost measures each call before and after grow, which adds what the call must not pay for.
func checkCost(t *testing.T, calls map[string]func() error, grow func()) {
	t.Helper()
	measure := func() map[string]time.Duration {
		times := map[string]time.Duration{}
		for name, call := range calls {
			times[name] = fastest(20, func() { check(t, call()) })
		}
		return times
	}
	before := measure()
	grow()
	// A scan of what was added costs a hundred times as much.
	for name, after := range measure() {
		if after > 20*before[name] {
			t.Errorf("%s took %v before and %v after", name, before[name], after)
		}
	}
}

func TestStore_Prefixes_CostFollowsWhatMatches(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	insertRows(t, database, "tenant-b:group-%d", "colour", 50, nil)
	checkCost(t, map[string]func() error{
		"CountAll": func() error {
			count, err := storeInstance.CountAll("tenant-b:")
			checkEqual(t, "CountAll", count, 50)
			return err
		},
		"Groups": func() error {
			groups, err := storeInstance.Groups("tenant-b:")
			checkEqual(t, "len(Groups)", len(groups), 50)
			return err
		},
		"GroupsSeq": func() error {
			groups, err := drain(t, storeInstance.GroupsSeq("tenant-b:"))
			checkEqual(t, "groups from GroupsSeq", len(groups), 50)
			return err
		},
	}, func() {
		insertRows(t, database, "tenant-a:group-%d", "colour", 6000, nil)
		insertRows(t, database, "tenant-c:group-%d", "colour", 6000, nil)
	})
}

func TestStore_Groups_CostFollowsTheGroups(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	insertRows(t, database, "group-%d", "colour", 10, nil)
	checkCost(t, map[string]func() error{
		"Groups": func() error {
			groups, err := storeInstance.Groups("")
			checkEqual(t, "len(Groups)", len(groups), 10)
			return err
		},
	}, func() {
		for group := 1; group <= 10; group++ {
			insertRows(t, database, "group-"+strconv.Itoa(group), "key-%07d", 1500, nil)
		}
	})
}

// Streams

// streams are the two sequences, as the names that they yield.
var streams = []struct {
	name        string
	open        func(storeInstance *store.Store) iter.Seq2[string, error]
	set, remove func(storeInstance *store.Store, name string) error
}{
	{
		"All",
		func(storeInstance *store.Store) iter.Seq2[string, error] {
			entries := storeInstance.All("config")
			return func(yield func(string, error) bool) {
				for entry, err := range entries {
					if !yield(entry.Key, err) {
						return
					}
				}
			}
		},
		func(storeInstance *store.Store, name string) error { return storeInstance.Set("config", name, "blue") },
		func(storeInstance *store.Store, name string) error { return storeInstance.Delete("config", name) },
	},
	{
		"GroupsSeq",
		func(storeInstance *store.Store) iter.Seq2[string, error] { return storeInstance.GroupsSeq("") },
		func(storeInstance *store.Store, name string) error { return storeInstance.Set(name, "colour", "blue") },
		func(storeInstance *store.Store, name string) error { return storeInstance.DeleteGroup(name) },
	},
}

// streamTest is one stream of one store that yields names.
type streamTest struct {
	storeInstance *store.Store
	sequence      iter.Seq2[string, error]
	set, remove   func(name string) error
}

// onEachStream runs test on either stream of either kind of store, filled with names.
func onEachStream(t *testing.T, names []string, test func(t *testing.T, stream streamTest)) {
	for _, stream := range streams {
		t.Run(stream.name, func(t *testing.T) {
			onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
				bound := streamTest{
					storeInstance: storeInstance,
					sequence:      stream.open(storeInstance),
					set:           func(name string) error { return stream.set(storeInstance, name) },
					remove:        func(name string) error { return stream.remove(storeInstance, name) },
				}
				setAll(t, names, bound.set)
				test(t, bound)
			})
		})
	}
}

// checkUsable writes and reads from this goroutine, which hangs if the stream left something taken.
func (stream streamTest) checkUsable(t testing.TB) {
	t.Helper()
	check(t, stream.storeInstance.Set("zz", "colour", "blue"))
	checkValue(t, stream.storeInstance, "zz", "colour", "blue")
	check(t, stream.storeInstance.DeleteGroup("zz"))
}

func TestStore_Streams_AscendInByteOrder(t *testing.T) {
	names := slices.Clone(awkwardNames)
	generator := rand.New(rand.NewPCG(3, 4))
	for range 1500 {
		name := make([]byte, generator.IntN(6))
		for index := range name {
			name[index] = byte(generator.Uint32())
		}
		names = append(names, string(name))
	}
	onEachStream(t, names, func(t *testing.T, stream streamTest) {
		want := slices.Compact(slices.Sorted(slices.Values(names)))
		checkList(t, "the stream", all(t, stream.sequence), want)
	})
}

func TestStore_Streams_YieldManyPages(t *testing.T) {
	names := numberedNames(2000)
	onEachStream(t, names, func(t *testing.T, stream streamTest) {
		checkList(t, "the stream", all(t, stream.sequence), names)
	})
}

// TestStore_Streams_MissNoImmediateSuccessor makes every name the least that can follow the one before, so that a page
// that began any later would miss one.
func TestStore_Streams_MissNoImmediateSuccessor(t *testing.T) {
	names := make([]string, 1000)
	for index := range names {
		names[index] = strings.Repeat("\x00", index)
	}
	onEachStream(t, names, func(t *testing.T, stream streamTest) {
		checkList(t, "the stream", all(t, stream.sequence), names)
	})
}

func TestStore_Streams_OfNothingYieldNothing(t *testing.T) {
	onEachStream(t, nil, func(t *testing.T, stream streamTest) {
		for name, err := range stream.sequence {
			t.Fatalf("an empty store yielded %q, %v", name, err)
		}
	})
}

func TestStore_Streams_StopEarly(t *testing.T) {
	names := numberedNames(1200)
	onEachStream(t, names, func(t *testing.T, stream streamTest) {
		for _, stop := range []int{1, 2, 700} {
			var got []string
			for name, err := range stream.sequence {
				check(t, err)
				if got = append(got, name); len(got) == stop {
					break
				}
			}
			checkList(t, "the stopped stream", got, names[:stop])
			stream.checkUsable(t)
		}
	})
}

func TestStore_Streams_CanBeRangedOverAgain(t *testing.T) {
	onEachStream(t, []string{"a", "b"}, func(t *testing.T, stream streamTest) {
		checkList(t, "the first round", all(t, stream.sequence), []string{"a", "b"})
		check(t, stream.set("c"))
		check(t, stream.remove("a"))
		checkList(t, "the second round", all(t, stream.sequence), []string{"b", "c"})
	})
}

func TestStore_Streams_CanBeRangedOverTwiceAtOnce(t *testing.T) {
	names := numberedNames(600)
	onEachStream(t, names, func(t *testing.T, stream streamTest) {
		next, stop := iter.Pull2(stream.sequence)
		defer stop()
		for name, err := range stream.sequence {
			check(t, err)
			other, err, _ := next()
			check(t, err)
			checkEqual(t, "the other round", other, name)
		}
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				if got, err := drain(t, stream.sequence); err != nil || !slices.Equal(got, names) {
					t.Errorf("a concurrent round gave %d names and %v, want %d", len(got), err, len(names))
				}
			})
		}
		group.Wait()
	})
}

func TestStore_Streams_StartWhenRangedOver(t *testing.T) {
	onEachStream(t, nil, func(t *testing.T, stream streamTest) {
		check(t, stream.set("a"))
		checkList(t, "the stream", all(t, stream.sequence), []string{"a"})
	})
}

func TestStore_Streams_SurviveAPanicInTheLoop(t *testing.T) {
	onEachStream(t, numberedNames(600), func(t *testing.T, stream streamTest) {
		func() {
			defer func() { checkEqual[any](t, "recover()", recover(), "in the loop") }()
			for range stream.sequence {
				panic("in the loop")
			}
		}()
		stream.checkUsable(t)
		checkEqual(t, "names afterwards", len(all(t, stream.sequence)), 600)
	})
}

func TestStore_Streams_SurviveGoexitInTheLoop(t *testing.T) {
	onEachStream(t, numberedNames(600), func(t *testing.T, stream streamTest) {
		var group sync.WaitGroup
		group.Go(func() {
			for range stream.sequence {
				runtime.Goexit()
			}
		})
		group.Wait()
		stream.checkUsable(t)
		checkEqual(t, "names afterwards", len(all(t, stream.sequence)), 600)
	})
}

func TestStore_Streams_MayDeleteWhatTheyYield(t *testing.T) {
	names := numberedNames(1000)
	onEachStream(t, names, func(t *testing.T, stream streamTest) {
		var got []string
		for name, err := range stream.sequence {
			check(t, err)
			got = append(got, name)
			check(t, stream.remove(name))
		}
		checkList(t, "the deleting stream", got, names)
		checkEqual(t, "CountAll", must[int](t)(stream.storeInstance.CountAll("")), 0)
	})
}

func TestStore_Streams_MissNothingThatStaysUntouched(t *testing.T) {
	names := numberedNames(1000)
	onEachStream(t, names, func(t *testing.T, stream streamTest) {
		generator := rand.New(rand.NewPCG(5, 6))
		touched := map[string]bool{}
		var got []string
		for name, err := range stream.sequence {
			check(t, err)
			got = append(got, name)
			if generator.IntN(8) > 0 {
				continue
			}
			other := names[generator.IntN(len(names))]
			touched[other] = true
			check(t, stream.remove(other))
			// One behind the stream and one before it.
			check(t, stream.set(name[:len(name)-1]))
			check(t, stream.set(name+"!"))
		}
		for index := 1; index < len(got); index++ {
			if got[index-1] >= got[index] {
				t.Fatalf("%q came before %q", got[index-1], got[index])
			}
		}
		for _, name := range names {
			if _, found := slices.BinarySearch(got, name); !found && !touched[name] {
				t.Fatalf("%q stayed untouched and was missed", name)
			}
		}
	})
}

func TestStore_Streams_AllowEveryMethodInTheLoop(t *testing.T) {
	onEachStream(t, []string{"a", "b", "c"}, func(t *testing.T, stream streamTest) {
		storeInstance := stream.storeInstance
		check(t, storeInstance.SetWithTTL("expired", "colour", "blue", 0))
		rounds := 0
		for _, err := range stream.sequence {
			check(t, err)
			rounds++
			for _, method := range writingMethods {
				check(t, method.call(storeInstance, "other", "colour", "blue"))
			}
			check(t, storeInstance.Set("other", "colour", "blue"))
			for _, method := range readingMethods {
				check(t, method.call(t, storeInstance, "other", "colour"))
			}
			must[int64](t)(storeInstance.PurgeExpired())
			watcher := storeInstance.Watch("*", "*")
			unregister := storeInstance.OnChange(func(store.Event) {
				_, err := storeInstance.Count("other")
				check(t, err)
			})
			scopedStore := must[*store.ScopedStore](t)(store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 1}))
			check(t, scopedStore.Set("prefs", "locale", "en-GB"))
			checkList(t, "Groups of the scope", all(t, scopedStore.GroupsSeq("")), []string{"prefs"})
			unregister()
			storeInstance.Unwatch(watcher)
			check(t, storeInstance.DeleteGroup("config"))
			check(t, storeInstance.DeleteGroup("other"))
			check(t, scopedStore.DeleteGroup("prefs"))
			check(t, stream.set("c"))
		}
		if rounds == 0 {
			t.Fatal("the stream yielded nothing")
		}
		stream.checkUsable(t)
	})
}

func TestStore_Streams_MayCloseTheStoreInTheLoop(t *testing.T) {
	names := numberedNames(2000)
	onEachStream(t, names, func(t *testing.T, stream streamTest) {
		var failures []error
		for _, err := range stream.sequence {
			if err != nil {
				failures = append(failures, err)
				continue
			}
			if len(failures) > 0 {
				t.Fatal("the stream went on after its error")
			}
			check(t, stream.storeInstance.Close())
		}
		if len(failures) != 1 || !errors.Is(failures[0], os.ErrClosed) {
			t.Fatalf("closed in its loop the stream gave the errors %v, want one os.ErrClosed", failures)
		}
	})
}

// TestStore_Streams_HoldNoTransactionInTheLoop asks another connection for a checkpoint, which is whole only while
// nobody reads.
func TestStore_Streams_HoldNoTransactionInTheLoop(t *testing.T) {
	for _, stream := range streams {
		t.Run(stream.name, func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			database := openSQL(t, databasePath)
			execSQL(t, database, "PRAGMA busy_timeout = 0")
			setAll(t, numberedNames(2000), func(name string) error { return stream.set(storeInstance, name) })
			rounds := 0
			for name, err := range stream.open(storeInstance) {
				check(t, err)
				if rounds++; rounds%500 != 1 {
					continue
				}
				check(t, storeInstance.Set("zz", "colour", name))
				var busy, frames, copied int
				check(t, database.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &copied))
				checkEqual(t, "busy flag of a checkpoint in the loop", busy, 0)
			}
		})
	}
}

// TestStore_Streams_YieldAnErrorOnceAndLast takes the table away in the middle.
func TestStore_Streams_YieldAnErrorOnceAndLast(t *testing.T) {
	for _, stream := range streams {
		t.Run(stream.name, func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			database := openSQL(t, databasePath)
			setAll(t, numberedNames(2000), func(name string) error { return stream.set(storeInstance, name) })
			yielded, failures := 0, 0
			for _, err := range stream.open(storeInstance) {
				if failures > 0 {
					t.Fatal("the stream went on after its error")
				}
				if err != nil {
					failures++
					wantErrorText(t, err, "store."+stream.name+": ", "entries")
					continue
				}
				if yielded++; yielded == 1 {
					execSQL(t, database, "ALTER TABLE entries RENAME TO moved")
				}
			}
			execSQL(t, database, "ALTER TABLE moved RENAME TO entries")
			checkEqual(t, "errors of the stream", failures, 1)
			checkEqual(t, "names afterwards", len(all(t, stream.open(storeInstance))), 2000)
		})
	}
}

func TestStore_All_YieldsEntriesBiggerThanAPage(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		for index, length := range []int{0, 3 << 20, 1, 2 << 20, 2 << 20, 10} {
			check(t, storeInstance.Set("config", strconv.Itoa(index), strings.Repeat(strconv.Itoa(index), length)))
		}
		entries := all(t, storeInstance.All("config"))
		checkEqual(t, "entries from All", len(entries), 6)
		for index, entry := range entries {
			checkEqual(t, "key from All", entry.Key, strconv.Itoa(index))
			checkValue(t, storeInstance, "config", entry.Key, entry.Value)
		}
	})
}

// checkStreamMemory fills a store with 32 names or values of 512 KiB and looks at the heap while the stream goes by.
func checkStreamMemory[Item any](t *testing.T, set func(storeInstance *store.Store, index int, text string) error,
	open func(storeInstance *store.Store) iter.Seq2[Item, error]) {
	t.Helper()
	storeInstance := newMemoryStore(t)
	for index := range 32 {
		check(t, set(storeInstance, index, string(bytes.Repeat([]byte{byte(index)}, 512<<10))))
	}
	heap := func() int64 {
		runtime.GC()
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		return int64(memory.HeapAlloc)
	}
	before, peak, yielded := heap(), int64(0), 0
	for _, err := range open(storeInstance) {
		check(t, err)
		if yielded++; yielded%4 == 1 {
			peak = max(peak, heap()-before)
		}
	}
	checkEqual(t, "yielded", yielded, 32)
	if peak > 8<<20 {
		t.Fatalf("a stream of 16 MiB held %d bytes at once", peak)
	}
}

func TestStore_All_HoldsOneBoundedPage(t *testing.T) {
	checkStreamMemory(t,
		func(storeInstance *store.Store, index int, text string) error {
			return storeInstance.Set("config", strconv.Itoa(index), text)
		},
		func(storeInstance *store.Store) iter.Seq2[store.KeyValue, error] { return storeInstance.All("config") })
}

func TestStore_GroupsSeq_HoldsOneBoundedPage(t *testing.T) {
	checkStreamMemory(t,
		func(storeInstance *store.Store, _ int, text string) error {
			return storeInstance.Set(text, "colour", "blue")
		},
		func(storeInstance *store.Store) iter.Seq2[string, error] { return storeInstance.GroupsSeq("") })
}

// Rendering

func TestStore_Render_UsesTextTemplateDefaults(t *testing.T) {
	storeInstance := newMemoryStore(t)
	check(t, storeInstance.Set("config", "colour", "<b>blue</b> & co"))
	check(t, storeInstance.Set("config", "two words", "{{.colour}}"))
	for _, test := range []struct{ source, group, want string }{
		{"", "config", ""},
		{"no action", "config", "no action"},
		{"The colour is {{.colour}}.", "config", "The colour is <b>blue</b> & co."},
		{`{{index . "two words"}}`, "config", "{{.colour}}"},
		{"{{.absent}}", "config", "<no value>"},
		{`{{index . "absent"}}`, "config", ""},
		{"{{len .}}", "config", "2"},
		{"{{.colour | html}}", "config", "&lt;b&gt;blue&lt;/b&gt; &amp; co"},
		{`{{define "part"}}[{{.}}]{{end}}{{template "part" .colour}}`, "config", "[<b>blue</b> & co]"},
		{"{{range .}}x{{else}}nothing{{end}}", "missing", "nothing"},
		{"{{.colour}}", "missing", "<no value>"},
	} {
		got, err := storeInstance.Render(test.source, test.group)
		if err != nil || got != test.want {
			t.Errorf("Render(%q, %q) = %q, %v; want %q", test.source, test.group, got, err, test.want)
		}
	}
}

func TestStore_Render_SaysWhereItFailed(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("config", "colour", "blue"))
		for _, test := range []struct{ source, want string }{
			{"before {{", "store.Render: parse: "},
			{"before {{unknown}}", "store.Render: parse: "},
			{"before {{end}}", "store.Render: parse: "},
			{`before {{template "unknown"}}`, "store.Render: exec: "},
			{"before {{.colour.shade}}", "store.Render: exec: "},
			{"before {{slice .colour 99}}", "store.Render: exec: "},
			{"before {{call .colour}}", "store.Render: exec: "},
		} {
			got, err := storeInstance.Render(test.source, "config")
			checkEqual(t, fmt.Sprintf("Render(%q)", test.source), got, "")
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || len(err.Error()) == len(test.want) {
				t.Errorf("Render(%q): error %v, want %q and what failed", test.source, err, test.want)
			}
		}
	})
}

// TestStore_Render_QuotesNoValue fails a template at the places where text/template puts its data into the error.
func TestStore_Render_QuotesNoValue(t *testing.T) {
	const secret = "abc123-secret"
	storeInstance := newMemoryStore(t)
	check(t, storeInstance.Set("session", "token", secret))
	for _, source := range []string{
		"{{range .token}}{{end}}",
		"{{range $character := .token}}{{end}}",
		"{{range $index, $character := .token}}{{end}}",
		"{{eq . .}}",
		"{{eq .token .}}",
		"{{ne . 1}}",
		"{{lt . .}}",
		"{{.token.shade}}",
		"{{call .token}}",
		"{{index .token .token}}",
		"{{slice .token .token}}",
		"{{slice .token 1 99}}",
		"{{and .token (index .token .token)}}",
		`{{template "unknown" .token}}`,
		"{{with $token := .token}}{{$token.shade}}{{end}}",
		"{{.token}} {{.token.shade}}",
		"{{$token := .token}}{{range $token}}{{end}}",
		"{{len 1 | .token}}",
	} {
		got, err := storeInstance.Render(source, "session")
		if err == nil {
			if strings.Contains(source, "eq") || strings.Contains(source, "ne") || strings.HasPrefix(source, "{{range") {
				continue // Go versions differ in what they can compare and range over.
			}
			t.Errorf("Render(%q) = %q, want an error", source, got)
			continue
		}
		checkEqual(t, fmt.Sprintf("Render(%q)", source), got, "")
		wantErrorText(t, err, "store.Render: exec: ")
		wantNoText(t, err, secret)
	}
}

// Expiry

var oddDurations = []time.Duration{1, 999, time.Microsecond, 999_999, time.Millisecond, time.Millisecond + 1, time.Second - 1, time.Second, 59*time.Second + 123_456, time.Hour + 1}

func TestStore_SetWithTTL_IsNeverShorter(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, offset := range []time.Duration{0, 1, 500_000, 999_999} {
			for _, ttl := range oddDurations {
				time.Sleep(offset)
				check(t, storeInstance.SetWithTTL("session", "token", "abc123", ttl))
				time.Sleep(ttl - 1)
				checkGroup(t, storeInstance, "session", map[string]string{"token": "abc123"})
			}
		}
	})
}

func TestStore_SetWithTTL_IsAtMostOneMillisecondLonger(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, offset := range []time.Duration{0, 1, 500_000, 999_999} {
			for _, ttl := range oddDurations {
				time.Sleep(offset)
				check(t, storeInstance.SetWithTTL("session", "token", "abc123", ttl))
				time.Sleep(ttl + time.Millisecond)
				checkExpired(t, storeInstance, "session", "token")
			}
		}
	})
}

// checkExpired asks every reading method for the one entry of a group, Get last, which may delete it.
func checkExpired(t testing.TB, storeInstance *store.Store, group, key string) {
	t.Helper()
	checkGroup(t, storeInstance, group, nil)
	_, err := storeInstance.GetSplit(group, key, ",")
	wantErrorIs(t, err, store.NotFoundError)
	_, err = storeInstance.GetFields(group, key)
	wantErrorIs(t, err, store.NotFoundError)
	checkMissing(t, storeInstance, group, key)
}

func TestStore_SetWithTTL_ZeroIsExpired(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, offset := range []time.Duration{0, 1, 500_000, 499_999} {
			time.Sleep(offset)
			for _, ttl := range []time.Duration{0, -1, -time.Millisecond, -time.Hour, math.MinInt64} {
				check(t, storeInstance.SetWithTTL("session", "token", "abc123", ttl))
				checkExpired(t, storeInstance, "session", "token")
			}
		}
	})
}

func TestStore_SetWithTTL_ZeroReplacesTheValue(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, ttl := range []time.Duration{0, -1, math.MinInt64} {
			check(t, storeInstance.Set("session", "token", "abc123"))
			check(t, storeInstance.SetWithTTL("session", "token", "def456", ttl))
			checkExpired(t, storeInstance, "session", "token")
		}
	})
}

func TestStore_SetWithTTL_LongestDurationDoesNotOverflow(t *testing.T) {
	withClockedFile(t, func(t *testing.T, storeInstance *store.Store, database *sql.DB) {
		for ttl, key := range map[time.Duration]string{math.MaxInt64: "longest", math.MaxInt64 - 1: "longest but one"} {
			check(t, storeInstance.SetWithTTL("session", key, "abc123", ttl))
			want := time.Now().Add(ttl).UnixMilli()
			var expiresAt int64
			check(t, database.QueryRow("SELECT expires_at FROM entries WHERE entry_key = ?1", key).Scan(&expiresAt))
			if expiresAt < want || expiresAt > want+1 {
				t.Fatalf("SetWithTTL(…, %d): expires_at = %d, want %d or one more", ttl, expiresAt, want)
			}
		}
		time.Sleep(24 * time.Hour)
		checkGroup(t, storeInstance, "session", map[string]string{"longest": "abc123", "longest but one": "abc123"})
	})
}

func TestStore_Set_ClearsTheTTL(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.SetWithTTL("session", "token", "abc123", time.Minute))
		time.Sleep(time.Second)
		check(t, storeInstance.Set("session", "token", "abc123"))
		time.Sleep(time.Hour)
		checkGroup(t, storeInstance, "session", map[string]string{"token": "abc123"})
	})
}

func TestStore_Set_RevivesAnExpiredEntry(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.SetWithTTL("session", "token", "abc123", time.Second))
		time.Sleep(2 * time.Second)
		check(t, storeInstance.Set("session", "token", "def456"))
		checkGroup(t, storeInstance, "session", map[string]string{"token": "def456"})
	})
}

func TestStore_SetWithTTL_ReplacesTheTTL(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.SetWithTTL("session", "longer", "abc123", time.Second))
		check(t, storeInstance.SetWithTTL("session", "longer", "abc123", time.Hour))
		check(t, storeInstance.SetWithTTL("session", "shorter", "abc123", time.Hour))
		check(t, storeInstance.SetWithTTL("session", "shorter", "abc123", time.Second))
		check(t, storeInstance.Set("session", "given", "abc123"))
		check(t, storeInstance.SetWithTTL("session", "given", "abc123", time.Second))
		time.Sleep(2 * time.Second)
		checkGroup(t, storeInstance, "session", map[string]string{"longer": "abc123"})
	})
}

func TestStore_Reads_SkipTheExpiredAmongTheLiving(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		want := map[string]string{}
		for index, key := range numberedNames(50) {
			if index%2 == 0 {
				check(t, storeInstance.SetWithTTL("session", key, "abc123", time.Duration(index)*time.Millisecond))
			} else {
				check(t, storeInstance.SetWithTTL("session", key, "abc123", time.Hour))
				want[key] = "abc123"
			}
			check(t, storeInstance.SetWithTTL("gone-"+key, key, "abc123", time.Second))
		}
		time.Sleep(2 * time.Second)
		checkGroup(t, storeInstance, "session", want)
		checkList(t, "Groups", must[[]string](t)(storeInstance.Groups("")), []string{"session"})
		checkList(t, "GroupsSeq", all(t, storeInstance.GroupsSeq("")), []string{"session"})
		checkEqual(t, "CountAll", must[int](t)(storeInstance.CountAll("")), len(want))
	})
}

func TestStore_SetWithTTL_SurvivesReopening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		check(t, storeInstance.SetWithTTL("session", "token", "abc123", 10*time.Second))
		check(t, storeInstance.Close())
		time.Sleep(10*time.Second - 1)
		storeInstance = openStore(t, databasePath)
		checkGroup(t, storeInstance, "session", map[string]string{"token": "abc123"})
		check(t, storeInstance.Close())
		time.Sleep(time.Millisecond + 1)
		checkExpired(t, openStore(t, databasePath), "session", "token")
	})
}

// TestStore_SetWithTTL_CountsFromTheCall lets the write wait for another program's lock.
func TestStore_SetWithTTL_CountsFromTheCall(t *testing.T) {
	withClockedFile(t, func(t *testing.T, storeInstance *store.Store, database *sql.DB) {
		execSQL(t, database, "BEGIN IMMEDIATE")
		written := make(chan error, 2)
		start := time.Now()
		go func() { written <- storeInstance.SetWithTTL("session", "token", "abc123", 10*time.Second) }()
		go func() { written <- storeInstance.SetWithTTL("brief", "token", "abc123", 2*time.Second) }()
		time.Sleep(3 * time.Second)
		execSQL(t, database, "ROLLBACK")
		check(t, <-written)
		check(t, <-written)
		checkExpired(t, storeInstance, "brief", "token")
		time.Sleep(time.Until(start.Add(10*time.Second - 1)))
		checkGroup(t, storeInstance, "session", map[string]string{"token": "abc123"})
		time.Sleep(time.Millisecond + 1)
		checkExpired(t, storeInstance, "session", "token")
	})
}

func TestStore_Get_DeletesTheExpiredEntry(t *testing.T) {
	withClockedFile(t, func(t *testing.T, storeInstance *store.Store, database *sql.DB) {
		check(t, storeInstance.SetWithTTL("session", "token", "abc123", time.Second))
		check(t, storeInstance.SetWithTTL("session", "other", "abc123", time.Second))
		time.Sleep(2 * time.Second)
		checkEqual(t, "rows before Get", countRows(t, database), 2)
		checkMissing(t, storeInstance, "session", "token")
		checkEqual(t, "rows after Get", countRows(t, database), 1)
	})
}

// TestStore_Get_DeletesNothingThatIsAlive lets a value be written between the read that finds the old one expired and
// its lazy delete.
func TestStore_Get_DeletesNothingThatIsAlive(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	byAnother := func(value string) error {
		_, err := database.Exec(`INSERT INTO entries (group_name, entry_key, entry_value) VALUES ('session', 'token', ?1)
			ON CONFLICT DO UPDATE SET entry_value = excluded.entry_value, expires_at = NULL`, value)
		return err
	}
	byStore := func(value string) error { return storeInstance.Set("session", "token", value) }
	for round := range 400 {
		write := byStore
		if round%2 == 0 {
			write = byAnother
		}
		check(t, storeInstance.SetWithTTL("session", "token", "expired", 0))
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() { _, _ = storeInstance.Get("session", "token") })
		}
		value := strconv.Itoa(round)
		check(t, write(value))
		group.Wait()
		checkValue(t, storeInstance, "session", "token", value)
	}
}

// TestStore_Get_AnswersThoughTheLazyDeleteFails takes the write lock or refuses the delete.
func TestStore_Get_AnswersThoughTheLazyDeleteFails(t *testing.T) {
	for _, obstacle := range obstacles {
		t.Run(obstacle.name, func(t *testing.T) {
			withClockedFile(t, func(t *testing.T, storeInstance *store.Store, database *sql.DB) {
				check(t, storeInstance.SetWithTTL("session", "token", "abc123", time.Second))
				time.Sleep(2 * time.Second)
				execSQL(t, database, obstacle.place)
				start := time.Now()
				checkMissing(t, storeInstance, "session", "token")
				_, err := storeInstance.GetSplit("session", "token", ",")
				wantErrorIs(t, err, store.NotFoundError)
				_, err = storeInstance.GetFields("session", "token")
				wantErrorIs(t, err, store.NotFoundError)
				checkEqual(t, "time that Get waited", time.Since(start), 0)
				checkEqual(t, "rows while it cannot be deleted", countRows(t, database), 1)
				execSQL(t, database, obstacle.remove)
				checkMissing(t, storeInstance, "session", "token")
				checkEqual(t, "rows afterwards", countRows(t, database), 0)
			})
		})
	}
}

// TestStore_Get_RemovesAllThatHasExpired reads expired entries one by one and at the same time: they are gone, however long the
// log has become, and while somebody else reads.
func TestStore_Get_RemovesAllThatHasExpired(t *testing.T) {
	const expired = 1_000
	for _, workers := range []int{1, 8, 64} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			database := openSQL(t, databasePath)
			insertRows(t, database, "session", "%d", expired, 1)
			concurrently(workers, func(worker int) {
				for number := worker + 1; number <= expired; number += workers {
					if _, err := storeInstance.Get("session", strconv.Itoa(number)); !errors.Is(err, store.NotFoundError) {
						t.Errorf("Get: %v", err)
					}
				}
			})
			checkEqual(t, "rows", countRows(t, database), 0)
		})
	}
}

// TestStore_Get_HasNoLogMerged finds what has expired when SQLite would merge the log with the next commit.
func TestStore_Get_HasNoLogMerged(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	check(t, storeInstance.SetWithTTL("session", "token", "abc123", 0))
	execSQL(t, database, "PRAGMA wal_autocheckpoint = 0")
	execSQL(t, database, "INSERT INTO entries VALUES ('config', 'large', hex(zeroblob(2500000)), NULL)")
	checkMissing(t, storeInstance, "session", "token")
	if merged := loggedPages(t, database, 2); merged != 0 {
		t.Errorf("a Get waited until %d pages of the log were merged", merged)
	}
	checkEqual(t, "rows", countRows(t, database), 1)
	check(t, storeInstance.Set("config", "colour", "blue"))
	if loggedPages(t, database, 1) != loggedPages(t, database, 2) {
		t.Error("the next write has not had the log merged")
	}
}

// TestStore_Get_HasNoLogMergedThatOthersRead is the same where other programs read without a gap: nearly all of the log has
// been merged, but it cannot begin anew, and is so long that SQLite merges what each commit adds.
func TestStore_Get_HasNoLogMergedThatOthersRead(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	read := func() (end func()) {
		reader := openSQL(t, databasePath)
		execSQL(t, reader, "BEGIN")
		countRows(t, reader)
		return func() { execSQL(t, reader, "COMMIT") }
	}
	for _, token := range []string{"first", "second", "third"} {
		check(t, storeInstance.SetWithTTL("session", token, "abc123", 0))
	}
	end := read()
	check(t, storeInstance.Set("config", "large", strings.Repeat("x", 5_000_000)))
	for _, colour := range []string{"blue", "green"} { // the first is merged once the second reader has begun
		next := read()
		end()
		end = next
		check(t, storeInstance.Set("config", "colour", colour))
	}
	defer read()()
	end()
	merged := loggedPages(t, database, 2)
	for _, token := range []string{"first", "second", "third"} {
		checkMissing(t, storeInstance, "session", token)
		if pages := loggedPages(t, database, 2) - merged; pages != 0 {
			t.Errorf("the Get of the %s token waited until %d pages of the log were merged", token, pages)
		}
	}
	checkEqual(t, "rows", countRows(t, database), 2)
}

// TestStore_Get_LeavesALongLog finds what has expired where nobody has had the log merged for long.
func TestStore_Get_LeavesALongLog(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	check(t, storeInstance.SetWithTTL("session", "token", "abc123", 0))
	execSQL(t, database, "PRAGMA wal_autocheckpoint = 0")
	execSQL(t, database, "INSERT INTO entries VALUES ('config', 'large', hex(zeroblob(34000000)), NULL)")
	pages := loggedPages(t, database, 1)
	checkMissing(t, storeInstance, "session", "token")
	checkEqual(t, "pages of the log", loggedPages(t, database, 1), pages)
	check(t, storeInstance.Set("config", "colour", "blue"))
	checkMissing(t, storeInstance, "session", "token")
	checkEqual(t, "rows", countRows(t, database), 2)
}

// loggedPages returns a column of what SQLite says of the log: its pages are in the second, those merged in the third.
func loggedPages(t testing.TB, database *sql.DB, column int) int {
	t.Helper()
	var columns [3]int
	check(t, database.QueryRow("PRAGMA wal_checkpoint(NOOP)").Scan(&columns[0], &columns[1], &columns[2]))
	return columns[column]
}

// obstacles keep rows from being deleted.
var obstacles = []struct{ name, place, remove string }{
	{"write lock", "BEGIN IMMEDIATE", "ROLLBACK"},
	{"trigger", "CREATE TRIGGER refuse BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'refused'); END", "DROP TRIGGER refuse"},
}

func TestStore_Streams_SkipWhatExpiresMeanwhile(t *testing.T) {
	for _, stream := range streams {
		t.Run(stream.name, func(t *testing.T) {
			onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
				for index, name := range numberedNames(10) {
					group, key := "config", name
					if stream.name == "GroupsSeq" {
						group, key = name, "colour"
					}
					check(t, storeInstance.SetWithTTL(group, key, "blue", time.Duration(1+index)*time.Second))
				}
				var got []string
				for name, err := range stream.open(storeInstance) {
					check(t, err)
					got = append(got, name)
					time.Sleep(1999 * time.Millisecond)
				}
				// Before the yields 0, 1.999, 3.998, 5.997, 7.996 and 9.995 s have gone by.
				checkList(t, "the stream", got, []string{"name-000000", "name-000001", "name-000003", "name-000005", "name-000007", "name-000009"})
			})
		})
	}
}

func TestStore_GroupsSeq_KeepsAGroupWithOneLivingEntry(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("a", "colour", "blue"))
		check(t, storeInstance.SetWithTTL("b", "colour", "blue", time.Second))
		check(t, storeInstance.Set("b", "shape", "round"))
		check(t, storeInstance.Set("c", "colour", "blue"))
		check(t, storeInstance.SetWithTTL("c", "shape", "round", time.Second))
		var got []string
		for group, err := range storeInstance.GroupsSeq("") {
			check(t, err)
			got = append(got, group)
			time.Sleep(2 * time.Second)
		}
		checkList(t, "GroupsSeq", got, []string{"a", "b", "c"})
	})
}

// Expiry: purging

func TestStore_PurgeExpired_CountsWhatItRemoves(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, expired := range []int{0, 1, 2500} {
			names := numberedNames(expired)
			setAll(t, names, func(key string) error { return storeInstance.SetWithTTL("session", key, "abc123", time.Second) })
			check(t, storeInstance.SetWithTTL("session", "living", "abc123", time.Hour))
			check(t, storeInstance.Set("session", "eternal", "abc123"))
			time.Sleep(2 * time.Second)
			checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), int64(expired))
			checkEqual(t, "PurgeExpired again", must[int64](t)(storeInstance.PurgeExpired()), 0)
			checkGroup(t, storeInstance, "session", map[string]string{"living": "abc123", "eternal": "abc123"})
		}
	})
}

func TestStore_PurgeExpired_RemovesTheRows(t *testing.T) {
	withClockedFile(t, func(t *testing.T, storeInstance *store.Store, database *sql.DB) {
		now := time.Now().UnixMilli()
		insertRows(t, database, "expired-%d", "key-%d", 5000, now)
		insertRows(t, database, "living-%d", "key-%d", 10, now+1)
		insertRows(t, database, "eternal-%d", "key-%d", 10, nil)
		checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), 5000)
		checkEqual(t, "rows afterwards", countRows(t, database), 20)
	})
}

func TestStore_PurgeExpired_ReportsItsFailure(t *testing.T) {
	for _, obstacle := range obstacles {
		t.Run(obstacle.name, func(t *testing.T) {
			withClockedFile(t, func(t *testing.T, storeInstance *store.Store, database *sql.DB) {
				check(t, storeInstance.SetWithTTL("session", "token", "abc123", 0))
				execSQL(t, database, obstacle.place)
				_, err := storeInstance.PurgeExpired()
				wantErrorText(t, err, "store.PurgeExpired: ")
				execSQL(t, database, obstacle.remove)
				checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), 1)
			})
		})
	}
}

func TestStore_PurgeExpired_CountsWhatIsGoneWhenItFails(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	execSQL(t, database, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)
		INSERT INTO entries (rowid, group_name, entry_key, entry_value, expires_at) SELECT i * 1000, 'session', i, '', 1 FROM n;
		CREATE TRIGGER keep BEFORE DELETE ON entries WHEN old.entry_key = '8' BEGIN SELECT RAISE(ABORT, 'kept'); END`)
	removed, err := storeInstance.PurgeExpired()
	wantErrorText(t, err, "store.PurgeExpired: ", "kept")
	if left := int64(queryInt(t, database, `SELECT count(*) FROM entries`)); removed != 10-left {
		t.Errorf("PurgeExpired says that it removed %d of 10 entries, %d are left", removed, left)
	}
	execSQL(t, database, `DROP TRIGGER keep`)
	more, err := storeInstance.PurgeExpired()
	check(t, err)
	if removed+more != 10 {
		t.Errorf("PurgeExpired removed %d and then %d of 10 entries", removed, more)
	}
}

// TestStore_PurgeExpired_WaitsFiveSecondsInAll has another connection lock the file twice for three seconds, before the first
// batch and between two. Whether it gets in between is chance.
func TestStore_PurgeExpired_WaitsFiveSecondsInAll(t *testing.T) {
	for range 3 {
		databasePath := fillWithExpired(t, 30_000)
		synctest.Test(t, func(t *testing.T) {
			storeInstance, hook := openWithCommitHook(t, databasePath)
			database, err := sql.Open("sqlite", fileURI(databasePath, "_pragma=busy_timeout(0)"))
			check(t, err)
			database.SetMaxOpenConns(1)
			execSQL(t, database, "BEGIN IMMEDIATE")
			begun := make(chan struct{}, 1) // a batch
			hook.set(func() int32 {
				select {
				case begun <- struct{}{}:
				default:
				}
				return 0
			})
			var purged atomic.Bool
			var locking sync.WaitGroup
			locking.Go(func() {
				time.Sleep(3 * time.Second)
				execSQL(t, database, "COMMIT")
				<-begun
				for !purged.Load() {
					if _, err := database.Exec("BEGIN IMMEDIATE"); err == nil {
						time.Sleep(3 * time.Second)
						execSQL(t, database, "COMMIT")
						return
					}
				}
			})
			began := time.Now()
			_, err = storeInstance.PurgeExpired()
			waited := time.Since(began)
			purged.Store(true)
			locking.Wait()
			check(t, database.Close())
			if waited > 5*time.Second+10*time.Millisecond {
				t.Errorf("PurgeExpired has waited %v for another process, and returned %v", waited, err)
			} else if waited > 5*time.Second {
				wantSQLiteError(t, err, sqliteBusy)
			} else {
				check(t, err)
			}
		})
	}
}

func TestStore_PurgeExpired_EndsWithAFlushThatFails(t *testing.T) {
	databasePath := fillWithExpired(t, 10_000)
	storeInstance, err := openHooked(databasePath, func(connection sqlite.ExecQuerierContext) error {
		return connection.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(
			func(action sqlite.AuthorizerActionCode, pragma, argument, _, _ string) sqlite.AuthorizerReturnCode {
				if action == sqlite.AuthPragma && pragma == "wal_checkpoint" && argument == "PASSIVE" {
					return sqlite.AuthorizerDeny // the merge before the first batch, as if its flush had failed
				}
				return sqlite.AuthorizerOK
			})
	})
	check(t, err)
	defer storeInstance.Close()
	database := openSQL(t, databasePath)
	execSQL(t, database, "PRAGMA wal_autocheckpoint = 0")
	insertRows(t, database, "group", "%d", 60_000, nil) // makes the log long
	rows := countRows(t, database)
	breakFlush(t, databasePath)
	removed, err := storeInstance.PurgeExpired()
	wantErrorIs(t, err, syscall.EINVAL)
	checkEqual(t, "PurgeExpired", removed, 0)
	checkEqual(t, "rows", countRows(t, database), rows)
}

func TestStore_PurgeExpired_WaitsNoLongerBehindOthers(t *testing.T) {
	for _, test := range []struct {
		name   string
		others func(storeInstance *store.Store)
	}{
		{"another purge and a write", func(storeInstance *store.Store) {
			go storeInstance.PurgeExpired()
			time.Sleep(100 * time.Millisecond)
			go func() {
				time.Sleep(4800 * time.Millisecond)
				storeInstance.Set("group", "key", "value")
			}()
		}},
		{"another purge and that in the background", func(storeInstance *store.Store) {
			time.Sleep(59900 * time.Millisecond)
			go storeInstance.PurgeExpired()
			time.Sleep(200 * time.Millisecond)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storeInstance, databasePath := newFileStore(t)
				check(t, storeInstance.SetWithTTL("session", "token", "abc123", 0))
				lockForWriting(t, databasePath)
				test.others(storeInstance)
				began := time.Now()
				_, err := storeInstance.PurgeExpired()
				wantSQLiteError(t, err, sqliteBusy)
				if waited := time.Since(began); waited < 5*time.Second || waited > 5200*time.Millisecond {
					t.Errorf("PurgeExpired gave up after %v, want 5 s", waited)
				}
			})
		})
	}
}

// TestStore_PurgeExpired_MoreThanItSorts has a purge remove more rows than it sorts at once, with a rest that fills two batches.
func TestStore_PurgeExpired_MoreThanItSorts(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	const rows = 128*1024 + 2*2_500
	insertRows(t, openSQL(t, databasePath), "session", "%d", rows, 1)
	finishes(t, "PurgeExpired", func() {
		checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), rows)
	})
}

func TestStore_PurgeExpired_OddRowsOfOtherPrograms(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	execSQL(t, database, `INSERT INTO entries (rowid, group_name, entry_key, entry_value, expires_at) VALUES
		(-9223372036854775808, 'session', '1', '', 1), (9223372036854775807, 'session', '2', '', 1.5), (0, 'session', '3', '', -9223372036854775808),
		(-1, 'session', '4', '', -1e300), (1, 'session', '5', '', -1e999), (2, 'session', '6', '', 0), (3, 'session', 'alive', '', NULL)`)
	checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), 6)
	checkValue(t, storeInstance, "session", "alive", "")
	execSQL(t, database, `INSERT INTO entries (rowid, group_name, entry_key, entry_value, expires_at) VALUES
		(-9223372036854775808, 'session', '1', '', -1e999), (-9223372036854775807, 'session', '2', '', -1e999)`)
	checkEqual(t, "PurgeExpired of the least row", must[int64](t)(storeInstance.PurgeExpired()), 2)
}

// TestStore_Get_SeesNoExpiryOfAnotherKindPassed has another program's numbers with a fraction.
func TestStore_Get_SeesNoExpiryOfAnotherKindPassed(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	execSQL(t, openSQL(t, databasePath), `INSERT INTO entries VALUES ('session', 'expired', '', 1.5), ('session', 'alive', '', 9e15 + 0.5)`)
	checkMissing(t, storeInstance, "session", "expired")
	checkValue(t, storeInstance, "session", "alive", "")
}

// TestStore_PurgeExpired_CommitsInBatches refuses a row in the middle: what was committed before it stays removed.
func TestStore_PurgeExpired_CommitsInBatches(t *testing.T) {
	const expired = 8000
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	insertRows(t, database, "session", "key-%07d", expired, 1)
	execSQL(t, database, `CREATE TRIGGER refuse BEFORE DELETE ON entries WHEN old.entry_key = 'key-0004000'
		BEGIN SELECT RAISE(ABORT, 'refused'); END`)
	_, err := storeInstance.PurgeExpired()
	wantErrorText(t, err, "store.PurgeExpired: ", "refused")
	if rows := countRows(t, database); rows == expired {
		t.Fatal("a purge that failed in the middle removed nothing: it was one transaction")
	}
	execSQL(t, database, "DROP TRIGGER refuse")
	must[int64](t)(storeInstance.PurgeExpired())
	checkEqual(t, "rows afterwards", countRows(t, database), 0)
}

func TestStore_PurgeExpired_LetsOthersIn(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	insertRows(t, openSQL(t, databasePath), "session", "key-%07d", 24_000, 1)
	purged := make(chan error, 1)
	go func() {
		count, err := storeInstance.PurgeExpired()
		if err == nil && count != 24_000 {
			err = fmt.Errorf("PurgeExpired = %d, want 24000", count)
		}
		purged <- err
	}()
	for rounds := 0; ; rounds++ {
		select {
		case err := <-purged:
			check(t, err)
			if rounds < 5 {
				t.Fatalf("while 24,000 expired entries were purged others wrote and read %d times", rounds)
			}
			return
		default:
			check(t, storeInstance.Set("config", "colour", strconv.Itoa(rounds)))
			checkValue(t, storeInstance, "config", "colour", strconv.Itoa(rounds))
		}
	}
}

// fillWithExpired makes a store's file in which entries that have expired lie between others, so that a purge's batch changes
// as many pages as fill half a log.
func fillWithExpired(t *testing.T, expired int) (databasePath string) {
	t.Helper()
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	execSQL(t, database, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2 * ?1)
		INSERT INTO entries SELECT 'session', i, hex(randomblob(150)), iif(i % 2, 1, NULL) FROM n`, expired)
	check(t, errors.Join(database.Close(), storeInstance.Close())) // which ends the log
	return databasePath
}

// TestStore_PurgeExpired_LetsNoBatchMergeTheLog wants a log that no batch makes so long that SQLite merges it with the batch:
// who waits for the one would wait for the other too.
func TestStore_PurgeExpired_LetsNoBatchMergeTheLog(t *testing.T) {
	const expired, merged = 7_500, 1000 * (4096 + 24) // SQLite merges at 1,000 pages and their headers
	databasePath := fillWithExpired(t, expired)
	storeInstance := openStore(t, databasePath)
	check(t, storeInstance.Set("config", "large", strings.Repeat("x", 3_900_000))) // a batch more would be enough
	checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), expired)
	information, err := os.Stat(databasePath + "-wal")
	check(t, err)
	if information.Size() > merged {
		t.Errorf("the log has grown to %d bytes beside the purge, and was merged with a batch", information.Size())
	}
}

// TestStore_PurgeExpired_MergesTheLogInItsOwnRound has a write come while what comes behind a batch is waiting already: that is
// the merge of the log and not the next batch, which is committed behind the write.
func TestStore_PurgeExpired_MergesTheLogInItsOwnRound(t *testing.T) {
	databasePath := fillWithExpired(t, 5_000)
	synctest.Test(t, func(t *testing.T) {
		storeInstance, hook := openWithCommitHook(t, databasePath)
		var commits, returned atomic.Int32
		var late sync.WaitGroup
		hook.set(func() int32 {
			synctest.Wait()
			switch commit := commits.Add(1); commit {
			case 1, 2: // the first batch, and the write that came during it
				late.Go(func() {
					noError(t, storeInstance.Set("late", "colour", strconv.Itoa(int(commit))))
					returned.Add(1)
				})
				synctest.Wait()
			case 4: // the second batch
				if returned.Load() != 2 {
					t.Errorf("%d writes have returned by the second batch, want the 2 that came before it", returned.Load())
				}
			}
			return 0
		})
		checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), 5_000)
		late.Wait()
		hook.set(nil)
		checkEqual(t, "commits", int(commits.Load()), 4)
		check(t, storeInstance.Close())
	})
}

// TestStore_PurgeExpired_NobodyReadsBehindTwoBatches has reads come during the first batch of a purge: more than there are
// writes in a transaction, and one of what has expired, which removes it in a commit of its own before the second batch.
func TestStore_PurgeExpired_NobodyReadsBehindTwoBatches(t *testing.T) {
	const expired = 6_000 // three batches
	for _, test := range []struct {
		name, key    string
		reads, until int
	}{
		{"many", "missing", 600, 2},
		{"expired", "0", 1, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storeInstance, hook := openWithCommitHook(t, ":memory:")
				for number := range expired {
					check(t, storeInstance.SetWithTTL("session", strconv.Itoa(expired-1-number), "", 0))
				}
				var reading sync.WaitGroup
				var commits, returned atomic.Int32
				hook.set(func() int32 {
					synctest.Wait()
					switch commits.Add(1) {
					case 1:
						for range test.reads {
							reading.Go(func() {
								_, err := storeInstance.Get("session", test.key)
								if !errors.Is(err, store.NotFoundError) {
									t.Errorf("Get: %v", err)
								}
								returned.Add(1)
							})
						}
						synctest.Wait()
					case int32(test.until):
						if int(returned.Load()) != test.reads {
							t.Errorf("%d of %d reads have returned by the second batch", returned.Load(), test.reads)
						}
					}
					return 0
				})
				must[int64](t)(storeInstance.PurgeExpired())
				reading.Wait()
				hook.set(nil)
			})
		})
	}
}

// TestStore_PurgeExpired_LargeValuesEndABatch counts the commits of a purge whose entries would all be one batch.
func TestStore_PurgeExpired_LargeValuesEndABatch(t *testing.T) {
	const expired = 160
	storeInstance, hook := openWithCommitHook(t, ":memory:")
	value := strings.Repeat("v", 256<<10)
	for number := range expired {
		check(t, storeInstance.SetWithTTL("session", strconv.Itoa(number), value, 0))
	}
	before := hook.commits.Load()
	checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), expired)
	if commits := hook.commits.Load() - before; commits < 2 || commits > 4 {
		t.Errorf("40 MiB were removed in %d batches, want one for some 16 MiB each", commits)
	}
}

// TestStore_PurgeExpired_WithoutMerging wants what has expired removed where SQLite cannot merge the log.
func TestStore_PurgeExpired_WithoutMerging(t *testing.T) {
	const expired = 7_500
	t.Run("refused", func(t *testing.T) {
		storeInstance, err := openHooked(fillWithExpired(t, expired), func(connection sqlite.ExecQuerierContext) error {
			return connection.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(
				func(action sqlite.AuthorizerActionCode, pragma, argument, _, _ string) sqlite.AuthorizerReturnCode {
					if action == sqlite.AuthPragma && pragma == "wal_checkpoint" && argument == "PASSIVE" {
						return sqlite.AuthorizerDeny
					}
					return sqlite.AuthorizerOK
				})
		})
		check(t, err)
		checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), expired)
		check(t, storeInstance.Close())
	})
	t.Run("a transaction in the same cache", func(t *testing.T) {
		uri := fileURI(fillWithExpired(t, expired), "cache=shared")
		storeInstance := openStore(t, uri)
		database, err := sql.Open("sqlite", uri)
		check(t, err)
		defer database.Close()
		database.SetMaxOpenConns(1)
		execSQL(t, database, "CREATE TABLE other (number INTEGER); BEGIN; SELECT count(*) FROM other")
		checkEqual(t, "PurgeExpired", must[int64](t)(storeInstance.PurgeExpired()), expired)
		execSQL(t, database, "COMMIT")
		check(t, storeInstance.Close())
	})
}

func TestStore_PurgeExpired_CostFollowsWhatHasExpired(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	checkCost(t, map[string]func() error{
		"PurgeExpired": func() error {
			count, err := storeInstance.PurgeExpired()
			checkEqual(t, "PurgeExpired", count, 0)
			return err
		},
	}, func() {
		insertRows(t, database, "living-%d", "key-%d", 8000, time.Now().Add(time.Hour).UnixMilli())
		insertRows(t, database, "eternal-%d", "key-%d", 8000, nil)
	})
}

// TestStore_PurgeExpired_CostIsThatOfTheExpiredAlone purges entries between whose places in the table all others lie.
func TestStore_PurgeExpired_CostIsThatOfTheExpiredAlone(t *testing.T) {
	const uri = "file:TestStore_PurgeExpired?mode=memory&cache=shared"
	storeInstance := openStore(t, uri)
	database := must[*sql.DB](t)(sql.Open("sqlite", uri))
	defer database.Close()
	checkCost(t, map[string]func() error{
		"PurgeExpired": func() error {
			execSQL(t, database, `INSERT INTO entries (rowid, group_name, entry_key, entry_value, expires_at)
				SELECT value, 'session', value, '', 1
				FROM json_each('[-9223372036854775808, -9223372036854775807, 1000001, 1000002, 3000001]')`)
			count, err := storeInstance.PurgeExpired()
			checkEqual(t, "PurgeExpired", count, 5)
			return err
		},
	}, func() {
		execSQL(t, database, `WITH RECURSIVE counter (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM counter WHERE number < 100000)
			INSERT INTO entries (rowid, group_name, entry_key, entry_value) SELECT 40 * number, 'living', number, 'blue' FROM counter`)
	})
}

func TestStore_BackgroundPurge_RemovesTheExpiredEveryMinute(t *testing.T) {
	withClockedFile(t, func(t *testing.T, storeInstance *store.Store, database *sql.DB) {
		check(t, storeInstance.Set("session", "eternal", "abc123"))
		for range 3 {
			check(t, storeInstance.SetWithTTL("session", "token", "abc123", time.Second))
			time.Sleep(time.Minute - 1)
			synctest.Wait()
			checkEqual(t, "rows just before the minute", countRows(t, database), 2)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			checkEqual(t, "rows at the minute", countRows(t, database), 1)
		}
	})
}

func TestStore_BackgroundPurge_RemovesMoreThanABatch(t *testing.T) {
	withClockedFile(t, func(t *testing.T, storeInstance *store.Store, database *sql.DB) {
		insertRows(t, database, "session", "key-%07d", 5000, time.Now().UnixMilli())
		time.Sleep(time.Minute)
		synctest.Wait()
		checkEqual(t, "rows at the minute", countRows(t, database), 0)
	})
}

func TestStore_BackgroundPurge_RunsInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			wait time.Duration
			left int64
		}{{time.Minute - 1, 1}, {time.Minute, 0}} {
			storeInstance := newMemoryStore(t)
			check(t, storeInstance.SetWithTTL("session", "token", "abc123", time.Second))
			time.Sleep(test.wait)
			synctest.Wait()
			checkEqual(t, fmt.Sprintf("PurgeExpired after %v", test.wait), must[int64](t)(storeInstance.PurgeExpired()), test.left)
		}
	})
}

func TestStore_BackgroundPurge_TriesAgain(t *testing.T) {
	for _, obstacle := range obstacles {
		t.Run(obstacle.name, func(t *testing.T) {
			withClockedFile(t, func(t *testing.T, storeInstance *store.Store, database *sql.DB) {
				check(t, storeInstance.SetWithTTL("session", "token", "abc123", time.Second))
				execSQL(t, database, obstacle.place)
				time.Sleep(70 * time.Second)
				checkEqual(t, "rows while they cannot be deleted", countRows(t, database), 1)
				execSQL(t, database, obstacle.remove)
				time.Sleep(50 * time.Second)
				synctest.Wait()
				checkEqual(t, "rows after the next tick", countRows(t, database), 0)
			})
		})
	}
}

// TestStore_BackgroundPurge_TakesNoWriteLockForNothing lets another connection, which never waits, take the write lock
// again and again while thousands of ticks go by: a purge that took it too would make it fail.
func TestStore_BackgroundPurge_TakesNoWriteLockForNothing(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db")
	check(t, must[*store.Store](t)(store.New(databasePath)).Close())
	database := openSQL(t, databasePath)
	execSQL(t, database, "PRAGMA busy_timeout = 0")
	start, stop, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	// Outside the bubble, whose clock would stand still while this one runs.
	go func() {
		<-start
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := database.Exec("BEGIN IMMEDIATE; ROLLBACK"); err != nil {
				done <- err
				return
			}
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		storeInstance := openStore(t, databasePath)
		check(t, storeInstance.SetWithTTL("session", "token", "abc123", math.MaxInt64))
		close(start)
		time.Sleep(5000 * time.Minute)
		synctest.Wait()
		close(stop)
		check(t, <-done)
		checkValue(t, storeInstance, "session", "token", "abc123")
	})
}

// Errors and closed stores

func TestStore_Reads_ErrorsNameTheMethod(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	check(t, storeInstance.Set("config", "colour", "blue-secret"))
	database := openSQL(t, databasePath)
	execSQL(t, database, "ALTER TABLE entries RENAME TO moved")
	for _, method := range readingMethods {
		err := method.call(t, storeInstance, "config", "colour")
		wantErrorText(t, err, "store."+method.name+": ", "no such table")
		if !strings.HasPrefix(err.Error(), "store."+method.name+": ") || strings.Count(err.Error(), "store.") != 1 {
			t.Errorf("%s: error %q, want the prefix once and first", method.name, err)
		}
		if errors.Unwrap(err) == nil {
			t.Errorf("%s: error %q wraps no cause", method.name, err)
		}
		wantNoText(t, err, "blue-secret")
	}
	execSQL(t, database, "ALTER TABLE moved RENAME TO entries")
	checkGroup(t, storeInstance, "config", map[string]string{"colour": "blue-secret"})
}

func TestStore_Reads_OfAClosedStore(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("config", "colour", "blue"))
		check(t, storeInstance.Close())
		for _, method := range readingMethods {
			err := method.call(t, storeInstance, "config", "colour")
			wantErrorIs(t, err, os.ErrClosed)
			wantErrorText(t, err, "store."+method.name+": ")
			if errors.Is(err, store.NotFoundError) {
				t.Errorf("%s of a closed store says not found: %v", method.name, err)
			}
		}
	})
}

func TestStore_Render_OfAClosedStoreIsClosedFirst(t *testing.T) {
	storeInstance := newMemoryStore(t)
	check(t, storeInstance.Close())
	_, err := storeInstance.Render("{{", "config")
	wantErrorIs(t, err, os.ErrClosed)
}

func TestStore_Streams_OfAClosedStoreYieldOneError(t *testing.T) {
	onEachStream(t, []string{"a", "b"}, func(t *testing.T, stream streamTest) {
		check(t, stream.storeInstance.Close())
		for range 2 {
			yielded := 0
			for name, err := range stream.sequence {
				yielded++
				checkEqual(t, "name beside the error", name, "")
				wantErrorIs(t, err, os.ErrClosed)
			}
			checkEqual(t, "yields of a closed store", yielded, 1)
		}
	})
}

// Examples

func ExampleStore_Get() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	if err := storeInstance.Set("config", "colour", "blue"); err != nil {
		fmt.Println(err)
		return
	}
	value, err := storeInstance.Get("config", "colour")
	fmt.Println(value, err)

	_, err = storeInstance.Get("config", "flavour")
	fmt.Println(err, errors.Is(err, store.NotFoundError))
	// Output:
	// blue <nil>
	// store.Get: config/flavour: not found true
}

func ExampleStore_Set() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	for _, colour := range []string{"blue", "green"} {
		if err := storeInstance.Set("config", "colour", colour); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(storeInstance.Get("config", "colour"))
	// Output: green <nil>
}

// What SQLite reports has a code, whose lowest byte is its kind.
func Example_errors() {
	storeInstance, err := store.New("file::memory:?_pragma=max_page_count(50)") // a disk of 200 KiB
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	err = storeInstance.Set("config", "colour", strings.Repeat("blue", 1<<18))
	if failed, ok := errors.AsType[*sqlite.Error](err); ok {
		switch failed.Code() & 0xff {
		case 5: // SQLITE_BUSY
			fmt.Println("another process holds the lock")
		case 13: // SQLITE_FULL
			fmt.Println("the disk is full")
		}
	}
	// Output:
	// the disk is full
}

func ExampleStore_SetWithTTL() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	if err := storeInstance.SetWithTTL("session", "token", "abc123", 5*time.Minute); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(storeInstance.Get("session", "token"))

	// A TTL of zero has already elapsed.
	if err := storeInstance.SetWithTTL("session", "token", "abc123", 0); err != nil {
		fmt.Println(err)
		return
	}
	_, err = storeInstance.Get("session", "token")
	fmt.Println(err)
	// Output:
	// abc123 <nil>
	// store.Get: session/token: not found
}

func ExampleStore_Delete() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	if err := storeInstance.Set("config", "colour", "blue"); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(storeInstance.Delete("config", "colour"))
	fmt.Println(storeInstance.Delete("config", "colour")) // already gone
	fmt.Println(storeInstance.Count("config"))
	// Output:
	// <nil>
	// <nil>
	// 0 <nil>
}

func ExampleStore_DeleteGroup() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	for _, group := range []string{"config", "prefs"} {
		if err := storeInstance.Set(group, "colour", "blue"); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(storeInstance.DeleteGroup("config"))
	fmt.Println(storeInstance.Groups(""))
	// Output:
	// <nil>
	// [prefs] <nil>
}

func ExampleStore_Count() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	for _, key := range []string{"colour", "locale"} {
		if err := storeInstance.Set("config", key, "blue"); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(storeInstance.Count("config"))
	// Output: 2 <nil>
}

func ExampleStore_CountAll() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	for _, group := range []string{"tenant-a:config", "tenant-a:prefs", "tenant-b:config"} {
		if err := storeInstance.Set(group, "colour", "blue"); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(storeInstance.CountAll("tenant-a:"))
	fmt.Println(storeInstance.CountAll(""))
	// Output:
	// 2 <nil>
	// 3 <nil>
}

func ExampleStore_GetAll() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	for key, value := range map[string]string{"colour": "blue", "locale": "en-GB"} {
		if err := storeInstance.Set("config", key, value); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(storeInstance.GetAll("config"))
	// Output: map[colour:blue locale:en-GB] <nil>
}

// The loop body may call any method of the store.
func ExampleStore_All() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	for key, value := range map[string]string{"locale": "en-GB", "colour": "blue", "behaviour": "lazy"} {
		if err := storeInstance.Set("config", key, value); err != nil {
			fmt.Println(err)
			return
		}
	}
	for entry, err := range storeInstance.All("config") {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(entry.Key, entry.Value)
		if err := storeInstance.Delete("config", entry.Key); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(storeInstance.Count("config"))
	// Output:
	// behaviour lazy
	// colour blue
	// locale en-GB
	// 0 <nil>
}

func ExampleStore_Groups() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	for _, group := range []string{"tenant-a:prefs", "tenant-a:config", "tenant-b:config"} {
		if err := storeInstance.Set(group, "colour", "blue"); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(storeInstance.Groups("tenant-a:"))
	// Output: [tenant-a:config tenant-a:prefs] <nil>
}

func ExampleStore_GroupsSeq() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	for _, group := range []string{"tenant-a:prefs", "tenant-a:config", "tenant-b:config"} {
		if err := storeInstance.Set(group, "colour", "blue"); err != nil {
			fmt.Println(err)
			return
		}
	}
	for group, err := range storeInstance.GroupsSeq("tenant-a:") {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(group)
	}
	// Output:
	// tenant-a:config
	// tenant-a:prefs
}

func ExampleStore_GetSplit() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	if err := storeInstance.Set("config", "colours", "blue,green,red"); err != nil {
		fmt.Println(err)
		return
	}
	colours, err := storeInstance.GetSplit("config", "colours", ",")
	if err != nil {
		fmt.Println(err)
		return
	}
	for colour := range colours {
		fmt.Println(colour)
	}
	// Output:
	// blue
	// green
	// red
}

func ExampleStore_GetFields() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	if err := storeInstance.Set("config", "locales", "  en-GB\tcy \n gd"); err != nil {
		fmt.Println(err)
		return
	}
	locales, err := storeInstance.GetFields("config", "locales")
	if err != nil {
		fmt.Println(err)
		return
	}
	for locale := range locales {
		fmt.Println(locale)
	}
	// Output:
	// en-GB
	// cy
	// gd
}

func ExampleStore_Render() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	if err := storeInstance.Set("config", "colour", "blue"); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(storeInstance.Render("The colour is {{.colour}}.", "config"))
	// Output: The colour is blue. <nil>
}

func ExampleStore_PurgeExpired() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer storeInstance.Close()

	if err := storeInstance.SetWithTTL("session", "token", "abc123", 0); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(storeInstance.PurgeExpired())
	// Output: 1 <nil>
}

// Benchmarks

const benchmarkKeys = 1000

var (
	benchmarkNames = numberedNames(benchmarkKeys)
	// benchmarkValues are one more than the keys, so that each overwrite changes the value: SQLite writes no page otherwise.
	benchmarkValues = func() []string {
		values := make([]string, benchmarkKeys+1)
		for index := range values {
			values[index] = fmt.Sprintf("%0100d", index)
		}
		return values
	}()
)

// benchmarkEachKind measures run on an empty store of each kind.
func benchmarkEachKind(b *testing.B, run func(b *testing.B, storeInstance *store.Store)) {
	b.Run("memory", func(b *testing.B) {
		b.ReportAllocs()
		run(b, newMemoryStore(b))
	})
	b.Run("file", func(b *testing.B) {
		b.ReportAllocs()
		storeInstance, _ := newFileStore(b)
		run(b, storeInstance)
	})
}

// benchmarkEachFilledKind measures run on a store of each kind that holds the thousand benchmarkNames in one group.
func benchmarkEachFilledKind(b *testing.B, run func(b *testing.B, storeInstance *store.Store)) {
	benchmarkEachKind(b, func(b *testing.B, storeInstance *store.Store) {
		setAll(b, benchmarkNames, func(key string) error { return storeInstance.Set("config", key, benchmarkValues[0]) })
		b.ResetTimer()
		run(b, storeInstance)
	})
}

func BenchmarkStore_Get(b *testing.B) {
	benchmarkEachFilledKind(b, func(b *testing.B, storeInstance *store.Store) {
		for number := 0; b.Loop(); number++ {
			if _, err := storeInstance.Get("config", benchmarkNames[number%benchmarkKeys]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkStore_GetParallel(b *testing.B) {
	benchmarkEachFilledKind(b, func(b *testing.B, storeInstance *store.Store) {
		b.SetParallelism(8)
		b.RunParallel(func(parallel *testing.PB) {
			for number := 0; parallel.Next(); number++ {
				if _, err := storeInstance.Get("config", benchmarkNames[number%benchmarkKeys]); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkStore_Set(b *testing.B) {
	benchmarkEachKind(b, func(b *testing.B, storeInstance *store.Store) {
		for number := 0; b.Loop(); number++ {
			if err := storeInstance.Set("config", benchmarkNames[number%benchmarkKeys], benchmarkValues[number%len(benchmarkValues)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkStore_SetParallel(b *testing.B) {
	benchmarkEachKind(b, func(b *testing.B, storeInstance *store.Store) {
		var next atomic.Int64
		b.SetParallelism(8)
		b.RunParallel(func(parallel *testing.PB) {
			for parallel.Next() {
				number := int(next.Add(1))
				if err := storeInstance.Set("config", benchmarkNames[number%benchmarkKeys], benchmarkValues[number%len(benchmarkValues)]); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkStore_SetWithTTL(b *testing.B) {
	benchmarkEachKind(b, func(b *testing.B, storeInstance *store.Store) {
		for number := 0; b.Loop(); number++ {
			if err := storeInstance.SetWithTTL("session", benchmarkNames[number%benchmarkKeys], benchmarkValues[number%len(benchmarkValues)], time.Hour); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkStore_GetAll(b *testing.B) {
	benchmarkEachFilledKind(b, func(b *testing.B, storeInstance *store.Store) {
		for b.Loop() {
			entries, err := storeInstance.GetAll("config")
			if err != nil || len(entries) != benchmarkKeys {
				b.Fatalf("GetAll gave %d entries and %v", len(entries), err)
			}
		}
	})
}

func BenchmarkStore_All(b *testing.B) {
	benchmarkEachFilledKind(b, func(b *testing.B, storeInstance *store.Store) {
		for b.Loop() {
			count := 0
			for _, err := range storeInstance.All("config") {
				if err != nil {
					b.Fatal(err)
				}
				count++
			}
			if count != benchmarkKeys {
				b.Fatalf("All gave %d entries", count)
			}
		}
	})
}

// benchmarkEachGroupedKind measures run on a store of each kind that holds a thousand groups of ten keys.
func benchmarkEachGroupedKind(b *testing.B, run func(b *testing.B, storeInstance *store.Store)) {
	benchmarkEachKind(b, func(b *testing.B, storeInstance *store.Store) {
		setAll(b, benchmarkNames, func(group string) error {
			for _, key := range benchmarkNames[:10] {
				if err := storeInstance.Set(group, key, "blue"); err != nil {
					return err
				}
			}
			return nil
		})
		b.ResetTimer()
		run(b, storeInstance)
	})
}

func BenchmarkStore_Groups(b *testing.B) {
	benchmarkEachGroupedKind(b, func(b *testing.B, storeInstance *store.Store) {
		for b.Loop() {
			groups, err := storeInstance.Groups("name-")
			if err != nil || len(groups) != benchmarkKeys {
				b.Fatalf("Groups gave %d names and %v", len(groups), err)
			}
		}
	})
}

func BenchmarkStore_CountAll(b *testing.B) {
	benchmarkEachGroupedKind(b, func(b *testing.B, storeInstance *store.Store) {
		for b.Loop() {
			count, err := storeInstance.CountAll("name-")
			if err != nil || count != 10*benchmarkKeys {
				b.Fatalf("CountAll = %d, %v", count, err)
			}
		}
	})
}

// BenchmarkStore_PurgeExpired removes a thousand expired entries each time.
func BenchmarkStore_PurgeExpired(b *testing.B) {
	benchmarkEachKind(b, func(b *testing.B, storeInstance *store.Store) {
		for b.Loop() {
			b.StopTimer()
			setAll(b, benchmarkNames, func(key string) error { return storeInstance.SetWithTTL("session", key, benchmarkValues[0], 0) })
			b.StartTimer()
			count, err := storeInstance.PurgeExpired()
			if err != nil || count != benchmarkKeys {
				b.Fatalf("PurgeExpired = %d, %v", count, err)
			}
		}
	})
}
