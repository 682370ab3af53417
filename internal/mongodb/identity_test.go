package mongodb

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/syncrun"
)

func identity(t *testing.T, i *Identity) string {
	t.Helper()
	text, err := i.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// All who use a database find the same identity, also those that look at the same time. Another one has another.
func TestIdentity(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db := b.users.Database()
	found := make([]string, 8)
	var looking sync.WaitGroup
	for i := range found {
		looking.Go(func() {
			var err error
			if found[i], err = NewIdentity(db, b.uri).Get(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	looking.Wait()
	for _, text := range found {
		if text != found[0] || !strings.HasPrefix(text, db.Name()+" ") {
			t.Errorf("%q and %q", text, found[0])
		}
	}
	other := setup(t)
	if text := identity(t, NewIdentity(other.users.Database(), b.uri)); text == found[0] {
		t.Errorf("another database is %q, too", text)
	}
	// A database that was dropped, such as a test system's, is the same one for those who knew it.
	knew := NewIdentity(db, b.uri)
	identity(t, knew)
	if err := db.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := identity(t, knew); text != found[0] {
		t.Errorf("after a drop it is %q, before %q", text, found[0])
	}
	if text := identity(t, NewIdentity(db, b.uri)); text != found[0] {
		t.Errorf("after a drop it is %q for others, before %q", text, found[0])
	}
}

// Where the user may not write, or not even read, the document, hosts tell the databases apart.
func TestIdentityOfAReader(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{})
	db := b.users.Database()
	unauthorized := func(command string) {
		t.Helper()
		proxy.Inject(faultproxy.Fault{Command: command, Times: 1, Code: 13, Message: "not authorized"})
	}
	want := db.Name() + " at " + hostsOf(b.uri)
	unauthorized("insert")
	if text := identity(t, NewIdentity(db, b.uri)); text != want {
		t.Errorf("without writing it is %q, want %q", text, want)
	}
	unauthorized("find")
	if text := identity(t, NewIdentity(db, b.uri)); text != want {
		t.Errorf("without reading it is %q, want %q", text, want)
	}
	// One who may read finds the ID that another one wrote.
	byAnother := identity(t, NewIdentity(db, b.uri))
	unauthorized("insert")
	if text := identity(t, NewIdentity(db, b.uri)); text != byAnother {
		t.Errorf("it is %q, want %q", text, byAnother)
	}
	// A server that is away says nothing.
	proxy.Refuse()
	if text, err := NewIdentity(db, b.uri).Get(t.Context()); !errors.Is(err, syncrun.ErrUnavailable) {
		t.Errorf("%q, %v", text, err)
	}
	if n, err := db.Collection(identityCollection).CountDocuments(t.Context(), bson.D{}); err == nil {
		t.Errorf("the server was not away: %d", n)
	}
}

func TestHostsOf(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"mongodb://127.0.0.1:27017":                                   "127.0.0.1:27017",
		"mongodb://user:p%40ss@B:2,a:1/shop?replicaSet=rs0":           "a:1,b:2",
		"mongodb+srv://user:pass@cluster.example.com/?retryWrites=on": "cluster.example.com",
		"mongodb://h?tls=true":                                        "h",
	} {
		if got := hostsOf(uri); got != want {
			t.Errorf("%s: %q, want %q", uri, got, want)
		}
	}
}
