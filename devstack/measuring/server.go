// Package measuring is a server for measurements that speaks MongoDB's protocol, with the costs of a real one: each index key that it
// walks over, each document that it reads and each update takes processor time, and each command that writes waits until its
// log is on disk. A stand-in in memory would be kinder than what the product meets.
//
// It knows what syncs, the history and the bench ask, and refuses everything else.
package measuring

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Costs are what the work takes, in processor time.
type Costs struct {
	// Key is for each index key that is walked over, Document for each document that is read or counted, and Update for each update.
	Key, Document, Update time.Duration
}

// Measured are the costs that make the driver alone as fast as on a MongoDB-class server with durable storage on two cores.
var Measured = Costs{Key: 4 * time.Microsecond, Document: 5 * time.Microsecond, Update: 86 * time.Microsecond}

const (
	// maxMessage bounds a message, in bytes.
	maxMessage = 48 << 20
	// opMsg is the code of the only kind of message that it knows besides the driver's first one.
	opMsg   = 2013
	opQuery = 2004
	opReply = 1
)

// Server is a running server.
type Server struct {
	costs    Costs
	listener net.Listener
	log      *commitLog

	mu          sync.RWMutex
	collections map[string]*collection // by database.name
	cursors     map[int64]*cursor
	cursorID    atomic.Int64

	closing context.CancelFunc
	serving sync.WaitGroup
}

// Start starts a server on a free port of the loopback interface. It keeps its log in the directory.
func Start(dir string, costs Costs) (*Server, error) {
	log, err := openLog(dir)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the server for measurements: %w", err), log.close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		costs: costs, listener: listener, log: log, closing: cancel,
		collections: make(map[string]*collection), cursors: make(map[int64]*cursor),
	}
	s.serving.Go(func() { s.accept(ctx) })
	return s, nil
}

// URI returns the connection string for clients.
func (s *Server) URI() string {
	return "mongodb://" + s.listener.Addr().String() + "/?directConnection=true"
}

// Stop ends the server, and its connections.
func (s *Server) Stop() error {
	s.closing()
	err := s.listener.Close()
	s.serving.Wait()
	return errors.Join(err, s.log.close())
}

func (s *Server) accept(ctx context.Context) {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return // it is closed
		}
		s.serving.Go(func() {
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			defer c.Close()
			s.serve(c)
		})
	}
}

// serve answers the messages of a connection, one after another, until it ends.
func (s *Server) serve(c net.Conn) {
	in := bufio.NewReaderSize(c, 64<<10)
	for {
		m, err := readMessage(in)
		if err != nil {
			return
		}
		reply := m.reply(s.answer(m))
		if _, err := c.Write(reply); err != nil {
			return
		}
	}
}

// message is a command of a client.
type message struct {
	id      int32
	opCode  int32
	command bson.Raw
	// documents are those that the client sent beside the command, and field is the member that they belong to.
	field     string
	documents []bson.Raw
}

func readMessage(in io.Reader) (*message, error) {
	var header [16]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		return nil, err
	}
	size := int(binary.LittleEndian.Uint32(header[0:]))
	if size < len(header) || size > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes", size)
	}
	body := make([]byte, size-len(header))
	if _, err := io.ReadFull(in, body); err != nil {
		return nil, err
	}
	m := &message{id: int32(binary.LittleEndian.Uint32(header[4:])), opCode: int32(binary.LittleEndian.Uint32(header[12:]))}
	switch m.opCode {
	case opMsg:
		return m, m.read(body[4:])
	case opQuery: // the driver's first message
		for i := 4; i < len(body); i++ {
			if body[i] == 0 {
				m.command = bson.Raw(body[i+9:])
				return m, m.command.Validate()
			}
		}
	}
	return nil, fmt.Errorf("a message of the kind %d", m.opCode)
}

// read reads the sections of an OP_MSG.
func (m *message) read(sections []byte) error {
	for len(sections) > 0 {
		kind := sections[0]
		sections = sections[1:]
		if len(sections) < 4 {
			return errors.New("a section that is cut off")
		}
		size := int(binary.LittleEndian.Uint32(sections))
		if size < 5 || size > len(sections) {
			return errors.New("a section that is cut off")
		}
		section := sections[:size]
		sections = sections[size:]
		switch kind {
		case 0:
			m.command = bson.Raw(section)
		case 1:
			section = section[4:]
			for i, b := range section {
				if b == 0 {
					m.field, section = string(section[:i]), section[i+1:]
					break
				}
			}
			for len(section) >= 4 {
				size := int(binary.LittleEndian.Uint32(section))
				if size < 5 || size > len(section) {
					return errors.New("a document that is cut off")
				}
				m.documents = append(m.documents, bson.Raw(section[:size]))
				section = section[size:]
			}
		default:
			return fmt.Errorf("a section of the kind %d", kind)
		}
	}
	if m.command == nil {
		return errors.New("a message without a command")
	}
	return nil
}

// reply returns the message that answers.
func (m *message) reply(document bson.Raw) []byte {
	var rest []byte
	code := uint32(opMsg)
	if m.opCode == opQuery {
		code = opReply
		rest = make([]byte, 20)
		rest[16] = 1 // one document
	} else {
		rest = make([]byte, 5)
	}
	reply := make([]byte, 16, 16+len(rest)+len(document))
	binary.LittleEndian.PutUint32(reply[0:], uint32(cap(reply)))
	binary.LittleEndian.PutUint32(reply[8:], uint32(m.id))
	binary.LittleEndian.PutUint32(reply[12:], code)
	return append(append(reply, rest...), document...)
}

// spin uses processor time until the work that began then has taken so long.
func spin(begun time.Time, d time.Duration) {
	for end := begun.Add(d); time.Now().Before(end); {
	}
}

// commitLog is the server's log on disk. Commands that wait for it at the same time share one write to the disk.
type commitLog struct {
	file *os.File

	mu      sync.Mutex
	written []byte
	waiting []chan error
	syncing bool
	running sync.WaitGroup // calls of sync
}

func openLog(dir string) (*commitLog, error) {
	file, err := os.CreateTemp(dir, "log-*")
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	return &commitLog{file: file}, nil
}

// commit returns when the entry is on disk.
func (l *commitLog) commit(entry []byte) error {
	done := make(chan error, 1)
	l.mu.Lock()
	l.written = append(l.written, entry...)
	l.waiting = append(l.waiting, done)
	if !l.syncing {
		l.syncing = true
		l.running.Go(l.sync)
	}
	l.mu.Unlock()
	return <-done
}

// sync writes entries to the disk until no command waits for one.
func (l *commitLog) sync() {
	for {
		l.mu.Lock()
		entries, waiting := l.written, l.waiting
		l.written, l.waiting = nil, nil
		if len(waiting) == 0 {
			l.syncing = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		_, err := l.file.WriteAt(entries, 0) // the same place again: it is only for its cost
		if err == nil {
			err = l.file.Sync()
		}
		for _, done := range waiting {
			done <- err
		}
	}
}

func (l *commitLog) close() error {
	l.running.Wait()
	return errors.Join(l.file.Close(), os.Remove(l.file.Name()))
}
