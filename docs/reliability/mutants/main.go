// Mutants breaks the store, one promise at a time, in a copy of the repository, and
// checks that the test which guards the promise fails. It prints a table in Markdown and
// exits with status 1 if a mutant survives. It is run from the root of the repository.
//
//	go run ./docs/reliability/mutants [-only TEXT]
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

type mutant struct {
	what        string // what is broken
	file        string
	before, now string // before occurs exactly once in the file
	test        string
}

var mutants = []mutant{
	{"a write is acknowledged without a flush", "store.go", "err := flusher.log.Sync()", "err := error(nil)", "TestStore_WriteFailsWhenItsFlushFails"},
	{"the flush comes before the commit", "store.go", "\terr := lane.store.connection.use(func() error {\n\t\tlane.take(own)\n\t\tlane.runCalls()",
		"\tif lane.writes {\n\t\t_ = lane.store.flushing.flush()\n\t}\n\terr := lane.store.connection.use(func() error {\n\t\tlane.take(own)\n\t\tlane.runCalls()\n\t\tif lane.writes {\n\t\t\tfor _, each := range lane.round {\n\t\t\t\teach.flush = false\n\t\t\t}\n\t\t}", "TestFlush_BeginsAfterThePagesAndEndsBeforeAnybodyKnows"},
	{"the flush holds the connection", "store.go", "\t\tlane.runCalls()\n\t\tfor _, each := range lane.round {\n", "\t\tlane.runCalls()\n\t\tif lane.writes {\n\t\t\t_ = lane.store.flushing.flush()\n\t\t\tfor _, each := range lane.round {\n\t\t\t\teach.flush = false\n\t\t\t}\n\t\t}\n\t\tfor _, each := range lane.round {\n", "TestStore_ReadsDoNotWaitForTheDisk"},
	{"writes go on after a failed flush", "store.go", "flusher.failed.Store(true)", "flusher.failed.Store(false)", "TestStore_FailedFlushEndsWritingUntilReopened"},
	{"a failed flush fails one of those who shared it", "store.go", "\t\t\t\t\teach.err = err\n\t\t\t\t}\n", "\t\t\t\t\teach.err = err\n\t\t\t\t\tbreak\n\t\t\t\t}\n", "TestStore_FailedFlushFailsEveryWriteThatSharedIt"},
	{"the log is merged as it is after a failed flush", "store.go", "if !flusher.failed.Load() && (c.logged() == 0 || flusher.flush() == nil) {", "if true {", "TestIOError_DeviceFails"},
	{"Close merges what was never flushed", "store.go", "if !flusher.failed.Load() && (c.logged() == 0 || flusher.flush() == nil) {", "if !flusher.failed.Load() {", "TestStore_Close_FlushesWhatWasCommittedWithoutAFlush"},
	{"the name of the log is not flushed", "store.go", "if err = directory.Sync(); err == nil {", "if err == nil {", "TestFlush_IncludesTheNameOfTheLog"},
	{"SQLite does not flush before it checkpoints", "store.go", "PRAGMA synchronous = NORMAL", "PRAGMA synchronous = OFF", "TestPowerLoss_NothingAcknowledgedIsLost|TestNew_OwnSettingsWinOverTheURI"},
	{"F_FULLFSYNC is not asked for", "store.go", "PRAGMA fullfsync = 1", "PRAGMA fullfsync = 0", "TestNew_OwnSettingsWinOverTheURI"},
	{"the log is never cut back", "store.go", "PRAGMA journal_size_limit = 4194304", "PRAGMA journal_size_limit = -1", "TestStore_LogIsCutBackTo4MiB"},
	{"a shared transaction that failed is not tried again", "store.go", "if err == nil || isBusy(err) {\n\t\t\tlane.finish(err)", "if true {\n\t\t\tlane.finish(err)", "TestStore_FailingWriteInASharedCommitFailsAlone"},
	{"a failed call of a shared transaction is left out, the rest committed", "store.go", "if err := each.run(c); err != nil {\n\t\t\t\t\treturn err", "if err := each.run(c); err != nil {\n\t\t\t\t\tcontinue", "TestStore_F.*"},
	{"writes do not share commits", "store.go", "roundCalls = 256", "roundCalls = 1", "TestStore_ConcurrentWritesShareCommits"},
	{"a busy write fails at once", "store.go", "again := isBusy(each.err) && lane.waitedLocked() < each.limit;", "again := false;", "TestStore_WriteWaitsFiveSecondsForAnotherProcess"},
	{"a busy write waits for ever", "store.go", "again := isBusy(each.err) && lane.waitedLocked() < each.limit;", "again := isBusy(each.err);", "TestStore_WriteWaitsFiveSecondsForAnotherProcess"},
	{"texts are read as times", "store.go", "} else if read != moment {", "} else if read == moment+moment {", "TestNew_RefusesToReadTextsAsTimes"},
	{"SQLite waits, inside the connection", "store.go", "PRAGMA busy_timeout = 0", "PRAGMA busy_timeout = 5000", "TestNew_OwnSettingsWinOverTheURI"},
	{"what reads before it writes begins as a reader", "store.go", `begin: "BEGIN IMMEDIATE", writes`, `begin: "BEGIN", writes`, "TestStore_WhatReadsBeforeItWritesHoldsTheLock"},
	{"a new file is readable by all", "store.go", "os.O_EXCL, 0o600)", "os.O_EXCL, 0o644)", "TestNew_FilesAreForTheirOwnerAlone"},
	{"the file is opened and closed beside SQLite", "store.go", "\tstore.purging.Go(store.purgeRegularly)", "\tif file, err := os.Open(databasePath); err == nil {\n\t\tfile.Close()\n\t}\n\tstore.purging.Go(store.purgeRegularly)", "TestNew_DropsNoLockOfAnOpenStore"},
	{"a New by a URI does not wait for one that is creating the file", "store.go", "\tcreating.RLock()\n\topened, err := connect(dataSource)\n\tcreating.RUnlock()\n", "\topened, err := connect(dataSource)\n", "TestProcesses_CreatingDropsNoLock"},
	{"a leftover -shm of a new file keeps its mode", "store.go", `os.Chmod(absolute+"-shm", 0o600)`, `os.Chmod(absolute+"-shm", 0o666)`, "TestNew_WhatARemovedStoreLeftBecomesPrivate"},
	{"New follows a link in the place of its -shm", "store.go", "if !found.Mode().IsRegular() {\n\t\t\treturn errors.New(\"the -shm", "if found == nil {\n\t\t\treturn errors.New(\"the -shm", "TestNew_FollowsNothingThatIsInThePlaceOfItsFiles"},
	{"New looks at the directory after it has written", "store.go", `if err == nil && c.databaseFile != "" {`, "if false {", "TestNew_WithoutPermissionNamesThePathAndCreatesNothing"},
	{"a directory whose names cannot be flushed is accepted", "store.go", "\tdirectory, err := os.Open(path)\n\tif err != nil {", "\tdirectory, err := os.Open(path)\n\tif err != nil {\n\t\treturn nil\n\t}\n\tif err != nil {", "TestNew_WithoutPermissionNamesThePathAndCreatesNothing"},
	{"another program's table is taken for ours", "store.go", "} else if !holds {", "} else if !holds && false {", "TestNew_RefusesAnotherTable"},
	{"a UNIQUE index of another program is overlooked", "store.go", "createEntriesSQL || constrained {", "createEntriesSQL || constrained && false {", "TestNew_RefusesAUniqueIndex"},
	{"a collation of another program's table is overlooked", "store.go", "[]string{selectShapeSQL, selectBinarySQL}", "[]string{selectShapeSQL}", "TestNew_RefusesAnotherTable"},
	{"another program's table of that name is replaced by the counts", "scope.go", "\t\tif foreign {\n", "\t\tif foreign && false {\n", "TestNewScopedWithQuota_LeavesWhatIsAnotherProgramsAlone"},
	{"another program's trigger is taken for the table of the counts", "scope.go", "WHERE (type, name) IN", "WHERE (iif(name = 'entries_counts', 'table', type), name) IN", "TestNewScopedWithQuota_TakesNoTriggerForTheTableOfTheCounts"},
	{"an entry ends up to a millisecond early", "store.go", "now.Add(ttl).Add(time.Millisecond - 1).UnixMilli()", "now.Add(ttl).UnixMilli()", "TestStore_SetWithTTL_IsNeverShorter"},
	{"a ttl of zero lives for the rest of a millisecond", "store.go", "if ttl <= 0 {", "if ttl < 0 {", "TestStore_SetWithTTL_ZeroIsExpired"},
	{"an expired entry is read", "store.go", "if now := time.Now().UnixMilli(); expired(read.expires, now) {", "if now := time.Now().UnixMilli(); false {", "TestStore_SetWithTTL_.*"},
	{"a count or a snapshot shows what never lived", "store.go", `if _, err := c.exists("SELECT 1 FROM entries LIMIT 1"); err != nil {`, "if false {\n\t\t\tvar err error", "TestProcesses_ReadsShowNothingThatNeverLived"},
	{"a GetAll that begins anew keeps what it had read", "store.go", "\t\tentries = make(map[string]string)\n", "\t\tif entries == nil {\n\t\t\tentries = make(map[string]string)\n\t\t}\n", "TestStore_GetAll_BeginsAnewAfterASharedTransactionThatFailed"},
	{"the lazy delete removes what has been written since", "store.go", "entry_key = ?2 AND expires_at <= ?3`", "entry_key = ?2 AND ?3`", "TestStore_Get_DeletesNothingThatIsAlive"},
	{"a purge is one batch", "store.go", "purgeBatch  = 2_500", "purgeBatch  = 3_000_000", "TestStore_PurgeExpired_CommitsInBatches"},
	{"a purge lets SQLite merge the log with a batch", "store.go", "purgeCheckpointSize = 400", "purgeCheckpointSize = 4_000", "TestStore_PurgeExpired_LetsNoBatchMergeTheLog"},
	{"a purge merges what others left with its first batch", "store.go", "due := true //", "due := false //", "TestStore_PurgeExpired_LetsNoBatchMergeTheLog"},
	{"a purge merges the log with its batch", "store.go", "due = c.logged() > purgeCheckpointSize", "if due = false; c.logged() > purgeCheckpointSize {\n\t\t\t\t\t_ = c.checkpoint()\n\t\t\t\t}", "TestStore_PurgeExpired_MergesTheLogInItsOwnRound"},
	{"a purge ends where the log cannot be merged", "store.go", "purgeCheckpointSize && c.checkpoint() != nil\n", "purgeCheckpointSize && c.checkpoint() != nil\n\t\tif checkpoint.flush {\n\t\t\treturn errors.New(\"not merged\")\n\t\t}\n", "TestStore_PurgeExpired_WithoutMerging"},
	{"the purge runs once", "store.go", "_, _ = store.purge(groupRange{}) //", "_, _ = store.purge(groupRange{})\n\t\t\tticker.Stop() //", "TestStore_BackgroundPurge_.*"},
	{"a purge looks at what lies between", "store.go", "<= purgeGap {", "<= 1<<40 {", "TestStore_PurgeExpired_CostIsThatOfTheExpiredAlone"},
	{"the least of all rows is never purged", "store.go", "row: math.Inf(-1), more", "row: int64(math.MinInt64), more", "TestStore_PurgeExpired_OddRowsOfOtherPrograms"},
	{"a purge looks at every entry", "store.go", "\tjournalMode, err := c.text", "\tdefer c.exec(\"DROP INDEX entries_expires_at\")\n\tjournalMode, err := c.text", "TestStore_PurgeExpired_CostFollowsWhatHasExpired"},
	{"a batch also removes all that expires at the same time as its last row", "store.go", "(+expires_at < ?3 OR (+expires_at = ?3 AND rowid <= ?4))", "(+expires_at <= ?3 OR ?4 IS NULL)", "TestScopedStore_Set_MakesRoomInBoundedBatches"},
	{"a write shares its round with a batch", "store.go", "&& !lane.calls[count].alone {", "{", "TestScopedStore_Set_NobodyWaitsForTwoBatches"},
	{"a batch shares its transaction", "store.go", "for !own.alone && count", "for count", "TestScopedStore_Set_NobodyWaitsForTwoBatches"},
	{"batches wait in the lane one behind the other", "store.go", "lane.alone <- struct{}{}\n\t\tdefer func() { <-lane.alone }()", "_ = own", "TestScopedStore_Set_NobodyWaitsForTwoBatches"},
	{"a batch frees any number of pages", "store.go", "purgeSize   = 16 << 20", "purgeSize   = 16 << 30", "TestStore_PurgeExpired_LargeValuesEndABatch"},
	{"a round of reads is bounded as one of writes is", "store.go", "if lane.writes {\n\t\tmost", "if true {\n\t\tmost", "TestStore_PurgeExpired_NobodyReadsBehindTwoBatches"},
	{"a lazy delete writes behind a failed flush", "store.go", "if !read.store.flushing.failed.Load() {", "if true {", "TestStore_FailedFlushEndsWritingUntilReopened"},
	{"a lazy delete makes SQLite merge the log", "store.go", `"PRAGMA wal_autocheckpoint = 0"`, `"SELECT 1"`, "TestStore_Get_HasNoLogMerged.*"},
	{"a lazy delete makes a long log longer", "store.go", "if c.logged() > lazyMost {", "if false {", "TestStore_Get_LeavesALongLog"},
	{"room is made by an earlier time than the write's own", "scope.go", "expiredSince(time.Now(), groupRange{})", "expiredSince(time.Now().Add(-time.Millisecond), groupRange{})", "TestScopedStore_Set_NeverRefusedForWhatOthersLetExpire"},
	{"a call is charged for a wait that began before it", "store.go", "own.limit = lane.waitedLocked() + maximumWait", "own.limit = lane.waited + maximumWait", "TestStore_WriteNeverGivesUpEarly"},
	{"a call that gives up has those behind it wait longer", "store.go", "if !isBusy(own.err) || len(lane.calls) == 0 {", "if true {", "TestStore_WriteWaitsNoLongerBesideOthers"},
	{"a batch waits as long as the leader before it", "store.go", "\t\tlane.refuse(own.err)\n", "", "TestStore_PurgeExpired_WaitsNoLongerBehindOthers"},
	{"each batch of a Set may wait as long as a Set", "store.go", "if own.limit == 0 { //", "if true { //", "TestScopedStore_Set_CountsWhatItHasWaitedForAnotherProcess"},
	{"each batch of a purge may wait as long as a purge", "store.go", "whole: true, alone: true, limit: limit, run", "whole: true, alone: true, run", "TestStore_PurgeExpired_WaitsFiveSecondsInAll"},
	{"a Get beside others leaves what has expired", "store.go", "if each.after != nil && each.err == nil {", "if each.after != nil && each.err == nil && lane.followers == 0 {", "TestStore_Get_RemovesAllThatHasExpired"},
	{"a purge counts what was rolled back", "store.go", "count, rest, err = search.remove(c, rows)\n", "count, rest, err = search.remove(c, rows)\n\t\t\t\tremoved, count = removed+count, 0\n", "TestStore_PurgeExpired_CountsWhatIsGoneWhenItFails"},
	{"a stream skips the key behind a page", "store.go", `return name + "\x00" }`, `return name + "\x01" }`, "TestStore_Streams_.*"},
	{"the end of a prefix's range overflows at a byte of 255", "store.go", "for last >= 0 && prefix[last] == 0xff {", "for false {", "TestStore_Prefixes_MatchLiterally"},
	{"lengths are not checked", "store.go", "ok && len(value) > maximumLength {", "ok && len(value) < 0 {", "TestStore_LongTextIsRefused"},
	{"Render quotes what it found", "store.go", `place, _, found := strings.Cut(err.Error(), ">: ")`, `place, found := err.Error(), true`, "TestStore_Render_QuotesNoValue"},
	{"a panic of the driver goes on", "store.go", "if cause := recover(); cause != nil {", "if cause := any(nil); cause != nil {", "TestStore_DriverPanicBecomesAnErrorAndEndsTheStore"},
	{"half of a write that panicked is committed", "store.go", "RegisterCommitHook(func() int32 { return 1 })", "RegisterCommitHook(nil)", "TestStore_DriverPanicLeavesNothingUncounted"},
	{"a Delete that panicked is committed", "store.go", "\t\trow := c.row[:len(rows.Columns())]\n", "\t\tdefer rows.Close()\n\t\trow := c.row[:len(rows.Columns())]\n", "TestStore_DriverPanicWritesNothing"},
	{"a store that has ended keeps its locks", "store.go", "\t\tc.letGo()\n", "", "TestStore_DriverPanicLetsGoOfTheFile"},
	{"stores that close at once leave the log to each other", "store.go", "\tlock.Lock()\n\tdefer lock.Unlock()\n", "\t_ = lock\n", "TestStore_Close_SeveralAtOnceLeaveNoLog"},
	{"Close does not wait for the writes under way", "store.go", "\t\tstore.writes.drain()\n", "", "TestStore_Close_.*"},
	{"a fault in the driver ends the process", "store.go", "debug.SetPanicOnFault(debug.SetPanicOnFault(true))", "debug.SetPanicOnFault(debug.SetPanicOnFault(false))", "TestStore_DriverFaultBecomesAnError"},
	{"Close forgets the watchers", "store.go", "\t\tstore.watchers.close()\n", "", "TestStore_Close_EndsWatchersAndKeepsTheirEvents"},
	{"a full watcher blocks the writer", "events.go", "\t\t\t\tdefault:\n", "", "TestWatcher_FullBufferDropsTheNewest"},
	{"a clock that is set back sets the events' timestamps back", "events.go", "now.After(watchers.last)", "!now.IsZero()", "TestStore_EventTimestampsWaitForAClockThatWasSetBack"},
	{"events go out of commit order", "events.go", "for _, each := range round {\n\t\tif each.event == nil", "for _, each := range slices.Backward(round) {\n\t\tif each.event == nil", "TestHistory_.*|TestStore_Watch_ReplayGivesTheStore"},
	{"a failed write emits its event", "events.go", "if each.event == nil || each.err != nil {", "if each.event == nil {", "TestStore_FailedFlushEmitsNothing"},
	{"a watcher that begins while the store closes is not ended", "events.go", "\tdefer store.watchers.mutex.Unlock()\n\tif store.closed() { //", "\tstore.watchers.mutex.Unlock()\n\tclosed := store.closed()\n\tstore.watchers.mutex.Lock()\n\tdefer store.watchers.mutex.Unlock()\n\tif closed { //", "TestStore_Close_EndsTheWatchersThatBeginMeanwhile"},
	{"callbacks run under the lock", "events.go", "\tlist := callbacks.list\n\tcallbacks.mutex.Unlock()\n", "\tlist := callbacks.list\n\tdefer callbacks.mutex.Unlock()\n", "TestStore_OnChange_UnregistersItselfAndOthersInside"},
	{"the quota is read outside the write's transaction", "store.go", "write.set, write.whole = quota.set, true", "write.set, write.whole = quota.set, false", "TestScopedStore_Set_LastKeyGoesToOneOfTwoStores"},
	{"one key more than the limit", "scope.go", "keys >= int64(limits.MaxKeys)", "keys > int64(limits.MaxKeys)", "TestScopedStore_Set_RefusedAtMaxKeys"},
	{"overwriting waits until what has expired is removed", "scope.go", "if present, err = c.exists(existsEntrySQL, event.Group, event.Key, now); err == nil && !present {", "if true {", "TestScopedStore_Set_OverwritesWhereNoRoomCanBeMade"},
	{"expired entries count", "store.go", "for err == nil && errors.Is(write.refusal, errFull) {", "for false {", "TestScopedStore_Set_ExpiredEntriesMakeRoom"},
	{"a write that cannot make room tries for ever", "scope.go", "(search.more || len(rest) > 0) && removed > 0: //", "(search.more || len(rest) > 0) && removed >= 0: //", "TestScopedStore_Set_EndsWhereATriggerKeepsWhatHasExpired"},
	{"room is not made behind large values", "scope.go", "(search.more || len(rest) > 0) && removed > 0: //", "search.more && len(rest) >= 0 && removed > 0: //", "TestScopedStore_Set_MakesRoomBehindLargeValues"},
	{"rows that another program moves elsewhere are not counted", "scope.go", "entries_count_update_new AFTER UPDATE OF group_name, entry_key", "entries_count_update_new AFTER UPDATE OF expires_at", "TestScopedStore_Set_CountsTheRowsOfOtherPrograms"},
	{"a key that is renamed counts as a further group", "scope.go", "` AND NOT (new.group_name IS old.group_name AND ` + isCounted(\"old.\") + `)` + countNewSQL", "countNewSQL", "TestScopedStore_Set_CountsTheRowsOfOtherPrograms"},
	{"a group whose last key is gone stays counted", "scope.go", "groups = groups - NOT EXISTS (", "groups = groups - 0 * NOT EXISTS (", "TestScopedStore_Set_CountsTheRowsOfOtherPrograms"},
	{"a key that was NULL is not counted when it gets a name", "scope.go", "entry_key < x'') IS TRUE`", "entry_key < x'')`", "TestScopedStore_Set_OddRowsOfOtherProgramsDoNoHarm"},
	{"a namespace sees others whose names begin with its own", "scope.go", `return scopedStore.namespace + ":" + group`, `return scopedStore.namespace + group`, "TestScopedStore_HostileNamesRoundTripAndStayApart"},
	{"a purge of a namespace purges all of them", "scope.go", "store.purge(withPrefix(scopedStore.full(\"\")))", "store.purge(groupRange{})", "TestScopedStore_PurgeExpired_ItsNamespaceAlone"},
}

var reliabilityTest = regexp.MustCompile("Test(Flush|History|IOError|PowerLoss|Processes)")

func main() {
	log.SetFlags(0)
	only := flag.String("only", "", "run only the mutants whose description contains this")
	flag.Parse()
	directory, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(directory)
	for _, mutant := range mutants { // all, so that none goes stale beside the one that is wanted
		if err := mutant.compile(directory); err != nil {
			log.Fatalf("%s: %v", mutant.what, err)
		}
	}
	survivors := 0
	fmt.Println("| what was broken | caught by |\n| --- | --- |")
	for i, mutant := range mutants {
		if !strings.Contains(mutant.what, *only) {
			continue
		}
		caught, err := mutant.run(filepath.Join(directory, fmt.Sprint(i)))
		if err != nil {
			log.Fatalf("%s: %v", mutant.what, err)
		}
		if caught == "" {
			survivors++
			caught = "**nothing**"
		}
		fmt.Printf("| %s | %s |\n", mutant.what, caught)
	}
	if survivors > 0 {
		log.Fatalf("%d mutants survive", survivors)
	}
}

// compile returns an error if the mutant no longer applies, or does not compile.
func (mutant mutant) compile(directory string) error {
	source, err := mutant.source()
	if err != nil {
		return err
	}
	original, err := filepath.Abs(mutant.file)
	if err != nil {
		return err
	}
	replaced := filepath.Join(directory, mutant.file)
	if err := os.WriteFile(replaced, source, 0o600); err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: replaced}})
	if err != nil {
		return err
	}
	overlayFile := filepath.Join(directory, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		return err
	}
	if output, err := exec.Command("go", "build", "-overlay", overlayFile, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("does not compile:\n%s", output)
	}
	return nil
}

// run tests the mutant in a copy of the repository and returns the tests that failed.
func (mutant mutant) run(copied string) (caught string, err error) {
	if err := os.CopyFS(copied, os.DirFS(".")); err != nil {
		return "", err
	}
	source, err := mutant.source()
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(copied, mutant.file), source, 0o600); err != nil {
		return "", err
	}
	packages := []string{"."}
	if reliabilityTest.MatchString(mutant.test) {
		packages = append(packages, "./docs/reliability")
	}
	arguments := []string{"test", "-count=1", "-timeout=100s", "-run", "^(" + mutant.test + ")$"}
	test := exec.Command("go", append(arguments, packages...)...)
	test.Dir = copied
	output, err := test.CombinedOutput()
	if bytes.Contains(output, []byte("[build failed]")) || bytes.Contains(output, []byte("[setup failed]")) {
		return "", fmt.Errorf("its test does not compile:\n%s", output)
	}
	if err == nil {
		return "", nil
	}
	for line := range strings.Lines(string(output)) {
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			return "`" + strings.Fields(name)[0] + "`", nil
		}
		if strings.HasPrefix(line, "panic: test timed out") {
			return "`" + strings.Split(mutant.test, "|")[0] + "`, which hangs", nil
		}
	}
	return "`" + strings.Split(mutant.test, "|")[0] + "`, which ends the process", nil
}

// source is the file as the mutant has it.
func (mutant mutant) source() ([]byte, error) {
	source, err := os.ReadFile(mutant.file)
	if err != nil {
		return nil, err
	}
	if count := bytes.Count(source, []byte(mutant.before)); count != 1 {
		return nil, fmt.Errorf("%q stands %d times in %s", mutant.before, count, mutant.file)
	}
	return bytes.Replace(source, []byte(mutant.before), []byte(mutant.now), 1), nil
}
