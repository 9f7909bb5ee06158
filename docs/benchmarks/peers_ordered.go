package main

import "strings"

// ordered gives what the ordered key-value peers have in common: an entry lies
// under its group, a zero byte and its key (no name here holds one), and
// whatever concerns many entries is one walk.
type ordered struct{ walker }

// walker visits keys in order, from the first one that is not less than start.
// The visit returns where to go on: "" is the next key, done ends the walk.
// Without values they are not read.
type walker interface {
	walk(start string, values bool, visit func(path, value string) (next string)) error
}

// done is greater than any path.
const done = "\xff"

func pathOf(group, key string) string { return group + "\x00" + key }

func (database ordered) within(prefix string, values bool, visit func(path, value string)) error {
	return database.walk(prefix, values, func(path, value string) string {
		if !strings.HasPrefix(path, prefix) {
			return done
		}
		visit(path, value)
		return ""
	})
}

func (database ordered) Stream(group string, yield func(key, value string)) error {
	prefix := pathOf(group, "")
	return database.within(prefix, true, func(path, value string) { yield(path[len(prefix):], value) })
}

func (database ordered) GetAll(group string) (map[string]string, error) {
	all := make(map[string]string)
	err := database.Stream(group, func(key, value string) { all[key] = value })
	return all, err
}

func (database ordered) Count(group string) (int, error) {
	return database.CountAll(pathOf(group, ""))
}

func (database ordered) CountAll(prefix string) (count int, err error) {
	err = database.within(prefix, false, func(string, string) { count++ })
	return count, err
}

func (database ordered) Groups(prefix string) (names []string, err error) {
	err = database.walk(prefix, false, func(path, _ string) string {
		if !strings.HasPrefix(path, prefix) {
			return done
		}
		group, _, _ := strings.Cut(path, "\x00")
		names = append(names, group)
		return group + "\x01"
	})
	return names, err
}
