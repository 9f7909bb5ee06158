package main

import (
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	_ "modernc.org/sqlite"
)

// The SQL that a careful programmer would write for the same work, used by
// every peer that speaks SQL. The table is the store's to the byte, which would
// otherwise look at each opening whether another program's table will do.
const (
	createTableSQL = `CREATE TABLE IF NOT EXISTS entries (
	group_name  TEXT NOT NULL,
	entry_key   TEXT NOT NULL,
	entry_value TEXT NOT NULL,
	expires_at  INTEGER,
	PRIMARY KEY (group_name, entry_key)
)`
	insertSQL = `
		INSERT INTO entries (group_name, entry_key, entry_value, expires_at)
		VALUES (?1, ?2, ?3, ?4)`
	setSQL = `
		INSERT INTO entries (group_name, entry_key, entry_value, expires_at)
		VALUES (?1, ?2, ?3, NULL)
		ON CONFLICT (group_name, entry_key) DO UPDATE
		SET entry_value = excluded.entry_value, expires_at = NULL`
	getSQL = `
		SELECT entry_value FROM entries
		WHERE group_name = ?1 AND entry_key = ?2 AND (expires_at IS NULL OR expires_at > ?3)`
	deleteSQL = `
		DELETE FROM entries WHERE group_name = ?1 AND entry_key = ?2`
	streamSQL = `
		SELECT entry_key, entry_value FROM entries
		WHERE group_name = ?1 AND (expires_at IS NULL OR expires_at > ?2)
		ORDER BY entry_key`
	countSQL = `
		SELECT count(*) FROM entries
		WHERE group_name = ?1 AND (expires_at IS NULL OR expires_at > ?2)`
	countAllSQL = `
		SELECT count(*) FROM entries
		WHERE group_name >= ?1 AND group_name < ?2 AND (expires_at IS NULL OR expires_at > ?3)`
	// A loose index scan: from each group straight to the next one.
	groupsSQL = `
		WITH RECURSIVE names(name) AS (
			SELECT min(group_name) FROM entries WHERE group_name >= ?1 AND group_name < ?2
			UNION ALL
			SELECT (SELECT min(group_name) FROM entries WHERE group_name > name AND group_name < ?2)
			FROM names WHERE name IS NOT NULL
		)
		SELECT name FROM names
		WHERE name IS NOT NULL AND EXISTS (
			SELECT 1 FROM entries
			WHERE group_name = name AND (expires_at IS NULL OR expires_at > ?3)
		)`
	purgeSQL = `
		DELETE FROM entries WHERE expires_at <= ?1`
)

// floorPeer is the plainest honest program on the store's own engine: prepared
// statements through database/sql on one connection. Each commit syncs alone
// (synchronous=FULL): SQLite has no way for writers to share a sync.
var floorPeer = peer{
	name:       "floor",
	syncs:      "`synchronous=FULL`; each commit syncs alone, SQLite lets no two writers share",
	faster:     "it does no more than run the statement: it keeps no page for a loop that writes, sends no event, counts no quota, lets no other caller in while it works, and opens a file without checking what it is",
	volatile:   true,
	sqliteFile: true,
	open: func(options options) (database, error) {
		return openSQL("sqlite", options, 1)
	},
}

type sqlDatabase struct {
	writer, reader                                                               *sql.DB
	set, insert, remove, purge, quotaCount, get, stream, count, countAll, groups *sql.Stmt
}

// openSQL opens a database through database/sql with one connection for
// writing, which reads too unless a file is given more readers.
func openSQL(driver string, options options, readers int) (database, error) {
	path := options.path
	if path == "" {
		path, readers = ":memory:", 1
	}
	writer, err := sql.Open(driver, path)
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	database := &sqlDatabase{writer: writer, reader: writer}
	for _, statement := range []string{`PRAGMA journal_mode=WAL`, `PRAGMA synchronous=FULL`, createTableSQL} {
		if _, err := writer.Exec(statement); err != nil {
			return nil, errors.Join(err, database.Close())
		}
	}
	if readers > 1 {
		reader, err := sql.Open(driver, path)
		if err != nil {
			return nil, errors.Join(err, database.Close())
		}
		reader.SetMaxOpenConns(readers)
		reader.SetMaxIdleConns(readers)
		database.reader = reader
	}
	for _, prepare := range []struct {
		statement **sql.Stmt
		on        *sql.DB
		text      string
	}{
		{&database.set, database.writer, setSQL},
		{&database.insert, database.writer, insertSQL},
		{&database.remove, database.writer, deleteSQL},
		{&database.purge, database.writer, purgeSQL},
		{&database.quotaCount, database.writer, countAllSQL},
		{&database.get, database.reader, getSQL},
		{&database.stream, database.reader, streamSQL},
		{&database.count, database.reader, countSQL},
		{&database.countAll, database.reader, countAllSQL},
		{&database.groups, database.reader, groupsSQL},
	} {
		if *prepare.statement, err = prepare.on.Prepare(prepare.text); err != nil {
			return nil, errors.Join(err, database.Close())
		}
	}
	return database, nil
}

func (database *sqlDatabase) Close() error {
	if database.reader == database.writer {
		return database.writer.Close()
	}
	return errors.Join(database.reader.Close(), database.writer.Close())
}

func (database *sqlDatabase) Get(group, key string) (value string, err error) {
	err = database.get.QueryRow(group, key, now()).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNotFound
	}
	return value, err
}

func (database *sqlDatabase) Set(group, key, value string) error {
	_, err := database.set.Exec(group, key, value)
	return err
}

func (database *sqlDatabase) SetExpired(group, key, value string) error {
	_, err := database.insert.Exec(group, key, value, now()-1)
	return err
}

func (database *sqlDatabase) Delete(group, key string) error {
	_, err := database.remove.Exec(group, key)
	return err
}

func (database *sqlDatabase) GetAll(group string) (map[string]string, error) {
	all := make(map[string]string)
	err := database.Stream(group, func(key, value string) { all[key] = value })
	return all, err
}

func (database *sqlDatabase) Stream(group string, yield func(key, value string)) error {
	rows, err := database.stream.Query(group, now())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			return err
		}
		yield(key, value)
	}
	return rows.Err()
}

func (database *sqlDatabase) Groups(prefix string) ([]string, error) {
	rows, err := database.groups.Query(prefix, successor(prefix), now())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

func (database *sqlDatabase) Count(group string) (count int, err error) {
	err = database.count.QueryRow(group, now()).Scan(&count)
	return count, err
}

func (database *sqlDatabase) CountAll(prefix string) (count int, err error) {
	err = database.countAll.QueryRow(prefix, successor(prefix), now()).Scan(&count)
	return count, err
}

// Within counts the namespace's keys in the write's own transaction: exact, and
// dearer with every key.
func (database *sqlDatabase) Within(namespace string, limit int) (func(group, key, value string) error, error) {
	prefix := namespace + ":"
	return func(group, key, value string) error {
		transaction, err := database.writer.Begin()
		if err != nil {
			return err
		}
		defer transaction.Rollback() // does nothing after a commit
		group = prefix + group
		var count int
		if err := transaction.Stmt(database.quotaCount).QueryRow(prefix, successor(prefix), now()).Scan(&count); err != nil {
			return err
		}
		if count >= limit {
			var present string
			err := transaction.Stmt(database.get).QueryRow(group, key, now()).Scan(&present)
			if errors.Is(err, sql.ErrNoRows) {
				err = fmt.Errorf("%w: %d keys", errRefused, limit)
			}
			if err != nil {
				return err
			}
		}
		if _, err := transaction.Stmt(database.set).Exec(group, key, value); err != nil {
			return err
		}
		return transaction.Commit()
	}, nil
}

func (database *sqlDatabase) PurgeExpired() (int64, error) {
	result, err := database.purge.Exec(now())
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// loadSQLite writes a new file in one transaction, for peers that open it then.
func loadSQLite(path string, entries iter.Seq[entry]) (err error) {
	database, err := openSQL("sqlite", options{path: path}, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	transaction, err := database.(*sqlDatabase).writer.Begin()
	if err != nil {
		return err
	}
	defer transaction.Rollback() // does nothing after a commit
	insert := transaction.Stmt(database.(*sqlDatabase).insert)
	for entry := range entries {
		expiresAt := sql.NullInt64{Int64: entry.expiresAt, Valid: entry.expiresAt != 0}
		if _, err := insert.Exec(entry.group, entry.key, entry.value, expiresAt); err != nil {
			return err
		}
	}
	return transaction.Commit()
}

func now() int64 { return time.Now().UnixMilli() }

// successor is the first string after all that begin with prefix. The names
// here are ASCII, so its last byte has a successor.
func successor(prefix string) string {
	return prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1)
}
