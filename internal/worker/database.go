// A worker takes part only while it uses the same database and has the same endpoints as the other workers, see jobs.TakePart.

package worker

import (
	"context"
	"sync"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
)

const (
	// identifyInterval is how often a worker looks whether its database is still the same. It can be dropped, or restored.
	identifyInterval = 30 * time.Second
	// identifyTimeout bounds one look. With the time for Redis it stays well below what lets a worker count as dead.
	identifyTimeout = 3 * time.Second
	// vacancy is how long an excluded worker waits for the others to show themselves after Redis has lost its data.
	vacancy = 3 * jobs.HeartbeatInterval
)

// participation is what a worker knows of the others.
type participation struct {
	w          *Worker
	database   string // "" before it is known
	identified time.Time
	vacant     time.Time // since when Redis knows of no workers; zero while it does
	warned     bool      // the log says that it takes nothing
	stop       func()    // ends the work; nil while there is none
}

// run works whenever the worker takes part, until ctx ends.
func (p *participation) run(ctx context.Context) {
	ticker := time.NewTicker(jobs.HeartbeatInterval)
	defer ticker.Stop()
	for {
		p.look(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			p.end()
			leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := p.w.jobs.Withdraw(leaving, p.w.id); err != nil {
				p.w.log.Debug("Could not withdraw", "error", err)
			}
			return
		}
	}
}

// look begins or ends the work. It changes nothing while Redis does not answer.
func (p *participation) look(ctx context.Context) {
	p.identify(ctx)
	if p.database == "" || ctx.Err() != nil {
		return
	}
	asking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	patient := p.warned && (p.vacant.IsZero() || time.Since(p.vacant) < vacancy)
	terms := jobs.Terms{Database: p.database, Endpoints: p.w.options.Endpoints}
	takesPart, agreed, err := p.w.jobs.TakePart(asking, p.w.id, terms, patient)
	if err != nil {
		if ctx.Err() == nil {
			p.w.log.Debug("Could not ask for the terms of the other workers", "error", err)
		}
		return
	}
	switch {
	case agreed != "":
		p.vacant = time.Time{}
	case p.vacant.IsZero():
		p.vacant = time.Now()
	}
	switch {
	case takesPart && p.stop == nil:
		if p.warned {
			p.w.log.Info("Takes runs again: no other worker uses another database, or has other endpoints", "database", terms.String())
			p.warned = false
		}
		p.begin(ctx)
	case !takesPart:
		if !p.warned {
			msg := "Takes no runs: the other workers of this namespace use another database"
			if terms.SameDatabase(agreed) {
				msg = "Takes no runs: the other workers of this namespace have endpoints for other syncs"
			}
			p.w.log.Warn(msg, "database", terms.String(), "theirs", agreed)
			p.warned = true
		}
		p.end()
	}
}

// identify finds out which database it is, and now and then whether that has changed.
func (p *participation) identify(ctx context.Context) {
	if p.database != "" && time.Since(p.identified) < identifyInterval {
		return
	}
	looking, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	database, err := p.w.options.Database(looking)
	if err != nil {
		if p.database == "" && ctx.Err() == nil {
			p.w.log.Warn("Could not tell which database it is, trying again", "error", err)
		}
		return
	}
	p.database, p.identified = database, time.Now()
}

func (p *participation) begin(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	working.Go(func() { p.w.work(ctx) })
	p.stop = func() {
		cancel()
		working.Wait()
	}
}

// end returns when all runs and ranges are released.
func (p *participation) end() {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}
