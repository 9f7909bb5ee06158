package main

import (
	"errors"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// zombiezen is the store's own engine without database/sql: the difference to
// the floor is what database/sql costs. One connection writes; where there are
// several callers, four more read beside it. Each commit syncs alone
// (synchronous=FULL): SQLite has no way for writers to share a sync.
var zombiezenPeer = peer{
	name:       "zombiezen",
	syncs:      "`synchronous=FULL`; each commit syncs alone; for several callers four more connections read",
	faster:     "it steps SQLite without `database/sql` and its driver, on connections without mutexes (`SQLITE_OPEN_NOMUTEX`), and does no more than run the statement; where callers come together several connections read at the same time",
	volatile:   true,
	sqliteFile: true,
	open:       openZombiezen,
}

// zombiezenDatabase keeps the connections that are at rest. Where one
// connection does both, both channels are the same.
type zombiezenDatabase struct {
	writers, readers chan *zombiezenConnection
	all              []*zombiezenConnection
}

// zombiezenConnection is a connection with its statements, prepared once.
type zombiezenConnection struct {
	*sqlite.Conn
	set, get, stream, count, countAll, groups *sqlite.Stmt
}

func openZombiezen(options options) (database, error) {
	path, readers := options.path, 4
	if path == "" {
		path = ":memory:"
	}
	if options.path == "" || options.callers.all == 1 {
		readers = 0
	}
	database := &zombiezenDatabase{writers: make(chan *zombiezenConnection, 1)}
	database.readers = database.writers
	if readers > 0 {
		database.readers = make(chan *zombiezenConnection, readers)
	}
	for i := range 1 + readers {
		connection, err := connectZombiezen(path)
		if err != nil {
			return nil, errors.Join(err, database.Close())
		}
		database.all = append(database.all, connection)
		if i == 0 {
			database.writers <- connection
		} else {
			database.readers <- connection
		}
	}
	return database, nil
}

func connectZombiezen(path string) (*zombiezenConnection, error) {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenCreate, sqlite.OpenWAL)
	if err != nil {
		return nil, err
	}
	connection := &zombiezenConnection{Conn: conn}
	for _, statement := range []string{`PRAGMA synchronous=FULL`, createTableSQL} {
		if err := sqlitex.ExecuteTransient(conn, statement, nil); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	for _, prepare := range []struct {
		statement **sqlite.Stmt
		text      string
	}{
		{&connection.set, setSQL},
		{&connection.get, getSQL},
		{&connection.stream, streamSQL},
		{&connection.count, countSQL},
		{&connection.countAll, countAllSQL},
		{&connection.groups, groupsSQL},
	} {
		if *prepare.statement, err = conn.Prepare(prepare.text); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return connection, nil
}

func (database *zombiezenDatabase) Close() error {
	var errs []error
	for _, connection := range database.all {
		errs = append(errs, connection.Close())
	}
	return errors.Join(errs...)
}

// read runs a statement of a connection at rest to its end. The first
// parameters are texts, the last one is the time.
func (database *zombiezenDatabase) read(
	pick func(*zombiezenConnection) *sqlite.Stmt, texts []string, row func(*sqlite.Stmt),
) (err error) {
	connection := <-database.readers
	defer func() { database.readers <- connection }()
	statement := pick(connection)
	defer func() { err = errors.Join(err, statement.Reset()) }()
	for i, text := range texts {
		statement.BindText(i+1, text)
	}
	statement.BindInt64(len(texts)+1, now())
	for {
		found, err := statement.Step()
		if err != nil || !found {
			return err
		}
		row(statement)
	}
}

func (database *zombiezenDatabase) Get(group, key string) (string, error) {
	connection := <-database.readers
	defer func() { database.readers <- connection }()
	statement := connection.get
	statement.BindText(1, group)
	statement.BindText(2, key)
	statement.BindInt64(3, now())
	found, err := statement.Step()
	if err != nil {
		return "", err
	}
	if !found {
		return "", errNotFound
	}
	value := statement.ColumnText(0)
	return value, statement.Reset()
}

func (database *zombiezenDatabase) Set(group, key, value string) error {
	connection := <-database.writers
	defer func() { database.writers <- connection }()
	statement := connection.set
	statement.BindText(1, group)
	statement.BindText(2, key)
	statement.BindText(3, value)
	if _, err := statement.Step(); err != nil {
		return err
	}
	return statement.Reset()
}

func (database *zombiezenDatabase) GetAll(group string) (map[string]string, error) {
	all := make(map[string]string)
	err := database.Stream(group, func(key, value string) { all[key] = value })
	return all, err
}

func (database *zombiezenDatabase) Stream(group string, yield func(key, value string)) error {
	return database.read(
		func(connection *zombiezenConnection) *sqlite.Stmt { return connection.stream },
		[]string{group},
		func(statement *sqlite.Stmt) { yield(statement.ColumnText(0), statement.ColumnText(1)) })
}

func (database *zombiezenDatabase) Groups(prefix string) (names []string, err error) {
	err = database.read(
		func(connection *zombiezenConnection) *sqlite.Stmt { return connection.groups },
		[]string{prefix, successor(prefix)},
		func(statement *sqlite.Stmt) { names = append(names, statement.ColumnText(0)) })
	return names, err
}

func (database *zombiezenDatabase) Count(group string) (count int, err error) {
	err = database.read(
		func(connection *zombiezenConnection) *sqlite.Stmt { return connection.count },
		[]string{group},
		func(statement *sqlite.Stmt) { count = statement.ColumnInt(0) })
	return count, err
}

func (database *zombiezenDatabase) CountAll(prefix string) (count int, err error) {
	err = database.read(
		func(connection *zombiezenConnection) *sqlite.Stmt { return connection.countAll },
		[]string{prefix, successor(prefix)},
		func(statement *sqlite.Stmt) { count = statement.ColumnInt(0) })
	return count, err
}
