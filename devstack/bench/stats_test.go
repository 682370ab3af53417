package main

import "testing"

func TestMedianAndPercentiles(t *testing.T) {
	t.Parallel()
	var hundred []float64
	for i := 200; i > 0; i-- {
		hundred = append(hundred, float64(i))
	}
	for _, tt := range []struct {
		name               string
		values             []float64
		median, p50, p99   float64
		percentileOfZeroth float64
	}{
		{"one", []float64{7}, 7, 7, 7, 7},
		{"two", []float64{9, 1}, 5, 1, 9, 1},
		{"three", []float64{3, 1, 2}, 2, 2, 3, 1},
		{"two hundred", hundred, 100.5, 100, 198, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			first := tt.values[0]
			if m := median(tt.values); m != tt.median {
				t.Errorf("the median is %v, want %v", m, tt.median)
			}
			for p, want := range map[float64]float64{0: tt.percentileOfZeroth, 50: tt.p50, 99: tt.p99} {
				if v := percentile(tt.values, p); v != want {
					t.Errorf("percentile %v is %v, want %v", p, v, want)
				}
			}
			if tt.values[0] != first {
				t.Error("the values were sorted where they are")
			}
		})
	}
}

func TestSumCalls(t *testing.T) {
	t.Parallel()
	total, err := sumCalls("# Commandstats\r\ncmdstat_get:calls=21,usec=175,usec_per_call=8.33\r\n" +
		"cmdstat_config|get:calls=4,usec=1,usec_per_call=0.25,rejected_calls=0\r\n")
	if total != 25 || err != nil {
		t.Errorf("%d calls, error %v; want 25", total, err)
	}
	if _, err := sumCalls("cmdstat_get:kalls=2\r\n"); err == nil {
		t.Error("what cannot be read counts as nothing")
	}
}

func TestCheckResult(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, result string
		ok           bool
	}{
		{"all", `{"success":true,"usersProcessed":9,"usersUpdated":9,"errors":0,"duration":5,"timestamp":"2026-11-24T04:50:26.753Z"}`, true},
		{"one too few", `{"usersProcessed":9,"usersUpdated":8,"errors":0,"timestamp":"2026-11-24T04:50:26.753Z"}`, false},
		{"an error", `{"usersProcessed":10,"usersUpdated":9,"errors":1,"timestamp":"2026-11-24T04:50:26.753Z"}`, false},
		{"no time", `{"usersProcessed":9,"usersUpdated":9,"errors":0}`, false},
		{"nothing", ``, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ended, err := checkResult([]byte(tt.result), 9)
			if (err == nil) != tt.ok {
				t.Errorf("error %v, want one: %v", err, !tt.ok)
			}
			if tt.ok && ended.UnixMilli() != 1795495826753 {
				t.Errorf("it ended at %v", ended)
			}
		})
	}
}

func TestOthersLeaveOutTheSettingsInUse(t *testing.T) {
	t.Parallel()
	if n := len(tuning{4, 100}.others()); n != 8 {
		t.Errorf("%d others than one of nine", n)
	}
	if n := len(tuning{1, 100}.others()); n != 9 {
		t.Errorf("%d others than one of none", n)
	}
}
