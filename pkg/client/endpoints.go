package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// One method for each endpoint.

// AllJobs names all job types together, for Status and for the methods that change all jobs of a type.
const AllJobs = "all"

// Health asks for the health of the system. An unhealthy system is no error: see Health.Healthy.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	status, body, err := c.send(ctx, call{method: http.MethodGet, path: []string{"health"}})
	if err != nil {
		return h, fmt.Errorf("asking for the health: %w", err)
	}
	invalid := json.Unmarshal(body, &h)
	switch {
	case status != http.StatusOK && (invalid != nil || h.Status == ""): // not a health check's answer
		var answer Answer
		_ = json.Unmarshal(body, &answer) // without a message the status must do
		return h, fmt.Errorf("asking for the health: %w", newError(status, answer.Message))
	case invalid != nil:
		return h, fmt.Errorf("asking for the health: %w: %w", ErrAnswer, invalid)
	case h.Status == "":
		return h, fmt.Errorf("asking for the health: %w: it has no status in it", ErrAnswer)
	}
	return h, nil
}

// Status asks for the state of a job type; of all for AllJobs, and of the server's first one for "".
func (c *Client) Status(ctx context.Context, job string) (Status, error) {
	var s Status
	query := url.Values{}
	set(query, "job", job)
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"jobs", "status"}, query: query}, &s); err != nil {
		return s, fmt.Errorf("asking for the status: %w", err)
	}
	return s, nil
}

// Trigger enqueues a job of the type with the payload, which is encoded as a JSON object; nil is an empty one. When a job of
// the same kind waits already, that job serves the trigger. The options can say that the job starts later; such a job is one of
// its own. A server of an earlier release refuses them.
func (c *Client) Trigger(ctx context.Context, job string, payload any, options ...TriggerOption) (Triggered, error) {
	var t Triggered
	var body triggerBody
	for _, option := range options {
		option(&body)
	}
	payload, err := body.with(payload)
	if err != nil {
		return t, fmt.Errorf("triggering %s: %w", job, err)
	}
	message, err := c.do(ctx, call{method: http.MethodPost, path: []string{"jobs", "trigger", job}, body: payload}, &t)
	if err != nil {
		return t, fmt.Errorf("triggering %s: %w", job, err)
	}
	t.Message = message
	return t, nil
}

// Pause keeps jobs of the type from starting; AllJobs is all types, and "" the server's first one. A job that is active goes
// on. It returns the server's message, for people. A server of an earlier release does not know AllJobs here.
func (c *Client) Pause(ctx context.Context, job string) (message string, err error) {
	return c.control(ctx, "pause", "pausing", job)
}

// Resume ends a pause; job is as for Pause. It returns the server's message, for people.
func (c *Client) Resume(ctx context.Context, job string) (message string, err error) {
	return c.control(ctx, "resume", "resuming", job)
}

func (c *Client) control(ctx context.Context, action, doing, job string) (message string, err error) {
	if message, err = c.do(ctx, call{method: http.MethodPost, path: []string{"jobs", action}, body: ofJob(job)}, nil); err != nil {
		return "", fmt.Errorf("%s jobs: %w", doing, err)
	}
	return message, nil
}

// ofJob is the body of a request about the jobs of a type.
func ofJob(job string) map[string]any {
	body := map[string]any{}
	if job != "" {
		body["job"] = job
	}
	return body
}

// Cleanup removes jobs of the type that ended longer ago than the grace period, which must be from 0 to 8,760 hours; job is as
// for Pause.
func (c *Client) Cleanup(ctx context.Context, job string, gracePeriod time.Duration) (CleanedUp, error) {
	var removed CleanedUp
	body := ofJob(job)
	body["gracePeriodHours"] = gracePeriod.Hours()
	message, err := c.do(ctx, call{method: http.MethodPost, path: []string{"jobs", "cleanup"}, body: body, extra: longExtra}, &removed)
	if err != nil {
		return removed, fmt.Errorf("cleaning up jobs: %w", err)
	}
	removed.Message = message
	return removed, nil
}

// RetryFailed enqueues the failed jobs of the type again; job is as for Pause. Jobs that were cancelled stay. It is safe to
// repeat, and must be where some are left.
func (c *Client) RetryFailed(ctx context.Context, job string) (Retried, error) {
	var retried Retried
	message, err := c.do(ctx, call{method: http.MethodPost, path: []string{"jobs", "retry-failed"}, body: ofJob(job), extra: longExtra}, &retried)
	if err != nil {
		return retried, fmt.Errorf("retrying failed jobs: %w", err)
	}
	retried.Message = message
	return retried, nil
}

// CancelWaiting removes the waiting jobs of the type; job is as for Pause. Active and delayed jobs stay. It is safe to repeat, and
// must be where some are left.
func (c *Client) CancelWaiting(ctx context.Context, job string) (Removed, error) {
	var removed Removed
	message, err := c.do(ctx, call{method: http.MethodPost, path: []string{"jobs", "cancel-waiting"}, body: ofJob(job), extra: longExtra}, &removed)
	if err != nil {
		return removed, fmt.Errorf("cancelling waiting jobs: %w", err)
	}
	removed.Message = message
	return removed, nil
}

// Filter selects jobs. The zero value is the first page of all jobs, with 20 jobs.
type Filter struct {
	// Job is a job type; "" is all of them.
	Job string
	// State is one of States; "" is all of them.
	State State
	// Page is counted from 1; 0 is the first.
	Page int
	// PageSize must be from 1 to 100; 0 is 20.
	PageSize int
}

// Jobs lists jobs.
func (c *Client) Jobs(ctx context.Context, f Filter) (JobList, error) {
	var list JobList
	query := url.Values{}
	set(query, "job", f.Job)
	set(query, "state", string(f.State))
	if f.Page != 0 {
		query.Set("page", strconv.Itoa(f.Page))
	}
	if f.PageSize != 0 {
		query.Set("pageSize", strconv.Itoa(f.PageSize))
	}
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"jobs"}, query: query}, &list); err != nil {
		return list, fmt.Errorf("listing jobs: %w", err)
	}
	return list, nil
}

// Job asks for one job. When it does not exist, or no longer, IsNotFound reports true of the error.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	var j Job
	_, err := c.do(ctx, call{method: http.MethodGet, path: []string{"jobs", id}}, &j)
	if err == nil && j.ID != id { // such as "status", which is no job
		err = newError(http.StatusNotFound, "there is no such job")
	}
	if err != nil {
		return Job{}, fmt.Errorf("asking for job %s: %w", id, err)
	}
	return j, nil
}

// Cancel removes a job that is waiting or delayed, and tells an active one to stop, which then fails with CancelledError.
// When the job has ended, IsConflict reports true of the error.
func (c *Client) Cancel(ctx context.Context, id string) (Changed, error) {
	return c.change(ctx, "cancelling", call{method: http.MethodDelete, path: []string{"jobs", id}})
}

// Retry enqueues a failed job again. When the job has not failed, IsConflict reports true of the error.
func (c *Client) Retry(ctx context.Context, id string) (Changed, error) {
	return c.change(ctx, "retrying", call{method: http.MethodPost, path: []string{"jobs", id, "retry"}})
}

func (c *Client) change(ctx context.Context, doing string, r call) (Changed, error) {
	var changed Changed
	message, err := c.do(ctx, r, &changed)
	if err != nil {
		return changed, fmt.Errorf("%s job %s: %w", doing, r.path[1], err)
	}
	changed.Message = message
	return changed, nil
}

// Schedules lists the live schedules.
func (c *Client) Schedules(ctx context.Context) ([]Schedule, error) {
	var list ScheduleList
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"schedules"}}, &list); err != nil {
		return nil, fmt.Errorf("listing the schedules: %w", err)
	}
	return list.Schedules, nil
}

// JobTypes lists the job types of the server. When the server is of a release without this list, IsNotFound reports true of
// the error.
func (c *Client) JobTypes(ctx context.Context) ([]JobType, error) {
	var list JobTypeList
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"job-types"}}, &list); err != nil {
		return nil, fmt.Errorf("listing the job types: %w", err)
	}
	return list.JobTypes, nil
}

// TestNotification sends a test to the receiver of notifications, and waits for what it answers. When no worker notifies, IsConflict
// reports true of the error.
func (c *Client) TestNotification(ctx context.Context) (NotifyTest, error) {
	var test NotifyTest
	message, err := c.do(ctx, call{method: http.MethodPost, path: []string{"notify", "test"}, extra: longExtra}, &test)
	if err != nil {
		return test, fmt.Errorf("testing notifications: %w", err)
	}
	test.Message = message
	return test, nil
}

// Processes lists the workers and schedulers that live.
func (c *Client) Processes(ctx context.Context) ([]Process, error) {
	var list ProcessList
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"processes"}}, &list); err != nil {
		return nil, fmt.Errorf("listing the processes: %w", err)
	}
	return list.Processes, nil
}

// Whoami asks what the client's key may do.
func (c *Client) Whoami(ctx context.Context) (Identity, error) {
	var who Identity
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"whoami"}}, &who); err != nil {
		return Identity{}, fmt.Errorf("asking who this client is: %w", err)
	}
	return who, nil
}

func set(query url.Values, name, value string) {
	if value != "" {
		query.Set(name, value)
	}
}
