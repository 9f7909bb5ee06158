package reliability_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// TestKill_NothingAcknowledgedIsLost kills a writing process again and again, on files that live through several
// kills, so that each life also recovers the log that the one before left behind.
func TestKill_NothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	for _, writers := range []int{1, 16} {
		t.Run(fmt.Sprintf("Writers=%d", writers), func(t *testing.T) {
			killRounds(t, writers, scale(5, 30, 75))
		})
	}
}

const roundsOfFile = 5

func killRounds(t *testing.T, writers, rounds int) {
	seed := newSeed(t)
	random := newRandom(seed, uint64(writers))
	acknowledged, opening := 0, 0
	var past *history
	workload := workload{Seed: seed, Writers: writers, MaximumSize: 100_000}
	for round := range rounds {
		if round%roundsOfFile == 0 {
			workload.Path = filepath.Join(t.TempDir(), databaseName)
			past = newHistory()
		}
		workload.Round = round
		past.begin(workload)
		before := past.acknowledged
		if random.IntN(5) == 0 {
			opening++
			killAfter(t, workload, past, -1, time.Duration(random.IntN(50_000))*time.Microsecond)
		} else {
			killAfter(t, workload, past, 1+random.IntN(2*meanAcknowledgements()), 0)
		}
		acknowledged += past.acknowledged - before
		settleAfterKill(t, workload.Path, past, round)
	}
	t.Logf("%d kills, %d of them while the store was being opened; %d acknowledged writes from %d goroutines, 0 lost",
		rounds, opening, acknowledged, writers)
}

func meanAcknowledgements() int { return scale(100, 400, 1000) }

// killAfter starts a child and kills it after so many acknowledgements, or after a time where count is negative.
func killAfter(t *testing.T, workload workload, past *history, count int, delay time.Duration) {
	t.Helper()
	child := newChild(t, "workload", workload.argument())
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { child.Process.Kill() }
	if count < 0 {
		defer time.AfterFunc(delay, kill).Stop()
	}
	followed := past.follow(output, func() {
		if count--; count == 0 {
			kill()
		}
	})
	if followed != nil {
		kill()
	}
	killed := -1
	if runtime.GOOS == "windows" {
		killed = 1 // what Kill gives it; a child that ends by itself has 0 or 2
	}
	if err := child.Wait(); child.ProcessState.ExitCode() != killed {
		t.Fatalf("round %d: the child ended by itself: %v", workload.Round, err)
	}
	if followed != nil {
		t.Fatalf("round %d: %v", workload.Round, followed)
	}
}

// settleAfterKill checks a copy, so that the next child finds the files as the kill left them; the last check of
// a file is of the file itself.
func settleAfterKill(t *testing.T, databasePath string, past *history, round int) {
	t.Helper()
	examined := databasePath
	if (round+1)%roundsOfFile != 0 {
		examined = databasePath + ".copy"
		if err := copyFiles(databasePath, examined); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(examined) // its log is gone when it was closed
	}
	found, err := past.examine(examined)
	if err != nil {
		t.Fatalf("round %d, after %d acknowledged writes: %v", round, past.acknowledged, err)
	}
	past.settle(found)
}
