//go:build cgo

package main

import _ "github.com/mattn/go-sqlite3"

// mattn is SQLite in C behind database/sql, set up as its users are told to: one
// connection writes; where there are several callers, four more read beside it.
// Each commit syncs alone (synchronous=FULL): SQLite has no way for writers to
// share a sync.
func init() {
	cgoPeers = append(cgoPeers, peer{
		name:       "mattn",
		syncs:      "`synchronous=FULL`; each commit syncs alone; for several callers four more connections read",
		faster:     "its SQLite is compiled by a C compiler, which beats the same code translated to Go wherever the engine works long on one call; where callers come together several connections read at the same time; it needs cgo",
		volatile:   true,
		sqliteFile: true,
		open: func(options options) (database, error) {
			readers := 4
			if options.callers.all == 1 {
				readers = 1
			}
			return openSQL("sqlite3", options, readers)
		},
	})
}
