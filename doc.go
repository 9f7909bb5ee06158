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
// Writes of several goroutines share commits and flushes; no reader waits for the disk.
// A write that fails has changed nothing, with one exception: after a failed flush a
// value may be there or not, and where the disk has refused it, every further write of
// this Store fails until it has been closed and opened again. The error of such a write
// says so and wraps that of the operating system, [syscall.EIO] for instance.
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
// writer's goroutine and misses nothing. Both see what is written through this Store and
// its scopes, not what other Store values or processes write to the file. An event does
// not say when its entry expires: what is mirrored of a group whose entries have a time to
// live is a hint, and Get tells what holds.
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
// [os.ErrClosed]. What SQLite reports is a *sqlite.Error of modernc.org/sqlite, for a call
// that waited in vain for another process with the code 5 (SQLITE_BUSY): it has changed
// nothing and may be tried again. No error quotes a stored value.
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
