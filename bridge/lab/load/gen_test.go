package load

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sparkle/media/codec/amr"
)

// loop is a generator whose phones send to one another's socket, without an engine.
func loop(t testing.TB, legs int, c Codec) *generator {
	t.Helper()
	if c.amr() && !amr.Available {
		t.Skip("this build has no AMR-WB")
	}
	m, err := newMaterial(c, false)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Legs: legs, Talkers: legs, Codec: c}.withDefaults()
	g, err := newGenerator(o, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	for i := range g.phones {
		// What phase p sends is read in the same step from the opposite phase's socket.
		to := g.media[(i+phases/2)%phases]
		g.phones[i].to = sockaddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.port))
		g.byPort[g.media[i%phases].port].Store(int32(i + 1))
	}
	g.n = g.script.warm
	return g
}

func (g *generator) frame() {
	for phase := range phases {
		g.step(phase)
	}
	g.n++
}

func TestTheGeneratorSendsAndCounts(t *testing.T) {
	g := loop(t, phases, PCMU())
	for range 50 {
		g.frame()
	}
	for i := range g.phones {
		r := &g.phones[i].rx
		if r.frames != 50 || r.missing != 0 || r.lost != 0 {
			t.Errorf("phone %d: %d frames, %d missing, %d lost; want 50, 0, 0", i, r.frames, r.missing, r.lost)
		}
	}
	if g.res.Sent != 50*phases || g.res.GenRefused != 0 || g.res.Spread.Count() != 49*phases {
		t.Errorf("sent %d, refused %d, %d arrivals judged", g.res.Sent, g.res.GenRefused, g.res.Spread.Count())
	}
}

func TestTheGeneratorDoesNotAllocate(t *testing.T) {
	for _, c := range []Codec{PCMU(), AMRWB(8)} {
		g := loop(t, 50, c)
		if n := testing.AllocsPerRun(50, g.frame); n != 0 {
			t.Errorf("%s: a frame of 50 phones allocates %v times, want 0", c.Name, n)
		}
	}
}

// A frame of all phones: sent, received and judged.
func BenchmarkFrame(b *testing.B) {
	for _, legs := range []int{10, 200} {
		b.Run(fmt.Sprintf("legs=%d", legs), func(b *testing.B) {
			g := loop(b, legs, PCMU())
			b.ReportAllocs()
			for b.Loop() {
				g.frame()
				g.n = g.script.warm
			}
		})
	}
}

func TestAFullReceiveBufferIsSeen(t *testing.T) {
	a, err := newSocket(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	b, err := newSocket(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if err := unix.SetsockoptInt(b.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		t.Fatal(err)
	}
	to := sockaddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), b.port))
	head, body := make([]byte, 12), make([]byte, 400)
	for range 100 {
		if !a.queue(head, body, &to) || a.queue(head, body, &to) {
			t.Fatal("a batch of one does not hold exactly one")
		}
		if sent, _ := a.flush(); sent != 1 {
			t.Fatal("not sent")
		}
	}
	got := uint64(0)
	for n := b.read(); n > 0; n = b.read() {
		got += uint64(n)
	}
	if got+b.overflow() != 100 || b.overflow() == 0 {
		t.Errorf("%d came, %d overflowed of 100", got, b.overflow())
	}
}

func TestMaterial(t *testing.T) {
	if !amr.Available {
		t.Skip("this build has no AMR-WB")
	}
	for _, c := range []Codec{AMRWB(2), AMRWB(8), Opus()} {
		m, err := newMaterial(c, false)
		if err != nil {
			t.Fatal(err)
		}
		speech := 0
		for _, b := range m.speech {
			if b != nil && c.speech(b) {
				speech++
			}
		}
		if speech < speechFrames*95/100 {
			t.Errorf("%s: %d of %d frames of speech are speech to the encoder", c.Name, speech, speechFrames)
		}
		if !c.speech(m.speech[1]) {
			t.Errorf("%s: speech does not begin at once", c.Name)
		}
		loud := 0
		for _, b := range m.speech {
			if b != nil && c.level(new(amr.Loudness), b) > loudLevel {
				loud++
			}
		}
		if loud < speechFrames/2 {
			t.Errorf("%s: %d of %d frames of speech are loud", c.Name, loud, speechFrames)
		}
		for start := silenceFrames; start < silenceFrames+3; start++ {
			sid := 0
			for n := range m.period {
				if b := m.quiet(start + n); b != nil {
					sid++
					if c.speech(b) {
						t.Errorf("%s: silence is speech", c.Name)
					}
				}
			}
			if sid != 1 {
				t.Errorf("%s: %d comfort noise frames in a period from %d on, want 1", c.Name, sid, start)
			}
		}
	}
	m, err := newMaterial(PCMU(), false)
	if err != nil || len(m.speech[0]) != 160 || len(m.quiet(5)) != 160 || len(m.quiet(1000)) != 160 {
		t.Errorf("PCMU: %v", err)
	}
}

func TestOptionsNameEveryFault(t *testing.T) {
	err := Options{PID: -1, Legs: 1, Talkers: 2, Turn: 1, Warm: -1, Window: 1e18, Onsets: -1, Codec: AMRWB(9)}.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, want := range []string{"engine", "pid", "legs", "talkers", "turn", "warm", "window", "onsets", "mode 9"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if err := (Options{Codec: PCMU(), Legs: 25, Room: 10}).Validate(); err == nil || !strings.Contains(err.Error(), "conferences of 10") {
		t.Errorf("25 legs in conferences of 10: %v", err)
	}
	if err := (Options{}).Validate(); err == nil || !strings.Contains(err.Error(), "codec") {
		t.Errorf("no codec: %v", err)
	}
	err = VideoOptions{Members: 17, Width: 31, Height: 2000, FPS: 31, PID: -1}.Validate()
	for _, want := range []string{"engine", "members", "picture", "frames per second", "pid"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
