package telemetry

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

var someSpans = []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: "one"}, {Name: "two"}}}}}}

func TestUpload(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers []int // one for each try; the last one for all further tries
		retry   string
		tries   int64
		failure string
		least   time.Duration // that it takes
	}{
		"taken":                      {answers: []int{200}, tries: 1},
		"taken without a word":       {answers: []int{202}, tries: 1},
		"too busy at first":          {answers: []int{503, 429, 200}, tries: 3, least: 3 * uploadPause},
		"says when to come again":    {answers: []int{429, 200}, retry: "1", tries: 2, least: time.Second},
		"refused":                    {answers: []int{400}, tries: 1, failure: "400 Bad Request"},
		"with a key that is unknown": {answers: []int{401}, tries: 1, failure: "401 Unauthorized"},
		"elsewhere":                  {answers: []int{301}, tries: 1, failure: "301 Moved Permanently"},
		"always too busy":            {answers: []int{502}, tries: uploadTries, failure: "502 Bad Gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n := int(tries.Add(1))
				body, _ := io.ReadAll(r.Body)
				var got tracepb.TracesData
				if err := proto.Unmarshal(body, &got); err != nil || !proto.Equal(&got, &tracepb.TracesData{ResourceSpans: someSpans}) {
					t.Errorf("try %d: got %v %v", n, &got, err)
				}
				if r.URL.Path != "/v1/traces" || r.Header.Get("Authorization") != "Bearer x" {
					t.Errorf("try %d: %s %v", n, r.URL.Path, r.Header)
				}
				w.Header().Set("Location", "/elsewhere")
				if test.retry != "" {
					w.Header().Set("Retry-After", test.retry)
				}
				w.WriteHeader(test.answers[min(n, len(test.answers))-1])
			}))
			t.Cleanup(server.Close)
			client := newOTLPClient(server.URL, map[string]string{"authorization": "Bearer x"})
			begun := time.Now()
			err := client.UploadTraces(t.Context(), someSpans)
			took := time.Since(begun)
			if (err == nil) != (test.failure == "") || err != nil && !strings.HasSuffix(err.Error(), test.failure) {
				t.Errorf("got %v, want %q", err, test.failure)
			}
			if tries.Load() != test.tries || took < test.least {
				t.Errorf("%d tries in %s, want %d in %s or more", tries.Load(), took, test.tries, test.least)
			}
			if err := client.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUploadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	client := newOTLPClient("http://user:a-password@127.0.0.1:1", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err := client.UploadTraces(ctx, someSpans)
	if err == nil || strings.Contains(err.Error(), "a-password") || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}
