package media

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"sparkle/media/codec/amr"
	"sparkle/media/codec/opus"
	"sparkle/media/mediapb"
	"sparkle/media/payload"
	"sparkle/media/rtp"
)

// air is an engine that runs only when told, with phones on real loopback sockets: a
// minute of conference takes as long as its codecs do.
type air struct {
	t      testing.TB
	e      *Engine
	now    int64
	phones []*phone
	events []*mediapb.Event
	sub    *subscriber
}

func newAir(t testing.TB, opt Options) *air {
	t.Helper()
	if opt.Log == nil && testing.Verbose() {
		opt.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	opt.Workers = 1
	a := &air{t: t, now: int64(time.Hour)}
	e, err := newEngine(opt, func() int64 { return a.now })
	if err != nil {
		t.Fatal(err)
	}
	a.e = e
	a.sub = e.hub.subscribe()
	t.Cleanup(func() {
		e.Close()
		for _, p := range a.phones {
			p.rtp.Close()
			p.rtcp.Close()
		}
	})
	return a
}

// beatTime is how finely a test's time passes.
const beatTime = 5 * time.Millisecond

// run lets time pass: phones talk, the engine mixes, phones listen.
func (a *air) run(d time.Duration) {
	a.t.Helper()
	for end := a.now + int64(d); a.now < end; {
		if (a.now/int64(beatTime))%4 == 0 {
			for _, p := range a.phones {
				p.talk()
			}
		}
		a.now += int64(beatTime)
		for _, p := range a.phones {
			p.arrive()
		}
		for _, w := range a.e.workers {
			w.step(a.now)
		}
		for len(a.e.notes) > 0 {
			a.e.tell(<-a.e.notes)
		}
		if a.now%int64(reportTime) == 0 {
			a.e.look(a.now)
		}
		for _, p := range a.phones {
			p.listen()
		}
	}
	evs, _ := a.sub.take()
	a.events = append(a.events, evs...)
}

func (a *air) stats(id string) *mediapb.LegStats {
	a.t.Helper()
	s, err := a.e.Snapshot(context.Background())
	if err != nil {
		a.t.Fatal(err)
	}
	for _, l := range s.Legs {
		if l.Id == id {
			return l
		}
	}
	a.t.Fatalf("no leg %s in the snapshot", id)
	return nil
}

func (a *air) engine() *mediapb.EngineStats {
	a.t.Helper()
	s, err := a.e.Snapshot(context.Background())
	if err != nil {
		a.t.Fatal(err)
	}
	return s.Engine
}

func (a *air) set(c *mediapb.Conference) {
	a.t.Helper()
	if err := a.e.SetConference(context.Background(), c); err != nil {
		a.t.Fatal(err)
	}
}

// phone is a handset that says one tone and keeps what it hears.
type phone struct {
	a         *air
	rtp, rtcp *net.UDPConn
	leg       *mediapb.Leg
	format    payload.Format
	enc       *coder
	dec       *decoder
	toneHz    float64 // 0: silent
	off       bool    // sends nothing at all
	mode      int
	cmr       uint8
	phase     float64
	seq       uint16
	ts        uint32
	ssrc      uint32
	to        netip.AddrPort
	toRTCP    netip.AddrPort
	drop      func(n int) bool // which packets get lost
	delay     func(n int) time.Duration
	air       []late
	say       []int16 // speech in place of the tone
	said      int     // samples of it
	noDTX     bool
	fec       bool   // Opus
	paused    bool   // Opus: in DTX
	step      uint32 // of the RTP clock
	sent      int

	told    float32   // of silence, in the last description of comfort noise, dBov
	heard   []float64 // samples at 16 kHz, silence where nothing came
	packets []rtp.Packet
	fts     []uint8 // of the frames that came
	asked   []uint8 // mode requests in them
	reports [][]byte
	got     bool
}

func listenUDP(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// join opens a leg with a codec and a tone.
func (a *air) join(conf, id string, codec mediapb.AudioStream_Codec, toneHz float64, change ...func(*mediapb.Leg)) *phone {
	a.t.Helper()
	if !amr.Available && codec != pcmu && codec != pcma {
		a.t.Skip("this build has no codec but G.711")
	}
	p := &phone{a: a, rtp: listenUDP(a.t), rtcp: listenUDP(a.t), toneHz: toneHz, cmr: payload.NoRequest,
		ssrc: uint32(len(a.phones) + 1), seq: 65530, ts: 0xffffff00}
	a.phones = append(a.phones, p)
	reply, err := a.e.OpenLeg(context.Background(), &mediapb.OpenLegRequest{Conference: conf, Leg: id, LocalIp: "127.0.0.1"})
	if err != nil {
		a.t.Fatal(err)
	}
	ip := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	p.to, p.toRTCP = netip.AddrPortFrom(ip, uint16(reply.AudioPort)), netip.AddrPortFrom(ip, uint16(reply.AudioPort+1))
	p.leg = &mediapb.Leg{Id: id, Present: true, Audio: &mediapb.AudioStream{
		Remote: &mediapb.Remote{Ip: "127.0.0.1", Port: uint32(addrOf(p.rtp).Port()), RtcpPort: uint32(addrOf(p.rtcp).Port())},
		Codec:  codec, PayloadType: 96, DtmfPayloadType: 101, Send: true, Recv: true, Dtx: true,
	}}
	for _, f := range change {
		f(p.leg)
	}
	p.codecs()
	a.t.Cleanup(func() { p.enc.close(); p.dec.close() })
	p.update()
	return p
}

func (p *phone) codecs() {
	p.a.t.Helper()
	p.enc.close()
	p.dec.close()
	k := coderKind{codec: p.leg.Audio.Codec}
	k.dtx = !p.noDTX && !k.law() // G.711 has no detector of its own
	k.opus.FEC, k.opus.DTX = p.fec, k.dtx && k.isOpus()
	var err error
	if p.enc, err = newCoder(k); err == nil {
		p.dec, err = newDecoder(k)
	}
	if err != nil {
		p.a.t.Fatal(err)
	}
	p.step = 160
	switch {
	case k.wide():
		p.step = 320
	case k.isOpus():
		p.step = 960
	}
	p.format = payload.Format{Wide: k.wide(), OctetAligned: p.leg.Audio.OctetAlign}
	p.mode = 7
	if p.format.Wide {
		p.mode = 8
	}
}

// update sends the leg's wanted state.
func (p *phone) update() {
	p.a.t.Helper()
	if err := p.a.e.SetLeg(context.Background(), p.leg); err != nil {
		p.a.t.Fatal(err)
	}
}

// late is a packet on its way.
type late struct {
	at int64
	b  []byte
}

// arrive hands over what is due.
func (p *phone) arrive() {
	rest := p.air[:0]
	for _, x := range p.air {
		if x.at <= p.a.now {
			p.write(x.b)
		} else {
			rest = append(rest, x)
		}
	}
	p.air = rest
}

const toneAmplitude = 2500

// talk sends one frame.
func (p *phone) talk() {
	var pcm [frameLen]int16
	if p.said < len(p.say) {
		copy(pcm[:], p.say[p.said:])
	}
	p.said += frameLen
	for i := range pcm {
		if p.toneHz > 0 {
			pcm[i] = int16(toneAmplitude * math.Sin(p.phase))
			p.phase += 2 * math.Pi * p.toneHz / 16000
		}
	}
	p.enc.encode(p.mode, &pcm)
	p.ts += p.step
	nothing := p.enc.out.ft == amr.NoData
	if nothing && p.enc.kind.isOpus() && !p.paused { // its first of a pause is sent
		nothing = false
	}
	p.paused = p.enc.out.ft == amr.NoData
	if p.off || nothing {
		return
	}
	p.seq++
	p.sent++
	if p.drop != nil && p.drop(p.sent) {
		return
	}
	b := make([]byte, 12+frameMax+4)
	header(b, p.pt(), p.seq, p.ts, p.ssrc)
	n := 0
	if p.enc.kind.amr() {
		n = p.format.Pack(b[12:], p.cmr, amr.Frame{Type: p.enc.out.ft, Bits: p.enc.out.bits})
	} else {
		n = copy(b[12:], p.enc.out.bits)
	}
	if p.delay != nil {
		p.air = append(p.air, late{p.a.now + int64(p.delay(p.sent)), b[:12+n]})
		return
	}
	p.write(b[:12+n])
}

func header(b []byte, pt uint8, seq uint16, ts, ssrc uint32) {
	rtp.PutHeader(b, false, pt, seq, ts, ssrc)
}

func (p *phone) write(b []byte) {
	p.a.t.Helper()
	if _, err := p.rtp.WriteToUDPAddrPort(b, p.to); err != nil {
		p.a.t.Fatal(err)
	}
}

// recv takes what is there without waiting: loopback delivers within the send call.
func recv(c *net.UDPConn, f func(b []byte)) {
	raw, _ := c.SyscallConn()
	buf := make([]byte, 2048)
	for more := true; more; {
		_ = raw.Read(func(fd uintptr) bool {
			n := readNow(int(fd), buf)
			if n < 0 {
				more = false
			} else {
				f(buf[:n])
			}
			return true
		})
	}
}

// listen takes what came and, every fourth beat, plays 20 ms.
func (p *phone) listen() {
	recv(p.rtcp, func(b []byte) { p.reports = append(p.reports, append([]byte(nil), b...)) })
	var out [frameLen]int16
	recv(p.rtp, func(b []byte) {
		var h rtp.Packet
		if err := h.Parse(b); err != nil {
			p.a.t.Errorf("%s: malformed RTP from the engine", p.leg.Id)
			return
		}
		body := h.Payload
		h.Payload = nil // of the buffer
		p.packets = append(p.packets, h)
		p.got = true
		if !p.dec.kind.amr() {
			if h.Type == ptCN || p.dec.kind.isOpus() && len(body) <= opus.QuietBytes {
				p.fts = append(p.fts, ftComfort)
				p.told = -float32(body[0])
				return
			}
			p.fts = append(p.fts, 0)
			p.dec.decode(0, false, body, &out)
			return
		}
		var frames [payload.MaxFrames]amr.Frame
		for i := range frames {
			frames[i].Bits = make([]byte, amr.MaxBytes)
		}
		cmr, n, err := p.format.Unpack(body, &frames)
		if err != nil || n != 1 {
			p.a.t.Errorf("%s: payload from the engine: %d frames, %v", p.leg.Id, n, err)
			return
		}
		p.fts = append(p.fts, frames[0].Type)
		p.asked = append(p.asked, cmr)
		if frames[0].Type == p.dec.kind.sidType() {
			p.told, _ = amr.NoiseLevel(p.format.Wide, frames[0].Bits)
		}
		p.dec.decode(frames[0].Type, false, frames[0].Bits, &out)
	})
	if p.a.now%int64(tickTime) != 0 {
		return
	}
	for _, v := range out {
		p.heard = append(p.heard, float64(v))
	}
}

// level is how loud a tone is in the last d of what the phone heard, in dB relative to
// how it was said (Goertzel).
func (p *phone) level(hz float64, d time.Duration) float64 {
	n := int(d.Seconds() * 16000)
	x := p.heard[max(len(p.heard)-n, 0):]
	c := 2 * math.Cos(2*math.Pi*hz/16000)
	var s1, s2 float64
	for i, v := range x {
		w := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(len(x)))
		s1, s2 = v*w+c*s1-s2, s1
	}
	amp := 4 * math.Sqrt(max(s1*s1+s2*s2-c*s1*s2, 0)) / float64(len(x))
	return 20 * math.Log10(max(amp, 1e-3)/toneAmplitude)
}

// hears fails unless the phone hears exactly these others: each within 3 dB of how it
// was said (plus off), everybody else at least 25 dB down.
func (p *phone) hears(want ...*phone) {
	p.a.t.Helper()
	for _, o := range p.a.phones {
		if o.toneHz == 0 {
			continue
		}
		db := p.level(o.toneHz, 400*time.Millisecond)
		expected := false
		for _, w := range want {
			expected = expected || w == o
		}
		if expected && (db < -3 || db > 3) {
			p.a.t.Errorf("%s hears %s at %.1f dB, want 0 ± 3", p.leg.Id, o.leg.Id, db)
		}
		if !expected && db > -25 {
			p.a.t.Errorf("%s hears %s at %.1f dB, want silence", p.leg.Id, o.leg.Id, db)
		}
	}
}

// pt is the payload type of what it sends: ours.
func (p *phone) pt() uint8 {
	switch a := p.leg.Audio; {
	case a == nil:
		return 96
	case a.ReceivePayloadType != nil:
		return uint8(*a.ReceivePayloadType)
	default:
		return uint8(a.PayloadType)
	}
}

func confC() *mediapb.Conference { return &mediapb.Conference{Id: "c"} }
