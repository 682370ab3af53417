//go:build unix && !linux

package procs

import "syscall"

// attributes sets no signal for the parent's death, which only Linux has. Elsewhere a process outlives a parent that is
// killed.
func attributes(foreground bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: !foreground}
}
