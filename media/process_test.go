package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/media/codec/amr"
	"sparkle/media/mediapb"
	"sparkle/media/port"
)

const childEnv = "SPARKLE_TEST_MEDIA_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(childEnv); socket != "" { // we are the media process
		if err := Main(context.Background(), socket, Options{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func fds(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd")
	}
	return len(d)
}

// The engine as it runs in production, with its own thread: what is opened is closed.
func TestEngineRunsAndLeavesNothing(t *testing.T) {
	warm, err := New(Options{}) // the runtime opens descriptors of its own the first time
	if err != nil {
		t.Fatal(err)
	}
	warm.Close()
	before := fds(t)
	e, err := New(Options{Realtime: true, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i := range 4 {
		conf := fmt.Sprintf("c%d", i%2)
		if err := e.SetConference(ctx, &mediapb.Conference{Id: conf}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.OpenLeg(ctx, &mediapb.OpenLegRequest{Conference: conf, Leg: fmt.Sprint(i), LocalIp: "127.0.0.1"}); err != nil {
			t.Fatal(err)
		}
	}
	for { // until it ticks
		s, err := e.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.Engine.Ticks > 4 {
			if len(s.Legs) != 4 || len(s.Conferences) != 2 || s.Conferences[0].Legs != 2 {
				t.Errorf("snapshot: %v", s)
			}
			break
		}
		runtime.Gosched()
	}
	if err := e.CloseConference(ctx, "c0"); err != nil {
		t.Error(err)
	}
	if n := e.pool.Open(); n != 2 {
		t.Errorf("%d pairs open after a conference with two of four legs ended", n)
	}
	e.Close()
	e.Close()
	if n := e.pool.Open(); n != 0 {
		t.Errorf("%d pairs open after Close", n)
	}
	if n := fds(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
	if err := e.SetConference(ctx, &mediapb.Conference{Id: "x"}); status.Code(err) != codes.Unavailable {
		t.Errorf("after Close: %v", err)
	}
	if _, err := e.Snapshot(ctx); status.Code(err) != codes.Unavailable {
		t.Errorf("after Close: %v", err)
	}
}

func TestErrorsNameTheFault(t *testing.T) {
	if !amr.Available {
		t.Skip("this build has no AMR")
	}
	a := newAir(t, Options{})
	a.set(confC())
	ctx := t.Context()
	open := func(conf, leg, ip string) error {
		_, err := a.e.OpenLeg(ctx, &mediapb.OpenLegRequest{Conference: conf, Leg: leg, LocalIp: ip})
		return err
	}
	if err := open("c", "l", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	audio := func(f func(*mediapb.AudioStream)) error {
		s := &mediapb.AudioStream{Codec: wb, PayloadType: 96, Send: true, Recv: true, Remote: &mediapb.Remote{Ip: "127.0.0.1", Port: 4000}}
		f(s)
		return a.e.SetLeg(ctx, &mediapb.Leg{Id: "l", Audio: s})
	}
	for name, tt := range map[string]struct {
		err  error
		want codes.Code
	}{
		"good":              {audio(func(*mediapb.AudioStream) {}), codes.OK},
		"no conference id":  {a.e.SetConference(ctx, &mediapb.Conference{}), codes.InvalidArgument},
		"video without":     {a.e.SetConference(ctx, &mediapb.Conference{Id: "v", Video: true}), codes.InvalidArgument},
		"whisper to self":   {a.e.SetConference(ctx, &mediapb.Conference{Id: "c", Whispers: []*mediapb.Whisper{{FromLeg: "a", ToLegs: []string{"a"}}}}), codes.InvalidArgument},
		"unknown room":      {open("other", "m", "127.0.0.1"), codes.NotFound},
		"same leg":          {open("c", "l", "127.0.0.1"), codes.AlreadyExists},
		"no address":        {open("c", "m", "nowhere"), codes.InvalidArgument},
		"any address":       {open("c", "m", "0.0.0.0"), codes.InvalidArgument},
		"unknown leg":       {a.e.SetLeg(ctx, &mediapb.Leg{Id: "m"}), codes.NotFound},
		"codec":             {audio(func(s *mediapb.AudioStream) { s.Codec = 77 }), codes.InvalidArgument},
		"no codec":          {audio(func(s *mediapb.AudioStream) { s.Codec = 0 }), codes.InvalidArgument},
		"mode":              {audio(func(s *mediapb.AudioStream) { s.ModeSet = []uint32{9} }), codes.InvalidArgument},
		"payload type":      {audio(func(s *mediapb.AudioStream) { s.PayloadType = 200 }), codes.InvalidArgument},
		"RTCP's types":      {audio(func(s *mediapb.AudioStream) { s.PayloadType = 72 }), codes.InvalidArgument},
		"DTMF's type":       {audio(func(s *mediapb.AudioStream) { s.DtmfPayloadType = 96 }), codes.InvalidArgument},
		"type that comes":   {audio(func(s *mediapb.AudioStream) { s.ReceivePayloadType = new(uint32(72)) }), codes.InvalidArgument},
		"DTMF that comes":   {audio(func(s *mediapb.AudioStream) { s.ReceiveDtmfPayloadType = new(uint32(96)) }), codes.InvalidArgument},
		"no remote":         {audio(func(s *mediapb.AudioStream) { s.Remote = nil }), codes.InvalidArgument},
		"port 0":            {audio(func(s *mediapb.AudioStream) { s.Remote.Port = 0 }), codes.InvalidArgument},
		"port 70000":        {audio(func(s *mediapb.AudioStream) { s.Remote.Port = 70000 }), codes.InvalidArgument},
		"multicast":         {audio(func(s *mediapb.AudioStream) { s.Remote.Ip = "224.1.1.1" }), codes.InvalidArgument},
		"broadcast":         {audio(func(s *mediapb.AudioStream) { s.Remote.Ip = "255.255.255.255" }), codes.InvalidArgument},
		"other family":      {audio(func(s *mediapb.AudioStream) { s.Remote.Ip = "2001:db8::1" }), codes.InvalidArgument},
		"DSCP":              {audio(func(s *mediapb.AudioStream) { s.Dscp = 99 }), codes.InvalidArgument},
		"video on voice":    {a.e.SetLeg(ctx, &mediapb.Leg{Id: "l", Video: &mediapb.VideoStream{}}), codes.InvalidArgument},
		"close unknown":     {a.e.CloseConference(ctx, "never"), codes.OK},
		"preview of nobody": {func() error { _, err := a.e.Preview(ctx, "never", 0); return err }(), codes.NotFound},
		"preview of voice":  {func() error { _, err := a.e.Preview(ctx, "c", 0); return err }(), codes.FailedPrecondition},
		"preview quality":   {func() error { _, err := a.e.Preview(ctx, "c", 101); return err }(), codes.InvalidArgument},
	} {
		if status.Code(tt.err) != tt.want {
			t.Errorf("%s: %v, want %v", name, tt.err, tt.want)
		}
	}
	for _, o := range []Options{{PortMin: 5}, {Workers: -1}, {MaxTalkers: 65}, {MediaTimeout: 1}, {MaxLegs: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
}

// Without cgo there is G.711; AMR is refused by name.
func TestBuildWithoutAMR(t *testing.T) {
	if amr.Available {
		t.Skip("this build has AMR")
	}
	a := newAir(t, Options{})
	a.set(confC())
	a.join("c", "l", pcma, 500)
	err := a.e.SetLeg(t.Context(), &mediapb.Leg{Id: "l", Audio: &mediapb.AudioStream{Codec: wb, PayloadType: 96}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("AMR-WB without its library: %v", err)
	}
}

func TestPortsRunOutAndComeBack(t *testing.T) {
	eph, _ := port.NewPool(port.Options{})
	q, err := eph.OpenPair(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	q.Close()
	a := newAir(t, Options{PortMin: q.Port, PortMax: q.Port + 1})
	a.set(confC())
	open := func(leg string) error {
		_, err := a.e.OpenLeg(t.Context(), &mediapb.OpenLegRequest{Conference: "c", Leg: leg, LocalIp: "127.0.0.1"})
		return err
	}
	if err := open("a"); err != nil {
		t.Fatal(err)
	}
	if err := open("b"); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("no port left: %v", err)
	}
	_, _ = a.e.CloseLeg(t.Context(), "a")
	if err := open("b"); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("in quarantine: %v", err)
	}
	a.run(11 * time.Second)
	if err := open("b"); err != nil {
		t.Errorf("after quarantine: %v", err)
	}
}

func TestServeAndDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.sock")
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- Serve(serving, path, e) }()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; want mode 0600", fi, err)
	}
	if err := Serve(ctx, path, e); err == nil {
		t.Error("a second server on a live socket")
	}
	if err := c.SetConference(ctx, confC()); err != nil {
		t.Fatal(err)
	}
	r, err := c.OpenLeg(ctx, &mediapb.OpenLegRequest{Conference: "c", Leg: "l", LocalIp: "127.0.0.1"})
	if err != nil || r.AudioPort == 0 || r.AudioPort%2 != 0 {
		t.Fatalf("%v, %v", r, err)
	}
	if err := c.SetLeg(ctx, &mediapb.Leg{Id: "l", Audio: &mediapb.AudioStream{Codec: 99}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("codec 99: %v", err)
	}
	got := make(chan *mediapb.Event, 8)
	ended := make(chan error, 1)
	go func() { ended <- c.Events(ctx, func(ev *mediapb.Event) { got <- ev }) }()
	for done := false; !done; { // the subscription takes a moment
		e.hub.publish(&mediapb.Event{Leg: "l", What: &mediapb.Event_Digit{Digit: &mediapb.Digit{Digit: "7"}}})
		select {
		case ev := <-got:
			done = ev.GetDigit().GetDigit() == "7"
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("no event")
		}
	}
	if st, err := c.CloseLeg(ctx, "l"); err != nil || st.Id != "l" {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := c.Preview(ctx, "c", 50); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("preview: %v", err)
	}
	if err := c.CloseConference(ctx, "c"); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("events ended without saying why")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket file left: %v", err)
	}
}

func TestChildIsRestarted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.sock")
	downs, ups := make(chan error, 4), make(chan int, 4)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := StartChild(ctx, ChildOptions{
		Socket: path, Env: append(os.Environ(), childEnv+"="+path), Stderr: io.Discard,
		OnDown: func(why error) { downs <- why }, OnUp: func(pid int) { ups <- pid },
	})
	if err != nil {
		t.Fatal(err)
	}
	first := c.PID()
	if err := c.SetConference(ctx, confC()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case why := <-downs:
		if why == nil {
			t.Error("down without a reason")
		}
	case <-ctx.Done():
		t.Fatal("nobody noticed the death")
	}
	select {
	case pid := <-ups:
		if pid == first || pid != c.PID() {
			t.Errorf("up as %d, was %d, is %d", pid, first, c.PID())
		}
	case <-ctx.Done():
		t.Fatal("not restarted")
	}
	if s, err := c.Snapshot(ctx); err != nil || len(s.Conferences) != 0 {
		t.Errorf("the new process: %v, %v; want an empty engine", s, err)
	}
	second := c.PID()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(second, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process is still there: %v", err)
	}
	if len(downs) != 0 {
		t.Error("an ordered end was reported as a death")
	}
}

func TestChildThatCannotStart(t *testing.T) {
	for _, path := range []string{"/no/such/program", "/bin/false"} {
		_, err := StartChild(t.Context(), ChildOptions{Path: path, Socket: filepath.Join(t.TempDir(), "m.sock"), Stderr: io.Discard})
		if err == nil {
			t.Errorf("%s started", path)
		}
	}
	if err := Main(t.Context(), "", Options{}); err == nil {
		t.Error("no socket accepted")
	}
}
