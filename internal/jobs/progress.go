// How far a run is, for those who watch it. It is saved together with the checkpoint, so that it costs no command of its own.

package jobs

import "encoding/json"

// Progress is how far a run, or a range, is.
type Progress struct {
	// Percent is the progress in percent.
	Percent int
	// Counts is what was done to records by now, over all attempts. It is nil if that is not known.
	Counts *RecordCounts
	// Total is how many records the run, or the range, is to visit. It is 0 while that is not known.
	Total int64
}

// savedCounts is what Redis has of a Progress but for the percentage, as JSON.
type savedCounts struct {
	RecordCounts
	Total int64 `json:"total,omitempty"`
	// Totals is how many ranges have a total, in the sum of all ranges.
	Totals int `json:"totals,omitempty"`
}

// counts returns the counts as Redis has them. It is "" if nothing is known.
func (p Progress) counts() string {
	if p.Counts == nil && p.Total == 0 {
		return ""
	}
	saved := savedCounts{Total: p.Total}
	if p.Counts != nil {
		saved.RecordCounts = *p.Counts
	}
	text, _ := json.Marshal(saved) // it has numbers only
	return string(text)
}

// readCounts adds to a job what is done to its records by now, and how many there are: what its hash has, and what the hash of its
// ranges has. Of a split run it is the sum over its ranges. A full one has counted its records. Of an incremental one their number
// is known once each range has counted its own.
func readCounts(job *Job, ofRun, ofRanges string, splitComplete bool) {
	counts, known := parseCounts(ofRun)
	job.Total = counts.Total
	if job.Ranges > 0 {
		counts, known = parseCounts(ofRanges)
		if job.Total == 0 && splitComplete && counts.Totals == job.Ranges {
			job.Total = counts.Total
		}
	}
	if known {
		job.Counts = &counts.RecordCounts
	}
}

func parseCounts(text string) (counts savedCounts, known bool) {
	err := json.Unmarshal([]byte(text), &counts) // "" where nothing is known
	return counts, err == nil
}
