// Package reliability holds the tests that attack the store's promises from outside: processes killed in
// mid-write, power cuts replayed from a record of system calls, damaged logs, full disks, failing flushes,
// processes that contend for one file, random histories against a model. It has no code of its own.
//
// The tests are short by default; the environment variable RELIABILITY selects their length:
//
//	go test ./docs/reliability
//	RELIABILITY=ci RELIABILITY_REQUIRE=1 go test ./docs/reliability
//	RELIABILITY=long go test -v -timeout 2h ./docs/reliability
//
// What each test checks, and the figures that it showed, are in docs/reliability.md.
package reliability
