//go:build unix

package telemetry

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// writable waits until a write of outputChunk bytes does not block, or fails at once. It returns false when the time is over.
func writable(file *os.File, wait time.Duration) bool {
	for deadline := time.Now().Add(wait); ; {
		fds := []unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLOUT}} //nolint:gosec // file descriptors are small
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n > 0 || err != nil // where it cannot be told, the write tells
		}
	}
}
