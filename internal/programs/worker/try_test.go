package worker

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/endpoint"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/webhook"
)

func TestTryEndpoint(t *testing.T) {
	t.Parallel()
	answer := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Records []map[string]any }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		results := []map[string]any{
			{"_id": body.Records[0]["_id"], "set": map[string]any{"seen": body.Records[0]["email"]}, "unset": []string{"old"}},
			{"_id": body.Records[1]["_id"], "error": "no such account"},
			{"_id": body.Records[2]["_id"], "set": map[string]any{"lastSynced": 1}},
			{"_id": body.Records[3]["_id"]},
		}
		if answer == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "60")
		}
		w.WriteHeader(answer)
		_ = json.NewEncoder(w).Encode(map[string]any{"results": results})
	}))
	defer server.Close()
	cfg := config.Config{TryEndpoint: "user-sync", Endpoints: map[string]config.Endpoint{"user-sync": {Options: endpoint.Options{
		Options: webhook.Options{URL: server.URL, Timeout: time.Minute, Secrets: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}},
		Fields:  []string{"email"},
	}}}}
	try := func() (string, error) {
		var out strings.Builder
		err := tryEndpoint(t.Context(), jobtype.All(codex.Types()), cfg, &out)
		return out.String(), err
	}
	text, err := try()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Posting 5 records to " + server.URL + ", signed\n",
		`65a1f0c2e4b0a1b2c3d4e5f6   its dates, and {"seen":"amber-otter-0@codex.example"}, and remove old` + "\n",
		"user-17                    error: no such account\n",
		"4711                       error: setting field \"lastSynced\": only the sync itself changes it\n",
		"9007199254740993           its dates\n",
		"no-name                    error: the answer of the endpoint has no result for the record\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got\n%swant\n%s", text, want)
		}
	}
	file := filepath.Join(t.TempDir(), "users.ndjson")
	if err := os.WriteFile(file, []byte(`{"_id": {"$oid": "65a1f0c2e4b0a1b2c3d4e5f7"}, "email": "a"}`+"\n\n"+`{"_id": 2}`+"\n"+`{"_id": 3}`+"\n"+`{"_id": 4}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.TryRecords = file
	if text, err := try(); err != nil || !strings.Contains(text, "Posting 4 records") || !strings.Contains(text, `65a1f0c2e4b0a1b2c3d4e5f7   its dates, and {"seen":"a"}, and remove old`) {
		t.Errorf("of a file: %s, %v", text, err)
	}
	for content, want := range map[string]string{"": "there is no record in", "{}\n{": "line 2 of", "[1]": "line 1 of"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := try(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", content, err, want)
		}
	}
	cfg.TryRecords = ""
	for status, want := range map[int]string{
		http.StatusUnauthorized:        "A run would fail this attempt",
		http.StatusTooManyRequests:     "A run would wait for 1m0s, and send the batch again",
		http.StatusServiceUnavailable:  "A run would wait, and send the batch again",
		http.StatusInternalServerError: "A run would send the batch again, and then in halves",
	} {
		answer = status
		if _, err := try(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v, want %s", status, err, want)
		}
	}
}
