// Syncs: job types that bring the records of a collection up to date.

package job

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// The values of Batch.SyncType.
const (
	// Full is the sync type of a run that visits every record.
	Full = "full"
	// Incremental is the sync type of a run that visits the records that are due: those that no run has synced within the
	// freshness. That is the interval of the schedule, or 20 minutes without one, and a setting can change it.
	Incremental = "incremental"
)

// Sync is a job type that visits the records of a MongoDB collection in batches. It gives each batch to Update, writes what that
// returns, and sets two dates of each record: SyncedField to the run's reference time, and UpdatedField to the time of the write.
// One run is active at a time. A large one is shared by all workers.
//
// A record is passed to Update twice only after a crash or a lost lease, before what Update returned for it was written, or after
// an error of Update itself. Update must bear that.
type Sync[T any] struct {
	// Name names the job type in URLs, settings, logs and metrics: lower-case words joined by hyphens.
	Name string
	// Title is the name in sentences, such as "User sync". The default is made of the Name.
	Title string
	// Noun is the log's word for a record, such as "user". The default is "record".
	Noun string
	// Collection is the name of the collection, in the database of MONGODB_DATABASE.
	Collection string
	// NameField is the field with what people call a record, for the log. It can be "".
	NameField string
	// Fields are the fields of a record that Update sees, and _id. A dotted path is a field within a field, and "*" alone means
	// all fields. The default is the fields of T, if that is a struct.
	Fields []string
	// Filter says which records take part, as a MongoDB query such as bson.D. nil means all.
	Filter any
	// MaxBatch is how many records a batch has at most, whatever settings and triggers say, because a service takes no more at a
	// time. 0 leaves it to them.
	MaxBatch int
	// SyncedField and UpdatedField are the names of the two dates. The defaults are "lastSynced" and "updatedAt". Two syncs of one
	// collection must have different ones.
	SyncedField, UpdatedField string
	// Update brings a batch up to date. It returns one Outcome for each record of the batch, in their order. Several goroutines call
	// it at the same time. An error fails the attempt, unless it is made with Wait, Halve or Permanent. When ctx ends, Update must
	// return soon. With nil, records only get their dates.
	Update func(ctx context.Context, batch *Batch[T]) ([]Outcome, error)
	Options
}

// Batch is the records that one call of Update works on.
type Batch[T any] struct {
	Attempt
	// SyncType is Full or Incremental.
	SyncType string
	// Records has from 1 to the batch size of them.
	Records []Record[T]
}

// Record is a record of a batch.
type Record[T any] struct {
	// ID is its _id for people to read: an ObjectID as hexadecimal digits, a string as it is, any other as Extended JSON.
	ID string
	// Name is the text in the NameField, or "".
	Name string
	// Data is the record's fields, decoded from BSON. A record that does not decode fails by itself, and Update does not see it. To
	// repair such records, take a type that takes all, such as bson.RawValue for a field, or bson.M with Fields.
	Data T
}

// Outcome is what becomes of a record. The zero value only sets its dates.
type Outcome struct {
	// Set is the fields to set, by name, and Unset the fields to remove. A dotted path is a field within a field.
	Set   map[string]any
	Unset []string
	// Err is why the record cannot be updated now. It counts as an error of the run, nothing of it changes, and the next run tries
	// again. A run fails only if each of at least 20 records fails.
	Err error
}

// NewSync returns the job type. Type.Err says what is wrong with it.
func NewSync[T any](s Sync[T]) Type {
	def := s.define(s.Name, s.Title, func() tasks.Payload { return new(tasks.SyncPayload) })
	def.Overall, def.Endpoint = 1, s.Update == nil
	t := jobtype.Type{Definition: def, Sync: &jobtype.Sync{Noun: s.Noun, MaxBatch: max(0, s.MaxBatch), Work: s.work}}
	if t.Sync.Noun == "" {
		t.Sync.Noun = "record"
	}
	t.Sync.Store, t.Err = s.store()
	return Type{t}
}

// store says which records the sync has.
func (s Sync[T]) store() (mongodb.Config, error) {
	if s.Collection == "" {
		return mongodb.Config{}, errors.New("its Collection is missing")
	}
	c := mongodb.Config{
		Collection: s.Collection, NameField: s.NameField, SyncedField: s.SyncedField, UpdatedField: s.UpdatedField,
	}
	if s.Update != nil {
		if c.Fields = s.Fields; c.Fields == nil {
			var err error
			if c.Fields, err = fieldsOf(reflect.TypeFor[T]()); err != nil {
				return mongodb.Config{}, err
			}
		}
	}
	if s.Filter != nil {
		data, err := bson.Marshal(s.Filter)
		if err == nil {
			err = bson.Unmarshal(data, &c.Filter)
		}
		if err != nil {
			return mongodb.Config{}, fmt.Errorf("its Filter must be a MongoDB query: %w", err)
		}
	}
	return c, c.Validate()
}

// fieldsOf returns the names in BSON of a struct's fields, as the driver names them.
func fieldsOf(t reflect.Type) ([]string, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("its Fields are missing: the records are of type %s, which does not name them", t)
	}
	fields := []string{"_id"}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("bson"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case strings.Contains(","+options+",", ",inline,"):
			inner, err := fieldsOf(f.Type)
			if err != nil {
				return nil, fmt.Errorf("its Fields are missing: %s is inlined, and is no struct", f.Name)
			}
			fields = append(fields, inner...)
		case name == "":
			fields = append(fields, strings.ToLower(f.Name))
		default:
			fields = append(fields, name)
		}
	}
	return fields, nil
}

// work returns what an attempt does with its batches.
func (s Sync[T]) work(a *jobtype.Attempt) syncrun.Work {
	if s.Update == nil {
		return syncrun.Stamping{}
	}
	syncType := ""
	if payload, ok := a.Payload.(*tasks.SyncPayload); ok {
		syncType = payload.SyncType
	}
	return updating[T]{s.Update, newAttempt(a), syncType}
}

// updating is the syncrun.Work of an Update.
type updating[T any] struct {
	update   func(context.Context, *Batch[T]) ([]Outcome, error)
	attempt  Attempt
	syncType string
}

// Do implements syncrun.Work. A record that does not decode fails by itself.
func (u updating[T]) Do(ctx context.Context, records []syncrun.Record) ([]syncrun.Outcome, error) {
	all := make([]syncrun.Outcome, len(records))
	batch := &Batch[T]{Attempt: u.attempt, SyncType: u.syncType, Records: make([]Record[T], 0, len(records))}
	var places []int // of the batch's records among all
	for i, record := range records {
		shown := Record[T]{ID: record.ID.String(), Name: record.Name}
		if data, ok := record.Data.(bson.Raw); ok {
			if raw, asItIs := any(&shown.Data).(*bson.Raw); asItIs {
				*raw = data
			} else if err := bson.Unmarshal(data, &shown.Data); err != nil {
				all[i].Err = fmt.Errorf("decoding the record: %w", err)
				continue
			}
		}
		batch.Records, places = append(batch.Records, shown), append(places, i)
	}
	if len(batch.Records) == 0 {
		return all, nil
	}
	outcomes, err := u.update(ctx, batch)
	if err != nil {
		wait := new(jobtype.WaitError)
		if errors.As(err, &wait) {
			return nil, &syncrun.WaitError{Err: err, After: wait.After}
		}
		return nil, err
	}
	if len(outcomes) != len(places) {
		return nil, jobtype.Permanent(fmt.Errorf("the job type's Update returned %d outcomes for a batch of %d records; it must return one for each",
			len(outcomes), len(places)))
	}
	for i, place := range places {
		all[place] = syncrun.Outcome(outcomes[i])
	}
	return all, nil
}
