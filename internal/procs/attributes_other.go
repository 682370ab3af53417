//go:build unix && !linux

package procs

import "syscall"

// attributes knows no signal for the parent's death, which is Linux's alone: elsewhere a process outlives a parent that is
// killed.
func attributes(foreground bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: !foreground}
}
