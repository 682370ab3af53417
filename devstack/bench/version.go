// Other versions of the product, built from the repository's history, to be measured beside this one.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// version is another version of the product. The zero value is none.
type version struct {
	name string // as the caller has called it
	dir  string // its checkout
	repo string
}

// checkOut builds the programs of a revision in a directory of their own. The caller removes the version.
func checkOut(ctx context.Context, repo, revision string) (_ version, err error) {
	dir, err := os.MkdirTemp("", "codex-jobs-bench-")
	if err != nil {
		return version{}, fmt.Errorf("checking out %s: %w", revision, err)
	}
	v := version{name: revision, dir: dir, repo: repo}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.remove())
		}
	}()
	for _, command := range [][]string{
		{"git", "-C", repo, "worktree", "add", "--quiet", "--detach", dir, revision},
		{"make", "-C", dir, "build"},
	} {
		if err := quietly(ctx, command...); err != nil {
			return version{}, fmt.Errorf("building %s, which needs the repository's history: %w", revision, err)
		}
	}
	return v, nil
}

func (v version) worker() spec {
	s := newWorker(nil)
	s.bin = filepath.Join(v.dir, "bin")
	return s
}

// remove removes what was checked out.
func (v version) remove() error {
	if v.dir == "" {
		return nil
	}
	if err := os.RemoveAll(v.dir); err != nil {
		return fmt.Errorf("removing %s: %w", v.name, err)
	}
	return quietly(context.Background(), "git", "-C", v.repo, "worktree", "prune")
}

// quietly runs a command, and returns what it printed as the error if it fails.
func quietly(ctx context.Context, command ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}
