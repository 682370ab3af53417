// Monitors and dashboards ask for the status often, most of all when many runs wait.

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sync/errgroup"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// waitingRuns is how many runs wait while the status is asked for. The bench compares that with fewRuns, which is more
	// than none: asynq looks at up to 20 tasks to say how much memory they take.
	waitingRuns = 10_000
	fewRuns     = 100
	// enqueuers is how many goroutines enqueue them.
	enqueuers = 16
	// askTime is how long the clients ask.
	askTime = 5 * time.Second
)

// statusClients is how many clients ask at the same time.
var statusClients = []int{1, 8}

// measureStatus measures GET /jobs/status with many runs waiting against few.
func (b *bench) measureStatus(ctx context.Context) error {
	project, _ := b.cfg.Registry.Lookup(codex.ProjectSync.Name)
	if err := b.jobs.Pause(ctx, project, jobs.Trigger{}); err != nil {
		return err
	}
	if err := b.enqueue(ctx, project, fewRuns); err != nil {
		return err
	}
	few, err := b.askStatus(ctx, fewRuns)
	if err != nil {
		return err
	}
	if err := b.enqueue(ctx, project, waitingRuns-fewRuns); err != nil {
		return err
	}
	loaded, err := b.askStatus(ctx, waitingRuns)
	if err != nil {
		return err
	}
	if _, err := b.inspector.DeleteAllPendingTasks(project.Name); err != nil {
		return fmt.Errorf("removing the waiting runs: %w", err)
	}
	if err := b.jobs.Resume(ctx, project, jobs.Trigger{}); err != nil {
		return err
	}
	for i, clients := range statusClients {
		what := fmt.Sprintf("GET /jobs/status, %s waiting, clients: %d", count(waitingRuns), clients)
		add := func(name, unit string, value func(answers) float64) {
			b.report.add(figure{
				Section: "status", What: what + name, Value: value(loaded[i]), Unit: unit,
				Against: count(fewRuns) + " waiting", AgainstValue: value(few[i]),
			})
		}
		add("", "requests/s", func(a answers) float64 { return a.perSecond })
		add(", median", "ms", func(a answers) float64 { return median(a.took) })
		add(", p99", "ms", func(a answers) float64 { return percentile(a.took, 99) })
	}
	return nil
}

// answers are the answers to the clients.
type answers struct {
	perSecond float64
	took      []float64 // milliseconds
}

// askStatus asks a fresh API, which must answer that so many runs wait, with each number of clients.
func (b *bench) askStatus(ctx context.Context, waiting int) (all []answers, err error) {
	server, client, err := newAPI(statusClients[len(statusClients)-1])
	if err != nil {
		return nil, err
	}
	defer client.close()
	err = b.with(ctx, []spec{server}, func(ctx context.Context, _ []*procs.Process) error {
		for _, clients := range statusClients {
			b.progress.say("GET /jobs/status for %v, %s waiting, clients: %d", askTime, count(waiting), clients)
			a, err := askFor(ctx, clients, func(ctx context.Context) error {
				var status struct{ Counts struct{ Waiting int } }
				if err := client.ask(ctx, http.MethodGet, "/jobs/status?job="+codex.ProjectSync.Name, "", &status); err != nil {
					return err
				}
				if status.Counts.Waiting != waiting {
					return fmt.Errorf("GET /jobs/status counts %d waiting runs, want %d", status.Counts.Waiting, waiting)
				}
				return nil
			})
			if err != nil {
				return err
			}
			all = append(all, a)
		}
		return nil
	})
	return all, err
}

// askFor lets several clients call ask again and again for a while, each once before that.
func askFor(ctx context.Context, clients int, ask func(context.Context) error) (answers, error) {
	for range clients {
		if err := ask(ctx); err != nil {
			return answers{}, err
		}
	}
	took := make([][]float64, clients)
	started := time.Now()
	asking, ctx := errgroup.WithContext(ctx)
	for i := range clients {
		asking.Go(func() error {
			for time.Since(started) < askTime {
				asked := time.Now()
				if err := ask(ctx); err != nil {
					return err
				}
				took[i] = append(took[i], 1000*time.Since(asked).Seconds())
			}
			return nil
		})
	}
	if err := asking.Wait(); err != nil {
		return answers{}, err
	}
	elapsed := time.Since(started)
	var a answers
	for _, list := range took {
		a.took = append(a.took, list...)
	}
	a.perSecond = perSecond(len(a.took), elapsed)
	return a, nil
}

// enqueue puts n runs into a queue, without the coalescing that would make one of them.
func (b *bench) enqueue(ctx context.Context, def tasks.Definition, n int) error {
	payload, err := def.EncodePayload(full)
	if err != nil {
		return err
	}
	bar := b.progress.bar(fmt.Sprintf("enqueueing %s runs", count(n)), n)
	defer bar.done()
	client := asynq.NewClientFromRedisClient(b.rdb)
	enqueueing, ctx := errgroup.WithContext(ctx)
	enqueueing.SetLimit(enqueuers)
	for range n {
		if ctx.Err() != nil {
			break // the reason is below
		}
		enqueueing.Go(func() error {
			id := tasks.TriggerID(def.Name, time.Now())
			if _, err := client.EnqueueContext(ctx, def.NewTask(id, payload, nil)); err != nil {
				return fmt.Errorf("enqueueing %s: %w", id, err)
			}
			bar.add(1)
			return nil
		})
	}
	return enqueueing.Wait()
}
