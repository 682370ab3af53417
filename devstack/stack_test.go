package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestUntilAnswer(t *testing.T) {
	t.Parallel()
	errNotYet := errors.New("not yet")
	closed := make(chan struct{})
	close(closed)
	for _, tt := range []struct {
		name    string
		ended   <-chan struct{}
		answers time.Duration // after which the server answers
		takes   time.Duration
		err     error
	}{
		{"at once", nil, 0, 0, nil},
		{"after a while", nil, 14 * time.Second, 14 * time.Second, nil},
		{"never", nil, time.Hour, answerTimeout, errNoAnswer},
		{"ended", closed, time.Hour, 0, errEnded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				err := untilAnswer(t.Context(), tt.ended, func(context.Context) error {
					if time.Since(start) < tt.answers {
						return errNotYet
					}
					return nil
				})
				if !errors.Is(err, tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
				if err != nil && !strings.Contains(err.Error(), errNotYet.Error()) {
					t.Errorf("error %v does not say what the last answer was", err)
				}
				if took := time.Since(start); took < tt.takes || took > tt.takes+answerPoll {
					t.Errorf("took %v, want %v", took, tt.takes)
				}
			})
		})
	}
}

func TestUntilAnswerBoundsEachQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		questions := 0
		start := time.Now()
		err := untilAnswer(t.Context(), nil, func(ctx context.Context) error {
			questions++
			<-ctx.Done()
			return ctx.Err()
		})
		if err == nil || time.Since(start) != answerTimeout || questions < 7 {
			t.Errorf("error %v after %v and %d questions, want one after %v and several questions",
				err, time.Since(start), questions, answerTimeout)
		}
	})
}

func TestRedisFromEnvironment(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		environ map[string]string
		address redisAddress
		found   bool
	}{
		{"nothing", nil, redisAddress{}, false},
		{"a database only", map[string]string{"REDIS_DB": "4", "REDIS_PASSWORD": "x"}, redisAddress{db: 4}, false},
		{"a host", map[string]string{"REDIS_HOST": "cache"}, redisAddress{host: "cache", port: "6379"}, true},
		{"a port", map[string]string{"REDIS_PORT": "7000"}, redisAddress{host: "127.0.0.1", port: "7000"}, true},
		{
			"all", map[string]string{"REDIS_HOST": "cache", "REDIS_PORT": "7000", "REDIS_DB": "4", "REDIS_PASSWORD": "x"},
			redisAddress{host: "cache", port: "7000", db: 4, password: "x"}, true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address, found, err := redisFromEnvironment(func(name string) string { return tt.environ[name] })
			if err != nil || address != tt.address || found != tt.found {
				t.Errorf("got %+v, %v, error %v; want %+v, %v", address, found, err, tt.address, tt.found)
			}
		})
	}
}

func TestLogTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	long := strings.Repeat("an old line\n", 1000) + "the last but one\nthe last\n"
	for _, tt := range []struct{ name, log, begins, ends string }{
		{"empty", " \n", "; it logged nothing", "; it logged nothing"},
		{"short", "one\ntwo\n", "; the end of its log:\n\tone\n", "\n\ttwo"},
		{"long", long, "; the end of its log:\n\tan old line\n", "\n\tthe last but one\n\tthe last"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.log), 0o600); err != nil {
				t.Fatal(err)
			}
			tail := (&serverProcess{logPath: path}).tail()
			if !strings.HasPrefix(tail, tt.begins) || !strings.HasSuffix(tail, tt.ends) || len(tail) > 2*logTail {
				t.Errorf("the tail is %q, want it to begin with %q and end with %q", tail, tt.begins, tt.ends)
			}
		})
	}
}

func TestRemoveAbandonedSparesOthers(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	old := time.Now().Add(-2 * abandonedAfter)
	make := func(abandoned, aged bool) string {
		dir, err := newTempDir()
		if err != nil {
			t.Fatal(err)
		}
		if abandoned {
			_ = dir.lock.Close()
		} else {
			t.Cleanup(dir.remove)
		}
		if aged {
			if err := os.Chtimes(filepath.Join(dir.path, tempDirLock), old, old); err != nil {
				t.Fatal(err)
			}
		}
		return dir.path
	}
	inUse, young, abandoned := make(false, true), make(true, false), make(true, true)
	removeAbandoned()
	for path, want := range map[string]bool{inUse: true, young: true, abandoned: false} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("directory in use, young, abandoned: %s, %s, %s; of %s: %v", inUse, young, abandoned, path, err)
		}
	}
}
