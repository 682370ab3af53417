// The history: the collection in MongoDB that keeps what has ended, and for how long.

package config

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// History says what is kept of ended runs and of actions, and where.
type History struct {
	// Collection is the collection in the database of the records.
	Collection string
	// Keep is how long an entry is kept after the run's end; 0 for no history at all.
	Keep time.Duration
	// Records says what an entry has of records that failed: RecordNames, RecordIDs, or RecordsOff.
	Records string
}

// LogValue implements slog.LogValuer.
func (h History) LogValue() slog.Value {
	if h.Keep == 0 {
		return slog.StringValue("off")
	}
	return slog.StringValue(h.Collection + " for " + Days(h.Keep))
}

// Days writes a duration of whole days as such, such as 90d.
func Days(d time.Duration) string {
	if d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return short(d)
}

// The values of History.Records.
const (
	// RecordNames keeps the ID, the name and the reason.
	RecordNames = "names"
	// RecordIDs keeps the ID and the reason.
	RecordIDs = "ids"
	// RecordsOff keeps nothing.
	RecordsOff = "off"
)

func readHistory(r *reader) History {
	const theme = "History"
	g := r.group(theme, api, worker)
	return History{
		Collection: read(g, "HISTORY_COLLECTION", "job_runs", collectionName,
			"the collection that keeps ended runs and actions, in the database of the records; it must not be one of theirs"),
		Keep: read(g, "HISTORY_KEEP", "90d", keepTime,
			"how long ended runs and actions are kept there; a change holds for older entries, too; off keeps none"),
		Records: read(r.group(theme, worker), "HISTORY_RECORDS", RecordNames,
			oneOf("names, ids or off", RecordNames, RecordIDs, RecordsOff),
			"what is kept of the first 100 records that failed in a run: the ID, the name and the reason; the ID and the reason; or nothing"),
	}
}

// ownCollection is where the workers keep what identifies the database.
const ownCollection = "codex_jobs"

var collectionName = format[string]{
	mustBe: "a collection name of at most 100 bytes, without $ and not beginning with system., and not " + ownCollection,
	read:   asIs,
	valid: func(value string) bool {
		return len(value) <= 100 && !strings.ContainsAny(value, "$\x00") && !strings.HasPrefix(value, "system.") &&
			!strings.HasPrefix(value, ".") && !strings.HasSuffix(value, ".") && value != ownCollection
	},
}

const (
	day       = 24 * time.Hour
	leastKeep = time.Hour
	mostDays  = int(longest / day)
)

// keepTime is 0 for off. Days are what people keep things for, and time.ParseDuration does not know them.
var keepTime = format[time.Duration]{
	mustBe: fmt.Sprintf("off, or a duration from %s to %dd, such as 90d or 36h", short(leastKeep), mostDays),
	read: func(value string) (time.Duration, error) {
		if value == "off" {
			return 0, nil
		}
		keep, err := time.ParseDuration(value)
		if days, isDays := strings.CutSuffix(value, "d"); isDays {
			var n int
			if n, err = strconv.Atoi(days); n > mostDays {
				return 0, errInvalid
			}
			keep = time.Duration(n) * day
		}
		if err != nil || keep < leastKeep || keep > longest {
			return 0, errInvalid
		}
		return keep, nil
	},
}
