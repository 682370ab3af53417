package process

import "syscall"

func attributes(opts Options) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: opts.OwnGroup, Pdeathsig: opts.DeathSignal}
}
