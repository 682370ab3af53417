//go:build unix && !linux

package process

import "syscall"

// attributes ignores the death signal, which is Linux's alone: elsewhere a child outlives a parent that is killed.
func attributes(opts Options) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: opts.OwnGroup}
}
