// The payload and the result of syncs.

package tasks

import "time"

// DefaultFreshness is how old a stamp is before its record is due, in a sync without a schedule.
const DefaultFreshness = 20 * time.Minute

// The values of SyncPayload.SyncType.
const (
	// SyncFull visits every record.
	SyncFull = "full"
	// SyncIncremental visits the records that are due: not synced within the freshness.
	SyncIncremental = "incremental"
)

// The range of SyncPayload.BatchSize.
const (
	MinBatchSize = 1
	MaxBatchSize = 10_000
)

// SyncPayload is the payload of a sync.
type SyncPayload struct {
	// SyncType is SyncFull or SyncIncremental, the default.
	SyncType string `json:"syncType" options:"incremental,full"`
	// BatchSize is the number of records in a batch; nil leaves it to the worker's settings.
	BatchSize *int `json:"batchSize,omitempty" allowed:"a whole number from 1 to 10000"`
}

// UniqueKey returns the sync type: at most one full and one incremental run wait.
func (p *SyncPayload) UniqueKey() string { return p.SyncType }

// Validate sets an empty sync type to SyncIncremental. It returns a *FieldError for a wrong value.
func (p *SyncPayload) Validate() error {
	switch p.SyncType {
	case "":
		p.SyncType = SyncIncremental
	case SyncFull, SyncIncremental:
	default:
		return NewFieldError(p, "syncType", p.SyncType)
	}
	if p.BatchSize != nil && (*p.BatchSize < MinBatchSize || *p.BatchSize > MaxBatchSize) {
		return NewFieldError(p, "batchSize", *p.BatchSize)
	}
	return nil
}

// SyncResult is the result of a sync. Its fields are named after users, whatever its records are.
type SyncResult struct {
	// Success is true when the run reached its end.
	Success bool `json:"success"`
	// UsersProcessed is the number of records that the run visited. It updated them, failed to, or found them deleted.
	UsersProcessed int64 `json:"usersProcessed"`
	// UsersUpdated is the number of records that the run updated.
	UsersUpdated int64 `json:"usersUpdated"`
	// Errors is the number of records whose update failed.
	Errors int64 `json:"errors"`
	// Duration is the working time of the run over all its attempts, in milliseconds.
	Duration int64 `json:"duration"`
	// Timestamp is when the run ended, as TimestampLayout writes it.
	Timestamp string `json:"timestamp"`
	// Warnings say what is odd about the run, such as that its collection does not exist. There are none in most runs.
	Warnings []string `json:"warnings,omitempty"`
}

// TimestampLayout writes an instant as ISO 8601 with milliseconds, as JavaScript's Date.toISOString does. The API writes every
// instant so.
const TimestampLayout = "2006-01-02T15:04:05.000Z07:00"
