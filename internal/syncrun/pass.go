// A pass: one reader, several workers and several writers, with a checkpoint that has no gaps.

package syncrun

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// saveRetryInterval is the time between two tries to save a checkpoint.
	saveRetryInterval = 250 * time.Millisecond
	// finalSaveTimeout bounds the last save of an attempt that stops.
	finalSaveTimeout = 2 * time.Second
	// finishTime is how long the other batches have to end after one has failed.
	finishTime = 30 * time.Second
	// windowPerWriter is how many batches can be ahead of the saved checkpoint for each writer, or for each worker, if there are more
	// of them. After a crash these are done again. With only one, a slow batch would idle the others.
	windowPerWriter = 3
	// stampWindow is how many batches a pass that only stamps can be ahead of the saved checkpoint: doing them again costs little.
	stampWindow = 50
	// saveInterval is how far apart the checkpoint is saved. A pass that only stamps saves later, if fewer than windowPerWriter batches
	// for each writer wait for it: a checkpoint costs Redis more than a batch costs MongoDB's driver. Another pass saves earlier, if
	// one batch for each worker waits, so that no worker waits for a save.
	saveInterval = 250 * time.Millisecond
)

var (
	// ErrStopped is the error of an attempt that has saved a checkpoint, and stopped because Stop was closed.
	ErrStopped = errors.New("the run was stopped")
	// ErrAllFailed is the error of a run in which the update of every record failed, and of enough records: then it is not the
	// records. A bad record by itself never fails a run.
	ErrAllFailed = errors.New("every record failed")
)

// Pass is one attempt at a range of records. A reader reads batches ahead, workers do the Work, writers write what it returns, and
// the checkpoint moves over what is written. So batches are read and written while others wait in the Work.
type Pass struct {
	// Noun is the log's word for a record: "user".
	Noun string
	// Store holds the records.
	Store Store
	// Work is done with each batch before it is written.
	Work Work
	// Selection says which records the run visits, and Range bounds those of this pass.
	Selection Selection
	Range     Range
	// BatchSize is how many records a batch has.
	BatchSize int
	// Writers is how many batches are written at the same time, and Workers on how many the Work works. 0 means as many as Writers.
	Writers, Workers int
	// Slots are shared with other passes, if one begins while another one finishes. With nil the pass has its own.
	Slots *Slots
	// Exhausted is called when the last record is read, and the last batches are worked on or, if the pass only stamps, written. It can be nil.
	Exhausted func()
	// KeepFailed says what the checkpoint keeps of the records that fail.
	KeepFailed KeepFailed
	// RetryBudget is how long the attempt keeps trying while a store is unavailable, before it fails.
	RetryBudget time.Duration
	// Stop is closed to ask the attempt to save a checkpoint and end. It can be nil.
	Stop <-chan struct{}
	// Resume is the checkpoint of the previous attempt.
	Resume Checkpoint
	// Save stores the checkpoint of this attempt.
	Save Save
	// Observe observes each batch. It can be nil.
	Observe Observe
	// Waiting is told what the run waits for. It can be nil.
	Waiting Waiting
	// Log is the run's logger.
	Log *slog.Logger

	// The state of one call of Do.

	stamping   bool // the Work is Stamping
	waits      *waits
	started    time.Time
	checkpoint Checkpoint
	read       int  // batches that are read
	exhausted  bool // there are no more records to read
	fenced     bool // the context has ended because the attempt is fenced

	ahead    chan *batch   // read, to be worked on
	worked   chan *batch   // worked on, to be written
	written  chan *batch   // written, in any order
	window   chan struct{} // has a value for each batch that is begun, or can be, but is not in the saved checkpoint
	counted  <-chan int64  // has the total, once it is known; nil if it is known from the beginning
	complete map[int]*batch
	next     int // sequence number of the batch that continues the checkpoint
	unsaved  int // batches in the checkpoint that are not in the saved one
}

// Slots bound how many batches are written, and worked on, at the same time by passes of which one begins while another one finishes.
// Each batch takes a slot by itself: a pass that held one while it waits could wait for another that does the same.
type Slots struct{ writers, workers *semaphore.Weighted }

// NewSlots returns slots for as many writers, and as many workers. 0 workers are as many as writers.
func NewSlots(writers, workers int) *Slots {
	return &Slots{semaphore.NewWeighted(int64(writers)), semaphore.NewWeighted(int64(cmp.Or(workers, writers)))}
}

// Observe measures and traces the work on a batch. The pass calls it before the work, from several goroutines at the same time,
// and does the work with the context that it returns. Then it calls end with the numbers of records, or with the error that makes
// them unknown.
type Observe func(ctx context.Context, records int) (working context.Context, end func(updated, failed int64, err error))

// batch goes from the reader through a worker and a writer to the checkpoint.
type batch struct {
	sequence int
	records  []Record
	updated  int64
	errors   int64
	failure  string // why the first record failed that did

	ctx     context.Context // Observe's, from the work to the write
	end     func(error)     // tells Observe
	updates []Update        // by the Work
	failed  []Failure       // by the Work
	broken  error           // why the Work ended in the middle. Then records are only those that it got to
}

// Do visits the selected records of the range behind the checkpoint, each once. It returns the checkpoint of the end, which
// counts all attempts. When Stop is closed, it finishes the batches in flight, saves, and returns ErrStopped. When ctx ends, it
// returns ctx's cause at once. Any other error is a failed attempt. After a crash at most three batches are done again for each
// writer, or for each worker, if there are more of them; of a pass that only stamps, at most 50 in all.
func (p Pass) Do(ctx context.Context) (Checkpoint, error) {
	_, p.stamping = p.Work.(Stamping)
	p.Selection.Named = p.Log.Enabled(ctx, slog.LevelDebug) // which names each record
	switch {
	case p.stamping:
		p.Workers = 0 // the writers do it themselves, as it waits for nothing
	case p.Workers == 0:
		p.Workers = p.Writers
	}
	window := max(p.Workers, p.Writers) * windowPerWriter
	if p.stamping {
		window = max(window, stampWindow)
	}
	if p.Slots == nil {
		p.Slots = NewSlots(p.Writers, p.Workers)
	}
	p.started, p.checkpoint = time.Now(), p.Resume
	p.ahead = make(chan *batch, p.Workers) // so that no worker waits for a fetch of the cursor
	p.worked, p.written = make(chan *batch, window), make(chan *batch, window)
	p.window = make(chan struct{}, window)
	p.complete = make(map[int]*batch)
	defer p.watchWaits(ctx)()
	defer p.learnTotal(ctx)()
	if err := p.run(ctx); err != nil {
		return Checkpoint{}, err
	}
	if p.checkpoint.Total == 0 { // the work was faster than the count
		p.setTotal(p.checkpoint.Processed)
	}
	return p.current(), nil
}

// learnTotal finds out how many records are selected, while the work goes on: a count can take the server longer than several
// batches. A range of a full run was made that long, but for the last one, whose end comes early. The caller must call end.
func (p *Pass) learnTotal(ctx context.Context) (end func()) {
	switch {
	case p.checkpoint.Total > 0: // an earlier attempt has found out
		p.setTotal(p.checkpoint.Total)
		return func() {}
	case p.Selection.Full && p.Range.Records > 0 && p.checkpoint.After == nil:
		p.setTotal(p.Range.Records)
		return func() {}
	}
	rest, done := p.Range, p.checkpoint.Processed
	if p.checkpoint.After != nil {
		rest.After = p.checkpoint.After
	}
	p.counted, end = p.countMeanwhile(ctx, func(ctx context.Context) (n int64, err error) {
		err = p.retry(ctx, "counting the "+p.Noun+"s to sync", func(ctx context.Context) (err error) {
			n, err = p.Store.Count(ctx, p.Selection, rest)
			return err
		})
		return done + n, err
	})
	return end
}

// countMeanwhile counts records while the work goes on. The channel gets the number, or nothing after an error. The caller must call end.
func (p *Pass) countMeanwhile(ctx context.Context, count func(context.Context) (int64, error)) (counted <-chan int64, end func()) {
	answer := make(chan int64, 1)
	counting, stop := p.untilStopped(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		n, err := count(counting)
		switch {
		case err == nil:
			answer <- n
		case counting.Err() == nil: // the work goes on, and will say more if it cannot
			p.Log.Debug("Could not count the "+p.Noun+"s to sync", "error", err)
		}
	})
	return answer, func() {
		stop()
		running.Wait()
	}
}

// setTotal records how many records are selected.
func (p *Pass) setTotal(n int64) {
	p.checkpoint.Total = n
	p.Log.Info(p.title()+"s to sync", "totalUsers", n)
}

// run runs the reader, the workers and the writers, and moves the checkpoint, until all is done or one of them fails.
func (p *Pass) run(outer context.Context) error {
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)

	// The first failure ends the reading. The other batches may end: the work on them has begun, and should not begin again.
	begin, stopReading := context.WithCancelCause(ctx)
	defer stopReading(nil)
	var failing sync.Once
	var failure error
	var finish *time.Timer
	fail := func(err error) {
		failing.Do(func() {
			failure = err
			stopReading(err)
			finish = time.AfterFunc(finishTime, func() { cancel(err) })
		})
	}
	// The next pass begins when each batch of this one has its slot, so that none of its batches goes before them.
	var exhausted atomic.Bool
	var begun atomic.Int64
	var told sync.Once
	tell := func() {
		if p.Exhausted != nil && exhausted.Load() && begun.Load() == int64(p.read) {
			told.Do(p.Exhausted)
		}
	}
	// A stop ends the reading, and the waiting for room to begin a batch.
	reading, endReading := p.untilStopped(begin)
	defer endReading()
	var reader, workers, writers sync.WaitGroup
	var writing atomic.Int32 // how many writers are left
	writing.Store(int32(p.Writers))
	reader.Go(func() {
		defer close(p.ahead)
		err := p.safely(func() error { return p.readAhead(reading) })
		switch {
		case err != nil && !errors.Is(err, ErrStopped):
			fail(err)
		case err == nil:
			exhausted.Store(true)
			tell()
		}
	})
	work := func(b *batch) bool {
		if p.interrupted(begin) != nil {
			return false // the batch is only read: the next attempt reads it again
		}
		p.observe(ctx, b)
		if err := p.safely(func() error { return p.work(b) }); err != nil {
			b.end(err)
			fail(err)
			return false
		}
		if b.broken != nil {
			fail(b.broken)
		}
		return true
	}
	// next returns the next batch, or nil if none can begin. It waits for room first: if a batch waited for it, those behind it could
	// take all of the room, and no save would make any, as the checkpoint has no gaps.
	next := func() *batch {
		select {
		case p.window <- struct{}{}:
			return <-p.ahead
		case <-reading.Done():
			return nil
		}
	}
	for range p.Workers {
		workers.Go(func() {
			for b := next(); b != nil; b = next() {
				if p.Slots.workers.Acquire(begin, 1) != nil {
					return
				}
				begun.Add(1)
				tell()
				goOn := work(b)
				p.Slots.workers.Release(1)
				if !goOn {
					return
				}
				p.worked <- b // never blocks: the whole window fits in
			}
		})
	}
	toWrite := func() *batch { return <-p.worked }
	if p.Workers == 0 {
		toWrite = next // without work between
	}
	write := func(b *batch) bool {
		if p.Workers == 0 && !work(b) {
			return false
		}
		err := p.safely(func() error { return p.write(b) })
		b.end(cmp.Or(err, b.broken))
		if err != nil {
			fail(err)
			if writing.Add(-1) == 0 {
				cancel(failure) // no writer is left for what the workers work on
			}
		}
		return err == nil
	}
	for range p.Writers {
		writers.Go(func() {
			for b := toWrite(); b != nil; b = toWrite() {
				if p.Slots.writers.Acquire(ctx, 1) != nil {
					if b.end != nil {
						b.end(context.Cause(ctx))
					}
					return
				}
				if p.Workers == 0 {
					begun.Add(1)
					tell()
				}
				goOn := write(b)
				p.Slots.writers.Release(1)
				if !goOn {
					return
				}
				p.written <- b // never blocks: the whole window fits in
			}
		})
	}
	go func() { // ends with the workers and the writers, and the loop below with it
		workers.Wait()
		close(p.worked)
		writers.Wait()
		for b := range p.worked {
			b.end(context.Cause(begin))
		}
		close(p.written)
	}()

	p.moveCheckpoint(ctx)
	reader.Wait()
	if finish != nil {
		finish.Stop()
	}
	if ctx.Err() != nil {
		if !p.fenced {
			p.saveFinally(ctx) // so that the next attempt does less again
		}
		return context.Cause(ctx)
	}
	if failure != nil {
		p.saveFinally(ctx)
		return failure
	}
	if !p.exhausted || p.next < p.read {
		p.saveFinally(ctx)
		return ErrStopped
	}
	return nil
}

// observe tells Observe that the work on a batch begins. The caller must call the batch's end.
func (p *Pass) observe(ctx context.Context, b *batch) {
	b.ctx, b.end = ctx, func(error) {}
	if p.Observe != nil {
		working, end := p.Observe(ctx, len(b.records))
		b.ctx, b.end = working, func(err error) { end(b.updated, b.errors, err) }
	}
}

// safely turns a panic in a goroutine of the pass, such as one of the Work, into an error.
func (p *Pass) safely(f func() error) (err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v", x)
			p.Log.Error("The work on a batch panicked", "error", err, "stack", string(debug.Stack()))
		}
	}()
	return f()
}

// moveCheckpoint moves the checkpoint over the written batches, and saves it whenever it has moved, until the writers have ended.
func (p *Pass) moveCheckpoint(ctx context.Context) {
	toSave, saved := make(chan Checkpoint), make(chan error)
	var saver sync.WaitGroup
	saver.Go(func() {
		for c := range toSave {
			saved <- p.Save(ctx, c, c.Progress())
		}
	})
	var (
		saving  = 0 // batches that the save in progress adds
		savedAt = time.Now()
		again   <-chan time.Time // after a save that failed
		later   <-chan time.Time // when it is not too early any more
		warned  bool
	)
	for open := true; open || saving > 0; {
		var save chan<- Checkpoint
		if p.unsaved > 0 && saving == 0 && again == nil && open && ctx.Err() == nil {
			switch early := p.tooEarly(savedAt); {
			case early == 0:
				save = toSave
			case early > 0 && later == nil:
				later = time.After(early)
			}
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
		case n := <-p.counted:
			p.setTotal(n)
		case save <- p.current():
			saving, p.unsaved, savedAt = p.unsaved, 0, time.Now()
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
				again = time.After(saveRetryInterval)
				if !warned {
					p.Log.Warn("Could not save the run's checkpoint, trying again", "error", err)
				}
				warned = true
			}
			saving = 0
		case <-again:
			again = nil
		case <-later:
			later = nil
		}
	}
	close(toSave)
	saver.Wait()
}

// tooEarly returns for how long the checkpoint should not be saved yet, and a negative time if more batches must be written first.
func (p *Pass) tooEarly(savedAt time.Time) time.Duration {
	switch {
	case len(p.window) == cap(p.window): // no batch begins until something is saved
		return 0
	case p.stamping && p.unsaved < p.Writers*windowPerWriter:
		return -1
	case !p.stamping && p.unsaved >= p.Workers:
		return 0
	}
	return max(0, saveInterval-time.Since(savedAt))
}

// untilStopped returns a context that ends with ErrStopped when Stop is closed. It is for reads, which a stop need not wait for.
// The caller must call end.
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

// readAhead sends the selected records to the workers in batches, until there are no more. It returns ctx's cause if ctx ends
// first.
func (p *Pass) readAhead(ctx context.Context) error {
	var cursor Cursor
	defer func() {
		if cursor != nil {
			cursor.Close()
		}
	}()
	after := p.Range.After
	if p.checkpoint.After != nil {
		after = p.checkpoint.After
	}
	for !p.exhausted {
		records, n := make([]Record, p.BatchSize), 0
		err := p.retry(ctx, "reading "+p.Noun+"s", func(ctx context.Context) (err error) {
			if cursor == nil {
				if cursor, err = p.Store.Scan(ctx, p.Selection, Range{After: after, Upto: p.Range.Upto}); err != nil {
					cursor = nil
					return err
				}
			}
			read, err := cursor.Read(ctx, records[n:])
			if n += read; n > 0 {
				after = records[n-1].Key
			}
			if err != nil {
				cursor.Close() // the next try opens a new one behind the last record
				cursor = nil
			}
			return err
		})
		if err != nil {
			return err
		}
		p.exhausted = n < len(records)
		if n == 0 {
			return nil
		}
		select {
		case p.ahead <- &batch{sequence: p.read, records: records[:n]}:
			p.read++
		case <-ctx.Done():
			p.exhausted = false
			return context.Cause(ctx)
		}
	}
	return nil
}

// work does the work on a batch. If it ends in the middle of halving, the batch is broken.
func (p *Pass) work(b *batch) error {
	p.Log.Debug("Processing "+p.Noun+" batch", "batchSize", len(b.records), "skip", b.sequence*p.BatchSize)
	records := b.records
	if stamped := func(r Record) bool { return r.Stamped }; slices.ContainsFunc(records, stamped) {
		records = slices.DeleteFunc(slices.Clone(records), stamped) // an earlier attempt has done these
	}
	b.updated = int64(len(b.records) - len(records))
	if len(records) == 0 {
		return nil
	}
	outcomes, err := p.outcomes(b.ctx, records)
	if err != nil {
		if len(outcomes) == 0 {
			return err
		}
		records, b.broken = records[:len(outcomes)], err
		last := records[len(records)-1].Key
		b.records = b.records[:1+slices.IndexFunc(b.records, func(r Record) bool { return bytes.Equal(r.Key, last) })]
		b.updated = int64(len(b.records) - len(records))
	}
	b.updates = make([]Update, 0, len(records))
	for i, record := range records {
		if outcomes[i].Err != nil {
			b.failed = append(b.failed, Failure{Record: record, Err: outcomes[i].Err})
			continue
		}
		b.updates = append(b.updates, Update{Record: record, Set: outcomes[i].Set, Unset: outcomes[i].Unset})
	}
	return nil
}

// write updates the records of a batch as the Work says.
func (p *Pass) write(b *batch) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if len(b.updates) > 0 {
		var stamped Stamped
		err := p.retry(b.ctx, "updating "+p.Noun+"s", func(ctx context.Context) (err error) {
			stamped, err = p.Store.Stamp(ctx, b.updates, p.Selection)
			return err
		})
		if err != nil {
			return err
		}
		b.updated += stamped.Matched
		b.failed = append(b.failed, stamped.Failed...)
	}
	b.errors = int64(len(b.failed))
	if len(b.failed) > 0 {
		b.failure = b.failed[0].Err.Error()
	}
	p.report(b)
	return nil
}

// report logs the result for each record of a batch, with the record's name.
func (p *Pass) report(b *batch) {
	successes := p.Log.Enabled(b.ctx, slog.LevelDebug)
	if len(b.failed) == 0 && !successes {
		return
	}
	isFailed := make(map[string]bool, len(b.failed))
	var failed, good []*Record
	for i := range b.failed {
		isFailed[string(b.failed[i].Record.Key)] = true
		failed = append(failed, &b.failed[i].Record)
	}
	for i := range b.records {
		if r := &b.records[i]; successes && !isFailed[string(r.Key)] {
			good = append(good, r)
		}
	}
	p.name(b.ctx, failed)
	for _, f := range b.failed {
		p.Log.Error(p.title()+" sync failed", "userId", f.Record.ID.String(), "username", f.Record.Name, "error", f.Err)
	}
	for _, r := range good {
		p.Log.Debug(p.title()+" synced successfully", "userId", r.ID.String(), "username", r.Name)
	}
}

// advance moves the checkpoint over b, if b is next, and over the batches behind it that are complete, up to a broken one.
func (p *Pass) advance(b *batch) {
	p.complete[b.sequence] = b
	for {
		b, ok := p.complete[p.next]
		if !ok {
			return
		}
		delete(p.complete, p.next)
		if b.broken == nil { // otherwise nothing behind it may follow
			p.next++
			p.unsaved++
		}
		c := &p.checkpoint
		c.After = b.records[len(b.records)-1].Key
		c.Processed += int64(len(b.records))
		c.Updated += b.updated
		c.Errors += b.errors
		c.addFailed(p.KeepFailed, b.failed)
		if c.Failure == "" {
			c.Failure = b.failure
		}
	}
}

// current returns the checkpoint with the working time so far.
func (p *Pass) current() Checkpoint {
	c := p.checkpoint
	c.Elapsed = p.Resume.Elapsed + time.Since(p.started)
	return c
}

// saveFinally saves the checkpoint of an attempt that ends early, even if its context has ended. It does not warn if the attempt
// is fenced.
func (p *Pass) saveFinally(ended context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ended), finalSaveTimeout)
	defer cancel()
	c := p.current()
	if err := p.Save(ctx, c, c.Progress()); err != nil && !errors.Is(context.Cause(ended), err) {
		p.Log.Warn("Could not save the run's last checkpoint", "error", err)
	}
}

// title returns the noun with a capital letter.
func (p *Pass) title() string { return strings.ToUpper(p.Noun[:1]) + p.Noun[1:] }
