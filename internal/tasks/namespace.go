// Several deployments can share one Redis. asynq has no prefix for that, so the names of the queues have one.

package tasks

import "regexp"

// Namespace keeps the queues and keys of a deployment apart from those of others in the same Redis. "" is the namespace of a
// deployment that has its Redis to itself. Job types and job IDs have the same names in all namespaces.
type Namespace string

var namespacePattern = regexp.MustCompile(`^[a-z0-9-]{0,30}$`)

// Valid reports whether the namespace has at most 30 lower-case letters, digits and hyphens.
func (n Namespace) Valid() bool { return namespacePattern.MatchString(string(n)) }

// Queue returns the name of the queue for the runs of a job type: `<namespace>:<job type>`.
func (n Namespace) Queue(job string) string {
	if n == "" {
		return job
	}
	return string(n) + ":" + job
}
