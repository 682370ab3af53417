package standin_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/directory/standin"
)

// ask returns the answer to a request.
func ask(s *standin.Server, method, target, body string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, target, strings.NewReader(body))
	request.Header.Set("Idempotency-Key", body)
	request.Header.Set("User-Agent", "test")
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, request)
	return answer
}

func stats(t *testing.T, s *standin.Server) (stats standin.Stats) {
	t.Helper()
	if err := json.Unmarshal(ask(s, http.MethodGet, "/stats", "").Body.Bytes(), &stats); err != nil {
		t.Fatal(err)
	}
	return stats
}

// It counts every call, and lets through no more than the limit.
func TestLimit(t *testing.T) {
	t.Parallel()
	s := standin.New(standin.Options{Limit: 2})
	for i := range 4 {
		answer := ask(s, http.MethodGet, "/users?ids=u1,u2", "")
		if i < 2 && answer.Code != http.StatusOK {
			t.Errorf("call %d: %d", i, answer.Code)
		}
		if i >= 2 && (answer.Code != http.StatusTooManyRequests || answer.Header().Get("Retry-After") != "1") {
			t.Errorf("call %d: %d, retry after %q", i, answer.Code, answer.Header().Get("Retry-After"))
		}
	}
	if got := stats(t, s); got.Calls != 4 || got.Refused != 2 || got.Busiest != 4 {
		t.Errorf("%+v", got)
	}
}

func TestAway(t *testing.T) {
	t.Parallel()
	s := standin.New(standin.Options{})
	if code := ask(s, http.MethodPost, "/away?for=1h", "").Code; code != http.StatusOK {
		t.Fatal(code)
	}
	if code := ask(s, http.MethodGet, "/users/u1", "").Code; code != http.StatusServiceUnavailable {
		t.Errorf("it is away, and answers %d", code)
	}
	ask(s, http.MethodPost, "/away?for=0s", "")
	if code := ask(s, http.MethodGet, "/users/u1", "").Code; code != http.StatusOK {
		t.Errorf("it is back, and answers %d", code)
	}
}

func TestUser(t *testing.T) {
	t.Parallel()
	s := standin.New(standin.Options{Unknown: []string{"gone"}, Broken: []string{"odd"}})
	for id, want := range map[string]int{"u1": http.StatusOK, "gone": http.StatusNotFound, "odd": http.StatusInternalServerError} {
		if code := ask(s, http.MethodGet, "/users/"+id, "").Code; code != want {
			t.Errorf("%s: %d, want %d", id, code, want)
		}
	}
	before := ask(s, http.MethodGet, "/users/u1", "").Body.String()
	if again := ask(s, http.MethodGet, "/users/u1", "").Body.String(); again != before {
		t.Errorf("%s, and then %s", before, again)
	}
	ask(s, http.MethodPost, "/change", "")
	if after := ask(s, http.MethodGet, "/users/u1", "").Body.String(); after == before {
		t.Errorf("%s has not changed", after)
	}
}

func TestUsersChange(t *testing.T) {
	t.Parallel()
	s := standin.New(standin.Options{Every: time.Nanosecond})
	first := ask(s, http.MethodGet, "/users/u1", "").Body.String()
	for range 100 { // seven departments take turns, so now and then it is the first one again
		if ask(s, http.MethodGet, "/users/u1", "").Body.String() != first {
			return
		}
	}
	t.Errorf("%s does not change", first)
}

// A mail is sent once for a key.
func TestMail(t *testing.T) {
	t.Parallel()
	s := standin.New(standin.Options{})
	first := ask(s, http.MethodPost, "/mails", `{"to":"a@example.com"}`)
	again := ask(s, http.MethodPost, "/mails", `{"to":"a@example.com"}`)
	other := ask(s, http.MethodPost, "/mails", `{"to":"b@example.com"}`)
	if first.Code != http.StatusOK || first.Body.String() != again.Body.String() || first.Body.String() == other.Body.String() {
		t.Errorf("%s, %s and %s", first.Body, again.Body, other.Body)
	}
	if code := ask(s, http.MethodPost, "/mails", `{}`).Code; code != http.StatusBadRequest {
		t.Errorf("a mail without an address: %d", code)
	}
	if got := stats(t, s); got.Mails != 2 || got.Repeated != 1 || got.MailsAtOnce["test"] != 1 {
		t.Errorf("%+v", got)
	}
}
