package syncrun_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// nameless is a store whose cursor reads no names. It knows them when it is asked.
type nameless struct {
	*memory
	asked [][]byte
	err   error
}

func (n *nameless) Scan(ctx context.Context, sel syncrun.Selection, within syncrun.Range) (syncrun.Cursor, error) {
	cursor, err := n.memory.Scan(ctx, sel, within)
	if sel.Named {
		return cursor, err
	}
	return namelessCursor{cursor}, err
}

type namelessCursor struct{ syncrun.Cursor }

func (c namelessCursor) Read(ctx context.Context, records []syncrun.Record) (int, error) {
	n, err := c.Cursor.Read(ctx, records)
	for i := range records[:n] {
		records[i].Name = ""
	}
	return n, err
}

func (n *nameless) Names(_ context.Context, keys [][]byte) (map[string]string, error) {
	n.asked = append(n.asked, keys...)
	names := make(map[string]string)
	for _, u := range n.users {
		if u.number != 3 { // deleted meanwhile
			names[string(u.key())] = fmt.Sprintf("user%d", u.number)
		}
	}
	if n.err != nil {
		return nil, n.err
	}
	return names, nil
}

// The checkpoint lists the first hundred records that failed, over all attempts, with what is asked for.
func TestFailedRecordsAreListed(t *testing.T) {
	t.Parallel()
	long := "too long: " + strings.Repeat("ä", 200)
	for name, c := range map[string]struct {
		keep syncrun.KeepFailed
		want syncrun.FailedRecord // the first
		n    int
	}{
		"names":   {syncrun.KeepNames, syncrun.FailedRecord{ID: "id-1", Name: "user1", Reason: "document failed validation"}, 100},
		"ids":     {syncrun.KeepIDs, syncrun.FailedRecord{ID: "id-1", Reason: "document failed validation"}, 100},
		"nothing": {syncrun.KeepNothing, syncrun.FailedRecord{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, 400)
			b.run.KeepFailed, b.run.Writers = c.keep, 1
			for i, u := range b.store.users {
				if i%2 == 0 {
					u.fails = errInvalid
				}
			}
			b.store.users[2].fails = errors.New(long)
			b.store.before = func(_ context.Context, operation string, records []syncrun.Record) error {
				if operation == "stamp" && records[0].State.(int) == 101 {
					return errors.New("told to")
				}
				return nil
			}
			if _, err := b.run.Do(t.Context()); err == nil {
				t.Fatal("the first attempt did not fail")
			}
			b.run.Resume, b.store.before = b.saved.checkpoint(t), nil
			if n := len(b.run.Resume.Failed); n != min(c.n, 50) {
				t.Errorf("the first attempt lists %d", n)
			}
			result := b.do(t)
			if result.Errors != 200 || len(result.Failed) != c.n {
				t.Fatalf("%d records failed, and %d are listed", result.Errors, len(result.Failed))
			}
			if c.n == 0 {
				return
			}
			if fmt.Sprint(result.Failed[0]) != fmt.Sprint(c.want) || result.Failed[99].ID != "id-199" {
				t.Errorf("the list is from %+v to %+v, want from %+v", result.Failed[0], result.Failed[99], c.want)
			}
			if r := result.Failed[1].Reason; len(r) > 300 || !utf8.ValidString(r) || !strings.HasPrefix(r, "too long: ää") || !strings.HasSuffix(r, "…") {
				t.Errorf("a long reason is %q", r)
			}
		})
	}
}

// A run that fails because of its records lists them, too. The next attempt begins anew, and so does its list.
func TestFailedRecordsOfAFailedRun(t *testing.T) {
	t.Parallel()
	b := setup(t, 30)
	b.run.KeepFailed = syncrun.KeepNames
	for _, u := range b.store.users {
		u.fails = errInvalid
	}
	for range 2 {
		result, err := b.run.Do(t.Context())
		if !errors.Is(err, syncrun.ErrAllFailed) || result.Processed != 30 || result.Errors != 30 || len(result.Failed) != 30 {
			t.Errorf("%v, with %d of %d, %d listed", err, result.Errors, result.Processed, len(result.Failed))
		}
		if b.run.Resume = b.saved.checkpoint(t); len(b.run.Resume.Failed) > 0 {
			t.Errorf("the next attempt begins with %d", len(b.run.Resume.Failed))
		}
	}
}

// The store is asked for the names of the records that have failed, and of no others. If the log shows each record, the names are read
// with the records. Without an answer the run goes on.
func TestNamesOfFailedRecords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		level slog.Level
		err   error
		asked int
		first string // deleted meanwhile, if the store must be asked
		name  string
	}{
		"found":        {slog.LevelInfo, nil, 2, "", "user20"},
		"not answered": {slog.LevelInfo, errGone, 2, "", ""},
		"all":          {slog.LevelDebug, nil, 0, "user3", "user20"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, 40)
			b.log.level = c.level
			store := &nameless{memory: b.store, err: c.err}
			b.run.Store, b.run.KeepFailed, b.run.Writers = store, syncrun.KeepNames, 1
			for _, n := range []int{3, 20} {
				b.store.users[n-1].fails = errInvalid
			}
			result := b.do(t)
			want := []syncrun.FailedRecord{{ID: "id-3", Name: c.first, Reason: errInvalid.Error()}, {ID: "id-20", Name: c.name, Reason: errInvalid.Error()}}
			if fmt.Sprint(result.Failed) != fmt.Sprint(want) || len(store.asked) != c.asked {
				t.Errorf("%+v, asked for %d; want %+v", result.Failed, len(store.asked), want)
			}
			if got, want := b.log.lines("User sync failed")[0], fmt.Sprintf("User sync failed userId=id-20 username=%s error=document failed validation", c.name); got != want {
				t.Errorf("logged %q, want %q", got, want)
			}
		})
	}
}
