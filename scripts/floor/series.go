package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// table is a group of rows that are measured in the same columns.
type table struct {
	Name    string   `json:"name"`
	Title   string   `json:"title"`
	Note    string   `json:"note"` // below it: what a reader has to know
	Columns []column `json:"columns"`
	Rows    []*row   `json:"rows"`
}

// column is what a sample has one number of.
type column struct {
	Name   string `json:"name"`
	Digits int    `json:"-"` // behind the point
}

// row is one thing that is measured, once a round.
type row struct {
	Name    string      `json:"name"`
	Samples [][]float64 `json:"samples"` // by round, then by column

	// run takes about d and returns a number for each column.
	run func(ctx context.Context, d time.Duration) ([]float64, error)
}

// measure runs all rows in turn, as often as there are rounds. said is told what is being measured.
func measure(ctx context.Context, tables []*table, rounds int, d time.Duration, said func(string)) error {
	for round := range rounds {
		for _, t := range tables {
			for _, r := range t.Rows {
				if err := ctx.Err(); err != nil {
					return err
				}
				said(fmt.Sprintf("round %d of %d: %s, %s", round+1, rounds, t.Title, r.Name))
				sample, err := r.run(ctx, d)
				if err != nil {
					return fmt.Errorf("measuring %s, %s: %w", t.Title, r.Name, err)
				}
				if len(sample) != len(t.Columns) {
					return fmt.Errorf("measuring %s, %s: %d numbers for %d columns", t.Title, r.Name, len(sample), len(t.Columns))
				}
				r.Samples = append(r.Samples, sample)
			}
		}
	}
	return nil
}

// spread is the median, the least and the largest of a row's samples in one column.
type spread struct{ Median, Min, Max float64 }

func (r *row) spread(column int) spread {
	v := make([]float64, 0, len(r.Samples))
	for _, s := range r.Samples {
		v = append(v, s[column])
	}
	if len(v) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	slices.Sort(v)
	return spread{(v[(len(v)-1)/2] + v[len(v)/2]) / 2, v[0], v[len(v)-1]}
}

// perOp repeats op for about d and returns how long one took, in nanoseconds. The clock is asked once in many
// repetitions, so that it is no part of the result.
func perOp(d time.Duration, op func()) float64 {
	for n := 1; ; n *= 2 {
		start := time.Now()
		for range n {
			op()
		}
		if took := time.Since(start); took >= d/2 { // the last batch alone counts: the ones before were its warming up
			return float64(took.Nanoseconds()) / float64(n)
		}
	}
}
