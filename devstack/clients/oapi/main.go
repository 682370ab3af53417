// Uses the client that oapi-codegen makes of the API's description. This is a module of its own, so that nothing else needs
// what that client imports.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	api, err := NewClientWithResponses(os.Getenv("BASE_URL"), WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+os.Getenv("API_KEY"))
		return nil
	}))
	if err != nil {
		return err
	}
	full := SyncPayloadSyncTypeFull
	var body TriggerBody
	if err := body.FromSyncPayload(SyncPayload{SyncType: &full}); err != nil {
		return err
	}
	triggered, err := api.TriggerJobWithResponse(ctx, JobTypeUserSync, body)
	if err != nil || triggered.JSON200 == nil {
		return fmt.Errorf("triggering: %v, %w", triggered, err)
	}
	again, err := api.TriggerJobWithBodyWithResponse(ctx, JobTypeUserSync, "application/json", nil)
	if err != nil || again.JSON200 == nil {
		return fmt.Errorf("triggering without a body: %v, %w", again, err)
	}
	job, state := JobTypeOrAllUserSync, StateWaiting
	list, err := api.ListJobsWithResponse(ctx, &ListJobsParams{Job: &job, State: &state})
	if err != nil || list.JSON200 == nil {
		return fmt.Errorf("listing: %v, %w", list, err)
	}
	var listed []string
	for _, j := range list.JSON200.Data.Jobs {
		listed = append(listed, j.Id)
	}
	id := triggered.JSON200.Data.JobId
	shown, err := api.GetJobWithResponse(ctx, id)
	if err != nil || shown.JSON200 == nil || shown.JSON200.Data.Data == nil {
		return fmt.Errorf("showing: %v, %w", shown, err)
	}
	var updated int
	if result := shown.JSON200.Data.Result; result != nil {
		sync, err := result.AsSyncResult()
		if err != nil {
			return err
		}
		updated = sync.UsersUpdated
	}
	cancelled, err := api.CancelJobWithResponse(ctx, id)
	if err != nil || cancelled.JSON200 == nil {
		return fmt.Errorf("cancelling: %v, %w", cancelled, err)
	}
	issues := JobTypeOrAll("issue-sync")
	paused, err := api.PauseJobsWithResponse(ctx, ControlBody{Job: &issues})
	if err != nil || paused.JSON200 == nil {
		return fmt.Errorf("pausing: %v, %w", paused, err)
	}
	if _, err := api.CancelJobWithResponse(ctx, again.JSON200.Data.JobId); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"id": id, "coalesced": triggered.JSON200.Data.Coalesced, "listed": listed, "state": shown.JSON200.Data.State,
		"syncType": shown.JSON200.Data.Data.SyncType, "updated": updated, "cancelled": cancelled.JSON200.Data.State, "paused": paused.JSON200.Message,
	})
}
