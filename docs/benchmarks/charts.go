package main

import (
	"image/color"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chartDirectory lies beside the report.
const chartDirectory = "charts"

// draw makes the charts: one of the goals, and one of each workload that asks
// for it. All have the same shape: a row for each figure, on a logarithmic axis
// a mark for each peer at the median, and a line from the least to the greatest.
func (report *report) draw(directory string) error {
	report.charts = map[string]string{}
	if err := os.MkdirAll(filepath.Join(directory, chartDirectory), 0o755); err != nil {
		return err
	}
	save := func(name string, chart *chart) error {
		if chart.empty() {
			return nil
		}
		report.charts[name] = chartDirectory + "/" + name + ".svg"
		return chart.save(filepath.Join(directory, chartDirectory, name+".svg"))
	}
	if err := save("goals", report.goalsChart()); err != nil {
		return err
	}
	for _, workload := range report.workloads {
		if workload.chart {
			if err := save(workload.name, report.workloadChart(workload)); err != nil {
				return err
			}
		}
	}
	return nil
}

// chart is a row of marks for each figure, the first row on top.
type chart struct {
	title  string
	axis   string
	unit   unit
	rows   []string
	series []series
	limit  float64 // where a line is drawn; 0 is none
}

// series are the values of one peer in each row; a row may be nil.
type series struct {
	name   string
	values [][]float64
}

func (chart *chart) empty() bool {
	return !slices.ContainsFunc(chart.series, func(series series) bool {
		return slices.ContainsFunc(series.values, func(values []float64) bool { return values != nil })
	})
}

func (report *report) workloadChart(workload workload) *chart {
	chart := &chart{title: workload.title, unit: workload.figures()[0].unit, axis: "time of a call (less is better)"}
	if chart.unit.moreIsBetter() {
		chart.axis = "calls per second (more is better)"
	}
	figures := slices.DeleteFunc(workload.figures(), func(figure figure) bool { return figure.unit != chart.unit })
	for _, peer := range report.peers {
		series := series{name: peer.name}
		for _, figure := range figures {
			series.values = append(series.values, report.of(workload.name, figure.name, peer.name))
		}
		chart.series = append(chart.series, series)
	}
	for _, figure := range figures {
		chart.rows = append(chart.rows, figure.name)
	}
	return chart
}

// goalsChart shows what was measured as a part of the limit, so that one line
// divides what was reached from what was not.
func (report *report) goalsChart() *chart {
	chart := &chart{title: "Measured ÷ goal", axis: "left of the line: reached", unit: factor, limit: 1}
	reached, short := series{name: "reached"}, series{name: "short"}
	for _, workload := range report.workloads {
		for _, goal := range workload.goals {
			outcome := report.outcome(workload, goal)
			if outcome.values == nil {
				continue
			}
			var parts []float64
			for _, value := range outcome.values {
				part := value / goal.limit
				if outcome.unit.moreIsBetter() {
					part = 1 / part
				}
				// Nothing at all has no place on the axis.
				parts = append(parts, min(max(part, 0.01), 100))
			}
			chart.rows = append(chart.rows, plain(goal.work))
			if outcome.reached(median(outcome.values)) {
				reached.values, short.values = append(reached.values, parts), append(short.values, nil)
			} else {
				reached.values, short.values = append(reached.values, nil), append(short.values, parts)
			}
		}
	}
	chart.series = []series{short, reached}
	return chart
}

// plain removes Markdown's marks from a text.
func plain(text string) string {
	return string(slices.DeleteFunc([]rune(text), func(r rune) bool { return r == '`' }))
}

// colours differ in lightness too; the first one belongs to the store.
var colours = []color.Color{
	color.RGBA{200, 30, 30, 255}, color.RGBA{20, 20, 20, 255}, color.RGBA{60, 110, 200, 255},
	color.RGBA{130, 180, 240, 255}, color.RGBA{30, 130, 70, 255}, color.RGBA{140, 200, 80, 255},
	color.RGBA{230, 150, 30, 255}, color.RGBA{150, 80, 180, 255}, color.RGBA{150, 150, 150, 255},
}

var glyphs = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.PyramidGlyph{}, draw.BoxGlyph{},
	draw.RingGlyph{}, draw.CrossGlyph{}, draw.PlusGlyph{}, draw.CircleGlyph{},
}

// points are marks with the spread to either side.
type points struct {
	plotter.XYs
	plotter.XErrors
}

func (chart *chart) save(path string) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	canvas := plot.New()
	canvas.Title.Text = chart.title
	canvas.X.Label.Text = chart.axis
	canvas.X.Scale = plot.LogScale{}
	canvas.X.Tick.Marker = unitTicks{chart.unit}
	canvas.Y.Min, canvas.Y.Max = -0.6, float64(len(chart.rows))-0.4
	canvas.NominalY(reversed(chart.rows)...)
	legend := plot.NewLegend()
	legend.Left, legend.Top, legend.Padding = true, true, vg.Points(2)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{225}, color.Gray{240}
	canvas.Add(grid)

	if chart.limit > 0 {
		line, err := plotter.NewLine(plotter.XYs{{X: chart.limit, Y: canvas.Y.Min}, {X: chart.limit, Y: canvas.Y.Max}})
		if err != nil {
			return err
		}
		canvas.Add(line)
	}
	for i, series := range chart.series {
		var points points
		for row, values := range series.values {
			if values == nil {
				continue
			}
			middle := median(values)
			// The marks of a row lie a little apart, so that none hides another.
			offset := 0.6 * (0.5 - (float64(i)+0.5)/float64(len(chart.series)))
			points.XYs = append(points.XYs, plotter.XY{X: middle, Y: float64(len(chart.rows)-1-row) + offset})
			points.XErrors = append(points.XErrors, struct{ Low, High float64 }{middle - slices.Min(values), slices.Max(values) - middle})
		}
		if points.XYs == nil {
			continue
		}
		bars, err := plotter.NewXErrorBars(points)
		if err != nil {
			return err
		}
		marks, err := plotter.NewScatter(points.XYs)
		if err != nil {
			return err
		}
		bars.Color, bars.CapWidth = colours[i%len(colours)], 0
		marks.Color, marks.Shape, marks.Radius = colours[i%len(colours)], glyphs[i%len(glyphs)], vg.Points(2.5)
		canvas.Add(bars, marks)
		legend.Add(series.name, marks)
	}
	rowHeight := max(14, 6*float64(len(chart.series)))
	const width, legendWidth = 780, 100
	image := vgsvg.New(width, vg.Points(90+rowHeight*float64(len(chart.rows))))
	whole := draw.New(image)
	canvas.Draw(draw.Crop(whole, 16, -legendWidth, 0, 0))
	legend.Draw(draw.Crop(whole, width-legendWidth+8, 0, 0, -24))
	return writeFile(path, func(writer io.Writer) error {
		_, err := image.WriteTo(writer)
		return err
	})
}

func reversed(rows []string) []string {
	upsideDown := slices.Clone(rows)
	slices.Reverse(upsideDown)
	return upsideDown
}

// unitTicks are those of a logarithmic axis, with the unit of what they mark.
type unitTicks struct{ unit unit }

func (ticks unitTicks) Ticks(least, greatest float64) (marks []plot.Tick) {
	for power := math.Pow(10, math.Floor(math.Log10(least))); power <= greatest; power *= 10 {
		for digit := 1.; digit < 10; digit++ {
			mark := plot.Tick{Value: digit * power}
			// A short axis has room for more than the powers of ten.
			if digit == 1 || greatest/least < 100 && (digit == 2 || digit == 5) {
				mark.Label = show(ticks.unit, mark.Value)
			}
			if least <= mark.Value && mark.Value <= greatest {
				marks = append(marks, mark)
			}
		}
	}
	return marks
}
