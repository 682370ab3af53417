package mongodb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

func inject(t *testing.T, f func() error) {
	t.Helper()
	if err := f(); err != nil {
		t.Fatal(err)
	}
}

func (b *testBundle) insertNumbered(t *testing.T, n int) {
	t.Helper()
	docs := make([]bson.D, n)
	for i := range docs {
		docs[i] = bson.D{{Key: "_id", Value: fmt.Sprintf("u%05d", i)}, {Key: "username", Value: fmt.Sprintf("user%05d", i)}}
	}
	b.insert(t, docs...)
}

// TestFailedRecordsAreReported lets single updates fail, in several commands of one batch.
func TestFailedRecordsAreReported(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{BulkSize: 4})
	b.insertNumbered(t, 18)
	records := b.scan(t, incremental, nil)
	// The first and the last of a bulk, a whole bulk, and the last one of all.
	bad := []any{"u00000", "u00003", "u00006", "u00008", "u00009", "u00010", "u00011", "u00017"}
	inject(t, func() error { return proxy.FailUpdates(121, "Document failed validation", bad...) })

	stamped, err := b.store.Stamp(t.Context(), updates(records), everything)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(len(records) - len(bad)); stamped.Matched != want {
		t.Errorf("matched %d, want %d", stamped.Matched, want)
	}
	var failed []any
	for _, f := range stamped.Failed {
		failed = append(failed, f.Record.ID.String())
		if f.Err == nil || f.Err.Error() != "Document failed validation" {
			t.Errorf("%v: the reason is %v", f.Record.ID, f.Err)
		}
	}
	if !slices.Equal(failed, bad) {
		t.Errorf("reported %v, want %v", failed, bad)
	}
	for _, r := range records {
		_, err := b.raw(t, r.ID.String()).LookupErr(lastSynced)
		if isBad := slices.Contains(bad, any(r.ID.String())); isBad != (err != nil) {
			t.Errorf("%v: failed: %v, stamped: %v", r.ID, isBad, err == nil)
		}
	}
	if n := proxy.BiggestUpdate(); n != 4 {
		t.Errorf("the biggest command carried %d updates, want 4", n)
	}

	// Once the reason has gone, only those are due that failed.
	inject(t, proxy.Heal)
	if stamped := b.stamp(t, b.scan(t, syncrun.Selection{Reference: reference.Add(time.Minute), Freshness: freshness}, nil), reference); stamped.Matched != int64(len(bad)) {
		t.Errorf("then matched %d, want %d", stamped.Matched, len(bad))
	}
}

// operations are the calls of a store that reach the server.
func operations(t *testing.T, b *testBundle) map[string]func(context.Context) error {
	records := b.scan(t, incremental, nil)
	return map[string]func(context.Context) error{
		"ping":  b.client.Ping,
		"split": func(ctx context.Context) error { _, err := b.store.EndOfRange(ctx, nil, 1); return err },
		"count": func(ctx context.Context) error {
			_, err := b.store.Count(ctx, incremental, syncrun.Range{})
			return err
		},
		"scan": func(ctx context.Context) error {
			cursor, err := b.store.Scan(ctx, incremental, syncrun.Range{})
			if err == nil {
				cursor.Close()
			}
			return err
		},
		"stamp": func(ctx context.Context) error {
			_, err := b.store.Stamp(ctx, updates(records), everything)
			return err
		},
	}
}

func TestGoneAndBack(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*faultproxy.Proxy){
		"refused":   (*faultproxy.Proxy).Refuse,
		"swallowed": (*faultproxy.Proxy).Swallow,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, proxy := setupFaulty(t, Config{ReadTimeout: 500 * time.Millisecond, WriteTimeout: 500 * time.Millisecond})
			b.insertNumbered(t, 3)
			calls := operations(t, b)
			fault(proxy)
			for what, call := range calls {
				started := time.Now()
				err := call(t.Context())
				if !errors.Is(err, syncrun.ErrUnavailable) || !canPass(err) { // the driver's error is in the chain
					t.Errorf("%s: %v", what, err)
				}
				if waited := time.Since(started); waited > pingTimeout+2*time.Second {
					t.Errorf("%s: noticed only after %s", what, waited)
				}
			}
			inject(t, proxy.Heal)
			for what, call := range calls {
				var err error
				testbed.Eventually(t, what+" works again", func() bool {
					err = call(t.Context())
					return err == nil || !errors.Is(err, syncrun.ErrUnavailable)
				})
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// TestSilentServerIsNoticed shows why reads may take long: the monitor notices a dead server long before their deadline.
func TestSilentServerIsNoticed(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{ReadTimeout: time.Hour, WriteTimeout: time.Hour})
	b.insertNumbered(t, 3)
	calls := operations(t, b)
	proxy.Swallow()
	for what, call := range calls {
		started := time.Now()
		err := call(t.Context())
		if waited := time.Since(started); !errors.Is(err, syncrun.ErrUnavailable) || waited > 20*time.Second {
			t.Errorf("%s: after %s: %v", what, waited, err)
		}
	}
}

func TestConnectionsBreak(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]faultproxy.Kind{"before": faultproxy.CutBefore, "after": faultproxy.CutAfter} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, proxy := setupFaulty(t, Config{})
			b.insertNumbered(t, 5)
			calls := operations(t, b)
			for what, command := range map[string]string{"split": "find", "count": "aggregate", "scan": "find", "stamp": "update"} {
				proxy.Inject(faultproxy.Fault{Command: command, Kind: kind})
				if err := calls[what](t.Context()); !errors.Is(err, syncrun.ErrUnavailable) || !mongo.IsNetworkError(err) {
					t.Errorf("%s: %v", what, err)
				}
				inject(t, proxy.Heal)
				testbed.Eventually(t, what+" works again", func() bool { return calls[what](t.Context()) == nil })
			}
			// Whether or not the lost command was executed, doing it again made it right.
			for _, r := range b.scan(t, everything, nil) {
				if got := lastSyncedOf(b.raw(t, r.ID.String())); got != at(0) {
					t.Errorf("%v: lastSynced is %v", r.ID, got)
				}
			}
		})
	}
}

func TestCursorBreaksHalfway(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]faultproxy.Fault{
		"connection":       {Command: "getMore", Kind: faultproxy.CutBefore},
		"cursor not found": {Command: "getMore", Code: 43, Message: "cursor id 1 not found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, proxy := setupFaulty(t, Config{})
			b.insertNumbered(t, fetchSize+20)
			cursor, err := b.store.Scan(t.Context(), incremental, syncrun.Range{})
			if err != nil {
				t.Fatal(err)
			}
			proxy.Inject(fault)
			var last syncrun.Record
			for n := 0; ; n++ {
				record, ok, err := next(t, cursor)
				if err != nil {
					if n != fetchSize || !errors.Is(err, syncrun.ErrUnavailable) {
						t.Errorf("after %d records: %v", n, err)
					}
					break
				}
				if !ok {
					t.Fatal("came to the end without an error")
				}
				last = record
			}
			cursor.Close()
			var rest []syncrun.Record
			testbed.Eventually(t, "the server is back", func() bool {
				_, err := b.store.Count(t.Context(), incremental, syncrun.Range{})
				return err == nil
			})
			rest = b.scan(t, incremental, last.Key)
			if len(rest) != 20 {
				t.Errorf("%d records are left, want 20", len(rest))
			}
		})
	}
}

func TestEachFetchHasADeadline(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{ReadTimeout: 300 * time.Millisecond})
	b.insertNumbered(t, fetchSize+20)
	var cursor syncrun.Cursor
	var err error
	testbed.Eventually(t, "the first fetch within its deadline, of a busy server", func() bool {
		cursor, err = b.store.Scan(t.Context(), incremental, syncrun.Range{})
		return err == nil
	})
	defer cursor.Close()
	proxy.Swallow()
	for n := 0; ; n++ {
		if _, _, err = next(t, cursor); err != nil {
			if n != fetchSize || !errors.Is(err, syncrun.ErrUnavailable) || !mongo.IsTimeout(err) {
				t.Errorf("after %d records: %v", n, err)
			}
			break
		}
	}
	inject(t, proxy.Heal)
}

func TestErrorCodes(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]bool{
		91: true, 10107: true, 11600: true, 50: true, 262: true, 2: false, 13: false, 18: false, 8000: false,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			b, proxy := setupFaulty(t, Config{})
			b.insertNumbered(t, 3)
			calls := operations(t, b)
			for what, command := range map[string]string{"split": "find", "count": "aggregate", "scan": "find", "stamp": "update"} {
				proxy.Inject(faultproxy.Fault{Command: command, Code: code, Message: "so it is", Times: faultproxy.Always})
				err := calls[what](t.Context())
				var driver mongo.CommandError
				if errors.Is(err, syncrun.ErrUnavailable) != want || !errors.As(err, &driver) || int(driver.Code) != code {
					t.Errorf("%s, as a command's error: %v", what, err)
				}
				inject(t, proxy.Heal)
				testbed.Eventually(t, what+" works again", func() bool { return calls[what](t.Context()) == nil })
			}

			inject(t, func() error { return proxy.FailUpdates(code, "so it is", "u00001") })
			stamped, err := b.store.Stamp(t.Context(), updates(b.scan(t, everything, nil)), everything)
			if want && !errors.Is(err, syncrun.ErrUnavailable) {
				t.Errorf("as a write error: %+v, %v", stamped, err)
			}
			if !want && (err != nil || len(stamped.Failed) != 1) {
				t.Errorf("as a write error: %+v, %v", stamped, err)
			}
		})
	}
}

func TestWriteConcernErrorIsUnavailable(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{})
	b.insertNumbered(t, 3)
	records := b.scan(t, incremental, nil)
	proxy.Inject(faultproxy.Fault{Command: "update", Kind: faultproxy.WriteConcernError, Code: 64, Message: "waiting for replication timed out"})
	inject(t, func() error { return proxy.FailUpdates(121, "Document failed validation", "u00001") })
	_, err := b.store.Stamp(t.Context(), updates(records), everything)
	var written mongo.WriteException
	if !errors.Is(err, syncrun.ErrUnavailable) || !errors.As(err, &written) || written.WriteConcernError.Code != 64 {
		t.Errorf("%v", err)
	}
}

func TestLabelledErrorIsUnavailable(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{})
	b.insertNumbered(t, 3)
	records := b.scan(t, incremental, nil)
	proxy.Inject(faultproxy.Fault{Command: "update", Code: 8000, Message: "busy", Labels: []string{"RetryableWriteError"}, Times: faultproxy.Always})
	if _, err := b.store.Stamp(t.Context(), updates(records), everything); !errors.Is(err, syncrun.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{})
	b.insertNumbered(t, 3)
	reason := errors.New("the run was cancelled")
	calls := operations(t, b)
	proxy.Swallow()
	for what, call := range calls {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(reason) })
		started := time.Now()
		if err := call(ctx); !errors.Is(err, reason) || errors.Is(err, syncrun.ErrUnavailable) {
			t.Errorf("%s: %v, want the caller's reason", what, err)
		}
		if waited := time.Since(started); waited > 5*time.Second {
			t.Errorf("%s: gave up only after %s", what, waited)
		}
		cancel(nil)
	}
}

func TestErrorsSayWhatWasBeingDone(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{})
	b.insertNumbered(t, 3)
	calls := operations(t, b)
	for what, want := range map[string]string{
		"split": "splitting records of ", "count": "counting records of ", "scan": "reading records of ", "stamp": "updating records of ",
	} {
		for _, command := range []string{"aggregate", "find", "update"} {
			proxy.Inject(faultproxy.Fault{Command: command, Code: 13, Message: "not authorized"})
		}
		want += b.users.Database().Name() + ".users: "
		if err := calls[what](t.Context()); err == nil || len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
			t.Errorf("%s: %v", what, err)
		}
		inject(t, proxy.Heal)
	}
}
