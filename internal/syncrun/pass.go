package syncrun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

const (
	// savePause is the time between two tries to save a checkpoint when the first one failed.
	savePause = 250 * time.Millisecond
	// finalSaveTimeout bounds the last checkpoint of an attempt that is being stopped.
	finalSaveTimeout = 2 * time.Second
	// windowPerWriter bounds, for each writer, the batches between the checkpoint that is saved and what was read last:
	// those that are done again after a crash. With only one a slow batch would idle the other writers.
	windowPerWriter = 3
)

var (
	// ErrStopped is returned by an attempt that was asked to stop and has saved where it got to.
	ErrStopped = errors.New("the run was stopped")
	// ErrAllFailed is returned by a run in which the update of every single record failed.
	ErrAllFailed = errors.New("every record failed")
)

// Pass is one attempt at one range of a run.
type Pass struct {
	// Noun is what one record is called in the log: "user".
	Noun string
	// Store holds the records.
	Store Store
	// Work is done with each batch before it is written.
	Work Work
	// Selection says which records the run visits, and Range which of them are visited here.
	Selection Selection
	Range     Range
	// BatchSize is how many records make one unit of work.
	BatchSize int
	// Writers is how many batches are worked on at the same time.
	Writers int
	// RetryBudget is how long the attempt waits for a store that is unavailable before it fails.
	RetryBudget time.Duration
	// Stop is closed when the attempt shall save where it got to, and end; nil for never.
	Stop <-chan struct{}
	// Resume is where the previous attempt got to.
	Resume Checkpoint
	// Save keeps where this one got to.
	Save Save
	// Observe is told of each batch; nil for nobody.
	Observe Observe
	// Log is the run's logger.
	Log *slog.Logger

	// What follows is the state of one call of Do.

	started    time.Time
	checkpoint Checkpoint
	exhausted  bool // set by the reader when there are no more records
	fenced     bool // set when the context has ended because nothing may be saved any more

	batches  chan *batch   // read, to be written
	written  chan *batch   // written, in any order
	window   chan struct{} // a place for each batch that is read but not yet part of the checkpoint that is saved
	complete map[int]*batch
	next     int // sequence number of the batch that continues the checkpoint
	unsaved  int // batches in the checkpoint that are not in the one that is saved
}

// Observe is called, by several goroutines at the same time, when the work on a batch of so many records begins. It is
// done with the context that Observe returns, and when it is over end is called with what has become of the records, or
// with the reason for which that is not known.
type Observe func(ctx context.Context, records int) (working context.Context, end func(updated, failed int64, err error))

// batch is a unit of work on its way from the reader through a writer back to the pass.
type batch struct {
	sequence int
	records  []Record
	updated  int64
	errors   int64
	failure  string // the reason of the first record that failed
}

// Do visits the selected records of the range behind the checkpoint, each once, and returns the checkpoint of the end:
// what has been done over all attempts. When Stop is closed it finishes the batches in flight, saves, and returns
// ErrStopped. When ctx ends it returns at once with ctx's cause. Any other error is that of a failed attempt. After a
// crash no more than the batches in flight are done again: Writers times three.
func (p Pass) Do(ctx context.Context) (Checkpoint, error) {
	window := p.Writers * windowPerWriter
	p.started, p.checkpoint = time.Now(), p.Resume
	p.batches, p.written, p.window = make(chan *batch), make(chan *batch, window), make(chan struct{}, window)
	p.complete = make(map[int]*batch)
	if p.checkpoint.After == nil {
		counting, end := p.untilStopped(ctx)
		err := p.retry(counting, "counting the "+p.Noun+"s to sync", func() (err error) {
			p.checkpoint.Total, err = p.Store.Count(counting, p.Selection, p.Range)
			return err
		})
		end()
		if err != nil {
			return Checkpoint{}, err
		}
	}
	p.Log.Info(p.title()+"s to sync", "totalUsers", p.checkpoint.Total)
	if err := p.work(ctx); err != nil {
		return Checkpoint{}, err
	}
	return p.current(), nil
}

// work runs the reader and the writers and moves the checkpoint, until all is done or one of them fails.
func (p *Pass) work(outer context.Context) error {
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)

	var reader, writers sync.WaitGroup
	reader.Go(func() {
		defer close(p.batches)
		reading, end := p.untilStopped(ctx)
		defer end()
		err := p.safely(func() error { return p.read(reading) })
		if err != nil && !errors.Is(err, ErrStopped) {
			cancel(err)
		}
	})
	for range p.Writers {
		writers.Go(func() {
			for b := range p.batches {
				if err := p.observed(ctx, b, func(ctx context.Context) error { return p.write(ctx, b) }); err != nil {
					cancel(err)
					return
				}
				p.written <- b // never blocks: there is room for the whole window
			}
		})
	}
	go func() { // ends with the writers, and the loop below with it
		writers.Wait()
		close(p.written)
	}()

	p.keep(ctx)
	reader.Wait()
	if ctx.Err() != nil {
		if !p.fenced {
			p.saveFinally(ctx) // the next attempt then does a little less again
		}
		return context.Cause(ctx)
	}
	if !p.exhausted {
		p.saveFinally(ctx)
		return ErrStopped
	}
	return nil
}

// observed works on a batch in view of whoever observes.
func (p *Pass) observed(ctx context.Context, b *batch, work func(context.Context) error) error {
	if p.Observe == nil {
		return p.safely(func() error { return work(ctx) })
	}
	ctx, end := p.Observe(ctx, len(b.records))
	err := p.safely(func() error { return work(ctx) })
	end(b.updated, b.errors, err)
	return err
}

// safely makes a panic of what runs in a goroutine of the pass, such as its Work, an error of the attempt.
func (p *Pass) safely(f func() error) (err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v", x)
			p.Log.Error("The work on a batch panicked", "error", err, "stack", string(debug.Stack()))
		}
	}()
	return f()
}

// keep moves the checkpoint over what has been written, and saves it whenever it has moved, until the writers have ended.
func (p *Pass) keep(ctx context.Context) {
	toSave, saved := make(chan Checkpoint), make(chan error)
	var saver sync.WaitGroup
	saver.Go(func() {
		for c := range toSave {
			saved <- p.Save(ctx, c, c.Progress())
		}
	})
	var (
		saving = 0 // batches that the checkpoint which is being saved adds
		again  <-chan time.Time
		warned bool
	)
	for open := true; open || saving > 0; {
		var save chan<- Checkpoint
		if p.unsaved > 0 && saving == 0 && again == nil && open && ctx.Err() == nil {
			save = toSave
		}
		written := p.written
		if !open {
			written = nil
		}
		select {
		case b, ok := <-written:
			if open = ok; ok {
				p.advance(b)
			}
		case save <- p.current():
			saving, p.unsaved = p.unsaved, 0
		case err := <-saved:
			switch {
			case err == nil:
				for range saving {
					<-p.window
				}
				warned = false
			case ctx.Err() != nil:
				p.fenced = errors.Is(context.Cause(ctx), err)
			default:
				p.unsaved += saving
				again = time.After(savePause)
				if !warned {
					p.Log.Warn("Could not save the run's checkpoint, trying again", "error", err)
				}
				warned = true
			}
			saving = 0
		case <-again:
			again = nil
		}
	}
	close(toSave)
	saver.Wait()
}

// untilStopped returns a context that ends with ErrStopped when Stop is closed: what is only read need not be waited
// for. The caller must call end.
func (p *Pass) untilStopped(ctx context.Context) (stopped context.Context, end func()) {
	stopped, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-p.Stop:
			cancel(ErrStopped)
		case <-stopped.Done():
		}
	})
	return stopped, func() {
		cancel(nil)
		watching.Wait()
	}
}

// read sends the selected records on in batches, until there are no more or ctx ends, whose cause it then returns.
func (p *Pass) read(ctx context.Context) error {
	var (
		cursor Cursor
		record Record
		ok     bool
		after  = p.Range.After
	)
	if p.checkpoint.After != nil {
		after = p.checkpoint.After
	}
	defer func() {
		if cursor != nil {
			cursor.Close()
		}
	}()
	next := func() (err error) {
		if cursor == nil {
			if cursor, err = p.Store.Scan(ctx, p.Selection, Range{After: after, Upto: p.Range.Upto}); err != nil {
				cursor = nil
				return err
			}
		}
		if record, ok, err = cursor.Next(ctx); err != nil {
			cursor.Close() // the next try continues behind the last record with a new one
			cursor = nil
		}
		return err
	}
	reading := "reading " + p.Noun + "s"
	for sequence := 0; ; sequence++ {
		select {
		case p.window <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		b := &batch{sequence: sequence, records: make([]Record, 0, p.BatchSize)}
		for len(b.records) < p.BatchSize {
			if err := p.retry(ctx, reading, next); err != nil {
				return err
			}
			if !ok {
				break
			}
			after = record.Key
			b.records = append(b.records, record)
		}
		if len(b.records) > 0 {
			select {
			case p.batches <- b:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if !ok {
			p.exhausted = true // and the last batch is on its way: one that a stop leaves behind is not done
			return nil
		}
	}
}

// write does the work on a batch and writes what has come of it.
func (p *Pass) write(ctx context.Context, b *batch) error {
	p.Log.Debug("Processing "+p.Noun+" batch", "batchSize", len(b.records), "skip", b.sequence*p.BatchSize)
	var outcomes []Outcome
	err := p.retry(ctx, "working on "+p.Noun+"s", func() (err error) {
		outcomes, err = p.Work.Do(ctx, b.records)
		return err
	})
	if err != nil {
		return err
	}
	if len(outcomes) != len(b.records) {
		return fmt.Errorf("working on %ss: %d outcomes for a batch of %d", p.Noun, len(outcomes), len(b.records))
	}
	var failed []Failure
	updates := make([]Update, 0, len(b.records))
	for i, record := range b.records {
		if outcomes[i].Err != nil {
			failed = append(failed, Failure{Record: record, Err: outcomes[i].Err})
			continue
		}
		updates = append(updates, Update{Record: record, Set: outcomes[i].Set})
	}
	if len(updates) > 0 {
		var stamped Stamped
		err := p.retry(ctx, "updating "+p.Noun+"s", func() (err error) {
			stamped, err = p.Store.Stamp(ctx, updates, p.Selection.Reference)
			return err
		})
		if err != nil {
			return err
		}
		b.updated = stamped.Matched
		failed = append(failed, stamped.Failed...)
	}
	b.errors = int64(len(failed))
	if len(failed) > 0 {
		b.failure = failed[0].Err.Error()
	}
	p.report(ctx, b, failed)
	return nil
}

// report logs what has become of each record of a batch.
func (p *Pass) report(ctx context.Context, b *batch, failed []Failure) {
	isFailed := make(map[string]bool, len(failed))
	for _, f := range failed {
		isFailed[string(f.Record.Key)] = true
		p.Log.Error(p.title()+" sync failed", "userId", f.Record.ID.String(), "username", f.Record.Name, "error", f.Err)
	}
	if !p.Log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	for _, record := range b.records {
		if !isFailed[string(record.Key)] {
			p.Log.Debug(p.title()+" synced successfully", "userId", record.ID.String(), "username", record.Name)
		}
	}
}

// advance moves the checkpoint over b and over the batches behind it that were complete before it.
func (p *Pass) advance(b *batch) {
	p.complete[b.sequence] = b
	for {
		b, ok := p.complete[p.next]
		if !ok {
			return
		}
		delete(p.complete, p.next)
		p.next++
		p.unsaved++
		c := &p.checkpoint
		c.After = b.records[len(b.records)-1].Key
		c.Processed += int64(len(b.records))
		c.Updated += b.updated
		c.Errors += b.errors
		if c.Failure == "" {
			c.Failure = b.failure
		}
	}
}

// current is the checkpoint with the working time so far.
func (p *Pass) current() Checkpoint {
	c := p.checkpoint
	c.Elapsed = p.Resume.Elapsed + time.Since(p.started)
	return c
}

// saveFinally saves the checkpoint of an attempt that ends early, even when its context has ended. Where the attempt has ended
// because it may not save any more, that is no news.
func (p *Pass) saveFinally(ended context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ended), finalSaveTimeout)
	defer cancel()
	c := p.current()
	if err := p.Save(ctx, c, c.Progress()); err != nil && !errors.Is(context.Cause(ended), err) {
		p.Log.Warn("Could not save the run's last checkpoint", "error", err)
	}
}

// title is the noun as a sentence begins with it.
func (p *Pass) title() string { return strings.ToUpper(p.Noun[:1]) + p.Noun[1:] }
