package mongodb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	type bulk = mongo.WriteException
	writeError := func(code int) mongo.WriteError { return mongo.WriteError{Code: code} }
	for _, test := range []struct {
		name    string
		err     error
		canPass bool
	}{
		{"deadline of the operation", context.DeadlineExceeded, true},
		{"refused connection", &net.OpError{Op: "dial", Err: errors.New("connection refused")}, true},
		{"unknown host", &net.DNSError{Err: "no such host"}, true},
		{"end of the connection", fmt.Errorf("handshake: %w", io.EOF), true},
		{"end within a message", io.ErrUnexpectedEOF, true},
		{"network label", mongo.CommandError{Labels: []string{"NetworkError"}}, true},
		{"overload label", mongo.CommandError{Code: 8000, Labels: []string{"SystemOverloadedError"}}, true},
		{"label of a bulk", bulk{Labels: []string{"RetryableWriteError"}, WriteErrors: []mongo.WriteError{writeError(121)}}, true},
		{"write concern of a bulk", bulk{WriteConcernError: &mongo.WriteConcernError{Code: 8000}}, true},
		{"one write that could not be served", bulk{WriteErrors: []mongo.WriteError{writeError(121), writeError(11602)}}, true},
		{"writes that were refused", bulk{WriteErrors: []mongo.WriteError{writeError(121), writeError(11000)}}, false},
		{"unauthorized", mongo.CommandError{Code: 13}, false},
		{"wrong password", mongo.CommandError{Code: 18}, false},
		{"bad command", mongo.CommandError{Code: 59}, false},
		{"closed client", mongo.ErrClientDisconnected, false},
		{"anything else", errors.New("out of cheese"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := Classify(t.Context(), "doing", test.err)
			if errors.Is(err, syncrun.ErrUnavailable) != test.canPass || canPass(err) != test.canPass || !strings.HasSuffix(err.Error(), test.err.Error()) {
				t.Errorf("became %v", err)
			}
		})
	}
	for code, name := range passingCodes {
		if err := Classify(t.Context(), "doing", mongo.CommandError{Code: int32(code), Name: name}); !errors.Is(err, syncrun.ErrUnavailable) {
			t.Errorf("%d: %v", code, err)
		}
	}

	reason := errors.New("fenced")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	if err := Classify(ctx, "doing", context.Canceled); !errors.Is(err, reason) || errors.Is(err, syncrun.ErrUnavailable) {
		t.Errorf("cancelled: %v", err)
	}
}
