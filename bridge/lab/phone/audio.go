package phone

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/mediadevices/pkg/wave"
	"github.com/pion/rtp"

	"sparkle/media/codec/amr"
	"sparkle/media/codec/g711"
	"sparkle/media/codec/opus"
	"sparkle/media/jitter"
	"sparkle/media/payload"
	"sparkle/media/resample"
	"sparkle/sip/sdp"
)

// format is an audio codec as agreed.
type format struct {
	amr    bool
	wire   payload.Format // of AMR
	opus   bool
	send   opus.Params // of Opus: what the peer wants
	g722   bool
	law    g711.Law
	mode   int // of AMR, that we begin with
	rateHz int // of the RTP clock
}

// narrow says whether samples are at 8 kHz.
func (f format) narrow() bool { return f.rateHz == 8000 && !f.g722 }

const (
	ptCN    = 13 // RFC 3389
	comfort = 9  // the jitter buffer's kind for it, and for Opus without sound
)

func formatOf(a *sdp.Audio) (format, error) {
	f := format{rateHz: 8000}
	switch a.Codec {
	case "AMR-WB":
		f = format{amr: true, wire: payload.Format{Wide: true, OctetAligned: a.OctetAlign}, mode: 2, rateHz: 16000}
	case "AMR":
		f.amr, f.wire, f.mode = true, payload.Format{OctetAligned: a.OctetAlign}, 7
	case "PCMA":
		f.law = g711.PCMA
	case "PCMU":
		f.law = g711.PCMU
	case "G722":
		f.g722 = true
	case "opus":
		f.opus, f.rateHz, f.send = true, 48000, opus.Params{DTX: a.Opus.DTX, FEC: a.Opus.FEC}
		if b := a.Opus.MaxBitrate; b > 0 && b < opus.Bitrate {
			f.send.BitrateBps = max(b, 6000)
		}
	default:
		return f, fmt.Errorf("phone: cannot speak %q", a.Codec)
	}
	if !amr.Available && (f.amr || f.opus || f.g722) {
		return f, fmt.Errorf("phone: this build has no %s (it was built without cgo)", a.Codec)
	}
	if n := len(a.ModeSet); f.amr && n > 0 {
		f.mode = a.ModeSet[n-1]
	}
	return f, nil
}

// audioStream is the voice of a call. run owns what is said; mu guards what is heard,
// between the socket's reader and run.
type audioStream struct {
	p    *Phone
	keys chan rune // 32; full drops the key

	mic    microphone
	record audio.Reader
	said   *sdp.Audio // what the encoder below is made for
	fmt    format
	enc    encoders
	down   resample.Down
	head   rtp.Header
	quiet  bool // in a DTX pause
	packet []byte
	event  *keyEvent
	rtcp   sender

	mu    sync.Mutex
	heard *sdp.Audio // what the decoder below is made for
	in    format
	buf   *jitter.Buffer
	dec   decoders
	parts opus.Framer
	up    resample.Up
	cmr   int // the peer's mode request, -1: none
	recv  receiver
	store recorder
	boxes [payload.MaxFrames]amr.Frame
}

// keyEvent is a key being pressed (RFC 4733).
type keyEvent struct {
	code  byte
	ticks int // frames since it began
	ts    uint32
}

func (s *audioStream) init(p *Phone) {
	s.p, s.keys, s.cmr = p, make(chan rune, 32), -1
	s.mic = microphone{speaker: p.o.Speaker, now: time.Now}
	s.head = rtp.Header{Version: 2, SSRC: rand.Uint32(), SequenceNumber: uint16(rand.Uint32()), Timestamp: rand.Uint32()}
	s.rtcp = newSender(s.head.SSRC)
	s.packet = make([]byte, 0, 512)
	for i := range s.boxes {
		s.boxes[i].Bits = make([]byte, 0, amr.MaxBytes)
	}
}

func (s *audioStream) press(digit rune) {
	select {
	case s.keys <- digit:
	default:
	}
}

// run ticks every 20 ms. A tick that comes too late is not made up for by a burst: the
// timestamp moves on instead, as with a phone whose CPU was busy.
func (s *audioStream) run() {
	if err := s.mic.Open(); err != nil {
		s.p.o.Log.Error("no speech", "err", err)
		return
	}
	s.record, _ = s.mic.AudioRecord(prop.Media{}) // open: cannot fail
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for n := 0; ; n++ {
		var now time.Time
		select {
		case <-s.p.done:
			return
		case now = <-tick.C:
		}
		if gone := int(now.Sub(last) / (20 * time.Millisecond)); gone > 1 {
			s.p.stats.late.Add(uint64(gone - 1))
			s.head.Timestamp += uint32((gone - 1) * s.fmt.rateHz / 50)
		}
		last = now
		s.play(now)
		s.say()
		if n%100 == 50 { // every 2 s
			s.report(now)
		}
	}
}

// say records, encodes and sends 20 ms.
func (s *audioStream) say() {
	chunk, _, err := s.record.Read()
	if err != nil {
		return
	}
	pcm := chunk.(*wave.Int16Interleaved).Data
	a := s.p.agree.Load().audio
	if a == nil {
		return
	}
	if a != s.said && !s.prepare(a) {
		return
	}
	step := uint32(s.fmt.rateHz / 50)
	s.head.Timestamp += step
	if !a.Send {
		s.quiet, s.event = true, nil
		return
	}
	if s.key(a, step) {
		return
	}
	var bits [amr.MaxBytes]byte
	var body [opus.MaxBytes]byte
	var narrow [160]int16
	x := pcm
	if s.fmt.narrow() {
		s.down.Frame(pcm, narrow[:])
		x = narrow[:]
	}
	var size int
	switch {
	case s.fmt.opus:
		if size = s.enc.opus.Encode(x, body[:]); size <= opus.QuietBytes {
			if s.quiet { // the first of a pause is sent
				return
			}
			s.quiet = true
			break
		}
		s.head.Marker, s.quiet = s.quiet, false
	case s.fmt.g722:
		size = s.enc.g722.Encode(x, body[:])
		s.head.Marker, s.quiet = s.quiet, false
	case s.fmt.amr:
		f := s.enc.amr.Encode(s.mode(a), x, bits[:])
		if f.Type == amr.NoData {
			s.quiet = true
			return
		}
		size = s.fmt.wire.Pack(body[:], payload.NoRequest, f)
		speech := f.Speech(s.fmt.wire.Wide)
		s.head.Marker = speech && s.quiet
		s.quiet = !speech
	default:
		size = s.fmt.law.Encode(x, body[:160])
		s.head.Marker = s.quiet
		s.quiet = false
	}
	s.head.PayloadType = uint8(a.PT)
	s.send(body[:size])
}

// mode is the AMR mode now: our choice, or what the peer asked for if it is allowed.
func (s *audioStream) mode(a *sdp.Audio) int {
	s.mu.Lock()
	cmr := s.cmr
	s.mu.Unlock()
	if cmr < 0 || cmr > s.fmt.mode {
		return s.fmt.mode
	}
	if len(a.ModeSet) == 0 {
		return cmr
	}
	best := a.ModeSet[0]
	for _, m := range a.ModeSet {
		if m <= cmr {
			best = m
		}
	}
	return best
}

func (s *audioStream) send(body []byte) {
	s.head.SequenceNumber++
	b, err := s.head.Marshal()
	if err != nil {
		return
	}
	s.packet = append(append(s.packet[:0], b...), body...)
	if s.p.send(0, s.packet) {
		s.p.stats.audioSent.Add(1)
		s.rtcp.count(len(body))
	}
}

func (s *audioStream) prepare(a *sdp.Audio) bool {
	f, err := formatOf(a)
	if err != nil {
		return false
	}
	if s.said == nil || f != s.fmt {
		s.enc.close()
		if s.enc, err = newEncoders(f); err != nil {
			s.p.o.Log.Error("no encoder", "err", err)
			return false
		}
	}
	s.said, s.fmt, s.quiet = a, f, true
	return true
}

// key sends the telephone-event that is on, if any: 100 ms, the end three times
// (RFC 4733 §2.5.1).
func (s *audioStream) key(a *sdp.Audio, step uint32) bool {
	if s.event == nil {
		select {
		case k := <-s.keys:
			code := strings.IndexRune("0123456789*#ABCD", k)
			if code < 0 || a.DTMFPT == 0 {
				return false
			}
			s.event = &keyEvent{code: byte(code), ts: s.head.Timestamp}
		default:
			return false
		}
	}
	e := s.event
	e.ticks++
	const held = 5 // frames
	rate := a.DTMFRateHz
	if rate == 0 {
		rate = s.fmt.rateHz
	}
	now := s.head
	length := min(e.ticks, held) * rate / 50
	end := byte(0)
	if e.ticks >= held {
		end = 0x80
	}
	s.head.PayloadType, s.head.Timestamp, s.head.Marker = uint8(a.DTMFPT), e.ts, e.ticks == 1
	s.send([]byte{e.code, end | 10, byte(length >> 8), byte(length)})
	s.head.Timestamp = now.Timestamp
	if e.ticks == held+2 {
		s.event, s.quiet = nil, true
	}
	return true
}

// receive takes one RTP datagram.
func (s *audioStream) receive(b []byte) {
	var pk rtp.Packet
	a := s.p.agree.Load().audio
	bad := a == nil || pk.Unmarshal(b) != nil
	noise := !bad && a.CN && pk.PayloadType == ptCN
	if bad || int(pk.PayloadType) != a.RecvPT && int(pk.PayloadType) != a.PT && !noise {
		s.p.stats.refused.Add(1)
		return
	}
	s.p.stats.audioReceived.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if a != s.heard && !s.tune(a) {
		return
	}
	if s.recv.packet(pk.SSRC, pk.SequenceNumber, pk.Timestamp, s.in.rateHz) {
		s.buf.Reset()
	}
	at := time.Since(start)
	step := uint32(s.in.rateHz / 50)
	switch {
	case noise:
		s.buf.Push(pk.Timestamp, at, comfort, false, true, nil)
		return
	case s.in.opus:
		s.opened(&pk, at)
		return
	case !s.in.amr:
		for i := 0; i+160 <= len(pk.Payload); i += 160 {
			s.buf.Push(pk.Timestamp+uint32(i), at, 0, false, false, pk.Payload[i:i+160])
		}
		return
	}
	cmr, n, err := s.in.wire.Unpack(pk.Payload, &s.boxes)
	if err != nil {
		s.p.stats.refused.Add(1)
		return
	}
	if s.cmr = int(cmr); cmr == payload.NoRequest {
		s.cmr = -1
	}
	for i, f := range s.boxes[:n] {
		s.store.frame(s.in.wire.Wide, f)
		s.buf.Push(pk.Timestamp+uint32(i)*step, at, f.Type, f.Bad, !f.Speech(s.in.wire.Wide), f.Bits)
	}
}

// opened takes what a packet of Opus has. mu is held.
func (s *audioStream) opened(pk *rtp.Packet, at time.Duration) {
	err := s.parts.Each(pk.Payload, pk.Timestamp, func(f opus.Frame) {
		silent := len(f.Packet) <= opus.QuietBytes
		kind := uint8(0)
		if silent {
			kind = comfort
		}
		s.buf.Push(f.Timestamp, at, kind, false, silent, f.Packet)
	})
	if err != nil {
		s.p.stats.refused.Add(1)
	}
}

// start is where arrival times count from.
var start = time.Now()

// tune makes the decoder for what the peer sends from now on. mu is held.
func (s *audioStream) tune(a *sdp.Audio) bool {
	f, err := formatOf(a)
	if err != nil {
		return false
	}
	if s.heard == nil || f != s.in {
		s.dec.close()
		if s.dec, err = newDecoders(f); err != nil {
			s.p.o.Log.Error("no decoder", "err", err)
			return false
		}
		s.buf = jitter.New(uint32(f.rateHz/50), opus.MaxBytes)
	}
	s.heard, s.in = a, f
	return true
}

// play decodes the 20 ms that are due and listens to them.
func (s *audioStream) play(now time.Time) {
	var out [frame]int16
	s.mu.Lock()
	if s.heard != nil {
		s.decode(&out)
	}
	s.mu.Unlock()
	s.p.listener.Feed(out[:], now)
}

func (s *audioStream) decode(out *[frame]int16) {
	var narrow [160]int16
	x := out[:]
	if s.in.narrow() {
		x = narrow[:]
	}
	v, kind, bad, data := s.buf.Pop(time.Since(start))
	switch {
	case kind == comfort && !s.in.amr: // silence
	case s.in.opus && v == jitter.Play:
		s.dec.opus.Decode(data, out)
	case s.in.opus && v == jitter.Conceal:
		s.dec.opus.Conceal(out)
	case s.in.g722 && v == jitter.Conceal:
		s.dec.g722.Conceal(out)
	case s.in.g722 && v == jitter.Play:
		s.dec.g722.Decode(data, out)
	case s.in.amr && v == jitter.Play:
		s.dec.amr.Decode(amr.Frame{Type: kind, Bad: bad, Bits: data}, x)
	case s.in.amr: // a pause (comfort noise goes on), or a loss
		s.dec.amr.Decode(amr.Frame{Type: amr.NoData}, x)
	case v == jitter.Play:
		s.in.law.Decode(data, x)
	}
	if s.in.narrow() {
		s.up.Frame(narrow[:], out[:])
	}
}

func (s *audioStream) close() {
	s.enc.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dec.close()
	s.heard = nil
}
