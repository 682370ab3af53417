package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func sample() *report {
	r := &report{MeasuredOn: measuredOn{
		Product: "v1.2.3", MongoDB: "MongoDB 8.0.4 (mongod, standalone)", Redis: "Redis 7.0.15 (redis-server)",
		Cores: 2, Platform: "linux/amd64", Go: "go1.26.8", Settings: []string{"SYNC_WRITERS=4", "SYNC_BATCH_SIZE=100"},
	}}
	r.addMedians(figure{
		Section: "sync", What: "full sync, 10,000 users", Unit: "users/s", Against: "the driver alone",
		Samples: []float64{9000, 12_345.6, 13_000}, AgainstSamples: []float64{15_000, 16_000},
	})
	r.add(figure{Section: "sync", What: "cost of one user", Value: 81.04, Unit: "µs", Against: "another's", AgainstValue: 80})
	r.addMedians(figure{Section: "sync", What: "in turns", Unit: "s", Against: "not", Samples: []float64{2, 2, 1}, AgainstSamples: []float64{2.5, 2, 2}})
	r.add(figure{Section: "status", What: "GET /jobs/status", Value: 0.256, Unit: "ms", Against: "none waiting"})
	return r
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := sample().table(&out); err != nil {
		t.Fatal(err)
	}
	want := `codex-jobs  v1.2.3
MongoDB     MongoDB 8.0.4 (mongod, standalone)
Redis       Redis 7.0.15 (redis-server)
machine     2 cores, linux/amd64, go1.26.8
settings    SYNC_WRITERS=4 SYNC_BATCH_SIZE=100

WHAT                     FIGURE          COMPARED WITH             RATIO  FROM, TO
full sync, 10,000 users  12,346 users/s  the driver alone  15,500  0.80
cost of one user         81.0 µs         another's         80.0    1.01
in turns                 2.00 s          not               2.00    0.80   0.50, 1.00

GET /jobs/status         0.26 ms         none waiting      0.00    -
`
	if got := out.String(); got != want {
		t.Errorf("the table is\n%s\nwant\n%s", got, want)
	}
}

func TestTableSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	r := sample()
	r.Warnings = []string{"ON A TOY"}
	r.Notes = []string{"the weather, which is unknown"}
	r.Error = "measuring index: no\na log"
	var out strings.Builder
	if err := r.table(&out); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, want := range []string{"\nLeft out: the weather, which is unknown.\n", "!!! NOT COMPLETE: measuring index: no\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if lines := strings.SplitN(text, "\n", 3); len(lines) < 3 || lines[1] != "!!! ON A TOY" {
		t.Errorf("it does not begin with the warning:\n%s", text)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := sample().json(&out); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{"warnings", "notes"} {
		if value, isList := got[list].([]any); !isList || len(value) > 0 {
			t.Errorf("%s is %v, want an empty list", list, got[list])
		}
	}
	figures, _ := got["figures"].([]any)
	if len(figures) != 4 || got["error"] != "" {
		t.Fatalf("got %d figures, error %v", len(figures), got["error"])
	}
	first, _ := figures[0].(map[string]any)
	value, against := 12_345.6, 15_500.0
	for name, want := range map[string]any{
		"section": "sync", "what": "full sync, 10,000 users", "value": value, "unit": "users/s",
		"against": "the driver alone", "againstValue": against, "ratio": value / against,
	} {
		if first[name] != want {
			t.Errorf("%s is %v, want %v", name, first[name], want)
		}
	}
	if last, _ := figures[3].(map[string]any); last["ratio"] != nil {
		t.Errorf("the ratio to nothing is %v, want null", last["ratio"])
	}
}

// fullDisk is a writer that always fails.
type fullDisk struct{}

var errFull = errors.New("full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestUnwrittenReportIsAnError(t *testing.T) {
	t.Parallel()
	r := sample()
	for name, write := range map[string]error{"table": r.table(fullDisk{}), "JSON": r.json(fullDisk{})} {
		if !errors.Is(write, errFull) {
			t.Errorf("%s: error %v, want %v", name, write, errFull)
		}
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0.00", 0.256: "0.26", 3.14159: "3.14", 81.04: "81.0", 745: "745", 12_345.6: "12,346", 1_234_567: "1,234,567",
	} {
		if got := number(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
}
