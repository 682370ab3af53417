package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// standIn is an API whose job is done when it is looked at for the second time.
func standIn() *httptest.Server {
	looks := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST /jobs/trigger/user-sync", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"success":true,"message":"User sync (full) triggered successfully","data":{"jobId":"`+id+`","coalesced":false}}`)
	})
	mux.HandleFunc("GET /jobs/{id}", func(w http.ResponseWriter, r *http.Request) {
		looks++
		switch {
		case r.PathValue("id") != id:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"success":false,"message":"there is no such job"}`)
		case looks == 1:
			_, _ = io.WriteString(w, data(job))
		default:
			_, _ = io.WriteString(w, data(ended))
		}
	})
	return httptest.NewServer(mux)
}

// A full synchronisation of the users is triggered and waited for.
func Example() {
	server := standIn() // in earnest it is http://127.0.0.1:4000, or where the API is
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	api, err := client.New(server.URL, client.WithAPIKey("the-key"))
	if err != nil {
		fmt.Println(err)
		return
	}
	triggered, err := api.Trigger(ctx, "user-sync", client.SyncPayload{SyncType: client.SyncFull})
	if err != nil {
		fmt.Println(err)
		return
	}
	for {
		job, err := api.Job(ctx, triggered.JobID)
		if err != nil { // where client.Temporary(err) it may be tried again
			fmt.Println(err)
			return
		}
		fmt.Println(job.State, job.Progress)
		if job.State.Ended() {
			var result client.SyncResult
			if err := json.Unmarshal(job.Result, &result); err != nil {
				fmt.Println(err)
				return
			}
			fmt.Println(result.UsersUpdated, "users updated")
			return
		}
		time.Sleep(10 * time.Millisecond) // a second is often enough
	}
	// Output:
	// active 55
	// completed 100
	// 4 users updated
}

// What was wrong is in the error, and of what kind it is.
func ExampleError() {
	server := standIn()
	defer server.Close()
	api, err := client.New(server.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = api.Job(context.Background(), "1795495826751:user-sync")
	fmt.Println(err)
	fmt.Println(client.IsNotFound(err), client.Temporary(err))
	// Output:
	// asking for job 1795495826751:user-sync: the server answered 404: there is no such job
	// true false
}
