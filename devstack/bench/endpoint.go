// How fast a sync is whose work another service does, behind an endpoint.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	// slowAnswer and fastAnswer are how long an endpoint takes for a batch.
	slowAnswer = 200 * time.Millisecond
	fastAnswer = 20 * time.Millisecond
	// endpointSecret signs the requests.
	endpointSecret = "whsec_dGhlIGJlbmNoIGFuZCBpdHMgZW5kcG9pbnQ="
	// endpointFields are the fields that the endpoint is sent.
	endpointFields = "email"
)

// measureEndpoint measures full syncs by one worker with an endpoint that has nothing to set. Each writer can have one batch with the
// endpoint, so such a run cannot be faster than the endpoint allows, nor than the driver alone.
func (b *bench) measureEndpoint(ctx context.Context) error {
	for _, e := range []struct {
		takes time.Duration
		users int
	}{{slowAnswer, b.plan.slowUsers}, {fastAnswer, b.plan.fastUsers}} {
		if err := b.users.ensure(ctx, e.users); err != nil {
			return err
		}
		if err := b.syncByEndpoint(ctx, e.users, e.takes); err != nil {
			return err
		}
	}
	return nil
}

// syncByEndpoint measures the sync of n users with an endpoint that takes so long for a batch.
func (b *bench) syncByEndpoint(ctx context.Context, n int, takes time.Duration) (err error) {
	e, err := startEndpoint(takes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	worker := newWorker(settings{"USER_SYNC_URL": e.url(), "USER_SYNC_SECRET": endpointSecret, "USER_SYNC_FIELDS": endpointFields})
	f := figure{
		Section: "endpoint", Unit: usersPerSecond,
		What: fmt.Sprintf("full sync, %s users, the endpoint takes %v for a batch", count(n), takes),
	}
	var alone []float64
	err = rounds(func(number int) error {
		d, err := b.driverAlone(ctx, n, leastFields)
		if err != nil {
			return err
		}
		synced, err := b.syncOn(ctx, []spec{worker}, n, full)
		if err != nil {
			return err
		}
		f.Samples = append(f.Samples, perSecond(n, synced.took))
		alone = append(alone, perSecond(n, d.took))
		b.progress.say("%s, round %d: %s; the driver alone: %s", f.What, number, rounded(synced.took), rounded(d.took))
		return nil
	})
	if err != nil {
		return err
	}
	writers, size := b.cfg.Sync.Writers, b.cfg.Sync.BatchSize
	f.Value = median(f.Samples)
	f.Against, f.AgainstValue = fmt.Sprintf("%d × %d users at once", writers, size), float64(writers*size)/takes.Seconds()
	if limit := median(alone); limit < f.AgainstValue {
		f.Against, f.AgainstValue, f.AgainstSamples = "the driver alone", limit, alone
	}
	b.report.add(f)
	return nil
}

// endpoint is an endpoint that checks the signature of what it is sent, and that each user has the field, and says that all is well. A
// team's endpoint is on another machine, so this one takes little of the processor time that MongoDB and the worker share here.
type endpoint struct {
	listener net.Listener
	server   http.Server
	webhook  *standardwebhooks.Webhook
	takes    time.Duration
	serving  sync.WaitGroup
}

// startEndpoint starts an endpoint that takes so long for each answer.
func startEndpoint(takes time.Duration) (*endpoint, error) {
	e := &endpoint{takes: takes}
	var err error
	if e.webhook, err = standardwebhooks.NewWebhook(endpointSecret); err != nil {
		return nil, fmt.Errorf("starting the endpoint: %w", err)
	}
	if e.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("starting the endpoint: %w", err)
	}
	e.server.Handler, e.server.ReadHeaderTimeout = http.HandlerFunc(e.answer), questionTimeout
	e.serving.Go(func() { _ = e.server.Serve(e.listener) }) // without it the run fails, and says why
	return e, nil
}

func (e *endpoint) url() string { return "http://" + e.listener.Addr().String() }

// stop ends the endpoint, and the requests that it has not answered.
func (e *endpoint) stop() error {
	err := e.server.Close()
	e.serving.Wait()
	if err != nil {
		return fmt.Errorf("stopping the endpoint: %w", err)
	}
	return nil
}

func (e *endpoint) answer(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = e.webhook.Verify(body, r.Header)
	}
	records := bytes.Count(body, []byte(`{"_id":`))
	if fields := bytes.Count(body, []byte(`,"`+endpointFields+`":"`)); err != nil || records == 0 || fields != records {
		http.Error(w, fmt.Sprintf("this is no batch of users with %s: %d users, %d with the field, %v", endpointFields, records, fields, err), http.StatusBadRequest)
		return
	}
	if pause(r.Context(), time.Until(arrived.Add(e.takes))) == nil {
		w.WriteHeader(http.StatusNoContent)
	}
}
