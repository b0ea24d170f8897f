package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/store"
	"sparkle/bridge/store/storetest"
)

// childEnv makes the test binary the child of TestKill: it writes until it is killed.
const childEnv = "SPARKLE_STORE_TEST_CHILD"

func TestChild(t *testing.T) {
	path := os.Getenv(childEnv)
	if path == "" {
		t.Skip("only as the child of TestAcknowledgedWritesSurviveKill")
	}
	s, err := store.Open(store.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := s.PutConference(ctx, storetest.Conference(1), 1); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // one line at a time
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; ; i += 4 {
				m := storetest.Member("conf_0001", i)
				if err := s.PutMembers(ctx, m); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				fmt.Println("ack", m.ID)
				mu.Unlock()
				s.QueueLeg(bridge.LegRecord{Leg: storetest.EndedLeg(m, i)}) // company for the commits
			}
		})
	}
	wg.Wait()
}

func TestAcknowledgedWritesSurviveKill(t *testing.T) {
	for round := range 3 {
		path := filepath.Join(t.TempDir(), "a.db")
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		guard := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
		acked := map[string]bool{}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "ack "); ok {
				acked[id] = true
			}
			if len(acked) == 50+37*round { // in the middle of whatever it does then
				cmd.Process.Kill()
			}
		}
		guard.Stop()
		cmd.Wait()
		if len(acked) < 50+37*round {
			t.Fatalf("the child ended after %d writes", len(acked))
		}
		s := open(t, store.Options{Path: path})
		saved, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range saved.Conferences[0].Members {
			delete(acked, m.ID)
		}
		if len(acked) > 0 {
			t.Errorf("round %d: %d acknowledged members are gone", round, len(acked))
		}
	}
}

// A full disk refuses what must be durable, keeps what is queued, and takes both
// again when there is room.
func TestDiskFull(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, store.Options{Path: path, MaxBytes: 300 << 10})
	if err := s.PutConference(ctx, storetest.Conference(1), 1); err != nil {
		t.Fatal(err)
	}
	m := storetest.Member("conf_0001", 1)
	m.Name = strings.Repeat("x", 2000)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		m.ID, m.Number = fmt.Sprintf("mbr_%04d", n), fmt.Sprintf("+86138%08d", n)
		err = s.PutMembers(ctx, m)
	}
	var own *bridge.Error
	if !errors.As(err, &own) || own.Kind != bridge.Full || own.Code != "storage_full" {
		t.Fatalf("after %d writes: %v, want storage_full", n, err)
	}
	if s.Healthy() == nil {
		t.Error("a store that cannot write says that it is healthy")
	}
	for i := range 100 { // what calls in progress have to say
		s.QueueLeg(bridge.LegRecord{Leg: storetest.EndedLeg(m, i)})
	}
	legs, _, err := s.Legs(ctx, m.Conference, m.ID, 200, "")
	if err != nil || len(legs) != 100 {
		t.Errorf("queued legs are not in the history: %d, %v", len(legs), err)
	}
	if s.Lost() != 0 {
		t.Errorf("%d records lost", s.Lost())
	}
	if saved, err := s.Load(ctx); err != nil || len(saved.Conferences[0].Members) != n-1 {
		t.Errorf("the refused write is there, or others are not: %v", err)
	}
	for i := range n - 1 { // room again
		if err := s.DropMember(ctx, fmt.Sprintf("mbr_%04d", i)); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.Healthy() != nil && time.Now().Before(deadline) {
		<-tick.C
	}
	if err := s.Healthy(); err != nil {
		t.Errorf("still not healthy: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []store.Options{{}, {Path: "a\x00b"}, {Path: "a", MaxBytes: -1}} {
		if o.Validate() == nil {
			t.Errorf("%+v is taken", o)
		}
		if _, err := store.Open(o); err == nil {
			t.Errorf("%+v opens", o)
		}
	}
	if _, err := store.Open(store.Options{Path: filepath.Join(t.TempDir(), "none", "a.db")}); err == nil {
		t.Error("a directory that is not there opens")
	}
	junk := filepath.Join(t.TempDir(), "junk.db")
	if err := os.WriteFile(junk, []byte(strings.Repeat("this is no database ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(store.Options{Path: junk}); err == nil {
		t.Error("a file that is no database opens")
	}
}

func TestWritesAfterCloseAreRefused(t *testing.T) {
	s := open(t, store.Options{Path: filepath.Join(t.TempDir(), "a.db")})
	s.Close()
	var own *bridge.Error
	if err := s.PutConference(t.Context(), storetest.Conference(1), 1); !errors.As(err, &own) || own.Code != "storage_unavailable" {
		t.Errorf("got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func BenchmarkPutMembers(b *testing.B) {
	s, err := store.Open(store.Options{Path: filepath.Join(b.TempDir(), "a.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.PutConference(context.Background(), storetest.Conference(1), 1); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := s.PutMembers(context.Background(), storetest.Member("conf_0001", i)); err != nil {
			b.Fatal(err)
		}
	}
}
