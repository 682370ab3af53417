package faultproxy

import (
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/testbed/tcpproxy"
)

// connection is one client's, with the one to the server that belongs to it.
type connection struct {
	*tcpproxy.Conn
	proxy *Proxy

	mu      sync.Mutex // for writing to the client, and for pending
	pending map[int32]pending
}

// pending is what to do with the reply to a request.
type pending struct {
	fault *Fault
	// kept holds, for each update that the server was asked for, its index in what the client asked for.
	kept []int
	// failed are the write errors of the other ones.
	failed bson.A
}

// requests hands the client's messages on, until a connection ends.
func (c *connection) requests() {
	for {
		p, err := readPacket(c.Client)
		if err != nil || !c.Pass() {
			return
		}
		if p.opcode == opMsg {
			m, err := parseMessage(p.body)
			if err != nil {
				return
			}
			handOn, ok := c.request(p.id, &m)
			if !ok {
				return
			}
			if !handOn {
				continue
			}
			p.body = m.bytes()
		}
		if _, err := c.Server.Write(p.bytes()); err != nil {
			return
		}
	}
}

// request decides what becomes of a command. It changes m to what the server shall see, if it is handed on, and returns
// false for ok to break the connection.
func (c *connection) request(id int32, m *message) (handOn, ok bool) {
	fault := c.proxy.fault(m.command())
	if fault != nil {
		switch fault.Kind {
		case CommandError:
			return false, c.answer(id, bson.D{
				{Key: "ok", Value: 0.0}, {Key: "code", Value: int32(fault.Code)}, {Key: "codeName", Value: "Injected"},
				{Key: "errmsg", Value: fault.Message}, {Key: "errorLabels", Value: labels(fault)},
			})
		case CutBefore:
			return false, false
		case Hang:
			return false, true
		}
	}
	todo := pending{fault: fault}
	if m.command() == "update" {
		var left int
		left, todo.kept, todo.failed = c.withhold(m)
		if left == 0 && len(todo.failed) > 0 {
			return false, c.answer(id, bson.D{
				{Key: "ok", Value: 1.0}, {Key: "n", Value: int32(0)}, {Key: "nModified", Value: int32(0)},
				{Key: "writeErrors", Value: todo.failed},
			})
		}
	}
	if todo.fault != nil || len(todo.failed) > 0 {
		c.mu.Lock()
		c.pending[id] = todo
		c.mu.Unlock()
	}
	return true, true
}

// withhold takes the updates that shall fail out of an update command, and those behind the first of them if the command
// wants its updates in order. It returns how many are left, where those were, and the write errors of those that failed.
func (c *connection) withhold(m *message) (left int, kept []int, failed bson.A) {
	ordered, ok := m.document.Lookup("ordered").BooleanOK()
	ordered = ordered || !ok
	m.pullOut("updates")
	for i, s := range m.sequences {
		if s.name != "updates" {
			continue
		}
		c.proxy.noteUpdates(len(s.documents))
		var documents []bson.Raw
		for index, update := range s.documents {
			if ordered && len(failed) > 0 {
				break
			}
			u, fails := c.proxy.failure(update.Lookup("q", "_id"))
			if fails {
				failed = append(failed, bson.D{
					{Key: "index", Value: int32(index)}, {Key: "code", Value: int32(u.code)}, {Key: "errmsg", Value: u.message},
				})
				continue
			}
			documents, kept = append(documents, update), append(kept, index)
		}
		m.sequences[i].documents = documents
	}
	return len(kept), kept, failed
}

// replies hands the server's messages on, until a connection ends.
func (c *connection) replies() {
	for {
		p, err := readPacket(c.Server)
		if err != nil || !c.Pass() {
			return
		}
		c.mu.Lock()
		todo, ok := c.pending[p.responseTo]
		delete(c.pending, p.responseTo)
		c.mu.Unlock()
		if ok {
			if todo.fault != nil && todo.fault.Kind == CutAfter {
				return
			}
			m, err := parseMessage(p.body)
			if err != nil {
				return
			}
			if m.document, err = todo.reply(m.document); err != nil {
				return
			}
			p.body = m.bytes()
		}
		c.mu.Lock()
		_, err = c.Client.Write(p.bytes())
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// reply adds to the server's reply what it would have said about the updates that it never saw.
func (t pending) reply(document bson.Raw) (bson.Raw, error) {
	var reply bson.D
	if err := bson.Unmarshal(document, &reply); err != nil {
		return nil, err
	}
	var fields bson.D
	failed := t.failed
	for _, e := range reply {
		errs, ok := e.Value.(bson.A)
		if e.Key != "writeErrors" || !ok {
			fields = append(fields, e)
			continue
		}
		for _, raw := range errs {
			of, ok := raw.(bson.D)
			if !ok {
				continue
			}
			for i, field := range of {
				index, ok := field.Value.(int32)
				if field.Key == "index" && ok && t.kept != nil && int(index) < len(t.kept) {
					of[i].Value = int32(t.kept[index])
				}
			}
			failed = append(failed, of)
		}
	}
	if len(failed) > 0 {
		fields = append(fields, bson.E{Key: "writeErrors", Value: failed})
	}
	if t.fault != nil && t.fault.Kind == WriteConcernError {
		fields = append(fields, bson.E{Key: "writeConcernError", Value: bson.D{
			{Key: "code", Value: int32(t.fault.Code)}, {Key: "errmsg", Value: t.fault.Message},
		}})
		if len(t.fault.Labels) > 0 {
			fields = append(fields, bson.E{Key: "errorLabels", Value: labels(t.fault)})
		}
	}
	return bson.Marshal(fields)
}

// answer replies to the client in the server's place.
func (c *connection) answer(to int32, document bson.D) bool {
	raw, err := bson.Marshal(document)
	if err != nil {
		return false
	}
	p := packet{responseTo: to, opcode: opMsg, body: message{document: raw}.bytes()}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err = c.Client.Write(p.bytes())
	return err == nil
}

func labels(f *Fault) bson.A {
	a := bson.A{}
	for _, l := range f.Labels {
		a = append(a, l)
	}
	return a
}
