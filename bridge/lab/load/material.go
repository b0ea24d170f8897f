package load

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"sparkle/media/codec/amr"
	"sparkle/media/codec/g711"
	"sparkle/media/codec/opus"
	"sparkle/media/mediapb"
	"sparkle/media/payload"
	"sparkle/sip/sdp"
)

// Codec is what all phones of a load speak. Use AMRWB, PCMU or Opus.
type Codec struct {
	Name string
	pb   mediapb.AudioStream_Codec
	mode int // AMR-WB
	pt   uint8
	step uint32 // RTP clock ticks of a frame
	rate int    // RTP clock, Hz
}

// AMRWB is AMR-WB, bandwidth-efficient, in one mode (0..8: 8 is 23.85 kbit/s, 2 is
// 12.65), both ways.
func AMRWB(mode int) Codec {
	return Codec{Name: fmt.Sprintf("AMR-WB/%d", mode), pb: mediapb.AudioStream_AMR_WB, mode: mode, pt: 96, step: 320, rate: 16000}
}

// PCMU is G.711 µ-law.
func PCMU() Codec {
	return Codec{Name: "PCMU", pb: mediapb.AudioStream_PCMU, pt: 0, step: 160, rate: 8000}
}

// Opus is mono at 24 kbit/s with DTX, without FEC.
func Opus() Codec {
	return Codec{Name: "opus", pb: mediapb.AudioStream_OPUS, pt: 103, step: opus.FrameTicks, rate: 48000}
}

func (c Codec) isOpus() bool { return c.pb == mediapb.AudioStream_OPUS }

// period is how often comfort noise is sent, or a sign of life in its place, in frames
// (TS 26.193 §5.1.2; libopus does about the same).
func (c Codec) period() int {
	if c.isOpus() {
		return 20
	}
	return 8
}

func (c Codec) amr() bool { return c.pb == mediapb.AudioStream_AMR_WB }

func (c Codec) validate() error {
	switch {
	case c.pb == mediapb.AudioStream_CODEC_UNSPECIFIED:
		return errors.New("load: no codec")
	case c.amr() && (c.mode < 0 || c.mode > amr.TopMode(true)):
		return fmt.Errorf("load: AMR-WB has no mode %d", c.mode)
	}
	return nil
}

// stream is the codec as the engine is told it, sent to one address.
func (c Codec) stream(remote *mediapb.Remote) *mediapb.AudioStream {
	a := &mediapb.AudioStream{
		Remote: remote, Codec: c.pb, PayloadType: uint32(c.pt), Send: true, Recv: true,
	}
	a.Dtx = c.amr() || c.isOpus()
	if c.amr() {
		a.ModeSet = []uint32{uint32(c.mode)} // so that what comes back has this mode from the first frame on
	}
	return a
}

// speech says whether a payload that came back is speech, not comfort noise. Too short
// is not speech.
func (c Codec) speech(body []byte) bool {
	switch {
	case c.isOpus():
		return len(body) > opus.QuietBytes
	case !c.amr():
		return len(body) > 0
	}
	ft, ok := frameType(body)
	return ok && ft < amr.SIDWide
}

// frameType is that of the first frame of AMR-WB (RFC 4867 §4.3: CMR (4), F (1), FT (4)).
func frameType(body []byte) (ft uint8, ok bool) {
	if len(body) < 2 {
		return 0, false
	}
	return body[0]&7<<1 | body[1]>>7, true
}

// SDP is the codec as a phone of it answers: AMR-WB in its mode alone, so that what comes back
// has this mode too.
func (c Codec) SDP() sdp.Codec {
	if c.amr() {
		return sdp.Codec{Name: "AMR-WB", ModeSet: []int{c.mode}}
	}
	return sdp.Codec{Name: c.Name}
}

// level estimates how loud a payload of speech is, dBov. Opus says only whether it is a
// voice: that one is loud.
func (c Codec) level(g *amr.Loudness, body []byte) float32 {
	switch {
	case c.isOpus() && opus.Active(body):
		return 0
	case c.isOpus():
		return amr.Silent
	case !c.amr():
		return g711.PCMU.Level(body)
	}
	if len(body) < 3 {
		return amr.Silent
	}
	// Bandwidth-efficient: the speech bits begin at bit 10.
	var bits [amr.MaxBytes]byte
	for i := range min(len(bits), len(body)-2) {
		bits[i] = body[i+1]<<2 | body[i+2]>>6
	}
	return g.Step(body[0]&7<<1|body[1]>>7, bits[:])
}

// material is encoded once and sent many times.
type material struct {
	speech  [][]byte // RTP payloads of consecutive frames; nil: nothing is sent
	silence [][]byte // from the end of speech on; then its last period repeats
	period  int
}

const (
	speechFrames  = 500 // ten seconds
	silenceFrames = 80
)

// at is the payload of the n-th frame of silence.
func (m *material) quiet(n int) []byte {
	if n >= len(m.silence) {
		n = len(m.silence) - m.period + n%m.period
	}
	return m.silence[n]
}

// newMaterial speaks for twelve seconds into the codec's encoder. With always it makes noise
// in the silence, 66 dB below full scale, and sends that as speech.
func newMaterial(c Codec, always bool) (*material, error) {
	pcm := Speech(1, speechFrames*320)
	quiet := make([]int16, silenceFrames*320)
	if always {
		r := rand.New(rand.NewPCG(7, 7))
		for i := range quiet {
			quiet[i] = int16(r.NormFloat64() * 16)
		}
	}
	pcm = append(pcm, quiet...)
	m := &material{period: c.period()}
	switch {
	case c.isOpus():
		return m, m.speakOpus(pcm, always)
	case !c.amr():
		for n := range speechFrames {
			m.speech = append(m.speech, ulaw(pcm[n*320:(n+1)*320]))
		}
		for range m.period {
			m.silence = append(m.silence, ulaw(make([]int16, 320)))
		}
		return m, nil
	}
	enc, err := amr.NewEncoder(true, !always)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer enc.Close()
	form := payload.Format{Wide: true}
	var bits [amr.MaxBytes]byte
	var packed [payload.MaxPacked]byte
	for n := range speechFrames + silenceFrames {
		f := enc.Encode(c.mode, pcm[n*320:(n+1)*320], bits[:])
		var body []byte
		if f.Type != amr.NoData {
			body = append(body, packed[:form.Pack(packed[:], payload.NoRequest, f)]...)
		}
		if n < speechFrames {
			m.speech = append(m.speech, body)
		} else {
			m.silence = append(m.silence, body)
		}
	}
	if always {
		return m, nil
	}
	sid := 0
	for _, b := range m.silence[silenceFrames-m.period:] {
		if b != nil {
			sid++
		}
	}
	if sid != 1 {
		return nil, fmt.Errorf("load: the encoder sent %d frames in %d of silence, want 1: DTX does not work", sid, m.period)
	}
	return m, nil
}

// speakOpus encodes pcm. From the first frame of a pause on there is a header without sound
// every period, and nothing else.
func (m *material) speakOpus(pcm []int16, always bool) error {
	enc, err := opus.NewEncoder(opus.Params{DTX: !always})
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer enc.Close()
	var buf [opus.MaxBytes]byte
	var pause []byte
	for n := range speechFrames + silenceFrames {
		size := enc.Encode(pcm[n*320:(n+1)*320], buf[:])
		body := append([]byte(nil), buf[:size]...)
		if n < speechFrames {
			m.speech = append(m.speech, body)
			continue
		}
		if pause == nil && !always && size <= opus.QuietBytes {
			pause = body
		}
		switch {
		case pause == nil:
		case (speechFrames+silenceFrames-n)%m.period == 0 || len(m.silence[len(m.silence)-1]) > opus.QuietBytes:
			body = pause
		default:
			body = nil
		}
		m.silence = append(m.silence, body)
	}
	if pause == nil && !always {
		return errors.New("load: the encoder went on in silence: DTX does not work")
	}
	return nil
}

// ulaw is every second sample as µ-law: what aliases does not matter here.
func ulaw(pcm []int16) []byte {
	half := make([]int16, len(pcm)/2)
	for i := range half {
		half[i] = pcm[2*i]
	}
	b := make([]byte, len(half))
	g711.PCMU.Encode(half, b)
	return b
}

// Speech makes n samples (16 kHz) that codecs and talk detectors take for speech: a
// glottal pulse train with a falling pitch through three formants that change with each
// syllable, a hiss before some, four syllables a second, pauses too short for DTX. It
// begins at once and loudly. It is the same for the same seed.
func Speech(seed uint64, n int) []int16 {
	r := rand.New(rand.NewPCG(seed, 0x5eed))
	vowels := [][3]float64{{730, 1090, 2440}, {270, 2290, 3010}, {570, 840, 2410}, {300, 870, 2240}, {530, 1840, 2480}, {660, 1720, 2410}}
	const rate = 16000
	pcm := make([]int16, n)
	var f [3]resonator
	syllable, left, hiss := 0, 0, 0
	pitch, phase := 120.0, 1.0
	for i := range pcm {
		if left == 0 {
			syllable = rate/5 + r.IntN(rate/10)
			left = syllable
			if i > 0 && r.IntN(2) == 0 {
				hiss = rate / 25
			}
			pitch = 100 + 60*r.Float64()
			v := vowels[r.IntN(len(vowels))]
			for k := range f {
				f[k].tune(v[k], 60+40*float64(k), rate)
			}
		}
		at := float64(syllable-left) / float64(syllable)
		left--
		var x float64
		if hiss > 0 {
			hiss--
			x = r.NormFloat64() * 0.08
		} else {
			phase += pitch * (1.1 - 0.2*at) / rate
			if phase >= 1 {
				phase--
				x = 1
			}
			x += r.NormFloat64() * 0.004
		}
		y := f[0].step(x) + 0.6*f[1].step(x) + 0.3*f[2].step(x)
		env := 1.0
		if at > 0.75 {
			env = 1 - 3.6*(at-0.75) // down to a tenth between syllables
		}
		pcm[i] = int16(min(max(y*env*5000, -30000), 30000))
	}
	return pcm
}

// resonator is one formant: two poles, gain of about one at its frequency.
type resonator struct{ a, b, c, y1, y2 float64 }

func (f *resonator) tune(hz, width, rate float64) {
	p := math.Exp(-math.Pi * width / rate)
	f.c = -p * p
	f.b = 2 * p * math.Cos(2*math.Pi*hz/rate)
	f.a = 1 - f.b - f.c
	f.a = max(f.a, 0.05) * 4
}

func (f *resonator) step(x float64) float64 {
	y := f.a*x + f.b*f.y1 + f.c*f.y2
	f.y2, f.y1 = f.y1, y
	return y
}
