// What an answer says: how it is read, and what it means for the batch. What is not understood is refused, never dropped.

package endpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/webhook"
	"github.com/codex-api/codex-jobs/pkg/job"
)

// The errors of a request that do not fail the attempt. forEngine says what each means for the run.
type (
	// away is the error of an endpoint that does not answer now, or asks for less.
	away struct {
		reason error
		after  time.Duration
	}
	// culprit is the error of an answer that one of the records may have caused, or how many they are.
	culprit struct {
		reason error
		tries  int
	}
)

func (e *away) Error() string    { return e.reason.Error() }
func (e *culprit) Error() string { return e.reason.Error() }

// forEngine returns the error as package job has it.
func forEngine(err error) error {
	var gone *away
	var caused *culprit
	switch {
	case errors.As(err, &gone):
		return job.Wait(err, gone.after)
	case errors.As(err, &caused):
		return job.Halve(err, caused.tries)
	}
	return err // a failed attempt
}

// understand returns what becomes of each record.
func (e *Endpoint) understand(a *webhook.Answer, asked *question) ([]job.Outcome, error) {
	answered := func() error { return errors.New("the endpoint " + a.String()) }
	switch a.Status {
	case http.StatusOK:
		if len(a.Body) > MaxBody {
			return nil, &culprit{fmt.Errorf("the answer of the endpoint is larger than %d bytes", MaxBody), 1}
		}
		return results(a.Body, asked)
	case http.StatusNoContent:
		return make([]job.Outcome, asked.records), nil
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable,
		http.StatusGatewayTimeout:
		return nil, &away{answered(), a.RetryAfter}
	case http.StatusInternalServerError:
		return nil, &culprit{answered(), tries}
	}
	return nil, answered()
}

// results reads the results, and returns the outcome of each record in the order of the batch.
func results(body []byte, asked *question) ([]job.Outcome, error) {
	refuse := func(format string, args ...any) ([]job.Outcome, error) {
		return nil, fmt.Errorf("the answer of the endpoint is not understood: "+format, args...)
	}
	if !json.Valid(body) {
		return refuse("it must be JSON, was %s", webhook.Excerpt(body))
	}
	answer, err := members(body)
	if err != nil {
		return refuse("it %w, was %s", err, webhook.Excerpt(body))
	}
	for name := range answer {
		if name != "results" {
			return refuse("it must have results and nothing else, had %q", webhook.Excerpt([]byte(name)))
		}
	}
	var list []json.RawMessage
	if err := json.Unmarshal(answer["results"], &list); err != nil || list == nil {
		return refuse("its results must be an array, was %s", webhook.Excerpt(body))
	}
	outcomes := make([]job.Outcome, asked.records)
	for i := range outcomes {
		outcomes[i].Err = errors.New("the answer of the endpoint has no result for the record")
	}
	found := make(map[int]bool, len(list))
	for i, data := range list {
		result, err := members(data)
		if err != nil {
			return refuse("result %d %w, was %s", i, err, webhook.Excerpt(data))
		}
		id, err := value(result["_id"])
		if err != nil {
			return refuse("result %d must have the _id of a record, had %s", i, webhook.Excerpt(result["_id"]))
		}
		place, ok := asked.places[key(id)]
		switch {
		case !ok:
			return refuse("result %d is about a record that was not in the request: %s", i, webhook.Excerpt(result["_id"]))
		case found[place]:
			return refuse("there are two results about the record %s", webhook.Excerpt(result["_id"]))
		}
		found[place] = true
		outcomes[place] = outcome(result)
	}
	return outcomes, nil
}

// members returns the members of an object. Its error says what the object must be.
func members(data json.RawMessage) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return nil, errors.New("must be an object")
	}
	all := make(map[string]json.RawMessage)
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("must be an object: %w", err)
		}
		text, _ := name.(string) // it can be nothing else
		if _, twice := all[text]; twice {
			return nil, fmt.Errorf("must have %q once", webhook.Excerpt([]byte(text)))
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("must be an object: %w", err)
		}
		all[text] = value
	}
	return all, nil
}

// value reads a value in Extended JSON.
func value(data json.RawMessage) (bson.RawValue, error) {
	if data == nil {
		return bson.RawValue{}, errors.New("it is missing")
	}
	var wrapped bson.Raw
	if err := bson.UnmarshalExtJSON(slices.Concat([]byte(`{"v":`), data, []byte("}")), false, &wrapped); err != nil {
		return bson.RawValue{}, err
	}
	return wrapped.LookupErr("v")
}

// outcome reads the result of one record. What is wrong with it is the record's error.
func outcome(result map[string]json.RawMessage) job.Outcome {
	failed := func(format string, args ...any) job.Outcome {
		return job.Outcome{Err: fmt.Errorf(format, args...)}
	}
	for name, data := range result {
		if !slices.Contains([]string{"_id", "set", "unset", "error"}, name) {
			return failed("the result of the endpoint must have set, unset or error, had %q", webhook.Excerpt([]byte(name)))
		}
		if bytes.Equal(data, []byte("null")) { // what a program writes that has no value
			delete(result, name)
		}
	}
	if data, isError := result["error"]; isError {
		var reason string
		switch err := json.Unmarshal(data, &reason); {
		case err != nil:
			return failed("the error of the endpoint must be a text, was %s", webhook.Excerpt(data))
		case result["set"] != nil || result["unset"] != nil:
			return failed("the result of the endpoint must have either error, or set and unset, had both; the error: %s", webhook.Excerpt([]byte(reason)))
		case strings.TrimSpace(reason) == "":
			return failed("the endpoint gave an error without a reason")
		}
		return failed("%s", webhook.Excerpt([]byte(reason)))
	}
	var o job.Outcome
	if data := result["set"]; data != nil {
		var err error
		if o.Set, err = fields(data); err != nil {
			return failed("the set of the endpoint must be an object in Extended JSON, was %s: %w", webhook.Excerpt(data), err)
		}
	}
	if data := result["unset"]; data != nil {
		if err := json.Unmarshal(data, &o.Unset); err != nil {
			return failed("the unset of the endpoint must be an array of names, was %s", webhook.Excerpt(data))
		}
	}
	return o
}

// fields reads the fields to set.
func fields(data json.RawMessage) (map[string]any, error) {
	v, err := value(data)
	if err != nil {
		return nil, err
	}
	if v.Type != bson.TypeEmbeddedDocument {
		return nil, fmt.Errorf("it is of type %s", v.Type)
	}
	elements, err := v.Document().Elements()
	if err != nil {
		return nil, err
	}
	set := make(map[string]any, len(elements))
	for _, e := range elements {
		if _, twice := set[e.Key()]; twice {
			return nil, fmt.Errorf("it has %q twice", e.Key())
		}
		set[e.Key()] = e.Value()
	}
	return set, nil
}
