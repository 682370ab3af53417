package mongodb

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// Each command has no more updates and no more bytes than it may have. An update that no command can have fails by itself.
func TestCommandsAreBounded(t *testing.T) {
	t.Parallel()
	writes, err := encodeWriteConcern(writeconcern.Majority())
	if err != nil {
		t.Fatal(err)
	}
	const mib = 1 << 20
	for name, c := range map[string]struct {
		sizes  []int   // of what is set in each record, in bytes; 0 for a stamp alone
		sent   [][]int // the records in each command
		failed []int
	}{
		"by their number":       {sizes: []int{0, 0, 0, 0, 0, 0, 0}, sent: [][]int{{0, 1, 2}, {3, 4, 5}, {6}}},
		"by their bytes":        {sizes: []int{5 * mib, 5 * mib, 5 * mib, 0}, sent: [][]int{{0, 1}, {2, 3}}},
		"a large one alone":     {sizes: []int{0, 15 * mib, 0}, sent: [][]int{{0}, {1}, {2}}},
		"one too large":         {sizes: []int{17 * mib, 0, 17 * mib}, sent: [][]int{{1}}, failed: []int{0, 2}},
		"all of them too large": {sizes: []int{17 * mib}, failed: []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &Store{Config: Config{Collection: "users", BulkSize: 3}.withDefaults(), writes: writes}
			stamps := s.newStamps(everything)
			var updates []syncrun.Update
			for i, size := range c.sizes {
				u := syncrun.Update{Record: syncrun.Record{Key: rawKey(t, int32(i)), State: false}}
				if size > 0 {
					u.Set = map[string]any{"text": strings.Repeat("x", size)}
				}
				updates = append(updates, u)
			}
			var sent [][]int
			var failed []int
			for len(updates) > 0 {
				command, err := s.newCommand(stamps, updates)
				if err != nil {
					t.Fatal(err)
				}
				if err := command.encoded.Validate(); err != nil || len(command.encoded) > maxUpdate {
					t.Errorf("a command of %d bytes: %v", len(command.encoded), err)
				}
				updates = updates[command.took:]
				for _, f := range command.failed {
					failed = append(failed, int(key(f.Record.Key).value().Int32()))
				}
				list, _ := command.encoded.Lookup("updates").Array().Values()
				var ids []int
				for i, u := range list {
					id := u.Document().Lookup("q", "_id")
					ids = append(ids, int(id.Int32()))
					if !key(command.sent[i].Key).value().Equal(id) {
						t.Errorf("update %d is of %s, and said to be of %s", i, id, key(command.sent[i].Key))
					}
				}
				if ids != nil {
					sent = append(sent, ids)
				}
			}
			if !reflect.DeepEqual(sent, c.sent) || !slices.Equal(failed, c.failed) {
				t.Errorf("sent %v, and %v failed; want %v and %v", sent, failed, c.sent, c.failed)
			}
		})
	}
}
