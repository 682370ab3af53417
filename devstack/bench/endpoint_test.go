package main

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func TestEndpoint(t *testing.T) {
	t.Parallel()
	const takes = 50 * time.Millisecond
	e, err := startEndpoint(takes)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for _, tt := range []struct {
		name, body, signed string
		status             int
	}{
		{"a batch", `{"records":[{"_id":1,"email":"a@codex.example"}]}`, "", http.StatusNoContent},
		{"without the field", `{"records":[{"_id":1}]}`, "", http.StatusBadRequest},
		{"one user without the field", `{"records":[{"_id":1,"email":"a@codex.example"},{"_id":2}]}`, "", http.StatusBadRequest},
		{"another signature", `{"records":[{"_id":1,"email":"a@codex.example"}]}`, `{}`, http.StatusBadRequest},
		{"nothing", ``, "", http.StatusBadRequest},
	} {
		signed, now := tt.signed, time.Now()
		if signed == "" {
			signed = tt.body
		}
		signature, err := e.webhook.Sign("msg_1", now, []byte(signed))
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url(), strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set(standardwebhooks.HeaderWebhookID, "msg_1")
		request.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
		request.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if took := time.Since(now); response.StatusCode != tt.status || tt.status == http.StatusNoContent && took < takes {
			t.Errorf("%s: status %d after %v, want %d", tt.name, response.StatusCode, took, tt.status)
		}
	}
}
