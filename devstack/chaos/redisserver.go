// Chaos kills Redis, so it starts one of its own. That Redis syncs every write to the disk, so that nothing acknowledged is
// lost.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed/freeport"
)

const (
	// redisStart is how long Redis may take until it has read its data and answers.
	redisStart = 15 * time.Second
	redisPoll  = 20 * time.Millisecond
	redisStop  = 3 * time.Second
	// questionTimeout bounds a quick command to a server.
	questionTimeout = 3 * time.Second

	loopback = "127.0.0.1"
)

// redisServer is a redis-server that keeps its port and its data over all its lives.
type redisServer struct {
	path, dir string
	port      *freeport.Port
	log       *os.File
	process   *procs.Process
	// client is a direct client, without a proxy.
	client *redis.Client
}

// newRedisServer prepares a Redis that keeps its files in the directory, and logs to a file in logs.
func newRedisServer(dir, logs string) (*redisServer, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("looking for a Redis to kill: %w; install redis-server", err)
	}
	port, err := freeport.Reserve()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(logs, "redis.log"))
	if err != nil {
		return nil, fmt.Errorf("making the log of Redis: %w", err)
	}
	s := &redisServer{path: path, dir: dir, port: port, log: log}
	s.client = redis.NewClient(&redis.Options{
		Addr: s.address(), DialTimeout: questionTimeout, ReadTimeout: questionTimeout, WriteTimeout: questionTimeout,
		ContextTimeoutEnabled: true, MaxRetries: -1, DisableIdentity: true,
	})
	return s, nil
}

func (s *redisServer) address() string { return s.port.Address() }

// start returns when it answers.
func (s *redisServer) start(ctx context.Context) error {
	cmd := exec.Command(s.path,
		"--bind", loopback, "--port", s.port.String(), "--dir", s.dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
		// It publishes new keys, and strings that are set: see watcher.
		"--notify-keyspace-events", "Kn$")
	cmd.Stdout, cmd.Stderr = s.log, s.log
	process, err := procs.Start(cmd, procs.Options{Name: "Redis"})
	if err != nil {
		return err
	}
	s.process = process
	ctx, cancel := context.WithTimeout(ctx, redisStart)
	defer cancel()
	ticker := time.NewTicker(redisPoll)
	defer ticker.Stop()
	for {
		info, err := s.client.Info(ctx, "server").Result()
		if err == nil && !strings.Contains(info, "process_id:"+strconv.Itoa(process.PID())+"\r") {
			return fmt.Errorf("another Redis answers on port %s", s.port)
		}
		if err == nil {
			if err = s.client.Ping(ctx).Err(); err == nil { // a Redis that still loads its data answers INFO
				return nil
			}
		}
		select {
		case <-ticker.C:
		case <-process.Done():
			return fmt.Errorf("starting Redis: it ended: %s", process.Status())
		case <-ctx.Done():
			return fmt.Errorf("starting Redis: %w (the last answer: %w)", context.Cause(ctx), err)
		}
	}
}

// kill ends it as a power cut does.
func (s *redisServer) kill() { s.process.Kill() }

// close ends it for good.
func (s *redisServer) close() error {
	if s.process != nil {
		s.process.Stop(redisStop)
	}
	return errors.Join(s.client.Close(), s.log.Close(), s.port.Release())
}
