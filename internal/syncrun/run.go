package syncrun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// saveInterval is the time between two checkpoints: often enough to watch the progress, seldom enough to cost
	// nothing.
	saveInterval = 250 * time.Millisecond
	// finalSaveTimeout bounds the last checkpoint of an attempt that is being stopped.
	finalSaveTimeout = 2 * time.Second
	// windowPerWriter bounds, for each writer, the batches between the checkpoint and what was read last. With only one
	// a slow batch would idle the other writers; more is more to do again after a crash.
	windowPerWriter = 2
)

var (
	// ErrStopped is returned by a run that was asked to stop and has saved where it got to.
	ErrStopped = errors.New("the run was stopped")
	// ErrAllFailed is returned by a run in which the update of every single record failed.
	ErrAllFailed = errors.New("every record failed")
)

// Run is one attempt at a run.
type Run struct {
	// Noun is what one record is called in the log: "user".
	Noun string
	// Store holds the records.
	Store Store
	// Selection says which of them the run visits.
	Selection Selection
	// BatchSize is how many records make one unit of work.
	BatchSize int
	// Writers is how many batches are written at the same time.
	Writers int
	// Patience is how long the attempt waits for a store that is unavailable before it fails.
	Patience time.Duration
	// Resume is where the previous attempt got to.
	Resume Checkpoint
	// Save keeps where this one got to.
	Save Save
	// Log is the run's logger.
	Log *slog.Logger
}

// Result is what a run that reached its end has done, over all its attempts.
type Result struct {
	Processed, Updated, Errors int64
	// Elapsed is the working time.
	Elapsed time.Duration
}

// batch is a unit of work on its way from the reader through a writer back to the run.
type batch struct {
	sequence int
	records  []Record
	stamped  Stamped
}

// execution is the state of one call of Do.
type execution struct {
	Run
	started    time.Time
	checkpoint Checkpoint
	failure    error // of the first record that failed
	exhausted  bool  // set by the reader when there are no more records
	unsaved    bool  // the last checkpoint could not be saved, and the log says so

	batches  chan *batch   // read, to be written
	written  chan *batch   // written, in any order
	window   chan struct{} // a place for each batch that is read but not yet part of the checkpoint
	complete map[int]*batch
	next     int // sequence number of the batch that continues the checkpoint
}

// Do visits the selected records behind the checkpoint, each once, and returns what the run has done over all its
// attempts. When stop is closed it finishes the batches in flight, saves, and returns ErrStopped. When ctx ends it
// returns at once with ctx's cause. Any other error is that of a failed attempt.
func (r Run) Do(ctx context.Context, stop <-chan struct{}) (Result, error) {
	window := r.Writers * windowPerWriter
	e := &execution{
		Run: r, started: time.Now(), checkpoint: r.Resume,
		batches: make(chan *batch), written: make(chan *batch, window), window: make(chan struct{}, window),
		complete: make(map[int]*batch),
	}
	if e.checkpoint.After == nil {
		counting, end := untilStopped(ctx, stop)
		err := e.patiently(counting, stop, "counting the "+r.Noun+"s to sync", func() (err error) {
			e.checkpoint.Total, err = r.Store.Count(counting, r.Selection)
			return err
		})
		end()
		if err != nil {
			return Result{}, err
		}
	}
	r.Log.Info(e.title()+"s to sync", "totalUsers", e.checkpoint.Total)
	if err := e.work(ctx, stop); err != nil {
		return Result{}, err
	}
	c := e.checkpoint
	if c.Processed > 0 && c.Errors == c.Processed {
		// The next attempt begins at the beginning: behind the checkpoint there is nothing left to try.
		_ = e.save(ctx, Checkpoint{Elapsed: e.elapsed()}) // logged
		return Result{}, fmt.Errorf("%w: %d of %d %ss, the first one: %w", ErrAllFailed, c.Errors, c.Processed, r.Noun, e.firstFailure())
	}
	return Result{Processed: c.Processed, Updated: c.Updated, Errors: c.Errors, Elapsed: e.elapsed()}, nil
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
		if err := e.read(reading, stop); err != nil && !errors.Is(err, ErrStopped) {
			cancel(err)
		}
	})
	for range e.Writers {
		writers.Go(func() {
			for b := range e.batches {
				if err := e.write(ctx, stop, b); err != nil {
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

	ticker := time.NewTicker(saveInterval)
	defer ticker.Stop()
	saved := e.checkpoint.After
	for open := true; open; {
		select {
		case b, ok := <-e.written:
			if open = ok; ok {
				e.advance(b)
			}
		case <-ticker.C:
			if string(saved) == string(e.checkpoint.After) {
				continue
			}
			saved = e.checkpoint.After
			if err := e.save(ctx, e.current()); errors.Is(err, ErrSuperseded) {
				cancel(err)
			}
		}
	}
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
		after  = e.checkpoint.After
	)
	defer func() {
		if cursor != nil {
			cursor.Close()
		}
	}()
	next := func() (err error) {
		if cursor == nil {
			if cursor, err = e.Store.Scan(ctx, e.Selection, after); err != nil {
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

// write stamps the records of a batch.
func (e *execution) write(ctx context.Context, stop <-chan struct{}, b *batch) error {
	e.Log.Debug("Processing "+e.Noun+" batch", "batchSize", len(b.records), "skip", b.sequence*e.BatchSize)
	err := e.patiently(ctx, stop, "updating "+e.Noun+"s", func() (err error) {
		b.stamped, err = e.Store.Stamp(ctx, b.records, e.Selection.Reference)
		return err
	})
	if err != nil {
		return err
	}
	failed := make(map[string]bool, len(b.stamped.Failed))
	for _, f := range b.stamped.Failed {
		failed[string(f.Record.Key)] = true
		e.Log.Error(e.title()+" sync failed", "userId", f.Record.ID.String(), "username", f.Record.Name, "error", f.Err)
	}
	if e.Log.Enabled(ctx, slog.LevelDebug) {
		for _, record := range b.records {
			if !failed[string(record.Key)] {
				e.Log.Debug(e.title()+" synced successfully", "userId", record.ID.String(), "username", record.Name)
			}
		}
	}
	return nil
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
		<-e.window
		c := &e.checkpoint
		c.After = b.records[len(b.records)-1].Key
		c.Processed += int64(len(b.records))
		c.Updated += b.stamped.Matched
		c.Errors += int64(len(b.stamped.Failed))
		if e.failure == nil && len(b.stamped.Failed) > 0 {
			e.failure = b.stamped.Failed[0].Err
		}
	}
}

func (e *execution) current() Checkpoint {
	c := e.checkpoint
	c.Elapsed = e.elapsed()
	return c
}

func (e *execution) save(ctx context.Context, c Checkpoint) error {
	err := e.Save(ctx, c)
	if err != nil && ctx.Err() == nil && !e.unsaved {
		e.Log.Warn("Could not save the run's checkpoint, trying again", "error", err)
	}
	e.unsaved = err != nil
	return err
}

// saveFinally saves the checkpoint of an attempt that ends early, even when its context has ended.
func (e *execution) saveFinally(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalSaveTimeout)
	defer cancel()
	return e.save(ctx, e.current())
}

func (e *execution) elapsed() time.Duration { return e.Resume.Elapsed + time.Since(e.started) }

// firstFailure is the reason of the first record that failed; it may have failed in an earlier attempt.
func (e *execution) firstFailure() error {
	if e.failure == nil {
		return errors.New("see the log of the earlier attempt")
	}
	return e.failure
}

// title is the noun as a sentence begins with it.
func (e *execution) title() string { return strings.ToUpper(e.Noun[:1]) + e.Noun[1:] }
