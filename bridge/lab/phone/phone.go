// Package phone is what a lab handset says, sends, hears and sees in one call: real
// sockets, real codecs, recorded speech and a camera, and an analysis of what came back
// that names who is heard and who is seen. It knows SDP's result and wire formats and
// nothing of the server.
//
// Microphone, camera and H.264 encoder are pion/mediadevices'. Every speaker's speech
// carries a mark (mark.go), every camera's picture another (picture.go).
package phone

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sparkle/sip/sdp"
)

// Options of New.
type Options struct {
	Speaker int          // who speaks and is seen: 0 to Speakers-1
	Names   []string     // the speakers' names, by number, for Heard and Seen
	IP      string       // where the sockets are bound; "" is 127.0.0.1
	Log     *slog.Logger // nil: no log
}

// Validate reports what makes no sense.
func (o Options) Validate() error {
	var errs []error
	if o.Speaker < 0 || o.Speaker >= Speakers {
		errs = append(errs, fmt.Errorf("phone: speaker %d is not one of 0 to %d", o.Speaker, Speakers-1))
	}
	if len(o.Names) > Speakers {
		errs = append(errs, fmt.Errorf("phone: %d names for %d speakers", len(o.Names), Speakers))
	}
	if o.IP != "" {
		if _, err := netip.ParseAddr(o.IP); err != nil {
			errs = append(errs, fmt.Errorf("phone: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Phone is the media of one call. Open, Start, Update and Close are called by one
// goroutine, in that order; the rest may be called by anybody at any time, after Close too.
type Phone struct {
	o     Options
	conns [4]*net.UDPConn // audio, audio RTCP, video, video RTCP
	loss  atomic.Uint64   // share, in 1/2^32
	agree atomic.Pointer[agreement]
	done  chan struct{}
	wg    sync.WaitGroup
	open  bool
	begun bool

	listener *Listener
	watcher  *watcher
	audio    audioStream
	video    videoStream
	stats    counters
}

// agreement is what Start and Update say; it is replaced whole.
type agreement struct {
	audio    *sdp.Audio
	video    *sdp.Video
	cameraOn bool
}

// Stats counts packets of a call.
type Stats struct {
	AudioSent, AudioReceived uint64
	VideoSent, VideoReceived uint64
	Frames                   uint64 // pictures decoded
	Lost                     uint64 // packets dropped by Loss, both ways
	Refused                  uint64 // datagrams from strangers or malformed
	LateTicks                uint64 // 20 ms ticks that were skipped because they came too late
	KeyFrameRequests         uint64 // PLI and FIR received
	KeyFrameAsked            uint64 // PLI and FIR sent
}

type counters struct {
	audioSent, audioReceived, videoSent, videoReceived, frames atomic.Uint64
	lost, refused, late, keyRequests, keyAsked                 atomic.Uint64
}

// New makes the media of one call.
func New(o Options) (*Phone, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.IP == "" {
		o.IP = "127.0.0.1"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Phone{o: o, done: make(chan struct{}), listener: NewListener(), watcher: newWatcher()}
	p.audio.init(p)
	p.video.init(p)
	return p, nil
}

// Open binds two pairs of ports, RTCP one above RTP.
func (p *Phone) Open() (ip string, audioPort, videoPort int, err error) {
	if p.open {
		return "", 0, 0, errors.New("phone: opened twice")
	}
	p.open = true
	for i := 0; i < len(p.conns) && err == nil; i += 2 {
		p.conns[i], p.conns[i+1], err = pair(net.ParseIP(p.o.IP))
	}
	if err != nil {
		p.Close()
		return "", 0, 0, fmt.Errorf("phone: %w", err)
	}
	port := func(i int) int { return p.conns[i].LocalAddr().(*net.UDPAddr).Port }
	return p.o.IP, port(0), port(2), nil
}

// pair binds an even port and the odd one above it.
func pair(ip net.IP) (*net.UDPConn, *net.UDPConn, error) {
	for range 200 {
		a, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
		if err != nil {
			return nil, nil, err
		}
		if port := a.LocalAddr().(*net.UDPAddr).Port; port%2 == 0 {
			if b, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: port + 1}); err == nil {
				return a, b, nil
			}
		}
		a.Close()
	}
	return nil, nil, fmt.Errorf("no two free ports beside each other on %v", ip)
}

// Start begins to send and receive as agreed. videoOn is false while the camera is off.
func (p *Phone) Start(r sdp.Result, videoOn bool) error {
	if !p.open || p.begun {
		return errors.New("phone: Start without Open, or twice")
	}
	if err := p.take(r, videoOn); err != nil {
		return err
	}
	p.begun = true
	p.wg.Go(p.audio.run)
	p.wg.Go(p.video.run)
	for i, handle := range [4]func([]byte){p.audio.receive, p.audio.control, p.video.receive, p.video.control} {
		p.wg.Go(func() { p.read(i, handle) })
	}
	return nil
}

// Update follows a changed agreement: hold, video off, a new address, another codec.
func (p *Phone) Update(r sdp.Result) error {
	old := p.agree.Load()
	if old == nil {
		return errors.New("phone: Update before Start")
	}
	return p.take(r, old.cameraOn || r.Video != nil && old.video == nil)
}

func (p *Phone) take(r sdp.Result, cameraOn bool) error {
	if a := r.Audio; a != nil {
		if _, err := formatOf(a); err != nil {
			return err
		}
	}
	p.agree.Store(&agreement{audio: r.Audio, video: r.Video, cameraOn: cameraOn})
	return nil
}

// Loss sets the share of packets that the air loses, each way: 0 to 1.
func (p *Phone) Loss(share float64) {
	p.loss.Store(uint64(min(max(share, 0), 1) * (1 << 32)))
}

// lose draws whether a packet is lost.
func (p *Phone) lose() bool {
	if l := p.loss.Load(); l == 0 || uint64(rand.Uint32()) >= l {
		return false
	}
	p.stats.lost.Add(1)
	return true
}

// read takes datagrams of one socket until it is closed.
func (p *Phone) read(i int, handle func([]byte)) {
	buf := make([]byte, 2048)
	for {
		n, from, err := p.conns[i].ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if !p.expects(i, from.Addr().Unmap()) {
			p.stats.refused.Add(1)
			continue
		}
		if !p.lose() {
			handle(buf[:n])
		}
	}
}

// expects says whether signalling named the address as a source of this socket.
func (p *Phone) expects(i int, from netip.Addr) bool {
	r := p.remote(i)
	return r != nil && r.Addr.Unmap() == from
}

func (p *Phone) remote(i int) *sdp.Remote {
	a := p.agree.Load()
	switch {
	case a == nil:
	case i < 2 && a.audio != nil:
		return &a.audio.Remote
	case i >= 2 && a.video != nil:
		return &a.video.Remote
	}
	return nil
}

// send writes one datagram from socket i to where the peer wants it; false if there is
// no such place now.
func (p *Phone) send(i int, b []byte) bool {
	r := p.remote(i)
	if r == nil || !r.Addr.IsValid() || r.Addr.IsUnspecified() || r.Port == 0 {
		return false
	}
	if p.lose() {
		return true
	}
	port := r.Port
	if i%2 == 1 {
		port = r.RTCPPort
	}
	// A full socket buffer or an ICMP error is a lost packet, as on any network.
	_, err := p.conns[i].WriteToUDPAddrPort(b, netip.AddrPortFrom(r.Addr.Unmap(), uint16(port)))
	return err == nil
}

// SendDTMF presses a key (0-9, *, #, A-D) for 100 ms. More than 32 waiting are dropped.
func (p *Phone) SendDTMF(digit rune) { p.audio.press(digit) }

// Heard is who was recognised in what was received since an instant, himself too if he
// hears himself. It must reach back at least 11 s to include everybody's turn.
func (p *Phone) Heard(since time.Time) []Heard { return p.listener.Heard(since, p.o.Names) }

// HearsSelf says whether the phone's own speaker came back to it.
func (p *Phone) HearsSelf(since time.Time) bool {
	for _, h := range p.Heard(since) {
		if h.Speaker == p.o.Speaker {
			return true
		}
	}
	return false
}

// Seen is whose moving picture, and which of the names, were visible since an instant.
func (p *Phone) Seen(since time.Time, names []string) Seen {
	return p.watcher.seen(since, p.o.Names, names)
}

// Stats is a snapshot of the counters.
func (p *Phone) Stats() Stats {
	c := &p.stats
	return Stats{
		AudioSent: c.audioSent.Load(), AudioReceived: c.audioReceived.Load(),
		VideoSent: c.videoSent.Load(), VideoReceived: c.videoReceived.Load(), Frames: c.frames.Load(),
		Lost: c.lost.Load(), Refused: c.refused.Load(), LateTicks: c.late.Load(),
		KeyFrameRequests: c.keyRequests.Load(), KeyFrameAsked: c.keyAsked.Load(),
	}
}

// Close ends the call and waits for every goroutine.
func (p *Phone) Close() {
	select {
	case <-p.done:
		return
	default:
	}
	close(p.done)
	for _, c := range p.conns {
		if c != nil {
			c.Close()
		}
	}
	p.wg.Wait()
	p.audio.close()
	p.video.close()
}
