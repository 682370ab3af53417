package syncjob_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/syncjob"
	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// named is records with names.
type named struct {
	*records
	names func(ctx context.Context) (map[string]string, error)
}

func (n *named) Names(ctx context.Context, _ [][]byte) (map[string]string, error) {
	return n.names(ctx)
}

// failing is a Work for which some records fail.
type failing map[byte]string

func (f failing) Do(_ context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	outcomes := make([]syncrun.Outcome, len(batch))
	for i, r := range batch {
		if reason := f[r.Key[0]]; reason != "" {
			outcomes[i].Err = errors.New(reason)
		}
	}
	return outcomes, nil
}

// The attempt gets the records that failed, those of earlier attempts first, with their names if the store tells them in time. It gets
// them whatever becomes of the attempt: the run may have been cancelled.
func TestFailedRecords(t *testing.T) {
	t.Parallel()
	names := func(context.Context) (map[string]string, error) {
		return map[string]string{"\x05": "bob", "\x3c": "eve"}, nil
	}
	resume := []byte(`{"after":"Cg==","total":95,"processed":10,"updated":9,"errors":1,"failed":[{"id":"7","name":"ada","reason":"earlier"}]}`)
	for name, c := range map[string]struct {
		keep     syncrun.KeepFailed
		names    func(context.Context) (map[string]string, error)
		resume   []byte
		spoil    func(cancel func()) func(*jobtype.Attempt) // changes the attempt
		want     []jobs.FailedRecord
		mustFail bool
	}{
		"names": {
			keep: syncrun.KeepNames, names: names, resume: resume,
			want: []jobs.FailedRecord{{ID: "7", Name: "ada", Reason: "earlier"}, {ID: "60", Name: "eve", Reason: "bad"}},
		},
		"ids": {keep: syncrun.KeepIDs, names: names, want: []jobs.FailedRecord{{ID: "5", Reason: "first"}, {ID: "60", Reason: "bad"}}},
		"off": {keep: syncrun.KeepNothing, names: names},
		"the store is away": {
			keep: syncrun.KeepNames, want: []jobs.FailedRecord{{ID: "5", Reason: "first"}, {ID: "60", Reason: "bad"}},
			names: func(context.Context) (map[string]string, error) { return nil, errors.New("away") },
		},
		"the store does not answer": {
			keep: syncrun.KeepNames, want: []jobs.FailedRecord{{ID: "5", Reason: "first"}, {ID: "60", Reason: "bad"}},
			names: func(ctx context.Context) (map[string]string, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		},
		"a range": {
			keep: syncrun.KeepNames, names: names, want: []jobs.FailedRecord{{ID: "5", Name: "bob", Reason: "first"}},
			spoil: func(func()) func(*jobtype.Attempt) {
				return func(a *jobtype.Attempt) { a.Range = []byte(`{"upto":"Eg=="}`) }
			},
		},
		"cancelled": {
			keep: syncrun.KeepNames, names: names, want: []jobs.FailedRecord{{ID: "5", Name: "bob", Reason: "first"}}, mustFail: true,
			spoil: func(cancel func()) func(*jobtype.Attempt) {
				return func(a *jobtype.Attempt) {
					save := a.Save
					a.Save = func(ctx context.Context, checkpoint []byte, progress int) error {
						cancel()
						return save(ctx, checkpoint, progress)
					}
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				store := &named{&records{n: 95, stamped: make(map[byte]int)}, c.names}
				work := failing{5: "first", 60: "bad"}
				handler := syncjob.New(store, syncjob.Options{
					Noun: "number", BatchSize: 10, Writers: 1, RangeSize: 1000, RetryBudget: time.Second, KeepFailed: c.keep,
					Work: func(*jobtype.Attempt) syncrun.Work { return work },
				})
				var saved []byte
				a := attempt(new(kept), &saved)
				a.Checkpoint = c.resume
				var got []jobs.FailedRecord
				a.Failed = func(list []jobs.FailedRecord) { got = list }
				var processed int64 = -1
				a.Count = func(n, _, _ int64) { processed = n }
				if c.spoil != nil {
					c.spoil(cancel)(a)
				}
				began := time.Now()
				result, err := handler(ctx, a)
				if (err != nil) != c.mustFail {
					t.Fatalf("%+v, %v", result, err)
				}
				if !reflect.DeepEqual(got, c.want) || processed <= 0 {
					t.Errorf("of %d failed %+v, want %+v", processed, got, c.want)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %s", took)
				}
				if end, isRange := result.(syncrun.Checkpoint); isRange && len(end.Failed) > 0 {
					t.Errorf("the range's result has %+v, which its run would never read", end.Failed)
				}
			})
		})
	}
}

// A run without records has done nothing, which is known.
func TestCountOfAnEmptyRun(t *testing.T) {
	t.Parallel()
	handler := syncjob.New(&records{stamped: make(map[byte]int)}, syncjob.Options{
		Noun: "number", BatchSize: 10, Writers: 1, RangeSize: 1000, RetryBudget: time.Second,
	})
	var saved []byte
	a := attempt(new(kept), &saved)
	var counted []int64
	a.Count = func(processed, updated, failed int64) { counted = append(counted, processed+updated+failed) }
	if _, err := handler(t.Context(), a); err != nil || len(counted) == 0 || counted[len(counted)-1] != 0 {
		t.Errorf("counted %v, %v", counted, err)
	}
}
