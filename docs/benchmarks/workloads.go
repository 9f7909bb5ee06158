package main

// workload is one kind of work, a section of the report.
type workload struct {
	name, title string
	about       string // what is done and counted, in one line
	chart       bool   // it is worth a picture, of the figures that have the first one's unit
	trials      []trial
	goals       []goal
}

// trial is what the peers take turns at.
type trial struct {
	name    string
	figures []figure
	once    bool // its figures do not depend on time, one round is enough
	appends bool // it asks for writes alone, so that a peer that only appends can take part
	// start prepares one peer; measure runs once a round and records a value for
	// each figure. A peer without a counterpart returns errNoCounterpart.
	start func(*run) (measure func() error, err error)
}

// figures are the columns of the workload's table.
func (workload workload) figures() (all []figure) {
	for _, trial := range workload.trials {
		all = append(all, trial.figures...)
	}
	return all
}

// figure is a column of the workload's table.
type figure struct {
	name string
	unit unit
}

type unit int

const (
	nanoseconds unit = iota
	perSecond
	byteCount
	percent
	factor
	number
)

// moreIsBetter says in which direction a figure improves.
func (unit unit) moreIsBetter() bool { return unit == perSecond || unit == percent }

// goal is a row of the goals table: a figure of the store, divided by another
// figure of the same round if there is one, against a limit. It is an upper
// limit, unless more is better.
type goal struct {
	work   string
	figure string
	over   reference
	limit  float64
}

// reference names a figure of a peer; the figure is the goal's own if left out.
type reference struct{ peer, figure string }

var (
	ofFloor     = reference{peer: "floor"}
	ofZombiezen = reference{peer: "zombiezen"}
	ofPebble    = reference{peer: "pebble"}
)

func ownFigure(name string) reference { return reference{"store", name} }

var workloads = []workload{
	{
		name:  "get",
		title: "Get",
		about: "reads at random from 10,000 values of 100 bytes; the time is the total divided by the number of calls.",
		chart: true,
		trials: []trial{
			getTrial("1-memory", "1 goroutine, memory", 1, true),
			getTrial("1-file", "1 goroutine, file", 1, false),
			getTrial("16-memory", "16 goroutines, memory", 16, true),
			getTrial("16-file", "16 goroutines, file", 16, false),
		},
		goals: []goal{
			{"`Get`, 1 goroutine, memory", "1 goroutine, memory", ofFloor, 0.8},
			{"`Get`, 1 goroutine, memory; then zombiezen's", "1 goroutine, memory", ofZombiezen, 1},
			{"`Get`, 1 goroutine, file", "1 goroutine, file", ofFloor, 0.92},
			{"`Get`, 1 goroutine, file; then zombiezen's", "1 goroutine, file", ofZombiezen, 1},
			{"`Get`, 16 goroutines, memory", "16 goroutines, memory", ofFloor, 0.5},
			{"`Get`, 16 goroutines, file", "16 goroutines, file", ofFloor, 0.35},
		},
	},
	{
		name:  "set",
		title: "Set in memory",
		about: "writes 20,000 new values of 100 bytes, and overwrites at random among 10,000.",
		chart: true,
		trials: []trial{
			{name: "new", figures: []figure{{"new", nanoseconds}}, start: startSetNew},
			{name: "overwrite", figures: []figure{{"overwrite", nanoseconds}}, start: startOverwrite},
		},
		goals: []goal{
			{"`Set` in memory, new", "new", ofFloor, 1.1},
			{"`Set` in memory, overwrite", "overwrite", ofFloor, 1.1},
		},
	},
	{
		name:  "durable",
		title: "Durable Set",
		about: "overwrites at random among 10,000 values of 100 bytes on a file, each on the disk before its `Set` returns. Many writers at once " +
			"change nearly as many pages as there are writers, and SQLite's log takes whole pages; with only 1,000 values, the writers share pages. " +
			"A turn opens its file anew, so the log grows during it, and a flush then costs about twice what it does when the log is overwritten.",
		chart: true,
		trials: []trial{
			durableTrial("1", "1 goroutine", 1, 100),
			durableTrial("16", "16 goroutines", 16, 100),
			durableTrial("64", "64 goroutines", 64, 100),
			durableTrial("256", "256 goroutines", 256, 100),
			durableTrial("few/64", "64 goroutines, 1,000 values", 64, 10),
			durableTrial("few/256", "256 goroutines, 1,000 values", 256, 10),
		},
		goals: []goal{
			{"durable `Set`/s, 1 goroutine", "1 goroutine", ofFloor, 0.95},
			{"durable `Set`/s, 16 goroutines", "16 goroutines", ofFloor, 6},
			{"durable `Set`/s, 16 goroutines; then pebble's", "16 goroutines", ofPebble, 1},
			{"durable `Set`/s, 64 goroutines", "64 goroutines", ofFloor, 16},
			{"durable `Set`/s, 64 goroutines; then pebble's", "64 goroutines", ofPebble, 1},
			{"durable `Set`/s, 256 goroutines", "256 goroutines", ofFloor, 36},
			{"durable `Set`/s, 256 goroutines; then pebble's", "256 goroutines", ofPebble, 1},
		},
	},
	{
		name:  "beside",
		title: "Get beside a durable writer",
		about: "has one goroutine read as fast as it can while another writes durably as fast as it can; each `Get` is timed by itself, and the writes are counted.",
		chart: true,
		trials: []trial{{
			name:    "get",
			figures: []figure{{"p50", nanoseconds}, {"p99", nanoseconds}, {"writes", perSecond}},
			start:   startBeside,
		}},
		goals: []goal{
			{"`Get` beside a durable writer, p50", "p50", ofFloor, 1. / 12},
			{"`Get` beside a durable writer, p99", "p99", ofFloor, 1. / 4},
		},
	},
	{
		name:  "all",
		title: "GetAll and All",
		about: "reads a group of 10,000 values of 100 bytes into a map, and streams one of 100,000 in the order of its keys.",
		chart: true,
		trials: []trial{
			getAllTrial("get-memory", "GetAll, memory", true),
			getAllTrial("get-file", "GetAll, file", false),
			streamTrial("stream-memory", "stream, memory", true),
			streamTrial("stream-file", "stream, file", false),
		},
		goals: []goal{
			{"`GetAll` of 10,000, memory", "GetAll, memory", ofFloor, 1.1},
			{"`GetAll` of 10,000, file", "GetAll, file", ofFloor, 1.1},
			{"stream of 100,000, memory", "stream, memory", ofFloor, 1.1},
			{"stream of 100,000, file", "stream, file", ofFloor, 1.2},
		},
	},
	{
		name:  "groups",
		title: "Groups and counts",
		about: "lists by prefix 1,000 groups of 100 keys each, among 1,100; counts the keys of one group, and of all 1,000.",
		chart: true,
		trials: []trial{{
			name:    "names",
			figures: []figure{{"Groups", nanoseconds}, {"Count", nanoseconds}, {"CountAll", nanoseconds}},
			start:   startGroups,
		}},
		goals: []goal{
			{"`Groups` by prefix, 1,000 × 100 keys", "Groups", ofFloor, 1.2},
			{"`Count` of 100 keys", "Count", ofFloor, 1.2},
			{"`CountAll` of 1,000 × 100 keys", "CountAll", ofFloor, 1.2},
		},
	},
	{
		name:  "quota",
		title: "Quotas",
		about: "writes new keys, in memory, into a namespace with a limit that holds 100 or 100,000 keys, and into one of 100,000 keys without a limit; a key beyond the limit must be refused.",
		trials: []trial{{
			name: "new",
			figures: []figure{
				{"with 100 keys", nanoseconds}, {"with 100,000 keys", nanoseconds}, {"no limit", nanoseconds},
			},
			start: startQuota,
		}},
		goals: []goal{
			{"quota-checked `Set`, 100,000 keys ÷ 100", "with 100,000 keys", ownFigure("with 100 keys"), 1.3},
			{"quota-checked `Set` ÷ plain `Set`", "with 100,000 keys", ownFigure("no limit"), 2.3},
		},
	},
	{
		name:  "purge",
		title: "A large purge",
		about: "removes 100,000 expired entries, which lie together or are scattered among 100,000 that are alive, while another goroutine writes; the floor does it in one `DELETE`.",
		chart: true,
		trials: []trial{
			purgeTrial("together", false),
			purgeTrial("scattered", true),
		},
		goals: []goal{
			{"purge of 100,000 that expire together: longest other `Set`", "together: longest other Set", ofFloor, 1. / 16},
			{"purge of 100,000 that expire together: whole purge", "together: whole purge", ofFloor, 2},
			{"purge of 100,000 scattered over the table: longest other `Set`", "scattered: longest other Set", ofFloor, 1. / 16},
			{"purge of 100,000 scattered over the table: whole purge", "scattered: whole purge", ofFloor, 3},
		},
	},
	{
		name:  "watch",
		title: "Watchers",
		about: "changes values in memory with no watcher and with 100, each drained by a goroutine of its own; what arrived is counted.",
		trials: []trial{{
			name:    "100",
			figures: []figure{{"no watcher", nanoseconds}, {"100 watchers", nanoseconds}, {"delivered", percent}},
			start:   startWatch,
		}},
		goals: []goal{
			{"`Set` with 100 watchers ÷ none", "100 watchers", ownFigure("no watcher"), 6},
			{"events delivered to 100 watchers", "delivered", reference{}, 95},
		},
	},
	{
		name:  "background",
		title: "A small purge of a large store",
		about: "finds and removes 10 expired entries among 1,000,000 that are alive, as the background purge does each minute.",
		trials: []trial{{
			name:    "10",
			figures: []figure{{"purge of 10", nanoseconds}},
			start:   startBackground,
		}},
		goals: []goal{
			{"purge of 10 expired among 1,000,000 alive", "purge of 10", reference{}, 2e6},
		},
	},
	{
		name:  "values",
		title: "Large values",
		about: "changes and reads values of 1 KiB, 64 KiB and 1 MiB on a file, and reads values of 100 bytes that lie between values of 1 MiB.",
		chart: true,
		trials: []trial{
			valuesTrial("1K", "1 KiB", 1<<10, 500),
			valuesTrial("64K", "64 KiB", 64<<10, 50),
			valuesTrial("1M", "1 MiB", mebibyte, 10),
			{
				name:    "small",
				figures: []figure{{"Get, small beside 1 MiB", nanoseconds}},
				start:   startSmallBesideLarge,
			},
		},
		goals: []goal{
			{"`Set` of 1 KiB", "Set, 1 KiB", ofFloor, 1.15},
			{"`Get` of 1 KiB", "Get, 1 KiB", ofFloor, 1.15},
			{"`Set` of 64 KiB", "Set, 64 KiB", ofFloor, 1.15},
			{"`Get` of 64 KiB", "Get, 64 KiB", ofFloor, 1.15},
			{"`Set` of 1 MiB", "Set, 1 MiB", ofFloor, 1.15},
			{"`Get` of 1 MiB", "Get, 1 MiB", ofFloor, 1.15},
			{"a small `Get` beside 1 MiB values", "Get, small beside 1 MiB", ofFloor, 1.15},
		},
	},
	{
		name:  "size",
		title: "Size on the disk",
		about: "gives the bytes of all files of a closed database divided by those of the groups, keys and values in it. They were written one by one, once and in no order: of so little, a log-structured peer may still keep all in its log.",
		trials: []trial{
			sizeTrial("100", "100 B", 100, 5_000),
			sizeTrial("1k", "1 kB", 1_000, 1_000),
			sizeTrial("10k", "10 kB", 10_000, 500),
		},
		goals: []goal{
			{"file bytes per payload byte, values of 100 B", "100 B", reference{}, 1.6},
			{"file bytes per payload byte, values of 1 kB", "1 kB", reference{}, 1.5},
			{"file bytes per payload byte, values of 10 kB", "10 kB", reference{}, 1.1},
		},
	},
	{
		name:  "open",
		title: "Opening and idling",
		about: "opens a file of 10,000 entries, and measures how much of Go's heap and how many goroutines a freshly opened store holds.",
		trials: []trial{
			{name: "time", figures: []figure{{"opening", nanoseconds}}, start: startOpening},
			{name: "idle", figures: []figure{{"heap", byteCount}, {"goroutines", number}}, start: startIdle, once: true},
		},
		goals: []goal{
			{"opening", "opening", ofFloor, 1.5},
			{"heap of an idle store", "heap", reference{}, 64 << 10},
			{"goroutines of an idle store", "goroutines", reference{}, 3},
		},
	},
	{
		name:  "growth",
		title: "Growth",
		about: "gives the time of a call with 1,000,000 entries of 32 bytes on a file, and that time divided by the one with 10,000; a group has 1,000 keys in both.",
		trials: []trial{{
			name: "million",
			figures: []figure{
				{"Get", nanoseconds}, {"Get, growth", factor},
				{"Set", nanoseconds}, {"Set, growth", factor},
				{"Count", nanoseconds}, {"Count, growth", factor},
			},
			start: startGrowth,
		}},
		goals: []goal{
			{"growth of `Get`, 10,000 → 1,000,000 entries", "Get, growth", ofFloor, 1},
			{"growth of `Set`", "Set, growth", ofFloor, 1},
			{"growth of `Count` of one group", "Count, growth", ofFloor, 1},
		},
	},
	{
		name:  "allocations",
		title: "Allocations",
		about: "counts the allocations on Go's heap that a call makes, in memory, from one goroutine, with values of 100 bytes.",
		trials: []trial{{
			name:    "count",
			figures: []figure{{"Get", number}, {"Set", number}, {"streamed entry", number}, {"event", number}},
			start:   startAllocations,
			once:    true,
		}},
		goals: []goal{ // budgets: two of Get's allocations and three of Set's are the store's own, the rest the driver's
			{"allocations of a `Get`", "Get", reference{}, 11.5},
			{"allocations of a `Set`", "Set", reference{}, 8.5},
			{"allocations of a streamed entry", "streamed entry", reference{}, 4.1},
			{"allocations of an event", "event", reference{}, 0.1},
		},
	},
}
