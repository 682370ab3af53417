// What Redis says when it answers, and refuses: an old master, a full memory, a wrong password.

package redisconn

import "regexp"

// refusals are the codes of replies that do not depend on the command's arguments: Redis does not serve this client now, or
// no write. A proxy or a script may put something before them.
var refusals = regexp.MustCompile(`(?:^|[ :-])((?:READONLY|NOREPLICAS|OOM|NOAUTH|WRONGPASS|NOPERM|MISCONF|MASTERDOWN|CLUSTERDOWN|LOADING) [^\n]*)`)

// maxRefusal is how much of a reply is worth showing, in bytes.
const maxRefusal = 200

// Refusal returns what Redis said if the error is, or tells of, a reply by which Redis refuses to serve. asynq passes errors on
// as text only.
func Refusal(err error) (reply string, refused bool) {
	if err == nil {
		return "", false
	}
	found := refusals.FindStringSubmatch(err.Error())
	if found == nil {
		return "", false
	}
	reply = found[1]
	if len(reply) > maxRefusal {
		reply = reply[:maxRefusal] + "..."
	}
	return reply, true
}
