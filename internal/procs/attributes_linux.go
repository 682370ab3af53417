package procs

import "syscall"

func attributes(foreground bool) *syscall.SysProcAttr {
	if foreground {
		return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	}
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
