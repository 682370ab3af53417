package api

// Routes lists the router's routes, as "GET /health".
func (s *Server) Routes() []string {
	var list []string
	for _, r := range s.router.Routes() {
		list = append(list, r.Method+" "+r.Path)
	}
	return list
}
