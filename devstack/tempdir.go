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
	// abandonedAfter protects a directory in the moment between its creation and its lock.
	abandonedAfter = time.Minute
)

// tempDir is the directory of the servers' files. A lock on a file in it shows that the directory is in use: a devstack that
// was killed could not remove its own.
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
	_ = os.RemoveAll(d.path) // a later devstack removes the rest
	if d.lock != nil {
		_ = d.lock.Close()
	}
}

// removeAbandoned removes the directories of killed devstacks. When it fails the next devstack tries again.
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
