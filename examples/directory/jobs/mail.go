// The mail to a new user.

package jobs

import (
	"context"
	"fmt"
	"strings"

	"github.com/codex-api/codex-jobs/pkg/job"

	"example.com/directory/directory"
)

// Welcome says whom to welcome.
type Welcome struct {
	Email    string `json:"email" allowed:"an email address" required:"true"`
	Name     string `json:"name" allowed:"the name to greet; by default the email address"`
	Language string `json:"language" options:"en,de"`
}

// greetings are the texts, by language.
var greetings = map[string]struct{ subject, text string }{
	"en": {"Welcome", "Hello %s, your account is ready."},
	"de": {"Willkommen", "Hallo %s, dein Konto ist bereit."},
}

// Validate sets the defaults.
func (w *Welcome) Validate() error {
	if w.Language == "" {
		w.Language = "en"
	}
	if w.Name == "" {
		w.Name = w.Email
	}
	if strings.Count(w.Email, "@") != 1 {
		return fmt.Errorf("email was %q; it must be an email address", w.Email)
	}
	return nil
}

// Sent is the result of a run.
type Sent struct {
	// MailID is the mail's ID in the directory.
	MailID string `json:"mailId"`
}

// Mailer sends mails. *directory.Client is one.
type Mailer interface {
	Send(ctx context.Context, key string, mail directory.Mail) (id string, err error)
}

// WelcomeMail sends a mail to a new user, at most ten at a time on each worker.
func WelcomeMail(to Mailer) job.Job[Welcome, Sent] {
	return job.Job[Welcome, Sent]{
		Name: "welcome-mail", PerWorker: 10,
		Do: func(ctx context.Context, run *job.Run[Welcome]) (Sent, error) {
			greeting := greetings[run.Payload.Language]
			// After a crash the run is done again. The key keeps its user from getting two mails.
			id, err := to.Send(ctx, run.RunID, directory.Mail{
				To: run.Payload.Email, Subject: greeting.subject, Text: fmt.Sprintf(greeting.text, run.Payload.Name),
			})
			if err != nil {
				return Sent{}, wait(err)
			}
			run.Log.Info("Mail sent", "mailId", id)
			return Sent{MailID: id}, nil
		},
		Options: job.Options{KeepCompleted: 100},
	}
}
