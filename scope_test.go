package store_test

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dappco.re/go/core/store"
	"modernc.org/sqlite"
)

// callEveryMethod calls what Store and ScopedStore have in common, in a state in which none of it fails.
func callEveryMethod(storage entries) error {
	err := storage.Set("config", "colour", "blue")
	for _, method := range methods(storage) {
		err = errors.Join(err, method.run())
	}
	return err
}

// second is the error of a call whose result does not matter.
func second[Result any](_ Result, err error) error { return err }

func newScope(t testing.TB, storeInstance *store.Store, namespace string) *store.ScopedStore {
	t.Helper()
	scopedStore, err := store.NewScoped(storeInstance, namespace)
	check(t, err)
	return scopedStore
}

func newScopeWithQuota(t testing.TB, storeInstance *store.Store, namespace string, maxKeys, maxGroups int) *store.ScopedStore {
	t.Helper()
	scopedStore, err := store.NewScopedWithQuota(storeInstance, namespace, store.QuotaConfig{MaxKeys: maxKeys, MaxGroups: maxGroups})
	check(t, err)
	return scopedStore
}

// wantRefused fails unless err is a refusal that names one limit and not the other.
func wantRefused(t testing.TB, err error, limit string) {
	t.Helper()
	wantErrorIs(t, err, store.QuotaExceededError)
	other := map[string]string{"key": "group", "group": "key"}[limit]
	_, reason, _ := strings.Cut(err.Error(), "quota exceeded: ")
	if reason = strings.ToLower(reason); !strings.Contains(reason, limit) || strings.Contains(reason, other) {
		t.Fatalf("refusal %q, want it to name the limit on %ss alone", err, limit)
	}
}

// wantCounts checks what a namespace holds and that the quotas count just that: at limits of as much nothing new gets in,
// at limits one higher it does.
func wantCounts(t testing.TB, storeInstance *store.Store, namespace string, keys, groups int) {
	t.Helper()
	scopedStore := newScope(t, storeInstance, namespace)
	gotKeys, err := scopedStore.CountAll("")
	check(t, err)
	gotGroups, err := scopedStore.Groups("")
	check(t, err)
	if gotKeys != keys || len(gotGroups) != groups {
		t.Fatalf("namespace %s holds %d keys in the groups %q, want %d in %d", namespace, gotKeys, gotGroups, keys, groups)
	}
	for _, limit := range []struct {
		name               string
		maxKeys, maxGroups int
		refused            bool
	}{
		{"key", keys, 0, true}, {"key", keys + 1, 0, false}, {"group", 0, groups, true}, {"group", 0, groups + 1, false},
	} {
		if limit.maxKeys == 0 && limit.maxGroups == 0 {
			continue // which would be no limit
		}
		probe := newScopeWithQuota(t, storeInstance, namespace, limit.maxKeys, limit.maxGroups)
		err := probe.Set("probe", "probe", "")
		switch {
		case limit.refused && err == nil:
			t.Fatalf("namespace %s with %d keys in %d groups: a new key got in at MaxKeys %d, MaxGroups %d",
				namespace, keys, groups, limit.maxKeys, limit.maxGroups)
		case limit.refused:
			wantRefused(t, err, limit.name)
		case err != nil:
			t.Fatalf("namespace %s with %d keys in %d groups: %v", namespace, keys, groups, err)
		default:
			check(t, probe.DeleteGroup("probe"))
		}
	}
}

// selectRowsSQL shows all of the table, one row in a line.
const selectRowsSQL = `SELECT format('%s/%s=%s until %s', hex(group_name), hex(entry_key), hex(entry_value),
	ifnull(expires_at, 'ever')) FROM entries ORDER BY group_name, entry_key`

func queryInt(t testing.TB, database *sql.DB, query string, arguments ...any) int {
	t.Helper()
	var number int
	if err := database.QueryRow(query, arguments...).Scan(&number); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return number
}

func TestScopedStore_HasTheMethodsOfStore(t *testing.T) {
	var _ entries = (*store.Store)(nil)
	var _ entries = (*store.ScopedStore)(nil)
	want := append(methodNames[entries](), "Namespace")
	slices.Sort(want)
	checkList(t, "the methods of ScopedStore", methodNames[*store.ScopedStore](), want)
	checkEqual(t, "len(methods())", len(methods((*store.Store)(nil))), len(want)-1)
}

func methodNames[Type any]() []string {
	names := make([]string, reflect.TypeFor[Type]().NumMethod())
	for index := range names {
		names[index] = reflect.TypeFor[Type]().Method(index).Name
	}
	return names
}

// constructors calls NewScoped and NewScopedWithQuota alike.
var constructors = map[string]func(*store.Store, string) (*store.ScopedStore, error){
	"NewScoped": store.NewScoped,
	"NewScopedWithQuota": func(storeInstance *store.Store, namespace string) (*store.ScopedStore, error) {
		return store.NewScopedWithQuota(storeInstance, namespace, store.QuotaConfig{MaxKeys: 10, MaxGroups: 10})
	},
}

func TestNewScoped_Namespaces(t *testing.T) {
	storeInstance := newMemoryStore(t)
	for name, construct := range constructors {
		for _, namespace := range []string{"a", "Z", "0", "-", "--", "tenant-a", "TENANT-9", strings.Repeat("a", 300)} {
			scopedStore, err := construct(storeInstance, namespace)
			check(t, err)
			if got := scopedStore.Namespace(); got != namespace {
				t.Errorf("%s: Namespace() = %q, want %q", name, got, namespace)
			}
			check(t, scopedStore.Set("config", "colour", "blue"))
			checkValue(t, storeInstance, namespace+":config", "colour", "blue")
		}
		for _, namespace := range []string{"", "a\n", "\na", "a\nb", "a\r", "a b", " a", "a ", "a:b", "a:", ":", "a_b", "a.b", "a/b",
			"a%", "*", "a\x00", "\x00", "\xff", "é", "ａ", "а", "a–b", "[a]", "^a$"} {
			scopedStore, err := construct(storeInstance, namespace)
			if err == nil || scopedStore != nil {
				t.Errorf("%s(%q) = %v, %v, want an error", name, namespace, scopedStore, err)
				continue
			}
			wantErrorText(t, err, "store."+name+": ", "invalid")
		}
	}
}

func TestNewScoped_NilStoreIsAnError(t *testing.T) {
	for name, construct := range constructors {
		scopedStore, err := construct(nil, "tenant-a")
		wantErrorText(t, err, "store."+name+": ")
		if scopedStore != nil {
			t.Errorf("%s(nil) gave a ScopedStore beside its error", name)
		}
	}
}

func TestNewScopedWithQuota_NegativeLimitIsAnError(t *testing.T) {
	storeInstance := newMemoryStore(t)
	for _, quota := range []store.QuotaConfig{{MaxKeys: -1}, {MaxGroups: -1}, {MaxKeys: 10, MaxGroups: -10}, {MaxKeys: -10, MaxGroups: 10}} {
		scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", quota)
		wantErrorText(t, err, "store.NewScopedWithQuota: ")
		if scopedStore != nil {
			t.Errorf("NewScopedWithQuota with %+v gave a ScopedStore beside its error", quota)
		}
	}
}

func TestNewScoped_NeverTouchesTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		database := openSQL(t, databasePath)
		before := queryInt(t, database, `PRAGMA data_version`)
		newScope(t, storeInstance, "tenant-a")
		if after := queryInt(t, database, `PRAGMA data_version`); after != before {
			t.Errorf("NewScoped wrote to the file")
		}
		release := lockForWriting(t, databasePath)
		start := time.Now()
		newScope(t, storeInstance, "tenant-b")
		if waited := time.Since(start); waited != 0 {
			t.Errorf("NewScoped waited %v for another connection's lock", waited)
		}
		release()
		check(t, storeInstance.Close())
		wantErrorIs(t, newScope(t, storeInstance, "tenant-c").Set("config", "colour", "blue"), os.ErrClosed)
	})
}

func TestNewScopedWithQuota_WritesOnlyTheFirstTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		newScopeWithQuota(t, storeInstance, "tenant-a", 10, 10)
		check(t, storeInstance.Close())
		database := openSQL(t, databasePath)
		stores := []*store.Store{openStore(t, databasePath), openStore(t, databasePath)}
		before := queryInt(t, database, `PRAGMA data_version`)
		for _, storeInstance := range stores {
			newScopeWithQuota(t, storeInstance, "tenant-a", 10, 10)
			newScopeWithQuota(t, storeInstance, "tenant-a", 5, 0)
			newScopeWithQuota(t, storeInstance, "tenant-b", 0, 5)
			newScopeWithQuota(t, storeInstance, "tenant-c", 0, 0)
		}
		if after := queryInt(t, database, `PRAGMA data_version`); after != before {
			t.Error("NewScopedWithQuota wrote to a file that had its quotas")
		}
		release := lockForWriting(t, databasePath)
		start := time.Now()
		for _, storeInstance := range stores {
			newScopeWithQuota(t, storeInstance, "tenant-a", 10, 10)
			newScopeWithQuota(t, storeInstance, "tenant-d", 10, 10)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("NewScopedWithQuota waited %v for another connection's lock", waited)
		}
		release()
	})
}

func TestNewScopedWithQuota_WaitsForAnotherProcessTheFirstTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storeInstance, databasePath := newFileStore(t)
		check(t, storeInstance.Set("tenant-a:config", "colour", "blue"))
		release := lockForWriting(t, databasePath)
		var other sync.WaitGroup
		other.Go(func() {
			time.Sleep(3 * time.Second)
			release()
		})
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0)
		other.Wait()
		wantRefused(t, scopedStore.Set("config", "size", "10"), "key")
	})
}

func TestScopedStore_ClosedStore(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopes := map[string]*store.ScopedStore{
			"plain": newScope(t, storeInstance, "tenant-a"),
			"quota": newScopeWithQuota(t, storeInstance, "tenant-a", 10, 10),
		}
		check(t, storeInstance.Close())
		scopes["new"] = newScope(t, storeInstance, "tenant-a")
		for kind, scopedStore := range scopes {
			for _, method := range methods(scopedStore) {
				err := method.run()
				if !errors.Is(err, os.ErrClosed) || !strings.HasPrefix(err.Error(), "store."+method.name+": ") {
					t.Errorf("%s of a closed store, %s scope: %v; want one of store.%[1]s that is os.ErrClosed", method.name, kind, err)
				}
			}
			if got := scopedStore.Namespace(); got != "tenant-a" {
				t.Errorf("Namespace() of a closed store, %s scope = %q", kind, got)
			}
		}
		for _, quota := range []store.QuotaConfig{{MaxKeys: 1}, {MaxGroups: 1}} {
			_, err := store.NewScopedWithQuota(storeInstance, "tenant-a", quota)
			wantErrorIs(t, err, os.ErrClosed)
			wantErrorText(t, err, "store.NewScopedWithQuota: ")
		}
	})
}

// hostileNames try to leave their namespace, or to match more than themselves.
var hostileNames = []string{"", ":", "::", ":config", "a", "A", "a:", "a:config", "a-b:config", "b:config", "config", "Config",
	"CONFIG", "config:", "%", "%%", "_", "*", "?", "[a-z]", "\\", "'", "\"", "\x00", "a\x00b", "\x01", "\xff", "\xff\xff", "é", "\n",
	strings.Repeat("long", 500)}

func TestScopedStore_HostileNamesRoundTripAndStayApart(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		namespaces := []string{"a", "A", "a-b", "b", "a-"}
		neighbours := []string{"a", "a;", "a9", "a/:config", "b", "", "%", ":a", "a\x00:config", "-", "A;", "a\xff"}
		for _, group := range neighbours {
			check(t, storeInstance.Set(group, "neighbour", group))
		}
		for _, namespace := range namespaces {
			scopedStore := newScopeWithQuota(t, storeInstance, namespace, len(hostileNames)*2, len(hostileNames))
			for _, name := range hostileNames {
				check(t, scopedStore.Set(name, name, namespace+name))
				check(t, scopedStore.SetWithTTL(name, name+" with TTL", namespace+name, time.Hour))
			}
		}
		for _, namespace := range namespaces {
			scopedStore := newScope(t, storeInstance, namespace)
			for _, name := range hostileNames {
				checkValue(t, scopedStore, name, name, namespace+name)
				checkValue(t, storeInstance, namespace+":"+name, name, namespace+name)
				entries, err := scopedStore.GetAll(name)
				check(t, err)
				if want := map[string]string{name: namespace + name, name + " with TTL": namespace + name}; !maps.Equal(entries, want) {
					t.Errorf("%s: GetAll(%.20q) = %.200q, want %.200q", namespace, name, entries, want)
				}
				streamed, err := drain(t, scopedStore.All(name))
				check(t, err)
				if want := []store.KeyValue{{Key: name, Value: namespace + name}, {Key: name + " with TTL", Value: namespace + name}}; !slices.Equal(streamed, want) {
					t.Errorf("%s: All(%.20q) = %.200q, want %.200q", namespace, name, streamed, want)
				}
				count, err := scopedStore.Count(name)
				check(t, err)
				if count != 2 {
					t.Errorf("%s: Count(%.20q) = %d, want 2", namespace, name, count)
				}
				// Each name is a prefix too.
				var want []string
				for _, group := range hostileNames {
					if strings.HasPrefix(group, name) {
						want = append(want, group)
					}
				}
				slices.Sort(want)
				groups, err := scopedStore.Groups(name)
				check(t, err)
				if !slices.Equal(groups, want) {
					t.Errorf("%s: Groups(%.20q) = %.200q, want %.200q", namespace, name, groups, want)
				}
				if groups, err = drain(t, scopedStore.GroupsSeq(name)); err != nil || !slices.Equal(groups, want) {
					t.Errorf("%s: GroupsSeq(%.20q) = %.200q, %v, want %.200q", namespace, name, groups, err, want)
				}
				if count, err = scopedStore.CountAll(name); err != nil || count != 2*len(want) {
					t.Errorf("%s: CountAll(%.20q) = %d, %v, want %d", namespace, name, count, err, 2*len(want))
				}
			}
		}
		// Whatever a scope removes, the others and the unscoped neighbours keep theirs.
		for index, namespace := range namespaces {
			scopedStore := newScope(t, storeInstance, namespace)
			for turn, name := range hostileNames {
				if turn%2 == 0 {
					check(t, scopedStore.DeleteGroup(name))
					continue
				}
				check(t, scopedStore.Delete(name, name))
				check(t, scopedStore.SetWithTTL(name, name+" with TTL", "", 0))
			}
			check(t, second(scopedStore.PurgeExpired()))
			total, err := storeInstance.CountAll("")
			check(t, err)
			if want := len(neighbours) + 2*len(hostileNames)*(len(namespaces)-index-1); total != want {
				t.Fatalf("%d entries are left after namespace %q removed its own, want %d", total, namespace, want)
			}
		}
		for _, group := range neighbours {
			checkValue(t, storeInstance, group, "neighbour", group)
		}
	})
}

func TestScopedStore_PurgeExpired_LeavesWhatLiesBetween(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	for key := range 5 { // their rows lie side by side
		for _, group := range []string{"a", "b:a", "b:", "b:\xff", "b;", "c:a"} {
			check(t, storeInstance.SetWithTTL(group, strconv.Itoa(key), "value", 0))
		}
	}
	checkEqual(t, "PurgeExpired", must[int64](t)(newScope(t, storeInstance, "b").PurgeExpired()), 15)
	database := openSQL(t, databasePath)
	checkEqual(t, "rows of b", queryInt(t, database, `SELECT count(*) FROM entries WHERE group_name GLOB 'b:*'`), 0)
	checkEqual(t, "rows", countRows(t, database), 15)
}

func TestScopedStore_PurgeExpired_TakesWhatExpiresNow(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScope(t, storeInstance, "tenant-a")
		for _, group := range []string{"", "group"} {
			check(t, scopedStore.SetWithTTL(group, "key", "value", time.Second))
		}
		time.Sleep(time.Second)
		checkEqual(t, "PurgeExpired", must[int64](t)(scopedStore.PurgeExpired()), 2)
	})
}

func TestScopedStore_PurgeExpired_ItsNamespaceAlone(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	// More than a batch of each, and those that belong to others lie between and before.
	const each = 2500
	prefixes := []string{"a:", "a-b:", "A:", "a", "a;", "", "b:"}
	for index, prefix := range prefixes {
		execSQL(t, database, `WITH RECURSIVE number(n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM number WHERE n < ?1 - 1)
			INSERT INTO entries SELECT ?2 || 'group' || (n % 50), n, 'value', 1 + n * 10 + ?3 FROM number`, each, prefix, index)
		check(t, storeInstance.Set(prefix+"live", "key", "value"))
		check(t, storeInstance.SetWithTTL(prefix+"live", "with TTL", "value", time.Hour))
	}
	left := len(prefixes) * (each + 2)
	for _, namespace := range []string{"a", "b"} {
		scopedStore := newScope(t, storeInstance, namespace)
		for _, want := range []int{each, 0} {
			removed, err := scopedStore.PurgeExpired()
			check(t, err)
			if removed != int64(want) {
				t.Fatalf("PurgeExpired() of %s = %d, want %d", namespace, removed, want)
			}
			left -= want
			if got := countRows(t, database); got != left {
				t.Fatalf("%d rows are left after PurgeExpired of %s, want %d", got, namespace, left)
			}
		}
	}
	live, err := storeInstance.CountAll("")
	check(t, err)
	if live != 2*len(prefixes) {
		t.Fatalf("%d live entries are left, want %d", live, 2*len(prefixes))
	}
}

func TestScopedStore_Get_LazyDeleteRemovesTheExpiredRow(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 10, 10)
	check(t, scopedStore.SetWithTTL("session", "token", "abc123", 0))
	check(t, storeInstance.SetWithTTL("session", "token", "abc123", 0))
	checkMissing(t, scopedStore, "session", "token")
	if got := queryInt(t, database, `SELECT count(*) FROM entries WHERE group_name = 'tenant-a:session'`); got != 0 {
		t.Errorf("Get left the expired row")
	}
	if got := queryInt(t, database, `SELECT count(*) FROM entries WHERE group_name = 'session'`); got != 1 {
		t.Errorf("Get removed the row of an unscoped group")
	}
}

func TestScopedStore_SetWithTTL_LivesUntilTheInstant(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScope(t, storeInstance, "tenant-a")
		check(t, scopedStore.SetWithTTL("session", "token", "abc123", time.Minute))
		time.Sleep(time.Minute - 1)
		checkValue(t, scopedStore, "session", "token", "abc123")
		time.Sleep(time.Millisecond + 1)
		checkMissing(t, scopedStore, "session", "token")
		check(t, scopedStore.SetWithTTL("session", "token", "abc123", time.Minute))
		check(t, scopedStore.Set("session", "token", "for ever"))
		time.Sleep(time.Hour)
		checkValue(t, scopedStore, "session", "token", "for ever")
	})
}

func TestScopedStore_SplitsFieldsAndTemplates(t *testing.T) {
	storeInstance := newMemoryStore(t)
	scopedStore := newScope(t, storeInstance, "tenant-a")
	check(t, storeInstance.Set("config", "hosts", "unscoped"))
	check(t, scopedStore.Set("config", "hosts", "alpha, beta gamma"))
	parts, err := scopedStore.GetSplit("config", "hosts", ",")
	check(t, err)
	if got, want := slices.Collect(parts), []string{"alpha", " beta gamma"}; !slices.Equal(got, want) {
		t.Errorf("GetSplit = %q, want %q", got, want)
	}
	fields, err := scopedStore.GetFields("config", "hosts")
	check(t, err)
	if got, want := slices.Collect(fields), []string{"alpha,", "beta", "gamma"}; !slices.Equal(got, want) {
		t.Errorf("GetFields = %q, want %q", got, want)
	}
	rendered, err := scopedStore.Render("hosts: {{.hosts}}", "config")
	check(t, err)
	if want := "hosts: alpha, beta gamma"; rendered != want {
		t.Errorf("Render = %q, want %q", rendered, want)
	}
}

func TestScopedStore_Events_CarryTheFullGroupName(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 10, 10)
		full, bare := storeInstance.Watch("tenant-a:config", "*"), storeInstance.Watch("config", "*")
		changes := recordChanges(storeInstance)
		check(t, scopedStore.Set("config", "colour", "blue"))
		check(t, scopedStore.SetWithTTL("config", "size", "10", time.Hour))
		check(t, scopedStore.Delete("config", "colour"))
		check(t, scopedStore.Delete("config", "colour"))
		check(t, scopedStore.DeleteGroup("config"))
		check(t, scopedStore.DeleteGroup("config"))
		want := []store.Event{setEvent("tenant-a:config", "colour", "blue"), setEvent("tenant-a:config", "size", "10"),
			deleteEvent("tenant-a:config", "colour"), deleteGroupEvent("tenant-a:config")}
		wantEvents(t, full, want...)
		wantEvents(t, bare)
		if got := changes(); !slices.Equal(got, want) {
			t.Errorf("callback got %+v, want %+v", got, want)
		}
	})
}

// manyEntries is more than a page of a sequence holds, whatever its size.
const manyEntries = 2500

// fillScope puts manyEntries groups of one entry, and one group of manyEntries, into the file, and gives their names in order.
func fillScope(t testing.TB, databasePath, namespace string) []string {
	t.Helper()
	database := openSQL(t, databasePath)
	insertRows(t, database, namespace+":name-%06d", "key", manyEntries, nil)
	insertRows(t, database, namespace+":many", "name-%06d", manyEntries, nil)
	return numberedNames(manyEntries + 1)[1:]
}

func TestScopedStore_Sequences_YieldAllInOrderAgainAndAgain(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	names := fillScope(t, databasePath, "tenant-a")
	fillScope(t, databasePath, "tenant-b")
	scopedStore := newScope(t, storeInstance, "tenant-a")
	entries, groups := scopedStore.All("many"), scopedStore.GroupsSeq("name-")
	for range 2 {
		streamed, err := drain(t, entries)
		check(t, err)
		keys := make([]string, len(streamed))
		for index, entry := range streamed {
			keys[index] = entry.Key
		}
		if !slices.Equal(keys, names) {
			t.Errorf("All yielded %d keys, want the %d of the group in order", len(keys), len(names))
		}
		streamedGroups, err := drain(t, groups)
		check(t, err)
		if !slices.Equal(streamedGroups, names) {
			t.Errorf("GroupsSeq yielded %d names, want the %d of the prefix in order", len(streamedGroups), len(names))
		}
		for range entries {
			break
		}
		for range groups {
			break
		}
	}
}

func TestScopedStore_Sequences_TakeEveryMethodInTheLoop(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 100, 100)
		for index := range 20 {
			check(t, scopedStore.Set("loop", strconv.Itoa(index), ""))
			check(t, scopedStore.Set("group "+strconv.Itoa(index), "key", ""))
		}
		finishes(t, "every method inside All", func() {
			for entry, err := range scopedStore.All("loop") {
				noError(t, err)
				noError(t, callEveryMethod(scopedStore))
				noError(t, callEveryMethod(storeInstance))
				noError(t, scopedStore.Delete("loop", entry.Key))
			}
		})
		finishes(t, "every method inside GroupsSeq", func() {
			for group, err := range scopedStore.GroupsSeq("group ") {
				noError(t, err)
				noError(t, callEveryMethod(scopedStore))
				noError(t, callEveryMethod(storeInstance))
				noError(t, scopedStore.DeleteGroup(group))
			}
		})
		wantCounts(t, storeInstance, "tenant-a", 1, 1) // what callEveryMethod leaves
	})
}

func TestScopedStore_Sequences_NeitherMissNorRepeatWhileWritten(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	names := fillScope(t, databasePath, "tenant-a")
	scopedStore := newScope(t, storeInstance, "tenant-a")
	var seen []string
	for entry, err := range scopedStore.All("many") {
		check(t, err)
		if len(entry.Key) == len(names[0]) {
			seen = append(seen, entry.Key)
		}
		if len(seen)%100 == 1 {
			check(t, scopedStore.Set("many", entry.Key+" behind", ""))
			check(t, scopedStore.Set("many", " first "+entry.Key, ""))
			check(t, scopedStore.Delete("many", entry.Key))
			check(t, storeInstance.Set("tenant-b:many", entry.Key, ""))
		}
	}
	if !slices.Equal(seen, names) {
		t.Errorf("All yielded %d of the first keys, want all %d once", len(seen), len(names))
	}
	seen = nil
	for group, err := range scopedStore.GroupsSeq("name-") {
		check(t, err)
		if len(group) == len(names[0]) {
			seen = append(seen, group)
		}
		if len(seen)%100 == 1 {
			check(t, scopedStore.Set(group+" behind", "key", ""))
			check(t, scopedStore.Set("name- first "+group, "key", ""))
			check(t, scopedStore.DeleteGroup(group))
		}
	}
	if !slices.Equal(seen, names) {
		t.Errorf("GroupsSeq yielded %d of the first names, want all %d once", len(seen), len(names))
	}
}

func TestScopedStore_Sequences_JudgeExpiryAtEachYield(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScope(t, storeInstance, "tenant-a")
		for index := range 5 {
			name := strconv.Itoa(index)
			check(t, scopedStore.SetWithTTL("session", name, "abc123", time.Minute))
			check(t, scopedStore.SetWithTTL("group "+name, "key", "abc123", 2*time.Minute))
		}
		var seen []string
		for entry, err := range scopedStore.All("session") {
			check(t, err)
			seen = append(seen, entry.Key)
			if len(seen) == 2 {
				time.Sleep(time.Minute + time.Millisecond)
			}
		}
		for group, err := range scopedStore.GroupsSeq("group ") {
			check(t, err)
			seen = append(seen, group)
			if len(seen) == 4 {
				time.Sleep(time.Minute)
			}
		}
		if want := []string{"0", "1", "group 0", "group 1"}; !slices.Equal(seen, want) {
			t.Errorf("the sequences yielded %q, want %q: the rest expired meanwhile", seen, want)
		}
	})
}

func TestScopedStore_Sequences_SurvivePanicAndGoexit(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScope(t, storeInstance, "tenant-a")
		check(t, scopedStore.Set("config", "colour", "blue"))
		for name, body := range map[string]func(){"panic": func() { panic("loop body") }, "Goexit": runtime.Goexit} {
			for sequence, loop := range map[string]func(){
				"All": func() {
					for range scopedStore.All("config") {
						body()
					}
				},
				"GroupsSeq": func() {
					for range scopedStore.GroupsSeq("") {
						body()
					}
				},
			} {
				finishes(t, name+" in "+sequence, func() {
					if got := panicOf(loop); got != "loop body" {
						t.Errorf("%s: recovered %v, want the panic of the loop body", sequence, got)
					}
				})
				finishes(t, "work after "+name+" in "+sequence, func() { noError(t, callEveryMethod(scopedStore)) })
			}
		}
	})
}

func TestScopedStore_Errors_CarryTheFullGroupName(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 2, 1)
		for want, call := range map[string]func() error{
			"store.Get: tenant-a:config/colour: not found":       func() error { return second(scopedStore.Get("config", "colour")) },
			"store.GetSplit: tenant-a:config/colour: not found":  func() error { return second(scopedStore.GetSplit("config", "colour", ",")) },
			"store.GetFields: tenant-a:config/colour: not found": func() error { return second(scopedStore.GetFields("config", "colour")) },
		} {
			err := call()
			wantErrorIs(t, err, store.NotFoundError)
			if got := err.Error(); got != want {
				t.Errorf("error %q, want %q", got, want)
			}
		}
		for want, source := range map[string]string{"store.Render: parse: ": "{{", "store.Render: exec: ": `{{template "missing"}}`} {
			rendered, err := scopedStore.Render(source, "config")
			if err == nil || rendered != "" || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("Render(%q) = %q, %v, want no text and an error that starts %q", source, rendered, err, want)
			}
		}
		check(t, scopedStore.Set("live", "first", "1"))
		for _, full := range []struct{ group, limit string }{{"config", "group"}, {"live", "key"}} {
			for method, call := range map[string]func() error{
				"Set":        func() error { return scopedStore.Set(full.group, "colour", "secret value") },
				"SetWithTTL": func() error { return scopedStore.SetWithTTL(full.group, "colour", "secret value", time.Hour) },
			} {
				err := call()
				wantRefused(t, err, full.limit)
				want := fmt.Sprintf("store.%s: tenant-a:%s/colour: quota exceeded: ", method, full.group)
				if got := err.Error(); !strings.HasPrefix(got, want) || strings.Contains(got, "secret") {
					t.Errorf("refusal %q, want it to start %q and to keep the value to itself", got, want)
				}
			}
			if full.group == "config" {
				check(t, scopedStore.Set("live", "second", "2"))
			}
		}
	})
}

func TestScopedStore_Set_RefusedAtMaxKeys(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 3, 0)
		for index := range 3 {
			check(t, scopedStore.Set("group "+strconv.Itoa(index), "key", "value"))
		}
		wantRefused(t, scopedStore.Set("group 0", "another", "value"), "key")
		wantRefused(t, scopedStore.Set("new group", "key", "value"), "key")
		wantRefused(t, scopedStore.SetWithTTL("group 0", "another", "value", time.Hour), "key")
		check(t, scopedStore.Delete("group 1", "key"))
		check(t, scopedStore.Set("group 0", "another", "value"))
		wantRefused(t, scopedStore.Set("group 1", "key", "value"), "key")
		check(t, scopedStore.DeleteGroup("group 0"))
		wantCounts(t, storeInstance, "tenant-a", 1, 1)
	})
}

func TestScopedStore_Set_RefusedAtMaxGroups(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 0, 2)
		check(t, scopedStore.Set("first", "key", "value"))
		check(t, scopedStore.Set("second", "key", "value"))
		wantRefused(t, scopedStore.Set("third", "key", "value"), "group")
		wantRefused(t, scopedStore.SetWithTTL("third", "key", "value", time.Hour), "group")
		for index := range 20 {
			check(t, scopedStore.Set("first", strconv.Itoa(index), "value"))
		}
		check(t, scopedStore.Delete("second", "key"))
		check(t, scopedStore.Set("third", "key", "value"))
		wantRefused(t, scopedStore.Set("second", "key", "value"), "group")
		check(t, scopedStore.DeleteGroup("first"))
		check(t, scopedStore.Set("second", "key", "value"))
		wantRefused(t, scopedStore.Set("first", "key", "value"), "group")
		wantCounts(t, storeInstance, "tenant-a", 2, 2)
	})
}

func TestScopedStore_Set_OverMaxGroupsGroupsThatAreThereStillGrow(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, group := range []string{"first", "second", "third"} {
			check(t, storeInstance.Set("tenant-a:"+group, "key", ""))
		}
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 0, 2)
		check(t, scopedStore.Set("second", "another", ""))
		wantRefused(t, scopedStore.Set("fourth", "key", ""), "group")
		wantCounts(t, storeInstance, "tenant-a", 4, 3)
	})
}

func TestScopedStore_Set_NamesTheLimitOnKeysWhereBothAreReached(t *testing.T) {
	storeInstance := newMemoryStore(t)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 1)
	check(t, scopedStore.Set("config", "colour", "blue"))
	wantRefused(t, scopedStore.Set("session", "token", "abc123"), "key")
}

func TestScopedStore_Set_RefusalChangesAndEmitsNothing(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 2, 1)
	check(t, scopedStore.Set("config", "colour", "blue"))
	check(t, scopedStore.SetWithTTL("config", "size", "10", time.Hour))
	before, watcher, changes := queryLines(t, database, selectRowsSQL), storeInstance.Watch("*", "*"), recordChanges(storeInstance)
	wantRefused(t, scopedStore.Set("config", "new", "value"), "key")
	wantRefused(t, scopedStore.Set("session", "new", "value"), "key")
	wantRefused(t, newScopeWithQuota(t, storeInstance, "tenant-a", 0, 1).Set("session", "new", "value"), "group")
	wantRefused(t, scopedStore.SetWithTTL("config", "new", "value", 0), "key")
	if after := queryLines(t, database, selectRowsSQL); !slices.Equal(after, before) {
		t.Errorf("refusals changed the rows from %q to %q", before, after)
	}
	if got := append(bufferedEvents(watcher), changes()...); len(got) != 0 {
		t.Errorf("refusals emitted %+v", got)
	}
	checkMissing(t, scopedStore, "config", "new")
}

func TestScopedStore_Set_OverwritesAtAndOverTheLimit(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("tenant-a:config", "colour", "blue"))
		check(t, storeInstance.Set("tenant-a:config", "size", "10"))
		check(t, storeInstance.Set("tenant-a:session", "token", "abc123"))
		for _, limits := range [][2]int{{3, 2}, {1, 1}, {0, 1}, {1, 0}} {
			scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", limits[0], limits[1])
			value := fmt.Sprint(limits)
			check(t, scopedStore.Set("config", "colour", value))
			check(t, scopedStore.Set("session", "token", value))
			check(t, scopedStore.SetWithTTL("config", "size", value, time.Hour))
			checkValue(t, scopedStore, "config", "colour", value)
			checkValue(t, scopedStore, "config", "size", value)
			wantErrorIs(t, scopedStore.Set("new", "key", "value"), store.QuotaExceededError)
		}
		wantCounts(t, storeInstance, "tenant-a", 3, 2)
	})
}

func TestScopedStore_Set_ZeroLimitIsNone(t *testing.T) {
	storeInstance := newMemoryStore(t)
	for namespace, limits := range map[string][2]int{"none": {0, 0}, "keys": {100, 0}, "groups": {0, 100}} {
		scopedStore := newScopeWithQuota(t, storeInstance, namespace, limits[0], limits[1])
		for index := range 100 {
			check(t, scopedStore.Set("group "+strconv.Itoa(index), "key", ""))
		}
		if namespace != "keys" {
			check(t, scopedStore.Set("group 0", "one more", ""))
		}
		if namespace == "none" {
			check(t, scopedStore.Set("one more", "key", ""))
		}
	}
}

func TestScopedStore_Set_NamespacesAreCountedApart(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		namespaces := []string{"a", "A", "a-b", "a-", "b"}
		for range 2 {
			for _, namespace := range namespaces {
				scopedStore := newScopeWithQuota(t, storeInstance, namespace, 2, 2)
				check(t, scopedStore.Set("config", "colour", "blue"))
				check(t, scopedStore.Set("b:config", "colour", "blue"))
			}
		}
		check(t, storeInstance.Set("a", "unscoped", ""))
		check(t, storeInstance.Set("a;config", "unscoped", ""))
		for _, namespace := range namespaces {
			wantCounts(t, storeInstance, namespace, 2, 2)
		}
		check(t, newScope(t, storeInstance, "a").DeleteGroup("b:config"))
		wantCounts(t, storeInstance, "a", 1, 1)
		wantCounts(t, storeInstance, "b", 2, 2)
	})
}

func TestScopedStore_Set_UnlimitedWritesCount(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 3, 2)
		unlimited := newScope(t, storeInstance, "tenant-a")
		for index := range 3 {
			check(t, storeInstance.Set("tenant-a:unscoped", strconv.Itoa(index), ""))
			check(t, unlimited.Set("unlimited "+strconv.Itoa(index), "key", ""))
			check(t, storeInstance.SetWithTTL("tenant-a:with TTL", strconv.Itoa(index), "", time.Hour))
		}
		wantRefused(t, scopedStore.Set("unscoped", "new", ""), "key")
		wantCounts(t, storeInstance, "tenant-a", 9, 5)
		check(t, storeInstance.DeleteGroup("tenant-a:unscoped"))
		check(t, storeInstance.DeleteGroup("tenant-a:with TTL"))
		check(t, unlimited.Delete("unlimited 0", "key"))
		wantCounts(t, storeInstance, "tenant-a", 2, 2)
		wantRefused(t, scopedStore.Set("new", "key", ""), "group")
		check(t, scopedStore.Set("unlimited 1", "new", ""))
		wantRefused(t, scopedStore.Set("unlimited 1", "newer", ""), "key")
	})
}

func TestScopedStore_Set_EachScopeHasItsOwnLimits(t *testing.T) {
	storeInstance := newMemoryStore(t)
	small, large := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0), newScopeWithQuota(t, storeInstance, "tenant-a", 2, 0)
	check(t, small.Set("config", "colour", "blue"))
	wantRefused(t, small.Set("config", "size", "10"), "key")
	check(t, large.Set("config", "size", "10"))
	wantRefused(t, large.Set("config", "shape", "round"), "key")
}

func TestScopedStore_Set_ExpiredEntriesMakeRoom(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 2, 2)
		check(t, scopedStore.SetWithTTL("first", "key", "", 30*time.Second))
		check(t, scopedStore.SetWithTTL("second", "key", "", 40*time.Second))
		time.Sleep(30*time.Second - 1)
		wantRefused(t, scopedStore.Set("third", "key", ""), "key")
		time.Sleep(time.Millisecond + 1)
		check(t, scopedStore.Set("third", "key", ""))
		wantRefused(t, scopedStore.Set("third", "another", ""), "key")
		wantRefused(t, scopedStore.Set("first", "key", ""), "key")
		time.Sleep(10 * time.Second)
		check(t, scopedStore.Set("fourth", "key", ""))
		wantCounts(t, storeInstance, "tenant-a", 2, 2)
	})
}

func TestScopedStore_Set_ExpiredGroupMakesRoom(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 0, 2)
		check(t, scopedStore.SetWithTTL("expires", "first", "", 20*time.Second))
		check(t, scopedStore.SetWithTTL("expires", "second", "", 30*time.Second))
		check(t, scopedStore.SetWithTTL("stays", "expires", "", 20*time.Second))
		check(t, scopedStore.Set("stays", "stays", ""))
		time.Sleep(30*time.Second - 1)
		wantRefused(t, scopedStore.Set("new", "key", ""), "group")
		time.Sleep(time.Millisecond + 1)
		check(t, scopedStore.Set("new", "key", ""))
		wantRefused(t, scopedStore.Set("expires", "first", ""), "group")
		wantCounts(t, storeInstance, "tenant-a", 2, 2)
	})
}

func TestScopedStore_Set_OverwritingTheExpiredNeedsRoom(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, test := range []struct {
			namespace, limit   string
			maxKeys, maxGroups int
		}{{"tenant-a", "key", 2, 0}, {"tenant-b", "group", 0, 2}} {
			namespace := test.namespace
			scopedStore := newScopeWithQuota(t, storeInstance, namespace, test.maxKeys, test.maxGroups)
			check(t, scopedStore.SetWithTTL("expired", "key", "", 0))
			// Past the scope, so that nothing has removed the expired row when the scope is asked.
			check(t, storeInstance.Set(namespace+":first", "key", ""))
			check(t, storeInstance.Set(namespace+":second", "key", ""))
			wantRefused(t, scopedStore.Set("expired", "key", ""), test.limit)
			wantCounts(t, storeInstance, namespace, 2, 2)
		}
	})
}

func TestScopedStore_Set_TTLThatIsSetOrClearedCounts(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 2, 2)
		check(t, scopedStore.SetWithTTL("kept", "key", "", 10*time.Second))
		check(t, scopedStore.Set("kept", "key", ""))
		check(t, scopedStore.Set("lost", "key", ""))
		check(t, scopedStore.SetWithTTL("lost", "key", "", 10*time.Second))
		wantCounts(t, storeInstance, "tenant-a", 2, 2)
		time.Sleep(11 * time.Second)
		wantCounts(t, storeInstance, "tenant-a", 1, 1)
		check(t, scopedStore.SetWithTTL("kept", "key", "", 0))
		wantCounts(t, storeInstance, "tenant-a", 0, 0)
	})
}

func TestScopedStore_SetWithTTL_ElapsedNeedsRoomAndTakesNone(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 2, 2)
		watcher := storeInstance.Watch("*", "*")
		for index := range 5 {
			group := strconv.Itoa(index)
			check(t, scopedStore.SetWithTTL(group, "key", "value", -1))
			wantEvents(t, watcher, setEvent("tenant-a:"+group, "key", "value"))
			checkMissing(t, scopedStore, group, "key")
		}
		check(t, scopedStore.Set("first", "key", ""))
		check(t, scopedStore.Set("first", "another", ""))
		bufferedEvents(watcher)
		wantRefused(t, scopedStore.SetWithTTL("first", "new", "", 0), "key")
		wantRefused(t, newScopeWithQuota(t, storeInstance, "tenant-a", 0, 1).SetWithTTL("new", "key", "", 0), "group")
		wantEvents(t, watcher)
		check(t, scopedStore.SetWithTTL("first", "another", "", 0))
		check(t, scopedStore.Set("first", "new", ""))
		wantCounts(t, storeInstance, "tenant-a", 2, 1)
	})
}

func TestNewScopedWithQuota_CountsWhatWasThereBefore(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		for _, namespace := range []string{"a", "a-b"} {
			for index := range 5 {
				check(t, storeInstance.Set(namespace+":config", strconv.Itoa(index), ""))
				check(t, storeInstance.SetWithTTL(namespace+":expired "+strconv.Itoa(index), "key", "", 0))
				check(t, storeInstance.SetWithTTL(namespace+":session "+strconv.Itoa(index), "key", "", time.Minute))
			}
		}
		check(t, storeInstance.Set("a", "unscoped", ""))
		check(t, storeInstance.Set("", "unscoped", ""))
		wantCounts(t, storeInstance, "a", 10, 6)
		time.Sleep(time.Minute + time.Millisecond)
		wantCounts(t, storeInstance, "a", 5, 1)
		wantCounts(t, storeInstance, "a-b", 5, 1)
	})
}

func TestNewScopedWithQuota_CountsAgainWhereATriggerIsGone(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 10, 10)
	check(t, scopedStore.Set("config", "colour", "blue"))
	for range 3 { // each of which is counted as a new key
		execSQL(t, database, `INSERT OR REPLACE INTO entries VALUES ('tenant-a:config', 'colour', 'green', NULL)`)
	}
	execSQL(t, database, `DROP TRIGGER entries_count_insert`)
	execSQL(t, database, `INSERT INTO entries VALUES ('tenant-a:session', 'token', 'abc123', NULL)`)
	wantCounts(t, storeInstance, "tenant-a", 2, 2)
	check(t, scopedStore.Set("session", "another", ""))
	wantCounts(t, storeInstance, "tenant-a", 3, 2)
}

func TestNewScopedWithQuota_FirstQuotaOfManyAtOnce(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	other := openStore(t, databasePath)
	for index := range 20 {
		check(t, storeInstance.Set("tenant-a:config", strconv.Itoa(index), ""))
	}
	concurrently(16, func(index int) {
		storeInstance := []*store.Store{storeInstance, other}[index%2]
		scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 36})
		if err != nil {
			t.Error(err)
			return
		}
		noError(t, scopedStore.Set("config", "of goroutine "+strconv.Itoa(index), ""))
	})
	wantCounts(t, storeInstance, "tenant-a", 36, 1)
	wantCounts(t, other, "tenant-a", 36, 1)
}

func TestScopedStore_Set_CountsTheRowsOfOtherPrograms(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	newScopeWithQuota(t, storeInstance, "a", 1, 1)
	const past, future = "1", "32503680000000"
	for _, step := range []struct {
		query     string
		keys      int // that namespace a holds then
		groups    int
		elsewhere int // keys of namespace b, in as many groups
	}{
		{`INSERT INTO entries VALUES ('a:one', '1', 'v', NULL)`, 1, 1, 0},
		{`INSERT INTO entries VALUES ('a:one', '2', 'v', NULL), ('a:two', '1', 'v', ` + future + `), ('b:one', '1', 'v', NULL),
			('a', '1', 'v', NULL), ('a-b:one', '1', 'v', NULL), ('A:one', '1', 'v', NULL), (':', '1', 'v', NULL), ('', '1', 'v', NULL)`, 3, 2, 1},
		{`INSERT INTO entries VALUES ('a:gone', '1', 'v', ` + past + `), ('a:one', '3', 'v', ` + past + `)`, 3, 2, 1},
		{`INSERT INTO entries VALUES ('a:one', '1', 'w', NULL), ('a:one', '4', 'w', NULL)
			ON CONFLICT (group_name, entry_key) DO UPDATE SET entry_value = excluded.entry_value`, 4, 2, 1},
		{`INSERT INTO entries VALUES ('a:one', '1', 'x', NULL) ON CONFLICT DO NOTHING`, 4, 2, 1},
		{`INSERT OR IGNORE INTO entries VALUES ('a:one', '1', 'x', NULL), ('a:one', '5', 'x', NULL)`, 5, 2, 1},
		{`INSERT INTO entries VALUES ('a:one', '5', 'w', NULL)
			ON CONFLICT (group_name, entry_key) DO UPDATE SET expires_at = ` + past, 4, 2, 1},
		{`UPDATE entries SET entry_value = 'y'`, 4, 2, 1},
		{`UPDATE entries SET group_name = 'a:three' WHERE group_name = 'a:two'`, 4, 2, 1},
		{`UPDATE entries SET group_name = 'a:three', entry_key = 'moved' WHERE group_name = 'a:one' AND entry_key = '1'`, 4, 2, 1},
		{`UPDATE entries SET entry_key = entry_key || ' renamed' WHERE group_name = 'a:three'`, 4, 2, 1},
		{`UPDATE entries SET entry_key = CAST(entry_key AS BLOB) WHERE group_name = 'b:one'`, 4, 2, 0},
		{`UPDATE entries SET entry_key = CAST(entry_key AS TEXT) WHERE group_name = 'b:one'`, 4, 2, 1},
		{`UPDATE entries SET entry_key = entry_key || ' renamed' WHERE group_name = 'b:one'`, 4, 2, 1},
		{`UPDATE entries SET group_name = 'b:two' WHERE entry_key = 'moved renamed'`, 3, 2, 2},
		{`UPDATE entries SET group_name = 'nowhere' WHERE group_name = 'a:three'`, 2, 1, 2},
		{`UPDATE entries SET group_name = 'a:back', entry_value = 'z', expires_at = NULL WHERE group_name IN ('nowhere', 'b:two')`, 4, 2, 1},
		{`UPDATE entries SET expires_at = ` + past + ` WHERE group_name = 'a:one' AND entry_key = '2'`, 3, 2, 1},
		{`UPDATE entries SET expires_at = ` + future + ` WHERE group_name = 'a:one' AND expires_at IS NULL`, 3, 2, 1},
		{`UPDATE entries SET expires_at = -1 WHERE group_name LIKE 'a:%' AND ifnull(expires_at, ` + future + `) = ` + future + `;
			UPDATE entries SET expires_at = NULL WHERE expires_at = -1`, 3, 2, 1},
		{`BEGIN; INSERT INTO entries VALUES ('a:rolled', 'back', 'v', NULL); DELETE FROM entries WHERE group_name = 'b:one'; ROLLBACK`, 3, 2, 1},
		{`BEGIN; SAVEPOINT s; DELETE FROM entries; ROLLBACK TO s; INSERT INTO entries VALUES ('a:one', '9', 'v', NULL); COMMIT`, 4, 2, 1},
		{`INSERT OR REPLACE INTO entries VALUES ('a:one', '10', 'v', NULL)`, 5, 2, 1},
		{`DELETE FROM entries WHERE group_name = 'a:one' AND entry_key = '4'`, 4, 2, 1},
		{`DELETE FROM entries WHERE group_name = 'a:one'`, 2, 1, 1},
		{`UPDATE entries SET group_name = 'b:' || entry_key WHERE group_name = 'a:back'`, 0, 0, 3},
		{`DELETE FROM entries`, 0, 0, 0},
		{`INSERT INTO entries VALUES ('a:one', '1', 'v', NULL)`, 1, 1, 0},
	} {
		execSQL(t, database, step.query)
		t.Logf("after %s", step.query)
		wantCounts(t, storeInstance, "a", step.keys, step.groups)
		wantCounts(t, storeInstance, "b", step.elsewhere, step.elsewhere)
	}
}

// TestNewScopedWithQuota_TakesNoTriggerForTheTableOfTheCounts has another program's trigger under the name of that table.
func TestNewScopedWithQuota_TakesNoTriggerForTheTableOfTheCounts(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	database.SetMaxOpenConns(1) // data_version is that of one connection
	execSQL(t, database, `CREATE TRIGGER entries_counts AFTER DELETE ON entries BEGIN SELECT 1; END`)
	check(t, newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0).Set("config", "colour", "blue"))
	before := queryInt(t, database, `PRAGMA data_version`)
	newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0)
	checkEqual(t, "data_version after the second call", queryInt(t, database, `PRAGMA data_version`), before)
	execSQL(t, database, `DROP TRIGGER entries_count_insert; INSERT INTO entries VALUES ('tenant-a:config', 'size', 'large', NULL)`)
	wantCounts(t, storeInstance, "tenant-a", 2, 1)
}

func TestNewScopedWithQuota_LeavesWhatIsAnotherProgramsAlone(t *testing.T) {
	for name, statement := range map[string]string{
		"table":      "CREATE TABLE entries_counts (day, visitors)",
		"other case": "CREATE TABLE Entries_Counts (name TEXT PRIMARY KEY, keys INTEGER NOT NULL, groups INTEGER NOT NULL)",
		"view":       "CREATE VIEW entries_counts AS SELECT 1 AS day, 2 AS visitors",
	} {
		t.Run(name, func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			database := openSQL(t, databasePath)
			execSQL(t, database, statement)
			_, err := store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 1})
			wantErrorText(t, err, "store.NewScopedWithQuota: tenant-a: ", "entries_counts")
			checkSame(t, "schema", queryLines(t, database, "SELECT sql FROM sqlite_schema WHERE tbl_name LIKE 'entries_counts' AND sql IS NOT NULL"),
				[]string{statement})
		})
	}
}

// TestScopedStore_Set_EndsWhereATriggerKeepsWhatHasExpired has more of that than a batch.
func TestScopedStore_Set_EndsWhereATriggerKeepsWhatHasExpired(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0)
	check(t, scopedStore.Set("config", "colour", "blue"))
	database := openSQL(t, databasePath)
	insertRows(t, database, "session", "key-%d", 6_000, 1)
	execSQL(t, database, `CREATE TRIGGER keep BEFORE DELETE ON entries BEGIN SELECT RAISE(IGNORE); END`)
	wantErrorIs(t, scopedStore.Set("config", "size", "small"), store.QuotaExceededError)
	checkMissing(t, scopedStore, "config", "size")
}

func TestScopedStore_Set_OddCountsOfOtherProgramsDoNoHarm(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 2, 0)
	check(t, scopedStore.Set("config", "colour", "blue"))
	database := openSQL(t, databasePath)
	for _, value := range []string{"'many'", "1.5", "x'31'", "9e99"} {
		execSQL(t, database, "UPDATE entries_counts SET keys = "+value+", groups = "+value)
		check(t, scopedStore.Set("config", "colour", "blue"))
		checkValue(t, scopedStore, "config", "colour", "blue")
	}
}

// TestScopedStore_Set_WhatTriggersOfOtherProgramsSpoil shows what README warns of.
func TestScopedStore_Set_WhatTriggersOfOtherProgramsSpoil(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 2, 0)
	execSQL(t, openSQL(t, databasePath), `
		CREATE TRIGGER fail AFTER INSERT ON entries WHEN new.entry_key = 'fail' BEGIN SELECT RAISE(FAIL, 'no'); END;
		CREATE TRIGGER abort AFTER INSERT ON entries WHEN new.entry_key = 'abort' BEGIN SELECT RAISE(ABORT, 'no'); END;
		CREATE TRIGGER ignore AFTER INSERT ON entries WHEN new.entry_key LIKE 'ignore%' BEGIN SELECT RAISE(IGNORE); END`)
	watcher := storeInstance.Watch("*", "*")
	for _, key := range []string{"abort", "fail"} {
		if err := storeInstance.Set("config", key, "value"); err == nil {
			t.Errorf("Set of %q returned nil, want the trigger's error", key)
		}
	}
	checkEqual(t, "events", len(watcher.Events), 0)
	checkMissing(t, storeInstance, "config", "abort")
	checkValue(t, storeInstance, "config", "fail", "value")
	for _, key := range []string{"ignore 1", "ignore 2", "ignore 3"} {
		check(t, scopedStore.Set("config", key, "value"))
	}
	checkEqual(t, "CountAll", must[int](t)(scopedStore.CountAll("")), 3)
}

func TestScopedStore_Set_BlobKeyOfAnotherProgramMakesNoGroup(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	check(t, newScopeWithQuota(t, storeInstance, "tenant-a", 9, 9).Set("first", "key", "value"))
	execSQL(t, openSQL(t, databasePath), `INSERT INTO entries VALUES ('tenant-a:second', x'01', 'value', NULL)`)
	wantRefused(t, newScopeWithQuota(t, storeInstance, "tenant-a", 0, 1).Set("second", "key", "value"), "group")
	check(t, storeInstance.Set("tenant-a:second", "key", "value"))
	wantCounts(t, storeInstance, "tenant-a", 2, 2)
	check(t, storeInstance.Delete("tenant-a:second", "key"))
	wantCounts(t, storeInstance, "tenant-a", 1, 1)
}

func TestScopedStore_Set_OddRowsOfOtherProgramsDoNoHarm(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db")
	database := openSQL(t, databasePath)
	execSQL(t, database, `CREATE TABLE entries (group_name TEXT, entry_key TEXT, entry_value TEXT, expires_at INTEGER,
		PRIMARY KEY (group_name, entry_key))`)
	odd := func(suffix string) {
		execSQL(t, database, `INSERT INTO entries VALUES (NULL, ?1, 'v', NULL), (x'613A6F6E65', ?1, 'v', NULL), (NULL, NULL, NULL, 1),
			(x'FF', CAST(?1 AS BLOB), NULL, 1), ('z:odd', CAST(?1 AS BLOB), 'v', NULL), ('z:odd', NULL, x'00', NULL), ('a:odd', ?1, NULL, NULL),
			('a:odd', ?1 || ' blob', x'FF00', NULL), ('a:odd', ?1 || ' gone', NULL, 1)`, suffix)
	}
	odd("before")
	storeInstance := openStore(t, databasePath)
	wantCounts(t, storeInstance, "a", 2, 1)
	odd("after")
	wantCounts(t, storeInstance, "a", 4, 1)
	execSQL(t, database, `UPDATE entries SET group_name = NULL, entry_key = rowid WHERE group_name = 'a:odd' AND entry_key = 'after'`)
	wantCounts(t, storeInstance, "a", 3, 1)
	execSQL(t, database, `UPDATE entries SET entry_key = NULL WHERE group_name = 'a:odd' AND entry_key = 'before'`)
	wantCounts(t, storeInstance, "a", 2, 1)
	execSQL(t, database, `UPDATE entries SET entry_key = 'before' WHERE group_name = 'a:odd' AND entry_key IS NULL`)
	wantCounts(t, storeInstance, "a", 3, 1)
	execSQL(t, database, `UPDATE entries SET group_name = 'a:even', entry_key = 'key' || rowid WHERE group_name IS NULL`)
	live := queryInt(t, database, `SELECT count(*) FROM entries WHERE group_name = 'a:even' AND expires_at IS NULL`)
	wantCounts(t, storeInstance, "a", 3+live, 2)
	execSQL(t, database, `DELETE FROM entries WHERE typeof(group_name) <> 'text' OR typeof(entry_key) <> 'text'`)
	wantCounts(t, storeInstance, "a", 3+live, 2)
	scopedStore := newScopeWithQuota(t, storeInstance, "z", 100, 100)
	check(t, callEveryMethod(scopedStore))
	odd("last")
	check(t, callEveryMethod(scopedStore))
	check(t, callEveryMethod(newScopeWithQuota(t, storeInstance, "a", 100, 100)))
}

// TestScopedStore_Set_CountsARandomHistory mixes this store, another and a program of its own with steps of the clock; the
// rows themselves say what the quotas must have counted.
func TestScopedStore_Set_CountsARandomHistory(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 0))
				storeInstance, databasePath := newFileStore(t)
				other, database := openStore(t, databasePath), openSQL(t, databasePath)
				namespaces := []string{"a", "a-b"}
				for step := range 300 {
					scopedStore := newScope(t, []*store.Store{storeInstance, other}[random.IntN(2)], namespaces[random.IntN(2)])
					group, key := fmt.Sprint("group ", random.IntN(4)), strconv.Itoa(random.IntN(4))
					full := scopedStore.Namespace() + ":" + group
					// Half a second keeps every expiry off the instants at which the clock stands.
					ttl := time.Duration(random.IntN(20))*time.Second + 500*time.Millisecond
					expires := time.Now().Add(ttl).UnixMilli()
					switch random.IntN(12) {
					case 0, 1:
						check(t, scopedStore.Set(group, key, ""))
					case 2, 3:
						check(t, scopedStore.SetWithTTL(group, key, "", ttl))
					case 4:
						check(t, scopedStore.Delete(group, key))
					case 5:
						check(t, scopedStore.DeleteGroup(group))
					case 6:
						check(t, second(scopedStore.PurgeExpired()))
					case 7:
						execSQL(t, database, `INSERT INTO entries VALUES (?1, ?2, '', ?3) ON CONFLICT (group_name, entry_key)
							DO UPDATE SET expires_at = excluded.expires_at`, full, key, expires)
					case 8:
						execSQL(t, database, `UPDATE OR IGNORE entries SET group_name = ?1, expires_at = nullif(expires_at, ?3) WHERE entry_key = ?2`, full, key, expires)
					case 9:
						execSQL(t, database, `DELETE FROM entries WHERE group_name = ?1 AND entry_key > ?2`, full, key)
					default:
						time.Sleep(time.Duration(random.IntN(10)) * time.Second)
					}
					if step%10 != 9 {
						continue
					}
					for _, namespace := range namespaces {
						const live = `FROM entries WHERE group_name LIKE ?1 || ':%' AND (expires_at IS NULL OR expires_at > ?2)`
						now := time.Now().UnixMilli()
						keys := queryInt(t, database, `SELECT count(*) `+live, namespace, now)
						groups := queryInt(t, database, `SELECT count(DISTINCT group_name) `+live, namespace, now)
						wantCounts(t, storeInstance, namespace, keys, groups)
					}
				}
			})
		})
	}
}

const quotaLimit = 150

func init() { helperRoles["fill quota"] = helper(fillQuotaOf) }

// fillQuotaOf fills a quota beside other processes and prints how many keys got in: path, limit.
func fillQuotaOf(arguments []string) error {
	storeInstance, err := store.New(arguments[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // until the parent says go
		return err
	}
	accepted, err := fillQuota(storeInstance, arguments[1], strconv.Itoa(os.Getpid()))
	fmt.Println(accepted)
	return errors.Join(err, storeInstance.Close())
}

// fillQuota writes new keys, each in a new group, from several goroutines with a ScopedStore each, until the limit stops
// them, and returns how many got in.
func fillQuota(storeInstance *store.Store, limit, writer string) (int, error) {
	quota := store.QuotaConfig{MaxKeys: quotaLimit}
	if limit == "groups" {
		quota = store.QuotaConfig{MaxGroups: quotaLimit}
	}
	var accepted atomic.Int64
	errs := make([]error, 4)
	concurrently(len(errs), func(goroutine int) {
		errs[goroutine] = func() error {
			scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", quota)
			if err != nil {
				return err
			}
			for index := range quotaLimit + 1 {
				err := scopedStore.Set(fmt.Sprint(writer, "-", goroutine, "-", index), "key", "value")
				if errors.Is(err, store.QuotaExceededError) {
					// Nobody removes anything, so the namespace is full for good.
					if count, err := scopedStore.CountAll(""); err != nil || count != quotaLimit {
						return fmt.Errorf("refused at %d of %d keys (%v)", count, quotaLimit, err)
					}
					return nil
				}
				if err != nil {
					return err
				}
				accepted.Add(1)
			}
			return errors.New("never refused")
		}()
	})
	return int(accepted.Load()), errors.Join(errs...)
}

func TestScopedStore_Set_LimitIsExactAcrossStoresAndProcesses(t *testing.T) {
	for _, limit := range []string{"keys", "groups"} {
		t.Run(limit, func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			stores := []*store.Store{storeInstance, openStore(t, databasePath)}
			var helpers sync.WaitGroup
			var accepted atomic.Int64
			start := make(chan struct{})
			for range 2 {
				command := helperCommand(t, "fill quota", databasePath, limit)
				input, err := command.StdinPipe()
				check(t, err)
				output, err := command.StdoutPipe()
				check(t, err)
				check(t, command.Start())
				lines := bufio.NewScanner(output)
				if !lines.Scan() {
					t.Fatal("the helper process did not start")
				}
				helpers.Go(func() {
					<-start
					noError(t, input.Close())
					lines.Scan()
					count, err := strconv.Atoi(lines.Text())
					noError(t, err)
					accepted.Add(int64(count))
					noError(t, command.Wait())
				})
			}
			close(start)
			concurrently(len(stores), func(index int) {
				count, err := fillQuota(stores[index], limit, "store "+strconv.Itoa(index))
				noError(t, err)
				accepted.Add(int64(count))
			})
			helpers.Wait()
			if got := accepted.Load(); got != quotaLimit {
				t.Errorf("%d writes were accepted at a limit of %d", got, quotaLimit)
			}
			wantCounts(t, storeInstance, "tenant-a", quotaLimit, quotaLimit)
		})
	}
}

// TestScopedStore_Set_LastKeyGoesToOneOfTwoStores lets two stores, alone on their connections, check and write at the same
// moment, again and again.
func TestScopedStore_Set_LastKeyGoesToOneOfTwoStores(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	stores := []*store.Store{storeInstance, openStore(t, databasePath)}
	for turn := range 200 {
		namespace := "tenant-" + strconv.Itoa(turn)
		var accepted atomic.Int64
		concurrently(len(stores), func(index int) {
			switch err := newScopeWithQuota(t, stores[index], namespace, 1, 0).Set("config", strconv.Itoa(index), ""); {
			case err == nil:
				accepted.Add(1)
			case !errors.Is(err, store.QuotaExceededError):
				t.Error(err)
			}
		})
		if accepted.Load() != 1 {
			t.Fatalf("%d keys were accepted at a limit of 1", accepted.Load())
		}
	}
}

func TestScopedStore_Set_NeverRefusedWhileThereIsRoom(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	stores := []*store.Store{storeInstance, openStore(t, databasePath)}
	const writers = 12 // of one key each, so that the limit suffices
	concurrently(writers, func(writer int) {
		scopedStore := newScopeWithQuota(t, stores[writer%2], "tenant-a", writers, writers)
		name := strconv.Itoa(writer)
		for turn := range 20 {
			if turn%2 == 0 {
				noError(t, scopedStore.Set(name, name, ""))
				noError(t, scopedStore.Delete(name, name))
			} else {
				noError(t, scopedStore.SetWithTTL(name, name, "", time.Hour))
				noError(t, scopedStore.SetWithTTL(name, name, "", 0))
			}
		}
	})
}

func TestScopedStore_Set_NeverOverTheLimitWhileOthersMakeRoom(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	stores := []*store.Store{storeInstance, openStore(t, databasePath)}
	const writers, limit = 12, 4
	var done atomic.Bool
	var observer sync.WaitGroup
	observer.Go(func() {
		scopedStore := newScope(t, openStore(t, databasePath), "tenant-a")
		for !done.Load() {
			count, err := scopedStore.CountAll("")
			noError(t, err)
			if count > limit {
				t.Errorf("the namespace holds %d keys at a limit of %d", count, limit)
			}
		}
	})
	var accepted, refused atomic.Int64
	concurrently(writers, func(writer int) {
		scopedStore := newScopeWithQuota(t, stores[writer%2], "tenant-a", limit, 0)
		for index := range 30 {
			key := fmt.Sprint(writer, "-", index)
			switch err := scopedStore.Set("config", key, ""); {
			case err == nil:
				accepted.Add(1)
				for refused.Load() == 0 && accepted.Load() <= limit { // so that the limit is met
					runtime.Gosched()
				}
				noError(t, scopedStore.Delete("config", key))
			case errors.Is(err, store.QuotaExceededError):
				refused.Add(1)
			default:
				t.Error(err)
			}
		}
	})
	done.Store(true)
	observer.Wait()
	if accepted.Load() < limit {
		t.Errorf("%d writes accepted, %d refused at a limit of %d", accepted.Load(), refused.Load(), limit)
	}
	wantCounts(t, storeInstance, "tenant-a", 0, 0)
}

func TestScopedStore_Set_NeverRefusedByWhatHasExpired(t *testing.T) {
	onEachClockedKind(t, func(t *testing.T, storeInstance *store.Store) {
		const writers = 8
		concurrently(writers, func(writer int) {
			scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", writers, writers)
			for index := range 20 {
				group := fmt.Sprint(writer, "-", index)
				noError(t, scopedStore.SetWithTTL(group, "key", "", time.Duration(writer+1)*time.Second))
				time.Sleep(time.Duration(writer+1)*time.Second + time.Millisecond)
			}
		})
	})
}

func TestScopedStore_Set_RefusalInASharedCommitFailsAlone(t *testing.T) {
	onEachKind(t, func(t *testing.T, storeInstance *store.Store) {
		check(t, storeInstance.Set("tenant-a:config", "colour", "blue"))
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0)
		watcher := storeInstance.Watch("*", "*")
		concurrently(16, func(writer int) {
			for index := range 20 {
				key := fmt.Sprint(writer, "-", index)
				if writer%2 == 0 {
					noError(t, storeInstance.Set("config", key, ""))
				} else if err := scopedStore.Set("config", key, ""); !errors.Is(err, store.QuotaExceededError) {
					t.Errorf("Set into a full namespace = %v, want a refusal", err)
				}
			}
		})
		events := bufferedEvents(watcher)
		if len(events) != 8*20 || slices.ContainsFunc(events, func(event store.Event) bool { return event.Group != "config" }) {
			t.Errorf("watcher got %d events, want one of each of the %d writes that were not refused", len(events), 8*20)
		}
		wantCounts(t, storeInstance, "tenant-a", 1, 1)
		wantCounts(t, storeInstance, "none", 0, 0)
	})
}

func median(durations []time.Duration) time.Duration {
	slices.Sort(durations)
	return durations[len(durations)/2]
}

// TestScopedStore_Set_CheckCostsTheSameWithManyKeys has the limit on keys look at living ones, and that on groups at a living
// key behind expired ones.
func TestScopedStore_Set_CheckCostsTheSameWithManyKeys(t *testing.T) {
	for _, test := range []struct {
		name    string
		expires any
		quota   func(size int) store.QuotaConfig
		set     func(t *testing.T, scopedStore *store.ScopedStore) error
	}{
		{"MaxKeys", nil, func(size int) store.QuotaConfig { return store.QuotaConfig{MaxKeys: 1 + size} },
			func(t *testing.T, scopedStore *store.ScopedStore) error {
				wantRefused(t, scopedStore.Set("group 0", "new", ""), "key")
				return nil
			}},
		{"MaxGroups", 1, func(int) store.QuotaConfig { return store.QuotaConfig{MaxGroups: 1} },
			func(t *testing.T, scopedStore *store.ScopedStore) error {
				return scopedStore.Set("group 0", "~alive", "")
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			storeInstance, databasePath := newFileStore(t)
			database := openSQL(t, databasePath)
			sizes := []int{100, 20_000}
			scopes := make([]*store.ScopedStore, len(sizes))
			times := make([][]time.Duration, len(sizes))
			for index, size := range sizes {
				group := fmt.Sprintf("tenant-%d:group 0", size)
				insertRows(t, database, group, "%d", size, test.expires)
				check(t, storeInstance.Set(group, "~alive", ""))
				var err error
				scopes[index], err = store.NewScopedWithQuota(storeInstance, fmt.Sprint("tenant-", size), test.quota(size))
				check(t, err)
			}
			for range 25 {
				for index, scopedStore := range scopes {
					start := time.Now()
					err := test.set(t, scopedStore)
					times[index] = append(times[index], time.Since(start))
					check(t, err)
				}
			}
			if few, many := median(times[0]), median(times[1]); many > 5*few {
				t.Errorf("the check takes %v with %d keys and %v with %d", few, sizes[0], many, sizes[1])
			}
		})
	}
}

// TestScopedStore_Set_FindsTheLivingKeyBehindExpiredOnes has a full namespace take a new key of a group that it holds, though
// that group's only living key comes last.
func TestScopedStore_Set_FindsTheLivingKeyBehindExpiredOnes(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 0, 1)
	for _, expired := range []int{99, 100, 101, 6_000} {
		insertRows(t, openSQL(t, databasePath), "tenant-a:session", fmt.Sprint(expired, " %d"), expired, 1)
		check(t, scopedStore.Set("session", "~alive", ""))
		check(t, scopedStore.Set("session", fmt.Sprint("~", expired), ""))
		wantRefused(t, scopedStore.Set("config", "colour", "blue"), "group")
	}
}

// TestScopedStore_Set_OverwritesWhereNoRoomCanBeMade has a full namespace take a new value of a living key behind expired ones,
// which another program's trigger keeps.
func TestScopedStore_Set_OverwritesWhereNoRoomCanBeMade(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 0, 1)
	database := openSQL(t, databasePath)
	check(t, scopedStore.Set("session", "~alive", "abc123"))
	insertRows(t, database, "tenant-a:session", "%d", 200, 1)
	execSQL(t, database, "CREATE TRIGGER refuse BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'refused'); END")
	check(t, scopedStore.Set("session", "~alive", "def456"))
}

// TestScopedStore_Set_MakesRoomBehindLargeValues has what makes the room lie behind large values that end the first batch, which
// found all that has expired.
func TestScopedStore_Set_MakesRoomBehindLargeValues(t *testing.T) {
	storeInstance := newMemoryStore(t)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0)
	value := strings.Repeat("v", 1<<20)
	for number := range 40 {
		check(t, storeInstance.SetWithTTL("session", strconv.Itoa(number), value, 0))
	}
	check(t, scopedStore.SetWithTTL("session", "token", "abc123", 0))
	check(t, scopedStore.Set("config", "colour", "blue"))
}

func TestScopedStore_Set_MakesRoomInBoundedBatches(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0)
	database := openSQL(t, databasePath)
	// A few expiries that come first lie scattered among many equal ones.
	const rows = 40_000
	execSQL(t, database, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO entries SELECT CASE i WHEN 1 THEN 'tenant-a:session' ELSE 'session' END, i, '', iif(i % 8 = 1 AND i < 19900, 1, 2) FROM n`, rows)
	check(t, scopedStore.Set("config", "colour", "blue"))
	if removed := rows + 1 - queryInt(t, database, `SELECT count(*) FROM entries`); removed < 1 || removed > rows/8 {
		t.Errorf("room for one key was made by removing %d entries", removed)
	}
}

// TestScopedStore_Set_NobodyWaitsForTwoBatches lets several writers make room at once. Writes that come during a batch are
// committed behind it, together, and have returned before the next is. Repeated, since who leads and the next batch come at
// the same time.
func TestScopedStore_Set_NobodyWaitsForTwoBatches(t *testing.T) {
	const writers = 8
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			storeInstance, hook := openWithCommitHook(t, ":memory:")
			scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", writers, 0)
			for writer := range writers {
				check(t, scopedStore.SetWithTTL("session", strconv.Itoa(writer), "", 0))
			}
			watcher := storeInstance.Watch("*", "*")
			var late sync.WaitGroup
			var returned atomic.Int32
			commits := 0
			hook.afterGather = func() int32 {
				// The first commit is that of all who found the namespace full, then come a batch and two late writers, in
				// whose commit the next batch is waiting already and two other late writers come.
				commits++
				synctest.Wait()
				switch commits {
				case 2, 3:
					for writer := range 2 {
						late.Go(func() {
							noError(t, storeInstance.Set("late", strconv.Itoa(writer), "blue"))
							returned.Add(1)
						})
					}
					synctest.Wait()
				case 4, 6: // the second batch, the third
					if want := int32(commits - 2); returned.Load() != want {
						t.Errorf("%d late writers have returned by commit %d, want %d", returned.Load(), commits, want)
					}
				}
				return 0
			}
			var calls []func() error
			for writer := range writers {
				calls = append(calls, func() error { return scopedStore.Set("config", strconv.Itoa(writer), "") })
			}
			check(t, errors.Join(hook.gather(storeInstance, calls...)...))
			late.Wait()
			storeInstance.Unwatch(watcher)
			var groups []string
			for event := range watcher.Events {
				groups = append(groups, event.Group)
			}
			if len(groups) != 1+writers+4 || groups[2] != "late" || groups[3] != "late" || groups[5] != "late" || groups[6] != "late" {
				t.Fatalf("the writes were committed in the order %q, want two late ones behind each of the first two batches", groups)
			}
			if commits != 1+writers+2 {
				t.Fatalf("%d commits, want one of the refused, one for each batch and each pair of late writers", commits)
			}
		})
	}
}

// TestScopedStore_Set_NeverRefusedForWhatOthersLetExpire has several stores write into a namespace nothing that lives. Each
// looks at the clock while others write.
func TestScopedStore_Set_NeverRefusedForWhatOthersLetExpire(t *testing.T) {
	const stores, writes = 6, 500
	databasePath := filepath.Join(t.TempDir(), "application.db")
	var writing sync.WaitGroup
	for number := range stores {
		scopedStore := newScopeWithQuota(t, openStore(t, databasePath), "tenant-a", 1, 0)
		writing.Go(func() {
			for write := range writes {
				noError(t, scopedStore.SetWithTTL("session", fmt.Sprint(number, " ", write), "", 0))
			}
		})
	}
	writing.Wait()
}

// TestScopedStore_Set_CountsWhatItHasWaitedForAnotherProcess has another connection lock the file between the batches of a Set,
// each of which takes two seconds: for a moment when more than five have gone by, or for six in all. A read, which gets the
// connection between two batches, takes the lock while its statement is prepared.
func TestScopedStore_Set_CountsWhatItHasWaitedForAnotherProcess(t *testing.T) {
	for _, test := range []struct {
		name  string
		after time.Duration
		locks []time.Duration
		fails bool
	}{
		{"a moment", 5 * time.Second, []time.Duration{100 * time.Millisecond}, false},
		{"too long", 0, []time.Duration{3 * time.Second, 3 * time.Second}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			databasePath := fillWithExpired(t, 10_000)
			synctest.Test(t, func(t *testing.T) {
				var storeInstance *store.Store
				var batches time.Duration
				var running sync.WaitGroup
				var begin func() // takes the lock, once
				start, locked := time.Now(), 0
				database, err := sql.Open("sqlite", fileURI(databasePath, "_pragma=busy_timeout(0)"))
				check(t, err)
				database.SetMaxOpenConns(1)
				check(t, database.Ping())
				inCommit := func() int32 {
					time.Sleep(2 * time.Second)
					batches += 2 * time.Second
					if time.Since(start) <= test.after || locked == len(test.locks) {
						return 0
					}
					lock := test.locks[locked]
					read := []func() (int, error){ // whose statements are still to be prepared
						func() (int, error) { return storeInstance.Count("group") },
						func() (int, error) { return storeInstance.CountAll("group") },
					}[locked]
					locked++
					begin = func() {
						execSQL(t, database, "BEGIN IMMEDIATE")
						running.Go(func() {
							time.Sleep(lock)
							execSQL(t, database, "COMMIT")
						})
					}
					running.Go(func() {
						_, err := read()
						noError(t, err)
					})
					synctest.Wait() // until it waits for the connection
					return 0
				}
				var active bool
				storeInstance, err = openHooked(databasePath, func(connection sqlite.ExecQuerierContext) error {
					connection.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 {
						if active {
							return inCommit()
						}
						return 0
					})
					return connection.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(
						func(sqlite.AuthorizerActionCode, string, string, string, string) sqlite.AuthorizerReturnCode {
							if lock := begin; lock != nil {
								begin = nil
								lock()
							}
							return sqlite.AuthorizerOK
						})
				})
				check(t, err)
				scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0)
				check(t, scopedStore.SetWithTTL("session", "token", "", time.Second))
				time.Sleep(time.Second) // so that it is the last to expire
				start, active = time.Now(), true
				err = scopedStore.Set("config", "colour", "blue")
				waited := time.Since(start) - batches
				active = false
				running.Wait()
				check(t, errors.Join(storeInstance.Close(), database.Close()))
				checkEqual(t, "locks", locked, len(test.locks))
				if test.fails {
					wantSQLiteError(t, err, sqliteBusy)
				} else {
					check(t, err)
				}
				if waited > 5*time.Second+10*time.Millisecond || test.fails && waited < 5*time.Second {
					t.Errorf("Set has waited %v for another process, and returned %v", waited, err)
				}
			})
		})
	}
}

// TestScopedStore_Set_NobodyWaitsForAnotherProcessInTurn has another connection lock the file while writers that have found
// their namespace full queue to make room.
func TestScopedStore_Set_NobodyWaitsForAnotherProcessInTurn(t *testing.T) {
	databasePath := filepath.Join(t.TempDir(), "store.db")
	synctest.Test(t, func(t *testing.T) {
		storeInstance, hook := openWithCommitHook(t, databasePath)
		scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 1, 0)
		check(t, errors.Join(scopedStore.Set("config", "colour", "blue"), storeInstance.SetWithTTL("session", "token", "", 0)))
		database, err := sql.Open("sqlite", fileURI(databasePath, "_pragma=busy_timeout(0)"))
		check(t, err)
		database.SetMaxOpenConns(1)
		begin := make(chan struct{})
		hook.set(func() int32 { // in the commit of the batch that removes the token
			hook.set(nil)
			synctest.Wait()
			close(begin)
			return 0
		})
		var locking, writing sync.WaitGroup
		var written atomic.Bool
		locking.Go(func() {
			<-begin
			for !written.Load() {
				if _, err := database.Exec("BEGIN IMMEDIATE"); err == nil {
					time.Sleep(30 * time.Second)
					execSQL(t, database, "COMMIT")
					return
				}
			}
		})
		for writer := range 16 {
			writing.Go(func() {
				start := time.Now()
				err := scopedStore.Set("config", strconv.Itoa(writer), "")
				if waited := time.Since(start); waited > 5*time.Second+10*time.Millisecond {
					t.Errorf("a writer has waited %v, and got %v", waited, err)
				}
			})
		}
		writing.Wait()
		written.Store(true)
		locking.Wait()
		check(t, errors.Join(storeInstance.Close(), database.Close()))
	})
}

func TestScopedStore_Set_MakesRoomWhileOthersGetThrough(t *testing.T) {
	storeInstance, databasePath := newFileStore(t)
	database := openSQL(t, databasePath)
	const expired = 30_000
	insertRows(t, database, "tenant-a:expired", "%d", expired, 1)
	check(t, storeInstance.Set("tenant-a:config", "colour", "blue"))
	scopedStore := newScopeWithQuota(t, storeInstance, "tenant-a", 10, 0)

	var longest time.Duration
	var done atomic.Bool
	var reader sync.WaitGroup
	started := make(chan struct{})
	reader.Go(func() {
		for first := true; !done.Load(); first = false {
			start := time.Now()
			_, err := scopedStore.Get("config", "colour")
			noError(t, err)
			if first {
				close(started)
				continue
			}
			longest = max(longest, time.Since(start))
		}
	})
	<-started
	start := time.Now()
	check(t, scopedStore.Set("config", "size", "10"))
	whole := time.Since(start)
	done.Store(true)
	reader.Wait()
	removed := expired + 2 - countRows(t, database)
	if removed > expired/10 && longest > whole/2 {
		t.Errorf("a Get took %v of the %v in which a Set removed %d expired rows, want it served in between", longest, whole, removed)
	}
	wantCounts(t, storeInstance, "tenant-a", 2, 1)
}

func ExampleNewScoped() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer storeInstance.Close()

	for namespace, colour := range map[string]string{"tenant-a": "blue", "tenant-b": "green"} {
		scopedStore, err := store.NewScoped(storeInstance, namespace)
		if err != nil {
			log.Fatal(err)
		}
		if err := scopedStore.Set("config", "colour", colour); err != nil {
			log.Fatal(err)
		}
	}
	groups, err := storeInstance.Groups("tenant-")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(groups)

	_, err = store.NewScoped(storeInstance, "tenant:a")
	fmt.Println(err != nil)
	// Output:
	// [tenant-a:config tenant-b:config]
	// true
}

func ExampleNewScopedWithQuota() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer storeInstance.Close()

	scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", store.QuotaConfig{MaxKeys: 2, MaxGroups: 1})
	if err != nil {
		log.Fatal(err)
	}
	for _, entry := range []store.KeyValue{
		{Key: "colour", Value: "blue"}, {Key: "size", Value: "10"}, {Key: "colour", Value: "green"}, {Key: "shape", Value: "round"},
	} {
		err := scopedStore.Set("config", entry.Key, entry.Value)
		fmt.Println(entry.Key, entry.Value, errors.Is(err, store.QuotaExceededError))
	}
	// Output:
	// colour blue false
	// size 10 false
	// colour green false
	// shape round true
}

func ExampleScopedStore_Namespace() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer storeInstance.Close()

	scopedStore, err := store.NewScoped(storeInstance, "tenant-a")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(scopedStore.Namespace())
	// Output:
	// tenant-a
}

func ExampleScopedStore_Set() {
	storeInstance, err := store.New(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer storeInstance.Close()

	scopedStore, err := store.NewScoped(storeInstance, "tenant-a")
	if err != nil {
		log.Fatal(err)
	}
	if err := scopedStore.Set("config", "colour", "blue"); err != nil {
		log.Fatal(err)
	}
	scoped, err := scopedStore.Get("config", "colour")
	if err != nil {
		log.Fatal(err)
	}
	unscoped, err := storeInstance.Get("tenant-a:config", "colour")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(scoped, unscoped)
	// Output:
	// blue blue
}

// BenchmarkStore_QuotaSet writes new keys into a namespace that holds some: without a quota, and with one.
func BenchmarkStore_QuotaSet(b *testing.B) {
	for _, size := range []int{100, 100_000} {
		for _, quota := range []store.QuotaConfig{{}, {MaxKeys: 1 << 30, MaxGroups: 1 << 30}} {
			b.Run(fmt.Sprintf("keys=%d/quota=%t", size, quota.MaxKeys > 0), func(b *testing.B) {
				storeInstance := newMemoryStore(b)
				scopedStore, err := store.NewScopedWithQuota(storeInstance, "tenant-a", quota)
				check(b, err)
				for index := range size {
					check(b, scopedStore.Set("group "+strconv.Itoa(index%100), strconv.Itoa(index), "value"))
				}
				keys := make([]string, 1000)
				for index := range keys {
					keys[index] = "new " + strconv.Itoa(index)
				}
				turn := 0
				b.ReportAllocs()
				for b.Loop() {
					if turn == len(keys) { // the namespace keeps its size
						b.StopTimer()
						check(b, scopedStore.DeleteGroup("config"))
						turn = 0
						b.StartTimer()
					}
					check(b, scopedStore.Set("config", keys[turn], "blue"))
					turn++
				}
			})
		}
	}
}
