package faultproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	headerSize  = 16
	opMsg       = 2013
	maxMessage  = 64 << 20
	checksumBit = 1 << 0
)

// packet is one message as it passes: the header's fields, and all that follows it.
type packet struct {
	id, responseTo int32
	opcode         int32
	body           []byte
}

func readPacket(r io.Reader) (packet, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return packet{}, err
	}
	size := int32(binary.LittleEndian.Uint32(header[0:]))
	if size < headerSize || size > maxMessage {
		return packet{}, fmt.Errorf("a message of %d bytes", size)
	}
	p := packet{
		id:         int32(binary.LittleEndian.Uint32(header[4:])),
		responseTo: int32(binary.LittleEndian.Uint32(header[8:])),
		opcode:     int32(binary.LittleEndian.Uint32(header[12:])),
		body:       make([]byte, size-headerSize),
	}
	_, err := io.ReadFull(r, p.body)
	return p, err
}

func (p packet) bytes() []byte {
	b := make([]byte, 0, headerSize+len(p.body))
	b = binary.LittleEndian.AppendUint32(b, uint32(headerSize+len(p.body)))
	b = binary.LittleEndian.AppendUint32(b, uint32(p.id))
	b = binary.LittleEndian.AppendUint32(b, uint32(p.responseTo))
	b = binary.LittleEndian.AppendUint32(b, uint32(p.opcode))
	return append(b, p.body...)
}

// message is what an OP_MSG carries: a document and sequences of documents that belong into it.
type message struct {
	flags     uint32
	document  bson.Raw
	sequences []sequence
}

type sequence struct {
	name      string
	documents []bson.Raw
}

// parseMessage reads the body of an OP_MSG. A checksum is dropped.
func parseMessage(body []byte) (message, error) {
	broken := errors.New("a broken OP_MSG")
	if len(body) < 4 {
		return message{}, broken
	}
	m := message{flags: binary.LittleEndian.Uint32(body)}
	body = body[4:]
	if m.flags&checksumBit != 0 {
		if len(body) < 4 {
			return message{}, broken
		}
		m.flags &^= checksumBit
		body = body[:len(body)-4]
	}
	for len(body) > 0 {
		kind := body[0]
		section, rest, ok := prefixed(body[1:])
		if !ok {
			return message{}, broken
		}
		body = rest
		switch kind {
		case 0:
			m.document = bson.Raw(section)
		case 1:
			section = section[4:]
			end := 0
			for end < len(section) && section[end] != 0 {
				end++
			}
			if end == len(section) {
				return message{}, broken
			}
			s := sequence{name: string(section[:end])}
			for section = section[end+1:]; len(section) > 0; {
				var doc []byte
				if doc, section, ok = prefixed(section); !ok {
					return message{}, broken
				}
				s.documents = append(s.documents, bson.Raw(doc))
			}
			m.sequences = append(m.sequences, s)
		default:
			return message{}, broken
		}
	}
	if m.document.Validate() != nil {
		return message{}, broken
	}
	return m, nil
}

// pullOut makes an array of documents in the document a sequence beside it, which means the same.
func (m *message) pullOut(name string) {
	elements, err := m.document.Elements()
	if err != nil {
		return
	}
	var rest bson.D
	for _, e := range elements {
		values, isArray := e.Value().ArrayOK()
		if e.Key() != name || !isArray {
			rest = append(rest, bson.E{Key: e.Key(), Value: e.Value()})
			continue
		}
		listed, _ := values.Values()
		s := sequence{name: name}
		for _, v := range listed {
			s.documents = append(s.documents, v.Document())
		}
		m.sequences = append(m.sequences, s)
	}
	if document, err := bson.Marshal(rest); err == nil {
		m.document = document
	}
}

// prefixed splits off what begins with its own length in four bytes.
func prefixed(b []byte) (first, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	size := int(binary.LittleEndian.Uint32(b))
	if size < 4 || size > len(b) {
		return nil, nil, false
	}
	return b[:size], b[size:], true
}

func (m message) bytes() []byte {
	b := binary.LittleEndian.AppendUint32(nil, m.flags)
	b = append(append(b, 0), m.document...)
	for _, s := range m.sequences {
		b = append(b, 1)
		size := 4 + len(s.name) + 1
		for _, doc := range s.documents {
			size += len(doc)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(size))
		b = append(append(b, s.name...), 0)
		for _, doc := range s.documents {
			b = append(b, doc...)
		}
	}
	return b
}

// command is the name of the command that m asks for.
func (m message) command() string {
	elements, err := m.document.Elements()
	if err != nil || len(elements) == 0 {
		return ""
	}
	return elements[0].Key()
}
