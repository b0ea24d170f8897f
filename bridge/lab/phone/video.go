package phone

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"sparkle/media/codec/h264"
	"sparkle/media/video/rtp264"
	"sparkle/sip/sdp"
)

const (
	videoMTU    = 1200
	rateVideoHz = 90000
	minBitrate  = 100_000
	maxBitrate  = 200_000
)

// videoStream is the picture of a call. run owns what is sent; the socket's reader owns
// what is received, but for what mu guards.
type videoStream struct {
	p       *Phone
	wantKey atomic.Bool
	firSeen atomic.Int32 // sequence number of the last FIR, plus one

	cam   camera
	enc   codec.ReadCloser
	slice int // NAL limit enc was made with
	pay   codecs.H264Payloader
	head  rtp.Header
	rtcp  sender

	mu      sync.Mutex // guards recv and store
	recv    receiver
	store   recorder
	order   rtp264.Reorder
	depay   rtp264.Depacketizer
	dec     *h264.Decoder
	broken  bool // no libavcodec: said once
	have    bool // a key frame was decoded
	asked   time.Time
	firSent uint8
}

func (v *videoStream) init(p *Phone) {
	v.p = p
	v.cam = camera{speaker: p.o.Speaker}
	v.head = rtp.Header{Version: 2, SSRC: rand.Uint32(), SequenceNumber: uint16(rand.Uint32()), Timestamp: rand.Uint32()}
	v.rtcp = newSender(v.head.SSRC)
}

// run takes a picture 15 times a second while the camera is on. As with audio, a late
// tick is skipped.
func (v *videoStream) run() {
	tick := time.NewTicker(time.Second / camFPS)
	defer tick.Stop()
	begin, base := time.Now(), v.head.Timestamp
	for n := 0; ; n++ {
		var now time.Time
		select {
		case <-v.p.done:
			return
		case now = <-tick.C:
		}
		v.head.Timestamp = base + uint32(now.Sub(begin).Seconds()*rateVideoHz)
		a := v.p.agree.Load()
		if a.video == nil {
			continue
		}
		if a.cameraOn && a.video.Send {
			v.shoot(a.video)
		}
		if n%30 == 10 && !a.video.RTCPOff() { // every 2 s
			v.mu.Lock()
			reports := v.recv.report()
			v.mu.Unlock()
			if b, err := compound(now, &v.rtcp, v.head.Timestamp, reports); err == nil {
				v.p.send(3, b)
			}
		}
	}
}

// shoot sends one picture.
func (v *videoStream) shoot(a *sdp.Video) {
	slice := 0
	if a.PacketizationMode == 0 {
		slice = videoMTU - 100 // single NAL units only, each in one packet
	}
	if v.enc == nil || v.slice != slice {
		if !v.makeEncoder(a, slice) {
			return
		}
	}
	if v.wantKey.Swap(false) {
		if c, ok := v.enc.Controller().(codec.KeyFrameController); ok {
			_ = c.ForceKeyFrame() // openh264's cannot fail
		}
	}
	au, release, err := v.enc.Read()
	if err != nil || len(au) == 0 {
		return
	}
	defer release()
	v.pay.DisableStapA = a.PacketizationMode == 0
	payloads := v.pay.Payload(videoMTU, au)
	for i, body := range payloads {
		last := i == len(payloads)-1
		v.head.SequenceNumber++
		v.head.PayloadType, v.head.Marker = uint8(a.PT), last
		h := v.head
		if a.CVO != 0 && last { // upright, front camera (TS 26.114 §7.4.5)
			if err := h.SetExtension(uint8(a.CVO), []byte{0}); err != nil {
				h = v.head
			}
		}
		b, err := (&rtp.Packet{Header: h, Payload: body}).Marshal()
		if err != nil {
			return
		}
		if v.p.send(2, b) {
			v.p.stats.videoSent.Add(1)
			v.rtcp.count(len(body))
		}
	}
}

func (v *videoStream) makeEncoder(a *sdp.Video, slice int) bool {
	if v.broken {
		return false
	}
	var err error
	if v.enc != nil {
		v.enc.Close()
		v.enc = nil
	} else if err = v.cam.Open(); err != nil {
		return false
	}
	rate := a.BitrateBps
	if rate <= 0 {
		rate = maxBitrate
	}
	if v.enc, err = newEncoder(&v.cam, min(max(rate, minBitrate), maxBitrate), slice); err != nil {
		v.enc, v.broken = nil, true
		v.p.o.Log.Error("no camera", "err", err)
		return false
	}
	v.slice = slice
	return true
}

// receive takes one RTP datagram.
func (v *videoStream) receive(b []byte) {
	var pk rtp.Packet
	a := v.p.agree.Load().video
	if a == nil || pk.Unmarshal(b) != nil || int(pk.PayloadType) != a.RecvPT && int(pk.PayloadType) != a.PT {
		v.p.stats.refused.Add(1)
		return
	}
	v.p.stats.videoReceived.Add(1)
	v.mu.Lock()
	fresh := v.recv.packet(pk.SSRC, pk.SequenceNumber, pk.Timestamp, rateVideoHz)
	v.mu.Unlock()
	if fresh {
		v.order.Reset()
		v.depay.Reset()
		v.have = false
	}
	v.order.Push(pk.Payload, pk.SequenceNumber, pk.Timestamp, pk.Marker, func(body []byte, seq uint16, ts uint32, marker bool) {
		v.depay.Push(body, seq, ts, marker, func(u rtp264.AccessUnit) { v.show(a, pk.SSRC, u) })
	})
}

// show decodes one access unit and looks at it.
func (v *videoStream) show(a *sdp.Video, ssrc uint32, u rtp264.AccessUnit) {
	v.mu.Lock()
	v.store.unit(u)
	v.mu.Unlock()
	if v.dec == nil {
		var err error
		if v.dec, err = h264.NewDecoder(); err != nil {
			v.dec = nil
			return
		}
	}
	v.have = v.have || u.Key
	now := time.Now()
	if (!v.have || u.Damaged) && now.Sub(v.asked) > time.Second {
		v.asked = now
		v.ask(a, ssrc)
	}
	img, err := v.dec.Decode(u.Data)
	if err != nil || img == nil {
		return
	}
	v.p.stats.frames.Add(1)
	v.p.watcher.feed(img, now)
}

func (v *videoStream) close() {
	if v.enc != nil {
		v.enc.Close()
	}
	if v.dec != nil {
		v.dec.Close()
	}
}
