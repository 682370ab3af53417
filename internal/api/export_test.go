package api

// Routes lists the router's routes, as "GET /health".
func (s *Server) Routes() []string {
	var list []string
	for _, r := range s.router.Routes() {
		list = append(list, r.Method+" "+r.Path)
	}
	return list
}

// AllowWrongKeys lets each client send wrong keys at once.
func (s *Server) AllowWrongKeys(n int) { s.wrongKeys.atOnce = n }

// SumUpLog does what the end of a minute does.
func (s *Server) SumUpLog() { s.refusals.end() }

// LinesAtOnce and LoggedLength are the limits of the log.
const (
	LinesAtOnce  = linesAtOnce
	LoggedLength = loggedLength
)
