package ims_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sparkle/bridge/lab"
	"sparkle/bridge/lab/ims"
	"sparkle/bridge/lab/ims/hss"
	"sparkle/sip"
)

// core is one for all tests: Kamailio takes a second or two to start. nil: not installed.
var core *ims.Core

func TestMain(m *testing.M) {
	if len(ims.Missing()) > 0 {
		os.Exit(m.Run()) // every test says what is missing
	}
	dir, err := os.MkdirTemp("", "ims-")
	if err == nil {
		core, err = ims.Start(context.Background(), ims.Options{Dir: dir})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	// The core's own goroutines are there already; what tests leave behind is not.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(code int) {
		core.Close()
		if code != 0 {
			tell(dir)
		}
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// tell prints the end of Kamailio's logs: without them a failure says little.
func tell(dir string) {
	for _, name := range []string{"pcscf", "icscf", "scscf"} {
		text, _ := os.ReadFile(dir + "/" + name + ".log")
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, " INFO: ") })
		fmt.Fprintf(os.Stderr, "%s:\n%s\n", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}

const patience = 8 * time.Second // for what takes a second on an idle machine

// network is the core, or the end of the test where it is not installed.
func network(t *testing.T) *ims.Core {
	t.Helper()
	if core == nil {
		t.Skipf("NOT RUN: %s not installed; what we send then has no real IMS core to judge it (make test installs them)",
			strings.Join(ims.Missing(), ", "))
	}
	if err := core.Err(); err != nil {
		t.Fatal(err)
	}
	return core
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("waited in vain"))
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok has nothing to say any more.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v for %s: %v", patience, what, err)
		}
	}
}

var numbers atomic.Int32

// number is one that no other test has.
func number() string { return fmt.Sprintf("+1555010%04d", numbers.Add(1)) }

const (
	labK   = "465b5ce8b199b49faa5f0a2ee238a6bc" // TS 35.208 set 1
	labOPc = "cd63cb71954a9f4e48a5994e37a02baf"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// account is a subscription of its own, and the attachment that registers with it.
type account struct {
	hss.User
	number string
	o      sip.AttachmentOptions
}

const (
	akaAuth = "AKAv1-MD5"
	md5Auth = "MD5"
)

// subscribe provisions one.
func subscribe(t *testing.T, algorithm, transport string) *account {
	t.Helper()
	c := network(t)
	a := &account{number: number()}
	impu := lab.IMPU(a.number, c.Domain())
	a.User = hss.User{IMPI: lab.IMPI(a.number, c.Domain()), IMPUs: []string{impu, "tel:" + a.number}, SQN: 1 << 10}
	a.o = sip.AttachmentOptions{
		Name: "ims", Mode: sip.ModeUE, Transport: transport, LocalAddr: "127.0.0.1", Domain: c.Domain(), IMPI: a.IMPI, IMPU: impu,
		Targets: []string{c.PCSCF().String()}, CPS: 200,
	}
	if algorithm == akaAuth {
		a.K, a.OPc = unhex(labK), unhex(labOPc)
		a.o.Auth = sip.Auth{K: labK, OPc: labOPc}
	} else {
		a.Password = "geheim"
		a.o.Auth = sip.Auth{Algorithms: []string{algorithm}, Password: a.Password}
	}
	a.set(t)
	return a
}

func (a *account) set(t *testing.T) {
	t.Helper()
	if err := core.HSS().SetUser(a.User); err != nil {
		t.Fatal(err)
	}
}

// attach starts a UA with the attachment.
func (a *account) attach(t *testing.T) *sip.UA {
	t.Helper()
	ua, err := sip.New(sip.Options{Attachments: []sip.AttachmentOptions{a.o}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ua.Close(context.Background()) })
	return ua
}

// registered starts one and waits until it may call.
func (a *account) registered(t *testing.T) *sip.UA {
	t.Helper()
	ua := a.attach(t)
	awaitState(t, ua, "registered")
	return ua
}

func awaitState(t *testing.T, ua *sip.UA, state string) sip.AttachmentState {
	t.Helper()
	var s sip.AttachmentState
	eventually(t, "state "+state, func() error {
		if s = ua.Attachments()[0]; s.State != state {
			return fmt.Errorf("it is %+v", s)
		}
		return nil
	})
	return s
}

// asked waits until the HSS has answered so many such requests for the account.
func (a *account) asked(t *testing.T, what string, n int, like func(hss.Request) bool) {
	t.Helper()
	err := core.HSS().Wait(within(t), func(seen []hss.Request) bool {
		k := 0
		for _, r := range seen {
			if r.IMPI == a.IMPI && like(r) {
				k++
			}
		}
		return k >= n
	})
	if err != nil {
		t.Fatalf("%d × %s: %v", n, what, err)
	}
}

// sar is a Server-Assignment-Request of a type: 1 first, 2 again, 5 the user leaves.
func sar(typ uint32) func(hss.Request) bool {
	return func(r hss.Request) bool { return r.Name == "SAR" && r.Type == typ && r.Result == 2001 }
}
