package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// missingRedis is what is missing when Redis does not serve.
const missingRedis = "Redis"

func connected(d client.Dependency) bool { return d.Status == client.StatusConnected }

func check(ctx context.Context, p Pinger) client.Dependency {
	start := time.Now()
	d := client.Dependency{Status: client.StatusConnected}
	if p.Ping(ctx) != nil {
		d.Status = client.StatusDisconnected
	}
	d.ResponseTime = time.Since(start).Milliseconds()
	return d
}

func (s *Server) health(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	h := client.Health{Status: client.StatusOK, Timestamp: now(), Uptime: int64(time.Since(s.started).Seconds())}
	var checks sync.WaitGroup
	var refused error
	checks.Go(func() { h.Database = check(ctx, s.Database) })
	checks.Go(func() { refused = s.Jobs.CheckWrites(ctx) })
	checks.Go(func() {
		if h.Redis = check(ctx, s.Jobs); connected(h.Redis) {
			h.Jobs = s.jobsHealth(ctx, s.log(c))
		} else {
			h.Jobs.Missing = []string{missingRedis}
		}
	})
	checks.Wait()
	if refused != nil && connected(h.Redis) {
		h.Redis.Status = client.StatusDisconnected
		h.Redis.Error = "Redis does not accept writes"
		if reply, ok := redisconn.Refusal(refused); ok {
			h.Redis.Error += ": " + reply
		}
		h.Jobs.Initialized = false
		if !slices.Contains(h.Jobs.Missing, missingRedis) {
			h.Jobs.Missing = append([]string{missingRedis}, h.Jobs.Missing...)
		}
		s.log(c).Warn("Redis does not accept writes", "error", refused)
	}
	status := http.StatusOK
	unwell := slices.ContainsFunc(h.Jobs.Waiting, func(w client.WaitingJob) bool { return !w.Upstream })
	if !connected(h.Database) || !connected(h.Redis) || unwell {
		h.Status, status = client.StatusDegraded, http.StatusServiceUnavailable
	}
	c.JSON(status, h)
}

func (s *Server) jobsHealth(ctx context.Context, log *slog.Logger) client.JobsHealth {
	var h client.JobsHealth
	var err error
	if h.Workers, err = s.Jobs.Live(ctx, jobs.RoleWorker); err == nil {
		h.Schedulers, err = s.Jobs.Live(ctx, jobs.RoleScheduler)
	}
	var excluded int
	if err == nil {
		excluded, err = s.Jobs.Excluded(ctx)
	}
	var schedules []jobs.Repeatable
	if err == nil {
		schedules, err = s.Jobs.Schedules(ctx, time.Now())
	}
	if err != nil {
		log.Warn("Redis did not serve the health check", "error", err)
		h.Missing = []string{missingRedis}
		return h
	}
	if h.Workers == 0 {
		h.Missing = append(h.Missing, "a live worker")
	}
	if lacksSchedule(s.Jobs.Registry().All(), schedules) {
		h.Missing = append(h.Missing, "a live schedule")
	}
	if excluded > 0 {
		h.Warnings = append(h.Warnings, fmt.Sprintf("workers that take no runs, because the others use another database, or have other endpoints: %d", excluded))
	}
	h.Initialized = len(h.Missing) == 0
	waits, err := s.Jobs.Waits(ctx)
	if err != nil {
		log.Warn("Redis did not serve the health check", "error", err)
	}
	for _, w := range waits {
		h.Waiting = append(h.Waiting, client.WaitingJob{ID: w.Run, Waiting: newWaiting(w)})
	}
	return h
}

// lacksSchedule reports whether a schedule of a job type is not live. Those that are switched off are not missed.
func lacksSchedule(definitions []tasks.Definition, live []jobs.Repeatable) bool {
	return slices.ContainsFunc(definitions, func(def tasks.Definition) bool {
		return def.Schedule.Enabled() && !slices.ContainsFunc(live, func(r jobs.Repeatable) bool { return r.Job == def.Name })
	})
}

// ready tells a load balancer whether the API can serve requests: without Redis all but the health check fail. If Redis only
// refuses writes, the API serves reads.
func (s *Server) ready(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	if s.Jobs.Ping(ctx) != nil {
		c.String(http.StatusServiceUnavailable, "Redis is not available\n")
		return
	}
	c.String(http.StatusOK, "ok\n")
}

// Healthy asks the API at the address whether it lives, with this certificate or, if that is nil, without TLS. It returns an
// error when the API does not answer so.
func Healthy(ctx context.Context, host string, port int, certificate *access.Certificate) error {
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http://"
	if certificate != nil {
		scheme = "https://"
	}
	url := scheme + net.JoinHostPort(host, strconv.Itoa(port)) + "/livez"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("asking %s: %w", url, err)
	}
	response, err := pinned(certificate).Do(request)
	if err != nil {
		return fmt.Errorf("asking %s: %w", url, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("asking %s: it answered %s", url, response.Status)
	}
	return nil
}
