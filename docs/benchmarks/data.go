package main

import (
	"fmt"
	"iter"
	"math/rand/v2"
)

// entry is what a database is filled with.
type entry struct {
	index             int // in its dataset
	group, key, value string
	expiresAt         int64 // in Unix milliseconds; 0 is never
}

// dataset describes the content that a workload starts from.
type dataset struct {
	label        string // tells datasets apart that differ in what follows the sizes
	groups, keys int    // so many groups of so many keys each
	size         int    // of a value, in bytes
	large        int    // every so many entries the value has 1 MiB instead; 0 is never
	expiresAt    func(index int) int64
}

const mebibyte = 1 << 20

func (data dataset) count() int { return data.groups * data.keys }

func (data dataset) name() string {
	return fmt.Sprintf("%s-%d-%d-%d", data.label, data.groups, data.keys, data.size)
}

// entry makes the entry at index. The first thousand groups belong to tenant-a,
// the next to tenant-b.
func (data dataset) entry(index int) entry {
	made := entry{
		index: index,
		group: groupName(index / data.keys),
		key:   fmt.Sprintf("key-%06d", index%data.keys),
		value: data.value(index),
	}
	if data.expiresAt != nil {
		made.expiresAt = data.expiresAt(index)
	}
	return made
}

func groupName(group int) string {
	return fmt.Sprintf("tenant-%c:group-%03d", 'a'+rune(group/1000), group%1000)
}

func (data dataset) value(index int) string {
	size := data.size
	if data.isLarge(index) {
		size = mebibyte
	}
	texts := textsOf(size)
	return texts[index%len(texts)]
}

func (data dataset) isLarge(index int) bool { return data.large > 0 && index%data.large == 0 }

func (data dataset) entries() iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for index := range data.count() {
			if !yield(data.entry(index)) {
				return
			}
		}
	}
}

var texts = map[int][]string{}

// textsOf gives different random texts of one size, which do not compress.
func textsOf(size int) []string {
	if texts[size] == nil {
		const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		random := rand.New(rand.NewPCG(1, uint64(size)))
		count := 61
		if size > 1<<10 {
			count = 7
		}
		for range count {
			text := make([]byte, size)
			for i := range text {
				text[i] = letters[random.Uint32()%64]
			}
			texts[size] = append(texts[size], string(text))
		}
	}
	return texts[size]
}

// share is the part of a dataset that one goroutine reads and overwrites, in an
// order without a pattern. It knows what each of its entries must hold.
type share struct {
	entries []entry
	texts   []string
	turn    int // how many times an entry has been overwritten
}

// shares deals a dataset out to so many goroutines, or a sample of it if it is
// larger than most; large values are left to nobody.
func (data dataset) shares(goroutines, most int) []*share {
	random := rand.New(rand.NewPCG(2, uint64(data.count())))
	dealt := make([]*share, goroutines)
	for i := range dealt {
		dealt[i] = &share{texts: textsOf(data.size)}
	}
	step := max(1, data.count()/most)
	order := random.Perm(data.count() / step)
	for i, at := range order {
		if index := at * step; !data.isLarge(index) {
			taker := dealt[i%goroutines]
			taker.entries = append(taker.entries, data.entry(index))
		}
	}
	return dealt
}

// everything is the share of a goroutine that is alone.
func (data dataset) everything() *share { return data.shares(1, data.count())[0] }

// value is what the entry at a place of the share holds when so many turns have
// been taken.
func (share *share) value(place, turns int) string {
	versions := turns / len(share.entries)
	if place < turns%len(share.entries) {
		versions++
	}
	return share.texts[(share.entries[place].index+versions)%len(share.texts)]
}

// overwrite gives the next entry a value that it does not have.
func (share *share) overwrite(database database) error {
	place := share.turn % len(share.entries)
	share.turn++
	entry := &share.entries[place]
	return database.Set(entry.group, entry.key, share.value(place, share.turn))
}

// get reads an entry and compares it with what was last written.
func (share *share) get(database database, n int) error {
	place := n % len(share.entries)
	entry := &share.entries[place]
	value, err := database.Get(entry.group, entry.key)
	if err != nil {
		return fmt.Errorf("Get(%q, %q): %w", entry.group, entry.key, err)
	}
	if want := share.value(place, share.turn); value != want {
		return fmt.Errorf("Get(%q, %q) = %.20q…, want %.20q…", entry.group, entry.key, value, want)
	}
	return nil
}

// check reads back what was overwritten last.
func (share *share) check(database database, most int) error {
	for back := range min(most, share.turn, len(share.entries)) {
		if err := share.get(database, share.turn-1-back); err != nil {
			return err
		}
	}
	return nil
}

// halfExpired makes half of the entries expire in the past: the second half of
// the dataset at one instant, or any of them at different times.
func (data dataset) halfExpired(scattered bool) func(index int) int64 {
	past := now() - 24*60*60*1000
	if !scattered {
		return func(index int) int64 {
			if index < data.count()/2 {
				return 0
			}
			return past
		}
	}
	order := rand.New(rand.NewPCG(3, 3)).Perm(data.count())
	return func(index int) int64 {
		if order[index] < data.count()/2 {
			return 0
		}
		return past + int64(order[index])
	}
}
