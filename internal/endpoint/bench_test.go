package endpoint_test

import (
	"fmt"
	"net/http"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/endpoint"
	"github.com/codex-api/codex-jobs/internal/webhook"
)

// BenchmarkUpdate is what a batch of 100 users costs, with one field each, and an endpoint that has nothing to set. The endpoint's
// own costs are in it.
func BenchmarkUpdate(b *testing.B) {
	client, _ := serve(b, endpoint.Options{Options: webhook.Options{Secrets: []string{secret}}, Fields: []string{"email"}}, nil, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	var documents []bson.D
	for i := range 100 {
		documents = append(documents, bson.D{
			{Key: "_id", Value: bson.NewObjectID()}, {Key: "email", Value: fmt.Sprintf("user%d@codex.example", i)},
			{Key: "lastSynced", Value: reference}, {Key: "username", Value: fmt.Sprintf("user-%d", i)},
		})
	}
	users := batch(b, documents...)
	for b.Loop() {
		if _, err := client.Update(b.Context(), users); err != nil {
			b.Fatal(err)
		}
	}
}
