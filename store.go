package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/template"
	"time"

	"modernc.org/sqlite"
)

const (
	// maximumLength is SQLite's own limit on a string, in bytes
	// (https://sqlite.org/limits.html). The driver hands lengths on as 32 bits, so
	// that without a check of ours a longer string would be stored short.
	maximumLength = 1_000_000_000

	// maximumWait is how long a call waits for another process.
	maximumWait = 5 * time.Second

	// maximumPause bounds one pause of that wait. Beside a process that commits back
	// to back the longest wait of a writer grows with it: 0.9 s at 10 ms.
	maximumPause = 2 * time.Millisecond

	// purgeInterval is the period of the background purge.
	purgeInterval = time.Minute

	// purgeBatch is how many expired rows a purge looks up or removes at once, and bounds how
	// long it makes others wait. It gathers some purgeWindow of them (1 MiB) and removes them
	// in the order of their place in the file: in that of their expiry, a batch would
	// write nearly a page a row. Rows up to purgeGap apart are removed by one statement.
	// Large values end a batch once it has freed purgeSize of pages, which is looked at
	// after one row, two more, four more, and so on.
	purgeBatch  = 2_500
	purgeWindow = 128 * 1024
	purgeGap    = 8
	purgeSize   = 16 << 20

	// SQLite does a checkpoint with the commit that makes the log checkpointSize long. A
	// batch of a purge with one takes two or three times as long, so that the purge has it
	// done beforehand, apart, from purgeCheckpointSize on. Get's lazy delete does nothing beyond
	// lazyMost. All in bytes of pages.
	checkpointSize      = 1_000 * 4_096
	purgeCheckpointSize = 400 * 4_096
	lazyMost            = 16 * checkpointSize

	// pageRows and pageBytes bound what a stream holds in memory.
	pageRows  = 256
	pageBytes = 1 << 20

	// roundCalls bounds how many writes share a transaction. Reads share it with all that
	// wait: a further round of theirs would have to wait for the next batch of a purge.
	roundCalls = 256

	// quotedName is the longest group and key that an error repeats, in bytes.
	quotedName = 4 << 20
)

// NotFoundError is returned, wrapped, when a key does not exist or has expired.
//
//	_, err := storeInstance.Get("config", "colour")
//	if errors.Is(err, store.NotFoundError) {
//		// use the default
//	}
//
//lint:ignore ST1012 the specification names it so
var NotFoundError = errors.New("not found")

var (
	errClosed  = fmt.Errorf("the store is closed: %w", os.ErrClosed)
	errTooLong = fmt.Errorf("a group, key or value is longer than %d bytes", maximumLength)
)

// ---------------------------------------------------------------------------
// SQL. A group or key that another program stored as a BLOB sorts behind every
// text, so `< x''` is where text ends. Alive is what has no expiry or a later one.

const createEntriesSQL = `CREATE TABLE entries (
	group_name  TEXT NOT NULL,
	entry_key   TEXT NOT NULL,
	entry_value TEXT NOT NULL,
	expires_at  INTEGER,
	PRIMARY KEY (group_name, entry_key)
)`

const createExpiryIndexSQL = `CREATE INDEX entries_expires_at ON entries (expires_at) WHERE expires_at IS NOT NULL`

// The schema as New finds it: what is called entries, whether the index is there, and whether
// another program has added one that forbids equal values.
const selectSchemaSQL = `SELECT type, sql, EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'entries_expires_at' COLLATE NOCASE),
	EXISTS (SELECT 1 FROM sqlite_schema WHERE tbl_name = 'entries' COLLATE NOCASE AND sql LIKE 'CREATE UNIQUE INDEX %')
FROM sqlite_schema WHERE name = 'entries' COLLATE NOCASE AND type <> 'trigger'`

// One row when `entries` is another program's table of the store's shape.
const selectShapeSQL = `SELECT 1
FROM pragma_table_list('entries') AS list
WHERE list.schema = 'main' AND list.type = 'table' AND NOT list.wr AND NOT list.strict
AND (SELECT count(*) FROM pragma_table_xinfo('entries')) = 4
AND (SELECT count(*) FROM pragma_table_xinfo('entries')
	WHERE hidden = 0 AND (lower(name), upper(type), pk) IN (VALUES
		('group_name', 'TEXT', 1), ('entry_key', 'TEXT', 2), ('entry_value', 'TEXT', 0), ('expires_at', 'INTEGER', 0))
	AND NOT (lower(name) = 'expires_at' AND "notnull")) = 4
AND (SELECT count(*) FROM pragma_index_list('entries') WHERE "unique") = 1
AND (SELECT count(*) FROM pragma_index_list('entries') AS list, pragma_index_xinfo(list.name) AS part
	WHERE list.origin = 'pk' AND part.key AND upper(part.coll) = 'BINARY' AND NOT part."desc") = 2`

// One row when such a table has no collation but BINARY. UNION compares with those of its
// first part, the only place that shows a column's. One that the program has added itself
// may differ in other letters, and must not be named at all.
const selectBinarySQL = `SELECT 1
WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema AS object, pragma_collation_list AS added
	WHERE object.name = 'entries' COLLATE NOCASE AND object.type = 'table'
	AND added.name NOT IN ('BINARY', 'NOCASE', 'RTRIM') AND instr(upper(object.sql), upper(added.name)))
AND 9 = (SELECT count(*) FROM (
	SELECT group_name, entry_key, entry_value, expires_at FROM entries WHERE FALSE
	UNION VALUES ('a', 'a', 'a', 'a'),
		('A', 'a', 'a', 'a'), ('a', 'A', 'a', 'a'), ('a', 'a', 'A', 'a'), ('a', 'a', 'a', 'A'),
		('a ', 'a', 'a', 'a'), ('a', 'a ', 'a', 'a'), ('a', 'a', 'a ', 'a'), ('a', 'a', 'a', 'a ')
))`

// A column behind a unary plus has no declared type and a name of one letter is
// interned: the driver then allocates neither, on the store's most frequent statement.
const selectEntrySQL = `SELECT +entry_value AS v, +expires_at AS e FROM entries WHERE group_name = ? AND entry_key = ?`

const selectGroupSQL = `SELECT entry_key, entry_value FROM entries
WHERE group_name = ?1 AND entry_key < x'' AND (expires_at IS NULL OR expires_at > ?2)`

const selectPageSQL = `SELECT +entry_key AS k, +entry_value AS v, +expires_at AS e FROM entries
WHERE group_name = ?1 AND entry_key >= ?2 AND entry_key < x'' AND (expires_at IS NULL OR expires_at > ?3)
ORDER BY entry_key LIMIT ?4`

const countGroupSQL = `SELECT count(*) FROM entries
WHERE group_name = ?1 AND entry_key < x'' AND (expires_at IS NULL OR expires_at > ?2)`

const countPrefixSQL = `SELECT count(*) FROM entries
WHERE group_name >= ?1 AND group_name < coalesce(?2, x'') AND entry_key < x'' AND (expires_at IS NULL OR expires_at > ?3)`

// Seeks from one group name to the next instead of reading every key. The expiry is that
// of some key that is alive, the empty string for never, or NULL for a group without one.
const selectGroupNamesSQL = `WITH RECURSIVE names (name) AS (
	SELECT min(group_name) FROM entries WHERE group_name >= ?1 AND group_name < coalesce(?2, x'')
	UNION ALL
	SELECT (SELECT min(group_name) FROM entries WHERE group_name > name AND group_name < coalesce(?2, x''))
	FROM names WHERE name IS NOT NULL
)
SELECT name, NULL, (SELECT ifnull(expires_at, '') FROM entries
	WHERE group_name = name AND entry_key < x'' AND (expires_at IS NULL OR expires_at > ?3) LIMIT 1)
FROM names WHERE name IS NOT NULL LIMIT ?4`

const upsertEntrySQL = `INSERT INTO entries (group_name, entry_key, entry_value, expires_at) VALUES (?, ?, ?, ?)
ON CONFLICT (group_name, entry_key) DO UPDATE SET entry_value = excluded.entry_value, expires_at = excluded.expires_at`

const deleteEntrySQL = `DELETE FROM entries WHERE group_name = ? AND entry_key = ? RETURNING +expires_at AS e`

const deleteExpiredEntrySQL = `DELETE FROM entries WHERE group_name = ?1 AND entry_key = ?2 AND expires_at <= ?3`

const existsGroupSQL = `SELECT 1 FROM entries
WHERE group_name = ? AND entry_key < x'' AND (expires_at IS NULL OR expires_at > ?) LIMIT 1`

const deleteGroupSQL = `DELETE FROM entries WHERE group_name = ?`

// What has expired by ?3, from behind the row (?1, ?2) on, in the order of the index. Two
// halves, since a row value would not seek among equal expiries.
const selectExpiredSQL = `SELECT rowid, expires_at FROM entries WHERE expires_at = ?1 AND rowid > ?2
UNION ALL
SELECT rowid, expires_at FROM entries WHERE expires_at > ?1 AND expires_at <= ?3
ORDER BY 2, 1 LIMIT ?4`

// The same, telling which rows are in a range of groups.
const selectExpiredWithinSQL = `SELECT rowid, expires_at, group_name >= ?5 AND group_name < coalesce(?6, x'')
FROM entries WHERE expires_at = ?1 AND rowid > ?2
UNION ALL
SELECT rowid, expires_at, group_name >= ?5 AND group_name < coalesce(?6, x'')
FROM entries WHERE expires_at > ?1 AND expires_at <= ?3
ORDER BY 2, 1 LIMIT ?4`

// What was found of the rows from ?1 to ?2, the last found being (?3, ?4). Checks again,
// because a rowid may be another entry's by now. The unary plus keeps the planner from the
// index on expires_at.
const deleteExpiredSQL = `DELETE FROM entries WHERE rowid BETWEEN ?1 AND ?2
AND (+expires_at < ?3 OR (+expires_at = ?3 AND rowid <= ?4))
AND (?5 IS NULL OR (group_name >= ?5 AND group_name < coalesce(?6, x'')))`

// ---------------------------------------------------------------------------
// Types.

// Store is a key-value store in one SQLite file or in memory. [New] opens one. Its
// methods may be called from any number of goroutines.
type Store struct {
	connection *connection
	reads      lane
	writes     lane
	flushing   flusher // used by whoever leads the writes, and by Close behind them
	watchers   watchers
	callbacks  callbacks

	closing chan struct{} // closed when Close begins
	close   sync.Once
	purging sync.WaitGroup // the goroutine of the background purge
}

// KeyValue is one entry of a group, as [Store.All] yields it.
type KeyValue struct {
	Key, Value string
}

// ---------------------------------------------------------------------------
// Opening and closing.

// New opens the store in the file databasePath. A missing file is created, readable and
// writable by its owner alone. The files beside it have its mode.
//
//	storeInstance, err := store.New("/var/lib/app/state.db")
//	if err != nil {
//		return err
//	}
//	defer storeInstance.Close()
//
// The path ":memory:" makes a private store in memory. A string that begins with
// "file:" is an SQLite URI (https://sqlite.org/uri.html) and reaches the driver as it
// is. The driver creates a missing file with the mode that the umask leaves, and runs SQL
// that the URI's parameters contain: never make one from untrusted input. Every other path
// is taken literally. Any number of stores and processes may hold a file open; while this
// process does, nothing in it may open and close the file except through the store's own
// SQLite, since that drops SQLite's locks (https://sqlite.org/howtocorrupt.html, section 2.2).
//
// New fails, and creates nothing, if the path is empty or names a directory, if the file's
// directory is missing, if that directory or the file may not be read and written, and if
// the file is no SQLite file, is not UTF-8, or has something else under the name of the
// table "entries". It waits up to 5 seconds for another process.
func New(databasePath string) (*Store, error) {
	storeInstance, err := open(databasePath)
	if err != nil {
		return nil, fmt.Errorf("store.New: open %q: %w", databasePath, err)
	}
	return storeInstance, nil
}

func open(databasePath string) (*Store, error) {
	dataSource := databasePath
	if databasePath != ":memory:" && !strings.HasPrefix(databasePath, "file:") {
		if err := createFile(databasePath); err != nil {
			return nil, err
		}
		var err error
		if dataSource, err = fileURI(databasePath); err != nil {
			return nil, err
		}
	}
	creating.RLock()
	opened, err := connect(dataSource)
	creating.RUnlock()
	if err != nil {
		return nil, err
	}
	store := &Store{connection: opened, closing: make(chan struct{})}
	store.reads = lane{store: store, begin: "BEGIN"}
	store.writes = lane{store: store, begin: "BEGIN IMMEDIATE", writes: true, alone: make(chan struct{}, 1)}
	deadline := time.Now().Add(maximumWait)
	waitUntil := deadline
	for attempt := 0; ; attempt++ {
		err = opened.use(func() error { return store.prepare(waitUntil) })
		if !isBusy(err) || time.Until(deadline) <= 0 {
			break
		}
		waitUntil = time.Time{} // once, as the clock of testing/synctest stands still while SQLite waits
		time.Sleep(pause(attempt))
	}
	if err != nil {
		return nil, errors.Join(err, store.flushing.close(), opened.close())
	}
	store.purging.Go(store.purgeRegularly)
	return store, nil
}

// creating is held from looking for a file until it is made and closed, and for reading by
// any New that opens one: opened in between, it would lose its locks with that close. The
// driver runs the pragmas of a URI meanwhile, so that one which waits delays every New.
var creating sync.RWMutex

// createFile makes a missing file, empty and for its owner alone: SQLite would give it
// the process's umask, and a chmod afterwards would come too late.
func createFile(databasePath string) error {
	switch {
	case databasePath == "":
		return errors.New("the path is empty")
	case strings.ContainsRune(databasePath, 0):
		return errors.New("the path has a NUL byte")
	case os.IsPathSeparator(databasePath[len(databasePath)-1]):
		return errors.New("the path ends in a separator")
	}
	creating.Lock() // before the file is looked for: who finds it opens it
	defer creating.Unlock()
	if found, err := os.Stat(databasePath); err == nil {
		switch {
		case !found.Mode().IsRegular():
			return errors.New("it is not a regular file")
		case found.Size() == 1:
			return errors.New("file is not a database") // which SQLite takes for an empty one (unixFileSize)
		}
		return nil
	}
	absolute, err := absolutePath(databasePath)
	if err != nil {
		return cause(err)
	}
	if err := checkDirectory(filepath.Dir(absolute)); err != nil {
		return err
	}
	// A path that SQLite (pagerOpen), or a name that the file system, would refuse for the
	// files beside this one is refused before this one is made.
	const maximumPath = 512 - len("-journal")
	if len(absolute) > maximumPath {
		return fmt.Errorf("the path is longer than %d bytes", maximumPath)
	}
	if _, err := os.Lstat(absolute + "-journal"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return cause(err)
	}
	// SQLite uses what a removed database has left of this kind, with the mode that it has.
	if found, err := os.Lstat(absolute + "-shm"); err == nil {
		if !found.Mode().IsRegular() {
			return errors.New("the -shm beside it is not a regular file")
		}
		if err := os.Chmod(absolute+"-shm", 0o600); err != nil {
			return fmt.Errorf("the -shm beside it: %w", cause(err))
		}
	}
	file, err := os.OpenFile(databasePath, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return cause(err)
	}
	return file.Close()
}

// absolutePath is a path whose directory has its links resolved. As for the system, ".."
// behind a link means the parent of what the link leads to, which filepath.Abs and
// filepath.Join would take for that of the link.
func absolutePath(path string) (string, error) {
	directory, name := filepath.Split(path)
	if runtime.GOOS == "windows" {
		directory = cmp.Or(directory, ".")
	} else if !filepath.IsAbs(directory) {
		working, err := os.Getwd()
		if err != nil {
			return "", err
		}
		directory = working + "/" + directory
	}
	directory, err := filepath.EvalSymlinks(directory)
	if err != nil {
		return "", err
	}
	return filepath.Abs(filepath.Join(directory, name))
}

// cause is what err says without its path, which the caller names in its own way.
func cause(err error) error {
	if pathError, ok := errors.AsType[*os.PathError](err); ok {
		return pathError.Err
	}
	return err
}

// fileURI names databasePath to SQLite, literally and without leave to create it.
func fileURI(databasePath string) (string, error) {
	if runtime.GOOS == "windows" { // where SQLite follows a link, but puts the log beside it (winFullPathname)
		target, err := filepath.EvalSymlinks(databasePath)
		if err != nil {
			return "", cause(err)
		}
		databasePath = target
	}
	databasePath = filepath.ToSlash(databasePath)
	if filepath.VolumeName(databasePath) != "" && databasePath[0] != '/' {
		databasePath = "/" + databasePath
	}
	authority := ""
	if databasePath[0] == '/' {
		authority = "//"
	}
	// With _error_rc the driver names the error of a failed open, and not an older one.
	return "file:" + authority + (&url.URL{Path: databasePath}).EscapedPath() + "?mode=rw&_error_rc=1", nil
}

// prepare makes the connection and the file ready. It may be called again after it
// failed. Until the file has proved to be a store's, it is only read. SQLite itself waits
// for another process here, until waitUntil, whatever the statement.
func (store *Store) prepare(waitUntil time.Time) error {
	c := store.connection
	setTimeout := func() error { // before each statement that may wait, so that they wait 5 seconds together
		_, err := c.exec(fmt.Sprint("PRAGMA busy_timeout = ", max(0, time.Until(waitUntil)).Milliseconds()))
		return err
	}
	if err := c.checkWritable(); err != nil {
		return err
	}
	if err := setTimeout(); err != nil {
		return err
	}
	// The store binds and reads texts: a driver that turns some into times would lose those.
	const moment = "2000-01-01 00:00:00"
	if read, err := c.text("SELECT '" + moment + "'"); err != nil {
		return err
	} else if read != moment {
		return errors.New("with _texttotime the driver reads some texts as times")
	}
	err := c.query("PRAGMA database_list", func(row []driver.Value) bool {
		c.databaseFile = text(row[2]) // of main, which comes first
		return false
	})
	if err == nil && c.databaseFile != "" {
		err = checkDirectory(filepath.Dir(c.databaseFile))
	}
	if err != nil {
		return err
	}
	missing, err := c.checkSchema()
	if err != nil {
		return err
	}
	// Now the file has been read, which may forbid it (https://sqlite.org/fileformat.html, 1.3.3).
	if err := c.checkWritable(); err != nil {
		return err
	}
	if err := setTimeout(); err != nil {
		return err
	}
	journalMode, err := c.text("PRAGMA journal_mode = WAL")
	if err != nil {
		return err
	}
	if journalMode != "wal" && (journalMode != "memory" || c.databaseFile != "") {
		return fmt.Errorf("the journal mode is %q instead of wal", journalMode)
	}
	if c.pageSize, err = c.number("PRAGMA page_size"); err != nil {
		return err
	}
	for _, setting := range []string{
		// The flush of a commit is left to the store's flusher. What SQLite flushes itself, around
		// a checkpoint, has to reach the disk on macOS too.
		"PRAGMA synchronous = NORMAL",
		"PRAGMA fullfsync = 1",
		"PRAGMA checkpoint_fullfsync = 1",
		"PRAGMA temp_store = MEMORY", // no value is to be found in a temporary file
		"PRAGMA journal_size_limit = 4194304",
		// What a batch of a purge changes, more than the 2 MB that SQLite caches, goes to the log
		// once and not again and again. In pages, whose size another program may have chosen.
		fmt.Sprint("PRAGMA cache_spill = ", checkpointSize/c.pageSize),
	} {
		if _, err := c.exec(setting); err != nil {
			return err
		}
	}
	if err := c.setAutocheckpoint(); err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := setTimeout(); err != nil {
			return err
		}
		if err := c.transaction("BEGIN IMMEDIATE", c.createSchema); err != nil {
			return err
		}
	}
	if journalMode == "wal" && store.flushing.log == nil {
		if _, err := c.exists("SELECT 1 FROM sqlite_schema"); err != nil { // the first read makes the log
			return err
		}
		if err := store.flushing.open(c.databaseFile); err != nil {
			return err
		}
	}
	if _, err := c.exec("PRAGMA busy_timeout = 0"); err != nil {
		return err
	}
	return c.forget() // what is not needed again
}

// checkWritable returns an error if SQLite, for want of permission, opened the file for
// reading alone. It asks no file, so that nothing is left beside one that is refused.
func (c *connection) checkWritable() error {
	readOnly, err := c.driver.(interface{ IsReadOnly(string) (bool, error) }).IsReadOnly("main")
	if err == nil && readOnly {
		err = errors.New("the file may not be written")
	}
	return err
}

// checkSchema returns the statements that are still to be run for the schema to be the
// store's, or an error if another program's objects are in the way.
func (c *connection) checkSchema() (missing []string, err error) {
	found, indexed, constrained := "", false, false
	err = c.query(selectSchemaSQL, func(row []driver.Value) bool {
		found, indexed, constrained = text(row[0])+" "+text(row[1]), row[2] == int64(1), row[3] == int64(1)
		return false
	})
	if err != nil {
		return nil, err
	}
	if encoding, err := c.text("PRAGMA encoding"); err != nil {
		return nil, err
	} else if encoding != "UTF-8" {
		return nil, fmt.Errorf("the text encoding is %s instead of UTF-8", encoding)
	}
	if found == "" {
		return []string{createEntriesSQL, createExpiryIndexSQL}, nil
	}
	if found != "table "+createEntriesSQL || constrained {
		for _, condition := range []string{selectShapeSQL, selectBinarySQL} {
			if holds, err := c.exists(condition); err != nil {
				return nil, err
			} else if !holds {
				return nil, errors.New("what is called entries there is not a store's table")
			}
		}
	}
	if !indexed {
		return []string{createExpiryIndexSQL}, nil
	}
	return nil, nil
}

// createSchema makes what is missing, in a transaction: another program may have been
// faster.
func (c *connection) createSchema() error {
	missing, err := c.checkSchema()
	if err != nil {
		return err
	}
	for _, create := range missing {
		if _, err := c.exec(create); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the store: it lets the writes under way reach the disk and the watchers,
// closes every watcher's channel and then the database. It waits for no callback and
// for no other process. Calls that still wait for their turn return an error that wraps
// [os.ErrClosed], and so does every other method from then on; a second Close returns nil.
// All stores of a file must be closed before it is moved, removed or copied by a file copy.
// A full disk does not make Close fail: it leaves a log, the -wal beside the file, that
// belongs to the file. An error means that the disk has refused a flush, and may not have
// all that was committed; the store is closed all the same.
func (store *Store) Close() error {
	var err error
	store.close.Do(func() {
		close(store.closing)
		store.purging.Wait()
		store.reads.drain()
		store.writes.drain()
		store.watchers.close()
		if err = store.connection.heal(&store.flushing); err != nil {
			err = fmt.Errorf("flush the log again: %w", err)
		}
		err = errors.Join(err, store.flushing.close(), store.connection.close())
		if err != nil {
			err = fmt.Errorf("store.Close: %w", err)
		}
	})
	return err
}

func (store *Store) closed() bool {
	select {
	case <-store.closing:
		return true
	default:
		return false
	}
}

// ---------------------------------------------------------------------------
// Reads.

// Get returns the value of a key.
//
//	colour, err := storeInstance.Get("config", "colour")
//
// The error wraps [NotFoundError] if the key does not exist or has expired.
func (store *Store) Get(group, key string) (string, error) {
	return store.get("Get", group, key)
}

// GetSplit returns the parts of a value between separators, as [strings.Split] does.
// The sequence may be ranged over again.
//
//	hosts, err := storeInstance.GetSplit("config", "hosts", ",")
//	if err != nil {
//		return err
//	}
//	for host := range hosts {
//		fmt.Println(host)
//	}
//
// The error is that of [Store.Get].
func (store *Store) GetSplit(group, key, separator string) (iter.Seq[string], error) {
	value, err := store.get("GetSplit", group, key)
	if err != nil {
		return nil, err
	}
	return func(yield func(string) bool) { strings.SplitSeq(value, separator)(yield) }, nil
}

// GetFields returns the parts of a value between white space, as [strings.Fields] does.
// The sequence may be ranged over again.
//
//	flags, err := storeInstance.GetFields("config", "flags")
//
// The error is that of [Store.Get].
func (store *Store) GetFields(group, key string) (iter.Seq[string], error) {
	value, err := store.get("GetFields", group, key)
	if err != nil {
		return nil, err
	}
	return func(yield func(string) bool) { strings.FieldsSeq(value)(yield) }, nil
}

func (store *Store) get(function, group, key string) (string, error) {
	read := entryReads.Get().(*entryRead)
	read.store, read.group, read.key = store, group, key
	err := store.reads.do(&read.call)
	value, found := read.value, read.found
	*read = entryRead{call: call{run: read.run, after: read.after}}
	entryReads.Put(read)
	if err == nil && !found {
		err = NotFoundError
	}
	if err != nil {
		return "", failure(function, entryName(group, key), err)
	}
	return value, nil
}

// entryRead is the call that reads an entry.
type entryRead struct {
	call
	store      *Store
	group, key string

	value   string
	expires driver.Value
	found   bool
}

// entryReads keeps calls for the next ones: to make them anew took a tenth of a Get in memory.
var entryReads = sync.Pool{New: func() any {
	read := &entryRead{}
	read.run = func(c *connection) error {
		read.found = false
		return c.query(selectEntrySQL, func(row []driver.Value) bool {
			read.value, read.expires, read.found = text(row[0]), row[1], true
			return false
		}, read.group, read.key)
	}
	read.after = func(c *connection) {
		if !read.found || read.expires == nil {
			return
		}
		if now := time.Now().UnixMilli(); expired(read.expires, now) {
			read.found = false
			if !read.store.flushing.failed.Load() {
				c.removeExpired(read.group, read.key, now)
			}
		}
	}
	return read
}}

// Count returns how many keys of a group have not expired.
//
//	keys, err := storeInstance.Count("config")
func (store *Store) Count(group string) (int, error) {
	count, err := store.count(countGroupSQL, group)
	if err != nil {
		return 0, failure("Count", groupName(group), err)
	}
	return count, nil
}

// CountAll returns how many keys have not expired in the groups whose names begin with
// groupPrefix; the empty prefix means all groups.
//
//	keys, err := storeInstance.CountAll("tenant-a:")
//
// Like Count, it takes longer the more keys it counts.
func (store *Store) CountAll(groupPrefix string) (int, error) {
	within := withPrefix(groupPrefix)
	count, err := store.count(countPrefixSQL, within.from, within.to)
	if err != nil {
		return 0, failure("CountAll", groupName(groupPrefix), err)
	}
	return count, nil
}

// count runs a query for one number, whose last parameter is the time.
func (store *Store) count(query string, arguments ...any) (int, error) {
	var count int64
	err := store.snapshot(func(c *connection, now int64) (err error) {
		count, err = c.number(query, append(arguments, now)...)
		return err
	})
	return int(count), err
}

// snapshot reads what was there at one moment, and gives read the time of it, which must not
// be taken before: what another store wrote in between would be seen, and be alive by an
// older time, though it may have expired when it was written.
func (store *Store) snapshot(read func(c *connection, now int64) error) error {
	return store.reads.do(&call{whole: true, run: func(c *connection) error {
		if _, err := c.exists("SELECT 1 FROM entries LIMIT 1"); err != nil { // which takes it
			return err
		}
		return read(c, time.Now().UnixMilli())
	}})
}

// GetAll returns the keys of a group that have not expired, with their values, as they
// were together at one moment. The map is nil only with an error.
//
//	settings, err := storeInstance.GetAll("config")
func (store *Store) GetAll(group string) (map[string]string, error) {
	entries, err := store.getAll(group)
	if err != nil {
		return nil, failure("GetAll", groupName(group), err)
	}
	return entries, nil
}

func (store *Store) getAll(group string) (map[string]string, error) {
	var entries map[string]string
	err := store.snapshot(func(c *connection, now int64) error {
		entries = make(map[string]string)
		return c.query(selectGroupSQL, func(row []driver.Value) bool {
			entries[text(row[0])] = text(row[1])
			return true
		}, group, now)
	})
	return entries, err
}

// Render executes a [text/template] with the keys of a group as its data. A key that is
// missing renders as "<no value>" in {{.name}}, and as nothing in {{index . "name"}}. Nothing
// is escaped.
//
//	page, err := storeInstance.Render("Hello {{.name}}", "user")
//	page, err = storeInstance.Render(`{{or .port "80"}} {{index . "db-host"}}`, "config")
//
// Its error begins with "store.Render: parse:" or "store.Render: exec:" where the
// template is at fault. The second says where, but not what [text/template] found
// there, since that may quote a stored value.
func (store *Store) Render(templateSource, group string) (string, error) {
	entries, err := store.getAll(group)
	if err != nil {
		return "", failure("Render", groupName(group), err)
	}
	parsed, err := template.New("template").Parse(templateSource)
	if err != nil {
		return "", failure("Render", "parse", err)
	}
	var rendered strings.Builder
	if err := parsed.Execute(&rendered, entries); err != nil {
		place, _, found := strings.Cut(err.Error(), ">: ")
		if found {
			place += ">"
		}
		return "", failure("Render", "exec", errors.New(place))
	}
	return rendered.String(), nil
}

// All streams the keys of a group that have not expired, in ascending byte order.
//
//	for entry, err := range storeInstance.All("config") {
//		if err != nil {
//			return err
//		}
//		fmt.Println(entry.Key, entry.Value)
//	}
//
// The loop may call any method of the store, writes included; it may end early, and the
// sequence may be ranged over again. The sequence holds a page of the group in memory and
// no transaction open, so what is written or deleted meanwhile may or may not be seen. An
// entry that has expired when its turn comes is left out. An error is yielded once, last.
func (store *Store) All(group string) iter.Seq2[KeyValue, error] {
	return func(yield func(KeyValue, error) bool) {
		for entry, err := range store.stream("", func(c *connection, from string, visit visitor) error {
			return c.query(selectPageSQL, visit, group, from, time.Now().UnixMilli(), pageRows)
		}) {
			if err != nil {
				yield(KeyValue{}, failure("All", groupName(group), err))
				return
			}
			if !expired(entry.expires, time.Now().UnixMilli()) && !yield(entry.KeyValue, nil) {
				return
			}
		}
	}
}

// streamed is a row of a stream: its key, by which the stream is in order, its value and
// its expiry.
type streamed struct {
	KeyValue
	expires driver.Value
}

// stream yields the rows that read finds from a key on, page by page. Each page is read
// whole before its first row is yielded, so that no transaction is open in a caller's loop.
func (store *Store) stream(from string, read func(c *connection, from string, visit visitor) error) iter.Seq2[streamed, error] {
	return func(yield func(streamed, error) bool) {
		from := from // where a second range begins again
		var page []streamed
		for more := true; more; {
			err := store.reads.do(&call{run: func(c *connection) error {
				clear(page)
				page, more = page[:0], false
				size := 0
				return read(c, from, func(row []driver.Value) bool {
					item := streamed{KeyValue{text(row[0]), text(row[1])}, row[2]}
					page = append(page, item)
					size += len(item.Key) + len(item.Value)
					more = len(page) == pageRows || size >= pageBytes
					return !more
				})
			}})
			if err != nil {
				yield(streamed{}, err)
				return
			}
			for _, item := range page {
				if !yield(item, nil) {
					return
				}
			}
			if more {
				from = successor(page[len(page)-1].Key)
			}
		}
	}
}

// Groups returns the names that begin with groupPrefix of the groups with at least one
// key that has not expired, in ascending byte order.
//
//	tenants, err := storeInstance.Groups("tenant-")
//
// It takes longer the more groups there are, whatever the number of their keys.
func (store *Store) Groups(groupPrefix string) ([]string, error) {
	return store.groups(groupPrefix, 0)
}

func (store *Store) groups(groupPrefix string, trim int) ([]string, error) {
	var names []string
	for name, err := range store.groupNames("Groups", groupPrefix, trim) {
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// GroupsSeq streams the names that [Store.Groups] returns. What [Store.All] says of its
// loop holds here.
//
//	for group, err := range storeInstance.GroupsSeq("tenant-a:") {
//		if err != nil {
//			return err
//		}
//		fmt.Println(group)
//	}
func (store *Store) GroupsSeq(groupPrefix string) iter.Seq2[string, error] {
	return store.groupNames("GroupsSeq", groupPrefix, 0)
}

// groupNames yields the names without their first trim bytes.
func (store *Store) groupNames(function, groupPrefix string, trim int) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		within := withPrefix(groupPrefix)
		for group, err := range store.stream(groupPrefix, func(c *connection, from string, visit visitor) error {
			return c.query(selectGroupNamesSQL, visit, from, within.to, time.Now().UnixMilli(), pageRows)
		}) {
			alive := group.expires != nil
			if err == nil && expired(group.expires, time.Now().UnixMilli()) {
				alive, err = store.isAlive(group.Key)
			}
			if err != nil {
				yield("", failure(function, groupName(groupPrefix), err))
				return
			}
			if alive && !yield(group.Key[trim:], nil) {
				return
			}
		}
	}
}

func (store *Store) isAlive(group string) (alive bool, err error) {
	err = store.snapshot(func(c *connection, now int64) (err error) {
		alive, err = c.exists(existsGroupSQL, group, now)
		return err
	})
	return alive, err
}

// ---------------------------------------------------------------------------
// Writes.

// Set stores a value under a key. It does not expire: an expiry of the key is cleared.
//
//	err := storeInstance.Set("config", "colour", "blue")
//
// When Set returns nil, the value is on the disk. Calls of several goroutines share
// commits and flushes. An error means that nothing was written, unless the flush failed:
// then the value may be there or not, and once the disk has refused a flush the store
// accepts no further write until it has been closed and opened again.
func (store *Store) Set(group, key, value string) error {
	return store.set("Set", group, key, value, nil, nil)
}

// SetWithTTL stores a value that expires ttl after the call began, to the millisecond
// and never earlier. A ttl of zero or less has already elapsed: the entry is written,
// and is expired at once.
//
//	err := storeInstance.SetWithTTL("session", "token", "abc123", 5*time.Minute)
//
// Its errors are those of [Store.Set]. Expiry is wall-clock time.
func (store *Store) SetWithTTL(group, key, value string, ttl time.Duration) error {
	return store.set("SetWithTTL", group, key, value, expiry(time.Now(), ttl), nil)
}

// set writes an entry for as long as expires says, nil for good, within quota if one is
// given. Each try to make room is a transaction of its own, so that others get the
// connection in between.
func (store *Store) set(function, group, key, value string, expires any, quota *quota) error {
	write := entryWrites.Get().(*entryWrite)
	write.entry, write.expires = Event{Type: EventSet, Group: group, Key: key, Value: value}, expires
	write.set = upsert
	if quota != nil {
		write.set, write.whole = quota.set, true
	}
	err := store.write(&write.call)
	for err == nil && errors.Is(write.refusal, errFull) {
		write.set, write.alone = quota.makeRoomAndSet, true
		err = store.write(&write.call)
	}
	err = cmp.Or(err, write.refusal)
	*write = entryWrite{call: call{run: write.run}}
	entryWrites.Put(write)
	if err != nil {
		return failure(function, entryName(group, key), err)
	}
	return nil
}

func upsert(c *connection, event *Event, expires any) (refusal, err error) {
	_, err = c.exec(upsertEntrySQL, event.Group, event.Key, event.Value, expires)
	return nil, err
}

// entryWrite is the call that writes an entry.
type entryWrite struct {
	call
	entry   Event
	expires any
	set     func(c *connection, event *Event, expires any) (refusal, err error)

	refusal error // unlike another error it leaves the transaction sound
}

// entryWrites keeps calls as entryReads does.
var entryWrites = sync.Pool{New: func() any {
	write := &entryWrite{}
	write.run = func(c *connection) (err error) {
		write.flush, write.event = false, nil
		write.refusal, err = write.set(c, &write.entry, write.expires)
		if err == nil && write.refusal == nil {
			write.flush, write.event = true, &write.entry
		}
		return err
	}
	return write
}}

// Delete removes a key. A missing key is no error.
//
//	err := storeInstance.Delete("config", "colour")
//
// Its errors are those of [Store.Set].
func (store *Store) Delete(group, key string) error {
	write := call{flush: true}
	write.run = func(c *connection) error {
		write.event = nil
		return c.query(deleteEntrySQL, func(row []driver.Value) bool {
			if !expired(row[0], time.Now().UnixMilli()) {
				write.event = &Event{Type: EventDelete, Group: group, Key: key}
			}
			return true
		}, group, key)
	}
	if err := store.write(&write); err != nil {
		return failure("Delete", entryName(group, key), err)
	}
	return nil
}

// DeleteGroup removes every key of a group, at once for every reader. A group without
// keys is no error.
//
//	err := storeInstance.DeleteGroup("session")
//
// Its errors are those of [Store.Set].
func (store *Store) DeleteGroup(group string) error {
	write := call{whole: true, flush: true}
	write.run = func(c *connection) error {
		alive, err := c.exists(existsGroupSQL, group, time.Now().UnixMilli())
		if err != nil {
			return err
		}
		write.event = nil
		if alive {
			write.event = &Event{Type: EventDeleteGroup, Group: group}
		}
		_, err = c.exec(deleteGroupSQL, group)
		return err
	}
	if err := store.write(&write); err != nil {
		return failure("DeleteGroup", groupName(group), err)
	}
	return nil
}

// write runs a write and then, in the goroutine of its caller, the callbacks.
func (store *Store) write(write *call) error {
	err := store.writes.do(write)
	if err == nil && write.event != nil {
		store.callbacks.run(*write.event)
	}
	return err
}

// ---------------------------------------------------------------------------
// Expiry.

// expiry is the instant ttl from now in Unix milliseconds, rounded up, since an entry
// must not end early. What has elapsed already is rounded down and so expired at once.
func expiry(now time.Time, ttl time.Duration) int64 {
	if ttl <= 0 {
		return now.UnixMilli()
	}
	return now.Add(ttl).Add(time.Millisecond - 1).UnixMilli()
}

// expired judges the column expires_at as SQL's `expires_at <= now` does, whatever
// another program stored there.
func expired(expires driver.Value, now int64) bool {
	switch expires := expires.(type) {
	case int64:
		return expires <= now
	case float64:
		return expires <= float64(now)
	}
	return false
}

// removeExpired is the lazy delete of Get, in the round of the read: one try, which waits
// for nobody, for no merge of the log, and for no flush but SQLite's of a log begun anew.
// Where it fails, or too much of the log is still to be merged, the purge comes.
func (c *connection) removeExpired(group, key string, now int64) {
	if c.logged() > lazyMost {
		return
	}
	// Else SQLite might merge the log: however little of it is left to be merged, one that
	// somebody reads without a gap is longer than checkpointSize. The next write has it done.
	if _, err := c.exec("PRAGMA wal_autocheckpoint = 0"); err != nil {
		return
	}
	_, _ = c.exec(deleteExpiredEntrySQL, group, key, now)
	_ = c.setAutocheckpoint() // which fails only once the connection has ended
}

// PurgeExpired removes the entries that have expired and returns how many it removed,
// once that is on the disk. A store does so itself every minute, to free the space; no
// read returns expired entries even before. It works in batches, between which other calls
// go on. With an error, the number is that of the entries removed before it.
//
//	removed, err := storeInstance.PurgeExpired()
func (store *Store) PurgeExpired() (int64, error) {
	return store.purge(groupRange{})
}

func (store *Store) purgeRegularly() {
	ticker := time.NewTicker(purgeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_, _ = store.purge(groupRange{}) // a failed one is made up for at the next tick
		case <-store.closing:
			return
		}
	}
}

// purge removes what has expired by now in the groups within. Its writes wait for another
// process as long as one write does.
func (store *Store) purge(within groupRange) (removed int64, err error) {
	search := expiredSince(time.Now(), within)
	limit := store.writes.limit()
	due := true // a checkpoint: what others have left in the log may be long
	for err == nil && search.more {
		for err == nil && search.more && len(search.rows) < purgeWindow {
			err = store.reads.do(&call{run: search.find})
		}
		slices.Sort(search.rows)
		for rows := search.rows; err == nil && len(rows) > 0; {
			if due {
				if err = store.checkpoint(limit); err != nil {
					break
				}
			}
			var count int64
			var rest []int64
			err = store.writes.do(&call{whole: true, alone: true, limit: limit, run: func(c *connection) (err error) {
				count, rest, err = search.remove(c, rows)
				return err
			}, after: func(c *connection) {
				removed, rows = removed+count, rest
				due = c.logged() > purgeCheckpointSize
			}})
		}
		search.rows = search.rows[:0]
	}
	if removed > 0 {
		err = cmp.Or(err, store.writes.do(&call{flush: true, limit: limit, run: func(*connection) error { return nil }}))
	}
	if err != nil {
		return removed, failure("PurgeExpired", "remove expired entries", err)
	}
	return removed, nil
}

// checkpoint merges a log that has become long, in a round of its own, so that nobody waits
// for that and for a batch. One that fails, on a full disk for one, is no reason to keep what
// has expired; but it is for a flush, which fails if the disk has refused one.
func (store *Store) checkpoint(limit time.Duration) error {
	checkpoint := call{alone: true, limit: limit}
	checkpoint.run = func(c *connection) error {
		checkpoint.flush = c.logged() > purgeCheckpointSize && c.checkpoint() != nil
		return nil
	}
	return store.writes.do(&checkpoint)
}

// expiredRows is a search for rows that have expired, in the order of their expiries and,
// among equal ones, of their numbers.
type expiredRows struct {
	within groupRange
	now    int64

	rows    []int64 // those found, up to the following expiry and row
	expires driver.Value
	row     driver.Value
	more    bool // there may be others
}

func expiredSince(now time.Time, within groupRange) expiredRows {
	return expiredRows{within: within, now: now.UnixMilli(), expires: math.Inf(-1), row: math.Inf(-1), more: true}
}

// find appends the rows of the range among the next purgeBatch that have expired. Run again
// after a failure, it goes on behind what it has found.
func (search *expiredRows) find(c *connection) error {
	visited := 0
	visit := func(columns []driver.Value) bool {
		visited++
		search.row, search.expires = columns[0], columns[1]
		if len(columns) == 2 || columns[2] == int64(1) {
			search.rows = append(search.rows, columns[0].(int64))
		}
		return true
	}
	query, arguments := selectExpiredSQL, []any{search.expires, search.row, search.now, purgeBatch}
	if within := search.within; within != (groupRange{}) {
		query, arguments = selectExpiredWithinSQL, append(arguments, within.from, within.to)
	}
	err := c.query(query, visit, arguments...)
	search.more = visited == purgeBatch
	return err
}

// remove removes what has expired of a batch of the rows, which are in ascending order, and
// returns those that are left.
func (search *expiredRows) remove(c *connection, rows []int64) (removed int64, rest []int64, err error) {
	free, err := c.free()
	enough := free + purgeSize
	batch, rest := rows[:min(len(rows), purgeBatch)], rows
	for size := 1; len(batch) > 0 && free < enough && err == nil; size *= 2 {
		step := batch[:min(len(batch), size)]
		batch, rest = batch[len(step):], rest[len(step):]
		for len(step) > 0 && err == nil {
			last := 0
			// Unsigned, since another program's rowids may lie further apart than an int64 tells.
			for last+1 < len(step) && uint64(step[last+1]-step[last]) <= purgeGap {
				last++
			}
			var count int64
			count, err = c.exec(deleteExpiredSQL, step[0], step[last], search.expires, search.row, search.within.from, search.within.to)
			removed += count
			step = step[last+1:]
		}
		if err == nil {
			free, err = c.free()
		}
	}
	return removed, rest, err
}

// ---------------------------------------------------------------------------
// The lane: calls that wait for the connection share a transaction.

// A call is what a method asks of the connection.
type call struct {
	run   func(*connection) error // may run again, from its start, after a shared transaction failed
	after func(*connection)       // or nil: what follows in the same use of the connection, outside the transaction
	whole bool                    // run is several statements, a transaction even where nobody shares it
	alone bool                    // it takes as long as others may be made to wait, and shares its round with nobody
	flush bool                    // it ends when the log has been flushed
	event *Event                  // what run has changed, or nil

	limit time.Duration // how long its lane may have waited for other processes when it gives up
	err   error
	wake  chan bool // true: lead the lane; false: done
}

// A lane is the queue of the reads or that of the writes. The first call in it leads:
// it waits for the connection, runs all calls that have come by then in one transaction, or
// one that has to be alone, gives the connection back, settles what the round still owes,
// and hands the lead on. A lone call thus pays for nothing that it does not need.
type lane struct {
	store  *Store
	begin  string
	writes bool
	alone  chan struct{} // held by a call that is alone on its way through the lane, so that nobody waits for two

	mutex   sync.Mutex    // protects the fields below
	led     bool          // somebody leads
	calls   []*call       // those that wait behind the leader's, in the order of their arrival
	waited  time.Duration // for other processes, in all its time up to counted
	counted time.Time     // zero while it waits for none

	// Only the leader uses these.
	round     []*call
	followers int // how many calls the last round had beside the leader's
}

// do runs a call and returns its error once it is done.
func (lane *lane) do(own *call) error {
	if own.alone {
		lane.alone <- struct{}{}
		defer func() { <-lane.alone }()
	}
	lane.mutex.Lock()
	if lane.store.closed() && own.run != nil { // under the lock, so that nobody comes behind drain
		lane.mutex.Unlock()
		return errClosed
	}
	if own.limit == 0 { // else it has been here before, or is part of a call that has
		own.limit = lane.waitedLocked() + maximumWait
	}
	follows := lane.led
	if follows {
		own.wake = make(chan bool, 1)
		lane.calls = append(lane.calls, own)
	}
	lane.led = true
	lane.mutex.Unlock()
	if !follows || <-own.wake {
		lane.lead(own)
	}
	return own.err
}

// limit is how long a call that begins now lets the lane wait in all.
func (lane *lane) limit() time.Duration {
	lane.mutex.Lock()
	defer lane.mutex.Unlock()
	return lane.waitedLocked() + maximumWait
}

// waitedLocked is how long the lane has waited for other processes, in all its time. The
// leader, who alone changes that, needs no lock to ask.
func (lane *lane) waitedLocked() time.Duration {
	if lane.counted.IsZero() {
		return lane.waited
	}
	return lane.waited + time.Since(lane.counted)
}

// countWait begins to count such a wait, or counts it up to now.
func (lane *lane) countWait() {
	lane.mutex.Lock()
	defer lane.mutex.Unlock()
	lane.waited, lane.counted = lane.waitedLocked(), time.Now()
}

// lead runs rounds until own is done, more than one only beside another process that
// holds a lock, and hands the lead to the first call that still waits.
func (lane *lane) lead(own *call) {
	for attempt := 0; !lane.runRound(own); attempt++ {
		lane.countWait()
		select {
		case <-time.After(pause(attempt)):
		case <-lane.store.closing:
		}
		lane.countWait()
		lane.refuse(own.err)
	}
	lane.mutex.Lock()
	defer lane.mutex.Unlock()
	if !isBusy(own.err) || len(lane.calls) == 0 { // else those behind it go on waiting
		lane.counted = time.Time{}
	}
	if len(lane.calls) > 0 {
		next := lane.calls[0]
		lane.calls = slices.Delete(lane.calls, 0, 1)
		next.wake <- true
		return
	}
	lane.led = false
}

// runRound runs one round and reports whether own is done.
func (lane *lane) runRound(own *call) (done bool) {
	if lane.followers > 0 && !own.alone {
		lane.gather()
	}
	err := lane.store.connection.use(func() error {
		lane.take(own)
		lane.runCalls()
		for _, each := range lane.round {
			if each.after != nil && each.err == nil {
				each.after(lane.store.connection)
			}
		}
		return nil
	})
	if err != nil { // the connection is gone
		lane.take(own)
		lane.finish(err)
	}
	if lane.writes {
		lane.store.settle(lane.round)
	}
	done = true
	waiting := lane.round[:0]
	for _, each := range lane.round {
		switch again := isBusy(each.err) && lane.waitedLocked() < each.limit; {
		case again && each == own:
			done = false
		case again:
			waiting = append(waiting, each)
		case each != own:
			each.wake <- false // and it is its caller's, who may use it again
		}
	}
	if len(waiting) > 0 {
		lane.mutex.Lock()
		lane.calls = slices.Insert(lane.calls, 0, waiting...)
		lane.mutex.Unlock()
	}
	clear(lane.round)
	return done
}

// refuse ends the calls in the queue that have waited long enough for another process, with
// the error that the leader had. One that is alone joins no round of the leader's, and may
// have come before the leader.
func (lane *lane) refuse(err error) {
	lane.mutex.Lock()
	defer lane.mutex.Unlock()
	waited := lane.waitedLocked()
	lane.calls = slices.DeleteFunc(lane.calls, func(each *call) bool {
		if waited < each.limit {
			return false
		}
		each.err = err
		each.wake <- false
		return true
	})
}

// gather lets those whom the last round served come again, so that they share this one: it
// yields until as many wait as then, twice as often as they are, or as long as a quick flush
// takes. Where the clock stands still, as in a bubble of testing/synctest, and where nothing
// is flushed, the number of yields ends it.
func (lane *lane) gather() {
	const patience = 100 * time.Microsecond
	began := time.Now()
	for range 2 * lane.followers {
		runtime.Gosched()
		lane.mutex.Lock()
		waiting := len(lane.calls)
		lane.mutex.Unlock()
		if waiting >= lane.followers || time.Since(began) > patience {
			return
		}
	}
}

// take makes a round of the leader's own call and of those that wait.
func (lane *lane) take(own *call) {
	lane.mutex.Lock()
	defer lane.mutex.Unlock()
	most := len(lane.calls)
	if lane.writes {
		most = min(most, roundCalls-1)
	}
	count := 0
	for !own.alone && count < most && !lane.calls[count].alone {
		count++
	}
	lane.round = append(append(lane.round[:0], own), lane.calls[:count]...)
	lane.calls = slices.Delete(lane.calls, 0, count)
	lane.followers = count
}

// runCalls runs the calls of the round together or, if that fails, each alone: a full
// disk ends the whole transaction, savepoints included, so none of it has happened
// (https://sqlite.org/c3ref/get_autocommit.html).
func (lane *lane) runCalls() {
	c := lane.store.connection
	if lane.store.closed() {
		lane.finish(errClosed)
		return
	}
	if lane.writes && lane.store.flushing.failed.Load() {
		lane.finish(lane.store.flushing.failure)
		return
	}
	if lane.followers > 0 {
		err := c.transaction(lane.begin, func() error {
			for _, each := range lane.round {
				if err := each.run(c); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil || isBusy(err) {
			lane.finish(err)
			return
		}
	}
	for _, each := range lane.round {
		if each.whole {
			each.err = c.transaction(lane.begin, func() error { return each.run(c) })
		} else {
			each.err = each.run(c)
		}
	}
}

// finish gives every call of the round the same outcome.
func (lane *lane) finish(err error) {
	for _, each := range lane.round {
		each.err = err
	}
}

// drain returns when every call in the lane is done. The store is closing, so that none
// comes behind the one that it makes, whose end is that of all: it is refused like them.
func (lane *lane) drain() { _ = lane.do(&call{}) }

// pause is how long to wait for another process before the next attempt.
func pause(attempt int) time.Duration {
	longest := min(100*time.Microsecond<<min(attempt, 10), maximumPause)
	return longest/2 + rand.N(longest/2)
}

func isBusy(err error) bool {
	failed, ok := errors.AsType[*sqlite.Error](err)
	const busy, locked = 5, 6 // SQLITE_BUSY, and SQLITE_LOCKED for a shared cache
	return ok && (failed.Code()&0xff == busy || failed.Code()&0xff == locked)
}

// ---------------------------------------------------------------------------
// The flush.

// settle makes the writes of a round durable and tells the watchers of them.
func (store *Store) settle(round []*call) {
	if slices.ContainsFunc(round, (*call).needsFlush) {
		if err := store.flushing.flush(); err != nil {
			for _, each := range round {
				if each.needsFlush() {
					each.err = err
				}
			}
		}
	}
	store.watchers.send(round)
}

func (own *call) needsFlush() bool { return own.flush && own.err == nil }

// flusher brings what has been committed to the disk. A commit writes to the log alone
// (`synchronous = NORMAL`), whose checksums make it a prefix of its commits wherever a
// power loss cuts it, so that one flush of the log covers all commits before it.
type flusher struct {
	log       *os.File // nil in memory. SQLite takes no locks on it, so that Go may close it
	directory string   // which has the log's name still to be flushed, or ""

	failed  atomic.Bool
	failure error // set before failed
}

func (flusher *flusher) open(databaseFile string) error {
	if runtime.GOOS != "windows" {
		flusher.directory = filepath.Dir(databaseFile)
	}
	log, err := os.OpenFile(databaseFile+"-wal", os.O_RDWR, 0)
	flusher.log = log
	return err
}

// checkDirectory returns an error if a directory cannot be opened, as for its flush.
func checkDirectory(path string) error {
	if runtime.GOOS == "windows" { // where it cannot be flushed either
		return nil
	}
	directory, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the directory: %w", cause(err))
	}
	return directory.Close()
}

func (flusher *flusher) flush() error {
	if flusher.log == nil {
		return nil
	}
	var directory *os.File
	if flusher.directory != "" {
		// SQLite flushes the directory with its own first flush, which may come late. It is
		// opened before anything is flushed: where descriptors have run out, no flush has
		// failed, and the next write may try again.
		var err error
		if directory, err = os.Open(flusher.directory); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		defer directory.Close()
	}
	err := flusher.log.Sync()
	if err == nil && directory != nil {
		if err = directory.Sync(); err == nil {
			flusher.directory = ""
		}
	}
	if err != nil {
		err = fmt.Errorf("flush: %w", err)
		flusher.failure = fmt.Errorf("an earlier flush failed, close the store and open it again: %w", err)
		flusher.failed.Store(true)
	}
	return err
}

// rewrite writes the log's bytes once more and flushes them. After a failed flush the
// kernel holds pages for clean that are not on the disk, and no later flush, SQLite's
// own included, would bring them there.
func (flusher *flusher) rewrite() error {
	log, err := os.OpenFile(flusher.log.Name(), os.O_RDWR, 0) // a fresh one, without past errors
	if err != nil {
		return err
	}
	defer log.Close()
	buffer := make([]byte, 1<<20)
	for offset := int64(0); ; {
		count, err := log.ReadAt(buffer, offset)
		if count > 0 {
			if _, err := log.WriteAt(buffer[:count], offset); err != nil {
				return err
			}
			offset += int64(count)
		}
		if err == io.EOF {
			return log.Sync()
		}
		if err != nil {
			return err
		}
	}
}

// heal makes durable what was committed without a flush, or what a failed one has left
// behind, before SQLite merges it: of a log that is not on the disk as it is in the
// kernel's cache, a merge that a power loss cuts off leaves a broken database. SQLite's
// own descriptor of the log may have the error still to report: the first merge takes that.
// With nothing in the log that has not been merged, a Close waits for no disk.
func (c *connection) heal(flusher *flusher) error {
	return c.use(func() error {
		if !flusher.failed.Load() && (c.logged() == 0 || flusher.flush() == nil) {
			return nil
		}
		if err := c.transaction("BEGIN IMMEDIATE", flusher.rewrite); err != nil {
			return err
		}
		for range 2 {
			_ = c.checkpoint()
		}
		return nil
	})
}

func (flusher *flusher) close() error {
	if flusher.log == nil {
		return nil
	}
	return flusher.log.Close()
}

// ---------------------------------------------------------------------------
// The connection.

// connection is the one connection of a store. It is never given back to the pool, which
// could replace it, and with it lose its settings or a store in memory.
type connection struct {
	pool         *sql.DB
	pinned       *sql.Conn
	databaseFile string // its whole path, "" in memory

	// token is held by whoever uses the fields below and the driver's connection. It is a
	// channel, since a goroutine that waits for a mutex would stop the clock of testing/synctest.
	token     chan struct{}
	driver    driver.Conn
	pageSize  int64 // of the file, in bytes
	prepared  map[string]statement
	arguments []driver.NamedValue
	row       []driver.Value
	ended     error // why nothing runs any more: the driver panicked
}

// statement is a prepared statement of the driver.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

func connect(dataSource string) (*connection, error) {
	connector, err := sqlite.NewConnector(dataSource)
	if err != nil {
		return nil, err
	}
	c := &connection{
		pool:     sql.OpenDB(connector),
		token:    make(chan struct{}, 1),
		prepared: make(map[string]statement),
		row:      make([]driver.Value, 4),
	}
	c.pool.SetMaxOpenConns(1)
	if c.pinned, err = c.pool.Conn(context.Background()); err != nil {
		return nil, errors.Join(err, c.pool.Close())
	}
	err = c.pinned.Raw(func(driverConnection any) error {
		c.driver = driverConnection.(driver.Conn)
		return nil
	})
	return c, err
}

// use calls run while nobody else uses the connection.
func (c *connection) use(run func() error) error {
	c.token <- struct{}{}
	defer func() { <-c.token }()
	return c.pinned.Raw(func(any) error { return run() })
}

// transaction calls run between begin and a commit, or a rollback if either fails.
func (c *connection) transaction(begin string, run func() error) error {
	if _, err := c.exec(begin); err != nil {
		return err
	}
	err := run()
	if err == nil {
		_, err = c.exec("COMMIT")
	}
	if err != nil {
		// Fails where SQLite has rolled back by itself, as it does on a full disk.
		_, _ = c.exec("ROLLBACK")
	}
	return err
}

// exec runs a statement and returns how many rows it changed.
func (c *connection) exec(query string, arguments ...any) (changes int64, err error) {
	err = c.guard(func() error {
		prepared, err := c.prepare(query, arguments)
		if err != nil {
			return err
		}
		result, err := prepared.ExecContext(context.Background(), c.arguments)
		if err != nil {
			return err
		}
		changes, err = result.RowsAffected()
		return err
	})
	return changes, err
}

// visitor is called with each row of a query until it returns false.
type visitor = func(row []driver.Value) bool

// query runs a statement and shows visit its rows. The slice is the connection's own.
func (c *connection) query(query string, visit visitor, arguments ...any) error {
	return c.guard(func() error {
		prepared, err := c.prepare(query, arguments)
		if err != nil {
			return err
		}
		rows, err := prepared.QueryContext(context.Background(), c.arguments)
		if err != nil {
			return err
		}
		row := c.row[:len(rows.Columns())]
		for err = rows.Next(row); err == nil && visit(row); {
			err = rows.Next(row)
		}
		if err == io.EOF {
			err = nil
		}
		return cmp.Or(err, rows.Close()) // not after a panic: it would commit what letGo undoes
	})
}

// exists reports whether a query has a row.
func (c *connection) exists(query string, arguments ...any) (found bool, err error) {
	err = c.query(query, func([]driver.Value) bool {
		found = true
		return false
	}, arguments...)
	return found, err
}

// text returns the first column of a statement's only row.
func (c *connection) text(query string) (value string, err error) {
	err = c.query(query, func(row []driver.Value) bool {
		value = text(row[0])
		return true
	})
	return value, err
}

// number is text for a number.
func (c *connection) number(query string, arguments ...any) (value int64, err error) {
	err = c.query(query, func(row []driver.Value) bool {
		value = row[0].(int64)
		return false
	}, arguments...)
	return value, err
}

// prepare returns the statement for a query, made once, and sets the arguments, whose
// length it checks on behalf of every statement.
func (c *connection) prepare(query string, arguments []any) (statement, error) {
	c.arguments = c.arguments[:0]
	for index, argument := range arguments {
		if value, ok := argument.(string); ok && len(value) > maximumLength {
			return nil, errTooLong
		}
		if value, ok := argument.(int); ok {
			argument = int64(value)
		}
		c.arguments = append(c.arguments, driver.NamedValue{Ordinal: index + 1, Value: argument})
	}
	if prepared, ok := c.prepared[query]; ok {
		return prepared, nil
	}
	prepared, err := c.driver.Prepare(query)
	if err != nil {
		return nil, err
	}
	c.prepared[query] = prepared.(statement)
	return c.prepared[query], nil
}

// guard runs what uses the driver, until the use of the connection has ended, which a
// panic in the driver does.
func (c *connection) guard(run func() error) error {
	if c.ended != nil {
		return c.ended
	}
	err := recovered(run)
	clear(c.arguments) // a large value in them would live as long as the store is idle
	clear(c.row)
	if _, ok := err.(panicError); ok {
		c.ended = err
		c.letGo()
	}
	return err
}

// letGo undoes what a panic has left half done, whose locks would keep other connections
// waiting until Close. SQLite commits what an unfinished statement outside a transaction
// has changed so far, unless the commit hook turns that into a rollback
// (https://sqlite.org/c3ref/commit_hook.html).
func (c *connection) letGo() {
	_ = recovered(func() error {
		c.driver.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 { return 1 })
		_, err := c.driver.(driver.ExecerContext).ExecContext(context.Background(), "ROLLBACK", nil)
		return err
	})
	_ = c.forget()
}

// panicError is a panic in the driver, which damage in the file may cause.
type panicError struct{ cause any }

func (err panicError) Error() string {
	return fmt.Sprintf("the database driver panicked, close the store: %v", err.cause)
}

func recovered(run func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = panicError{cause}
		}
	}()
	return run()
}

// logged is how many bytes of pages in the log have not been merged, or -1 where SQLite does
// not say: beside a commit of another connection, and within a transaction, which with a
// shared cache may be another connection's.
func (c *connection) logged() int64 {
	size := int64(-1)
	_ = c.query("PRAGMA wal_checkpoint(NOOP)", func(row []driver.Value) bool {
		if row[0] == int64(0) {
			size = (row[1].(int64) - row[2].(int64)) * c.pageSize
		}
		return false
	})
	return size
}

// setAutocheckpoint has SQLite merge the log with the commit that makes it checkpointSize.
func (c *connection) setAutocheckpoint() error {
	_, err := c.exec(fmt.Sprint("PRAGMA wal_autocheckpoint = ", checkpointSize/c.pageSize))
	return err
}

// free is how many bytes of the file's pages hold nothing.
func (c *connection) free() (int64, error) {
	pages, err := c.number("PRAGMA freelist_count")
	return pages * c.pageSize, err
}

// checkpoint merges the log into the database, up to what another connection still reads,
// and nothing while another one does so.
func (c *connection) checkpoint() error {
	_, err := c.exec("PRAGMA wal_checkpoint(PASSIVE)")
	return err
}

// forget gives up the statements prepared so far.
func (c *connection) forget() error {
	var err error
	for query, prepared := range c.prepared {
		err = errors.Join(err, recovered(prepared.Close))
		delete(c.prepared, query)
	}
	return err
}

// ending has a lock for each file, or a few files, that is held while a connection ends: of two
// that end at once, each would leave the log to the other.
var (
	ending     [64]sync.Mutex
	endingSeed = maphash.MakeSeed()
)

func (c *connection) close() error {
	err := c.use(c.forget)
	lock := &ending[maphash.String(endingSeed, c.databaseFile)%uint64(len(ending))]
	lock.Lock()
	defer lock.Unlock()
	return errors.Join(err, recovered(c.pinned.Close), recovered(c.pool.Close))
}

// ---------------------------------------------------------------------------
// Names, values and errors.

// groupRange is the names from `from` on and before `to`, or to the end of all text if
// that is nil. The zero groupRange is every row. Both are arguments of the SQL.
type groupRange struct{ from, to any }

// withPrefix is the range of the names that begin with prefix.
func withPrefix(prefix string) groupRange {
	if len(prefix) > maximumLength {
		return groupRange{from: prefix} // to be refused, not copied
	}
	last := len(prefix) - 1
	for last >= 0 && prefix[last] == 0xff {
		last--
	}
	if last < 0 {
		return groupRange{from: prefix}
	}
	return groupRange{from: prefix, to: prefix[:last] + string([]byte{prefix[last] + 1})}
}

// successor is the first string behind name in byte order.
func successor(name string) string { return name + "\x00" }

// text is the bytes of a column, which another program may have filled with a BLOB or
// with NULL.
func text(value driver.Value) string {
	switch value := value.(type) {
	case string:
		return value
	case []byte:
		return string(value)
	}
	return ""
}

func failure(function, name string, err error) error {
	return fmt.Errorf("store.%s: %s: %w", function, name, err)
}

func entryName(group, key string) string {
	if len(group)+len(key) > quotedName {
		return fmt.Sprintf("(a group of %d bytes)/(a key of %d bytes)", len(group), len(key))
	}
	return group + "/" + key
}

func groupName(group string) string {
	if len(group) > quotedName {
		return fmt.Sprintf("(a name of %d bytes)", len(group))
	}
	return group
}
