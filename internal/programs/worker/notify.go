// The notifications, which a worker with a receiver sends besides its runs.

package worker

import (
	"context"
	"log/slog"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/notify"
	"github.com/codex-api/codex-jobs/internal/webhook"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// startNotifying sends notifications until ctx ends, if there is a receiver. The caller calls wait after that.
func startNotifying(
	ctx context.Context, system *jobs.Jobs, settings config.Notify, process *daemon.Process, connect func(...redis.Hook) redis.UniversalClient,
	log *slog.Logger,
) (wait func(), err error) {
	if settings.URL == "" {
		return func() {}, nil
	}
	client, err := webhook.New(settings.Options)
	if err != nil {
		return nil, err
	}
	log.Info("Notifying of events", "receiver", settings, "errorRate", settings.ErrorRate)
	if len(settings.Secrets) == 0 {
		log.Warn("The notifications are unsigned", "set", "NOTIFY_SECRET")
	}
	queue := notify.Queue(system, log)
	handlers := map[string]jobtype.Handler{jobs.NotifyJob: notify.Handler(client, notify.NewMetrics(process.Metrics))}
	sender, err := worker.New(queue, handlers, worker.Options{Concurrency: notify.Concurrency, Connect: connect, Tracing: process.Tracing}, log)
	if err != nil {
		return nil, err
	}
	var all sync.WaitGroup
	all.Go(func() { sender.Serve(ctx) })
	all.Go(func() { notify.Move(ctx, system, queue, settings.ErrorRate, log) })
	return func() {
		all.Wait()
		client.Close()
	}, nil
}
