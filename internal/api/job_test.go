package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

// shownJob has the fields of a job that the tests check.
type shownJob struct {
	ID, Job, State                string
	Data                          map[string]any
	Progress, Attempt, Attempts   int
	Error                         string
	Result                        map[string]any
	CreatedAt, StartedAt, EndedAt string
	NextAttemptAt                 string
}

type shownJobs struct {
	Jobs                  []shownJob
	Total, Page, PageSize int
}

func (b *testBundle) job(t *testing.T, id string) shownJob {
	t.Helper()
	var r struct{ Data shownJob }
	b.ok(t, b.get(t, "/jobs/"+id), &r)
	return r.Data
}

func (b *testBundle) list(t *testing.T, query string) shownJobs {
	t.Helper()
	var r struct{ Data shownJobs }
	b.ok(t, b.get(t, "/jobs"+query), &r)
	return r.Data
}

// isISO reports whether the text is a time as the API writes it, within a minute of now.
func isISO(text string) bool {
	at, err := time.Parse("2006-01-02T15:04:05.000Z", text)
	return err == nil && time.Since(at).Abs() < time.Minute
}

// The life of a job, as GET /jobs/{id} and GET /jobs show it.
func TestJobThroughItsLife(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if l := b.list(t, ""); l.Jobs == nil || l.Total != 0 || l.Page != 1 || l.PageSize != 20 {
		t.Errorf("of an empty system: %+v", l)
	}
	id := b.trigger(t, "project-sync", `{"syncType": "full", "batchSize": 7}`).Data.JobID
	j := b.job(t, id)
	if j.ID != id || j.Job != "project-sync" || j.State != "waiting" || fmt.Sprint(j.Data) != "map[batchSize:7 syncType:full]" || j.Attempt != 0 ||
		j.Attempts != 3 || !isISO(j.CreatedAt) || j.StartedAt != "" || j.EndedAt != "" {
		t.Errorf("waiting: %+v", j)
	}

	began := b.startWorker(t)
	first := <-began
	if err := first.Save(t.Context(), []byte("half"), 50); err != nil {
		t.Fatal(err)
	}
	if j := b.job(t, id); j.State != "active" || j.Progress != 50 || j.Attempt != 1 || !isISO(j.StartedAt) || j.EndedAt != "" || j.Error != "" {
		t.Errorf("active: %+v", j)
	}
	first.finish(errors.New("told to"))
	testbed.Eventually(t, "the job to be delayed", func() bool { return b.job(t, id).State == "delayed" })
	if j := b.job(t, id); j.Attempt != 1 || j.Error != "told to" || !isISO(j.NextAttemptAt) {
		t.Errorf("delayed: %+v", j)
	}
	second := <-began
	if j := b.job(t, id); j.State != "active" || j.Attempt != 2 || j.Error != "told to" {
		t.Errorf("active again: %+v", j)
	}
	second.finish(nil)
	testbed.Eventually(t, "the job to be completed", func() bool { return b.job(t, id).State == "completed" })
	if j := b.job(t, id); j.Progress != 100 || j.Attempt != 2 || fmt.Sprint(j.Result) != "map[success:true]" || !isISO(j.EndedAt) {
		t.Errorf("completed: %+v", j)
	}
	for query, want := range map[string]int{
		"": 1, "?job=project-sync": 1, "?job=user-sync": 0, "?job=all": 1, "?state=completed": 1, "?state=failed": 0,
		"?job=project-sync&state=completed&page=1&pageSize=100": 1, "?page=2": 0,
	} {
		if l := b.list(t, query); len(l.Jobs) != want || want == 1 && l.Jobs[0].ID != id {
			t.Errorf("GET /jobs%s: %+v, want %d", query, l, want)
		}
	}
	if a := b.request(t, http.MethodDelete, "/jobs/"+id, ""); a.status != http.StatusConflict || !strings.Contains(a.text, "already ended") {
		t.Errorf("cancelling what is completed: %d %s", a.status, a.text)
	}
}

func TestCancelAndRetryOverTheAPI(t *testing.T) {
	t.Parallel()
	b := setup(t)
	waiting := b.trigger(t, "user-sync", "").Data.JobID
	if a := b.request(t, http.MethodDelete, "/jobs/"+waiting, ""); a.status != http.StatusOK || !strings.Contains(a.text, `"state":"removed"`) {
		t.Errorf("cancelling what waits: %d %s", a.status, a.text)
	}
	if a := b.get(t, "/jobs/"+waiting); a.status != http.StatusNotFound {
		t.Errorf("then: %d %s", a.status, a.text)
	}
	began := b.startWorker(t)
	id := b.trigger(t, "user-sync", "").Data.JobID
	<-began
	if a := b.request(t, http.MethodDelete, "/jobs/"+id, ""); a.status != http.StatusAccepted || !strings.Contains(a.text, `"state":"cancelling"`) {
		t.Errorf("cancelling what is active: %d %s", a.status, a.text)
	}
	testbed.Eventually(t, "the job to be cancelled", func() bool {
		j := b.job(t, id)
		return j.State == "cancelled" && j.Error == "cancelled"
	})
	if got := b.status(t, "").Counts.Failed; got != 1 {
		t.Errorf("%d failed, want the cancelled one", got)
	}
	if a := b.post(t, "/jobs/"+id+"/retry", ""); a.status != http.StatusOK || !strings.Contains(a.text, `"state":"waiting"`) {
		t.Errorf("retrying: %d %s", a.status, a.text)
	}
	again := <-began
	if again.ID.String() != id || again.Number != 1 || again.Checkpoint != nil {
		t.Errorf("the retried run: %+v", again.Attempt)
	}
	again.finish(nil)
	testbed.Eventually(t, "the job to be completed", func() bool { return b.job(t, id).State == "completed" })
}

func TestSchedules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var r struct {
		Data struct {
			Schedules []struct {
				Job, Spec, Next string
				Every           *int64
				Previous        *string
				Paused          bool
			}
		}
	}
	b.ok(t, b.get(t, "/schedules"), &r)
	if r.Data.Schedules == nil || len(r.Data.Schedules) != 0 {
		t.Errorf("without a scheduler: %+v", r)
	}
	b.startScheduler(t)
	b.post(t, "/jobs/pause", "")
	b.ok(t, b.get(t, "/schedules"), &r)
	if len(r.Data.Schedules) != 1 {
		t.Fatalf("%+v", r)
	}
	s := r.Data.Schedules[0]
	next, err := time.Parse("2006-01-02T15:04:05.000Z", s.Next)
	if s.Job != "user-sync" || s.Spec != "*/20 * * * *" || s.Every == nil || *s.Every != 1_200_000 || err != nil || next.Minute()%20 != 0 || s.Previous == nil || !s.Paused {
		t.Errorf("%+v", s)
	}
}
