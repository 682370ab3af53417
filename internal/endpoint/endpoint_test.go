package endpoint_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/endpoint"
	"github.com/codex-api/codex-jobs/internal/webhook"
	"github.com/codex-api/codex-jobs/pkg/job"
	"github.com/codex-api/codex-jobs/pkg/jobtest"
)

const (
	secret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	newSecret = "whsec_plJ3nmyCDGBKInavdOK15jsl9CS9Y2M3"
)

var (
	oid       = bson.ObjectID{0x65, 0xa1, 0xf0, 0xc2, 0xe4, 0xb0, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6}
	reference = time.Date(2026, 11, 27, 20, 0, 0, 5e6, time.UTC)
)

// asked is a request that an endpoint got.
type asked struct {
	header http.Header
	body   []byte
}

// serve starts an endpoint, and returns its client, and what it has been asked.
func serve(t testing.TB, o endpoint.Options, metrics *endpoint.Metrics, answer http.HandlerFunc) (*endpoint.Endpoint, func() []asked) {
	t.Helper()
	var mu sync.Mutex
	var all []asked
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		mu.Lock()
		all = append(all, asked{r.Header, body})
		mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	if o.URL == "" {
		o.URL = server.URL + "/user-sync"
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	client, err := endpoint.New(o, metrics)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client, func() []asked {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func status(code int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// batch returns a batch of the documents.
func batch(t testing.TB, documents ...bson.D) *job.Batch[bson.Raw] {
	t.Helper()
	b := &job.Batch[bson.Raw]{
		Attempt: job.Attempt{
			RunID: "1795574010000:user-sync", JobType: "user-sync", Number: 2, Reference: reference, Log: slog.New(slog.DiscardHandler),
		},
		SyncType: job.Incremental,
	}
	for i, document := range documents {
		data, err := bson.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		b.Records = append(b.Records, job.Record[bson.Raw]{ID: strconv.Itoa(i), Data: data})
	}
	return b
}

func withID(id any) bson.D { return bson.D{{Key: "lastSynced", Value: 1}, {Key: "_id", Value: id}} }

func TestRequest(t *testing.T) {
	t.Parallel()
	client, all := serve(t, endpoint.Options{
		Options: webhook.Options{Secrets: []string{secret, newSecret}, Version: "v1.2.3"}, Fields: []string{"email", "profile.name"},
	}, nil,
		status(http.StatusNoContent, ""))
	b := batch(t,
		bson.D{
			{Key: "_id", Value: oid}, {Key: "lastSynced", Value: reference}, {Key: "email", Value: "a<b@codex.example"}, {Key: "other", Value: 1},
			{Key: "profile", Value: bson.D{{Key: "name", Value: "Ada"}, {Key: "born", Value: bson.NewDateTimeFromTime(reference)}}},
		},
		bson.D{{Key: "email", Value: int64(5)}, {Key: "_id", Value: int64(9007199254740993)}},
	)
	b.Retries = 1
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: 1}))
	outcomes, err := client.Update(ctx, b)
	if err != nil || len(outcomes) != 2 || outcomes[0].Err != nil || outcomes[1].Err != nil || outcomes[0].Set != nil {
		t.Fatalf("got %+v, %v", outcomes, err)
	}
	got := all()[0]
	want := `{"jobType":"user-sync","runId":"1795574010000:user-sync","syncType":"incremental","attempt":2,"retries":1,` +
		`"reference":"2026-11-27T20:00:00.005Z","records":[` +
		`{"_id":{"$oid":"65a1f0c2e4b0a1b2c3d4e5f6"},"email":"a<b@codex.example","profile":{"name":"Ada","born":{"$date":"2026-11-27T20:00:00.005Z"}}},` +
		`{"_id":{"$numberLong":"9007199254740993"},"email":5}]}`
	if string(got.body) != want {
		t.Errorf("the body is\n%s\nwant\n%s", got.body, want)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "codex-jobs/v1.2.3",
		"Traceparent": "00-01000000000000000000000000000000-0200000000000000-01",
	} {
		if value := got.header.Get(name); value != want {
			t.Errorf("%s is %q, want %q", name, value, want)
		}
	}
	for _, s := range []string{secret, newSecret} { // both, so that it can be changed
		verifier, err := standardwebhooks.NewWebhook(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(got.body, got.header); err != nil {
			t.Errorf("signature: %v", err)
		}
	}
}

func TestUnsigned(t *testing.T) {
	t.Parallel()
	client, all := serve(t, endpoint.Options{}, nil, status(http.StatusNoContent, ""))
	if _, err := client.Update(t.Context(), batch(t, withID(1))); err != nil {
		t.Fatal(err)
	}
	header := all()[0].header
	if _, signed := header["Webhook-Signature"]; signed || header.Get("webhook-id") == "" || header.Get("webhook-timestamp") == "" {
		t.Errorf("the header is %v", header)
	}
	if string(all()[0].body[strings.Index(string(all()[0].body), `"records"`):]) != `"records":[{"_id":1}]}` {
		t.Errorf("the body is %s", all()[0].body)
	}
}

func TestAllFields(t *testing.T) {
	t.Parallel()
	client, all := serve(t, endpoint.Options{Fields: []string{"*"}}, nil, status(http.StatusNoContent, ""))
	if _, err := client.Update(t.Context(), batch(t, bson.D{{Key: "a", Value: 1.5}, {Key: "_id", Value: "x"}, {Key: "b", Value: nil}})); err != nil {
		t.Fatal(err)
	}
	if body := string(all()[0].body); !strings.HasSuffix(body, `"records":[{"_id":"x","a":1.5,"b":null}]}`) {
		t.Errorf("the body is %s", body)
	}
}

func TestWebhookID(t *testing.T) {
	t.Parallel()
	client, all := serve(t, endpoint.Options{}, nil, status(http.StatusNoContent, ""))
	ask := func(change func(*job.Batch[bson.Raw]), ids ...any) string {
		var documents []bson.D
		for _, id := range ids {
			documents = append(documents, withID(id))
		}
		b := batch(t, documents...)
		change(b)
		if _, err := client.Update(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		requests := all()
		return requests[len(requests)-1].header.Get("webhook-id")
	}
	same := func(*job.Batch[bson.Raw]) {}
	first := ask(same, 1, "2", oid)
	for what, other := range map[string]string{
		"the next attempt":        ask(func(b *job.Batch[bson.Raw]) { b.Number = 3 }, 1, "2", oid),
		"another field of a user": ask(func(b *job.Batch[bson.Raw]) { b.Records[0].Name = "x" }, 1, "2", oid),
	} {
		if other != first {
			t.Errorf("%s has the id %s, want %s", what, other, first)
		}
	}
	seen := map[string]string{first: "the first batch"}
	for what, other := range map[string]string{
		"less records":   ask(same, 1, "2"),
		"another type":   ask(same, 1, 2, oid),
		"other ids":      ask(same, 1, "2", bson.ObjectID{1}),
		"a manual retry": ask(func(b *job.Batch[bson.Raw]) { b.Retries = 1 }, 1, "2", oid),
		"another run":    ask(func(b *job.Batch[bson.Raw]) { b.RunID = "1795574010001:user-sync" }, 1, "2", oid),
		"joined ids":     ask(same, "ab"),
		"split ids":      ask(same, "a", "b"),
	} {
		if before, known := seen[other]; known {
			t.Errorf("%s has the id of %s", what, before)
		}
		seen[other] = what
	}
}

// kind says what an error means for the run.
func kind(err error) string {
	if after, waits := jobtest.Waits(err); waits {
		return "waits " + after.String()
	}
	if tries, halves := jobtest.Halves(err); halves {
		return fmt.Sprintf("halves after %d", tries)
	}
	if err != nil {
		return "fails"
	}
	return ""
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	for name, test := range map[string]struct {
		answer   http.HandlerFunc
		kind     string
		says     string
		outcomes string // of the records 1 and "b"
		metric   string
	}{
		"nothing to set": {status(204, ""), "", "", "ok, ok", "ok"},
		"results": {status(200, `{"results": [{"_id": "b", "set": {"at": {"$date": "2026-11-27T20:00:00Z"}}, "unset": ["old"]}, {"_id": 1, "error": "no  such\naccount"}]}`),
			"", "", "no such account, set map[at:{\"$date\":{\"$numberLong\":\"1795809600000\"}}] unset [old]", "ok"},
		"only ids":       {status(200, `{"results": [{"_id": 1.0}, {"_id": "b", "set": null, "unset": null, "error": null}]}`), "", "", "ok, ok", "ok"},
		"one is missing": {status(200, `{"results": [{"_id": 1}]}`), "", "", "ok, the answer of the endpoint has no result for the record", "ok"},
		"none":           {status(200, `{"results": []}`), "", "", "the answer of the endpoint has no result for the record, the answer of the endpoint has no result for the record", "ok"},
		"wrong set": {status(200, `{"results": [{"_id": 1, "set": 5}, {"_id": "b", "set": {"$oid": "x"}}]}`), "", "",
			"the set of the endpoint must be, the set of the endpoint must be an object", "ok"},
		"a date as the set":     {status(200, `{"results": [{"_id": 1, "set": {"$date": "2026-11-27T20:00:00Z"}}, {"_id": "b"}]}`), "", "", "the set of the endpoint must be an object, ok", "ok"},
		"wrong unset":           {status(200, `{"results": [{"_id": 1, "unset": "old"}, {"_id": "b", "unset": [5]}]}`), "", "", "the unset of the endpoint must, the unset of the endpoint must be an array", "ok"},
		"wrong error":           {status(200, `{"results": [{"_id": 1, "error": {}}, {"_id": "b", "error": " "}]}`), "", "", "the error of the endpoint must be, the endpoint gave an error without a reason", "ok"},
		"error and set":         {status(200, `{"results": [{"_id": 1, "error": "e", "set": {"a": 1}}, {"_id": "b"}]}`), "", "", "the result of the endpoint must have either error, ok", "ok"},
		"an unknown member":     {status(200, `{"results": [{"_id": 1, "Set": {"a": 1}}, {"_id": "b"}]}`), "", "", "the result of the endpoint must have set, ok", "ok"},
		"another record":        {status(200, `{"results": [{"_id": 1}, {"_id": "b"}, {"_id": "c"}]}`), "fails", `result 2 is about a record that was not in the request: "c"`, "", "refused"},
		"twice":                 {status(200, `{"results": [{"_id": 1}, {"_id": 1}]}`), "fails", `two results about the record 1`, "", "refused"},
		"no id":                 {status(200, `{"results": [{"set": {}}]}`), "fails", `result 0 must have the _id of a record`, "", "refused"},
		"no object":             {status(200, `{"results": [null]}`), "fails", `result 0 must be an object`, "", "refused"},
		"no results":            {status(200, `{}`), "fails", `its results must be an array`, "", "refused"},
		"more than results":     {status(200, `{"results": [], "next": 1}`), "fails", `it must have results and nothing else, had "next"`, "", "refused"},
		"results twice":         {status(200, `{"results": [{"_id": 1, "error": "no"}, {"_id": "b"}], "results": [{"_id": 1}, {"_id": "b"}]}`), "fails", `it must have "results" once`, "", "refused"},
		"an error twice":        {status(200, `{"results": [{"_id": 1, "error": "no", "error": null}, {"_id": "b"}]}`), "fails", `result 0 must have "error" once`, "", "refused"},
		"an id twice":           {status(200, `{"results": [{"_id": "b", "_id": 1}, {"_id": "b"}]}`), "fails", `result 0 must have "_id" once`, "", "refused"},
		"an array":              {status(200, `[{"_id": 1}]`), "fails", `it must be an object`, "", "refused"},
		"no JSON":               {status(200, "<html>\n<body>Sign in"+long), "fails", `it must be JSON, was <html> <body>Sign in`, "", "refused"},
		"half of it":            {status(200, `{"results": [`), "fails", `it must be JSON, was {"results": [`, "", "refused"},
		"an empty answer":       {status(200, ``), "fails", `it must be JSON`, "", "refused"},
		"a broken answer":       {status(200, `{"resu`, "Content-Length", "100"), "waits 0s", `the endpoint cannot be reached: unexpected EOF`, "", "away"},
		"created":               {status(201, `{"results": [{"_id": 1}, {"_id": "b"}]}`), "fails", `the endpoint answered 201 Created: {"results"`, "", "refused"},
		"bad request":           {status(400, "what is a\nbatch? "+long), "fails", "the endpoint answered 400 Bad Request: what is a batch? x", "", "refused"},
		"wrong signature":       {status(401, "no signature"), "fails", "the endpoint answered 401 Unauthorized: no signature", "", "refused"},
		"too large for it":      {status(413, ""), "fails", "the endpoint answered 413 Request Entity Too Large", "", "refused"},
		"redirect":              {status(307, "", "Location", "https://other.example/x"), "fails", `it redirects to "https://other.example/x", and redirects are not followed`, "", "refused"},
		"not implemented":       {status(501, ""), "fails", "501", "", "refused"},
		"its error":             {status(500, "boom"), "halves after 3", "the endpoint answered 500 Internal Server Error: boom", "", "error"},
		"request timeout":       {status(408, ""), "waits 0s", "408", "", "away"},
		"too many requests":     {status(429, "", "Retry-After", "3600"), "waits 1h0m0s", "429", "", "away"},
		"bad gateway":           {status(502, ""), "waits 0s", "502", "", "away"},
		"away":                  {status(503, "later", "Retry-After", "1"), "waits 1s", "the endpoint answered 503 Service Unavailable: later", "", "away"},
		"away for unknown time": {status(503, "", "Retry-After", "soon"), "waits 0s", "503", "", "away"},
		"away in the past":      {status(503, "", "Retry-After", "-5"), "waits 0s", "503", "", "away"},
		"away until a past":     {status(503, "", "Retry-After", "Fri, 27 Nov 2020 20:00:00 GMT"), "waits 0s", "503", "", "away"},
		"away for good":         {status(503, "", "Retry-After", "99999999999"), "waits 24h0m0s", "503", "", "away"},
		"gateway timeout":       {status(504, ""), "waits 0s", "504", "", "away"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := prometheus.NewRegistry()
			client, all := serve(t, endpoint.Options{}, endpoint.NewMetrics(registry, []string{"user-sync"})["user-sync"], test.answer)
			outcomes, err := client.Update(t.Context(), batch(t, withID(int64(1)), withID("b")))
			if got := kind(err); got != test.kind {
				t.Errorf("it %q, want %q: %v", got, test.kind, err)
			}
			if err != nil && (!strings.Contains(err.Error(), test.says) || len(err.Error()) > 1500 || strings.Contains(err.Error(), "\n")) {
				t.Errorf("it says %q, want %q", err, test.says)
			}
			if err == nil {
				var got []string
				for _, o := range outcomes {
					got = append(got, describe(o))
				}
				wanted := strings.Split(test.outcomes, ", ") // their beginnings
				for i := range wanted {
					if i >= len(got) || !strings.HasPrefix(got[i], wanted[i]) {
						t.Errorf("the outcomes are %q, want %q", got, wanted)
						break
					}
				}
			}
			if n := len(all()); n != 1 {
				t.Errorf("there were %d requests", n)
			}
			for _, outcome := range []string{"ok", "away", "error", "refused"} {
				want := 0
				if outcome == test.metric {
					want = 1
				}
				if got := counter(t, registry, outcome); got != want {
					t.Errorf("the metrics count %d requests as %s, want %d", got, outcome, want)
				}
			}
		})
	}
}

func describe(o job.Outcome) string {
	switch {
	case o.Err != nil:
		return o.Err.Error()
	case o.Set != nil || o.Unset != nil:
		return fmt.Sprint("set ", o.Set, " unset ", o.Unset)
	}
	return "ok"
}

// counter returns how many requests ended so.
func counter(t *testing.T, registry *prometheus.Registry, outcome string) int {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetName() == "outcome" && label.GetValue() == outcome {
					return int(m.GetCounter().GetValue())
				}
			}
		}
	}
	t.Fatalf("there is no counter of %s", outcome)
	return 0
}

// Each _id comes back from a program that reads JSON, and its numbers as floating-point ones, and finds its record.
func TestIDsComeBack(t *testing.T) {
	t.Parallel()
	decimal, err := bson.ParseDecimal128("1.10")
	if err != nil {
		t.Fatal(err)
	}
	var documents []bson.D
	for _, id := range []any{
		oid, "text", "5", int32(5), int64(1) << 40, int64(1)<<53 + 1, -int64(1)<<53 - 1, 5.5, 7.0, 1e300, decimal, true, nil,
		bson.NewDateTimeFromTime(reference), bson.Binary{Subtype: 4, Data: make([]byte, 16)}, bson.Timestamp{T: 1, I: 2},
		bson.D{{Key: "a", Value: int64(1)}, {Key: "b", Value: bson.D{{Key: "c", Value: 2.0}}}}, bson.D{{Key: "a", Value: 1}, {Key: "b", Value: 2}},
		bson.MinKey{}, bson.MaxKey{}, "no \xff UTF-8",
		bson.D{{Key: "n", Value: int64(1)<<53 + 1}}, bson.D{{Key: "n", Value: bson.A{int64(1)<<53 + 1, int64(5), 5.0}}},
		bson.D{{Key: "b", Value: 1}, {Key: "2", Value: 2}}, // programs sort the members
	} {
		documents = append(documents, withID(id))
	}
	var all func() []asked
	client, all := serve(t, endpoint.Options{}, nil, func(w http.ResponseWriter, _ *http.Request) {
		var body struct{ Records []map[string]any }
		if err := json.Unmarshal(all()[0].body, &body); err != nil {
			t.Error(err)
		}
		results := make([]map[string]any, len(body.Records))
		for i, record := range body.Records {
			results[len(results)-1-i] = map[string]any{"_id": record["_id"], "set": map[string]any{"place": i}}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"results": results})
	})
	outcomes, err := client.Update(t.Context(), batch(t, documents...))
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		if place, _ := o.Set["place"].(bson.RawValue); o.Err != nil || place.IsZero() || place.AsInt64() != int64(i) {
			t.Errorf("%v has the outcome %+v", documents[i], o)
		}
	}
}

// Two records whose _id are the same in JSON are posted apart from each other.
func TestSameIDs(t *testing.T) {
	t.Parallel()
	a, b := bson.E{Key: "a", Value: 1}, bson.E{Key: "b", Value: 2}
	client, all := serve(t, endpoint.Options{}, nil, status(http.StatusNoContent, ""))
	for _, ids := range [][]any{{bson.D{a, b}, bson.D{b, a}}, {"\xfe", "\xff"}} {
		_, err := client.Update(t.Context(), batch(t, withID(ids[0]), withID(ids[1])))
		if tries, halves := jobtest.Halves(err); !halves || tries != 1 || len(all()) > 0 {
			t.Errorf("%v: %v, after %d requests", ids, err, len(all()))
		}
	}
}

// The target of a redirect can repeat a secret of the URL.
func TestRedirectWithSecret(t *testing.T) {
	t.Parallel()
	client, _ := serve(t, endpoint.Options{}, nil, status(http.StatusMovedPermanently, "", "Location", "https://u:s3cret@app/user-sync?token=s3cret"))
	_, err := client.Update(t.Context(), batch(t, withID(1)))
	if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), `"https://app/user-sync"`) {
		t.Error(err)
	}
}

// What a store would not write is the error of that record, and no other record's.
func TestWhatMayNotBeSet(t *testing.T) {
	t.Parallel()
	for _, set := range []string{
		`{"_id": 2}`, `{"lastSynced": 1}`, `{"updatedAt": {"$date": "2026-11-27T20:00:00Z"}}`, `{"$inc": {"n": 1}}`, `{"lastSynced.x": 1}`, `{"": 1}`, `{"a": 1, "a.b": 2}`, `{"roles.$[]": 1}`, `{"a.$inc": 1}`,
	} {
		client, _ := serve(t, endpoint.Options{}, nil, status(200, `{"results": [{"_id": 1, "set": `+set+`}, {"_id": 2, "set": {"n": 1}}]}`))
		sync := job.Sync[bson.Raw]{Name: "user-sync", Collection: "users", Fields: []string{}, Update: client.Update}
		written, err := jobtest.Update(t.Context(), sync, jobtest.With{}, bson.M{"_id": 1}, bson.M{"_id": 2})
		if err != nil || written[0].Err == nil || written[1].Err != nil {
			t.Errorf("%s: %+v, %v", set, written, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	t.Run("request", func(t *testing.T) {
		t.Parallel()
		client, all := serve(t, endpoint.Options{Fields: []string{"*"}}, nil, status(204, ""))
		data := make([]byte, endpoint.MaxBody*3/8) // which base64 makes half of what a body may have
		large := func(id int) bson.D { return bson.D{{Key: "_id", Value: id}, {Key: "data", Value: data}} }
		_, err := client.Update(t.Context(), batch(t, large(1), large(2)))
		if tries, halves := jobtest.Halves(err); !halves || tries != 1 || len(all()) != 0 {
			t.Errorf("%v, after %d requests", err, len(all()))
		}
		if _, err := client.Update(t.Context(), batch(t, large(1))); err != nil || len(all()[0].body) > endpoint.MaxBody {
			t.Errorf("half of it: %v", err)
		}
	})
	t.Run("answer", func(t *testing.T) {
		t.Parallel()
		before, after := `{"results": [`, `{"_id": 1}]}`
		var larger atomic.Bool
		client, _ := serve(t, endpoint.Options{}, nil, func(w http.ResponseWriter, r *http.Request) {
			size := endpoint.MaxBody - len(before) - len(after)
			if r.Header.Get("webhook-id") == "" {
				t.Error("there is no id")
			}
			if larger.Load() {
				size++
			}
			_, _ = io.WriteString(w, before+strings.Repeat(" ", size)+after)
		})
		if _, err := client.Update(t.Context(), batch(t, withID(1))); err != nil {
			t.Errorf("the largest answer: %v", err)
		}
		larger.Store(true)
		_, err := client.Update(t.Context(), batch(t, withID(1)))
		if tries, halves := jobtest.Halves(err); !halves || tries != 1 {
			t.Errorf("an answer that is one byte larger: %v", err)
		}
	})
}

func TestLateAnswers(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	for name, answer := range map[string]http.HandlerFunc{
		"none": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		},
		"half of it": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"results": [`)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-release:
			case <-r.Context().Done():
			}
		},
	} {
		client, _ := serve(t, endpoint.Options{Options: webhook.Options{Timeout: 50 * time.Millisecond}}, nil, answer)
		_, err := client.Update(t.Context(), batch(t, withID(1)))
		if got := kind(err); got != "waits 0s" || !strings.Contains(err.Error(), "the endpoint did not answer within 50ms") {
			t.Errorf("%s: it %s: %v", name, got, err)
		}
	}
	close(release)
}

func TestNoConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	secure := httptest.NewTLSServer(status(204, ""))
	defer secure.Close()
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	for url, says := range map[string]string{
		"http://u:s3cr3t@" + address + "/?token=s3cr3t": "connection refused", secure.URL: "certificate", strings.Replace(secure.URL, "https", "http", 1): "400",
	} {
		client, _ := serve(t, endpoint.Options{Options: webhook.Options{URL: url}}, nil, nil)
		_, err := client.Update(t.Context(), batch(t, withID(1)))
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v, want %s", url, err, says)
		}
		if _, waits := jobtest.Waits(err); waits != (says != "400") {
			t.Errorf("%s: %v, waits %v", url, err, waits)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(secure.Certificate())
	client, _ := serve(t, endpoint.Options{Options: webhook.Options{URL: secure.URL, Authorities: pool}}, nil, nil)
	if _, err := client.Update(t.Context(), batch(t, withID(1))); err != nil {
		t.Errorf("with its authority: %v", err)
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	through := make(chan string, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		through <- r.URL.String()
		w.WriteHeader(http.StatusNoContent)
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	client, _ := serve(t, endpoint.Options{Options: webhook.Options{
		URL: "http://app.example/user-sync", Proxy: func(*url.URL) (*url.URL, error) { return at, nil },
	}}, nil, nil)
	if _, err := client.Update(t.Context(), batch(t, withID(1))); err != nil {
		t.Fatal(err)
	}
	if got := <-through; got != "http://app.example/user-sync" {
		t.Errorf("the proxy got %s", got)
	}
}

func TestEndOfContext(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	client, _ := serve(t, endpoint.Options{}, nil, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	})
	cancelled := errors.New("cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-begun
		cancel(cancelled)
	}()
	if _, err := client.Update(ctx, batch(t, withID(1))); !errors.Is(err, cancelled) {
		t.Errorf("got %v", err)
	}
}

// What is sent is what the driver writes as relaxed Extended JSON, whatever the type.
func TestValuesAreWrittenAsByTheDriver(t *testing.T) {
	t.Parallel()
	client, all := serve(t, endpoint.Options{Fields: []string{"*"}}, nil, status(http.StatusNoContent, ""))
	decimal, err := bson.ParseDecimal128("1.50")
	if err != nil {
		t.Fatal(err)
	}
	values := bson.A{
		oid, true, false, nil, bson.Undefined{}, bson.MinKey{}, bson.MaxKey{}, decimal, bson.Symbol("symbol"), bson.Timestamp{T: 1, I: 2},
		bson.Binary{Subtype: 4, Data: []byte{1, 2}}, bson.Regex{Pattern: `"\d`, Options: "i"}, bson.JavaScript("x < 1"),
		bson.CodeWithScope{Code: "x", Scope: bson.D{{Key: "x", Value: int64(1)}}}, bson.DBPointer{DB: "db", Pointer: oid},
		"", "plain", "a<b>&c'/\x7f", "Zoë 日本 🙂", "\"quoted\"", `back\slash`, "\n\r\t\b\f\x00\x1f", "no \xff UTF-8", "\uFFFD", "\u2028\u2029",
		int32(-5), int64(1) << 60, int64(-1) << 63, 0.0, math.Copysign(0, -1), 1.0, -2.5, 1e20, 1e21, 1e-7, 1.0 / 3, 123456789.0, 1e6,
		math.MaxFloat64, math.NaN(), math.Inf(1), math.Inf(-1),
		bson.D{}, bson.A{}, bson.D{{Key: "a\"b", Value: bson.A{1, bson.D{{Key: "ë", Value: "x"}}}}, {Key: "", Value: bson.A{bson.A{}}}},
	}
	for _, ms := range []int64{0, 1, 999, -1, 1795574402123, 253402300799999, 253402300800000, -62135596800000, math.MaxInt64, math.MinInt64} {
		values = append(values, bson.DateTime(ms))
	}
	for i, v := range values {
		document := bson.D{{Key: "_id", Value: i}, {Key: "value", Value: v}, {Key: "values", Value: bson.A{v, bson.D{{Key: "v", Value: v}}}}}
		if _, err := client.Update(t.Context(), batch(t, document)); err != nil {
			t.Errorf("%v: %v", v, err)
			continue
		}
		want, err := bson.MarshalExtJSON(document, false, false)
		if err != nil {
			t.Fatal(err)
		}
		asked := all()
		_, records, _ := strings.Cut(string(asked[len(asked)-1].body), `"records":`)
		if records != "["+string(want)+"]}" {
			t.Errorf("the records are\n%s\nwant\n[%s]}", records, want)
		}
	}
}
