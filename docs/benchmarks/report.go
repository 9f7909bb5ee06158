package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report is a run with what it was about.
type report struct {
	*bench
	started   time.Time
	took      time.Duration
	machine   machine
	workloads []workload
	charts    map[string]string // by workload: a path beside the report
}

// clearly is how much faster a peer must be to be named so.
const clearly = 0.05

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// of gives a figure's values of a peer, one for each round.
func (report report) of(workload, figure, peer string) []float64 {
	return report.results.values[figureID{workload, figure}][peer]
}

// ratios divides two peers' values round by round.
func ratios(values, over []float64) []float64 {
	var divided []float64
	for round := range min(len(values), len(over)) {
		divided = append(divided, values[round]/over[round])
	}
	return divided
}

// outcome is a goal with what was measured. Without values nobody measured it.
type outcome struct {
	goal   goal
	unit   unit
	values []float64
}

func (report report) outcome(workload workload, goal goal) outcome {
	outcome := outcome{goal: goal, unit: workload.unitOf(goal.figure)}
	outcome.values = report.of(workload.name, goal.figure, "store")
	if over := goal.over; over.peer != "" {
		if over.figure == "" {
			over.figure = goal.figure
		}
		workload.unitOf(over.figure) // panics for one that is not there
		outcome.values = ratios(outcome.values, report.of(workload.name, over.figure, over.peer))
	}
	return outcome
}

func (workload workload) unitOf(name string) unit {
	for _, figure := range workload.figures() {
		if figure.name == name {
			return figure.unit
		}
	}
	panic("no figure " + name + " in " + workload.name)
}

func (outcome outcome) reached(value float64) bool {
	if outcome.unit.moreIsBetter() {
		return value >= outcome.goal.limit
	}
	return value <= outcome.goal.limit
}

// shownUnit is that of the values: a quotient has its own.
func (outcome outcome) shownUnit() unit {
	if outcome.goal.over.peer != "" {
		return factor
	}
	return outcome.unit
}

func (outcome outcome) limitText() string {
	sign, limit := "≤ ", outcome.goal.limit
	if outcome.unit.moreIsBetter() {
		sign = "≥ "
	}
	text := show(outcome.shownUnit(), limit)
	if inverse := 1 / limit; outcome.goal.over.peer != "" && inverse >= 3 && inverse == math.Round(inverse) {
		text = fmt.Sprintf("1/%.0f ×", inverse)
	}
	switch over := outcome.goal.over; {
	case over.peer == "":
		return sign + text
	case over.figure != "":
		return sign + text + " “" + over.figure + "”"
	default:
		return sign + text + " " + over.peer
	}
}

func (outcome outcome) verdict() string {
	switch {
	case outcome.values == nil:
		return "not measured"
	case !outcome.reached(median(outcome.values)):
		return "**short**"
	case !outcome.reached(slices.Min(outcome.values)) || !outcome.reached(slices.Max(outcome.values)):
		return "reached, not in every round"
	default:
		return "reached"
	}
}

// scales are the units of a value, the greatest first.
var scales = map[unit][]struct {
	divisor float64
	suffix  string
}{
	nanoseconds: {{1e9, " s"}, {1e6, " ms"}, {1e3, " µs"}, {1, " ns"}},
	perSecond:   {{1, "/s"}},
	byteCount:   {{1 << 20, " MiB"}, {1 << 10, " KiB"}, {1, " B"}},
	percent:     {{1, " %"}},
	factor:      {{1, " ×"}},
	number:      {{1, ""}},
}

// scale picks the unit in which a value reads well.
func scale(unit unit, value float64) (divisor float64, suffix string) {
	for _, step := range scales[unit] {
		divisor, suffix = step.divisor, step.suffix
		if value >= divisor {
			break
		}
	}
	return divisor, suffix
}

// digits writes a number with three significant digits.
func digits(value float64) string {
	if value == 0 {
		return "0"
	}
	decimals := max(0, 2-int(math.Floor(math.Log10(math.Abs(value)))))
	text := strconv.FormatFloat(value, 'f', decimals, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	for at := len(text) - 3; at > 0 && decimals == 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

func show(unit unit, value float64) string {
	divisor, suffix := scale(unit, value)
	return digits(value/divisor) + suffix
}

// spread is the median with the least and the greatest value.
func spread(unit unit, values []float64) string {
	middle := median(values)
	if len(values) == 1 {
		return show(unit, middle)
	}
	divisor, _ := scale(unit, middle)
	return fmt.Sprintf("%s (%s–%s)", show(unit, middle),
		digits(slices.Min(values)/divisor), digits(slices.Max(values)/divisor))
}

func (report report) markdown(writer io.Writer) error {
	page := &page{}
	page.line("# Benchmarks")
	page.line("")
	page.line("The store and its peers at the same work, from one run of `go run .` in this directory. " +
		"On a file, every peer syncs a write before it acknowledges it. Answers are compared with what was written: a wrong one is a failure.")
	page.line("")
	report.writeMachine(page)
	report.writeGoals(page)
	report.writeFaster(page)
	for _, workload := range report.workloads {
		report.writeWorkload(page, workload)
	}
	report.writePeers(page)
	_, err := io.WriteString(writer, page.String())
	return err
}

type page struct{ strings.Builder }

func (page *page) line(format string, arguments ...any) {
	if len(arguments) == 0 {
		page.WriteString(format + "\n")
		return
	}
	fmt.Fprintf(page, format+"\n", arguments...)
}

func (page *page) row(cells ...string) {
	page.line("| " + strings.Join(cells, " | ") + " |")
}

func (page *page) head(cells ...string) {
	page.row(cells...)
	page.line(strings.Repeat("| --- ", len(cells)) + "|")
}

func (report report) writeMachine(page *page) {
	machine := report.machine
	page.head("", "")
	page.row("date", report.started.Format("2 January 2006"))
	page.row("processor", fmt.Sprintf("%s, %d cores used", machine.Processor, machine.Cores))
	page.row("system", machine.Kernel+", "+machine.Filesystem)
	page.row("fsync of an appended page", fmt.Sprintf("%s (median), %s (90th percentile)",
		show(nanoseconds, float64(machine.Fsync.Median)), show(nanoseconds, float64(machine.Fsync.P90))))
	page.row("Go", machine.Go)
	page.row("modules", strings.Join(machine.Modules, ", "))
	page.row("run", fmt.Sprintf("%d rounds, %v", report.rounds, report.took.Round(time.Second)))
	page.line("")
}

func (report report) writeGoals(page *page) {
	page.line("## Goals")
	page.line("")
	page.line("A quotient is taken within each round, in which the peers take turns. Shown are the median of the rounds and, " +
		"in brackets, the least and the greatest. The *floor* is the plainest honest program on the same engine: prepared " +
		"statements through `database/sql` on one connection. “Then zombiezen's” or “then pebble's” is a second goal: to match that peer.")
	page.line("")
	if chart := report.charts["goals"]; chart != "" {
		page.line("![What was measured against each goal](%s)", chart)
		page.line("")
	}
	page.head("work", "goal", "measured", "")
	var short []string
	for _, workload := range report.workloads {
		for _, goal := range workload.goals {
			outcome := report.outcome(workload, goal)
			measured := "–"
			if outcome.values != nil {
				measured = spread(outcome.shownUnit(), outcome.values)
				if !outcome.reached(median(outcome.values)) {
					short = append(short, fmt.Sprintf("- %s (%s): %s, goal %s%s", goal.work, workload.title, measured,
						outcome.limitText(), outcome.bestRound()))
				}
			}
			page.row(goal.work, outcome.limitText(), measured, outcome.verdict())
		}
	}
	page.line("")
	page.line("### What falls short")
	page.line("")
	if short == nil {
		page.line("Nothing that was measured.")
	}
	for _, row := range short {
		page.line("%s", row)
	}
	page.line("")
	if failures := report.results.failures; failures != nil {
		page.line("### What failed")
		page.line("")
		for _, failure := range failures {
			page.line("- %s, %s/%s: %v", failure.peer, failure.workload, failure.trial, failure.err)
		}
		page.line("")
	}
}

// bestRound says when a goal that the median misses lies within the spread.
func (outcome outcome) bestRound() string {
	if slices.ContainsFunc(outcome.values, outcome.reached) {
		return " (reached in some rounds)"
	}
	return ""
}

// writeFaster names the peers that need less time than the store, and why.
func (report report) writeFaster(page *page) {
	page.line("## Where a peer is faster")
	page.line("")
	page.line("By more than %.0f %%; the figure is a multiple of the store's time or rate.", 100*clearly)
	page.line("")
	named := map[string]bool{}
	for _, workload := range report.workloads {
		for _, figure := range workload.figures() {
			faster := report.fasterPeers(workload.name, figure, named)
			if faster != nil {
				page.line("- %s, %s: %s", workload.title, figure.name, strings.Join(faster, ", "))
			}
		}
	}
	if len(named) == 0 {
		page.line("Nowhere in this run.")
	} else {
		page.line("")
		page.line("Why they can be:")
		page.line("")
	}
	for _, peer := range report.peers {
		if named[peer.name] {
			page.line("- **%s**: %s.", peer.name, peer.faster)
		}
	}
	page.line("")
}

// fasterPeers lists the peers that beat the store clearly, and adds their names.
func (report report) fasterPeers(workload string, figure figure, named map[string]bool) (faster []string) {
	if figure.unit != nanoseconds && figure.unit != perSecond {
		return nil
	}
	for _, peer := range report.peers {
		quotients := ratios(report.of(workload, figure.name, peer.name), report.of(workload, figure.name, "store"))
		if peer.name == "store" || quotients == nil {
			continue
		}
		middle := median(quotients)
		if figure.unit.moreIsBetter() && middle > 1+clearly || !figure.unit.moreIsBetter() && middle < 1-clearly {
			named[peer.name] = true
			faster = append(faster, peer.name+" "+show(factor, middle))
		}
	}
	return faster
}

func (report report) writeWorkload(page *page, workload workload) {
	page.line("## %s", workload.title)
	page.line("")
	page.line("`-only %s` %s", workload.name, workload.about)
	page.line("")
	if chart := report.charts[workload.name]; chart != "" {
		page.line("![%s](%s)", workload.title, chart)
		page.line("")
	}
	head := []string{"peer"}
	for _, figure := range workload.figures() {
		head = append(head, figure.name)
	}
	page.head(head...)
	for _, peer := range report.peers {
		cells, empty := []string{peer.name}, true
		for _, figure := range workload.figures() {
			cell := report.cell(workload.name, figure, peer.name)
			empty = empty && cell == ""
			cells = append(cells, cell)
		}
		if !empty {
			page.row(cells...)
		}
	}
	page.line("")
}

// cell is a figure with its multiple of the floor's.
func (report report) cell(workload string, figure figure, peer string) string {
	values := report.of(workload, figure.name, peer)
	if values == nil {
		return ""
	}
	text := spread(figure.unit, values)
	over := ratios(values, report.of(workload, figure.name, "floor"))
	if peer != "floor" && over != nil && (figure.unit == nanoseconds || figure.unit == perSecond) {
		text += ", " + show(factor, median(over))
	}
	return text
}

func (report report) writePeers(page *page) {
	page.line("## How each peer syncs")
	page.line("")
	page.line("A peer is missing from a workload's table where it has no counterpart of the work or its adapter does not use it; " +
		"mattn is missing altogether where the program is built without cgo. In the tables a multiple without a name is that of the floor's figure.")
	page.line("")
	page.head("peer", "each acknowledged write is on the disk by")
	for _, peer := range report.peers {
		page.row(peer.name, peer.syncs)
	}
	page.line("")
	page.line("`go run . -help` lists the flags: `-only`, `-peers`, `-rounds`, `-dir`, `-json`, `-report`, `-smoke`.")
}

// json exports every value, those that a table shows only the median of too.
func (report report) json(writer io.Writer) error {
	type exportedFigure struct {
		Workload, Figure, Peer string
		MoreIsBetter           bool
		Values                 []float64
	}
	type exportedGoal struct {
		Workload, Work, Goal string
		Values               []float64
		Reached              bool
	}
	exported := struct {
		Started  time.Time
		Took     time.Duration
		Rounds   int
		Machine  machine
		Goals    []exportedGoal
		Figures  []exportedFigure
		Failures []string
	}{Started: report.started, Took: report.took, Rounds: report.rounds, Machine: report.machine}
	for _, workload := range report.workloads {
		for _, goal := range workload.goals {
			outcome := report.outcome(workload, goal)
			exported.Goals = append(exported.Goals, exportedGoal{
				Workload: workload.name, Work: goal.work, Goal: outcome.limitText(), Values: outcome.values,
				Reached: outcome.values != nil && outcome.reached(median(outcome.values)),
			})
		}
		for _, figure := range workload.figures() {
			for _, peer := range report.peers {
				if values := report.of(workload.name, figure.name, peer.name); values != nil {
					exported.Figures = append(exported.Figures, exportedFigure{
						workload.name, figure.name, peer.name, figure.unit.moreIsBetter(), values,
					})
				}
			}
		}
	}
	for _, failure := range report.results.failures {
		exported.Failures = append(exported.Failures, fmt.Sprintf("%s/%s: %s: %v", failure.workload, failure.trial, failure.peer, failure.err))
	}
	encoder := json.NewEncoder(writer)
	encoder.SetIndent("", "  ")
	return encoder.Encode(exported)
}
