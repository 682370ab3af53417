// Package users makes up users for the demo, as untidy as in a database that several programs have written to for years:
// identifiers of four types, stamps that are missing, null, text, numbers or from a broken clock, missing fields and
// unexpected ones. With tidy users a sync would look too easy.
//
// The users are invented, and the same for the same seed.
package users

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The span in which users were created and synced. It is fixed, so that the users are the same on every day.
var (
	epoch  = time.Date(2022, time.March, 1, 0, 0, 0, 0, time.UTC)
	latest = time.Date(2026, time.February, 1, 0, 0, 0, 0, time.UTC)
)

var (
	adjectives = []string{"amber", "brisk", "copper", "dusky", "eager", "foggy", "gentle", "hollow", "icy", "jolly", "lunar", "mossy", "quiet", "rusty", "silver", "windy"}
	animals    = []string{"badger", "curlew", "dormouse", "egret", "ferret", "gecko", "heron", "ibex", "jackdaw", "kestrel", "lynx", "marmot", "newt", "otter", "puffin", "stoat"}
	roleNames  = []string{"author", "billing", "editor", "owner", "reviewer", "viewer"}
	themes     = []string{"dark", "light", "system"}
)

// oddNames are user names that programs tend to trip over. Each is used with a number in place of the verb.
var oddNames = []string{
	"d'arc-%d", "tab\there-%d", " leading space %d", "new\nline %d", "quote\"%d", "back\\slash%d", "price$%d", "a.b.c.%d",
	"<b>bold%d</b>", "naïve-%d", "Ελένη%d", "Дмитро%d", "山田%d", "שרה%d", "🦦otter%d", strings.Repeat("long", 75) + "%d",
}

// Generate returns n users. Their identifiers are unique.
func Generate(n int, seed uint64) []bson.D {
	g := generator{rand.New(rand.NewPCG(seed, 0))}
	users := make([]bson.D, n)
	for i := range users {
		users[i] = g.user(i)
	}
	return users
}

// generator draws what users are made of.
type generator struct{ *rand.Rand }

// chance is true in about percent of a hundred cases.
func (g generator) chance(percent float64) bool { return g.Float64()*100 < percent }

// between returns an instant from start on and before end, in whole seconds.
func (g generator) between(start, end time.Time) time.Time {
	return start.Add(time.Duration(g.Int64N(int64(end.Sub(start)/time.Second))) * time.Second)
}

func (g generator) pick(from []string) string { return from[g.IntN(len(from))] }

// user returns the i-th user.
func (g generator) user(i int) bson.D {
	created := g.between(epoch, latest.AddDate(0, -1, 0))
	user := bson.D{{Key: "_id", Value: g.id(i, created)}}
	add := func(name string, value any) { user = append(user, bson.E{Key: name, Value: value}) }

	name := fmt.Sprintf("%s-%s-%d", g.pick(adjectives), g.pick(animals), i)
	if g.chance(3) {
		name = fmt.Sprintf(g.pick(oddNames), i)
	}
	switch {
	case g.chance(1): // no name at all
	case g.chance(0.5):
		add("username", nil)
	default:
		add("username", name)
	}
	switch {
	case g.chance(5):
	case g.chance(0.5):
		add("email", "")
	default:
		add("email", fmt.Sprintf("member-%d@codex.example", i))
	}
	if g.chance(50) {
		roles := bson.A{}
		for _, role := range g.Perm(len(roleNames))[:g.IntN(4)] {
			roles = append(roles, roleNames[role])
		}
		add("roles", roles)
	}
	if g.chance(11) {
		add("profile", g.profile(i))
	}
	if g.chance(4) {
		add(g.unexpected(i))
	}
	add("createdAt", created)
	if stamp, ok := g.lastSynced(created); ok {
		add("lastSynced", stamp)
	}
	switch {
	case g.chance(11):
	case g.chance(4): // a clock that was ahead
		add("updatedAt", latest.AddDate(4+g.IntN(4), g.IntN(12), 0))
	default:
		add("updatedAt", g.between(created, latest))
	}
	return user
}

// id returns an identifier: mostly an ObjectID, else what imports left behind.
func (g generator) id(i int, created time.Time) any {
	switch {
	case g.chance(5.5):
		return fmt.Sprintf("import:%05d", i)
	case g.chance(3):
		return int32(500_000 + i)
	case g.chance(0.8):
		return int64(7_000_000_000_000 + i)
	}
	var id bson.ObjectID
	binary.BigEndian.PutUint32(id[:], uint32(created.Unix()))
	binary.BigEndian.PutUint32(id[4:], g.Uint32())
	binary.BigEndian.PutUint32(id[8:], uint32(i)) // this makes it unique
	return id
}

// lastSynced returns the stamp, or false if the user has none.
func (g generator) lastSynced(created time.Time) (any, bool) {
	switch {
	case g.chance(31):
		return nil, false
	case g.chance(8):
		return nil, true
	case g.chance(4):
		return g.between(created, latest).Format(time.RFC3339), true
	case g.chance(4):
		return g.pick([]string{"", "never", "yesterday", "0000-00-00 00:00:00"}), true
	case g.chance(4):
		return g.between(created, latest).UnixMilli(), true
	case g.chance(1):
		return int32(0), true
	case g.chance(1):
		return float64(g.between(created, latest).UnixMilli()) / 1000, true
	case g.chance(1):
		return g.chance(50), true
	case g.chance(2): // a clock that was never set
		return time.Unix(int64(g.IntN(1000)), 0).UTC(), true
	case g.chance(2): // a clock that was decades ahead
		return latest.AddDate(30+g.IntN(40), 0, g.IntN(365)), true
	}
	return g.between(latest.AddDate(0, -1, 0), latest), true
}

// profile returns a document of a few kilobytes.
func (g generator) profile(i int) bson.D {
	links := bson.A{}
	for j := range g.IntN(12) {
		links = append(links, bson.D{
			{Key: "label", Value: g.pick(animals)},
			{Key: "href", Value: fmt.Sprintf("https://codex.example/members/%d/links/%d", i, j)},
		})
	}
	about := make([]string, 50+g.IntN(600))
	for j := range about {
		about[j] = g.pick(adjectives)
	}
	return bson.D{
		{Key: "bio", Value: strings.Join(about, " ")},
		{Key: "settings", Value: bson.D{
			{Key: "theme", Value: g.pick(themes)},
			{Key: "notify", Value: bson.D{{Key: "email", Value: g.chance(50)}, {Key: "hours", Value: bson.A{int32(9), 17.5}}}},
		}},
		{Key: "links", Value: links},
	}
}

// unexpected returns a field that no program reads any more.
func (g generator) unexpected(i int) (string, any) {
	switch g.IntN(5) {
	case 0:
		return "__v", int32(g.IntN(9))
	case 1:
		return "legacy_flags", bson.D{{Key: "beta", Value: g.chance(50)}, {Key: "cohort", Value: nil}}
	case 2:
		return "last_synced", "see lastSynced"
	case 3:
		return "avatar", bson.Binary{Data: []byte{0x89, 'P', 'N', 'G', byte(i)}}
	default:
		return "score", g.NormFloat64() * 100
	}
}
