// Package jobs has the job types of the example. Its three programs have the same ones.
package jobs

import (
	"cmp"
	"errors"
	"os"

	"github.com/codex-api/codex-jobs/pkg/job"

	"example.com/directory/directory"
)

// Types returns the job types. DIRECTORY_URL says where the directory is; by default it is at http://127.0.0.1:4100. Only workers
// call it.
func Types() []job.Type {
	client := directory.New(cmp.Or(os.Getenv("DIRECTORY_URL"), "http://127.0.0.1:4100"))
	return []job.Type{
		job.NewSync(UserSync(client)),
		job.New(WelcomeMail(client)),
	}
}

// wait makes an error of the directory one that the run waits for, if it passes: that costs no attempt.
func wait(err error) error {
	if away := new(directory.Unavailable); errors.As(err, &away) {
		return job.Wait(err, away.After)
	}
	return err
}
