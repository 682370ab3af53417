// Package upstream is the service that the demo's syncs ask, as an endpoint: without one, a sync would only set two dates. It is slow,
// and at times away, as such services are.
package upstream

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	// answerTime is how long an answer takes.
	answerTime = 30 * time.Millisecond
	// hereTime is how long the service is there, and awayTime how long it is away then.
	hereTime, awayTime = 90 * time.Second, 15 * time.Second
	// closedTime is for how long after its start the service refuses full syncs of issues, so that there is a job that failed.
	closedTime = time.Minute
	// changeTime is how long a score lasts, and one in oneIn records has one.
	changeTime = time.Minute
	oneIn      = 100
	// maxBody bounds a request, in bytes. No worker sends more.
	maxBody = 16 << 20
	// secretLength is the length of the secret, in bytes.
	secretLength = 32
	// stopTimeout bounds the wait for requests that are being answered.
	stopTimeout = time.Second
)

// Server is the service. It knows a score of few records, which changes each minute. The embedded MongoDB of the demo takes a
// while for each record that gets a field, so with a score for all of them there would be little to see. It refuses users whose
// names have markup in them, and at first full syncs of issues.
type Server struct {
	started  time.Time
	listener net.Listener
	server   http.Server
	secret   string
	webhook  *standardwebhooks.Webhook

	mu   sync.Mutex
	away bool
}

// Start starts the service on a free port of this machine, with a secret of its own.
func Start() (*Server, error) {
	key := make([]byte, secretLength)
	_, _ = rand.Read(key) // it never fails
	s := &Server{started: time.Now(), secret: "whsec_" + base64.StdEncoding.EncodeToString(key)}
	var err error
	if s.webhook, err = standardwebhooks.NewWebhook(s.secret); err != nil {
		return nil, fmt.Errorf("starting the upstream: %w", err)
	}
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("starting the upstream: %w", err)
	}
	return s, nil
}

// URL returns where it is.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Secret returns what requests must be signed with.
func (s *Server) Secret() string { return s.secret }

// Run serves until ctx ends. It calls say when the service goes away, and when it is back.
func (s *Server) Run(ctx context.Context, say func(away bool, d time.Duration)) error {
	s.server.Handler, s.server.ReadHeaderTimeout = http.HandlerFunc(s.answer), time.Second
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() { failed <- s.server.Serve(s.listener) })
	defer serving.Wait()
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if s.server.Shutdown(stopping) != nil {
			_ = s.server.Close()
		}
	}()
	for away, next := false, hereTime; ; {
		select {
		case <-time.After(next):
		case err := <-failed:
			return fmt.Errorf("serving the upstream: %w", err)
		case <-ctx.Done():
			return nil
		}
		away, next = !away, awayTime
		if !away {
			next = hereTime
		}
		s.setAway(away)
		say(away, next)
	}
}

func (s *Server) setAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

func (s *Server) isAway() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.away
}

// request is what the service reads of a request, and response is its answer.
type (
	request struct {
		JobType  string   `json:"jobType"`
		SyncType string   `json:"syncType"`
		Records  []record `json:"records"`
	}
	record struct {
		ID       json.RawMessage `json:"_id"`
		Username string          `json:"username"`
	}
	response struct {
		Results []result `json:"results"`
	}
	result struct {
		ID    json.RawMessage `json:"_id"`
		Set   map[string]int  `json:"set,omitempty"`
		Error string          `json:"error,omitempty"`
	}
)

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	if s.isAway() {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.webhook.Verify(body, r.Header); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	var asked request
	if err := json.Unmarshal(body, &asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if asked.JobType == "issue-sync" && asked.SyncType == "full" && time.Since(s.started) < closedTime {
		http.Error(w, "full syncs of issues are closed for the first minute: retry the job later", http.StatusForbidden)
		return
	}
	time.Sleep(answerTime)
	said := response{Results: make([]result, len(asked.Records))}
	now := time.Now()
	for i, record := range asked.Records {
		said.Results[i] = judge(record, now)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(said) // the client has gone
}

// judge returns what there is to say about a record at a time.
func judge(r record, at time.Time) result {
	said := result{ID: r.ID}
	if strings.Contains(r.Username, "<") {
		said.Error = fmt.Sprintf("the name %q has markup in it", r.Username)
	} else if points, ok := score(string(r.ID), at); ok {
		said.Set = map[string]int{"score": points}
	}
	return said
}

// score returns the score that a record has at a time, or false if it has none.
func score(id string, at time.Time) (points int, ok bool) {
	if hash(id)%oneIn != 0 {
		return 0, false
	}
	return int(hash(fmt.Sprint(id, at.Unix()/int64(changeTime/time.Second))) % 1000), true
}

func hash(text string) uint32 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, text) // it never fails
	return h.Sum32()
}
