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
	// Patience is how long the attempt waits for a store that is unavailable before it fails.
	Patience time.Duration
	// Resume is where the previous attempt got to.
	Resume Checkpoint
	// Save keeps where this one got to.
	Save Save
	// Observe is told of each batch; nil for nobody.
	Observe Observe
	// Log is the run's logger.
	Log *slog.Logger
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

// execution is the state of one call of Pass.Do.
type execution struct {
	Pass
	started    time.Time
	checkpoint Checkpoint
	exhausted  bool // set by the reader when there are no more records

	batches  chan *batch   // read, to be written
	written  chan *batch   // written, in any order
	window   chan struct{} // a place for each batch that is read but not yet part of the checkpoint that is saved
	complete map[int]*batch
	next     int // sequence number of the batch that continues the checkpoint
	unsaved  int // batches in the checkpoint that are not in the one that is saved
}

// Do visits the selected records of the range behind the checkpoint, each once, and returns the checkpoint of the end:
// what has been done over all attempts. When stop is closed it finishes the batches in flight, saves, and returns
// ErrStopped. When ctx ends it returns at once with ctx's cause. Any other error is that of a failed attempt. After a
// crash no more than the batches in flight are done again: Writers times three.
func (p Pass) Do(ctx context.Context, stop <-chan struct{}) (Checkpoint, error) {
	window := p.Writers * windowPerWriter
	e := &execution{
		Pass: p, started: time.Now(), checkpoint: p.Resume,
		batches: make(chan *batch), written: make(chan *batch, window), window: make(chan struct{}, window),
		complete: make(map[int]*batch),
	}
	if e.checkpoint.After == nil {
		counting, end := untilStopped(ctx, stop)
		err := p.patiently(counting, stop, "counting the "+p.Noun+"s to sync", func() (err error) {
			e.checkpoint.Total, err = p.Store.Count(counting, p.Selection, p.Range)
			return err
		})
		end()
		if err != nil {
			return Checkpoint{}, err
		}
	}
	p.Log.Info(p.title()+"s to sync", "totalUsers", e.checkpoint.Total)
	if err := e.work(ctx, stop); err != nil {
		return Checkpoint{}, err
	}
	return e.current(), nil
}

// work runs the reader and the writers and moves the checkpoint, until all is done or one of them fails.
func (e *execution) work(outer context.Context, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)

	var reader, writers sync.WaitGroup
	reader.Go(func() {
		defer close(e.batches)
		reading, end := untilStopped(ctx, stop)
		defer end()
		err := e.safely(func() error { return e.read(reading, stop) })
		if err != nil && !errors.Is(err, ErrStopped) {
			cancel(err)
		}
	})
	for range e.Writers {
		writers.Go(func() {
			for b := range e.batches {
				if err := e.observed(ctx, b, func(ctx context.Context) error { return e.write(ctx, stop, b) }); err != nil {
					cancel(err)
					return
				}
				e.written <- b // never blocks: there is room for the whole window
			}
		})
	}
	go func() { // ends with the writers, and the loop below with it
		writers.Wait()
		close(e.written)
	}()

	e.keep(ctx, cancel)
	reader.Wait()
	if ctx.Err() != nil {
		err := context.Cause(ctx)
		if !errors.Is(err, ErrSuperseded) {
			_ = e.saveFinally(ctx) // logged; the next attempt then does a little more again
		}
		return err
	}
	if !e.exhausted {
		if err := e.saveFinally(ctx); errors.Is(err, ErrSuperseded) {
			return err
		}
		return ErrStopped
	}
	return nil
}

// observed works on a batch in view of whoever observes.
func (e *execution) observed(ctx context.Context, b *batch, work func(context.Context) error) error {
	if e.Observe == nil {
		return e.safely(func() error { return work(ctx) })
	}
	ctx, end := e.Observe(ctx, len(b.records))
	err := e.safely(func() error { return work(ctx) })
	end(b.updated, b.errors, err)
	return err
}

// safely makes a panic of what runs in a goroutine of the pass, such as its Work, an error of the attempt.
func (e *execution) safely(f func() error) (err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v", x)
			e.Log.Error("The work on a batch panicked", "error", err, "stack", string(debug.Stack()))
		}
	}()
	return f()
}

// keep moves the checkpoint over what has been written, and saves it whenever it has moved, until the writers have ended.
func (e *execution) keep(ctx context.Context, cancel context.CancelCauseFunc) {
	toSave, saved := make(chan Checkpoint), make(chan error)
	var saver sync.WaitGroup
	saver.Go(func() {
		for c := range toSave {
			saved <- e.Save(ctx, c, c.Progress())
		}
	})
	var (
		saving = 0 // batches that the checkpoint which is being saved adds
		again  <-chan time.Time
		warned bool
	)
	for open := true; open || saving > 0; {
		var save chan<- Checkpoint
		if e.unsaved > 0 && saving == 0 && again == nil && open && ctx.Err() == nil {
			save = toSave
		}
		written := e.written
		if !open {
			written = nil
		}
		select {
		case b, ok := <-written:
			if open = ok; ok {
				e.advance(b)
			}
		case save <- e.current():
			saving, e.unsaved = e.unsaved, 0
		case err := <-saved:
			switch {
			case err == nil:
				for range saving {
					<-e.window
				}
				warned = false
			case errors.Is(err, ErrSuperseded):
				cancel(err)
			default:
				e.unsaved += saving
				again = time.After(savePause)
				if !warned && ctx.Err() == nil {
					e.Log.Warn("Could not save the run's checkpoint, trying again", "error", err)
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

// untilStopped returns a context that ends with ErrStopped when stop is closed: what is only read need not be waited
// for. The caller must call end.
func untilStopped(ctx context.Context, stop <-chan struct{}) (stopped context.Context, end func()) {
	stopped, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-stop:
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
func (e *execution) read(ctx context.Context, stop <-chan struct{}) error {
	var (
		cursor Cursor
		record Record
		ok     bool
		after  = e.Range.After
	)
	if e.checkpoint.After != nil {
		after = e.checkpoint.After
	}
	defer func() {
		if cursor != nil {
			cursor.Close()
		}
	}()
	next := func() (err error) {
		if cursor == nil {
			if cursor, err = e.Store.Scan(ctx, e.Selection, Range{After: after, Upto: e.Range.Upto}); err != nil {
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
	reading := "reading " + e.Noun + "s"
	for sequence := 0; ; sequence++ {
		select {
		case e.window <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		b := &batch{sequence: sequence, records: make([]Record, 0, e.BatchSize)}
		for len(b.records) < e.BatchSize {
			if err := e.patiently(ctx, stop, reading, next); err != nil {
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
			case e.batches <- b:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if !ok {
			e.exhausted = true // and the last batch is on its way: one that a stop leaves behind is not done
			return nil
		}
	}
}

// write does the work on a batch and writes what has come of it.
func (e *execution) write(ctx context.Context, stop <-chan struct{}, b *batch) error {
	e.Log.Debug("Processing "+e.Noun+" batch", "batchSize", len(b.records), "skip", b.sequence*e.BatchSize)
	var outcomes []Outcome
	err := e.patiently(ctx, stop, "working on "+e.Noun+"s", func() (err error) {
		outcomes, err = e.Work.Do(ctx, b.records)
		return err
	})
	if err != nil {
		return err
	}
	if len(outcomes) != len(b.records) {
		return fmt.Errorf("working on %ss: %d outcomes for a batch of %d", e.Noun, len(outcomes), len(b.records))
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
		err := e.patiently(ctx, stop, "updating "+e.Noun+"s", func() (err error) {
			stamped, err = e.Store.Stamp(ctx, updates, e.Selection.Reference)
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
	e.report(ctx, b, failed)
	return nil
}

// report logs what has become of each record of a batch.
func (e *execution) report(ctx context.Context, b *batch, failed []Failure) {
	isFailed := make(map[string]bool, len(failed))
	for _, f := range failed {
		isFailed[string(f.Record.Key)] = true
		e.Log.Error(e.title()+" sync failed", "userId", f.Record.ID.String(), "username", f.Record.Name, "error", f.Err)
	}
	if !e.Log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	for _, record := range b.records {
		if !isFailed[string(record.Key)] {
			e.Log.Debug(e.title()+" synced successfully", "userId", record.ID.String(), "username", record.Name)
		}
	}
}

// advance moves the checkpoint over b and over the batches behind it that were complete before it.
func (e *execution) advance(b *batch) {
	e.complete[b.sequence] = b
	for {
		b, ok := e.complete[e.next]
		if !ok {
			return
		}
		delete(e.complete, e.next)
		e.next++
		e.unsaved++
		c := &e.checkpoint
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
func (e *execution) current() Checkpoint {
	c := e.checkpoint
	c.Elapsed = e.Resume.Elapsed + time.Since(e.started)
	return c
}

// saveFinally saves the checkpoint of an attempt that ends early, even when its context has ended.
func (e *execution) saveFinally(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalSaveTimeout)
	defer cancel()
	c := e.current()
	err := e.Save(ctx, c, c.Progress())
	if err != nil {
		e.Log.Warn("Could not save the run's last checkpoint", "error", err)
	}
	return err
}

// title is the noun as a sentence begins with it.
func (p Pass) title() string { return strings.ToUpper(p.Noun[:1]) + p.Noun[1:] }
