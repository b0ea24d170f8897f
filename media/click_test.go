package media

import (
	"fmt"
	"testing"
	"time"

	"sparkle/media/mediapb"
)

// Whatever becomes of a talker's stream, who hears it in a mix hears no click: it closes, its
// source or its timestamps change, frames are lost, it is muted, held, changes its codec.
func TestNoClickWhereAStreamBreaks(t *testing.T) {
	const hz = 430 // no whole number of periods a frame
	type event struct {
		name string
		do   func(a *air, x *phone)
	}
	events := []event{
		{"joins", func(*air, *phone) {}},
		{"closes", func(a *air, x *phone) {
			if _, err := a.e.CloseLeg(t.Context(), x.leg.Id); err != nil {
				t.Fatal(err)
			}
			x.off = true
		}},
		{"another source", func(_ *air, x *phone) { x.ssrc += 1000 }},
		{"timestamps jump", func(_ *air, x *phone) { x.ts += 1 << 20 }},
		{"stops", func(_ *air, x *phone) { x.off = true }},
		{"loses 5 %", func(_ *air, x *phone) { x.drop = func(n int) bool { return n%20 == 0 } }},
		{"loses 10 % in pairs", func(_ *air, x *phone) { x.drop = func(n int) bool { return n%20 < 2 } }},
		{"is muted", func(_ *air, x *phone) { x.leg.Muted = !x.leg.Muted; x.update() }},
		{"is held", func(_ *air, x *phone) { x.leg.Held = !x.leg.Held; x.update() }},
		{"has no audio", func(_ *air, x *phone) { x.leg.Audio = nil; x.off = true; x.update() }},
		{"changes its codec", func(_ *air, x *phone) {
			x.leg.Audio.Codec = map[bool]mediapb.AudioStream_Codec{true: wb, false: pcma}[x.leg.Audio.Codec == pcma]
			x.update()
			x.codecs()
			x.ssrc++
		}},
	}
	for _, codec := range []mediapb.AudioStream_Codec{pcma, wb, nb, g7, opu} {
		for _, e := range events {
			t.Run(fmt.Sprintf("%v %s", codec, e.name), func(t *testing.T) {
				a := newAir(t, Options{})
				a.set(confC())
				y := a.join("c", "y", pcmu, 0)
				a.join("c", "z", pcmu, 0)
				a.run(200 * time.Millisecond)
				x := a.join("c", "x", codec, hz)
				x.noDTX = true // to a detector a tone is no voice
				x.codecs()
				from := len(y.heard)
				if e.name != "joins" {
					a.run(600 * time.Millisecond)
					y.hears(x)
					from = len(y.heard)
				}
				e.do(a, x)
				if !x.off { // what can be done again hits another phase of the tone
					for range 3 {
						a.run(140 * time.Millisecond)
						e.do(a, x)
					}
				}
				a.run(400 * time.Millisecond)
				if d := y.kink(hz, from); d > clickLimit {
					t.Errorf("click of %.0f", d)
				}
			})
		}
	}
}

// Two legs that are passed each other's frames are mixed when a third is heard, or whispers, and
// are passed them again when it has gone: who listens hears no click. Who comes and says nothing
// changes nothing, of G.711 neither, which is heard a little later in a mix.
func TestNoClickBetweenPairAndMix(t *testing.T) {
	type row struct {
		codec mediapb.AudioStream_Codec
		third string
	}
	rows := []row{{pcma, "stays away"}, {pcma, "comes and goes"}}
	for _, third := range []string{"stays away", "comes and goes", "whispers", "whispers to him", "is whispered to"} {
		rows = append(rows, row{wb, third})
	}
	for _, tt := range rows {
		third := tt.third
		t.Run(fmt.Sprint(tt.codec, " ", third), func(t *testing.T) {
			const hz = 430
			a := newAir(t, Options{})
			a.set(confC())
			x, y := a.join("c", "x", tt.codec, hz), a.join("c", "y", tt.codec, 0)
			a.run(time.Second)
			from := len(y.heard)
			for range 2 {
				var z *phone
				whisper := &mediapb.Conference{Id: "c"}
				if third != "stays away" {
					z = a.join("c", fmt.Sprint("z", from, len(a.phones)), tt.codec, 0)
					a.run(300 * time.Millisecond)
				}
				switch third {
				case "whispers":
					whisper.Whispers = []*mediapb.Whisper{{FromLeg: z.leg.Id, ToLegs: []string{"x"}}}
				case "whispers to him":
					whisper.Whispers = []*mediapb.Whisper{{FromLeg: z.leg.Id, ToLegs: []string{"y"}}}
				case "is whispered to":
					whisper.Whispers = []*mediapb.Whisper{{FromLeg: "x", ToLegs: []string{z.leg.Id}}}
				}
				a.set(whisper)
				a.run(300 * time.Millisecond)
				a.set(confC())
				a.run(300 * time.Millisecond)
				if z != nil {
					z.off = true
					if _, err := a.e.CloseLeg(t.Context(), z.leg.Id); err != nil {
						t.Fatal(err)
					}
				}
				a.run(500 * time.Millisecond)
			}
			y.hears(x)
			d := y.kink(hz, from)
			t.Logf("at worst %.0f", d)
			if d > clickLimit {
				t.Errorf("click of %.0f", d)
			}
		})
	}
}

// So does speech: no frame of it is much louder than it was said, whenever the switch is.
func TestNoBlastBetweenPairAndMix(t *testing.T) {
	for _, codec := range []mediapb.AudioStream_Codec{wb, nb, opu} {
		clip := voice(t, 1)
		listen := func(visits bool) []float64 {
			a := newAir(t, Options{})
			a.set(confC())
			x, y := a.join("c", "x", codec, 0), a.join("c", "y", codec, 0)
			a.run(600 * time.Millisecond)
			from := len(y.heard)
			x.says(clip)
			z := a.join("c", "z", codec, 0)
			z.off = true
			for range 22 {
				if visits { // y is encoded for, 12 dB down
					a.set(&mediapb.Conference{Id: "c", Whispers: []*mediapb.Whisper{{FromLeg: "z", ToLegs: []string{"y"}}}})
				}
				a.run(60 * time.Millisecond)
				a.set(confC())
				a.run(160 * time.Millisecond)
			}
			return y.heard[from:]
		}
		alone, visited := listen(false), listen(true)
		level := func(x []float64, f int) float64 { return max(rms(x[f*frameLen:(f+1)*frameLen]), 200) }
		worst, at := 0.0, 0
		for f := 2; f < len(alone)/frameLen-1; f++ { // a mix is heard a little later
			said := max(level(alone, f-2), level(alone, f-1), level(alone, f), level(alone, f+1))
			if db := decibels(level(visited, f) / said); db > worst {
				worst, at = db, f
			}
		}
		t.Logf("%v: at worst %+.1f dB, in frame %d", codec, worst, at)
		if worst > 4 {
			t.Errorf("%v: a blast of %+.1f dB in frame %d", codec, worst, at)
		}
	}
}
