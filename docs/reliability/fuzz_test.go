package reliability_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"dappco.re/go/core/store"
)

// FuzzStore plays the model test's operations, encoded in bytes of which the first chooses the shape.
func FuzzStore(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(append([]byte{byte(seed)}, randomInput(seed, 200)...))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 0 {
			replay(t, shapes[int(input[0])%len(shapes)], input[1:min(len(input), 1000)])
		}
	})
}

// FuzzPath opens stores under arbitrary names. The operating system says in a twin directory which file a name
// means: New creates or opens exactly that one, or fails with an error that names the path and creates nothing.
func FuzzPath(f *testing.F) {
	if runtime.GOOS == "windows" {
		f.Skip("Windows gives a meaning to too many names")
	}
	for _, name := range []string{
		"store.db", "./x", "d/x", "d//x", "//x", "d/./x", "d/../x", "d/e/../x", "link/x", "link/../x", "link/../../x",
		"a?b", "x?mode=memory", "x?_pragma=user_version(1)", "a%20b", "a%00b", "%", "#", "a#b", "a&b=c", "a;b", "a'b", `a"b`, "a\\b",
		" x ", "\n", "é", "\xff", "file:x", "file:x?mode=memory", "FILE:x", ":memory:", ":memory", "x-wal", "x-shm", "x-journal",
		"", ".", "d", "d/", "d/.", "x/", "empty", "empty/", "empty/x", "alias", "./alias", "dangling", "text", "d/../text",
		"missing/x", "missing/../x", "a\x00b", "\x00", "d/\x00/x",
		strings.Repeat("n", 247), strings.Repeat("n", 255), strings.Repeat("n", 256), strings.Repeat("./", 300) + "x",
	} {
		f.Add(name, false)
	}
	for _, name := range []string{"", "x", "./x", "d/x", "link/../x", "a?b", "%", "FILE:x", ":memory", "missing/x", "dangling", "a\x00b"} {
		f.Add(name, true)
	}
	f.Fuzz(func(t *testing.T, name string, relative bool) {
		if slices.Contains(strings.Split(name, "/"), "..") && !filepath.IsLocal(strings.TrimLeft(name, "/")) {
			t.Skip("leads out of the directory")
		}
		root := t.TempDir()
		directory, twin := filepath.Join(root, "directory"), filepath.Join(root, "twin")
		layOut(t, directory)
		layOut(t, twin)
		path := directory + "/" + name
		if relative {
			if strings.HasPrefix(name, "file:") || strings.HasPrefix(name, "/") || name == ":memory:" {
				t.Skip("is not relative, or no path")
			}
			t.Chdir(directory)
			path = name
		}
		untouched := list(t, directory)
		meant := meaning(t, twin, name)
		err := writeOne(path)
		if err != nil {
			// SQLite takes no longer path, and a log's name is longer than its database's.
			mayFail := len(path) > 400 || len(filepath.Base(path)) > 255-len("-journal")
			if meant != "" && !mayFail {
				t.Fatalf("New(%q): %v; it means %q", path, err, meant)
			}
			if !strings.HasPrefix(err.Error(), "store.New: ") || !strings.Contains(err.Error(), strconv.Quote(path)) {
				t.Errorf("New(%q): %v; want an error that names the path", path, err)
			}
			if got := list(t, directory); !maps.Equal(got, untouched) {
				t.Errorf("New(%q) failed and left %v of %v", path, got, untouched)
			}
			return
		}
		if meant == "" {
			t.Fatalf("New(%q) succeeded", path)
		}
		got := list(t, directory)
		for name, kind := range got {
			if kind == "store" && name != meant {
				t.Errorf("New(%q) opened %q, want %q", path, name, meant)
			}
		}
		untouched[meant] = "store"
		if !maps.Equal(got, untouched) {
			t.Errorf("New(%q) left %v, want %v", path, got, untouched)
		}
	})
}

// layOut makes a directory with something of each kind that a path can run into.
func layOut(t *testing.T, directory string) {
	t.Helper()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(directory, "d", "e"), 0o700),
		os.WriteFile(filepath.Join(directory, "empty"), nil, 0o600),
		os.WriteFile(filepath.Join(directory, "text"), []byte("no database"), 0o600),
		os.WriteFile(filepath.Join(directory, "d", "target"), nil, 0o600),
		os.Symlink("d/e", filepath.Join(directory, "link")),
		os.Symlink("d/target", filepath.Join(directory, "alias")),
		os.Symlink("nowhere", filepath.Join(directory, "dangling")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// list returns all files below a directory, each with what it is. No store may be open there.
func list(t *testing.T, directory string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == directory {
			return err
		}
		kind := entry.Type().String()
		if entry.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			kind = fmt.Sprintf("%.20q", content)
			if bytes.HasPrefix(content, []byte("SQLite format 3\x00")) && info.Mode().Perm() == 0o600 {
				kind = "store"
			}
		}
		files[path[len(directory)+1:]] = kind
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// meaning returns the file that name means in directory, "" where it means none that may become a store.
func meaning(t *testing.T, directory, name string) string {
	t.Helper()
	path := directory + "/" + name
	if _, err := os.Lstat(path); err == nil {
		if _, err := os.Stat(path); err != nil {
			return "" // a link that points to nothing
		}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return ""
	}
	defer file.Close()
	if _, err := file.WriteString("this one"); err != nil {
		t.Fatal(err)
	}
	for name, kind := range list(t, directory) {
		if kind == `"this one"` {
			return name
		}
	}
	return "" // the text is another file's beginning now
}

// writeOne opens a store, writes an entry, and reads it after opening the store again.
func writeOne(path string) error {
	for range 2 {
		storeInstance, err := store.New(path)
		if err != nil {
			return err
		}
		setError := storeInstance.Set("group", "key", "value")
		value, getError := storeInstance.Get("group", "key")
		if err := errors.Join(setError, getError, storeInstance.Close()); err != nil || value != "value" {
			return fmt.Errorf("a store with %q: %w", value, err)
		}
	}
	return nil
}

// FuzzNamespace compares what is accepted with the rule, and where a scope's entries lie.
func FuzzNamespace(f *testing.F) {
	for _, namespace := range []string{"a", "tenant-a", "A", "-", "0", "", "a\n", "\na", "a:", "a b", "a_b", "é", "\xff", "a\x00", strings.Repeat("a", 10_000)} {
		f.Add(namespace)
	}
	storeInstance := openStore(f, ":memory:")
	rule := regexp.MustCompile(`\A[a-zA-Z0-9-]+\z`)
	f.Fuzz(func(t *testing.T, namespace string) {
		scopedStore, err := store.NewScoped(storeInstance, namespace)
		limited, limitedError := store.NewScopedWithQuota(storeInstance, namespace, store.QuotaConfig{MaxKeys: 1})
		if !rule.MatchString(namespace) {
			for _, err := range []error{err, limitedError} {
				if err == nil || !strings.HasPrefix(err.Error(), "store.NewScoped") || !strings.Contains(err.Error(), "invalid") {
					t.Errorf("namespace %q: %v, want an error that says invalid", namespace, err)
				}
			}
			return
		}
		if err := errors.Join(err, limitedError); err != nil {
			t.Fatalf("namespace %q: %v", namespace, err)
		}
		if got := scopedStore.Namespace(); got != namespace {
			t.Errorf("Namespace() = %q, want %q", got, namespace)
		}
		defer storeInstance.DeleteGroup(namespace + ":group")
		if err := limited.Set("group", "key", "value"); err != nil {
			t.Fatal(err)
		}
		if err := limited.Set("group", "other", "value"); !errors.Is(err, store.QuotaExceededError) {
			t.Errorf("a second key: %v, want QuotaExceededError", err)
		}
		groups, err := storeInstance.Groups("")
		if want := []string{namespace + ":group"}; err != nil || !slices.Equal(groups, want) {
			t.Errorf("Groups(\"\") = %q, %v; want %q", groups, err, want)
		}
	})
}

// FuzzRoundTrip writes an entry amid others with nearly its name; each comes back, and goes, alone.
func FuzzRoundTrip(f *testing.F) {
	for _, text := range []string{"", "a", "A", "\x00", "a\x00b", "\xff", "\xff\xfe", "é", "e\u0301", "%", "_", "*", "'", `"`, "a:b", "\r\n", strings.Repeat("x", 70_000)} {
		f.Add(text, text, text)
	}
	stores := []*store.Store{openStore(f, ":memory:"), openStore(f, filepath.Join(f.TempDir(), "store.db"))}
	f.Fuzz(func(t *testing.T, group, key, value string) {
		entries := map[entryName]string{}
		for _, near := range []func(string) string{strings.ToUpper, strings.ToLower, strings.TrimSpace, func(text string) string { return text + "\x00" },
			func(text string) string { return text + " " }, func(text string) string { return text[:len(text)/2] }, func(string) string { return "" }} {
			entries[entryName{near(group), key}] = "near group"
			entries[entryName{group, near(key)}] = "near key"
		}
		entries[entryName{group + key, ""}] = "joined"
		entries[entryName{group, key}] = value
		for _, storeInstance := range stores {
			for name, value := range entries {
				if err := storeInstance.Set(name.group, name.key, value); err != nil {
					t.Fatal(err)
				}
			}
			checkEntries(t, storeInstance, entries)
			if err := storeInstance.Delete(group, key); err != nil {
				t.Fatal(err)
			}
			others := maps.Clone(entries)
			delete(others, entryName{group, key})
			checkEntries(t, storeInstance, others)
			for name := range others {
				if err := storeInstance.DeleteGroup(name.group); err != nil {
					t.Fatal(err)
				}
			}
			checkEntries(t, storeInstance, nil)
		}
	})
}

// checkEntries compares everything in a store with a map.
func checkEntries(t *testing.T, storeInstance *store.Store, want map[entryName]string) {
	t.Helper()
	got := map[entryName]string{}
	for group, err := range storeInstance.GroupsSeq("") {
		if err != nil {
			t.Fatal(err)
		}
		for entry, err := range storeInstance.All(group) {
			if err != nil {
				t.Fatal(err)
			}
			got[entryName{group, entry.Key}] = entry.Value
		}
	}
	if !maps.Equal(got, want) {
		t.Fatalf("the store holds %.1000q, want %.1000q", fmt.Sprint(got), fmt.Sprint(want))
	}
	for name, value := range want {
		if got, err := storeInstance.Get(name.group, name.key); err != nil || got != value {
			t.Fatalf("Get(%.100q, %.100q) = %.100q, %v; want %.100q", name.group, name.key, got, err, value)
		}
	}
}

// FuzzPrefix compares what matches a prefix with strings.HasPrefix, on groups that nearly have it.
func FuzzPrefix(f *testing.F) {
	for _, prefix := range []string{"", "a", "A", "a:", "%", "_", "a%", "\x00", "\xff", "a\xff", "\xff\xff", "a\xff\xff", "\xf4\x8f\xbf\xbf", "é", "*", "[a]", "\x7f", "a\x00"} {
		f.Add(prefix, "a:x", "b")
		f.Add(prefix, prefix+"\xff", prefix+"\x00")
	}
	f.Fuzz(func(t *testing.T, prefix, first, second string) {
		storeInstance := openStore(t, ":memory:")
		defer storeInstance.Close()
		scopedStore, err := store.NewScoped(storeInstance, "tenant")
		if err != nil {
			t.Fatal(err)
		}
		counts := map[string]int{}
		for _, group := range []string{first, second, prefix, prefix + first, prefix + "\x00", prefix + "\xff", strings.ToUpper(prefix), prefix[:len(prefix)/2], first + prefix} {
			counts[group]++
			key := strconv.Itoa(counts[group])
			for _, err := range []error{
				storeInstance.Set(group, key, "value"),
				scopedStore.Set(group, key, "value"),
				storeInstance.SetWithTTL(group, "expired", "value", 0),
				storeInstance.SetWithTTL(group+"~", "expired", "value", 0),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		all := maps.Clone(counts)
		for group, count := range counts {
			checkPrefix(t, scopedStore, group, counts)
			all["tenant:"+group] += count
		}
		for group := range all {
			checkPrefix(t, storeInstance, group, all)
		}
	})
}

func checkPrefix(t *testing.T, reader keyValues, prefix string, counts map[string]int) {
	t.Helper()
	var want []string
	total := 0
	for _, group := range slices.Sorted(maps.Keys(counts)) {
		if strings.HasPrefix(group, prefix) {
			want = append(want, group)
			total += counts[group]
		}
	}
	if got, err := reader.Groups(prefix); err != nil || !slices.Equal(got, want) {
		t.Errorf("%T.Groups(%q) = %q, %v; want %q", reader, prefix, got, err, want)
	}
	var got []string
	for group, err := range reader.GroupsSeq(prefix) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, group)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%T.GroupsSeq(%q) yields %q, want %q", reader, prefix, got, want)
	}
	if got, err := reader.CountAll(prefix); err != nil || got != total {
		t.Errorf("%T.CountAll(%q) = %d, %v; want %d", reader, prefix, got, err, total)
	}
}

// FuzzSplit compares GetSplit and GetFields with strings.Split and strings.Fields.
func FuzzSplit(f *testing.F) {
	for _, value := range []string{"", "a", "a,b", ",", ",,", " a  b ", "a\u00a0b", "\u2003", "日本語", "a\xffb", "\x00", "ab\x00ab"} {
		for _, separator := range []string{"", ",", " ", "ab", "\xff", "\x00", "本", "\u00a0"} {
			f.Add(value, separator)
		}
	}
	storeInstance := openStore(f, ":memory:")
	f.Fuzz(func(t *testing.T, value, separator string) {
		if err := storeInstance.Set("group", "key", value); err != nil {
			t.Fatal(err)
		}
		parts, splitError := storeInstance.GetSplit("group", "key", separator)
		fields, fieldsError := storeInstance.GetFields("group", "key")
		if err := errors.Join(splitError, fieldsError); err != nil {
			t.Fatal(err)
		}
		if got, want := slices.Collect(parts), strings.Split(value, separator); !slices.Equal(got, want) {
			t.Errorf("GetSplit of %q by %q yields %q, want %q", value, separator, got, want)
		}
		if got, want := slices.Collect(fields), strings.Fields(value); !slices.Equal(got, want) {
			t.Errorf("GetFields of %q yields %q, want %q", value, got, want)
		}
	})
}

// FuzzRender renders arbitrary templates. The stored values are written in letters that no template of this test
// can produce by itself, so that a trace of one in an error is a leak.
func FuzzRender(f *testing.F) {
	for _, source := range []string{
		"", "{{.token}}", "{{.token.x}}", "{{.missing}}", "{{.missing.x}}", "{{index . .token}}", "{{index .token 100}}", "{{index .token .token}}",
		"{{slice .token 1 1000}}", "{{slice .token .token}}", "{{range .token}}{{end}}", "{{range slice .token 0 1}}{{end}}", "{{range js .token}}{{end}}",
		`{{range printf "%x" .token}}{{end}}`, "{{range $k, $v := .}}{{$k}}={{$v}}{{end}}", "{{call .token}}", "{{call .token .list}}", "{{template .token}}",
		`{{template "x" .token}}`, `{{define "x"}}{{.y}}{{end}}{{template "x" .token}}`, `{{define "x"}}{{template "x" .}}{{end}}{{template "x" .}}`,
		"{{len 1 .token}}", "{{eq .token 1}}", "{{lt .token 1}}", "{{lt .token true}}", "{{and .token.x}}", "{{not .token .token}}", "{{(printf .token).x}}",
		"{{with .token}}{{.x}}{{end}}", "{{$x := .token}}{{$x.y}}", "{{.token | .token}}", "{{html .token | len | index .list}}", "{{", "{{end}}", "{{.}}", "{{break}}",
		`{{printf "%p" .}}`,
	} {
		f.Add(source)
	}
	data := map[string]string{"token": "ᚠᚢᚦᚨᚱᚲ", "list": "ᚠ,ᚢ,ᚦ", "empty": ""}
	traces := []string{"\xe1", `\xe1`, `\u16`, "e19a", "%e1", "&#57"} // the letters, and what the template functions make of them
	storeInstance := openStore(f, ":memory:")
	for key, value := range data {
		if err := storeInstance.Set("group", key, value); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, source string) {
		want, errorPrefix := render("template", source, data)
		if other, _ := render("", source, maps.Clone(data)); other != want {
			t.Skip("defines a template of the name that this one happens to have, or shows where its data lies")
		}
		got, err := storeInstance.Render(source, "group")
		if got != want {
			t.Errorf("Render(%q) = %q, want %q", source, got, want)
		}
		if (err != nil) != (errorPrefix != "") || err != nil && !strings.HasPrefix(err.Error(), errorPrefix) {
			t.Errorf("Render(%q): %v, want an error after %q", source, err, errorPrefix)
		}
		if strings.ContainsFunc(source, func(letter rune) bool { return letter == '\\' || letter > unicode.MaxASCII }) {
			return // it may show traces of its own
		}
		for _, text := range errorTexts(err) {
			for _, trace := range traces {
				if strings.Contains(strings.ToLower(text), trace) && !strings.Contains(strings.ToLower(source), trace) {
					t.Errorf("Render(%q): an error shows what is stored: %q", source, text)
				}
			}
		}
	})
}

// errorTexts returns the texts of an error and of all that it wraps.
func errorTexts(err error) []string {
	if err == nil {
		return nil
	}
	texts := []string{err.Error()}
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		texts = append(texts, errorTexts(wrapper.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, err := range wrapper.Unwrap() {
			texts = append(texts, errorTexts(err)...)
		}
	}
	return texts
}

// FuzzDatabaseFile opens a file of arbitrary bytes, or a real one with some of them changed, and calls everything.
// Each call ends, in an error of the store where there is one, and none shows a stored value.
func FuzzDatabaseFile(f *testing.F) {
	files := [][]byte{nil, smallFile(f), largeFile(f)}
	edit := func(offset uint16, value byte) []byte {
		return append(binary.BigEndian.AppendUint16(nil, offset), value)
	}
	f.Add(byte(0), []byte{})
	f.Add(byte(0), []byte("SQLite format 3\x00"))
	f.Add(byte(0), bytes.Repeat([]byte{0xff}, 8192))
	for file := byte(1); file < 3; file++ {
		for i, offset := range []uint16{0, 16, 18, 19, 20, 28, 31, 36, 39, 44, 47, 52, 55, 56, 59, 60, 96, 100, 101, 103, 104, 105, 108, 200, 4000, 4090, 4096, 4099, 4101, 4104, 8000, 8192, 8195, 8200, 12288, 12300, 16390} {
			f.Add(file, edit(offset, []byte{0, 2, 0xff}[i%3]))
		}
		f.Add(file, []byte{})
		f.Add(file, []byte{0x10})       // cut to a page
		f.Add(file, []byte{0x27, 0x10}) // cut inside one
	}
	for seed := range uint64(scale(10, 500, 20_000)) {
		f.Add(byte(1+seed%2), randomInput(seed, 3*int(1+seed%10)))
	}
	f.Fuzz(func(t *testing.T, file byte, changes []byte) {
		defer watchdog()()
		content := changes
		if original := files[int(file)%len(files)]; original != nil {
			content = edited(original, changes)
		}
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		storeInstance, err := store.New(path)
		checkError(t, err)
		if err != nil {
			return
		}
		useAll(t, storeInstance)
		checkError(t, storeInstance.Close())
	})
}

// smallFile returns a store's file with a page for each of its tables and indexes.
func smallFile(f *testing.F) []byte {
	return fileWith(f, func(storeInstance *store.Store) error {
		return errors.Join(storeInstance.Set("group", "key", secret), storeInstance.SetWithTTL("group", "old", secret, 0))
	})
}

// largeFile returns one with inner pages, overflow pages, free pages and a quota.
func largeFile(f *testing.F) []byte {
	return fileWith(f, func(storeInstance *store.Store) error {
		limited, err := store.NewScopedWithQuota(storeInstance, "tenant", store.QuotaConfig{MaxKeys: 100})
		if err != nil {
			return err
		}
		errs := []error{storeInstance.Set("large", "key", strings.Repeat(secret, 1000)), storeInstance.Set("gone", "key", strings.Repeat(secret, 1000)), storeInstance.DeleteGroup("gone")}
		for i := range 90 {
			errs = append(errs, limited.SetWithTTL(fmt.Sprint("group", i%7), fmt.Sprint(i), strings.Repeat(secret, i), time.Duration(i%2)*time.Hour))
		}
		return errors.Join(errs...)
	})
}

const secret = "ᚠᚢᚦᚨᚱᚲ"

func fileWith(f *testing.F, write func(*store.Store) error) []byte {
	f.Helper()
	path := filepath.Join(f.TempDir(), "store.db")
	storeInstance := openStore(f, path)
	if err := errors.Join(write(storeInstance), storeInstance.Close()); err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	return content
}

// edited applies changes of three bytes each: an offset and what to write there. What is left over cuts the file.
func edited(original, changes []byte) []byte {
	content := slices.Clone(original)
	for ; len(changes) >= 3; changes = changes[3:] {
		content[int(binary.BigEndian.Uint16(changes))%len(content)] = changes[2]
	}
	switch len(changes) {
	case 1:
		return content[:min(len(content), int(changes[0])<<8)]
	case 2:
		return content[:min(len(content), int(binary.BigEndian.Uint16(changes)))]
	}
	return content
}

// useAll calls every method. A damaged file may hold anything, so only that each call ends is certain.
func useAll(t *testing.T, storeInstance *store.Store) {
	t.Helper()
	limited, err := store.NewScopedWithQuota(storeInstance, "tenant", store.QuotaConfig{MaxKeys: 100, MaxGroups: 3})
	checkError(t, err)
	views := []keyValues{storeInstance}
	if err == nil {
		views = append(views, limited)
	}
	for _, view := range views {
		for _, call := range []func() error{
			func() error { _, err := view.Get("group", "key"); return err },
			func() error { _, err := view.Get("large", "key"); return err },
			func() error { _, err := view.Count("group1"); return err },
			func() error { _, err := view.CountAll("g"); return err },
			func() error { _, err := view.GetAll("group1"); return err },
			func() error { _, err := view.Groups(""); return err },
			func() error { _, err := view.GetSplit("group", "key", ""); return err },
			func() error { _, err := view.GetFields("group", "key"); return err },
			func() error { _, err := view.Render("{{.key}}", "group"); return err },
			func() error { return view.Set("group", "key", "value") },
			func() error { return view.Set("large", "key", strings.Repeat("value", 2000)) },
			func() error { return view.SetWithTTL("group1", "new", "value", time.Nanosecond) },
			func() error { _, err := view.PurgeExpired(); return err },
			func() error { return view.Delete("group2", "9") },
			func() error { return view.DeleteGroup("group3") },
		} {
			checkError(t, call())
		}
		checkStream(t, view.All("large"))
		checkStream(t, view.All("group4"))
		checkStream(t, view.GroupsSeq(""))
	}
}

// checkStream expects that a sequence ends, and that an error is its last.
func checkStream[T any](t *testing.T, sequence iter.Seq2[T, error]) {
	t.Helper()
	count := 0
	var failure error
	for _, err := range sequence {
		if failure != nil {
			t.Fatalf("a stream goes on after %v", failure)
		}
		if count++; count > 10_000 {
			t.Fatal("a stream of a small file does not end")
		}
		failure = err
		checkError(t, err)
	}
}

// checkError accepts nil and the store's own errors, unless they show a stored value.
func checkError(t *testing.T, err error) {
	t.Helper()
	for i, text := range errorTexts(err) {
		if i == 0 && !strings.HasPrefix(text, "store.") || strings.Contains(text, secret) {
			t.Errorf("got error %q, want one of the store without a stored value", text)
		}
	}
}
