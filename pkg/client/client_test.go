package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// server answers every request alike and keeps the last one.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	request string // method, path with query, body
	header  http.Header
}

func serve(t *testing.T, status int, body string) *server {
	t.Helper()
	s := new(server)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.request, s.header = strings.TrimSpace(r.Method+" "+r.RequestURI+" "+string(sent)), r.Header
		s.mu.Unlock()
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

func newClient(t *testing.T, url string, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	id  = "1795495826751:user-sync:mq4z2etl"
	job = `{"id":"1795495826751:user-sync:mq4z2etl","job":"user-sync","state":"active","data":{"syncType":"full"},"progress":55,"attempt":2,` +
		`"attempts":3,"error":"once","rescues":[{"at":"2026-11-24T04:50:27.050Z","range":1,"lostWorker":"v","worker":"w"}],"ranges":{"total":5,"ended":2},"createdAt":"2026-11-24T04:50:26.750Z","startedAt":"2026-11-24T04:50:27.100Z"}`
	ended = `{"id":"1795495826751:user-sync:mq4z2etl","job":"user-sync","state":"completed","data":{"syncType":"full"},"progress":100,"attempt":1,"attempts":3,` +
		`"result":{"success":true,"usersProcessed":5,"usersUpdated":4,"errors":1,"duration":340,"timestamp":"2026-11-24T04:50:30.200Z"},` +
		`"createdAt":"2026-11-24T04:50:26.750Z","endedAt":"2026-11-24T04:50:30.000Z"}`
	status = `{"repeatableJobs":[{"name":"__default__","key":"user-sync:@every 20m","every":1200000,"next":1795496400000},` +
		`{"name":"__default__","key":"issue-sync:0 9 * * 1-5","every":null,"next":1795510800000}],` +
		`"counts":{"active":1,"waiting":2,"completed":3,"failed":4,"delayed":5},"paused":true,` +
		`"activeJobs":[{"id":"1795495826751:user-sync:mq4z2etl","data":{"syncType":"full"},"progress":55}]}`
	schedules = `[{"job":"user-sync","spec":"@every 20m","every":1200000,"next":"2026-11-24T05:00:00.000Z","previous":"2026-11-24T04:40:00.000Z","paused":false},` +
		`{"job":"issue-sync","spec":"0 9 * * 1-5","every":null,"next":"2026-11-24T09:00:00.000Z","previous":null,"paused":true}]`
	jobTypes = `[{"name":"user-sync","title":"User sync","schedule":"@every 20m","paused":false,"attempts":3,"overall":1,` +
		`"fields":[{"name":"syncType","type":"string","allowed":"\"incremental\" or \"full\""}]},` +
		`{"name":"nightly-report","title":"Nightly report","schedule":null,"paused":true,"attempts":1,"fields":[]}]`
	processes  = `[{"role":"scheduler","id":"host-a:17:MQ4Z2E","lastSeen":"2026-11-24T04:50:25.120Z"},{"role":"worker","id":"host-b:1:ZZ11AA","lastSeen":"2026-11-24T04:50:26.001Z","version":"v1.4.0","startedAt":"2026-11-24T03:20:00.000Z","doing":[{"job":"1795495826751:user-sync:mq4z2etl","range":0}]}]`
	historyRun = `{"id":"1795495826751:user-sync:mq4z2etl","kind":"run","job":"user-sync","at":"2026-11-24T04:50:30.215Z","by":{"kind":"retry","key":"ops","at":"2026-11-24T04:50:26.750Z"},` +
		`"state":"failed","data":{"syncType":"full"},"startedAt":"2026-11-24T04:50:26.757Z","duration":3458,"attempt":1,"attempts":3,"error":"no",` +
		`"endedAttempts":[{"number":1,"startedAt":"2026-11-24T04:50:26.757Z","endedAt":"2026-11-24T04:50:30.215Z","worker":"w","outcome":"failed","error":"no"}],"rescues":[{"at":"2026-11-24T04:50:27.000Z","worker":"w"}],` +
		`"counts":{"processed":3,"updated":2,"failed":1},"result":{"success":false},"failedRecords":[{"id":"65a1","name":"ada","reason":"bad"}],` +
		`"ranges":[{"index":0,"worker":"w","startedAt":"2026-11-24T04:50:27.000Z","endedAt":"2026-11-24T04:50:29.000Z","outcome":"failed",` +
		`"counts":{"processed":3,"updated":2,"failed":1},"error":"no"}],"rangesTotal":2,"traceId":"0af7651916cd43dd8448eb211c80319c"}`
	historyActions = `{"id":"1:user-sync:cleanup:a","kind":"cleanup","job":"user-sync","at":"2026-11-24T04:50:26.740Z","removed":{"completed":2,"failed":1}},` +
		`{"id":"1:user-sync:cancel:a","kind":"cancel","job":"user-sync","at":"2026-11-24T04:50:26.740Z","by":{"kind":"api"},"target":"0:user-sync"}`
	historyPage = `{"entries":[` + historyRun + `,` + historyActions + `],"next":"TmV4dA"}`
	health      = `{"status":"OK","timestamp":"2026-11-24T04:50:26.740Z","uptime":11,"database":{"status":"connected","responseTime":3},` +
		`"redis":{"status":"connected","responseTime":0},"jobs":{"initialized":false,"workers":0,"schedulers":1,"missing":["a live worker"]}}`
)

func data(s string) string { return `{"success":true,"message":"done","data":` + s + `}` }

// Each method: what it sends, and what it makes of the answer. The types hold everything that the API says: as JSON they
// are its data again.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	message := func(s string, err error) (any, error) { return map[string]string{"message": s}, err }
	for _, test := range []struct {
		name    string
		request string
		answer  string
		call    func(context.Context, *client.Client) (any, error)
		want    string // as JSON
	}{
		{"health", "GET /health", health, func(ctx context.Context, c *client.Client) (any, error) { return c.Health(ctx) }, health},
		{"status of the user sync", "GET /jobs/status", data(status), func(ctx context.Context, c *client.Client) (any, error) { return c.Status(ctx, "") }, status},
		{"status of all", "GET /jobs/status?job=all", data(status), func(ctx context.Context, c *client.Client) (any, error) { return c.Status(ctx, client.AllJobs) }, status},
		{"history", "GET /history", data(historyPage), func(ctx context.Context, c *client.Client) (any, error) {
			return c.History(ctx, client.HistoryFilter{})
		}, historyPage},
		{"history by all filters", "GET /history?cursor=TmV4dA&from=2026-11-24T03%3A50%3A26.740Z&job=user-sync&kind=run&limit=7&state=failed&text=a+b&to=2026-11-25T00%3A00%3A00.000Z", data(`{"entries":[]}`),
			func(ctx context.Context, c *client.Client) (any, error) {
				return c.History(ctx, client.HistoryFilter{
					Job: "user-sync", State: client.StateFailed, Kind: client.HistoryRun, Text: "a b", Limit: 7, Cursor: "TmV4dA",
					From: time.Date(2026, 11, 24, 4, 50, 26, 740_000_000, time.FixedZone("", 3600)), To: time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC),
				})
			}, `{"entries":[]}`},
		{"history entry", "GET /history/" + id, data(historyRun), func(ctx context.Context, c *client.Client) (any, error) { return c.HistoryEntry(ctx, id) }, historyRun},
		{"trigger", "POST /jobs/trigger/user-sync", data(`{"jobId":"1:user-sync:a","coalesced":true}`), func(ctx context.Context, c *client.Client) (any, error) {
			return c.Trigger(ctx, "user-sync", nil)
		}, `{"jobId":"1:user-sync:a","coalesced":true}`},
		{"trigger with a payload", `POST /jobs/trigger/issue-sync {"syncType":"full","batchSize":7}`, data(`{"jobId":"1:issue-sync:a","coalesced":false}`), func(ctx context.Context, c *client.Client) (any, error) {
			return c.Trigger(ctx, "issue-sync", client.SyncPayload{SyncType: client.SyncFull, BatchSize: 7})
		}, `{"jobId":"1:issue-sync:a","coalesced":false}`},
		{"trigger with another payload", `POST /jobs/trigger/mail {"to":"a"}`, data(`{"jobId":"1:mail:a","coalesced":false}`), func(ctx context.Context, c *client.Client) (any, error) {
			return c.Trigger(ctx, "mail", map[string]any{"to": "a"})
		}, `{"jobId":"1:mail:a","coalesced":false}`},
		{"trigger after a time", `POST /jobs/trigger/user-sync {"delay":601,"syncType":"full"}`,
			data(`{"jobId":"1:user-sync:a","coalesced":false,"runAt":"2026-11-24T04:50:41.500Z"}`), func(ctx context.Context, c *client.Client) (any, error) {
				return c.Trigger(ctx, "user-sync", client.SyncPayload{SyncType: client.SyncFull}, client.Delay(600*time.Millisecond+1))
			}, `{"jobId":"1:user-sync:a","coalesced":false,"runAt":"2026-11-24T04:50:41.500Z"}`},
		{"trigger at an instant", `POST /jobs/trigger/user-sync {"runAt":"2026-11-24T04:50:41.5Z"}`,
			data(`{"jobId":"1:user-sync:a","coalesced":false,"runAt":"2026-11-24T04:50:41.500Z"}`), func(ctx context.Context, c *client.Client) (any, error) {
				at := time.Date(2026, 11, 24, 5, 50, 41, 500_000_000, time.FixedZone("", 3600))
				return c.Trigger(ctx, "user-sync", nil, client.RunAt(at))
			}, `{"jobId":"1:user-sync:a","coalesced":false,"runAt":"2026-11-24T04:50:41.500Z"}`},
		{"pause the user sync", "POST /jobs/pause {}", data("null"), func(ctx context.Context, c *client.Client) (any, error) { return message(c.Pause(ctx, "")) }, `{"message":"done"}`},
		{"pause", `POST /jobs/pause {"job":"issue-sync"}`, `{"success":true,"message":"done"}`, func(ctx context.Context, c *client.Client) (any, error) { return message(c.Pause(ctx, "issue-sync")) }, `{"message":"done"}`},
		{"resume", `POST /jobs/resume {"job":"issue-sync"}`, `{"success":true,"message":"done"}`, func(ctx context.Context, c *client.Client) (any, error) { return message(c.Resume(ctx, "issue-sync")) }, `{"message":"done"}`},
		{"clean up", `POST /jobs/cleanup {"gracePeriodHours":1.5}`, data(`{"completed":1,"failed":2}`), func(ctx context.Context, c *client.Client) (any, error) {
			return c.Cleanup(ctx, "", 90*time.Minute)
		}, `{"completed":1,"failed":2}`},
		{"clean up another job's", `POST /jobs/cleanup {"gracePeriodHours":0,"job":"issue-sync"}`, data(`{"completed":1,"failed":2}`), func(ctx context.Context, c *client.Client) (any, error) {
			return c.Cleanup(ctx, "issue-sync", 0)
		}, `{"completed":1,"failed":2}`},
		{"retry all failed", `POST /jobs/retry-failed {}`, data(`{"retried":3,"left":1}`), func(ctx context.Context, c *client.Client) (any, error) {
			return c.RetryFailed(ctx, "")
		}, `{"retried":3,"left":1}`},
		{"cancel all waiting", `POST /jobs/cancel-waiting {"job":"all"}`, data(`{"removed":3,"left":1}`), func(ctx context.Context, c *client.Client) (any, error) {
			return c.CancelWaiting(ctx, client.AllJobs)
		}, `{"removed":3,"left":1}`},
		{"test notifications", "POST /notify/test", data(`{"id":"1:notify:a","delivered":true,"status":204}`), func(ctx context.Context, c *client.Client) (any, error) {
			return c.TestNotification(ctx)
		}, `{"id":"1:notify:a","delivered":true,"status":204}`},
		{"list", "GET /jobs", data(`{"jobs":[],"total":0,"page":1,"pageSize":20}`), func(ctx context.Context, c *client.Client) (any, error) {
			return c.Jobs(ctx, client.Filter{})
		}, `{"jobs":[],"total":0,"page":1,"pageSize":20}`},
		{"list some", "GET /jobs?job=user-sync&page=2&pageSize=5&state=failed", data(`{"jobs":[` + job + "," + ended + `],"total":7,"page":2,"pageSize":5}`), func(ctx context.Context, c *client.Client) (any, error) {
			return c.Jobs(ctx, client.Filter{Job: "user-sync", State: client.StateFailed, Page: 2, PageSize: 5})
		}, `{"jobs":[` + job + "," + ended + `],"total":7,"page":2,"pageSize":5}`},
		{"job", "GET /jobs/" + id, data(job), func(ctx context.Context, c *client.Client) (any, error) { return c.Job(ctx, id) }, job},
		{"ended job", "GET /jobs/" + id, data(ended), func(ctx context.Context, c *client.Client) (any, error) { return c.Job(ctx, id) }, ended},
		{"cancel", "DELETE /jobs/" + id, data(`{"id":"` + id + `","state":"removed"}`), func(ctx context.Context, c *client.Client) (any, error) { return c.Cancel(ctx, id) }, `{"id":"` + id + `","state":"removed"}`},
		{"cancel an odd one", "DELETE /jobs/a%2Fb%3Fc%20%25d:%C3%A4", data(`{"id":"a","state":"removed"}`), func(ctx context.Context, c *client.Client) (any, error) { return c.Cancel(ctx, "a/b?c %d:ä") }, `{"id":"a","state":"removed"}`},
		{"retry", "POST /jobs/" + id + "/retry", data(`{"id":"` + id + `","state":"waiting"}`), func(ctx context.Context, c *client.Client) (any, error) { return c.Retry(ctx, id) }, `{"id":"` + id + `","state":"waiting"}`},
		{"job types", "GET /job-types", data(`{"jobTypes":` + jobTypes + `}`), func(ctx context.Context, c *client.Client) (any, error) { return c.JobTypes(ctx) }, jobTypes},
		{"whoami", "GET /whoami", data(`{"key":"ops","write":true}`), func(ctx context.Context, c *client.Client) (any, error) { return c.Whoami(ctx) }, `{"key":"ops","write":true}`},
		{"processes", "GET /processes", data(`{"processes":` + processes + `}`), func(ctx context.Context, c *client.Client) (any, error) { return c.Processes(ctx) }, processes},
		{"schedules", "GET /schedules", data(`{"schedules":` + schedules + `}`), func(ctx context.Context, c *client.Client) (any, error) { return c.Schedules(ctx) }, schedules},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, http.StatusOK, test.answer)
			got, err := test.call(t.Context(), newClient(t, s.URL))
			if err != nil {
				t.Fatal(err)
			}
			if s.request != test.request {
				t.Errorf("sent was %s, want %s", s.request, test.request)
			}
			if encoded, err := json.Marshal(got); err != nil || !sameJSON(t, string(encoded), test.want) {
				t.Errorf("got %s, %v, want %s", encoded, err, test.want)
			}
			if strings.Contains(test.request, "{") && s.header.Get("Content-Type") != "application/json" {
				t.Errorf("the header is %v", s.header)
			}
			// An API that is behind a path of a proxy.
			if _, err := test.call(t.Context(), newClient(t, s.URL+"/co%20dex/")); err != nil {
				t.Fatal(err)
			}
			if want := strings.Replace(test.request, " /", " /co%20dex/", 1); s.request != want {
				t.Errorf("sent was %s, want %s", s.request, want)
			}
		})
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var left, right any
	if err := errors.Join(json.Unmarshal([]byte(a), &left), json.Unmarshal([]byte(b), &right)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(left, right)
}

// Instants are written as the API writes them, whatever zone they are in.
// All pages follow each other, until the caller has enough, or the server fails.
func TestAllHistory(t *testing.T) {
	t.Parallel()
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cursor := r.URL.Query().Get("cursor")
		asked = append(asked, r.URL.Query().Get("job")+cursor)
		switch cursor {
		case "":
			_, _ = io.WriteString(w, data(`{"entries":[{"id":"1"},{"id":"2"}],"next":"b"}`))
		case "b":
			_, _ = io.WriteString(w, data(`{"entries":[{"id":"3"}],"next":"c"}`))
		case "c":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	c := newClient(t, s.URL)
	for enough, want := range map[int]string{1: "1 [a]", 3: "1 2 3 [a ab]", 9: "1 2 3 failed [a ab ac]"} {
		asked = nil
		var got []string
		for e, err := range c.AllHistory(t.Context(), client.HistoryFilter{Job: "a"}) {
			if err != nil {
				e.ID = "failed"
			}
			if got = append(got, e.ID); len(got) == enough {
				break
			}
		}
		if text := fmt.Sprint(strings.Join(got, " "), " ", asked); text != want {
			t.Errorf("for %d entries got %s, want %s", enough, text, want)
		}
	}
}

func TestTime(t *testing.T) {
	t.Parallel()
	at := client.Time{Time: time.Date(2026, 11, 24, 6, 50, 0, 0, time.FixedZone("", 7200))}
	if text, err := json.Marshal(at); err != nil || string(text) != `"2026-11-24T04:50:00.000Z"` {
		t.Errorf("got %s, %v", text, err)
	}
	var back client.Time
	if err := json.Unmarshal([]byte(`"2026-11-24T04:50:00.000Z"`), &back); err != nil || !back.Equal(at.Time) {
		t.Errorf("got %s, %v", back, err)
	}
}

func TestAPIKey(t *testing.T) {
	t.Parallel()
	s := serve(t, http.StatusOK, health)
	for key, want := range map[string]string{"": "", "k3y": "Bearer k3y"} {
		if _, err := newClient(t, s.URL, client.WithAPIKey(key)).Health(t.Context()); err != nil || s.header.Get("Authorization") != want {
			t.Errorf("%q: the header is %q, %v", key, s.header.Get("Authorization"), err)
		}
	}
	for _, key := range []string{"s3cret\n", "s3cret s3cret", "s3cretä"} {
		if _, err := client.New(s.URL, client.WithAPIKey(key)); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "/", "localhost", "localhost:4000", "127.0.0.1:4000", "ftp://localhost", "http://", "http://localhost?x=1", "http://localhost#x", "http://a b", "unix:/x"} {
		if _, err := client.New(url); err == nil || !strings.Contains(err.Error(), "it must be one such as http://127.0.0.1:4000") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// What an answer that is none of success becomes.
func TestErrors(t *testing.T) {
	t.Parallel()
	const refused = `{"success":false,"message":"because"}`
	type is struct{ notFound, conflict, unauthorized, forbidden, temporary bool }
	for _, test := range []struct {
		status int
		body   string
		want   string
		is     is
	}{
		{400, refused, "the server answered 400: because", is{}},
		{401, refused, "the server answered 401: because", is{unauthorized: true}},
		{403, refused, "the server answered 403: because", is{forbidden: true}},
		{404, refused, "the server answered 404: because", is{notFound: true}},
		{409, refused, "the server answered 409: because", is{conflict: true}},
		{429, refused, "the server answered 429: because", is{temporary: true}},
		{501, refused, "the server answered 501: because", is{}},
		{503, refused, "the server answered 503: because", is{temporary: true}},
		{502, "<html>Bad Gateway</html>", "the server answered 502: Bad Gateway", is{temporary: true}},
		{500, "", "the server answered 500: Internal Server Error", is{temporary: true}},
	} {
		s := serve(t, test.status, test.body)
		c := newClient(t, s.URL)
		var list []error
		add := func(_ any, err error) { list = append(list, err) }
		add(c.Health(t.Context()))
		add(c.Status(t.Context(), ""))
		add(c.Trigger(t.Context(), "user-sync", nil))
		add(c.Pause(t.Context(), ""))
		add(c.Resume(t.Context(), ""))
		add(c.Cleanup(t.Context(), "", 0))
		add(c.TestNotification(t.Context()))
		add(c.RetryFailed(t.Context(), ""))
		add(c.CancelWaiting(t.Context(), ""))
		add(c.Jobs(t.Context(), client.Filter{}))
		add(c.Job(t.Context(), id))
		add(c.Cancel(t.Context(), id))
		add(c.Retry(t.Context(), id))
		add(c.Schedules(t.Context()))
		for i, err := range list {
			var e *client.Error
			if !errors.As(err, &e) || e.StatusCode != test.status || !strings.HasSuffix(err.Error(), ": "+test.want) {
				t.Errorf("%d, %d: %v, want %s", test.status, i, err, test.want)
			}
			got := is{client.IsNotFound(err), client.IsConflict(err), client.IsUnauthorized(err), client.IsForbidden(err), client.Temporary(err)}
			if got != test.is {
				t.Errorf("%d, %d: it is %+v, want %+v", test.status, i, got, test.is)
			}
		}
	}
}

// A system that is not well is an answer, not an error.
func TestDegradedHealth(t *testing.T) {
	t.Parallel()
	s := serve(t, http.StatusServiceUnavailable, strings.Replace(health, "OK", "DEGRADED", 1))
	h, err := newClient(t, s.URL).Health(t.Context())
	if err != nil || h.Status != "DEGRADED" || h.Healthy() {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status      string
		initialized bool
		want        bool
	}{{"OK", true, true}, {"OK", false, false}, {"DEGRADED", true, false}, {"DEGRADED", false, false}} {
		h := client.Health{Status: test.status, Jobs: client.JobsHealth{Initialized: test.initialized}}
		if h.Healthy() != test.want {
			t.Errorf("%+v", test)
		}
	}
}

// What is not this API is told apart from a refusal.
func TestOtherServers(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "<html>It works!</html>", "[]", "{}", "null", `{"success":true}`, `{"success":true,"data":[1]}`, strings.Repeat(" ", 17<<20)} {
		c := newClient(t, serve(t, http.StatusOK, body).URL)
		_, err := c.Jobs(t.Context(), client.Filter{})
		_, other := c.Health(t.Context())
		for _, err := range []error{err, other} {
			if !errors.Is(err, client.ErrAnswer) || client.Temporary(err) {
				t.Errorf("%.20q: %v", body, err)
			}
		}
	}
	redirecting := httptest.NewServer(http.RedirectHandler("https://elsewhere/", http.StatusMovedPermanently))
	t.Cleanup(redirecting.Close)
	if _, err := newClient(t, redirecting.URL).Pause(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "301: it redirects to https://elsewhere/") {
		t.Errorf("redirected: %v", err)
	}
}

// What would be another route is no job.
func TestJobsThatAreNone(t *testing.T) {
	t.Parallel()
	s := serve(t, http.StatusOK, data(status))
	c := newClient(t, s.URL)
	for _, id := range []string{"", ".", "..", "status"} {
		if _, err := c.Job(t.Context(), id); !client.IsNotFound(err) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	nobody := serve(t, 200, "")
	nobody.Close()
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(hanging.Close)
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"success`)
	}))
	t.Cleanup(cut.Close)
	for _, test := range []struct {
		name, url string
		timeout   time.Duration
		want      string
	}{
		{"nobody listens", nobody.URL, time.Minute, "connection refused"},
		{"no answer", hanging.URL, 50 * time.Millisecond, "no answer within 50ms"},
		{"half of an answer", cut.URL, time.Minute, "unexpected EOF"},
	} {
		c := newClient(t, test.url, client.WithTimeout(test.timeout))
		_, err := c.Schedules(t.Context())
		if !errors.Is(err, client.ErrUnreachable) || !client.Temporary(err) || !strings.Contains(err.Error(), test.want) ||
			!strings.HasPrefix(err.Error(), "listing the schedules: the server could not be reached: "+test.url+": ") {
			t.Errorf("%s: %v", test.name, err)
		}
	}

	// The caller's own end is no reason to try again.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := newClient(t, hanging.URL).Schedules(ctx); !errors.Is(err, context.DeadlineExceeded) || client.Temporary(err) {
		t.Errorf("after the caller's deadline: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newClient(t, hanging.URL).Schedules(cancelled); !errors.Is(err, context.Canceled) || client.Temporary(err) {
		t.Errorf("after the caller's end: %v", err)
	}
}

// A certificate that is not trusted does not become so by trying again.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, health) }))
	t.Cleanup(s.Close)
	if _, err := newClient(t, s.URL).Health(t.Context()); err == nil || client.Temporary(err) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that is not trusted: %v", err)
	}
	if _, err := newClient(t, s.URL, client.WithHTTPClient(s.Client())).Health(t.Context()); err != nil {
		t.Error(err)
	}
}

// The types of the synchronisations are those that the workers know.
func TestSyncTypes(t *testing.T) {
	t.Parallel()
	names := func(v any) string {
		var list []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			list = append(list, name)
		}
		return fmt.Sprint(list)
	}
	if got, want := names(client.SyncPayload{}), names(tasks.SyncPayload{}); got != want {
		t.Errorf("the payload has %s, want %s", got, want)
	}
	if got, want := names(client.SyncResult{}), names(tasks.SyncResult{}); got != want {
		t.Errorf("the result has %s, want %s", got, want)
	}
	if client.SyncFull != tasks.SyncFull || client.SyncIncremental != tasks.SyncIncremental {
		t.Error("the sync types differ")
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	for _, s := range client.States() {
		if want := s == "completed" || s == "failed" || s == "cancelled"; s.Ended() != want {
			t.Errorf("%s: ended is %v", s, s.Ended())
		}
	}
	if !(client.Job{State: client.StateCancelled}).Cancelled() {
		t.Error("a cancelled job was not cancelled")
	}
	if !(client.Job{State: client.StateFailed, Error: "cancelled"}).Cancelled() || (client.Job{State: client.StateFailed, Error: "x"}).Cancelled() {
		t.Error("a job was cancelled when it is failed with that error")
	}
}
