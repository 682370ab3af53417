package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Jobs gives access to the jobs of a registry in one Redis. It is safe for concurrent use. Where a method does not say
// otherwise, it returns an error only if Redis does not answer.
type Jobs struct {
	rdb       redis.UniversalClient
	registry  *tasks.Registry
	keys      keys
	client    *asynq.Client
	inspector *asynq.Inspector
	runsOn    atomic.Pointer[string] // see TakePart
	history   bool                   // see KeepHistory
	// warnedDrop is when the log last warned that entries are dropped (ns).
	warnedDrop atomic.Int64
	log        *slog.Logger
	writes     writeCheck
}

// New returns the jobs of the registry, in its namespace. The caller closes the client.
func New(rdb redis.UniversalClient, registry *tasks.Registry, log *slog.Logger) *Jobs {
	return &Jobs{
		rdb: rdb, registry: registry, keys: keys{registry.Namespace()}, log: log,
		client: asynq.NewClientFromRedisClient(rdb), inspector: asynq.NewInspectorFromRedisClient(rdb),
	}
}

// KeepHistory makes the end of each run, and each action, add an entry to a list in Redis, see Entries. Without it there are none.
// Call it before anything else.
func (j *Jobs) KeepHistory() { j.history = true }

// Registry returns the job types.
func (j *Jobs) Registry() *tasks.Registry { return j.registry }

// Redis returns the client that New was given.
func (j *Jobs) Redis() redis.UniversalClient { return j.rdb }

// Ping returns an error if Redis does not answer. It asks for a key on each node that matters: any node of a cluster answers a
// PING, even if it cannot reach the others.
func (j *Jobs) Ping(ctx context.Context) error {
	_, err := j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Exists(ctx, j.keys.processes(RoleWorker))
		p.Exists(ctx, j.keys.processes(RoleScheduler))
		for _, job := range j.registry.Names() {
			p.Exists(ctx, j.keys.tick(job))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("pinging Redis: %w", err)
	}
	return nil
}

// Register makes asynq know the queue of every job type. So the queue is shown, and can be paused, before its first run.
func (j *Jobs) Register(ctx context.Context) error {
	var queues []string
	for _, def := range j.registry.All() {
		queues = append(queues, def.Queue())
	}
	if err := j.rdb.SAdd(ctx, asynqQueues, queues).Err(); err != nil {
		return fmt.Errorf("registering the queues: %w", err)
	}
	return nil
}

// notFound reports whether the error says that asynq does not know the task, or its queue.
func notFound(err error) bool {
	return errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound)
}
