// asynqmon knows no namespaces, and no runs. So it is kept to the queues, servers and schedulers of this deployment, and what
// its buttons do to tasks is done here, as the API does it.

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// ourQueues makes clients that see the queues of this deployment only.
type ourQueues struct {
	asynq.RedisConnOpt
	jobs *jobs.Jobs
}

// MakeRedisClient implements asynq.RedisConnOpt.
func (o ourQueues) MakeRedisClient() any {
	client := o.RedisConnOpt.MakeRedisClient()
	if rdb, ok := client.(redis.UniversalClient); ok { // asynqmon takes no other
		rdb.AddHook(o.jobs.OurQueues())
	}
	return client
}

// ourDashboard answers a request for the dashboard's page, or of the page's script.
func (s *Server) ourDashboard(c *gin.Context) {
	path, isAPI := strings.CutPrefix(c.Request.URL.Path, DashboardPath+"/api/")
	what := strings.Split(path, "/")
	switch {
	case isAPI && what[0] == "queues" && len(what) > 1:
		s.dashboardQueue(c, what[1:])
	case isAPI && path == "servers":
		filtered(s, c, "servers", func(server struct {
			Queues map[string]int `json:"queue_priorities"`
		}) bool {
			for name := range server.Queues {
				if _, ours := s.Jobs.OurQueue(name); ours {
					return true
				}
			}
			return false
		})
	case isAPI && path == "scheduler_entries":
		filtered(s, c, "entries", func(entry struct{ Options []string }) bool {
			for _, option := range entry.Options {
				name, isQueue := strings.CutPrefix(option, `Queue("`)
				if _, ours := s.Jobs.OurQueue(strings.TrimSuffix(name, `")`)); isQueue && ours {
					return true
				}
			}
			return false
		})
	case isAPI && what[0] == "scheduler_entries":
		switch ours, err := s.Jobs.OurEntry(c.Request.Context(), what[1]); {
		case err != nil:
			s.unavailable(c, err)
		case !ours:
			fail(c, http.StatusNotFound, "there is no schedule "+tasks.Describe(what[1]))
		default:
			s.serveDashboard(c.Writer, c.Request)
		}
	default:
		s.serveDashboard(c.Writer, c.Request)
	}
}

// filtered answers with asynqmon's list of the name, without the elements that are not ours.
func filtered[T any](s *Server, c *gin.Context, name string, ours func(T) bool) {
	answer := recorder{}
	s.dashboard.ServeHTTP(&answer, c.Request)
	var list map[string][]json.RawMessage
	if answer.status != 0 || json.Unmarshal(answer.Bytes(), &list) != nil {
		c.Data(max(answer.status, http.StatusOK), answer.Header().Get("Content-Type"), answer.Bytes()) // it has failed
		return
	}
	kept := []json.RawMessage{}
	for _, raw := range list[name] {
		var element T
		if json.Unmarshal(raw, &element) == nil && ours(element) {
			kept = append(kept, raw)
		}
	}
	c.JSON(http.StatusOK, gin.H{name: kept})
}

// dashboardQueue answers a request about one queue. Path is what follows "queues/".
func (s *Server) dashboardQueue(c *gin.Context, path []string) {
	name := path[0]
	change := ""
	if len(path) == 1 && c.Request.Method == http.MethodPost { // <queue>:pause, and the name has colons of its own
		if i := strings.LastIndexByte(name, ':'); i >= 0 {
			name, change = name[:i], name[i+1:]
		}
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	queue, ours := s.Jobs.OurQueue(name)
	if ours {
		var err error
		if ours, err = s.Jobs.HasQueue(ctx, queue); err != nil {
			s.unavailable(c, err)
			return
		}
	}
	if !ours {
		fail(c, http.StatusNotFound, "there is no queue "+tasks.Describe(name))
		return
	}
	if reads(c.Request) || s.DashboardReadOnly { // asynqmon refuses what is no GET
		s.serveDashboard(c.Writer, c.Request)
		return
	}
	switch {
	case change == "pause" && queue.Ranges:
		s.dashboardAnswer(c, fmt.Errorf("%w; pause %s", jobs.ErrRange, queue.Def.Name))
	case change == "pause":
		s.dashboardAnswer(c, s.Jobs.Pause(ctx, queue.Def, triggeredBy(c)))
	case change == "resume" && !queue.Ranges:
		s.dashboardAnswer(c, s.Jobs.Resume(ctx, queue.Def, triggeredBy(c)))
	case len(path) == 1: // it removes a queue without tasks
		s.serveDashboard(c.Writer, c.Request)
	default:
		s.changeTasks(c, queue, path[1], strings.Join(path[2:], "/"))
	}
}

// taskChange is what a button of the dashboard does to a task.
type taskChange struct {
	do func(ctx context.Context, q jobs.Queue, id string, by jobs.Trigger) error
	// done and failed name the lists of IDs in the answer for a batch, and count the number in the answer for all tasks.
	done, failed, count string
}

func (s *Server) taskChanges() map[string]taskChange {
	return map[string]taskChange{
		"cancel":  {s.Jobs.CancelTask, "canceled_ids", "error_ids", ""},
		"delete":  {s.Jobs.RemoveTask, "deleted_ids", "failed_ids", "deleted"},
		"archive": {s.Jobs.ArchiveTask, "archived_ids", "error_ids", "archived"},
		"run":     {s.Jobs.RunTask, "pending_ids", "error_ids", "scheduled"},
	}
}

// listedStates are the states of tasks that the dashboard lists, as its paths call them.
var listedStates = map[string]asynq.TaskState{
	"active_tasks": asynq.TaskStateActive, "pending_tasks": asynq.TaskStatePending, "scheduled_tasks": asynq.TaskStateScheduled,
	"retry_tasks": asynq.TaskStateRetry, "archived_tasks": asynq.TaskStateArchived, "completed_tasks": asynq.TaskStateCompleted,
}

// changeTasks does what a button of the dashboard asks for: to one task (<state>_tasks/<id>:cancel, or DELETE without a change),
// to several (<state>_tasks:batch_cancel) or to all in that state (<state>_tasks:cancel_all).
func (s *Server) changeTasks(c *gin.Context, q jobs.Queue, list, id string) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), cleanupTimeout)
	defer cancel()
	list, verb, _ := strings.Cut(list, ":")
	if id != "" && c.Request.Method == http.MethodDelete {
		verb = "delete"
	} else if i := strings.LastIndexByte(id, ':'); i >= 0 {
		id, verb = id[:i], id[i+1:]
	}
	name, isBatch := strings.CutPrefix(verb, "batch_")
	name, isAll := strings.CutSuffix(name, "_all")
	change, known := s.taskChanges()[name]
	state, listed := listedStates[list]
	switch {
	case !known || !listed || (id == "") != (isBatch || isAll):
		s.nothingThere(c)
	case isBatch:
		var request struct {
			IDs []string `json:"task_ids"`
		}
		if err := json.NewDecoder(c.Request.Body).Decode(&request); err != nil {
			fail(c, http.StatusBadRequest, "the body must be a JSON object with task_ids")
			return
		}
		done, failed := s.changeEach(ctx, c, q, change, request.IDs)
		c.JSON(http.StatusOK, gin.H{change.done: done, change.failed: failed})
	case isAll:
		ids, err := s.Jobs.TaskIDs(ctx, q, state)
		if err != nil {
			s.unavailable(c, err)
			return
		}
		if q.Ranges && name != "cancel" && len(ids) > 0 {
			s.dashboardAnswer(c, jobs.ErrRange)
			return
		}
		done, _ := s.changeEach(ctx, c, q, change, ids)
		if change.count == "" {
			c.Status(http.StatusNoContent)
			return
		}
		c.JSON(http.StatusOK, gin.H{change.count: len(done)})
	default:
		s.dashboardAnswer(c, change.do(ctx, q, id, triggeredBy(c)))
	}
}

// changeEach changes the tasks, and returns the IDs of those that were and were not changed.
func (s *Server) changeEach(ctx context.Context, c *gin.Context, q jobs.Queue, change taskChange, ids []string) (done, failed []string) {
	done, failed = []string{}, []string{}
	for _, id := range ids {
		if err := change.do(ctx, q, id, triggeredBy(c)); err != nil {
			s.log(c).Debug("The dashboard could not change a task", "task", id, "error", err)
			failed = append(failed, id)
		} else {
			done = append(done, id)
		}
	}
	return done, failed
}

// dashboardAnswer answers a change of a queue or a task.
func (s *Server) dashboardAnswer(c *gin.Context, err error) {
	switch {
	case err == nil:
		c.Status(http.StatusNoContent)
	case errors.Is(err, jobs.ErrNoJob):
		fail(c, http.StatusNotFound, err.Error())
	case errors.Is(err, jobs.ErrEnded), errors.Is(err, jobs.ErrState), errors.Is(err, jobs.ErrRange):
		fail(c, http.StatusConflict, err.Error())
	default:
		s.unavailable(c, err)
	}
}
