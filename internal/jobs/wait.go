// What active runs wait for, such as a MongoDB that does not answer, for people who ask why a run does not go on.

package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// waitTTL is how long a run counts as waiting after it has said so. It says so once a second.
const waitTTL = 5 * time.Second

// Wait is what a run waits for.
type Wait struct {
	// Run is the ID of the run.
	Run string `json:"run"`
	// For says what the run waits to be done, such as "updating users".
	For string `json:"for"`
	// Upstream is true if it waits for what its own work needs, and not for MongoDB or Redis.
	Upstream bool `json:"upstream,omitempty"`
	// Slow is true if the request takes long, and nothing has failed. Then the server may be slow, or away.
	Slow bool `json:"slow,omitempty"`
	// Since is when it began to wait.
	Since time.Time `json:"since"`
}

// SetWait records what the run waits for. The record lasts for a few seconds. Of several runs of one job type the last one counts.
func (j *Jobs) SetWait(ctx context.Context, id tasks.RunID, wait Wait) error {
	wait.Run = id.String()
	data, err := json.Marshal(wait)
	if err != nil {
		return fmt.Errorf("recording what %s waits for: %w", id, err)
	}
	if err := j.rdb.Set(ctx, j.keys.wait(id.Job), data, waitTTL).Err(); err != nil {
		return fmt.Errorf("recording what %s waits for: %w", id, err)
	}
	return nil
}

// Waits returns what active runs wait for, in the order of the registry.
func (j *Jobs) Waits(ctx context.Context) ([]Wait, error) {
	var answers []*redis.StringCmd
	_, err := j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, name := range j.registry.Names() {
			answers = append(answers, p.Get(ctx, j.keys.wait(name)))
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("reading what runs wait for: %w", err)
	}
	var all []Wait
	for _, answer := range answers {
		if wait, ok := readWait(answer); ok {
			all = append(all, wait)
		}
	}
	return all, nil
}

// readWait reads an answer. It returns false if there is none.
func readWait(answer *redis.StringCmd) (wait Wait, ok bool) {
	data, err := answer.Bytes()
	return wait, err == nil && json.Unmarshal(data, &wait) == nil
}
