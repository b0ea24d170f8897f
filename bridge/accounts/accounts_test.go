package accounts

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pressly/goose/v3"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB) (*Accounts, *sql.DB) {
	t.Helper()
	db, err := sql.Open("sqlite", ":memory:?_pragma=foreign_keys(1)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1) // each connection to :memory: is a database of its own
	t.Cleanup(func() { db.Close() })
	p, err := goose.NewProvider(goose.DialectSQLite3, db, os.DirFS("../store/migrations"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := New(db, Options{HashMemoryKiB: 8}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a, db
}

func TestEnsureAdmin(t *testing.T) {
	a, db := open(t)
	printed, created, err := a.EnsureAdmin(t.Context(), "")
	if err != nil || !created || len(printed) < 20 {
		t.Fatalf("first start: printed %d characters, created %v, err %v", len(printed), created, err)
	}
	if _, p, err := a.Login(t.Context(), "Admin", printed, "192.0.2.1"); err != nil || p.Role != Admin {
		t.Errorf("login with the printed password: %+v, %v", p, err)
	}
	if printed, created, err := a.EnsureAdmin(t.Context(), "something else"); err != nil || created || printed != "" {
		t.Errorf("second start: %q, %v, %v; want nothing", printed, created, err)
	}
	var stored string
	if err := db.QueryRow(`SELECT password FROM accounts`).Scan(&stored); err != nil || !strings.HasPrefix(stored, "$argon2id$") || strings.Contains(stored, printed) {
		t.Errorf("stored password %q, %v", stored, err)
	}

	b, _ := open(t)
	if printed, created, err := b.EnsureAdmin(t.Context(), "given-password"); err != nil || !created || printed != "" {
		t.Errorf("given password: %q, %v, %v", printed, created, err)
	}
	if _, _, err := b.Login(t.Context(), "admin", "given-password", "192.0.2.1"); err != nil {
		t.Error(err)
	}
}

func TestCreateRefuses(t *testing.T) {
	a, _ := open(t)
	if _, err := a.Create(t.Context(), "wang", "long enough", Organiser); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, account, password string
		role                    Role
		want                    string
	}{
		{"taken", "WANG", "long enough", Viewer, "taken"},
		{"blank name", "a b", "long enough", Viewer, "blanks"},
		{"no name", "", "long enough", Viewer, "1 to 64"},
		{"short password", "li", "1234567", Viewer, "8 characters"},
		{"huge password", "li", strings.Repeat("x", 257), Viewer, "256"},
		{"role", "li", "long enough", "boss", "role"},
	} {
		if _, err := a.Create(t.Context(), tt.account, tt.password, tt.role); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// A session slides with use, ends when it is not used, and knows nothing of the token.
func TestSessionSlidesAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, db := open(t)
		if _, err := a.Create(t.Context(), "wang", "long enough", Organiser); err != nil {
			t.Fatal(err)
		}
		token, p, err := a.Login(t.Context(), "wang", "long enough", "192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		var plain int
		if err := db.QueryRow(`SELECT count(*) FROM sessions WHERE token_hash = ? OR id = ?`, []byte(token), token).Scan(&plain); err != nil || plain != 0 {
			t.Errorf("the token itself is in the database (%v)", err)
		}
		for range 3 {
			time.Sleep(11 * time.Hour)
			if _, err := a.Session(t.Context(), token); err != nil {
				t.Fatalf("used every 11 hours: %v", err)
			}
		}
		if err := a.Still(t.Context(), p); err != nil {
			t.Errorf("Still: %v", err)
		}
		time.Sleep(12*time.Hour + time.Second)
		if _, err := a.Session(t.Context(), token); !errors.Is(err, ErrUnknown) {
			t.Errorf("unused for 12 hours: %v", err)
		}
		if err := a.Still(t.Context(), p); !errors.Is(err, ErrUnknown) {
			t.Errorf("Still after the end: %v", err)
		}
		if _, _, err := a.Login(t.Context(), "wang", "long enough", "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		var rows int
		if err := db.QueryRow(`SELECT count(*) FROM sessions`).Scan(&rows); err != nil || rows != 1 {
			t.Errorf("%d session rows, want the dead one gone (%v)", rows, err)
		}
	})
}

func TestLogoutTellsWatchers(t *testing.T) {
	a, _ := open(t)
	if _, err := a.Create(t.Context(), "wang", "long enough", Organiser); err != nil {
		t.Fatal(err)
	}
	login := func() (string, <-chan struct{}) {
		token, p, err := a.Login(t.Context(), "wang", "long enough", "192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		gone, stop := a.Watch(p)
		t.Cleanup(stop)
		return token, gone
	}
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	t1, gone1 := login()
	_, gone2 := login()
	if err := a.Logout(t.Context(), t1); err != nil {
		t.Fatal(err)
	}
	if !closed(gone1) || closed(gone2) {
		t.Error("logout must end its own session and no other")
	}
	if err := a.SetPassword(t.Context(), "wang", "another one"); err != nil {
		t.Fatal(err)
	}
	if !closed(gone2) {
		t.Error("a new password must end all sessions")
	}
	if _, _, err := a.Login(t.Context(), "wang", "long enough", "192.0.2.1"); !errors.Is(err, ErrWrong) {
		t.Errorf("old password: %v", err)
	}
	if err := a.Delete(t.Context(), "wang"); err != nil {
		t.Fatal(err)
	}
	if err := a.Delete(t.Context(), "wang"); !errors.Is(err, ErrUnknown) {
		t.Errorf("deleted twice: %v", err)
	}
	if len(a.watchers) != 0 {
		t.Errorf("%d watchers left", len(a.watchers))
	}
}

func TestAPIKeys(t *testing.T) {
	a, _ := open(t)
	ctx := t.Context()
	if _, err := a.NewAPIKey(ctx, "early"); !errors.Is(err, ErrUnknown) {
		t.Errorf("key without any admin: %v", err)
	}
	if _, _, err := a.EnsureAdmin(ctx, "long enough"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Create(ctx, "eye", "long enough", Viewer); err != nil {
		t.Fatal(err)
	}
	key, err := a.NewAPIKey(ctx, "ci")
	if err != nil || !strings.HasPrefix(key, "spk_") || len(key) < 40 {
		t.Fatalf("key %q, %v", key, err)
	}
	p, err := a.APIKey(ctx, key)
	if err != nil || p.Via != "apikey" || p.Name != "admin" || p.Has(AdminScope) || !p.Has(CallDial) {
		t.Errorf("principal %+v, %v", p, err)
	}
	if p.Actor("x").Admin {
		t.Error("a key without admin acts as one")
	}
	if ks, err := a.Keys(ctx); err != nil || len(ks) != 1 || ks[0].LastUsed.IsZero() {
		t.Errorf("keys %+v, %v", ks, err)
	}
	for _, tt := range []struct {
		name string
		spec KeySpec
		want string
	}{
		{"no scope", KeySpec{Name: "x"}, "at least one"},
		{"odd scope", KeySpec{Name: "x", Scopes: []Scope{"root"}}, "scope"},
		{"more than the role", KeySpec{Name: "x", Account: "eye", Scopes: []Scope{CallDial}}, "does not have"},
		{"no account", KeySpec{Name: "x", Account: "nobody", Scopes: []Scope{ConfRead}}, "unknown"},
		{"prefix", KeySpec{Name: "x", Scopes: []Scope{ConfRead}, DialPrefixes: []string{"86 1"}}, "prefix"},
		{"no name", KeySpec{Scopes: []Scope{ConfRead}}, "name"},
	} {
		if _, err := a.NewKey(ctx, tt.spec); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	limited, err := a.NewKey(ctx, KeySpec{Name: "cn", Scopes: []Scope{ConfRead, CallDial}, DialPrefixes: []string{"+86", "+852"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err = a.APIKey(ctx, limited)
	if err != nil || !slices.Equal(p.Actor("").DialPrefixes, []string{"+86", "+852"}) {
		t.Errorf("dial prefixes %v, %v", p.DialPrefixes, err)
	}
	gone, stop := a.Watch(p)
	defer stop()
	if err := a.RevokeKey(ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	default:
		t.Error("a revoked key's watcher was not told")
	}
	for _, k := range []string{limited, "", "spk_", "spk_" + strings.Repeat("A", 43), key[4:]} {
		if _, err := a.APIKey(ctx, k); !errors.Is(err, ErrUnknown) {
			t.Errorf("key %q: %v, want unknown", k, err)
		}
	}
}

// Each wrong password takes longer, the same for an account that does not exist, and
// at last the answer is a refusal; other people still get in at once.
func TestLoginIsSlowedDown(t *testing.T) {
	for _, account := range []string{"wang", "nobody"} {
		t.Run(account, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := open(t)
				if _, err := a.Create(t.Context(), "wang", "long enough", Organiser); err != nil {
					t.Fatal(err)
				}
				if _, err := a.Create(t.Context(), "li", "long enough", Organiser); err != nil {
					t.Fatal(err)
				}
				try := func(account, password, from string) (time.Duration, error) {
					start := time.Now()
					_, _, err := a.Login(t.Context(), account, password, from)
					return time.Since(start), err
				}
				for i, want := range []time.Duration{250, 500, 1000, 2000, 4000} {
					took, err := try(account, "wrong one", "192.0.2.9")
					if !errors.Is(err, ErrWrong) || took != want*time.Millisecond {
						t.Errorf("failure %d took %v (%v), want %v ms", i+1, took, err, int(want))
					}
				}
				took, err := try(account, "wrong one", "192.0.2.9")
				if !errors.Is(err, ErrWrong) || took != maxWait {
					t.Errorf("failure 6 took %v (%v)", took, err)
				}
				for i := range 2 {
					if _, err = try(account, "wrong one", "192.0.2.9"); err != nil && !errors.Is(err, ErrWrong) {
						break
					}
					t.Logf("failure %d still answered", 7+i)
				}
				var throttled *ThrottledError
				if !errors.As(err, &throttled) || throttled.After <= maxWait {
					t.Errorf("failure 8: %v, want a refusal", err)
				}
				if took, err := try("li", "long enough", "192.0.2.10"); err != nil || took != 0 {
					t.Errorf("somebody else: %v after %v", err, took)
				}
				time.Sleep(forgetAfter + maxDelay)
				if took, err := try("wang", "long enough", "192.0.2.9"); err != nil || took != 0 {
					t.Errorf("later: %v after %v", err, took)
				}
			})
		})
	}
}

// Guesses from many addresses slow an account down, but not for whom it knows.
func TestKnownAddressIsNotLockedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := open(t)
		if _, err := a.Create(t.Context(), "wang", "long enough", Organiser); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.Login(t.Context(), "wang", "long enough", "198.51.100.7"); err != nil {
			t.Fatal(err)
		}
		refused := 0
		for i := range 20 {
			_, _, err := a.Login(t.Context(), "wang", "guess guess", "203.0.113."+string(rune('1'+i%9))+":99")
			if errors.As(err, new(*ThrottledError)) {
				refused++
			}
		}
		if refused == 0 {
			t.Error("twenty guesses from nine addresses and none refused")
		}
		start := time.Now()
		if _, _, err := a.Login(t.Context(), "wang", "long enough", "198.51.100.7"); err != nil || time.Since(start) > 0 {
			t.Errorf("the owner from the usual address: %v after %v", err, time.Since(start))
		}
	})
}

// Parallel guesses wait in a line: the count cannot be outrun.
func TestParallelGuessesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := open(t)
		answers := make(chan error)
		for range 500 {
			go func() {
				_, _, err := a.Login(t.Context(), "admin", "guess guess", "203.0.113.1")
				answers <- err
			}()
		}
		checked := 0
		for range 500 {
			if err := <-answers; errors.Is(err, ErrWrong) {
				checked++
			} else if !errors.As(err, new(*ThrottledError)) {
				t.Error(err)
			}
		}
		if most := int(maxWait/spacing) + 1; checked > most {
			t.Errorf("%d guesses checked, want at most %d", checked, most)
		}
	})
}

func TestLoginGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := open(t)
		for range 4 {
			a.Login(t.Context(), "x", "wrong one", "192.0.2.1")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := a.Login(ctx, "x", "wrong one", "192.0.2.1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestThrottleIsBounded(t *testing.T) {
	var th throttle
	now := time.Now()
	for i := range 3 * maxTracked {
		th.of(string(rune(i))+"x", now.Add(time.Duration(i)))
	}
	if len(th.track) > 2*maxTracked {
		t.Errorf("%d tallies, want at most %d", len(th.track), 2*maxTracked)
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:5060":           "192.0.2.1",
		"192.0.2.1":                "192.0.2.1",
		"::ffff:192.0.2.1":         "192.0.2.1",
		"[2001:db8:1:2:3::4]:80":   "2001:db8:1:2::/64",
		"fe80::1%eth0":             "fe80::/64",
		"not an address":           "not an address",
		"[2001:db8:1:2:ffff::]:80": "2001:db8:1:2::/64",
	} {
		if got := network(in); got != want {
			t.Errorf("network(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestViewerReadsAllAndWritesNothing(t *testing.T) {
	p := Principal{Role: Viewer, Scopes: Viewer.Scopes()}
	if !p.Actor("").Admin || p.Has(ConfWrite) || p.Has(CallDial) {
		t.Error("a viewer sees every conference and changes none")
	}
	p = Principal{Role: Organiser, Scopes: []Scope{ConfRead}}
	if p.Actor("").Admin {
		t.Error("an organiser's reading key sees others' conferences")
	}
}

func TestOptions(t *testing.T) {
	if err := (Options{}).Validate(); err != nil {
		t.Error(err)
	}
	err := Options{SessionTTL: time.Second, HashMemoryKiB: 1}.Validate()
	if err == nil || !strings.Contains(err.Error(), "session_ttl") || !strings.Contains(err.Error(), "hash_memory_kib") {
		t.Errorf("want both faults, got %v", err)
	}
}
