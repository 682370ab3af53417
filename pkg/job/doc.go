// Package job is where a team describes its own background work. A job type is either a Sync, which brings the records of a MongoDB
// collection up to date batch by batch, or a Job of any other kind: a typed function from a payload to a result.
//
// New and NewSync make a Type of it. The three programs take all Types of a system: see the packages below pkg/program. Everything
// else follows from the Type: the route that triggers it, the check of what a client sends, its schedule and its settings, its
// part of the OpenAPI document, metrics, retention and the dashboard.
//
//	var types = []job.Type{job.NewSync(users), job.New(mail)}
//
//	func main() { worker.Main(types...) }
//
// Package jobtest runs a Sync or a Job in a test, without Redis and MongoDB.
package job
