// Answers PromQL by Prometheus' own engine: reads questions as JSON from standard input (series in the notation of promtool's unit tests,
// an expression, a time) and writes, for each, the label sets that the expression has at that time.
package main

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

const stepMilliseconds = 60_000

type question struct {
	Series    map[string]string `json:"series"` // values, one a minute, by name and labels
	Expr      string            `json:"expr"`
	AtMinutes int64             `json:"at_minutes"`
}

// memory is a storage of a few series.
type memory []storage.Series

func (held memory) Querier(_, _ int64) (storage.Querier, error) { return querier{held}, nil }

type querier struct{ held memory }

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var found []storage.Series
	for _, series := range q.held {
		if matches(series.Labels(), matchers) {
			found = append(found, series)
		}
	}
	return &seriesSet{left: found}
}

func (querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (querier) Close() error { return nil }

func matches(have labels.Labels, matchers []*labels.Matcher) bool {
	for _, matcher := range matchers {
		if !matcher.Matches(have.Get(matcher.Name)) {
			return false
		}
	}
	return true
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

type seriesSet struct {
	left    []storage.Series
	current storage.Series
}

func (set *seriesSet) Next() bool {
	if len(set.left) == 0 {
		return false
	}
	set.current, set.left = set.left[0], set.left[1:]
	return true
}

func (set *seriesSet) At() storage.Series            { return set.current }
func (*seriesSet) Err() error                        { return nil }
func (*seriesSet) Warnings() annotations.Annotations { return nil }

func load(described map[string]string) memory {
	var held memory
	for name, values := range described {
		metric, sequence, err := parser.NewParser(parser.Options{}).ParseSeriesDesc(name + " " + values)
		if err != nil {
			panic(err)
		}
		series := promql.Series{Metric: metric}
		for minute, value := range sequence {
			if !value.Omitted {
				series.Floats = append(series.Floats, promql.FPoint{T: int64(minute) * stepMilliseconds, F: value.Value})
			}
		}
		held = append(held, promql.NewStorageSeries(series))
	}
	return held
}

func evaluate(engine *promql.Engine, asked question) []map[string]string {
	at := time.UnixMilli(asked.AtMinutes * stepMilliseconds)
	query := must(engine.NewInstantQuery(context.Background(), load(asked.Series), nil, asked.Expr, at))
	defer query.Close()
	found := []map[string]string{}
	for _, sample := range must(query.Exec(context.Background()).Vector()) {
		found = append(found, sample.Metric.Map())
	}
	return found
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		panic(err)
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute})
	answers := [][]map[string]string{}
	for _, asked := range questions {
		answers = append(answers, evaluate(engine, asked))
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}
