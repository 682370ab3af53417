// What a request asks: the batch as JSON, and the ID that says which batch that is.

package endpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/codex-api/codex-jobs/pkg/job"
)

// timeLayout is the layout of the reference time: RFC 3339 with milliseconds, in UTC.
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
	identity := named(make([]byte, 0, 64+32*len(batch.Records)), nil, []byte(batch.RunID))
	identity = named(identity, nil, []byte(strconv.Itoa(batch.Retries)))
	about, err := bson.MarshalExtJSON(bson.D{
		{Key: "jobType", Value: batch.JobType}, {Key: "runId", Value: batch.RunID}, {Key: "syncType", Value: batch.SyncType},
		{Key: "attempt", Value: batch.Number}, {Key: "retries", Value: batch.Retries},
		{Key: "reference", Value: batch.Reference.UTC().Format(timeLayout)},
	}, false, false)
	if err != nil {
		return nil, fmt.Errorf("encoding a batch for the endpoint: %w", err)
	}
	size := len(about) + 16
	for _, record := range batch.Records {
		size += len(record.Data) + 24
	}
	body := append(append(make([]byte, 0, size), about[:len(about)-1]...), `,"records":[`...)
	kept := keeper(fields)
	for i, record := range batch.Records {
		id, err := record.Data.LookupErr("_id")
		if err != nil {
			return nil, fmt.Errorf("the _id of record %s: %w", record.ID, err)
		}
		identity = named(identity, []byte{byte(id.Type)}, id.Value)
		k := key(id)
		if _, twice := q.places[k]; twice { // apart from each other they can be told
			return nil, job.Halve(fmt.Errorf("the _id of record %s looks like that of another record in JSON", record.ID), 1)
		}
		q.places[k] = i
		if body, err = appendRecord(body, id, record.Data, kept); err != nil {
			return nil, fmt.Errorf("encoding record %s for the endpoint: %w", record.ID, err)
		}
	}
	sum := sha256.Sum256(identity)
	q.id = "msg_" + hex.EncodeToString(sum[:16])
	q.body = append(closeWith(body, ']'), '}')
	return q, nil
}

// named appends a part of what a batch is, after its length, so that no two batches look the same.
func named(identity, kind, part []byte) []byte {
	identity = binary.BigEndian.AppendUint64(identity, uint64(len(kind)+len(part)))
	return append(append(identity, kind...), part...)
}

// keeper returns whether an element of a record, besides its _id, is one of the fields or has one of them within it.
func keeper(fields []string) func(name []byte) bool {
	outer := make(map[string]bool, len(fields))
	for _, f := range fields {
		name, _, _ := strings.Cut(f, ".")
		outer[name] = true
	}
	all := slices.Contains(fields, "*")
	return func(name []byte) bool { return (all || outer[string(name)]) && string(name) != "_id" }
}

// appendRecord appends a record and a comma: its _id first, which the answer must have again, and those of the fields that it has.
func appendRecord(b []byte, id bson.RawValue, record bson.Raw, kept func(name []byte) bool) ([]byte, error) {
	b, err := appendValue(append(b, `{"_id":`...), bsoncore.Value{Type: bsoncore.Type(id.Type), Data: id.Value}, true)
	if err != nil {
		return nil, err
	}
	if b, err = appendMembers(append(b, ','), record, true, false, kept); err != nil {
		return nil, err
	}
	return append(closeWith(b, '}'), ','), nil
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
