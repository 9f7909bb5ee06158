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
// An entry is a value under a group and a key. All three are strings of any bytes up to
// 10⁹ of them, compared byte by byte. [Store.All] and [Store.GroupsSeq] stream in byte
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
// [Store.GetAll] and [Store.Render] see one snapshot; a stream is none: what is deleted
// or overwritten after the loop began may still come, as it was.
//
// # Durability
//
// When a write returns nil, it is on the disk, and survives a kill and a power loss.
// Writes of several goroutines share commits and flushes, so that many entries are
// loaded fastest by many goroutines. No reader waits for the disk: a Get may return a
// value that is still on its way there, an event never tells of one.
//
// A write that fails has changed nothing, but for a purge, which keeps the batches it has
// done, and for a write whose flush fails: its value may be there or not, without an
// event. Once the disk has refused a flush, every further write of this Store fails with
// an error that says so and wraps that of the operating system, [syscall.EIO] for
// instance, until the store has been closed and opened again. What is mirrored elsewhere
// has to be read anew then.
//
// # Expiry
//
// An entry written by [Store.SetWithTTL] is alive until its time to live has passed since
// the call, never shorter, and no read returns it afterwards:
//
//	err := storeInstance.SetWithTTL("session", "token", "abc123", 5*time.Minute)
//
// Expired rows are removed by the Get that finds them, by a write into a namespace that
// they make full, by a purge in the background every 60 seconds and by
// [Store.PurgeExpired]. Expiry is silent: no event tells of it. It goes by the wall clock,
// so that it survives a restart; a step of the clock moves it. In a bubble of
// [testing/synctest] it goes by the bubble's clock, and so do the purge and the wait for
// another process, if the store is opened and closed within the bubble.
//
// # Namespaces and quotas
//
// A [ScopedStore] sees the groups of its namespace alone, and may have limits that
// concurrent writers, in any number of processes, neither exceed nor meet too early:
//
//	tenant, err := store.NewScopedWithQuota(storeInstance, "tenant-a",
//		store.QuotaConfig{MaxKeys: 100, MaxGroups: 10})
//	err = tenant.Set("prefs", "locale", "en-GB")
//	if errors.Is(err, store.QuotaExceededError) {
//		// tenant-a has 100 keys, or 10 groups
//	}
//
// # Events
//
// [Store.Watch] gives a channel of the changes in commit order, which drops events when
// its reader is too slow and lets it notice; [Store.OnChange] calls a function in the
// writer's goroutine and misses none. Both see what is written through this Store and
// its scopes, not what other Store values or processes write to the file. An event does
// not say when its entry expires, and no method does: what is mirrored of a group whose
// entries have a time to live is a hint, and Get tells what holds.
//
//	watcher := storeInstance.Watch("config", "*")
//	defer storeInstance.Unwatch(watcher)
//	for event := range watcher.Events {
//		fmt.Println(event.Type, event.Group, event.Key, event.Value)
//	}
//
// # Errors
//
// Every error begins with the function, names the entry and wraps its cause: "store.Get:
// config/colour: not found" wraps [NotFoundError]. After [Store.Close] the cause is
// [os.ErrClosed]. What SQLite reports is a *sqlite.Error of modernc.org/sqlite, whose code
// has the kind in its lowest byte (https://sqlite.org/rescode.html):
//
//	if failed, ok := errors.AsType[*sqlite.Error](err); ok {
//		switch failed.Code() & 0xff {
//		case 5: // SQLITE_BUSY: waited in vain for another process; try again
//		case 13: // SQLITE_FULL: the disk is full; works again once there is room
//		}
//	}
//
// No error quotes a stored value, but groups and keys it does, as they are: where a key is
// a secret, such as the token of a session, store under its hash or keep the error out of
// the log.
//
// # The file
//
// Any number of processes on one host may have the file open at once; a call waits for
// another process up to 5 seconds. The entries are a table that the sqlite3 shell reads:
//
//	sqlite3 state.db "SELECT * FROM entries"
//
// Beside it lie state.db-wal and state.db-shm until the last store on it is closed. After
// a crash the first of them holds acknowledged writes: it belongs to the file, and to open
// and close a store brings it in.
//
// Other programs that write the file need SQLite 3.51.3 or newer, or 3.50.7, or 3.44.6:
// older ones damage a file in WAL mode that two programs write. While a store is open,
// nothing in its process may open and close the file except through the store's own SQLite
// (a Store, or sql.Open of modernc.org/sqlite), not even to read it: on POSIX systems that
// drops SQLite's locks, and acknowledged writes get lost
// (https://sqlite.org/howtocorrupt.html). Copy it with `sqlite3 state.db ".backup copy.db"`.
package store
