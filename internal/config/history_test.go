package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
)

func TestHistory(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		set  []string
		want config.History
	}{
		{nil, config.History{Collection: "job_runs", Keep: 90 * day, Records: config.RecordNames}},
		{[]string{"HISTORY_KEEP=off"}, config.History{Collection: "job_runs", Records: config.RecordNames}},
		{
			[]string{"HISTORY_KEEP=3650d", "HISTORY_COLLECTION=ops.runs", "HISTORY_RECORDS=ids"},
			config.History{Collection: "ops.runs", Keep: 3650 * day, Records: config.RecordIDs},
		},
		{
			[]string{"HISTORY_KEEP=36h", "HISTORY_RECORDS=off"},
			config.History{Collection: "job_runs", Keep: 36 * time.Hour, Records: config.RecordsOff},
		},
	} {
		setup(t, "", test.set...)
		c, err := config.Load(codex.Registry())
		if err != nil || c.History != test.want {
			t.Errorf("%v: got %+v, %v; want %+v", test.set, c.History, err, test.want)
		}
	}
}

func TestInvalidHistoryIsRefused(t *testing.T) {
	const keep = "HISTORY_KEEP must be off, or a duration from 1h to 3650d, such as 90d or 36h, was "
	for set, want := range map[string]string{
		"HISTORY_KEEP=0":                                 keep,
		"HISTORY_KEEP=0d":                                keep,
		"HISTORY_KEEP=90":                                keep,
		"HISTORY_KEEP=-1d":                               keep,
		"HISTORY_KEEP=1.5d":                              keep,
		"HISTORY_KEEP=59m":                               keep,
		"HISTORY_KEEP=3651d":                             keep,
		"HISTORY_KEEP=9999999999999999999d":              keep,
		"HISTORY_KEEP=no":                                keep,
		"HISTORY_COLLECTION=a$b":                         "HISTORY_COLLECTION must be a collection name",
		"HISTORY_COLLECTION=system.users":                "HISTORY_COLLECTION must be a collection name",
		"HISTORY_COLLECTION=codex_jobs":                  "HISTORY_COLLECTION must be a collection name",
		"HISTORY_COLLECTION=.a":                          "HISTORY_COLLECTION must be a collection name",
		"HISTORY_RECORDS=all":                            "HISTORY_RECORDS must be names, ids or off, was \"all\"",
		"HISTORY_COLLECTION=" + strings.Repeat("x", 101): "HISTORY_COLLECTION must be a collection name",
	} {
		setup(t, "", set)
		if _, err := config.Load(codex.Registry()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", set, err, want)
		}
	}
}
