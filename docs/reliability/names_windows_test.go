package reliability_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"dappco.re/go/core/store"
)

// TestWindows_ShortNameMeansTheFile opens a file by its name and by the one of eight and three characters that Windows gives it
// besides. SQLite would keep a log beside each, and the stores would damage the file.
func TestWindows_ShortNameMeansTheFile(t *testing.T) {
	directory := t.TempDir()
	long := filepath.Join(directory, "a rather long name.database")
	first, err := store.New(long)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	path, err := syscall.UTF16PtrFromString(long)
	if err != nil {
		t.Fatal(err)
	}
	buffer := make([]uint16, 1024)
	if _, err := syscall.GetShortPathName(path, &buffer[0], uint32(len(buffer))); err != nil {
		t.Fatal(err)
	}
	short := syscall.UTF16ToString(buffer)
	if filepath.Base(short) == filepath.Base(long) {
		t.Skip("this volume has no short names")
	}
	second, err := store.New(short)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := second.Set("config", "colour", "blue"); err != nil {
		t.Fatal(err)
	}
	if value, err := first.Get("config", "colour"); err != nil || value != "blue" {
		t.Errorf("the other store reads %q, %v", value, err)
	}
	if _, err := os.Lstat(short + "-wal"); err == nil {
		t.Error("a log beside the short name")
	}
}
