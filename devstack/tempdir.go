package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	tempDirPattern = "codex-devstack-*"
	tempDirLock    = "lock"
	// abandonedAfter keeps a directory safe in the moment between its creation and its lock.
	abandonedAfter = time.Minute
)

// tempDir is where the servers keep their files. A lock on a file in it tells directories in use from those of a
// devstack that was killed and could not remove its own.
type tempDir struct {
	path string
	lock *os.File
}

func newTempDir() (*tempDir, error) {
	path, err := os.MkdirTemp("", tempDirPattern)
	if err != nil {
		return nil, fmt.Errorf("making a temporary directory: %w", err)
	}
	d := &tempDir{path: path}
	if d.lock, err = lockFile(filepath.Join(path, tempDirLock), os.O_CREATE); err != nil {
		d.remove()
		return nil, fmt.Errorf("locking the temporary directory: %w", err)
	}
	return d, nil
}

func (d *tempDir) remove() {
	_ = os.RemoveAll(d.path) // what cannot be removed now, a later devstack removes
	if d.lock != nil {
		_ = d.lock.Close()
	}
}

// removeAbandoned removes what killed devstacks have left behind. It is a courtesy: what fails is left to the next.
func removeAbandoned() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), tempDirPattern))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		lockPath := filepath.Join(dir, tempDirLock)
		info, err := os.Stat(lockPath)
		if err != nil || time.Since(info.ModTime()) < abandonedAfter {
			continue
		}
		lock, err := lockFile(lockPath, 0)
		if err != nil {
			continue // in use
		}
		_ = os.RemoveAll(dir)
		_ = lock.Close()
	}
}

// lockFile opens the file and takes its lock, which the kernel releases when the process ends.
func lockFile(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
