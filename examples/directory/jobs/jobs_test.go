package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/pkg/jobtest"

	"example.com/directory/directory"
	"example.com/directory/jobs"
	"example.com/directory/standin"
)

// The programs start with the job types.
func TestTypes(t *testing.T) {
	t.Parallel()
	for _, of := range jobs.Types() {
		if err := of.Err(); err != nil {
			t.Error(err)
		}
	}
}

// fake is a directory that needs no server. It sends mails, too.
type fake struct {
	entries map[string]directory.Entry
	err     error
	keys    []string
	mails   []directory.Mail
}

func (f *fake) Users(context.Context, []string) (map[string]directory.Entry, error) {
	return f.entries, f.err
}

func (f *fake) Send(_ context.Context, key string, mail directory.Mail) (string, error) {
	f.keys, f.mails = append(f.keys, key), append(f.mails, mail)
	return fmt.Sprint("mail-", len(f.mails)), f.err
}

var ada = directory.User{ID: "ada", Email: "ada@example.com", DisplayName: "Ada Lovelace", Department: "Research"}

// stored is a user as the collection has it after a sync.
func stored(u directory.User) bson.M {
	return bson.M{"_id": u.ID, "email": u.Email, "displayName": u.DisplayName, "department": u.Department, "team": "blue"}
}

func TestUserSync(t *testing.T) {
	t.Parallel()
	moved, back := stored(ada), stored(ada)
	moved["department"] = "Sales"
	back["gone"] = true
	nonsense := errors.New("nonsense")
	for _, tt := range []struct {
		name      string
		directory map[string]directory.Entry
		record    bson.M
		want      jobtest.Written
	}{
		{"new", map[string]directory.Entry{"ada": {User: ada}}, bson.M{"_id": "ada"}, jobtest.Written{
			Set: map[string]any{"email": ada.Email, "displayName": ada.DisplayName, "department": ada.Department},
		}},
		{"as it was", map[string]directory.Entry{"ada": {User: ada}}, stored(ada), jobtest.Written{Set: map[string]any{}}},
		{"changed", map[string]directory.Entry{"ada": {User: ada}}, moved, jobtest.Written{
			Set: map[string]any{"department": ada.Department},
		}},
		{"gone", nil, stored(ada), jobtest.Written{
			Set: map[string]any{"gone": true}, Unset: []string{"email", "displayName", "department"},
		}},
		{"back", map[string]directory.Entry{"ada": {User: ada}}, back, jobtest.Written{Set: map[string]any{}, Unset: []string{"gone"}}},
		{"nonsense", map[string]directory.Entry{"ada": {Err: nonsense}}, stored(ada), jobtest.Written{Err: nonsense}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			written, err := jobtest.Update(t.Context(), jobs.UserSync(&fake{entries: tt.directory}), jobtest.With{}, tt.record)
			tt.want.ID = "ada"
			if err != nil || len(written) != 1 || !reflect.DeepEqual(written[0], tt.want) {
				t.Errorf("%+v, %v, want %+v", written, err, tt.want)
			}
		})
	}
}

// The sync and the client together, with users of all kinds.
func TestUserSyncWithTheDirectory(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(standin.New(standin.Options{Unknown: []string{"u7"}, Broken: []string{"u9"}}))
	t.Cleanup(server.Close)
	var records []any
	for i := range 250 {
		records = append(records, bson.M{"_id": fmt.Sprint("u", i)})
	}
	written, err := jobtest.Update(t.Context(), jobs.UserSync(directory.New(server.URL)), jobtest.With{}, records...)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range written {
		made := standin.Made(w.ID, 0)
		switch {
		case w.ID == "u7":
			if w.Set["gone"] != true {
				t.Errorf("%+v", w)
			}
		case w.ID == "u9":
			if w.Err == nil {
				t.Errorf("%+v", w)
			}
		case w.Err != nil || w.Set["email"] != made.Email || w.Set["displayName"] != made.DisplayName ||
			w.Set["department"] != made.Department:
			t.Errorf("%+v, want %+v", w, made)
		}
	}
}

// What passes is waited for. What does not is a failed attempt.
func TestWaits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		err   error
		waits bool
		after time.Duration
	}{
		{"too many calls", &directory.Unavailable{Err: errors.New("429"), After: 3 * time.Second}, true, 3 * time.Second},
		{"away", fmt.Errorf("asking: %w", &directory.Unavailable{Err: errors.New("503")}), true, 0},
		{"no right", errors.New("403"), false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, ctx := &fake{err: tt.err}, t.Context()
			_, updating := jobtest.Update(ctx, jobs.UserSync(f), jobtest.With{}, bson.M{"_id": "ada"})
			_, mailing := jobtest.Do(ctx, jobs.WelcomeMail(f), jobs.Welcome{Email: ada.Email}, jobtest.With{})
			for _, err := range []error{updating, mailing} {
				after, waits := jobtest.Waits(err)
				if !errors.Is(err, tt.err) || waits != tt.waits || after != tt.after {
					t.Errorf("error %v waits: %v, for %s; want %v, for %s", err, waits, after, tt.waits, tt.after)
				}
			}
		})
	}
}

func TestWelcomeMail(t *testing.T) {
	t.Parallel()
	to := new(fake)
	mail := jobs.WelcomeMail(to)
	done, err := jobtest.Do(t.Context(), mail, jobs.Welcome{Email: "ada@example.com", Name: "Ada"}, jobtest.With{})
	if err != nil || done.Result.MailID != "mail-1" {
		t.Fatalf("%+v, %v", done, err)
	}
	want := directory.Mail{To: "ada@example.com", Subject: "Welcome", Text: "Hello Ada, your account is ready."}
	if to.mails[0] != want {
		t.Errorf("sent %+v, want %+v", to.mails[0], want)
	}
	// After a crash the run has the same ID, and so the mail the same key.
	if !strings.Contains(to.keys[0], ":welcome-mail:") {
		t.Errorf("the key is %q, want the run's ID", to.keys[0])
	}
	german := jobs.Welcome{Email: "bob@example.com", Language: "de"}
	if _, err := jobtest.Do(t.Context(), mail, german, jobtest.With{}); err != nil || to.mails[1].Subject != "Willkommen" {
		t.Errorf("%+v, %v", to.mails[1:], err)
	}
	for _, payload := range []jobs.Welcome{{}, {Email: "ada"}, {Email: "ada@example.com", Language: "nl"}} {
		if _, err := jobtest.Do(t.Context(), mail, payload, jobtest.With{}); err == nil || !strings.Contains(err.Error(), "must be") {
			t.Errorf("%+v: error %v", payload, err)
		}
	}
}
