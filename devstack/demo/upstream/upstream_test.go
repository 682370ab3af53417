package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// client asks the service as a worker does.
type client struct {
	http.Client
	url, secret string
}

// ask returns the status and the body of the answer to a request.
func (c *client) ask(t *testing.T, body string) (status int, answer string) {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(c.secret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signature, err := webhook.Sign("msg_1", now, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/user-sync", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set(standardwebhooks.HeaderWebhookID, "msg_1")
	request.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	request.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx, func(bool, time.Duration) {}); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer stop()
	c := &client{http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}, s.URL(), s.Secret()}
	defer c.CloseIdleConnections()

	records := []string{`{"_id": {"$oid": "65a1f0c2e4b0a1b2c3d4e5f6"}, "username": "<b>bold7</b>"}`}
	for i := len(records); i < 1000; i++ {
		records = append(records, fmt.Sprintf(`{"_id": %d, "username": null}`, i))
	}
	body := `{"jobType": "user-sync", "records": [` + strings.Join(records, ",") + `]}`
	status, text := c.ask(t, body)
	var answer response
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK || len(answer.Results) != len(records) {
		t.Fatalf("status %d, %d results, %v: %s", status, len(answer.Results), err, text)
	}
	known := 0
	for i, result := range answer.Results[1:] {
		if string(result.ID) != strconv.Itoa(i+1) || result.Error != "" {
			t.Errorf("result %d is about %s, error %q", i+1, result.ID, result.Error)
		}
		known += len(result.Set)
	}
	if known == 0 || known > 100 {
		t.Errorf("it knows scores of %d of 1000 records", known)
	}
	if first := answer.Results[0]; string(first.ID) != `{"$oid":"65a1f0c2e4b0a1b2c3d4e5f6"}` || !strings.Contains(first.Error, "<b>bold7</b>") {
		t.Errorf("of a name with markup it says %s", text[:200])
	}

	for what, wrong := range map[string]struct {
		secret, body string
		status       int
	}{
		"signed by somebody else": {"whsec_c29tZWJvZHkgZWxzZQ==", body, http.StatusUnauthorized},
		"no JSON":                 {s.Secret(), "records", http.StatusBadRequest},
	} {
		c.secret = wrong.secret
		if status, text := c.ask(t, wrong.body); status != wrong.status {
			t.Errorf("%s: status %d, want %d: %s", what, status, wrong.status, text)
		}
	}
	c.secret = s.Secret()
	for _, away := range []bool{true, false} {
		s.setAway(away)
		if status, _ := c.ask(t, body); (status == http.StatusServiceUnavailable) != away {
			t.Errorf("away: %v, status %d", away, status)
		}
	}
}

func TestScoreChanges(t *testing.T) {
	t.Parallel()
	now := time.Unix(6000, 0)
	id := 0
	at := func(at time.Time) (points int, ok bool) { return score(strconv.Itoa(id), at) }
	first, ok := at(now)
	for ; !ok; first, ok = at(now) {
		id++
	}
	if points, _ := at(now.Add(changeTime - time.Second)); points != first {
		t.Error("it does not last")
	}
	if points, _ := at(now.Add(changeTime)); points == first {
		t.Error("it does not change")
	}
}
