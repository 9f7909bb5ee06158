package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"dappco.re/go/core/store"
)

// tourVariable turns the test binary into the tour, whose writer is then the test binary too.
const tourVariable = "STORE_TOUR_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(tourVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

// result is what a run of the tour left to see.
type result struct {
	stdout, stderr string
	status         int
}

func tourCommand(t testing.TB, temporary string, arguments ...string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), executable, arguments...)
	command.Env = append(os.Environ(), tourVariable+"=1", "TMPDIR="+temporary, "TMP="+temporary)
	command.Dir = temporary
	return command
}

func runCommand(t testing.TB, command *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil && command.ProcessState == nil {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

// runTour runs it in an empty directory, which is also the one for temporary files.
func runTour(t testing.TB, arguments ...string) result {
	t.Helper()
	return runCommand(t, tourCommand(t, t.TempDir(), arguments...))
}

// content is a directory as group → key → value, of the bytes that files and names may have.
var content = map[string]map[string]string{
	".":             {"README": strings.Repeat("a line of words\n", 50), ".hidden": "seen too", "empty": ""},
	"sub":           {"binary": "\x00\xff\xfe\x00", "it's % 100?": "odd", "two.txt": "one two  three\n"},
	"sub/.dot/deep": {"ünïcode": "ß", "longer": strings.Repeat("x", 100_000)},
	"subway":        {"same prefix": "as sub", "and another": "file"},
}

func makeDirectory(t testing.TB) string {
	t.Helper()
	directory := t.TempDir()
	for folder, files := range content {
		if err := os.MkdirAll(filepath.Join(directory, folder), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, value := range files {
			if runtime.GOOS == "windows" {
				name = strings.ReplaceAll(name, "?", "")
			}
			writeFile(t, filepath.Join(directory, folder, name), value)
		}
	}
	return directory
}

func writeFile(t testing.TB, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB, databasePath string) *store.Store {
	t.Helper()
	storeInstance, err := store.New(databasePath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { storeInstance.Close() })
	return storeInstance
}

// entries is everything that is in a store.
func entries(t testing.TB, storeInstance *store.Store) map[string]map[string]string {
	t.Helper()
	found := map[string]map[string]string{}
	for group, err := range storeInstance.GroupsSeq("") {
		if err != nil {
			t.Fatal(err)
		}
		if found[group], err = storeInstance.GetAll(group); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func checkStatus(t testing.TB, got result, want int) {
	t.Helper()
	if got.status != want {
		t.Fatalf("exit status = %d, want %d\nstdout: %s\nstderr: %s", got.status, want, got.stdout, got.stderr)
	}
}

func checkSays(t testing.TB, got result, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(got.stdout, line) {
			t.Errorf("stdout lacks %q:\n%s", line, got.stdout)
		}
	}
}

// checkWidth returns the last line, whose width is that of the store's path.
func checkWidth(t testing.TB, got result) (last string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
	for _, line := range lines[:len(lines)-1] {
		if width := utf8.RuneCountInString(line); width >= 100 {
			t.Errorf("a line of %d columns: %s", width, line)
		}
	}
	return lines[len(lines)-1]
}

func TestTour_StoresEveryFileAndSaysSo(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the names of the files are not for Windows")
	}
	directory := makeDirectory(t)
	if err := os.Symlink("README", filepath.Join(directory, "link")); err != nil {
		t.Fatal(err)
	}
	databasePath := filepath.Join(t.TempDir(), "it's.db")
	got := runTour(t, "-store", databasePath, directory)
	checkStatus(t, got, 0)
	if got.stderr != "" {
		t.Errorf("stderr = %q, want nothing where it is no terminal", got.stderr)
	}
	checkSays(t, got,
		"Read 10 files, 100.8 kB, in 4 folders",
		"10 of 10 are equal to their files, byte for byte",
		"4 groups, listed in",
		"7 in all groups that begin with \"sub\"",
		"and deleted 5 on the way",
		`The longest text, "sub/.dot/deep/longer": 1 lines`,
		"1,001 events in a callback",
		"256 in one that slept",
		"10 are in the south",
		"5 are in the north, exactly its limit",
		"5 were refused there",
		"reported writes are there, none lost, none torn",
		"10 entries, one for each file",
	)
	last := checkWidth(t, got)
	if want := `sqlite3 '` + strings.ReplaceAll(databasePath, "'", `'\''`) + `' "SELECT `; !strings.HasPrefix(last, want) {
		t.Errorf("last line = %s, want %s…", last, want)
	}
	if _, err := exec.LookPath("sqlite3"); err == nil {
		shown, err := exec.Command("sh", "-c", last).CombinedOutput()
		if want := ".|3\nsub|3\nsub/.dot/deep|2\nsubway|2\n"; err != nil || string(shown) != want {
			t.Errorf("the last line shows %q, %v, want %q", shown, err, want)
		}
	}
	if got := entries(t, openStore(t, databasePath)); !maps.EqualFunc(got, content, maps.Equal) {
		t.Errorf("the store holds %q, want %q", got, content)
	}
}

func TestTour_KeepsItsTemporaryStore(t *testing.T) {
	t.Parallel()
	temporary := t.TempDir()
	got := runCommand(t, tourCommand(t, temporary, t.TempDir()))
	checkStatus(t, got, 0)
	checkSays(t, got, "Read 0 files", "0 entries, one for each file")
	left, err := filepath.Glob(filepath.Join(temporary, "*", "*"))
	if err != nil || len(left) != 1 {
		t.Fatalf("the tour left %q, %v, want one file", left, err)
	}
	if last := checkWidth(t, got); !strings.Contains(last, left[0]) {
		t.Errorf("the tour left %s, and its last line is %s", left[0], last)
	}
}

func TestTour_WithoutDirectoryReadsRepository(t *testing.T) {
	t.Parallel()
	repository := t.TempDir()
	writeFile(t, filepath.Join(repository, "go.mod"), "module dappco.re/go/core/store\n\ngo 1.26\n")
	makeHuge(t, filepath.Join(repository, "huge"))
	command := tourCommand(t, t.TempDir())
	command.Dir = filepath.Join(repository, "docs", "tour")
	if err := os.MkdirAll(command.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, want := runCommand(t, command), filepath.Join(filepath.Base(repository), "huge has "); !strings.Contains(got.stderr, want) {
		t.Errorf("stderr = %q, want %q, of a file that the tour refuses", got.stderr, want)
	}
}

// makeHuge takes no room on the disk.
func makeHuge(t testing.TB, path string) {
	t.Helper()
	writeFile(t, path, "")
	if err := os.Truncate(path, maximumBytes+1); err != nil {
		t.Fatal(err)
	}
}

func TestTour_OtherEntriesStay(t *testing.T) {
	t.Parallel()
	databasePath := filepath.Join(t.TempDir(), "in-use.db")
	others := map[string]map[string]string{
		"sub":             {"two.txt": "not a file"},
		"tour/sub":        {"two.txt": "of another tour"},
		"scratch:watched": {"key": "kept"},
		"north:files":     {"key": "kept", "other": "kept"},
		"south-2:files":   {"key": "kept"},
	}
	storeInstance := openStore(t, databasePath)
	for group, values := range others {
		for key, value := range values {
			if err := storeInstance.SetWithTTL(group, key, value, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
	}
	directory := t.TempDir()
	writeFile(t, filepath.Join(directory, "one"), "1")
	got := runTour(t, "-store", databasePath, directory)
	checkStatus(t, got, 0)
	checkSays(t, got, `every group begins with "tour-2/"`, `"scratch-2:session"`, `"north-2"`)
	checkWidth(t, got)
	want := maps.Clone(others)
	want["tour-2/."] = map[string]string{"one": "1"}
	if got := entries(t, storeInstance); !maps.EqualFunc(got, want, maps.Equal) {
		t.Errorf("the store holds %q, want %q", got, want)
	}
}

func TestTour_UntruthFails(t *testing.T) {
	t.Parallel()
	for name, untruth := range map[string]struct{ trigger, complaint string }{
		"value changed":        {`WHEN new.entry_key = 'README' BEGIN UPDATE entries SET entry_value = '?' WHERE entry_key = 'README'; END`, "is not what was stored"},
		"entry lost":           {`WHEN new.entry_key = 'README' BEGIN DELETE FROM entries WHERE entry_key = 'README'; END`, "not found"},
		"reported write lost":  {`WHEN new.entry_key = 'write-00000100' BEGIN DELETE FROM entries WHERE entry_key = new.entry_key; END`, "was acknowledged and is lost"},
		"entry from elsewhere": {`WHEN new.group_name = 'subway' BEGIN INSERT INTO entries VALUES ('subway', new.entry_key || '+', '', NULL); END`, `Count("subway"): got 4, want 2`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			databasePath := filepath.Join(t.TempDir(), "liar.db")
			if err := openStore(t, databasePath).Close(); err != nil {
				t.Fatal(err)
			}
			database, err := sql.Open("sqlite", databasePath)
			if err != nil {
				t.Fatal(err)
			}
			defer database.Close()
			if _, err := database.Exec("CREATE TRIGGER lie AFTER INSERT ON entries " + untruth.trigger); err != nil {
				t.Fatal(err)
			}
			got := runTour(t, "-store", databasePath, makeDirectory(t))
			checkStatus(t, got, 1)
			if !strings.Contains(got.stderr, untruth.complaint) {
				t.Errorf("stderr = %q, want %q", got.stderr, untruth.complaint)
			}
		})
	}
}

func TestTour_BadInput(t *testing.T) {
	t.Parallel()
	directory, elsewhere := makeDirectory(t), t.TempDir()
	inside := filepath.Join(directory, "sub")
	text := filepath.Join(elsewhere, "text")
	writeFile(t, text, strings.Repeat("This is no store.\n", 100))
	link := filepath.Join(elsewhere, "link")
	err := os.Symlink(inside, link)
	if err == nil {
		_, err = os.Lstat(link) // Wine says that it has made one, and has not
	}
	if err != nil {
		t.Skip(err)
	}
	linked, withLinked := filepath.Join(elsewhere, "linked.db"), t.TempDir()
	if err := openStore(t, linked).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(linked, filepath.Join(withLinked, "innocent")); err != nil {
		t.Fatal(err)
	}
	withHuge := t.TempDir()
	makeHuge(t, filepath.Join(withHuge, "huge"))
	before := snapshot(t, directory, elsewhere)

	for name, bad := range map[string]struct {
		arguments []string
		status    int
		complaint string
	}{
		"no such directory":      {[]string{filepath.Join(elsewhere, "none")}, 1, "none: "},
		"file for directory":     {[]string{text}, 1, "text is not a directory"},
		"huge file":              {[]string{withHuge}, 1, "huge has 1,000,000,001 bytes, and a value at most 1,000,000,000"},
		"no store":               {[]string{"-store", text, directory}, 1, "text"},
		"directory for store":    {[]string{"-store", elsewhere, directory}, 1, "store.New: "},
		"store in no directory":  {[]string{"-store", filepath.Join(elsewhere, "none", "a.db"), directory}, 1, "none"},
		"store inside":           {[]string{"-store", filepath.Join(inside, "a.db"), directory}, 2, "a.db lies inside " + directory},
		"store inside by a link": {[]string{"-store", filepath.Join(link, "a.db"), directory}, 2, "a.db lies inside " + directory},
		"directory by a link":    {[]string{"-store", filepath.Join(inside, "a.db"), link}, 2, "a.db lies inside "},
		"store read by a link":   {[]string{"-store", linked, withLinked}, 2, "innocent is the store itself"},
		"store in memory":        {[]string{"-store", ":memory:", directory}, 2, "plain path"},
		"store of a URI":         {[]string{"-store", "file:a.db", directory}, 2, "plain path"},
		"store without a name":   {[]string{"-store", "", directory}, 2, "plain path"},
		"store with a separator": {[]string{"-store", filepath.Join(elsewhere, "a.db") + "/", directory}, 2, "plain path"},
		"directory without name": {[]string{""}, 1, " : "},
		"unknown flag":           {[]string{"-colour", directory}, 2, "-colour (usage: go run ./docs/tour [-store PATH] [DIRECTORY])"},
		"two directories":        {[]string{directory, elsewhere}, 2, "2 directories"},
		"no repository":          {nil, 2, "this is not the repository"},
	} {
		t.Run(name, func(t *testing.T) {
			temporary := t.TempDir()
			got := runCommand(t, tourCommand(t, temporary, bad.arguments...))
			checkStatus(t, got, bad.status)
			if got.stdout != "" || !strings.HasPrefix(got.stderr, "tour: ") || strings.Index(got.stderr, "\n") != len(got.stderr)-1 ||
				!strings.Contains(got.stderr, bad.complaint) {
				t.Errorf("stdout = %q, stderr = %q, want one line with %q", got.stdout, got.stderr, bad.complaint)
			}
			if after := snapshot(t, directory, elsewhere); !slices.Equal(after, before) {
				t.Errorf("files = %q, want %q", after, before)
			}
			if left := snapshot(t, temporary); len(left) != 1 {
				t.Errorf("the tour left %q", left)
			}
		})
	}
}

// snapshot is the path, size and time of all that is below the directories, and they themselves.
func snapshot(t testing.TB, directories ...string) (list []string) {
	t.Helper()
	for _, directory := range directories {
		err := filepath.WalkDir(directory, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err == nil {
				list = append(list, fmt.Sprint(path, " ", info.Size(), " ", info.ModTime()))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return list
}

func TestTour_UnreadableFileLeavesNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("permissions work otherwise here")
	}
	directory, temporary := makeDirectory(t), t.TempDir()
	if err := os.Chmod(filepath.Join(directory, "sub", "two.txt"), 0); err != nil {
		t.Fatal(err)
	}
	command := tourCommand(t, temporary, directory)
	if os.Geteuid() == 0 { // whom no permission stops
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			t.Skip("root without setpriv can read every file")
		}
		for _, path := range []string{command.Path, directory, temporary} {
			openPath(t, path)
		}
		command.Args = append([]string{setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", command.Path}, command.Args[1:]...)
		command.Path = setpriv
	}
	got := runCommand(t, command)
	checkStatus(t, got, 1)
	if want := "two.txt: permission denied\n"; got.stdout != "" || strings.Count(got.stderr, "\n") != 1 || !strings.HasSuffix(got.stderr, want) {
		t.Errorf("stdout = %q, stderr = %q, want one line with %q", got.stdout, got.stderr, want)
	}
	if left := snapshot(t, temporary); len(left) != 1 {
		t.Errorf("the tour left %q", left)
	}
}

// openPath lets everybody pass the temporary directories above the path.
func openPath(t testing.TB, path string) {
	t.Helper()
	for folder := filepath.Dir(path); strings.HasPrefix(folder, os.TempDir()) && folder != os.TempDir(); folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTour_HelpIsNoMistake(t *testing.T) {
	t.Parallel()
	got := runTour(t, "-help")
	checkStatus(t, got, 0)
	if want := usage + "\n"; got.stdout != want || got.stderr != "" {
		t.Errorf("stdout = %q, stderr = %q, want %q", got.stdout, got.stderr, want)
	}
}
