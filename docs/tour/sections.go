package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"maps"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"dappco.re/go/core/store"
)

const (
	// writerVariable turns this program into the writer that is killed, and names its group.
	writerVariable = "STORE_TOUR_WRITER"

	goroutines       = 16
	sampleFiles      = 1000                   // the largest files, which the later sections work on
	leastSample      = 8                      // below which names are made up
	textBytes        = 1 << 20                // the longest file that is taken for a text
	listedFiles      = 6                      // that the template shows
	rateTime         = 200 * time.Millisecond // for each rate of small writes
	sessions         = 100
	lifetime         = 250 * time.Millisecond
	changes          = 1000 // for the watchers
	acknowledgements = 2000 // after which the writer is killed
)

var seed = maphash.MakeSeed()

// show runs the sections after the load and then takes back what they wrote beside the files.
func (tour *tour) show() (err error) {
	for _, namespace := range tour.namespaces() {
		if *namespace, err = tour.free(*namespace, ":"); err != nil {
			return err
		}
	}
	if tour.scoped, err = store.NewScoped(tour.storeInstance, tour.scratch); err != nil {
		return err
	}
	for _, section := range []func() error{
		tour.groups, tour.rates, tour.stream, tour.words, tour.template,
		tour.expiry, tour.events, tour.tenants, tour.killed,
	} {
		if err = section(); err != nil {
			break
		}
	}
	if err := errors.Join(err, tour.tidy()); err != nil {
		return err
	}
	return tour.leave()
}

// load stores every file, then reads each entry and each file again and compares them.
func (tour *tour) load() error {
	var total atomic.Int64
	began := time.Now()
	err := parallel("stored", len(tour.files), func(index int) error {
		file := tour.files[index]
		content, err := os.ReadFile(file.path)
		if errors.Is(err, fs.ErrNotExist) {
			file.gone = true
			return nil
		}
		if err != nil {
			return err
		}
		file.size = len(content)
		file.digest = maphash.Bytes(seed, content)
		file.text = len(content) <= textBytes && utf8.Valid(content) && !bytes.Contains(content, []byte{0})
		total.Add(int64(file.size))
		return tour.storeInstance.Set(file.group, file.name, string(content))
	})
	storing := time.Since(began)
	if err != nil {
		return err
	}
	listed := len(tour.files)
	tour.files = slices.DeleteFunc(tour.files, func(file *file) bool { return file.gone })
	for _, file := range tour.files {
		tour.perGroup[file.group]++
	}

	began = time.Now()
	changed, err := tour.compare()
	comparing := time.Since(began)
	if err != nil {
		return err
	}

	tour.heading("A directory becomes a store",
		"storeInstance, err := store.New("+quote(tour.databasePath, 60)+")",
		"err = storeInstance.Set("+tour.example()+", content)")
	tour.say("Read %s files, %s, in %s folders, below %s.",
		number(len(tour.files)), size(total.Load()), number(len(tour.perGroup)), quote(tour.directory, 50))
	tour.say("%d goroutines stored them in %s: %s files and %s a second, group = folder,",
		goroutines, round(storing), number(perSecond(len(tour.files), storing)), size(perSecond(total.Load(), storing)))
	tour.say("key = file name, value = content, each of them on the disk before its Set returned.")
	if tour.root != "" {
		tour.say("The store held other entries, so here every group begins with %q.", tour.root)
	}
	tour.say("Read back in %s: %s of %s are equal to their files, byte for byte.",
		round(comparing), number(len(tour.files)-changed), number(len(tour.files)))
	if changed > 0 {
		tour.say("(%s changed on the disk meanwhile; the store has what was read first.)", number(changed))
	}
	if gone := listed - len(tour.files); gone > 0 {
		tour.say("(%s more were removed before they could be read.)", number(gone))
	}
	if len(tour.files) < leastSample {
		tour.say("(These are few, so some sections below make names up.)")
	}
	return nil
}

// compare returns how many files are no longer what the store rightly holds.
func (tour *tour) compare() (int, error) {
	var changed atomic.Int64
	err := parallel("compared", len(tour.files), func(index int) error {
		file := tour.files[index]
		value, err := tour.storeInstance.Get(file.group, file.name)
		if err != nil {
			return err
		}
		if maphash.String(seed, value) != file.digest {
			return fmt.Errorf("Get(%q, %q) is not what was stored", file.group, file.name)
		}
		if content, err := os.ReadFile(file.path); err != nil || string(content) != value {
			changed.Add(1)
		}
		return nil
	})
	return int(changed.Load()), err
}

// groups compares the names and the counts with those of the directory.
func (tour *tour) groups() error {
	began := time.Now()
	names, err := tour.storeInstance.Groups(tour.root)
	listing := time.Since(began)
	if err != nil {
		return err
	}
	if !slices.Equal(names, slices.Sorted(maps.Keys(tour.perGroup))) {
		return fmt.Errorf("Groups(%q) returned %d groups, which are not the %d folders", tour.root, len(names), len(tour.perGroup))
	}
	for _, name := range names {
		count, err := tour.storeInstance.Count(name)
		if err := expect(err, fmt.Sprintf("Count(%q)", name), count, tour.perGroup[name]); err != nil {
			return err
		}
	}

	prefix := tour.root + tour.busiest()
	began = time.Now()
	count, err := tour.storeInstance.CountAll(prefix)
	counting := time.Since(began)
	below := 0
	for name, files := range tour.perGroup {
		if strings.HasPrefix(name, prefix) {
			below += files
		}
	}
	if err := expect(err, fmt.Sprintf("CountAll(%q)", prefix), count, below); err != nil {
		return err
	}

	tour.heading("Groups and counts by prefix",
		fmt.Sprintf("names, err := storeInstance.Groups(%q)", tour.root),
		"count, err := storeInstance.CountAll("+quote(prefix, 50)+")")
	tour.say("%s groups, listed in %s, each with as many entries as its folder has files. The largest:",
		number(len(names)), round(listing))
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(tour.perGroup[b], tour.perGroup[a]) })
	for _, name := range names[:min(5, len(names))] {
		tour.say("%9s in %s", number(tour.perGroup[name]), quote(name, 75))
	}
	tour.say("%9s in all groups that begin with %s, counted in %s", number(count), quote(prefix, 40), round(counting))
	return nil
}

// rates compares one durable writer with several.
func (tour *tour) rates() error {
	const group = "rates"
	rate := func(writers int) (string, error) {
		var written atomic.Int64
		began := time.Now()
		err := together(writers, func() error {
			for time.Since(began) < rateTime {
				key := strconv.FormatInt(written.Add(1), 10)
				if err := tour.scoped.Set(group, key, key); err != nil {
					return err
				}
			}
			return nil
		})
		elapsed := time.Since(began)
		if err != nil {
			return "", err
		}
		count, err := tour.scoped.Count(group)
		return number(perSecond(count, elapsed)), errors.Join(expect(err, "Count of small writes", count, int(written.Load())),
			tour.scoped.DeleteGroup(group))
	}
	alone, err := rate(1)
	if err != nil {
		return err
	}
	shared, err := rate(goroutines)
	if err != nil {
		return err
	}
	tour.heading("Small writes, alone and together",
		`err = storeInstance.Set("`+tour.fullName(group)+`", "1", "1")`)
	tour.say("%s a second from 1 goroutine, %s from %d: writes that meet share a commit and its flush.",
		alone, shared, goroutines)
	return nil
}

// stream deletes the first half of an index of files while it ranges over it.
func (tour *tour) stream() error {
	const group = "by-size"
	sample := tour.sample()
	err := parallel("", len(sample), func(index int) error {
		return tour.scoped.Set(group, sample[index].sizeKey(), sample[index].name)
	})
	if err != nil {
		return err
	}
	middle := sample[len(sample)/2].sizeKey()
	streamed, deleted, last := 0, 0, ""
	began := time.Now()
	for entry, err := range tour.scoped.All(group) {
		if err != nil {
			return err
		}
		if streamed > 0 && entry.Key <= last {
			return fmt.Errorf("All(%q) yielded %q after %q", tour.fullName(group), entry.Key, last)
		}
		if entry.Key < middle {
			if err := tour.scoped.Delete(group, entry.Key); err != nil {
				return err
			}
			deleted++
		}
		streamed, last = streamed+1, entry.Key
	}
	elapsed := time.Since(began)
	count, err := tour.scoped.Count(group)
	if err := errors.Join(
		expect(err, "Count after the loop", count, len(sample)-deleted),
		expect(nil, "entries streamed", streamed, len(sample)),
		expect(nil, "entries deleted", deleted, len(sample)/2),
	); err != nil {
		return err
	}

	tour.heading("An ordered stream that deletes while it iterates",
		`for entry, err := range storeInstance.All("`+tour.fullName(group)+`") {`,
		`    err = storeInstance.Delete("`+tour.fullName(group)+`", entry.Key)`)
	tour.say("An index of the %s largest files, its keys beginning with their sizes. One loop over it met", number(len(sample)))
	tour.say("every entry once, the smallest first, and deleted %s on the way in %s (%s a second).",
		number(deleted), round(elapsed), number(perSecond(deleted, elapsed)))
	tour.say("%s are left, the last one %s", number(count), quote(last, 70))
	return nil
}

// words takes the longest text apart.
func (tour *tour) words() error {
	text := tour.longestText()
	tour.heading("Fields and splits",
		"words, err := storeInstance.GetFields("+tour.example()+")",
		"lines, err := storeInstance.GetSplit("+tour.example()+`, "\n")`)
	if text == nil {
		tour.say("There is no text of up to %s in this directory.", size(textBytes))
		return nil
	}
	value, err := tour.storeInstance.Get(text.group, text.name)
	if err != nil {
		return err
	}
	began := time.Now()
	fields, err := tour.storeInstance.GetFields(text.group, text.name)
	if err != nil {
		return err
	}
	words := slices.Collect(fields)
	elapsed := time.Since(began)
	split, err := tour.storeInstance.GetSplit(text.group, text.name, "\n")
	if err != nil {
		return err
	}
	lines := slices.Collect(split)
	if !slices.Equal(words, strings.Fields(value)) || !slices.Equal(lines, strings.Split(value, "\n")) {
		return fmt.Errorf("GetFields or GetSplit of %s differs from the strings package", text.arguments())
	}
	tour.say("The longest text, %s: %s lines, and %s fields in %s.",
		quote(text.shortPath(), 40), number(len(lines)), number(len(words)), round(elapsed))
	tour.say("The words that it has most often: %s.", frequent(words))
	return nil
}

func (tour *tour) longestText() (text *file) {
	for _, file := range tour.files {
		if file.text && (text == nil || file.size > text.size) {
			text = file
		}
	}
	return text
}

// frequent lists the three words of letters alone that come most often.
func frequent(words []string) string {
	counts := map[string]int{}
	for _, word := range words {
		if !strings.ContainsFunc(word, func(letter rune) bool { return !unicode.IsLetter(letter) }) {
			counts[word]++
		}
	}
	sorted := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
	var list []string
	for _, word := range sorted[:min(3, len(sorted))] {
		list = append(list, fmt.Sprintf("%.12s (%s)", word, number(counts[word])))
	}
	return cmp.Or(strings.Join(list, ", "), "none")
}

// template lists the folder that is nearest to listedFiles files.
func (tour *tour) template() error {
	const source = `{{range $name, $value := .}}{{printf "%9d %q\n" (len $value) $name}}{{end}}`
	group, nearest := tour.root+".", math.MaxInt
	for _, file := range tour.files {
		distance := max(tour.perGroup[file.group]-listedFiles, listedFiles-tour.perGroup[file.group])
		if distance < nearest {
			group, nearest = file.group, distance
		}
	}
	began := time.Now()
	rendered, err := tour.storeInstance.Render(source, group)
	elapsed := time.Since(began)
	var want strings.Builder
	for _, file := range tour.files { // in the order of their names, as the template has them
		if file.group == group {
			fmt.Fprintf(&want, "%9d %q\n", file.size, file.name)
		}
	}
	if err := expect(err, fmt.Sprintf("Render(…, %q)", group), rendered, want.String()); err != nil {
		return err
	}

	tour.heading("A rendered template",
		"const source = `"+source+"`",
		"listing, err := storeInstance.Render(source, "+quote(group, 45)+")")
	tour.say("%s entries as a listing, sizes and names as on the disk, in %s:", number(tour.perGroup[group]), round(elapsed))
	lines := slices.Collect(strings.Lines(rendered))
	for _, line := range lines[:min(listedFiles, len(lines))] {
		tour.say("%.90s", strings.TrimSuffix(line, "\n"))
	}
	if more := len(lines) - listedFiles; more > 0 {
		tour.say("%9s … and %s more", "", number(more))
	}
	return nil
}

// expiry looks at an entry until it has gone.
func (tour *tour) expiry() error {
	const group = "session"
	set := func(index int) error {
		return tour.scoped.SetWithTTL(group, fmt.Sprintf("token-%02d", index), "open", lifetime)
	}
	if err := parallel("", sessions-1, set); err != nil {
		return err
	}
	const last = sessions - 1
	before := wallClock()
	if err := set(last); err != nil {
		return err
	}
	after := wallClock()
	var seen, gone time.Time
	var refusal error
	for refusal == nil {
		asked := wallClock()
		_, refusal = tour.scoped.Get(group, fmt.Sprintf("token-%02d", last))
		if refusal == nil {
			seen = asked
			time.Sleep(time.Millisecond / 2)
		}
		gone = wallClock()
	}
	if !errors.Is(refusal, store.NotFoundError) {
		return refusal
	}
	if seen.After(after.Add(lifetime + time.Millisecond)) {
		return fmt.Errorf("an entry was found %s after it was set for %s", seen.Sub(after), lifetime)
	}
	if gone.Before(before.Add(lifetime)) {
		return fmt.Errorf("an entry had gone %s after it was set for %s", gone.Sub(before), lifetime)
	}
	count, err := tour.scoped.Count(group)
	if err := expect(err, "Count of expired entries", count, 0); err != nil {
		return err
	}
	purged, err := tour.scoped.PurgeExpired()
	if err != nil {
		return err
	}

	tour.heading("Entries that run out",
		fmt.Sprintf(`err = storeInstance.SetWithTTL("%s", "token-%d", "open", %d*time.Millisecond)`,
			tour.fullName(group), last, lifetime.Milliseconds()),
		"if errors.Is(err, store.NotFoundError) { … }")
	if !seen.IsZero() {
		tour.say("Set for %s, found by Get as late as %s after the call,", lifetime, round(seen.Sub(before)))
	}
	tour.say("and gone after %s: %s", round(gone.Sub(before)), quote(refusal.Error(), 60))
	tour.say("Of %d such entries Count finds %d. PurgeExpired took what was left of them, %d rows, out of", sessions, count, purged)
	tour.say("the file; without it the purge in the background does, once a minute.")
	return nil
}

// wallClock leaves the monotonic clock out, because expiry is wall-clock time.
func wallClock() time.Time { return time.Now().Round(0) }

// events has the same changes seen by a callback, by a watcher that reads and by one that does not.
func (tour *tour) events() error {
	const group = "watched"
	watched := tour.fullName(group)
	awake, asleep := tour.storeInstance.Watch(watched, "*"), tour.storeInstance.Watch(watched, "*")
	defer tour.storeInstance.Unwatch(awake)
	defer tour.storeInstance.Unwatch(asleep)
	var called atomic.Int64
	unregister := tour.storeInstance.OnChange(func(event store.Event) {
		if event.Group == watched {
			called.Add(1)
		}
	})
	defer unregister()
	drained := make(chan sighting, 1)
	go func() { drained <- drain(awake) }()

	keys := tour.sample()[:leastSample]
	err := parallel("", changes, func(index int) error {
		return tour.scoped.Set(group, keys[index%len(keys)].shortPath(), strconv.Itoa(index))
	})
	if err != nil {
		return err
	}
	values, err := tour.scoped.GetAll(group)
	if err := errors.Join(err, tour.scoped.DeleteGroup(group)); err != nil {
		return err
	}
	tour.storeInstance.Unwatch(awake)
	tour.storeInstance.Unwatch(asleep)
	reader, sleeper := <-drained, drain(asleep)
	if err := errors.Join(
		expect(nil, "events of the callback", int(called.Load()), changes+1),
		expect(nil, "events of the watcher that slept", len(sleeper.events), cap(asleep.Events)),
		expect(nil, "its notice of a loss", sleeper.mayHaveLost, true),
	); err != nil {
		return err
	}
	readerSaw := "its buffer was full once, so it must read the store again"
	if !reader.mayHaveLost {
		if !reader.inOrder(values) || !slices.Equal(sleeper.events, reader.events[:len(sleeper.events)]) {
			return fmt.Errorf("the watchers of %q did not see its changes in the order of their commits", watched)
		}
		readerSaw = "in order: the last of each key is what was stored last"
	}

	tour.heading("Watchers and callbacks",
		`watcher := storeInstance.Watch("`+watched+`", "*")`,
		"unregister := storeInstance.OnChange(func(event store.Event) { … })")
	tour.say("%s writes from %d goroutines to %d keys, then one DeleteGroup:", number(changes), goroutines, len(keys))
	tour.say("%9s events in a callback, which runs in the writer and misses none", number(called.Load()))
	tour.say("%9s in a watcher that reads, %s", number(len(reader.events)), readerSaw)
	tour.say("%9s in one that slept, the first; its buffer was full, and the newest were dropped", number(len(sleeper.events)))
	tour.say("A watcher that finds len(Events) >= cap(Events)-1 after a receive must assume such a loss and")
	tour.say("read the store again. The one that slept found it so. Changes by other processes are not seen.")
	return nil
}

// sighting is what a watcher has seen.
type sighting struct {
	events      []store.Event
	mayHaveLost bool
}

// inOrder reports whether the last event of each key bears its value, with the group's end as the last.
func (seen sighting) inOrder(values map[string]string) bool {
	if len(seen.events) != changes+1 || seen.events[changes].Type != store.EventDeleteGroup {
		return false
	}
	last := map[string]string{}
	for _, event := range seen.events[:changes] {
		last[event.Key] = event.Value
	}
	return maps.Equal(last, values)
}

// drain reads until the watcher is ended.
func drain(watcher *store.Watcher) (seen sighting) {
	for event := range watcher.Events {
		if len(watcher.Events) >= cap(watcher.Events)-1 {
			seen.mayHaveLost = true
		}
		seen.events = append(seen.events, event)
	}
	return seen
}

// tenants has two namespaces store the same entries, one of them with room for half.
func (tour *tour) tenants() error {
	const group = "files"
	sample := tour.sample()
	limit := len(sample) / 2
	north, err := store.NewScopedWithQuota(tour.storeInstance, tour.north, store.QuotaConfig{MaxKeys: limit})
	if err != nil {
		return err
	}
	south, err := store.NewScoped(tour.storeInstance, tour.south)
	if err != nil {
		return err
	}
	var refused atomic.Int64
	var refusal atomic.Value
	began := time.Now()
	err = parallel("", len(sample), func(index int) error {
		key, value := sample[index].sizeKey(), sample[index].name
		if err := south.Set(group, key, value); err != nil {
			return err
		}
		err := north.Set(group, key, value)
		if errors.Is(err, store.QuotaExceededError) {
			refused.Add(1)
			refusal.Store(err)
			return nil
		}
		return err
	})
	elapsed := time.Since(began)
	if err != nil {
		return err
	}
	inNorth, err := north.GetAll(group)
	if err != nil {
		return err
	}
	for key, value := range inNorth {
		if err := north.Set(group, key, value); err != nil {
			return err
		}
		break
	}
	names, err := north.Groups("")
	inSouth, southErr := south.CountAll("")
	if err := errors.Join(
		expect(err, "groups of the tenant in the north", strings.Join(names, " "), group),
		expect(nil, "its entries", len(inNorth), limit),
		expect(nil, "its refusals", int(refused.Load()), len(sample)-limit),
		expect(southErr, "entries of the tenant in the south", inSouth, len(sample)),
	); err != nil {
		return err
	}

	tour.heading("Two tenants, one with a quota",
		fmt.Sprintf("quota := store.QuotaConfig{MaxKeys: %d}", limit),
		fmt.Sprintf("north, err := store.NewScopedWithQuota(storeInstance, %q, quota)", tour.north))
	tour.say("%d goroutines stored %s entries in each in %s.", goroutines, number(len(sample)), round(elapsed))
	tour.say("%9s are in the south, which store.NewScoped made without a limit", number(inSouth))
	tour.say("%9s are in the north, exactly its limit; it sees its own group alone: %q", number(len(inNorth)), names)
	tour.say("%9s were refused there: %s", number(refused.Load()), quote(refusal.Load().(error).Error(), 64))
	tour.say("Overwriting one of those in the full namespace was allowed.")
	return nil
}

// killed has another process write, kills it, and looks for all that it acknowledged.
func (tour *tour) killed() error {
	group := tour.fullName("killed")
	if err := tour.storeInstance.Close(); err != nil {
		return err
	}
	acknowledged, state, err := tour.killWriter(group)
	if err != nil {
		return err
	}
	began := time.Now()
	if tour.storeInstance, err = store.New(tour.databasePath); err != nil {
		return err
	}
	opening := time.Since(began)
	if tour.scoped, err = store.NewScoped(tour.storeInstance, tour.scratch); err != nil {
		return err
	}
	found, err := tour.storeInstance.GetAll(group)
	if err != nil {
		return err
	}
	for _, key := range acknowledged {
		if _, ok := found[key]; !ok {
			return fmt.Errorf("%q, %q was acknowledged and is lost", group, key)
		}
	}
	for key, value := range found {
		if value != writerValue(key) {
			return fmt.Errorf("%q, %q is torn", group, key)
		}
	}
	unreported := len(found) - len(acknowledged)
	if unreported > goroutines {
		return fmt.Errorf("%d goroutines left %d entries in %q that they did not report", goroutines, unreported, group)
	}

	tour.heading("A writer killed in the middle",
		"err = storeInstance.Close()",
		"storeInstance, err = store.New("+quote(tour.databasePath, 60)+")")
	tour.say("Another process opened the file, wrote from %d goroutines and reported each Set that returned.", goroutines)
	tour.say("It ended with %q in the middle. After opening the file again, in %s:", state, round(opening))
	tour.say("%9s of %s reported writes are there, none lost, none torn", number(len(acknowledged)), number(len(acknowledged)))
	tour.say("%9s more are there that it had no time to report", number(unreported))
	return nil
}

// killWriter returns what the writer reported, all of it, and how it ended.
func (tour *tour) killWriter(group string) (acknowledged []string, state string, err error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	var complaint strings.Builder
	writer := exec.Command(executable, tour.databasePath)
	writer.Env = append(os.Environ(), writerVariable+"="+group)
	writer.Stderr = &complaint
	output, err := writer.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := writer.Start(); err != nil {
		return nil, "", err
	}
	for lines := bufio.NewScanner(output); lines.Scan(); {
		acknowledged = append(acknowledged, lines.Text())
		if len(acknowledged) == acknowledgements {
			err = writer.Process.Kill() // SIGKILL, where there are signals
		}
	}
	ended := writer.Wait()
	if err != nil || len(acknowledged) < acknowledgements || complaint.Len() > 0 {
		return nil, "", fmt.Errorf("the writer ended after %d writes: %w: %s",
			len(acknowledged), cmp.Or(err, ended), strings.TrimSpace(complaint.String()))
	}
	return acknowledged, writer.ProcessState.String(), nil
}

// writeUntilKilled is the other process: it prints a key when, and only when, its Set has returned.
func writeUntilKilled(databasePath, group string) error {
	storeInstance, err := store.New(databasePath)
	if err != nil {
		return err
	}
	return parallel("", math.MaxInt32, func(index int) error {
		key := fmt.Sprintf("write-%08d", index)
		if err := storeInstance.Set(group, key, writerValue(key)); err != nil {
			return err
		}
		_, err := fmt.Println(key) // one write to a pipe, which a kill does not cut
		return err
	})
}

func writerValue(key string) string { return strings.Repeat(key+" ", 40) }

// tidy removes what the sections wrote beside the files.
func (tour *tour) tidy() error {
	for _, namespace := range tour.namespaces() {
		for group, err := range tour.storeInstance.GroupsSeq(*namespace + ":") {
			if err != nil {
				return err
			}
			if err := tour.storeInstance.DeleteGroup(group); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave closes the store and says what is in the file.
func (tour *tour) leave() error {
	count, err := tour.storeInstance.CountAll(tour.root)
	if err := expect(err, fmt.Sprintf("CountAll(%q) in the end", tour.root), count, len(tour.files)); err != nil {
		return err
	}
	if err := tour.storeInstance.Close(); err != nil {
		return err
	}
	info, err := os.Stat(tour.databasePath)
	if err != nil {
		return err
	}
	tour.heading("What is left")
	tour.say("%s entries, one for each file; the rest was deleted again. The file (%s) is kept.",
		number(count), size(info.Size()))
	tour.say("It is plain SQLite:")
	tour.print("\n%s\n", tour.sqlite3())
	return nil
}
