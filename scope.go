package store

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"time"
)

// QuotaExceededError is returned, wrapped, when a write would exceed a namespace's quota.
//
//	err := scopedStore.Set("prefs", "locale", "en-GB")
//	if errors.Is(err, store.QuotaExceededError) {
//		// the tenant is full
//	}
//
//lint:ignore ST1012 the specification names it so
var QuotaExceededError = errors.New("quota exceeded")

// errFull is a refusal that stands only once what has expired is removed.
var errFull = errors.New("the namespace is full")

// ---------------------------------------------------------------------------
// SQL. A namespace is what stands before the first colon of a group's name. Each has a
// row with the number of its keys, and of the groups that these are in.

const createCountsSQL = `CREATE TABLE entries_counts (
	name   TEXT PRIMARY KEY,
	keys   INTEGER NOT NULL,
	groups INTEGER NOT NULL
) WITHOUT ROWID`

// createQuotasSQL sets the quotas up in a file, or again where something of it is gone. A
// key that gets another name in its group changes no count, but would look like the first
// of a new group.
var createQuotasSQL = []string{
	`DROP TRIGGER IF EXISTS entries_count_insert`,
	`DROP TRIGGER IF EXISTS entries_count_delete`,
	`DROP TRIGGER IF EXISTS entries_count_update_old`,
	`DROP TRIGGER IF EXISTS entries_count_update_new`,
	`DROP TABLE IF EXISTS entries_counts`,
	createCountsSQL,
	`INSERT INTO entries_counts (name, keys, groups)
	SELECT ` + namespaceOf("group_name") + `, sum(keys), count(*) FROM (
		SELECT group_name, count(*) AS keys FROM entries WHERE ` + isCounted("") + ` GROUP BY group_name
	) GROUP BY 1`,
	`CREATE TRIGGER entries_count_insert AFTER INSERT ON entries
	WHEN ` + isCounted("new.") + countNewSQL,
	`CREATE TRIGGER entries_count_delete AFTER DELETE ON entries
	WHEN ` + isCounted("old.") + countOldSQL,
	`CREATE TRIGGER entries_count_update_old AFTER UPDATE OF group_name, entry_key ON entries
	WHEN ` + isCounted("old.") + ` AND NOT (new.group_name IS old.group_name AND ` + isCounted("new.") + `)` + countOldSQL,
	`CREATE TRIGGER entries_count_update_new AFTER UPDATE OF group_name, entry_key ON entries
	WHEN ` + isCounted("new.") + ` AND NOT (new.group_name IS old.group_name AND ` + isCounted("old.") + `)` + countNewSQL,
}

var (
	countNewSQL = ` BEGIN
	INSERT INTO entries_counts (name, keys, groups) VALUES (` + namespaceOf("new.group_name") + `, 1, 1)
	ON CONFLICT (name) DO UPDATE SET keys = keys + 1, groups = groups + NOT EXISTS (
		SELECT 1 FROM entries WHERE group_name = new.group_name AND entry_key < x'' AND entry_key <> new.entry_key);
END`
	countOldSQL = ` BEGIN
	UPDATE entries_counts SET keys = keys - 1, groups = groups - NOT EXISTS (
		SELECT 1 FROM entries WHERE group_name = old.group_name AND entry_key < x'')
	WHERE name = ` + namespaceOf("old.group_name") + `;
	DELETE FROM entries_counts WHERE name = ` + namespaceOf("old.group_name") + ` AND keys <= 0;
END`
)

// namespaceOf cuts bytes, not characters, which a name that is no UTF-8 makes SQLite
// miscount.
func namespaceOf(group string) string {
	blob := `CAST(` + group + ` AS BLOB)`
	return `CAST(substr(` + blob + `, 1, instr(` + blob + `, x'3a') - 1) AS TEXT)`
}

// isCounted is false, not NULL, for a row whose group or key is NULL.
func isCounted(row string) string {
	return `(instr(` + row + `group_name, ':') AND ` + row + `group_name < x'' AND ` + row + `entry_key < x'') IS TRUE`
}

// One row when the file counts its keys.
const existsQuotasSQL = `SELECT count(*) FROM sqlite_schema WHERE (type, name) IN (VALUES ('table', 'entries_counts'),
	('trigger', 'entries_count_insert'), ('trigger', 'entries_count_delete'),
	('trigger', 'entries_count_update_old'), ('trigger', 'entries_count_update_new')) HAVING count(*) = 5`

// One row when another program's table or view has the name of the counts.
const existsForeignCountsSQL = `SELECT 1 FROM sqlite_schema
WHERE name = 'entries_counts' COLLATE NOCASE AND type <> 'trigger' AND sql IS NOT ?`

const selectCountsSQL = `SELECT CAST(ifnull(keys, 0) AS INTEGER) AS k, CAST(ifnull(groups, 0) AS INTEGER) AS g FROM entries_counts WHERE name = ?`

// Whether one of a group's first keys is alive. There may be any number behind expired ones:
// those have to be removed first.
const existsGroupSoonSQL = `SELECT 1 FROM (
	SELECT expires_at AS e FROM entries WHERE group_name = ? AND entry_key < x'' LIMIT 100
) WHERE e IS NULL OR e > ? LIMIT 1`

const existsEntrySQL = `SELECT 1 FROM entries
WHERE group_name = ? AND entry_key = ? AND (expires_at IS NULL OR expires_at > ?)`

// ---------------------------------------------------------------------------
// Namespaces.

// ScopedStore is the part of a [Store] whose groups belong to one namespace: the store's
// group "tenant-a:config" is the group "config" of the namespace "tenant-a". [NewScoped]
// and [NewScopedWithQuota] make one. It has the read and write methods of Store, which
// say what they do, with these differences: group names are given and returned without
// the namespace, CountAll and PurgeExpired cover the namespace alone, and Set and
// SetWithTTL keep to its quota. Events and errors have the full group names.
type ScopedStore struct {
	store     *Store
	namespace string
	quota     *quota // nil if it has no limit
}

// QuotaConfig has the limits of a namespace. Zero means unlimited.
//
//	quota := store.QuotaConfig{MaxKeys: 100, MaxGroups: 10}
type QuotaConfig struct {
	MaxKeys   int // keys that have not expired, in all groups together
	MaxGroups int // groups with at least one such key
}

var namespacePattern = regexp.MustCompile(`^[a-zA-Z0-9-]+$`)

// NewScoped returns the part of storeInstance that belongs to namespace, a name of one or
// more ASCII letters, digits and hyphens. It does not touch the disk, and fails only for
// any other name and for a nil store.
//
//	tenant, err := store.NewScoped(storeInstance, "tenant-a")
func NewScoped(storeInstance *Store, namespace string) (*ScopedStore, error) {
	return newScoped("NewScoped", storeInstance, namespace, QuotaConfig{})
}

// NewScopedWithQuota is [NewScoped] with limits. Writing a new key beyond them, through any
// ScopedStore with these limits, in any process, fails with an error that wraps
// [QuotaExceededError] and names the limit, but only after all that has expired in the file
// has been removed, which takes as long as [Store.PurgeExpired]. Overwriting a key that has
// not expired always works. Writes that bypass the scope are not refused, but count. Scopes
// of one namespace with different limits share the count, and each keeps to its own limits.
//
//	tenant, err := store.NewScopedWithQuota(storeInstance, "tenant-a",
//		store.QuotaConfig{MaxKeys: 100, MaxGroups: 10})
//
// A file's first quota counts its keys once and adds a table and triggers that keep
// count from then on; afterwards the function only reads, and may be called for every
// request. It fails where NewScoped or a write would, for a negative limit, and if another
// program has a table or view with the name of the store's, "entries_counts".
// What another program does with INSERT, UPDATE and DELETE is counted too, but not what
// its OR REPLACE, or ON CONFLICT REPLACE in its definition of the table, displaces. To
// have a file counted again, remove a trigger with `DROP TRIGGER entries_count_insert` in
// the sqlite3 shell and call NewScopedWithQuota.
func NewScopedWithQuota(storeInstance *Store, namespace string, quota QuotaConfig) (*ScopedStore, error) {
	return newScoped("NewScopedWithQuota", storeInstance, namespace, quota)
}

func newScoped(function string, storeInstance *Store, namespace string, limits QuotaConfig) (*ScopedStore, error) {
	switch {
	case storeInstance == nil:
		return nil, fmt.Errorf("store.%s: invalid store: nil", function)
	case !namespacePattern.MatchString(namespace):
		return nil, fmt.Errorf("store.%s: namespace %q is invalid, it has to match %s", function, groupName(namespace), namespacePattern)
	case limits.MaxKeys < 0 || limits.MaxGroups < 0:
		return nil, fmt.Errorf("store.%s: invalid quota: a limit of %+v is negative", function, limits)
	}
	scoped := &ScopedStore{store: storeInstance, namespace: namespace}
	if limits == (QuotaConfig{}) {
		return scoped, nil
	}
	if err := storeInstance.setUpQuotas(); err != nil {
		return nil, failure(function, groupName(namespace), err)
	}
	scoped.quota = &quota{namespace, limits}
	return scoped, nil
}

// Namespace returns the namespace, "tenant-a" for instance.
func (scopedStore *ScopedStore) Namespace() string { return scopedStore.namespace }

// full is the store's name of a group.
func (scopedStore *ScopedStore) full(group string) string {
	if len(group) > maximumLength {
		return group // to be refused, not copied
	}
	return scopedStore.namespace + ":" + group
}

// Get is [Store.Get] in the namespace.
func (scopedStore *ScopedStore) Get(group, key string) (string, error) {
	return scopedStore.store.Get(scopedStore.full(group), key)
}

// GetSplit is [Store.GetSplit] in the namespace.
func (scopedStore *ScopedStore) GetSplit(group, key, separator string) (iter.Seq[string], error) {
	return scopedStore.store.GetSplit(scopedStore.full(group), key, separator)
}

// GetFields is [Store.GetFields] in the namespace.
func (scopedStore *ScopedStore) GetFields(group, key string) (iter.Seq[string], error) {
	return scopedStore.store.GetFields(scopedStore.full(group), key)
}

// Count is [Store.Count] in the namespace.
func (scopedStore *ScopedStore) Count(group string) (int, error) {
	return scopedStore.store.Count(scopedStore.full(group))
}

// CountAll is [Store.CountAll] in the namespace: the empty prefix means all its groups.
func (scopedStore *ScopedStore) CountAll(groupPrefix string) (int, error) {
	return scopedStore.store.CountAll(scopedStore.full(groupPrefix))
}

// GetAll is [Store.GetAll] in the namespace.
func (scopedStore *ScopedStore) GetAll(group string) (map[string]string, error) {
	return scopedStore.store.GetAll(scopedStore.full(group))
}

// Render is [Store.Render] in the namespace.
func (scopedStore *ScopedStore) Render(templateSource, group string) (string, error) {
	return scopedStore.store.Render(templateSource, scopedStore.full(group))
}

// All is [Store.All] in the namespace.
func (scopedStore *ScopedStore) All(group string) iter.Seq2[KeyValue, error] {
	return scopedStore.store.All(scopedStore.full(group))
}

// Groups is [Store.Groups] in the namespace. The names come without it.
func (scopedStore *ScopedStore) Groups(groupPrefix string) ([]string, error) {
	return scopedStore.store.groups(scopedStore.full(groupPrefix), len(scopedStore.full("")))
}

// GroupsSeq is [Store.GroupsSeq] in the namespace. The names come without it.
func (scopedStore *ScopedStore) GroupsSeq(groupPrefix string) iter.Seq2[string, error] {
	return scopedStore.store.groupNames("GroupsSeq", scopedStore.full(groupPrefix), len(scopedStore.full("")))
}

// Set is [Store.Set] in the namespace. The error wraps [QuotaExceededError], and nothing
// is written, if the key is new and the namespace full.
func (scopedStore *ScopedStore) Set(group, key, value string) error {
	return scopedStore.store.set("Set", scopedStore.full(group), key, value, nil, scopedStore.quota)
}

// SetWithTTL is [Store.SetWithTTL] in the namespace, with the errors of [ScopedStore.Set].
func (scopedStore *ScopedStore) SetWithTTL(group, key, value string, ttl time.Duration) error {
	expires := expiry(time.Now(), ttl)
	return scopedStore.store.set("SetWithTTL", scopedStore.full(group), key, value, expires, scopedStore.quota)
}

// Delete is [Store.Delete] in the namespace.
func (scopedStore *ScopedStore) Delete(group, key string) error {
	return scopedStore.store.Delete(scopedStore.full(group), key)
}

// DeleteGroup is [Store.DeleteGroup] in the namespace.
func (scopedStore *ScopedStore) DeleteGroup(group string) error {
	return scopedStore.store.DeleteGroup(scopedStore.full(group))
}

// PurgeExpired is [Store.PurgeExpired] in the namespace.
func (scopedStore *ScopedStore) PurgeExpired() (int64, error) {
	return scopedStore.store.purge(withPrefix(scopedStore.full("")))
}

// ---------------------------------------------------------------------------
// Quotas.

// quota is the limits of one namespace.
type quota struct {
	namespace string
	limits    QuotaConfig
}

// setUpQuotas makes sure that the file counts its keys. Nothing remembers that it does:
// another program may have taken a trigger away.
func (store *Store) setUpQuotas() error {
	var complete bool
	check := func(c *connection) (err error) {
		complete, err = c.exists(existsQuotasSQL)
		return err
	}
	if err := store.reads.do(&call{run: check}); err != nil || complete {
		return err
	}
	return store.writes.do(&call{whole: true, flush: true, run: func(c *connection) error {
		if err := check(c); err != nil || complete {
			return err
		}
		foreign, err := c.exists(existsForeignCountsSQL, createCountsSQL)
		if err != nil {
			return err
		}
		if foreign {
			return errors.New("what is called entries_counts there is not a store's table")
		}
		for _, create := range createQuotasSQL {
			if _, err := c.exec(create); err != nil {
				return err
			}
		}
		return nil
	}})
}

// set writes an entry if it fits. The counts include what has expired, so that errFull
// is no final word.
func (quota *quota) set(c *connection, event *Event, expires any) (refusal, err error) {
	limit, err := quota.exceeded(c, event, time.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	if limit != "" {
		return errFull, nil
	}
	return upsert(c, event, expires)
}

// makeRoomAndSet removes a batch of what has expired, whose namespaces do not matter
// since nobody can see it, and tries again. Only when nothing expired is left does a
// refusal stand.
func (quota *quota) makeRoomAndSet(c *connection, event *Event, expires any) (refusal, err error) {
	// Now that nobody else writes: what another one wrote just before may have expired since.
	search := expiredSince(time.Now(), groupRange{})
	if err := search.find(c); err != nil {
		return nil, err
	}
	slices.Sort(search.rows)
	removed, rest, err := search.remove(c, search.rows)
	if err != nil {
		return nil, err
	}
	limit, err := quota.exceeded(c, event, search.now)
	switch {
	case err != nil:
		return nil, err
	case limit == "":
		return upsert(c, event, expires)
	case (search.more || len(rest) > 0) && removed > 0: // else another program's trigger keeps what has expired
		return errFull, nil
	}
	return fmt.Errorf("%w: namespace %s is at its %s", QuotaExceededError, quota.namespace, limit), nil
}

// exceeded returns the limit that the entry of an event would exceed, by the counts, or
// "" if it fits.
func (quota *quota) exceeded(c *connection, event *Event, now int64) (limit string, err error) {
	var keys, groups int64
	err = c.query(selectCountsSQL, func(row []driver.Value) bool {
		keys, groups = row[0].(int64), row[1].(int64)
		return true
	}, quota.namespace)
	if err != nil {
		return "", err
	}
	var present bool // what makes the entry no further key, or its group no further group
	switch limits := quota.limits; {
	case limits.MaxKeys > 0 && keys >= int64(limits.MaxKeys):
		limit = fmt.Sprintf("MaxKeys of %d", limits.MaxKeys)
		present, err = c.exists(existsEntrySQL, event.Group, event.Key, now)
	case limits.MaxGroups > 0 && groups >= int64(limits.MaxGroups):
		limit = fmt.Sprintf("MaxGroups of %d", limits.MaxGroups)
		if present, err = c.exists(existsEntrySQL, event.Group, event.Key, now); err == nil && !present {
			present, err = c.exists(existsGroupSoonSQL, event.Group, now)
		}
	}
	if present {
		limit = ""
	}
	return limit, err
}
