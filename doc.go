// Package store is a key-value store in one SQLite file, or in memory: groups of keys,
// values that expire, namespaces with exact quotas, and events for every change. It needs
// no server and no cgo.
//
//	storeInstance, err := store.New("/var/lib/app/state.db") // or ":memory:"
//	if err != nil {
//		return err
//	}
//	defer storeInstance.Close()
//
//	err = storeInstance.Set("config", "colour", "blue")
//	colour, err := storeInstance.Get("config", "colour")
//	if errors.Is(err, store.NotFoundError) {
//		colour = "grey"
//	}
//
// # Entries
//
// An entry is a value under a group and a key. All three are strings of any bytes, at most
// 10⁹ of them, and compare byte by byte. [Store.All] and [Store.GroupsSeq] stream in byte
// order, and the body of such a loop may call every method of the store:
//
//	for entry, err := range storeInstance.All("session") {
//		if err != nil {
//			return err
//		}
//		if entry.Value == "revoked" {
//			if err := storeInstance.Delete("session", entry.Key); err != nil {
//				return err
//			}
//		}
//	}
//
// [Store.GetAll] and [Store.Render] see one snapshot. A stream does not: an entry deleted
// or overwritten after the loop began may still come, as it was. Each write is atomic, but
// no transaction spans several calls and there is no compare-and-swap: another writer may
// come between a Get and the Set that depends on it.
//
// # Durability
//
// When a write returns nil, it is on the disk, and survives a kill and a power loss.
// Writes of several goroutines share commits and flushes, so many goroutines load many
// entries fastest. Readers do not wait for these flushes: a Get may return a value that is
// still on its way to the disk, but an event never tells of one. They do wait while SQLite
// copies its log into the file: about once for every 4 MiB written to the log, but with each
// write while other programs read without a gap.
//
// A write that fails has changed nothing, with two exceptions: a purge keeps the batches
// it has done, and a write whose flush failed may have stored its value or not, and sends
// no event. Once the disk has refused a flush, every further write of this Store fails
// with an error that says so and wraps that of the operating system, [syscall.EIO] for
// instance, until the store has been closed and opened again. Whatever is mirrored
// elsewhere must then be read anew.
//
// # Expiry
//
// An entry written by [Store.SetWithTTL] lives for the given time from the call on, never
// shorter and at most a millisecond longer, and no read returns it afterwards:
//
//	err := storeInstance.SetWithTTL("session", "token", "abc123", 5*time.Minute)
//
// Expired rows are removed by the Get that finds them, by a write into a namespace that
// would be full with them, by a purge in the background every 60 seconds and by
// [Store.PurgeExpired]. Expiry is silent: no event tells of it. It follows the wall clock,
// so it survives a restart, and setting the clock moves it. A store that is opened and
// closed within a bubble of [testing/synctest] follows the bubble's clock instead, in its
// expiry, its purge and its wait for another process; no store may be used from within a
// bubble and from outside:
//
//	synctest.Test(t, func(t *testing.T) {
//		storeInstance, err := store.New(":memory:")
//		if err != nil {
//			t.Fatal(err)
//		}
//		defer storeInstance.Close() // before the bubble ends
//		if err := storeInstance.SetWithTTL("session", "token", "abc123", time.Minute); err != nil {
//			t.Fatal(err)
//		}
//		time.Sleep(time.Minute + time.Millisecond) // takes no time
//		if _, err := storeInstance.Get("session", "token"); !errors.Is(err, store.NotFoundError) {
//			t.Errorf("got %v, want %v", err, store.NotFoundError)
//		}
//	})
//
// # Namespaces and quotas
//
// A [ScopedStore] sees only the groups of its namespace, and may have limits. These are
// exact: concurrent writers through such scopes, in any number of processes, never exceed a
// limit, and none is refused while there is room:
//
//	tenant, err := store.NewScopedWithQuota(storeInstance, "tenant-a",
//		store.QuotaConfig{MaxKeys: 100, MaxGroups: 10})
//	err = tenant.Set("prefs", "locale", "en-GB")
//	if errors.Is(err, store.QuotaExceededError) {
//		// nothing was written: tenant-a has 100 keys, or has 10 groups without prefs
//	}
//
// # Events
//
// [Store.Watch] gives a channel of the changes in commit order. It drops events when its
// reader is too slow, and lets the reader notice. [Store.OnChange] calls a function in the
// writer's goroutine and misses none. Both see what is written through this Store and its
// scopes, not what other Store values or processes write to the file. Neither an event nor
// any method says when an entry expires; if a reader needs the time, put it into the value.
// A mirror of entries that expire is otherwise a hint, and Get tells what holds.
//
//	watcher := storeInstance.Watch("config", "*")
//	defer storeInstance.Unwatch(watcher)
//	for event := range watcher.Events { // until another goroutine calls Unwatch or Close
//		fmt.Println(event.Type, event.Group, event.Key, event.Value)
//	}
//
// # Errors
//
// Every error begins with the function, says what it was about and wraps its cause:
// "store.Get: config/colour: not found" wraps [NotFoundError]. After [Store.Close] the
// cause is [os.ErrClosed]. What SQLite reports is a *sqlite.Error of modernc.org/sqlite,
// whose code has the kind in its lowest byte (https://sqlite.org/rescode.html):
//
//	if failed, ok := errors.AsType[*sqlite.Error](err); ok {
//		switch failed.Code() & 0xff {
//		case 5: // SQLITE_BUSY: waited in vain for another process; try again
//		case 13: // SQLITE_FULL: the disk is full; works again once there is room
//		}
//	}
//
// Deleting needs room too. The error of an argument that is refused, such as a namespace with
// a space, wraps nothing; [NewScoped] returns no other.
//
// A panic in the driver, which a damaged file may cause, becomes an error too; every later
// call of this Store then fails with it.
//
// No error quotes a stored value, but errors do quote groups and keys as they are, up to
// 4 MiB together. Where a key is a secret, such as the token of a session, use its hash as
// the key, or keep the error out of the log.
//
// # The file
//
// Any number of processes on one host may have the file open at once; a call waits up to
// 5 seconds for another process. The entries are a table that the sqlite3 shell reads:
//
//	sqlite3 state.db "SELECT * FROM entries" # those too that have expired and are not yet removed
//
// Beside it lie state.db-wal and state.db-shm until the last store on it is closed. After
// a crash, and where the disk had no room at the last Close, state.db-wal holds acknowledged
// writes and belongs to the file; opening and closing a store merges it.
//
// Other programs that write the file meanwhile need SQLite 3.51.3 or newer, or 3.50.7, or
// 3.44.6: older ones can damage a file in WAL mode that two programs write. While a store is open,
// nothing in its process may open and close the file except through the store's own SQLite
// (a Store, or sql.Open of modernc.org/sqlite), not even to read it: on POSIX systems that
// drops SQLite's locks, and acknowledged writes get lost
// (https://sqlite.org/howtocorrupt.html). Another process copies it with
//
//	(umask 077; sqlite3 'file:state.db?mode=rw' "VACUUM INTO 'copy.db'")
//
// To restore such a copy, close every store, remove state.db-wal, which would otherwise be
// merged into it, and put the copy in the place of state.db.
package store
