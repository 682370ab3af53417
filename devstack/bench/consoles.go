// What open consoles cost the API.

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/codex-api/codex-jobs/internal/procs"
)

const (
	// consoles is how many consoles are open, and consoleTime how long they are.
	consoles, consoleTime = 10, time.Minute
	// lookInterval and restInterval are those of the console's script.
	lookInterval, restInterval = time.Second, 10 * time.Second
	// consoleUsers and consoleWait let a run be active all the while: a user in each batch.
	consoleUsers, consoleWait = 100, 2 * time.Second
	// mostConsoles is what they may cost, in percent of a core.
	mostConsoles = 5
)

// What the console asks for at each look, and now and then.
var (
	looks = []string{"/jobs?state=active&pageSize=100", "/processes"}
	rests = []string{
		"/job-types", "/schedules", "/health", "/jobs?state=waiting", "/jobs?state=delayed", "/jobs?state=completed", "/jobs?state=failed",
		"/jobs?state=cancelled",
	}
)

// measureConsoles measures the API's processor time while consoles are open and a run is active: they send what the console's script
// sends, as often.
func (b *bench) measureConsoles(ctx context.Context) error {
	if err := b.users.ensure(ctx, consoleUsers); err != nil {
		return err
	}
	server, client, err := newAPI(consoles * len(rests))
	if err != nil {
		return err
	}
	defer client.close()
	worker := spec{program: slowProgram, ready: procs.Ready(procs.Worker), settings: settings{
		writersSetting: "1", batchSizeSetting: "1", rangeSizeSetting: strconv.Itoa(consoleUsers / 2), "BENCH_BATCH_WAIT": consoleWait.String(),
	}}
	return b.with(ctx, []spec{server, worker}, func(ctx context.Context, crew []*procs.Process) error {
		var run struct{ JobID string }
		if err := client.ask(ctx, http.MethodPost, "/jobs/trigger/user-sync", `{"syncType":"full"}`, &run); err != nil {
			return err
		}
		b.progress.say("%d consoles, for %v", consoles, consoleTime)
		before, known, err := cpuTime(crew[0].PID())
		if err != nil {
			return err
		}
		started := time.Now()
		if err := openConsoles(ctx, client); err != nil {
			return err
		}
		after, _, err := cpuTime(crew[0].PID())
		if err != nil {
			return err
		}
		if known {
			b.report.add(figure{
				Section: "consoles", What: fmt.Sprintf("processor time of the API, %d consoles and an active run", consoles), Unit: "% of a core",
				Value: 100 * (after - before).Seconds() / time.Since(started).Seconds(), Against: "at most", AgainstValue: mostConsoles,
			})
		}
		return endRun(ctx, client, run.JobID)
	})
}

// openConsoles sends what the consoles do, for their time. They do not ask in step.
func openConsoles(ctx context.Context, client *api) error {
	bounded, cancel := context.WithTimeout(ctx, consoleTime)
	defer cancel()
	all := func(paths []string) error {
		asking, ctx := errgroup.WithContext(bounded)
		for _, path := range paths {
			asking.Go(func() error { return client.ask(ctx, http.MethodGet, path, "", nil) })
		}
		return asking.Wait()
	}
	opened, _ := errgroup.WithContext(bounded)
	for range consoles {
		opened.Go(func() error {
			rest := time.Now().Add(rand.N(restInterval))
			if err := pause(bounded, rand.N(lookInterval)); err != nil {
				return nil // the time is over
			}
			ticker := time.NewTicker(lookInterval)
			defer ticker.Stop()
			for bounded.Err() == nil {
				err := all(looks)
				if err == nil && time.Now().After(rest) {
					rest, err = time.Now().Add(restInterval), all(rests)
				}
				if err != nil && bounded.Err() == nil {
					return err
				}
				select {
				case <-ticker.C:
				case <-bounded.Done():
				}
			}
			return nil
		})
	}
	if err := opened.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// endRun cancels the run, and waits for its end.
func endRun(ctx context.Context, client *api, id string) error {
	if err := client.ask(ctx, http.MethodDelete, "/jobs/"+id, "", nil); err != nil {
		return err
	}
	for {
		var job struct{ EndedAt string }
		if err := client.ask(ctx, http.MethodGet, "/jobs/"+id, "", &job); err != nil || job.EndedAt != "" {
			return err
		}
		if err := pause(ctx, mailPoll); err != nil {
			return err
		}
	}
}
