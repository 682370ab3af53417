// What a request asks: the batch as JSON, and the ID that says which batch that is.

package endpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

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

// newQuestion returns the question about a batch. Of each record it has the _id and the fields. The body is made as one document,
// because an encoder for each record would cost more than the encoding.
func newQuestion(batch *job.Batch[bson.Raw], fields []string) (*question, error) {
	q := &question{records: len(batch.Records), places: make(map[string]int, len(batch.Records))}
	all := slices.Contains(fields, "*")
	named := sha256.New()
	name := func(kind []byte, part []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(kind)+len(part)))
		named.Write(size[:])
		named.Write(kind)
		named.Write(part)
	}
	name(nil, []byte(batch.RunID))
	name(nil, []byte(strconv.Itoa(batch.Retries)))
	size := 512
	for _, record := range batch.Records {
		size += len(record.Data) + 16
	}
	start, doc := bsoncore.AppendDocumentStart(make([]byte, 0, size))
	doc = bsoncore.AppendStringElement(doc, "jobType", batch.JobType)
	doc = bsoncore.AppendStringElement(doc, "runId", batch.RunID)
	doc = bsoncore.AppendStringElement(doc, "syncType", batch.SyncType)
	doc = bsoncore.AppendInt64Element(doc, "attempt", int64(batch.Number))
	doc = bsoncore.AppendInt64Element(doc, "retries", int64(batch.Retries))
	doc = bsoncore.AppendStringElement(doc, "reference", batch.Reference.UTC().Format(timeLayout))
	list, doc := bsoncore.AppendArrayElementStart(doc, "records")
	for i, record := range batch.Records {
		id, err := record.Data.LookupErr("_id")
		if err != nil {
			return nil, fmt.Errorf("the _id of record %s: %w", record.ID, err)
		}
		name([]byte{byte(id.Type)}, id.Value)
		k := key(id)
		if _, twice := q.places[k]; twice { // apart from each other they can be told
			return nil, job.Halve(fmt.Errorf("the _id of record %s looks like that of another record in JSON", record.ID), 1)
		}
		q.places[k] = i
		if doc, err = appendRecord(doc, strconv.Itoa(i), id, record.Data, fields, all); err != nil {
			return nil, fmt.Errorf("encoding record %s for the endpoint: %w", record.ID, err)
		}
	}
	q.id = "msg_" + hex.EncodeToString(named.Sum(nil)[:16])
	doc, err := bsoncore.AppendArrayEnd(doc, list)
	if err == nil {
		doc, err = bsoncore.AppendDocumentEnd(doc, start)
	}
	if err == nil {
		q.body, err = bson.MarshalExtJSON(bson.Raw(doc), false, false)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding a batch for the endpoint: %w", err)
	}
	return q, nil
}

// appendRecord appends a record to the list: its _id first, and those of the fields that it has, or all.
func appendRecord(list []byte, place string, id bson.RawValue, record bson.Raw, fields []string, all bool) ([]byte, error) {
	start, doc := bsoncore.AppendDocumentElementStart(list, place)
	var err error
	if doc, err = appendExact(doc, "_id", id); err != nil {
		return nil, err
	}
	for rest := []byte(record[4:]); len(rest) > 1; { // without its length, up to its end
		var e bsoncore.Element
		var ok bool
		if e, rest, ok = bsoncore.ReadElement(rest); !ok {
			return nil, errors.New("it is no valid BSON")
		}
		within := func(f string) bool { return f == e.Key() || strings.HasPrefix(f, e.Key()+".") }
		if e.Key() != "_id" && (all || slices.ContainsFunc(fields, within)) {
			doc = append(doc, e...)
		}
	}
	return bsoncore.AppendDocumentEnd(doc, start)
}

// appendExact appends a value in which each integer that JavaScript would round is an object: the answer must have the same.
func appendExact(doc []byte, name string, v bson.RawValue) ([]byte, error) {
	switch v.Type {
	case bson.TypeInt64:
		if n := v.Int64(); n > maxSafe || n < -maxSafe {
			return bsoncore.BuildDocumentElement(doc, name, bsoncore.AppendStringElement(nil, "$numberLong", strconv.FormatInt(n, 10))), nil
		}
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		elements, err := bson.Raw(v.Value).Elements()
		if err != nil {
			return nil, err
		}
		start, doc := bsoncore.AppendDocumentStart(bsoncore.AppendHeader(doc, bsoncore.Type(v.Type), name))
		for _, e := range elements {
			if doc, err = appendExact(doc, e.Key(), e.Value()); err != nil {
				return nil, err
			}
		}
		return bsoncore.AppendDocumentEnd(doc, start)
	}
	return bsoncore.AppendValueElement(doc, name, bsoncore.Value{Type: bsoncore.Type(v.Type), Data: v.Value}), nil
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
