// The syncs whose work an endpoint does.

package worker

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/endpoint"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/pkg/job"
)

// withEndpoints returns the job types with the work of those that have an endpoint. The caller calls end when no handler works
// any more.
func withEndpoints(types []jobtype.Type, settings map[string]config.Endpoint, registerer prometheus.Registerer, log *slog.Logger) (
	with []jobtype.Type, end func(), err error,
) {
	if len(settings) == 0 {
		return types, func() {}, nil
	}
	metrics := endpoint.NewMetrics(registerer, slices.Collect(maps.Keys(settings)))
	var clients []*endpoint.Endpoint
	end = func() {
		for _, client := range clients {
			client.Close()
		}
	}
	with = slices.Clone(types)
	for i, t := range with {
		options, has := settings[t.Definition.Name]
		if !has {
			continue
		}
		client, err := endpoint.New(options.Options, metrics[t.Definition.Name])
		if err != nil {
			end()
			return nil, nil, fmt.Errorf("job type %q: %w", t.Definition.Name, err)
		}
		clients = append(clients, client)
		with[i].Sync = jobtype.Of(job.NewSync(ofEndpoint(t, client))).Sync
		log.Info("An endpoint does the work of a sync", "queue", t.Definition.Name, "endpoint", options.Options)
		if len(options.Secrets) == 0 {
			log.Warn("The requests to the endpoint are unsigned", "queue", t.Definition.Name, "set", config.SettingPrefix(t.Definition.Name)+"_SECRET")
		}
	}
	return with, end, nil
}

// ofEndpoint returns a sync whose work is the endpoint's. It makes it as a team could.
func ofEndpoint(t jobtype.Type, client *endpoint.Endpoint) job.Sync[bson.Raw] {
	store := t.Sync.Store
	sync := job.Sync[bson.Raw]{
		Name: t.Definition.Name, Noun: t.Sync.Noun, Collection: store.Collection, NameField: store.NameField, MaxBatch: t.Sync.MaxBatch,
		SyncedField: store.SyncedField, UpdatedField: store.UpdatedField, Update: client.Update,
		Fields: append([]string{}, client.Fields...), // not nil, which would mean those of a struct
	}
	if len(store.Filter) > 0 {
		sync.Filter = store.Filter
	}
	return sync
}
