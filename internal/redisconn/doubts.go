// Connections that are no longer any good, although they are open: a firewall has dropped them without a word, or they lead to a
// server that has become a replica. Where there is one, there are others.

package redisconn

import (
	"bytes"
	"sync/atomic"
	"time"
)

const (
	// silence is how long a server must not have answered before other connections are in doubt, too. A command whose caller had
	// less time says nothing of them.
	silence = 300 * time.Millisecond
	// readOnlyPause is the time between two times that all connections are in doubt because of a READONLY. A replica may be all
	// that there is.
	readOnlyPause = time.Second
)

// doubts says which connections of a client are in doubt. Such a connection is closed when it would be used next.
type doubts struct {
	until    atomic.Int64 // connections on which the server has sent nothing since then (ns) are in doubt
	readOnly atomic.Int64 // when the last READONLY put all in doubt (ns)
}

// unanswered puts the connections in doubt on which the server has sent nothing since a command without an answer was sent (ns).
func (d *doubts) unanswered(sent int64) {
	if time.Now().UnixNano()-sent >= int64(silence) {
		d.raise(sent)
	}
}

// heard puts all connections in doubt if the data has a reply that says READONLY. go-redis itself drops the connection of a reply
// that begins so. A proxy puts something before it.
func (d *doubts) heard(data []byte, now int64) {
	if !bytes.HasPrefix(data, []byte("-")) && !bytes.Contains(data, []byte("\n-")) || !bytes.Contains(data, []byte("READONLY")) {
		return
	}
	if before := d.readOnly.Load(); now-before >= int64(readOnlyPause) && d.readOnly.CompareAndSwap(before, now) {
		d.raise(now)
	}
}

func (d *doubts) raise(until int64) {
	for before := d.until.Load(); before < until && !d.until.CompareAndSwap(before, until); before = d.until.Load() {
	}
}
