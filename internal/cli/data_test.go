package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The API's answers, for a system with one of everything.
const (
	waitingJob = `{"id":"1795495829000:user-sync:aaaaaaaa","job":"user-sync","state":"waiting","data":{"syncType":"incremental"},
		"progress":0,"attempt":0,"attempts":3,"createdAt":"2026-11-24T04:50:29.000Z"}`
	activeJob = `{"id":"1795495826751:user-sync:mq4z2etl","job":"user-sync","state":"active","data":{"syncType":"full","batchSize":50},
		"progress":55,"attempt":1,"attempts":3,"counts":{"processed":54980,"updated":54977,"failed":3},"total":100012,
		"ranges":{"total":5,"ended":2},"workerLost":true,"rescueWithin":58400,
		"rescues":[{"at":"2026-11-24T04:50:28.100Z","worker":"host-b:1:ZZ11AA"},
			{"at":"2026-11-24T04:50:28.200Z","range":3,"lostWorker":"host-c:7:YY\u001b[31m","worker":"host-b:1:ZZ11AA"}],
		"createdAt":"2026-11-24T04:50:26.751Z","startedAt":"2026-11-24T04:50:27.100Z"}`
	delayedJob = `{"id":"1795495800000:project-sync","job":"project-sync","state":"delayed","data":{"syncType":"incremental"},
		"progress":40,"attempt":2,"attempts":3,"error":"counting the projects to sync, tried for 60s: server selection error: \u001b[31mcontext deadline exceeded",
		"createdAt":"2026-11-24T04:50:00.000Z","startedAt":"2026-11-24T04:50:00.250Z","nextAttemptAt":"2026-11-24T04:50:41.500Z"}`
	laterJob = `{"id":"1795496426751:issue-sync:mq4z2etl","job":"issue-sync","state":"delayed","data":{"syncType":"full"},
		"progress":0,"attempt":0,"attempts":3,"createdAt":"2026-11-24T05:00:26.751Z","nextAttemptAt":"2026-11-24T05:00:26.751Z"}`
	completedJob = `{"id":"1795494000000:user-sync","job":"user-sync","state":"completed","data":{"syncType":"incremental"},
		"progress":100,"attempt":1,"attempts":3,
		"result":{"success":true,"usersProcessed":2000,"usersUpdated":1999,"errors":1,"duration":4250,"timestamp":"2026-11-24T04:20:04.260Z"},
		"createdAt":"2026-11-24T04:20:00.000Z","startedAt":"2026-11-24T04:20:00.010Z","endedAt":"2026-11-24T04:20:04.260Z"}`
	failedJob = `{"id":"1795408800000:issue-sync:zzzzzzzz","job":"issue-sync","state":"failed","data":{"syncType":"full"},
		"progress":10,"attempt":3,"attempts":3,"error":"all 100 issues of a batch failed: not authorized",
		"createdAt":"2026-11-23T04:40:00.000Z","startedAt":"2026-11-23T04:40:00.500Z","endedAt":"2026-11-23T04:41:10.500Z"}`
	cancelledJob = `{"id":"1795408800000:issue-sync:zzzzzzzz","job":"issue-sync","state":"failed","data":{"syncType":"full"},
		"progress":10,"attempt":1,"attempts":3,"error":"cancelled",
		"createdAt":"2026-11-23T04:40:00.000Z","startedAt":"2026-11-23T04:40:00.500Z","endedAt":"2026-11-23T04:41:10.500Z"}`

	userStatus = `{"repeatableJobs":[{"name":"__default__","key":"user-sync:@every 20m","every":1200000,"next":1795496400000}],
		"counts":{"active":1,"waiting":1,"completed":10,"failed":0,"delayed":0},"paused":false,
		"activeJobs":[{"id":"1795495826751:user-sync:mq4z2etl","data":{"syncType":"full","batchSize":50},"progress":55}]}`
	projectStatus = `{"repeatableJobs":[],"counts":{"active":0,"waiting":0,"completed":0,"failed":0,"delayed":1},"paused":true,"activeJobs":[]}`
	issueStatus   = `{"repeatableJobs":[{"name":"__default__","key":"issue-sync:0 9 * * 1-5","every":null,"next":1795510800000}],
		"counts":{"active":0,"waiting":0,"completed":3,"failed":1,"delayed":0},"paused":false,"activeJobs":[]}`
	allStatus = `{"repeatableJobs":[{"name":"__default__","key":"user-sync:@every 20m","every":1200000,"next":1795496400000},
			{"name":"__default__","key":"issue-sync:0 9 * * 1-5","every":null,"next":1795510800000}],
		"counts":{"active":1,"waiting":3,"completed":13,"failed":1,"delayed":1},"paused":false,
		"activeJobs":[{"id":"1795495826751:user-sync:mq4z2etl","data":{"syncType":"full","batchSize":50},"progress":55}]}`

	schedules = `{"schedules":[
		{"job":"user-sync","spec":"@every 20m","every":1200000,"next":"2026-11-24T05:00:00.000Z","previous":"2026-11-24T04:40:00.000Z","paused":false},
		{"job":"issue-sync","spec":"0 9 * * 1-5","every":null,"next":"2026-11-24T09:00:00.000Z","previous":null,"paused":true}]}`

	// welcome-mail is a job type that codexctl has never heard of.
	jobTypes = `{"jobTypes":[
		{"name":"user-sync","title":"User sync","schedule":"@every 20m","paused":false,"attempts":3,"overall":1,` + syncFields + `},
		{"name":"project-sync","title":"Project sync","schedule":null,"paused":true,"attempts":3,` + syncFields + `},
		{"name":"issue-sync","title":"Issue sync","schedule":"0 9 * * 1-5","paused":false,"attempts":3,` + syncFields + `},
		{"name":"welcome-mail","title":"Welcome mail","schedule":null,"paused":false,"attempts":5,
			"fields":[{"name":"to","type":"string","allowed":"an e-mail address","required":true}]}]}`
	syncFields = `"fields":[{"name":"syncType","type":"string","allowed":"\"incremental\" or \"full\"","options":["incremental","full"],"default":"incremental"},
			{"name":"batchSize","type":"integer","allowed":"a whole number from 1 to 10000"}]`
	welcomeStatus = `{"repeatableJobs":[],"counts":{"active":0,"waiting":2,"completed":0,"failed":0,"delayed":0},"paused":false,"activeJobs":[]}`

	processes = `{"processes":[{"role":"scheduler","id":"host-a:17:MQ4Z2E","lastSeen":"2026-11-24T04:50:25.120Z"},
		{"role":"worker","id":"host-b:1:ZZ11AA","lastSeen":"2026-11-24T04:50:26.001Z","version":"v1.4.0","startedAt":"2026-11-24T03:20:00.000Z",
			"doing":[{"job":"1795495826751:user-sync:mq4z2etl"},{"job":"1795495826751:user-sync:mq4z2etl","range":0},
				{"job":"1795495826751:user-sync:mq4z2etl","range":3},{"job":"1795495820000:issue-sync:zzzzzzzz","range":1}]}]}`

	identity = `{"key":"ops","write":true}`

	// What a list has of these entries.
	historyList = `{"entries":[
		{"id":"1795494000000:user-sync","kind":"run","job":"user-sync","at":"2026-11-24T04:20:04.260Z","by":{"kind":"tick"},"state":"completed",
			"startedAt":"2026-11-24T04:20:00.010Z","duration":4250,"attempt":1,"attempts":3,"counts":{"processed":2000,"updated":1999,"failed":1}},
		{"id":"1795493000000:user-sync:pause:abcdefgh","kind":"pause","job":"user-sync","at":"2026-11-24T04:03:20.000Z","by":{"kind":"key","key":"ops"}},
		{"id":"1795492000000:user-sync:cleanup:abcdefgh","kind":"cleanup","job":"user-sync","at":"2026-11-24T03:46:40.000Z","by":{"kind":"api"},
			"removed":{"completed":3,"failed":1}},
		{"id":"1795408900000:issue-sync:cancel:abcdefgh","kind":"cancel","job":"issue-sync","at":"2026-11-23T04:41:40.000Z",
			"target":"1795408800000:issue-sync:zzzzzzzz"},
		{"id":"1795408800000:issue-sync:zzzzzzzz","kind":"run","job":"issue-sync","at":"2026-11-23T04:41:10.500Z","state":"failed","attempt":3,"attempts":3,
			"error":"all 100 issues of a batch failed: not authorized: \u001b[31mcontext deadline exceeded"}],"next":"TmV4dA"}`
	historyRun = `{"id":"1795494000000:user-sync","kind":"run","job":"user-sync","at":"2026-11-24T04:20:04.260Z","by":{"kind":"retry","key":"ops","at":"2026-11-24T04:19:59.000Z"},
		"state":"completed","data":{"syncType":"incremental"},"startedAt":"2026-11-24T04:20:00.010Z","duration":4250,"attempt":1,"attempts":3,
		"endedAttempts":[
			{"number":3,"startedAt":"2026-11-24T04:10:00.010Z","endedAt":"2026-11-24T04:10:01.010Z","worker":"host-b:1:ZZ11AA","outcome":"failed","error":"not\u001b[31m authorized"},
			{"number":1,"startedAt":"2026-11-24T04:20:00.010Z","endedAt":"2026-11-24T04:20:04.260Z","worker":"host-b:1:ZZ11AA","outcome":"completed"}],
		"rescues":[{"at":"2026-11-24T04:20:01.010Z","range":0,"lostWorker":"host-c:7:YY22BB","worker":"host-b:1:ZZ11AA"}],
		"counts":{"processed":2000,"updated":1998,"failed":2},
		"result":{"success":true,"usersProcessed":2000,"usersUpdated":1998,"errors":2,"duration":4250,"timestamp":"2026-11-24T04:20:04.260Z"},
		"failedRecords":[{"id":"65a1f0c2e4b0a1b2c3d4e5f6","name":"ada","reason":"Document failed validation"}],
		"ranges":[
			{"index":0,"worker":"host-b:1:ZZ11AA","startedAt":"2026-11-24T04:20:00.110Z","endedAt":"2026-11-24T04:20:02.110Z","outcome":"completed",
				"counts":{"processed":1000,"updated":998,"failed":2}},
			{"index":1,"outcome":"failed","error":"after 3 attempts: no"}],
		"rangesTotal":3,"traceId":"0af7651916cd43dd8448eb211c80319c"}`
	historyCleanup = `{"id":"1795492000000:user-sync:cleanup:abcdefgh","kind":"cleanup","job":"user-sync","at":"2026-11-24T03:46:40.000Z","by":{"kind":"api"},
		"removed":{"completed":3,"failed":1}}`

	healthy = `{"status":"OK","timestamp":"2026-11-24T04:50:26.740Z","uptime":4000,
		"database":{"status":"connected","responseTime":3},"redis":{"status":"connected","responseTime":0},
		"jobs":{"initialized":true,"workers":2,"schedulers":1}}`
	incomplete = `{"status":"OK","timestamp":"2026-11-24T04:50:26.740Z","uptime":4,
		"database":{"status":"connected","responseTime":3},"redis":{"status":"connected","responseTime":0},
		"jobs":{"initialized":false,"workers":0,"schedulers":1,"missing":["a live worker"]}}`
	degraded = `{"status":"DEGRADED","timestamp":"2026-11-24T04:50:26.740Z","uptime":100000,
		"database":{"status":"disconnected","responseTime":1500},"redis":{"status":"disconnected","responseTime":500},
		"jobs":{"initialized":false,"workers":0,"schedulers":0,"missing":["Redis"]}}`
)

// data is an answer with data, as the API gives it.
func data(data string) string { return `{"success":true,"data":` + data + `}` }

func list(total, page, pageSize string, jobs ...string) string {
	return data(`{"jobs":[` + strings.Join(jobs, ",") + `],"total":` + total + `,"page":` + page + `,"pageSize":` + pageSize + `}`)
}

// newSystem is a fake of a system with one of everything.
func newSystem(t *testing.T) *fake {
	t.Helper()
	f := newFake(t)
	f.on("GET /jobs/status?job=all", 200, data(allStatus))
	f.on("GET /jobs/status?job=user-sync", 200, data(userStatus))
	f.on("GET /jobs/status?job=project-sync", 200, data(projectStatus))
	f.on("GET /jobs/status?job=issue-sync", 200, data(issueStatus))
	f.on("GET /jobs?page=1&pageSize=20", 200, list("5", "1", "20", waitingJob, activeJob, delayedJob, completedJob, failedJob))
	f.on("GET /jobs?page=1&pageSize=2", 200, list("5", "1", "2", waitingJob, activeJob))
	f.on("GET /jobs?page=3&pageSize=2", 200, list("5", "3", "2", failedJob))
	f.on("GET /jobs?page=4&pageSize=2", 200, list("5", "4", "2"))
	f.on("GET /jobs?job=issue-sync&page=1&pageSize=20&state=failed", 200, list("1", "1", "20", failedJob))
	f.on("GET /jobs?job=welcome-mail&page=1&pageSize=20", 200, list("0", "1", "20"))
	f.on("GET /jobs/1795495829000:user-sync:aaaaaaaa", 200, data(waitingJob))
	f.on("GET /jobs/1795495826751:user-sync:mq4z2etl", 200, data(activeJob))
	f.on("GET /jobs/1795495800000:project-sync", 200, data(delayedJob))
	f.on("GET /jobs/1795496426751:issue-sync:mq4z2etl", 200, data(laterJob))
	f.on("GET /jobs/1795494000000:user-sync", 200, data(completedJob))
	f.on("GET /jobs/1795408800000:issue-sync:zzzzzzzz", 200, data(failedJob))
	f.on("GET /jobs/1:user-sync", 404, `{"success":false,"message":"there is no job \"1:user-sync\""}`)
	f.on("DELETE /jobs/1795495829000:user-sync:aaaaaaaa", 200,
		`{"success":true,"message":"Job 1795495829000:user-sync:aaaaaaaa removed","data":{"id":"1795495829000:user-sync:aaaaaaaa","state":"removed"}}`)
	f.on("DELETE /jobs/1795495826751:user-sync:mq4z2etl", 202,
		`{"success":true,"message":"Job 1795495826751:user-sync:mq4z2etl is being cancelled","data":{"id":"1795495826751:user-sync:mq4z2etl","state":"cancelling"}}`)
	f.on("DELETE /jobs/1795494000000:user-sync", 409, `{"success":false,"message":"the job is completed; one that waits or is active can be cancelled"}`)
	f.on("POST /jobs/1795408800000:issue-sync:zzzzzzzz/retry", 200, data(`{"id":"1795408800000:issue-sync:zzzzzzzz","state":"waiting"}`))
	f.on("POST /jobs/1795494000000:user-sync/retry", 409, `{"success":false,"message":"the job is completed; one that has failed can be retried"}`)
	f.on("GET /history?limit=20", 200, data(historyList))
	f.on("GET /history?from=2026-11-17T04%3A50%3A30.000Z&job=user-sync&kind=run&limit=5&state=failed&text=ada&to=2026-11-24T04%3A00%3A00.000Z", 200, data(`{"entries":[]}`))
	f.on("GET /history?limit=100", 200, data(historyList))
	f.on("GET /history?cursor=TmV4dA&limit=100", 200, data(`{"entries":[`+historyCleanup+`]}`))
	f.on("GET /history/1795494000000:user-sync", 200, data(historyRun))
	f.on("GET /history/1795492000000:user-sync:cleanup:abcdefgh", 200, data(historyCleanup))
	f.on("GET /history/1:user-sync", 404, `{"success":false,"message":"there is no entry \"1:user-sync\" in the history"}`)
	f.on("GET /schedules", 200, data(schedules))
	f.on("GET /job-types", 200, data(jobTypes))
	f.on("GET /processes", 200, data(processes))
	f.on("GET /whoami", 200, data(identity))
	f.on("GET /jobs/status?job=welcome-mail", 200, data(welcomeStatus))
	f.on("POST /jobs/trigger/welcome-mail", 200, `{"success":true,"message":"Welcome mail (ada@codex.example) triggered successfully",
		"timestamp":"2026-11-24T04:50:26.753Z","data":{"jobId":"1795495826751:welcome-mail:mq4z2etl","coalesced":false}}`)
	f.on("GET /health", 200, healthy)
	f.on("POST /jobs/trigger/user-sync", 200, `{"success":true,"message":"User sync (full) triggered successfully",
		"timestamp":"2026-11-24T04:50:26.753Z","data":{"jobId":"1795495826751:user-sync:mq4z2etl","coalesced":false}}`)
	f.on("POST /jobs/trigger/project-sync", 200, `{"success":true,"message":"Project sync (incremental) triggered successfully",
		"timestamp":"2026-11-24T04:50:26.753Z","data":{"jobId":"1795495800000:project-sync","coalesced":true}}`)
	f.on("POST /jobs/trigger/issue-sync", 200, `{"success":true,"message":"Issue sync (full) triggered successfully",
		"timestamp":"2026-11-24T04:50:26.753Z","data":{"jobId":"1795496426751:issue-sync:mq4z2etl","coalesced":false,"runAt":"2026-11-24T05:00:26.751Z"}}`)
	f.on("POST /jobs/trigger/users", 404, `{"success":false,"message":"the job was \"users\"; it must be \"user-sync\""}`)
	for _, action := range []string{"pause", "resume"} {
		f.handle("POST /jobs/"+action, func(w http.ResponseWriter, r *http.Request) {
			which := "User sync"
			if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), `"all"`) {
				which = "All"
			}
			answer(200, fmt.Sprintf(`{"success":true,"message":"%s jobs %sd"}`, which, action))(w, r)
		})
	}
	f.on("POST /notify/test", 200, `{"success":true,"message":"The receiver answered 204 No Content",
		"data":{"id":"1795495826751:notify:mq4z2etl","delivered":true,"status":204}}`)
	f.on("POST /jobs/retry-failed", 200, `{"success":true,"message":"User sync: 7 failed jobs will be tried again","data":{"retried":7,"left":0}}`)
	f.on("POST /jobs/cancel-waiting", 200, `{"success":true,"message":"All: 2 waiting jobs removed","data":{"removed":2,"left":0}}`)
	f.on("POST /jobs/cleanup", 200, `{"success":true,"message":"Old jobs cleaned up (grace period: 48h)","data":{"completed":3,"failed":1}}`)
	return f
}
