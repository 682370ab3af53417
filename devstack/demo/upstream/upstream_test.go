package upstream

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

func TestAsk(t *testing.T) {
	t.Parallel()
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx, func(bool, time.Duration) {}); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer stop()
	client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	scores, err := Ask(t.Context(), client, s.URL(), ids)
	if known := len(slices.DeleteFunc(scores, func(n *int) bool { return n == nil })); err != nil || known == 0 || known > 100 {
		t.Errorf("it knows %d of 1000 records: %v", known, err)
	}
	s.setAway(true)
	if _, err := Ask(t.Context(), client, s.URL(), ids); !errors.Is(err, ErrAway) {
		t.Errorf("while it is away: %v", err)
	}
	s.setAway(false)
	if _, err := Ask(t.Context(), client, s.URL(), ids); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

func TestScoreChanges(t *testing.T) {
	t.Parallel()
	now := time.Unix(6000, 0)
	id := ""
	for i := 0; score(id, now) == nil; i++ {
		id = strconv.Itoa(i)
	}
	first := *score(id, now)
	if *score(id, now.Add(changeTime-time.Second)) != first {
		t.Error("it does not last")
	}
	if *score(id, now.Add(changeTime)) == first {
		t.Error("it does not change")
	}
}
