// Package upstream is the service that the demo's syncs ask: without one, a sync would only set two dates. It is slow, and at
// times away, as such services are.
package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// answerTime is how long an answer takes.
	answerTime = 30 * time.Millisecond
	// hereTime is how long the service is there, and awayTime how long it is away then.
	hereTime, awayTime = 90 * time.Second, 15 * time.Second
	// changeTime is how long a score lasts, and one in oneIn records has one.
	changeTime = time.Minute
	oneIn      = 100
	// maxBody bounds a question and an answer, in bytes.
	maxBody = 4 << 20
	// stopTimeout bounds the wait for questions that are being answered.
	stopTimeout = time.Second
)

// ErrAway is the error of Ask while the service is away.
var ErrAway = errors.New("the upstream is away")

// Server is the service. It knows a score of few records, which changes each minute. The embedded MongoDB of the demo takes a
// while for each record that gets a field, so with a score for all of them there would be little to see.
type Server struct {
	listener net.Listener
	server   http.Server

	mu   sync.Mutex
	away bool
}

// Start starts the service on a free port of this machine.
func Start() (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the upstream: %w", err)
	}
	return &Server{listener: listener}, nil
}

// URL returns where it is.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

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

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	if s.isAway() {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	var ids []string
	if err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&ids); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	time.Sleep(answerTime)
	scores := make([]*int, len(ids))
	for i, id := range ids {
		scores[i] = score(id, time.Now())
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(scores) // the client has gone
}

// score returns the score that a record has at a time, or nil if it has none.
func score(id string, at time.Time) *int {
	if hash(id)%oneIn != 0 {
		return nil
	}
	n := int(hash(fmt.Sprint(id, at.Unix()/int64(changeTime/time.Second))) % 1000)
	return &n
}

func hash(text string) uint32 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, text) // it never fails
	return h.Sum32()
}

// Ask returns the scores of records, in the order of their IDs; nil for a record that has none. It returns ErrAway while the
// service is away.
func Ask(ctx context.Context, client *http.Client, url string, ids []string) ([]*int, error) {
	body, err := json.Marshal(ids)
	if err != nil {
		return nil, fmt.Errorf("asking for scores: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking for scores: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: it answered %s", ErrAway, response.Status)
	}
	var scores []*int
	if err := json.NewDecoder(io.LimitReader(response.Body, maxBody)).Decode(&scores); err != nil {
		return nil, fmt.Errorf("reading the scores: %w", err)
	}
	if len(scores) != len(ids) {
		return nil, fmt.Errorf("reading the scores: %d of %d records", len(scores), len(ids))
	}
	return scores, nil
}
