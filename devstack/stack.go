package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

const (
	// answerTimeout is how long a server may take until it answers. It is long enough for a cold disk.
	answerTimeout = 15 * time.Second
	// attemptTimeout bounds one question to a server.
	attemptTimeout = 2 * time.Second
	// answerPoll is the pause between two questions to a server that starts.
	answerPoll = 30 * time.Millisecond
	// serverGrace is how long a server may take to end before it is killed.
	serverGrace = 5 * time.Second
)

// The reasons to stop waiting for a server.
var (
	errNoAnswer = fmt.Errorf("no answer within %v", answerTimeout)
	errEnded    = errors.New("it ended before it answered")
)

// settings say how to make a stack.
type settings struct {
	getenv             func(string) string
	requireRedisServer bool
	measuring          bool
	log                io.Writer // for errors while the stack runs
}

// stack is a Redis and a MongoDB that answer.
type stack struct {
	dir     *tempDir
	redis   *server
	mongodb *server
}

// server is one of the two, of any kind.
type server struct {
	description string   // for people: product, version, kind and address
	environment []string // the variables for its clients, as NAME=value
	ended       <-chan struct{}
	failure     func() error // says why it has ended; call it only after ended
	stop        func()
}

// startStack starts the servers, and returns once both answer.
func startStack(ctx context.Context, set settings) (_ *stack, err error) {
	removeAbandoned()
	dir, err := newTempDir()
	if err != nil {
		return nil, err
	}
	s := &stack{dir: dir}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.redis, err = startRedis(ctx, set, dir.path); err != nil {
		return nil, err
	}
	if s.mongodb, err = startMongoDB(ctx, set, dir.path); err != nil {
		return nil, err
	}
	return s, nil
}

// stop stops the servers that were started, and removes their files.
func (s *stack) stop() {
	for _, srv := range []*server{s.mongodb, s.redis} {
		if srv != nil && srv.stop != nil {
			srv.stop()
		}
	}
	s.dir.remove()
}

// environment returns the variables that COMMAND gets on top of devstack's own.
func (s *stack) environment() []string {
	return append(append([]string(nil), s.redis.environment...), s.mongodb.environment...)
}

// untilAnswer asks until ask succeeds. It gives up after answerTimeout, when ctx ends or when ended is closed. Its error has
// the last answer.
func untilAnswer(ctx context.Context, ended <-chan struct{}, ask func(context.Context) error) error {
	ctx, cancelTimeout := context.WithTimeoutCause(ctx, answerTimeout, errNoAnswer)
	defer cancelTimeout()
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() {
		select {
		case <-ended: // no answer can come any more
			cancel(errEnded)
		case <-ctx.Done():
		}
	})
	ticker := time.NewTicker(answerPoll)
	defer ticker.Stop()
	var last error
	for {
		attempt, cancelAttempt := context.WithTimeout(ctx, attemptTimeout)
		err := ask(attempt)
		cancelAttempt()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // otherwise the last answer says no more than ctx
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (the last answer: %w)", context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// moduleVersion returns the version of a dependency of this program, without the leading v.
func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == path {
				return strings.TrimPrefix(dep.Version, "v")
			}
		}
	}
	return "(version unknown)"
}
