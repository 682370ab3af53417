// A run of chaos from beginning to end: start everything, break it, mend it, wait until it is at rest, and judge.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed/freeport"
)

const (
	// catchUpTime is how long the schedulers go on after the last fault, to enqueue overdue ticks.
	catchUpTime = 12 * time.Second
	// restLimit is when all must be at rest: the run of a dead worker goes on within 75 s, and must end. restTimeout is when
	// the wait ends.
	restLimit   = 105 * time.Second
	restTimeout = 4 * time.Minute
	restPoll    = 500 * time.Millisecond
	// sayEvery is the pause between two lines that say what chaos waits for.
	sayEvery = 15 * time.Second
)

// intervals are the settings of the schedules.
var intervals = map[string]time.Duration{
	codex.UserSync.Name: 5 * time.Second, codex.ProjectSync.Name: 10 * time.Second,
}

// freshness is how old a stamp may be before an incremental run visits a record again.
var freshness = map[string]time.Duration{
	codex.UserSync.Name: 5 * time.Second, codex.ProjectSync.Name: 10 * time.Second, codex.IssueSync.Name: 2 * time.Second,
}

// keptRuns is the retention of each job type, for each outcome. It is small, so that runs are removed while processes still
// know of them.
const keptRuns = 20

// chaos has all that is running.
type chaos struct {
	arguments
	dir       string // of logs and data
	out       io.Writer
	began     time.Time
	chronicle *chronicle
	record    *record
	redis     *redisServer
	watcher   *watcher
	documents *documents
	ways      map[string]*way
	crew      map[string]*member
	neighbour *neighbour
	apis      map[string]string // base addresses
	ports     []*freeport.Port  // of the APIs
	watching  sync.WaitGroup    // goroutines that wait for a member's end

	// ticking is the time in which ticks are judged.
	ticking span
	// settled is how long it took until all was at rest.
	settled time.Duration

	mu     sync.Mutex // of what follows
	events *os.File
	faults map[faultKind]int
}

// runChaos makes a whole run. The report is nil when the run did not get to its end.
func runChaos(ctx context.Context, a arguments, out io.Writer) (_ *report, err error) {
	if err := checkPrograms(a.bin); err != nil {
		return nil, err
	}
	c := &chaos{
		arguments: a, out: out, began: time.Now(), chronicle: newChronicle(), record: newRecord(),
		ways: make(map[string]*way), crew: make(map[string]*member), apis: make(map[string]string),
		faults: make(map[faultKind]int),
	}
	if c.dir, err = os.MkdirTemp("", "codex-chaos-*"); err != nil {
		return nil, fmt.Errorf("making a directory for logs and data: %w", err)
	}
	r, err := c.run(ctx)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err == nil && len(r.breaches) > 0 {
		err = fmt.Errorf("broken promises: %d", len(r.breaches))
	}
	if err == nil || ctx.Err() != nil {
		return r, errors.Join(err, os.RemoveAll(c.dir))
	}
	return r, fmt.Errorf("%w; logs and data are in %s", err, c.dir)
}

// checkPrograms checks that the servers and the programs are there.
func checkPrograms(bin string) error {
	for _, name := range []string{"MONGODB_URI", "MONGODB_DATABASE"} {
		if os.Getenv(name) == "" {
			return fmt.Errorf("%s is not set: run it with devstack, as make chaos does", name)
		}
	}
	for _, r := range roles {
		if _, err := exec.LookPath(filepath.Join(bin, r.name)); err != nil {
			return fmt.Errorf("looking for the programs: %w", err)
		}
	}
	return nil
}

func (c *chaos) run(ctx context.Context) (_ *report, err error) {
	redis.SetLogger(silentLog{}) // it would log the loss of the Redis that we kill
	if c.events, err = os.Create(filepath.Join(c.dir, "chaos.log")); err != nil {
		return nil, fmt.Errorf("making a log: %w", err)
	}
	defer func() { err = errors.Join(err, c.events.Close()) }()
	c.say("seed %d, things are broken for %s", c.seed, c.length)

	c.documents, err = connectMongoDB(os.Getenv("MONGODB_URI"), os.Getenv("MONGODB_DATABASE"), c.seed)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.documents.close()) }()
	if err := c.documents.load(ctx); err != nil {
		return nil, err
	}
	if c.redis, err = newRedisServer(c.dir, c.dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.redis.close()) }()
	if err := c.redis.start(ctx); err != nil {
		return nil, err
	}
	defer c.killAll()
	defer func() { err = errors.Join(err, c.closeNeighbour()) }()
	c.watcher = newWatcher(c.redis.client, c.record, c.chronicle)
	if err := c.watched(ctx, c.act); err != nil {
		return nil, err
	}
	r, err := c.judge(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.flush(ctx); err != nil {
		return nil, err
	}
	r.breaches = c.record.breaches
	return r, nil
}

// watched calls act while Redis is watched.
func (c *chaos) watched(ctx context.Context, act func(context.Context) error) error {
	if err := c.watcher.listen(ctx); err != nil {
		return err
	}
	defer c.watcher.close()
	polling, stop := context.WithCancel(ctx)
	var pollers sync.WaitGroup
	pollers.Go(func() { c.watcher.poll(polling) })
	pollers.Go(func() { c.watcher.watchLatency(polling) })
	defer pollers.Wait()
	defer stop()
	return act(ctx)
}

// act starts everything, breaks it, waits until it is at rest and ends it.
func (c *chaos) act(ctx context.Context) error {
	if err := c.startAll(ctx); err != nil {
		return err
	}
	if err := c.startNeighbour(ctx); err != nil {
		return err
	}
	if err := c.breakThings(ctx); err != nil {
		return err
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	c.watching.Wait() // for the end of the logs
	return nil
}

// startAll starts all processes, and returns when they are ready.
func (c *chaos) startAll(ctx context.Context) error {
	for _, r := range roles {
		for _, name := range r.names() {
			m, err := c.newMember(r, name)
			if err != nil {
				return err
			}
			c.crew[name] = m
			if err := m.start(); err != nil {
				return err
			}
		}
	}
	for _, m := range c.crew {
		if err := m.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// newMember prepares a member of the crew: its settings, its log, and its ways to the servers.
func (c *chaos) newMember(r role, name string) (*member, error) {
	m := &member{
		role: r, name: name, bin: c.bin, claimed: make(chan struct{}, 1),
		chronicle: c.chronicle, record: c.record, watching: &c.watching,
	}
	own, err := c.settings(r, name)
	if err != nil {
		return nil, err
	}
	m.environ = environment(own)
	if m.file, err = os.Create(filepath.Join(c.dir, name+".log")); err != nil {
		return nil, fmt.Errorf("making the log of %s: %w", name, err)
	}
	c.chronicle.set(downName(name), true)
	return m, nil
}

// commonSettings returns the settings that all processes have.
func (c *chaos) commonSettings() map[string]string {
	own := map[string]string{
		"MONGODB_URI": os.Getenv("MONGODB_URI"), "MONGODB_DATABASE": c.documents.db.Name(),
		"REDIS_HOST": loopback, "REDIS_PASSWORD": "", "REDIS_DB": "0",
		"LOG_LEVEL": c.level, "LOG_FORMAT": "json", "ADMIN_PORT": "off",
		"JOB_BACKOFF": "1s", "JOB_BACKOFF_FACTOR": "1",
		"JOB_KEEP_COMPLETED": fmt.Sprint(keptRuns), "JOB_KEEP_FAILED": "10000",
		"SYNC_RANGE_SIZE": fmt.Sprint(rangeSize),
	}
	for job, every := range intervals {
		own[settingName(job, "INTERVAL")] = every.String()
	}
	for job, age := range freshness {
		own[settingName(job, "FRESHNESS")] = age.String()
	}
	return own
}

// settings returns the settings of a process of the first deployment.
func (c *chaos) settings(r role, name string) (map[string]string, error) {
	own := c.commonSettings()
	for _, server := range r.servers {
		upstream := c.redis.address()
		if server == mongoName {
			_, host, err := behind(own["MONGODB_URI"], "")
			if err != nil {
				return nil, err
			}
			upstream = host
		}
		w, err := newWay(name, server, upstream, c.chronicle)
		if err != nil {
			return nil, err
		}
		c.ways[w.name] = w
		if server == mongoName {
			if own["MONGODB_URI"], _, err = behind(own["MONGODB_URI"], w.proxy.Addr); err != nil {
				return nil, err
			}
			continue
		}
		_, own["REDIS_PORT"], _ = strings.Cut(w.proxy.Addr, ":")
	}
	if r.name == apiRole {
		port, err := freeport.Reserve()
		if err != nil {
			return nil, err
		}
		c.ports = append(c.ports, port)
		own["HOST"], own["PORT"] = loopback, port.String()
		c.apis[name] = "http://" + port.Address()
	}
	return own, nil
}

// settingName names a setting of a job type.
func settingName(job, what string) string {
	return config.SettingPrefix(job) + "_" + what
}

// environment returns the product's settings that this process has, and over them the given ones.
func environment(own map[string]string) []string {
	var names []string
	for _, s := range config.Settings(codex.Registry()) {
		if !strings.HasSuffix(s.Name, "_FILE") {
			names = append(names, s.Name)
		}
	}
	return procs.Environ(names, own)
}

// breakThings makes the faults, while clients ask.
func (c *chaos) breakThings(ctx context.Context) error {
	plan := newPlan(c.seed, c.length, roles)
	c.ticking.from = time.Now()
	rest, stop := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer func() {
		stop()
		asking.Wait()
	}()
	asking.Go(func() { newClients(c.apis, c.seed, c.record).ask(ctx, rest) })
	return c.makeFaults(ctx, plan)
}

// settle waits until all is at rest, and then stops the processes as an operator would.
func (c *chaos) settle(ctx context.Context) error {
	mended := time.Now()
	c.say("nothing is broken any more")
	for _, m := range c.crew {
		if m.running(false) == nil { // it ended by itself, which is a breach
			if err := m.start(); err != nil {
				return err
			}
		}
		if err := m.await(ctx); err != nil {
			return err
		}
	}
	if err := sleep(ctx, catchUpTime); err != nil {
		return err
	}
	c.ticking.to = time.Now()
	c.stop(ctx, schedulerRole)
	if err := c.rest(ctx, mended); err != nil {
		return err
	}
	c.settled = time.Since(mended)
	if err := c.judgeNeighbour(ctx, mended); err != nil {
		return err
	}
	if err := c.watcher.look(); err != nil {
		return err
	}
	c.stop(ctx, apiRole)
	c.stop(ctx, workerRole)
	return nil
}

// rest waits until every task has ended.
func (c *chaos) rest(ctx context.Context, mended time.Time) error {
	said, overdue := time.Now(), false
	for {
		busy, err := c.watcher.busy()
		if err != nil {
			return err
		}
		if since := time.Since(mended); since > restLimit && len(busy) > 0 && !overdue {
			overdue = true
			c.record.breach(promiseQuiet, "after %s there are still: %s", restLimit, strings.Join(busy, ", "))
		}
		switch {
		case len(busy) == 0:
			return nil
		case time.Since(mended) > restTimeout:
			if _, err := c.documents.stamps(ctx, collections[0]); err != nil {
				return fmt.Errorf("MongoDB itself does not answer, so that nothing can be judged: %w", err)
			}
			return nil // a lost task shows when the runs are judged
		case time.Since(said) > sayEvery:
			said = time.Now()
			c.say("waiting for %s", strings.Join(busy, ", "))
		}
		if err := sleep(ctx, restPoll); err != nil {
			return err
		}
	}
}

// stop ends all processes of a role at the same time.
func (c *chaos) stop(ctx context.Context, role string) {
	var stopping sync.WaitGroup
	for _, m := range c.crew {
		if m.role.name == role {
			stopping.Go(func() { m.stop(ctx) })
		}
	}
	stopping.Wait()
}

// killAll kills all processes that still run.
func (c *chaos) killAll() {
	for _, m := range c.crew {
		m.kill()
	}
	c.watching.Wait()
	for _, m := range c.crew {
		_ = m.file.Close() // nothing reads the log after this
	}
	for _, w := range c.ways {
		w.close()
	}
	for _, port := range c.ports {
		_ = port.Release() // nothing depends on it any more
	}
}

// say prints a line with the time since the beginning. The log has the time of day.
func (c *chaos) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(c.out, "chaos: %5.1fs %s\n", time.Since(c.began).Seconds(), text)
	fmt.Fprintf(c.events, "%s %s\n", clock(time.Now()), text)
}

// made counts a fault that was made.
func (c *chaos) made(kind faultKind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults[kind]++
}

// sleep waits for so long, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// silentLog keeps go-redis quiet.
type silentLog struct{}

// Printf implements go-redis' logger.
func (silentLog) Printf(context.Context, string, ...any) {}
