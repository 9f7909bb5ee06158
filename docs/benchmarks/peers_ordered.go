package main

import "strings"

// ordered gives what the ordered key-value peers have in common: an entry lies
// under its group, a zero byte and its key (no name here holds one), and
// whatever concerns many entries is one walk.
type ordered[text string | []byte] struct{ walker[text] }

// walker visits the keys that begin with prefix, in order, with their values
// where these are wanted. The visit returns where to go on: "" is the next key.
// What it is shown may be valid during the visit alone.
type walker[text string | []byte] interface {
	walk(prefix string, values bool, visit func(path, value text) (next string)) error
}

func pathOf(group, key string) string { return group + "\x00" + key }

func (database ordered[text]) Stream(group string, yield func(key, value string)) error {
	prefix := pathOf(group, "")
	return database.walk(prefix, true, func(path, value text) string {
		yield(string(path[len(prefix):]), string(value))
		return ""
	})
}

func (database ordered[text]) GetAll(group string) (map[string]string, error) {
	all := make(map[string]string)
	err := database.Stream(group, func(key, value string) { all[key] = value })
	return all, err
}

func (database ordered[text]) Count(group string) (int, error) {
	return database.CountAll(pathOf(group, ""))
}

func (database ordered[text]) CountAll(prefix string) (count int, err error) {
	err = database.walk(prefix, false, func(text, text) string {
		count++
		return ""
	})
	return count, err
}

func (database ordered[text]) Groups(prefix string) (names []string, err error) {
	err = database.walk(prefix, false, func(path, _ text) string {
		group, _, _ := strings.Cut(string(path), "\x00")
		names = append(names, group)
		return group + "\x01"
	})
	return names, err
}
