package media

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sparkle/media/mediapb"
)

// tone is a sound of one pitch, as loud as the phones talk, that begins and ends at its
// crest: the worst for clicks.
func tone(hz float64, d time.Duration) []byte {
	var b []byte
	for i := range int(d.Seconds() * 16000) {
		v := int16(toneAmplitude * math.Cos(2*math.Pi*hz*float64(i)/16000))
		b = binary.LittleEndian.AppendUint16(b, uint16(v))
	}
	return b
}

func (p *phone) play(r *mediapb.PlayRequest) {
	p.a.t.Helper()
	r.Leg = p.leg.Id
	if err := p.a.e.Play(p.a.t.Context(), r); err != nil {
		p.a.t.Fatal(err)
	}
}

// ended lists the sounds that ended, in order.
func (a *air) ended() (out []string) {
	for _, ev := range a.events {
		if e := ev.GetPlayEnded(); e != nil {
			out = append(out, fmt.Sprintf("%s %s cut=%v", ev.Leg, e.Id, e.Cut))
		}
	}
	return out
}

func (a *air) wantEnded(want ...string) {
	a.t.Helper()
	if got := a.ended(); fmt.Sprint(got) != fmt.Sprint(want) {
		a.t.Errorf("ended %q, want %q", got, want)
	}
}

// kink is how far, at worst from sample i on, what was heard departs from any tone of hz,
// whatever its loudness: a click is a kink, a codec's slow swell at an onset is none.
func (p *phone) kink(hz float64, i int) (d float64) {
	c := 2 * math.Cos(2*math.Pi*hz/16000)
	for i = max(i, 2); i < len(p.heard); i++ {
		d = max(d, abs(p.heard[i]-c*p.heard[i-1]+p.heard[i-2]))
	}
	return d
}

func (p *phone) wantLevel(what string, hz, want float64) {
	p.a.t.Helper()
	db := p.level(hz, 400*time.Millisecond)
	if want < -25 && db > -25 || want >= -25 && abs(db-want) > 3 {
		p.a.t.Errorf("%s hears %s at %.1f dB, want %.0f ± 3", p.leg.Id, what, db, want)
	}
}

// clickLimit is above what the codecs do to a steady tone by themselves (AMR-WB 400) and
// below what a sound without its ramps makes (AMR-WB 1,240, G.711 800).
const clickLimit = 600

const nothing = -100

// Every codec, present or not: what is heard before, during and after a sound.
func TestSound(t *testing.T) {
	for _, codec := range []mediapb.AudioStream_Codec{wb, nb, pcma, pcmu} {
		for _, present := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v present=%v", codec, present), func(t *testing.T) {
				a := newAir(t, Options{})
				a.set(confC())
				x := a.join("c", "x", wb, 440)
				y := a.join("c", "y", codec, 1100, func(l *mediapb.Leg) { l.Present = present })
				z := a.join("c", "z", codec, 0)
				room, ducked := 0.0, -12.0
				if !present {
					room, ducked = nothing, nothing
				}
				a.run(time.Second)
				y.wantLevel("the room", x.toneHz, room)
				if !present && len(y.packets) != 0 {
					t.Errorf("%d packets to a leg that is not present and was never played to", len(y.packets))
				}

				y.play(&mediapb.PlayRequest{Id: "s", Pcm: tone(700, time.Second)})
				a.run(900 * time.Millisecond)
				y.wantLevel("the sound", 700, 0)
				y.wantLevel("the room", x.toneHz, ducked)
				y.wantLevel("itself", y.toneHz, nothing)
				z.wantLevel("somebody else's sound", 700, nothing)
				z.wantLevel("the room", x.toneHz, 0)
				a.wantEnded()

				a.run(900 * time.Millisecond)
				a.wantEnded("y s cut=false")
				y.wantLevel("the sound", 700, nothing)
				y.wantLevel("the room", x.toneHz, room)
				if !present {
					y.leg.Present = true
					y.update()
					a.run(time.Second)
					y.wantLevel("the room", x.toneHz, 0)
				}
			})
		}
	}
}

// Sounds begin, end, are cut and replaced without a click, in the room and alone.
func TestSoundsDoNotClick(t *testing.T) {
	for _, codec := range []mediapb.AudioStream_Codec{wb, nb, pcma} {
		for _, present := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v present=%v", codec, present), func(t *testing.T) {
				a := newAir(t, Options{})
				a.set(confC())
				a.join("c", "x", pcma, 400)
				y := a.join("c", "y", codec, 0, func(l *mediapb.Leg) { l.Present = present })
				a.run(time.Second)
				y.play(&mediapb.PlayRequest{Id: "long", Pcm: tone(400, 10*time.Second)})
				a.run(400 * time.Millisecond)
				for i := range 4 {
					y.play(&mediapb.PlayRequest{Id: fmt.Sprint("replaces", i), Pcm: tone(400, time.Second)})
					a.run(330 * time.Millisecond)
				}
				y.play(&mediapb.PlayRequest{})
				a.run(300 * time.Millisecond)
				for i := range 4 {
					y.play(&mediapb.PlayRequest{Id: fmt.Sprint("ends", i), Pcm: tone(400, 107*time.Millisecond)})
					a.run(330 * time.Millisecond)
				}
				if d := y.kink(400, 16000+320); d > clickLimit {
					t.Errorf("click of %.0f", d)
				}
				a.wantEnded("y long cut=true", "y replaces0 cut=true", "y replaces1 cut=true", "y replaces2 cut=true",
					"y replaces3 cut=true", "y ends0 cut=false", "y ends1 cut=false", "y ends2 cut=false", "y ends3 cut=false")
			})
		}
	}
}

// A loop goes on without a seam until it is stopped; the listener is then one of many
// again.
func TestSoundLoops(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	x := a.join("c", "x", wb, 440)
	y := a.join("c", "y", wb, 0)
	a.join("c", "z", wb, 0)
	a.run(time.Second)
	y.play(&mediapb.PlayRequest{Id: "l", Pcm: tone(800, 5*time.Millisecond), Loop: true}) // 4 periods, shorter than a frame
	a.run(time.Second)
	from := len(y.heard)
	a.run(2 * time.Second)
	y.wantLevel("the loop", 800, 0)
	if d := y.kink(800, from); d > clickLimit {
		t.Errorf("a seam of %.0f in the loop", d)
	}
	a.wantEnded()
	y.play(&mediapb.PlayRequest{})
	a.run(time.Second)
	a.wantEnded("y l cut=true")
	y.wantLevel("the loop", 800, nothing)
	y.wantLevel("the room", x.toneHz, 0)
	before := a.engine().Encodes
	a.run(time.Second)
	if n := a.engine().Encodes - before; n != 50 {
		t.Errorf("%d encodes in 50 ticks after the sound, want 50: the shared one; z is passed on", n)
	}
	y.play(&mediapb.PlayRequest{Id: "last", Pcm: tone(800, time.Second), Loop: true})
	a.run(40 * time.Millisecond)
	if _, err := a.e.CloseLeg(t.Context(), "y"); err != nil {
		t.Fatal(err)
	}
	y.off = true
	a.run(40 * time.Millisecond)
	a.wantEnded("y l cut=true", "y last cut=true")
}

// A caller in a menu: hears the prompt alone, then silence that is no dead line, and
// its keys are reported, though it is not in the conference.
func TestMenuBeforeTheConference(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	x := a.join("c", "x", wb, 440)
	y := a.join("c", "y", wb, 700, func(l *mediapb.Leg) { l.Present = false })
	a.run(400 * time.Millisecond)
	y.play(&mediapb.PlayRequest{Id: "pin", Pcm: tone(1100, time.Second)})
	a.run(500 * time.Millisecond)
	y.press(5)
	a.run(2 * time.Second)
	var digits string
	for _, ev := range a.events {
		if d := ev.GetDigit(); d != nil {
			digits += ev.Leg + d.Digit
		}
	}
	if digits != "y5" {
		t.Errorf("digits %q, want y5", digits)
	}
	x.wantLevel("who is in the menu", y.toneHz, nothing)
	n := len(y.packets)
	a.run(1600 * time.Millisecond)
	if n = len(y.packets) - n; n < 9 || n > 11 {
		t.Errorf("%d packets in 1.6 s between prompts, want comfort noise", n)
	}
}

// On hold by the phone nothing may be sent: the sound's end comes all the same.
func TestSoundEndsWhereNothingMayBeSent(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	y := a.join("c", "y", wb, 0, func(l *mediapb.Leg) { l.Audio.Send = false })
	y.play(&mediapb.PlayRequest{Id: "s", Pcm: tone(700, 300*time.Millisecond)})
	a.run(400 * time.Millisecond)
	a.wantEnded("y s cut=false")
	if len(y.packets) != 0 {
		t.Errorf("%d packets on hold", len(y.packets))
	}
}

func TestPlayRefuses(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	a.join("c", "y", wb, 0)
	for name, tt := range map[string]struct {
		r    *mediapb.PlayRequest
		code codes.Code
	}{
		"no leg named":    {&mediapb.PlayRequest{Pcm: []byte{0, 0}}, codes.InvalidArgument},
		"no such leg":     {&mediapb.PlayRequest{Leg: "n", Pcm: []byte{0, 0}}, codes.NotFound},
		"half a sample":   {&mediapb.PlayRequest{Leg: "y", Pcm: []byte{0, 0, 0}}, codes.InvalidArgument},
		"too long":        {&mediapb.PlayRequest{Leg: "y", Pcm: make([]byte, 121*32000)}, codes.InvalidArgument},
		"stop nothing":    {&mediapb.PlayRequest{Leg: "y"}, codes.OK},
		"a single sample": {&mediapb.PlayRequest{Leg: "y", Pcm: []byte{0, 9}}, codes.OK},
	} {
		if err := a.e.Play(t.Context(), tt.r); status.Code(err) != tt.code {
			t.Errorf("%s: %v, want %v", name, err, tt.code)
		}
	}
	a.run(40 * time.Millisecond)
}

func TestSoundDoesNotAllocate(t *testing.T) {
	a, tick := crowd(t, 8, 3)
	for _, p := range a.phones[2:5] {
		p.play(&mediapb.PlayRequest{Id: "s", Pcm: tone(500, time.Second), Loop: true})
	}
	a.phones[6].play(&mediapb.PlayRequest{Id: "ends", Pcm: tone(500, time.Second)})
	if n := testing.AllocsPerRun(100, tick); n != 0 {
		t.Errorf("a tick with sounds allocates %v times, want 0", n)
	}
}
