package ferret

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	_ "modernc.org/sqlite" // it must be the SQLite that FerretDB uses: two of them would not see each other's locks
)

const (
	// indexPoll is how soon a new collection gets its index.
	indexPoll = 200 * time.Millisecond
	// indexTimeout bounds the work on one database.
	indexTimeout = 30 * time.Second
	// listTimeout bounds one listing of collections.
	listTimeout = 2 * time.Second
	// indexPrefix starts the name of every index of ours.
	indexPrefix = "devstack_id_"
	// sqliteSuffix ends the name of a database's file.
	sqliteSuffix = ".sqlite"
)

// collection is a collection as FerretDB knows it. One that is dropped and made anew has another uuid.
type collection struct {
	database, name, uuid string
}

// keepIndexed gives every collection an index that FerretDB's look-ups by _id can use, until ctx ends.
//
// FerretDB's own index is on another expression than its queries, so each query by _id reads the whole collection. FerretDB
// cannot make a better one, but SQLite uses any index that fits.
func (s *Server) keepIndexed(ctx context.Context) {
	indexed := map[collection]bool{}
	ticker := time.NewTicker(indexPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			indexed = s.indexNew(ctx, indexed)
		}
	}
}

// indexNew indexes the collections that are not in indexed, and returns all that there are now.
func (s *Server) indexNew(ctx context.Context, indexed map[collection]bool) map[collection]bool {
	present := map[collection]bool{}
	for _, database := range s.databases() {
		collections, err := s.collections(ctx, database)
		if err != nil {
			continue // FerretDB is ending, or so busy that the next round will do
		}
		var fresh []collection
		for _, c := range collections {
			present[c] = true
			if !indexed[c] {
				fresh = append(fresh, c)
			}
		}
		// Only then is the file opened: one that were dropped and made anew while it is open here would lose its
		// write-ahead log.
		if len(fresh) > 0 {
			s.index(ctx, database, fresh)
		}
	}
	return present
}

// index indexes collections of one database. It is silent about those that are dropped meanwhile.
func (s *Server) index(ctx context.Context, database string, collections []collection) {
	ctx, cancel := context.WithTimeout(ctx, indexTimeout)
	defer cancel()
	// mode=rw: a file that has been dropped must not be made again.
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.dir, database+sqliteSuffix)+
		"?mode=rw&_pragma=busy_timeout(10000)&_pragma=synchronous(off)")
	if err != nil {
		s.log.Error("opening FerretDB's file failed", "database", database, "error", err)
		return
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, c := range collections {
		if err := createIDIndex(ctx, db, c.name); err != nil && s.exists(ctx, c) {
			s.log.Warn("indexing _id failed: look-ups will be slow", "database", database, "collection", c.name, "error", err)
		}
	}
}

// createIDIndex makes the index of one collection.
func createIDIndex(ctx context.Context, db *sql.DB, name string) error {
	var table string
	err := db.QueryRowContext(ctx, `SELECT table_name FROM _ferretdb_collections WHERE name = ?`, name).Scan(&table)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf(`CREATE INDEX IF NOT EXISTS %s ON %s (_ferretdb_sjson->'$._id')`,
		quoteIdentifier(indexPrefix+table), quoteIdentifier(table)))
	return err
}

func quoteIdentifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// databases returns the names of the databases. It looks for files because FerretDB counts every document there is
// when it is asked.
func (s *Server) databases() []string {
	files, _ := os.ReadDir(s.dir) // what cannot be read now is read in the next round
	var names []string
	for _, file := range files {
		if name, found := strings.CutSuffix(file.Name(), sqliteSuffix); found {
			names = append(names, name)
		}
	}
	return names
}

// collections returns the collections of a database, none if there is no such database. FerretDB answers that from
// memory.
func (s *Server) collections(ctx context.Context, database string) ([]collection, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	specs, err := s.client.Database(database).ListCollectionSpecifications(ctx, bson.D{})
	if err != nil {
		return nil, err
	}
	collections := make([]collection, len(specs))
	for i, spec := range specs {
		if spec.UUID == nil {
			return nil, errors.New("FerretDB named a collection without its uuid")
		}
		collections[i] = collection{database, spec.Name, string(spec.UUID.Data)}
	}
	return collections, nil
}

// exists reports whether the collection c, with its uuid, is still there.
func (s *Server) exists(ctx context.Context, c collection) bool {
	collections, err := s.collections(ctx, c.database)
	return err == nil && slices.Contains(collections, c)
}
