package media

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"

	"sparkle/media/codec/opus"
	"sparkle/media/mediapb"
)

// sends writes one packet of the phone's own making.
func (p *phone) sends(pt uint8, ticks uint32, body []byte) {
	p.a.t.Helper()
	p.seq++
	p.ts += ticks
	b := make([]byte, 12, 12+len(body))
	header(b, pt, p.seq, p.ts, p.ssrc)
	p.write(append(b, body...))
}

// Two Opus legs are passed each other's packets, and so is a conference where one talks:
// nothing is encoded, and of a voice that is passed on little is decoded.
func TestOpusIsPassedOn(t *testing.T) {
	for _, legs := range []int{2, 4} {
		a := newAir(t, Options{})
		a.set(confC())
		x := a.join("c", "x", opu, 0)
		var others []*phone
		for i := 1; i < legs; i++ {
			others = append(others, a.join("c", fmt.Sprint("o", i), opu, 0))
		}
		a.run(time.Second)
		x.says(voice(t, 1))
		a.run(500 * time.Millisecond)
		before, came := a.engine(), len(others[0].packets)
		a.run(3 * time.Second)
		after := a.engine()
		if n := after.Encodes - before.Encodes; n != 0 {
			t.Errorf("%d legs: %d encodes where one voice could be passed on", legs, n)
		}
		if n := after.Decodes - before.Decodes; n > 110 {
			t.Errorf("%d legs: %d decodes in 150 ticks", legs, n)
		}
		for _, o := range others {
			if n := len(o.packets) - came; n < 100 {
				t.Errorf("%d legs: %s got %d packets of a voice of 3 s", legs, o.leg.Id, n)
			}
		}
	}
}

// A packet lost on the way in is a number left out on the way on: the listener's decoder
// knows best what to make of that.
func TestLostOpusIsALeftOutNumber(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	x, l := a.join("c", "x", opu, 0), a.join("c", "l", opu, 0)
	x.noDTX, x.fec = true, true
	x.codecs()
	x.says(voice(t, 1))
	a.run(500 * time.Millisecond)
	x.drop = func(n int) bool { return n%10 == 0 }
	from := len(l.packets)
	a.run(2 * time.Second)
	gaps := 0
	for i := from + 1; i < len(l.packets); i++ {
		switch step := l.packets[i].Seq - l.packets[i-1].Seq; {
		case step > 1 && step < 4 && l.packets[i].Timestamp-l.packets[i-1].Timestamp == uint32(step)*opus.FrameTicks:
			gaps++ // of two where playout was stretched
		case step != 1:
			t.Errorf("packet %d is %d numbers after the one before", i, step)
		}
	}
	if gaps < 8 || gaps > 11 {
		t.Errorf("%d numbers were left out, want 10", gaps)
	}
}

// What is lost of Opus with FEC is heard all the same.
func TestOpusRecoversFromLossByFEC(t *testing.T) {
	clip := voice(t, 3)
	run := func(fec bool) (concealed uint64, understood float64) {
		a := newAir(t, Options{})
		a.set(confC())
		x, o := a.join("c", "x", opu, 0), a.join("c", "o", wb, 0)
		x.noDTX, x.fec = true, fec
		x.codecs()
		a.run(time.Second)
		r := rand.New(rand.NewPCG(4, 4))
		x.drop = func(int) bool { return r.Float64() < 0.1 }
		x.delay = func(int) time.Duration { return time.Duration(r.Float64() * float64(30*time.Millisecond)) }
		from := len(o.heard)
		x.says(clip)
		a.run(5500 * time.Millisecond)
		got, _ := align(o.heard[from:], floats(clip))
		return a.stats("x").Audio.Concealed, intelligibility(got, floats(clip))
	}
	without, heardWithout := run(false)
	with, heardWith := run(true)
	t.Logf("10 %% lost: concealed %d, intelligibility %.3f; with FEC %d and %.3f", without, heardWithout, with, heardWith)
	if with > without*2/3 || heardWith < heardWithout {
		t.Errorf("concealed %d without FEC and %d with, intelligibility %.3f and %.3f", without, with, heardWithout, heardWith)
	}
}

// In silence a peer that knows DTX gets a header, and one every 400 ms; another gets a frame
// in every tick.
func TestOpusSilence(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	dtx := a.join("c", "dtx", opu, 0)
	all := a.join("c", "all", opu, 0, func(l *mediapb.Leg) { l.Audio.Dtx = false })
	x := a.join("c", "x", wb, 500)
	a.run(time.Second)
	dtx.hears(x)
	all.hears(x)
	x.toneHz = 0
	a.run(time.Second)
	from := [2]int{len(dtx.packets), len(all.packets)}
	a.run(4 * time.Second)
	if n := len(dtx.packets) - from[0]; n < 9 || n > 11 {
		t.Errorf("%d packets in 4 s of silence with DTX, want 10", n)
	}
	for _, ft := range dtx.fts[from[0]:] {
		if ft != ftComfort {
			t.Fatal("a frame of silence has sound in it")
		}
	}
	if n := len(all.packets) - from[1]; n < 199 || n > 201 {
		t.Errorf("%d packets in 4 s of silence without DTX, want 200", n)
	}
	if v := rms(all.heard[len(all.heard)-16000:]); v > 20 {
		t.Errorf("silence without DTX has an RMS of %.0f", v)
	}
}

// A peer's limits (RFC 7587 §6.1) are kept: it is encoded for at its rate, not passed frames.
func TestOpusLimits(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	x := a.join("c", "x", opu, 0)
	slow := a.join("c", "slow", opu, 0, func(l *mediapb.Leg) { l.Audio.MaxBitrateBps, l.Audio.MaxPlaybackHz = 8000, 8000 })
	free := a.join("c", "free", opu, 0)
	clip := voice(t, 1)
	a.run(time.Second)
	x.says(clip)
	before := [2]uint64{a.stats("slow").Audio.TxBytes, a.stats("free").Audio.TxBytes}
	from := len(slow.heard)
	a.run(4 * time.Second)
	bps := [2]uint64{(a.stats("slow").Audio.TxBytes - before[0]) * 2, (a.stats("free").Audio.TxBytes - before[1]) * 2}
	if bps[0] > 10000 || bps[1] < 12000 {
		t.Errorf("%d bit/s to the one with a limit of 8000, %d to the other", bps[0], bps[1])
	}
	ref := lowpass(floats(clip[:3*16000]))
	got, _ := align(lowpass(slow.heard[from:]), ref)
	if db := decibels(rms(got) / rms(ref)); abs(db) > 2 {
		t.Errorf("the one with a limit hears at %+.1f dB", db)
	}
	_ = free
}

// Packets of 10 and 60 ms, made by ffmpeg, and of three frames of 20 are heard.
func TestOpusPacketsOfOtherLengths(t *testing.T) {
	clip := voice(t, 1)
	heard := func(packets [][]byte, ms int) {
		t.Helper()
		a := newAir(t, Options{})
		a.set(confC())
		x, o := a.join("c", "x", opu, 0), a.join("c", "o", pcma, 0)
		x.off = true
		a.run(200 * time.Millisecond)
		from := len(o.heard)
		for i := 0; i < len(packets); {
			for range max(20/ms, 1) {
				if i < len(packets) {
					x.sends(96, 0, packets[i])
					x.ts += uint32(ms * 48)
					i++
				}
			}
			x.ts -= 960 * uint32(max(ms/20, 1)) // off keeps time too
			a.run(time.Duration(max(ms, 20)) * time.Millisecond)
		}
		a.run(200 * time.Millisecond)
		ref := lowpass(floats(clip[:3*16000]))
		got, _ := align(lowpass(o.heard[from:]), ref)
		if c := intelligibility(got, ref); c < 0.85 {
			t.Errorf("packets of %d ms: intelligibility %.2f", ms, c)
		}
		if s := a.stats("x").Audio; s.RxDropped > 0 || s.Concealed > 15 {
			t.Errorf("packets of %d ms: %d dropped, %d concealed", ms, s.RxDropped, s.Concealed)
		}
	}
	enc, err := opus.NewEncoder(opus.Params{})
	if err != nil {
		t.Skip(err)
	}
	defer enc.Close()
	var three [][]byte
	for i := 0; i+3*frameLen <= len(clip); i += 3 * frameLen {
		var lens, data []byte
		var buf [opus.MaxBytes]byte
		toc := byte(0)
		for k := range 3 {
			n := enc.Encode(clip[i+k*frameLen:i+(k+1)*frameLen], buf[:])
			toc = buf[0]
			if k < 2 {
				lens = append(lens, byte(n-1)) // always below 252 at this rate
			}
			data = append(data, buf[1:n]...)
		}
		three = append(three, append(append([]byte{toc | 3, 0x83}, lens...), data...))
	}
	heard(three, 60)
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	heard(ffmpegOpus(t, clip, "10"), 10)
	heard(ffmpegOpus(t, clip, "60"), 60)
}

// ffmpegOpus are the packets that ffmpeg makes of speech.
func ffmpegOpus(t *testing.T, pcm []int16, ms string) (out [][]byte) {
	raw := make([]byte, 2*len(pcm))
	for i, v := range pcm {
		binary.LittleEndian.PutUint16(raw[2*i:], uint16(v))
	}
	cmd := exec.Command("ffmpeg", "-v", "error", "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "-",
		"-c:a", "libopus", "-application", "voip", "-b:a", "24k", "-frame_duration", ms, "-f", "ogg", "-")
	cmd.Stdin = bytes.NewReader(raw)
	b, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packet []byte
	for len(b) >= 27 && string(b[:4]) == "OggS" { // RFC 3533 §6
		n := int(b[26])
		lacing, body := b[27:27+n], b[27+n:]
		for _, size := range lacing {
			packet = append(packet, body[:size]...)
			if body = body[size:]; size < 255 {
				out, packet = append(out, packet), nil
			}
		}
		b = body
	}
	return out[2:] // OpusHead, OpusTags
}

// G.711 and G.722 in packets of 10, 30 and 40 ms are heard, by others of the codec and in a mix;
// of a lost one no more is missed than the frames it was of.
func TestPacketsOfOtherLengths(t *testing.T) {
	for _, codec := range []mediapb.AudioStream_Codec{pcma, g7} {
		for _, ms := range []int{5, 10, 30, 40} {
			for _, lossy := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v %d ms lossy=%v", codec, ms, lossy), func(t *testing.T) {
					a := newAir(t, Options{})
					a.set(confC())
					x, same, o := a.join("c", "x", codec, 0), a.join("c", "same", codec, 0), a.join("c", "o", pcmu, 0)
					a.run(400 * time.Millisecond)
					x.off = true
					before := a.stats("x").Audio
					enc, err := newCoder(coderKind{codec: codec})
					if err != nil {
						t.Fatal(err)
					}
					defer enc.close()
					const hz = 500
					var octets []byte
					var pcm [frameLen]int16
					k, packets := 0, 0
					for range 60 {
						for i := range pcm {
							pcm[i] = int16(toneAmplitude * math.Sin(2*math.Pi*hz*float64(k)/16000))
							k++
						}
						enc.encode(0, &pcm)
						octets = append(octets, enc.out.bits...)
						for size := ms * 8; len(octets) >= size; octets = octets[size:] {
							packets++
							if lossy && packets%10 == 0 {
								x.seq++
								x.ts += uint32(size)
								continue
							}
							b := make([]byte, 12, 12+size)
							x.seq++
							header(b, 96, x.seq, x.ts, x.ssrc)
							x.write(append(b, octets[:size]...))
							x.ts += uint32(size)
						}
						x.ts -= x.step // off keeps time too
						a.run(20 * time.Millisecond)
					}
					for _, p := range []*phone{same, o} {
						if db := p.level(hz, 400*time.Millisecond); db < -3 || db > 3 {
							t.Errorf("%s hears it at %.1f dB", p.leg.Id, db)
						}
					}
					s := a.stats("x").Audio
					lost := map[bool]uint64{true: uint64(60 * 20 / ms / 10 * (ms/20 + 2)), false: 0}[lossy]
					if n := s.Concealed - before.Concealed; s.RxDropped != 0 || n > lost+12 { // 12: the pause before
						t.Errorf("%d dropped, %d concealed, want at most %d", s.RxDropped, n, lost)
					}
				})
			}
		}
	}
}

// Octets that are no Opus do not hurt a conference, and the next good packets are heard.
func TestOpusGarbageInAConference(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	x, o := a.join("c", "x", opu, 0), a.join("c", "o", wb, 0)
	x.off = true
	r := rand.New(rand.NewPCG(8, 1))
	loudest := 0.0
	for range 500 {
		b := make([]byte, r.IntN(300))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		x.sends(96, 0, b)
		a.run(20 * time.Millisecond)
		loudest = max(loudest, rms(o.heard[len(o.heard)-frameLen:]))
	}
	if db := decibels(loudest / 32768); db > -9 {
		t.Errorf("garbage is heard at %.1f dBov", db)
	}
	x.off, x.noDTX = false, true
	x.codecs()
	clip := voice(t, 1)
	for _, want := range []float64{0.75, 0.88} { // it takes a moment until it is believed again
		x.says(clip)
		from := len(o.heard)
		a.run(4 * time.Second)
		ref := floats(clip[:3*16000])
		if got, _ := align(o.heard[from:], ref); intelligibility(got, ref) < want {
			t.Errorf("after garbage speech is understood %.2f, want %.2f", intelligibility(got, ref), want)
		}
	}
}

// Who hears the same in G.722 shares an encoder, and whoever talks or stops to does not jump.
func TestG722SharesAnEncoder(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	x := a.join("c", "x", wb, 0)
	var listeners []*phone
	for i := range 4 {
		listeners = append(listeners, a.join("c", fmt.Sprint("g", i), g7, 0))
	}
	a.run(time.Second)
	before := a.engine()
	x.says(voice(t, 1))
	a.run(2 * time.Second)
	if n := a.engine().Encodes - before.Encodes; n < 95 || n > 110 {
		t.Errorf("%d encodes in 100 ticks for four who hear the same", n)
	}
	// One of them talks for a moment, and hears the others all the while.
	clip := voice(t, 1)
	from := len(listeners[0].heard)
	x.says(clip)
	a.run(time.Second)
	listeners[0].toneHz = 3300
	a.run(500 * time.Millisecond)
	listeners[0].toneHz = 0
	a.run(4 * time.Second)
	ref := floats(clip)
	got, _ := align(listeners[0].heard[from:], ref)
	if snr := segSNR(got, ref, nil); snr < 9 {
		t.Errorf("segmental SNR %.1f dB for one that leaves the shared encoder and comes back", snr)
	}
}

// Comfort noise (RFC 3389) goes to who took it, in silence only, and a received one is
// silence of a level.
func TestComfortNoise(t *testing.T) {
	for _, codec := range []mediapb.AudioStream_Codec{pcmu, pcma} {
		a := newAir(t, Options{})
		a.set(confC())
		took := a.join("c", "took", codec, 0, func(l *mediapb.Leg) { l.Audio.ComfortNoise = true })
		not := a.join("c", "not", codec, 0)
		x := a.join("c", "x", wb, 500)
		a.run(time.Second)
		took.hears(x)
		not.hears(x)
		for _, p := range took.packets[len(took.packets)-25:] {
			if p.Type != 96 {
				t.Errorf("%v: payload type %d while somebody talks", codec, p.Type)
			}
		}
		x.toneHz = 0
		a.run(time.Second)
		from, fromNot := len(took.packets), len(not.packets)
		took.off = true
		for range 5 { // it is silent too
			took.sends(ptCN, 0, []byte{52, 3, 4, 5})
			a.run(400 * time.Millisecond)
		}
		for _, p := range took.packets[from:] {
			if p.Type != ptCN {
				t.Errorf("%v: payload type %d in silence", codec, p.Type)
			}
		}
		if n := len(took.packets) - from; n < 4 || n > 6 {
			t.Errorf("%v: %d packets in 2 s of silence, want 5", codec, n)
		}
		if n := len(not.packets) - fromNot; n != 100 {
			t.Errorf("%v: %d packets in 2 s of silence to one that knows no comfort noise", codec, n)
		}
		for _, p := range not.packets[fromNot:] {
			if p.Type == ptCN {
				t.Fatalf("%v: comfort noise to one that did not take it", codec)
			}
		}
		s := a.stats("took")
		if s.Audio.Concealed > 12 || s.Audio.RxDropped != 0 || s.Talking {
			t.Errorf("%v: %d concealed, %d dropped, talking %v", codec, s.Audio.Concealed, s.Audio.RxDropped, s.Talking)
		}
		if math.Abs(float64(s.LevelDbov)+52) > 1 {
			t.Errorf("%v: silence of -52 dBov is %v", codec, s.LevelDbov)
		}
		took.off, took.toneHz = false, 700
		a.run(time.Second)
		not.hears(took)
	}
}

func TestGuestsDoNotAllocate(t *testing.T) {
	for _, agc := range []bool{false, true} {
		guestsDoNotAllocate(t, Options{AGC: agc})
	}
}

func guestsDoNotAllocate(t *testing.T, opt Options) {
	a := newAir(t, opt)
	a.set(confC())
	feed := []*phone{a.join("c", "o", opu, 0), a.join("c", "g", g7, 0), a.join("c", "p", pcmu, 0)}
	a.join("c", "w", wb, 0)
	a.join("c", "o2", opu, 0, func(l *mediapb.Leg) { l.Audio.Dtx = false })
	a.join("c", "cn", pcmu, 0, func(l *mediapb.Leg) { l.Audio.ComfortNoise = true })
	for i, p := range feed {
		p.noDTX = true
		p.codecs()
		p.says(voice(t, i))
	}
	a.run(2 * time.Second)
	w := a.e.workers[0]
	legs := make([]*leg, len(feed))
	for i, p := range feed {
		legs[i] = a.e.legs[p.leg.Id].leg.Load()
	}
	h := &legs[0].rtpIn
	if n := testing.AllocsPerRun(200, func() {
		a.now += int64(tickTime)
		for i, p := range feed {
			p.ts += p.step
			if i == 0 {
				h.Payload, h.Timestamp = p.enc.out.bits, p.ts
				legs[0].pushOpus(h, legs[0].since(a.now))
				continue
			}
			legs[i].jb.Push(p.ts, legs[i].since(a.now), ftSpeech, false, false, p.enc.out.bits)
		}
		w.onDeadline(a.now)
	}); n != 0 {
		t.Errorf("agc %v: a tick allocates %v times, want 0", opt.AGC, n)
	}
}

func FuzzOpusPackets(f *testing.F) {
	f.Add([]byte{0x48, 1, 2, 3})
	f.Add([]byte{0x43, 0xc3, 1, 1, 5, 7, 9, 0})
	f.Add([]byte{0x58, 0xff, 0xff, 0xff})
	a := newAir(f, Options{})
	a.set(confC())
	p := a.join("c", "l", opu, 0)
	a.join("c", "o", wb, 0)
	w := a.e.workers[0]
	l := a.e.legs["l"].leg.Load()
	f.Fuzz(func(t *testing.T, body []byte) {
		p.seq++
		p.ts += 960
		b := make([]byte, 12, 12+len(body))
		header(b, 96, p.seq, p.ts, p.ssrc)
		a.now += int64(tickTime)
		l.onRTP(w, append(b, body...), addrOf(p.rtp), true, a.now)
		w.onDeadline(a.now)
		for len(a.e.notes) > 0 {
			<-a.e.notes
		}
	})
}

// Twelve frames of AMR-WB a packet are all heard (RFC 4867 §4.3, maxptime 240).
func TestTwelveFramesAPacketAreHeard(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	x, o := a.join("c", "x", wb, 0, octets), a.join("c", "o", pcma, 0)
	x.off = true
	clip := voice(t, 1)
	enc, err := newCoder(coderKind{codec: wb})
	if err != nil {
		t.Fatal(err)
	}
	defer enc.close()
	a.run(100 * time.Millisecond)
	from := len(o.heard)
	var pcm [frameLen]int16
	toc, data := []byte{0xf0}, []byte(nil)
	for f := range len(clip) / frameLen {
		copy(pcm[:], clip[f*frameLen:])
		enc.encode(8, &pcm)
		toc, data = append(toc, 0x80|8<<3|4), append(data, enc.out.bits...)
		if len(toc) == 13 {
			toc[12] &^= 0x80 // the last
			x.seq++
			b := make([]byte, 12)
			header(b, 96, x.seq, uint32(f-11)*320, x.ssrc)
			x.write(append(append(b, toc...), data...))
			toc, data = toc[:1], nil
		}
		a.run(20 * time.Millisecond)
	}
	a.run(300 * time.Millisecond)
	s := a.stats("x").Audio
	got, lag := align(o.heard[from+200*16:], floats(clip[:4*16000]))
	if c := intelligibility(got, floats(clip[:4*16000])); c < 0.93 || s.RxDropped+s.RxLate > 0 || s.Concealed > 11 {
		t.Errorf("intelligibility %.2f (lag %d ms), %d dropped, %d late, %d concealed", c, lag/16, s.RxDropped, s.RxLate, s.Concealed)
	}
}
