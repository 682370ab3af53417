// What a request asks: the batch as JSON, and the ID that says which batch that is.

package endpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/pkg/job"
)

// maxSafe is the largest integer that JavaScript keeps.
const maxSafe = 1<<53 - 1

// timeLayout is the layout of times in requests: RFC 3339 with milliseconds, in UTC.
const timeLayout = "2006-01-02T15:04:05.000Z"

// question is what a request asks about a batch.
type question struct {
	// id is the same if and only if the run, its retries by hand, and the records are.
	id      string
	body    []byte
	records int
	// places has the place of each record in the batch, by its key.
	places map[string]int
}

// newQuestion returns the question about a batch. Of each record it has the _id and the fields.
func newQuestion(batch *job.Batch[bson.Raw], fields []string) (*question, error) {
	q := &question{records: len(batch.Records), places: make(map[string]int, len(batch.Records))}
	records := make([]json.RawMessage, len(batch.Records))
	named := sha256.New()
	name := func(part []byte) {
		_ = binary.Write(named, binary.BigEndian, uint64(len(part))) // a hash takes all
		named.Write(part)
	}
	name([]byte(batch.RunID))
	name([]byte(strconv.Itoa(batch.Retries)))
	for i, record := range batch.Records {
		id, err := record.Data.LookupErr("_id")
		if err != nil {
			return nil, fmt.Errorf("the _id of record %s: %w", record.ID, err)
		}
		if records[i], err = encode(record.Data, fields); err != nil {
			return nil, fmt.Errorf("encoding record %s for the endpoint: %w", record.ID, err)
		}
		name(append([]byte{byte(id.Type)}, id.Value...))
		k := key(id)
		if _, twice := q.places[k]; twice { // apart from each other they can be told
			return nil, job.Halve(fmt.Errorf("the _id of record %s looks like that of another record in JSON", record.ID), 1)
		}
		q.places[k] = i
	}
	q.id = "msg_" + hex.EncodeToString(named.Sum(nil)[:16])
	var err error
	q.body, err = json.Marshal(struct {
		JobType   string            `json:"jobType"`
		RunID     string            `json:"runId"`
		SyncType  string            `json:"syncType"`
		Attempt   int               `json:"attempt"`
		Retries   int               `json:"retries"`
		Reference string            `json:"reference"`
		Records   []json.RawMessage `json:"records"`
	}{
		batch.JobType, batch.RunID, batch.SyncType, batch.Number, batch.Retries, batch.Reference.UTC().Format(timeLayout), records,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding a batch for the endpoint: %w", err)
	}
	return q, nil
}

// encode returns a record as relaxed Extended JSON, with its _id first, and those of the fields that it has. An integer _id that
// JavaScript would round is an object: the answer must have the same.
func encode(record bson.Raw, fields []string) (json.RawMessage, error) {
	elements, err := record.Elements()
	if err != nil {
		return nil, err
	}
	all := slices.Contains(fields, "*")
	shown := bson.D{{}}
	for _, e := range elements {
		switch name, v := e.Key(), e.Value(); {
		case name == "_id":
			shown[0] = bson.E{Key: "_id", Value: exact(v)}
		case all || slices.ContainsFunc(fields, func(f string) bool { return f == name || strings.HasPrefix(f, name+".") }):
			shown = append(shown, bson.E{Key: name, Value: v})
		}
	}
	return bson.MarshalExtJSON(shown, false, false)
}

// exact returns a value in which each integer that JavaScript would round is an object.
func exact(v bson.RawValue) any {
	switch v.Type {
	case bson.TypeInt64:
		if n := v.Int64(); n > maxSafe || n < -maxSafe {
			return bson.D{{Key: "$numberLong", Value: strconv.FormatInt(n, 10)}}
		}
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		elements, err := bson.Raw(v.Value).Elements()
		if err != nil {
			break
		}
		all, list := make(bson.D, len(elements)), make(bson.A, len(elements))
		for i, e := range elements {
			list[i] = exact(e.Value())
			all[i] = bson.E{Key: e.Key(), Value: list[i]}
		}
		if v.Type == bson.TypeArray {
			return list
		}
		return all
	}
	return v
}

// key returns the same text for values that are the same _id in JSON. Numbers are the same if their values are: JSON does not keep the
// type. Objects are the same with their members in any order, because programs change it. What is no UTF-8 in a text comes back as
// U+FFFD.
func key(v bson.RawValue) string {
	switch v.Type {
	case bson.TypeInt32:
		return "n" + strconv.FormatInt(int64(v.Int32()), 10)
	case bson.TypeInt64:
		return "n" + strconv.FormatInt(v.Int64(), 10)
	case bson.TypeDouble:
		f := v.Double()
		if n := int64(f); float64(n) == f && n > -1<<63 && n < 1<<63-1 {
			return "n" + strconv.FormatInt(n, 10)
		}
		return "n" + strconv.FormatFloat(f, 'g', -1, 64)
	case bson.TypeString:
		return "s" + valid(v.StringValue())
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		elements, err := bson.Raw(v.Value).Elements()
		if err != nil {
			break
		}
		members := make([]string, len(elements))
		for i, e := range elements {
			within := key(e.Value())
			members[i] = fmt.Sprintf("%q:%d:%s,", valid(e.Key()), len(within), within)
		}
		if v.Type == bson.TypeArray {
			return "a" + strings.Join(members, "")
		}
		slices.Sort(members)
		return "d" + strings.Join(members, "")
	}
	return string(byte(v.Type)) + string(v.Value)
}

// valid returns the text as it is in JSON: each byte that is no UTF-8 is U+FFFD.
func valid(text string) string { return string([]rune(text)) }
