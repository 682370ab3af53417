package cli_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const waitID = "1795495826751:user-sync:mq4z2etl"

// look is one answer of the API about a job.
type look struct {
	status int // 0 breaks the connection
	body   string
}

func ok(state, more string) look {
	return look{200, data(`{"id":"` + waitID + `","job":"user-sync","state":"` + state + `","data":{"syncType":"full"},"attempts":3,` + more +
		`,"createdAt":"2026-11-24T04:50:26.751Z"}`)}
}

// follow lets the API answer with the looks, one after the other, and with the last one from then on.
func (f *fake) follow(looks ...look) *atomic.Int64 {
	var n atomic.Int64
	f.handle("GET /jobs/"+waitID, func(w http.ResponseWriter, r *http.Request) {
		l := looks[min(int(n.Add(1)), len(looks))-1]
		if l.status == 0 {
			panic(http.ErrAbortHandler)
		}
		answer(l.status, l.body)(w, r)
	})
	return &n
}

var (
	waits     = ok("waiting", `"progress":0,"attempt":0`)
	active0   = ok("active", `"progress":0,"attempt":1`)
	active5   = ok("active", `"progress":5,"attempt":1`)
	active42  = ok("active", `"progress":42,"attempt":1,"ranges":{"total":5,"ended":2}`)
	active43  = ok("active", `"progress":43,"attempt":1,"ranges":{"total":5,"ended":2}`)
	active60  = ok("active", `"progress":60,"attempt":2`)
	delayed   = ok("delayed", `"progress":43,"attempt":1,"error":"server\nselection","nextAttemptAt":"2026-11-24T04:50:41.500Z"`)
	toCome    = ok("delayed", `"progress":0,"attempt":0,"nextAttemptAt":"2026-11-24T04:50:41.500Z"`)
	completed = ok("completed", `"progress":100,"attempt":2,"result":{"success":true,"usersProcessed":2000,"usersUpdated":1999,"errors":1,"duration":4250,"timestamp":"2026-11-24T04:20:04.260Z"}`)
	failed    = ok("failed", `"progress":60,"attempt":3,"error":"server selection"`)
	cancelled = ok("failed", `"progress":43,"attempt":1,"error":"cancelled"`)
	noRedis   = look{503, `{"success":false,"message":"Redis is not available; try again later"}`}
	gone      = look{404, `{"success":false,"message":"there is no job"}`}
	refused   = look{401, `{"success":false,"message":"there was no API key"}`}
	cut       = look{}
)

// The output of a wait without a terminal, and its end.
func TestWait(t *testing.T) {
	t.Parallel()
	const begun = "User sync (full) triggered successfully: " + waitID + "\n"
	for _, test := range []struct {
		name   string
		looks  []look
		status int
		stderr []string
		state  string // the state of the job on stdout; "" for none
	}{
		{"delayed", []look{toCome, waits, active0, completed}, 0, []string{
			"  0 %  delayed, starts 2026-11-24 04:50:41", "  0 %  waiting", "  0 %  active", "100 %  completed, attempt 2 of 3",
		}, "completed"},
		{"completed", []look{waits, waits, active0, active5, active42, active43, delayed, active60, completed}, 0, []string{
			"  0 %  waiting", "  0 %  active", " 42 %  active, 2 of 5 ranges done",
			" 43 %  delayed, tried again 2026-11-24 04:50:41: server selection", " 60 %  active, attempt 2 of 3", "100 %  completed, attempt 2 of 3",
		}, "completed"},
		{"failed", []look{active5, failed}, 1, []string{
			"  5 %  active", " 60 %  failed, attempt 3 of 3", "codexctl: job " + waitID + " failed: server selection",
		}, "failed"},
		{"cancelled while active", []look{active5, cancelled}, 1, []string{
			"  5 %  active", " 43 %  failed", "codexctl: job " + waitID + " was cancelled",
		}, "failed"},
		{"cancelled while waiting", []look{waits, gone}, 1, []string{
			"  0 %  waiting", "codexctl: job " + waitID + " was cancelled: it no longer exists, and had not ended",
		}, ""},
		{"not kept", []look{active5, gone}, 3, []string{
			"  5 %  active", "codexctl: job " + waitID + " is no longer kept, so how it ended is not known: asking for job " + waitID + ": the server answered 404: there is no job",
		}, ""},
		{"Redis away for a while", []look{active5, noRedis, noRedis, completed}, 0, []string{
			"  5 %  active", "asking for job " + waitID + ": the server answered 503: Redis is not available; try again later; trying again",
			"the server is back", "100 %  completed, attempt 2 of 3",
		}, "completed"},
		{"a key that is not valid any more", []look{active5, refused}, 3, []string{
			"  5 %  active", "codexctl: asking for job " + waitID + ": the server answered 401: there was no API key",
		}, ""},
		{"Redis away for long", []look{active5, noRedis}, 3, []string{
			"  5 %  active", "asking for job " + waitID + ": the server answered 503: Redis is not available; try again later; trying again",
			"codexctl: asking for job " + waitID + ": the server answered 503: Redis is not available; try again later, for 1s; the job may go on without it",
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newSystem(t)
			f.follow(test.looks...)
			p := run(t, f.URL, "trigger", "user-sync", "--full", "--wait", "--output", "json")
			want := begun + strings.Join(test.stderr, "\n") + "\n"
			if p.status != test.status || p.err != want {
				t.Errorf("the exit status is %d, want %d; on stderr\n%s\nwant\n%s", p.status, test.status, p.err, want)
			}
			if test.state == "" {
				if p.out != "" {
					t.Errorf("on stdout %q", p.out)
				}
				return
			}
			var j struct{ ID, State string }
			if err := json.Unmarshal([]byte(p.out), &j); err != nil || j.ID != waitID || j.State != test.state {
				t.Errorf("on stdout %q, %v", p.out, err)
			}
		})
	}
}

// An API that is restarted does not end the waiting, nor is a job triggered twice.
func TestWaitOutlastsBrokenConnections(t *testing.T) {
	t.Parallel()
	f := newSystem(t)
	// net/http itself looks again, once, when a connection that was used before breaks.
	looks := f.follow(cut, cut, cut, waits, cut, cut, cut, cut, active5, cut, completed)
	p := run(t, f.URL, "trigger", "user-sync", "--wait")
	if p.status != 0 || strings.Count(p.err, "; trying again\n") != 2 || strings.Count(p.err, "the server is back\n") != 2 {
		t.Errorf("the exit status is %d, on stderr %s", p.status, p.err)
	}
	if !strings.Contains(p.out, "Result    2000 users processed, 1999 updated, 1 failed, in 4.3s\n") {
		t.Errorf("on stdout %s", p.out)
	}
	triggers := slices.DeleteFunc(f.seen(), func(r string) bool { return !strings.HasPrefix(r, "POST") })
	if looks.Load() < 11 || len(triggers) != 1 {
		t.Errorf("it looked %d times; it sent %q", looks.Load(), triggers)
	}
}

// The watch goes on when the server is back.
func TestWatch(t *testing.T) {
	t.Parallel()
	f := newSystem(t)
	var n atomic.Int64
	f.handle("GET /jobs/status?job=user-sync", func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 2:
			answer(503, noRedis.body)(w, r)
		case 4:
			answer(401, refused.body)(w, r) // ends the watch
		default:
			_, _ = io.WriteString(w, data(strings.Replace(userStatus, `"completed":10`, `"completed":`+strconv.Itoa(int(n.Load())), 1)))
		}
	})
	p := run(t, f.URL, "status", "user-sync", "--watch", "--interval", "100ms")
	if p.status != 3 || !strings.Contains(p.err, "503: Redis is not available; try again later; trying again\n") || !strings.Contains(p.err, "401") {
		t.Errorf("the exit status is %d, on stderr %s", p.status, p.err)
	}
	golden(t, "watch.txt", p.out)
}

// The other tests shorten the pauses. This one tests the binary's own, as far as that is quick.
func TestWaitOfTheBinary(t *testing.T) {
	t.Parallel()
	f := newSystem(t)
	f.follow(active5, cut, cut, completed)
	start := time.Now()
	p := call(t, nil, "trigger", "user-sync", "--wait", "--server", f.URL)
	if p.status != 0 || !strings.Contains(p.err, "trying again\nthe server is back\n100 %") {
		t.Errorf("the exit status is %d, on stderr %s", p.status, p.err)
	}
	if took := time.Since(start); took < 900*time.Millisecond || took > 20*time.Second {
		t.Errorf("its looks took %s", took)
	}
}
