package main

import (
	"reflect"
	"testing"
	"time"
)

// start is an instant with a tick.
var start = time.Date(2026, time.November, 24, 4, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// Ticks come every 5 seconds: those at 5 to 25 are judged when there is no outage.
func TestJudgeTicks(t *testing.T) {
	t.Parallel()
	// byTick says when ticks were handled, both in seconds.
	type byTick map[float64]float64
	for _, tt := range []struct {
		name     string
		outages  []span
		handled  byTick
		enqueued map[float64]int
		want     tickVerdict
	}{
		{
			name: "all in time, one a little early", handled: byTick{5: 5, 10: 9.6, 15: 15.1, 20: 20, 25: 29.9},
			want: tickVerdict{due: 5},
		},
		{
			name: "one missed", handled: byTick{5: 5, 10: 10, 20: 20, 25: 25},
			want: tickVerdict{due: 5, missed: []time.Time{at(15)}},
		},
		{
			name: "one late", handled: byTick{5: 5, 10: 10, 15: 21, 20: 20, 25: 25},
			want: tickVerdict{due: 5, late: []time.Time{at(15)}},
		},
		{
			name: "one doubled", handled: byTick{5: 5, 10: 10, 15: 15, 20: 20, 25: 25}, enqueued: map[float64]int{10: 2, 15: 1},
			want: tickVerdict{due: 5, doubled: []time.Time{at(10)}},
		},
		{
			name: "an outage over two ticks, of which the later one is caught up", outages: []span{{at(9), at(17)}},
			handled: byTick{5: 5, 15: 18, 20: 20, 25: 25},
			want:    tickVerdict{due: 5, overtaken: 1, overdue: 1, slowest: time.Second},
		},
		{
			name: "none of the overdue ones is caught up", outages: []span{{at(9), at(14)}},
			handled: byTick{5: 5, 15: 15, 20: 20, 25: 25},
			want:    tickVerdict{due: 5, overtaken: 1}, // the next was due before the time of this one was up
		},
		{
			name: "the latest overdue one is not caught up", outages: []span{{at(9), at(14.5)}},
			handled: byTick{5: 5, 20: 20, 25: 25},
			want:    tickVerdict{due: 5, overtaken: 1, missed: []time.Time{at(15)}},
		},
		{
			name: "the latest overdue one is caught up too late", outages: []span{{at(9), at(16)}},
			handled: byTick{5: 5, 15: 21.5, 20: 20, 25: 25},
			want:    tickVerdict{due: 5, overtaken: 1, late: []time.Time{at(15)}},
		},
		{
			name: "an outage that ends and begins again", outages: []span{{at(9), at(12)}, {at(14), at(18)}},
			handled: byTick{5: 5, 15: 18.5, 20: 20, 25: 25},
			want:    tickVerdict{due: 5, overtaken: 1, overdue: 1, slowest: 500 * time.Millisecond},
		},
		{
			name: "handled in the moment before an outage", outages: []span{{at(10.1), at(13)}},
			handled: byTick{5: 5, 10: 10, 15: 15, 20: 20, 25: 25},
			want:    tickVerdict{due: 5},
		},
		{
			name: "an outage up to the end", outages: []span{{at(20.5), at(30)}},
			handled: byTick{5: 5, 10: 10},
			want:    tickVerdict{due: 3, missed: []time.Time{at(15)}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := tickFacts{
				every: 5 * time.Second, from: at(1), to: at(30), outages: tt.outages,
				handled: make(map[int64]time.Time), enqueued: make(map[int64]int),
			}
			for tick, when := range tt.handled {
				f.handled[at(tick).UnixMilli()] = at(when)
			}
			for tick, n := range tt.enqueued {
				f.enqueued[at(tick).UnixMilli()] = n
			}
			if v := f.judge(); !reflect.DeepEqual(v, tt.want) {
				t.Errorf("judged %+v, want %+v", v, tt.want)
			}
		})
	}
}
