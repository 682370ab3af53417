// Package standin stands in for the company's directory, to try the example and to test it. It makes up what it says of a user,
// always the same for the same ID. It allows so many calls a second, can be away, and counts, so that a test can check what the
// workers did.
package standin

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/directory/directory"
)

// Options are the settings of a directory.
type Options struct {
	// Latency is how long each answer takes.
	Latency time.Duration
	// Limit is how many calls for users are allowed in any second. More get the status 429. 0 is no limit.
	Limit int
	// Unknown are the IDs of users whom the directory does not know.
	Unknown []string
	// Broken are the IDs of users of whom it says nonsense.
	Broken []string
	// Every is how often users change: some get another name, all another department. 0 is never.
	Every time.Duration
}

// window is the length of the windows in which calls are counted.
const window = time.Second

// Stats are what the directory has counted since its start. Calls are those for users.
type Stats struct {
	// Calls is how many calls came. Refused of them had the answer 429, and Away came while the directory was away.
	Calls   int `json:"calls"`
	Refused int `json:"refused"`
	Away    int `json:"away"`
	// Limit is how many calls a second are allowed, and Busiest the most that came within any one, whatever the answer was.
	Limit   int `json:"limit"`
	Busiest int `json:"busiest"`
	// Mails is how many mails were sent. Repeated is how many further requests had the key of a sent one.
	Mails    int `json:"mails"`
	Repeated int `json:"repeated"`
	// MailsAtOnce is the highest number of mails that were being sent at the same time, by the client that asked.
	MailsAtOnce map[string]int `json:"mailsAtOnce"`
}

// Server is the directory. It is an http.Handler.
type Server struct {
	options Options
	mux     *http.ServeMux
	started time.Time

	mu       sync.Mutex
	stats    Stats
	came     []time.Time // the calls of the last window
	allowed  []time.Time // those of them that were within the limit
	away     time.Time   // until when
	changes  int         // that were asked for
	sent     map[string]string
	mailing  map[string]int // mails that are being sent, by client
	lastMail int
}

// New returns a directory.
func New(o Options) *Server {
	s := &Server{
		options: o, mux: http.NewServeMux(), started: time.Now(), sent: make(map[string]string), mailing: make(map[string]int),
		stats: Stats{Limit: o.Limit, MailsAtOnce: make(map[string]int)},
	}
	s.mux.HandleFunc("GET /users", s.limited(s.users))
	s.mux.HandleFunc("GET /users/{id}", s.limited(s.user))
	s.mux.HandleFunc("POST /mails", s.mail)
	s.mux.HandleFunc("POST /away", s.goAway)
	s.mux.HandleFunc("POST /change", s.change)
	s.mux.HandleFunc("GET /stats", s.count)
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// limited counts the calls of a handler, and lets through those that are allowed.
func (s *Server) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		s.mu.Lock()
		s.stats.Calls++
		s.came = append(since(s.came, now), now)
		s.stats.Busiest = max(s.stats.Busiest, len(s.came))
		s.allowed = since(s.allowed, now)
		away, refused := now.Before(s.away), s.options.Limit > 0 && len(s.allowed) >= s.options.Limit
		var after time.Duration
		switch {
		case away:
			s.stats.Away++
		case refused:
			s.stats.Refused++
			after = s.allowed[0].Add(window).Sub(now)
		default:
			s.allowed = append(s.allowed, now)
		}
		s.mu.Unlock()
		switch {
		case away:
			http.Error(w, "away", http.StatusServiceUnavailable)
		case refused:
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
			http.Error(w, "too many calls", http.StatusTooManyRequests)
		case s.wait(r):
			next(w, r)
		}
	}
}

// since returns the times that are within the window that ends now.
func since(times []time.Time, now time.Time) []time.Time {
	return slices.DeleteFunc(times, func(t time.Time) bool { return now.Sub(t) >= window })
}

// wait takes the time that an answer takes. It returns false if the client does not wait for it.
func (s *Server) wait(r *http.Request) bool {
	timer := time.NewTimer(s.options.Latency)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// users answers with a page of users.
func (s *Server) users(w http.ResponseWriter, r *http.Request) {
	ids := strings.Split(r.URL.Query().Get("ids"), ",")
	if len(ids) > directory.PageSize {
		http.Error(w, fmt.Sprintf("a page has at most %d users", directory.PageSize), http.StatusBadRequest)
		return
	}
	page := make([]any, 0, len(ids))
	for _, id := range ids {
		switch {
		case id == "" || slices.Contains(s.options.Unknown, id):
		case slices.Contains(s.options.Broken, id):
			page = append(page, map[string]any{"id": id, "email": []int{4, 0, 4}})
		default:
			page = append(page, Made(id, s.revision()))
		}
	}
	answer(w, map[string]any{"users": page})
}

// user answers with one user.
func (s *Server) user(w http.ResponseWriter, r *http.Request) {
	switch id := r.PathValue("id"); {
	case slices.Contains(s.options.Unknown, id):
		http.Error(w, "no such user", http.StatusNotFound)
	case slices.Contains(s.options.Broken, id):
		http.Error(w, "cannot read this user", http.StatusInternalServerError)
	default:
		answer(w, Made(id, s.revision()))
	}
}

// revision counts how often the users have changed.
func (s *Server) revision() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.options.Every == 0 {
		return s.changes
	}
	return s.changes + int(time.Since(s.started)/s.options.Every)
}

var (
	firstNames  = []string{"Ada", "Alan", "Barbara", "Edsger", "Frances", "Grace", "Ken", "Margaret", "Niklaus", "Tony"}
	lastNames   = []string{"Allen", "Dijkstra", "Hamilton", "Hoare", "Hopper", "Liskov", "Lovelace", "Thompson", "Turing", "Wirth"}
	departments = []string{"Engineering", "Finance", "Legal", "Marketing", "Research", "Sales", "Support"}
)

// Made returns what the directory says of a user, after so many changes.
func Made(id string, revision int) directory.User {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(id))
	n := int(hash.Sum32() >> 1)
	last := n / len(firstNames)
	if n%8 == 0 {
		last += revision
	}
	u := directory.User{
		ID: id, DisplayName: firstNames[n%len(firstNames)] + " " + lastNames[last%len(lastNames)],
		Department: departments[(n+revision)%len(departments)],
	}
	u.Email = strings.ToLower(strings.ReplaceAll(u.DisplayName, " ", ".")) + "." + id + "@example.com"
	return u
}

// mail sends a mail: it counts it.
func (s *Server) mail(w http.ResponseWriter, r *http.Request) {
	key, client := r.Header.Get("Idempotency-Key"), r.UserAgent()
	var mail directory.Mail
	if err := json.NewDecoder(r.Body).Decode(&mail); err != nil || key == "" || mail.To == "" {
		http.Error(w, "a mail needs an Idempotency-Key, and someone to go to", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	away := time.Now().Before(s.away)
	s.mailing[client]++
	s.stats.MailsAtOnce[client] = max(s.stats.MailsAtOnce[client], s.mailing[client])
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mailing[client]--
	}()
	if away {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	if !s.wait(r) {
		return
	}
	s.mu.Lock()
	id, repeated := s.sent[key]
	if repeated {
		s.stats.Repeated++
	} else {
		s.lastMail++
		id = "mail-" + strconv.Itoa(s.lastMail)
		s.sent[key] = id
		s.stats.Mails++
	}
	s.mu.Unlock()
	answer(w, map[string]string{"id": id})
}

// goAway answers every call with the status 503 for a while.
func (s *Server) goAway(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil {
		http.Error(w, "for must be a duration, such as 20s", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.away = time.Now().Add(d)
	s.mu.Unlock()
	answer(w, map[string]string{"awayFor": d.String()})
}

// change changes the users.
func (s *Server) change(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	s.changes++
	s.mu.Unlock()
	answer(w, map[string]int{"revision": s.revision()})
}

// count answers with the Stats.
func (s *Server) count(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	data, err := json.Marshal(s.stats)
	s.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, json.RawMessage(data))
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
