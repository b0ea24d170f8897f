package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/lab"
	"sparkle/media/codec/g711"
	"sparkle/sip/sdp"
)

// network is a core with handsets, and a daemon that registers with it.
type network struct {
	t    *testing.T
	core *lab.Core
}

const labSecret = "lab-secret-of-the-subscriber"

func startNetwork(t *testing.T) *network {
	t.Helper()
	core, err := lab.StartCore(lab.CoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(core.Close)
	impi := "+15550100100@" + core.Domain()
	if err := core.AddSubscriber(impi, "sip:"+impi, lab.Auth{Algorithm: lab.SHA256, Password: labSecret}); err != nil {
		t.Fatal(err)
	}
	return &network{t: t, core: core}
}

// ue is the daemon's attachment to the core. It offers G.711, whose packets tests can
// read without a decoder.
func (n *network) ue() string {
	return fmt.Sprintf(`
calls: {setup_timeout: 5s}
attachments:
  - name: lab
    mode: ue
    transport: tcp
    local_addr: 127.0.0.1
    targets: [%q]
    domain: %q
    impi: %q
    impu: %q
    auth: {algorithms: [SHA-256], password: %q}
    offer_g711: true
`, n.core.Addr(), n.core.Domain(), "+15550100100@"+n.core.Domain(), "sip:+15550100100@"+n.core.Domain(), labSecret)
}

// handset adds one that hears with an ear, and speaks if it is a pstn phone and talks.
func (n *network) handset(number string, p lab.Profile, talks bool, script ...lab.Script) *handset {
	n.t.Helper()
	h := &handset{}
	o := lab.HandsetOptions{Number: number, Name: "phone " + number[len(number)-2:], Profile: p, Media: func(lab.HandsetOptions) (lab.Media, error) {
		e := &ear{talks: talks}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ears = append(h.ears, e)
		return e, nil
	}}
	for _, s := range script {
		o.Script = &s
	}
	var err error
	if h.Handset, err = n.core.AddHandset(o); err != nil {
		n.t.Fatal(err)
	}
	return h
}

// handset is a lab handset with an ear a call.
type handset struct {
	*lab.Handset
	mu   sync.Mutex
	ears []*ear
}

// ear is that of the newest call.
func (h *handset) ear() *ear {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ears) == 0 {
		return nil
	}
	return h.ears[len(h.ears)-1]
}

// ear is the media of one call: it notes every RTP packet of the audio stream, and may
// speak PCMA. What was agreed is known from Start on.
type ear struct {
	talks bool

	mu      sync.Mutex
	conns   []*net.UDPConn // audio, audio RTCP, video, video RTCP
	agreed  sdp.Result     // where the daemon receives, and what
	packets []heard
	done    chan struct{}
	wg      sync.WaitGroup
}

// heard is one audio packet as it came.
type heard struct {
	at      time.Time
	seq     uint16
	ts      uint32
	ssrc    uint32
	payload []byte
}

// Open implements lab.Media.
func (e *ear) Open() (string, int, int, error) {
	e.done = make(chan struct{})
	var ports [2]int
	for i := range ports {
		a, b, err := pair()
		if err != nil {
			e.shut()
			return "", 0, 0, err
		}
		e.conns = append(e.conns, a, b)
		ports[i] = a.LocalAddr().(*net.UDPAddr).Port
	}
	for i, c := range e.conns {
		e.wg.Go(func() { e.listen(c, i == 0) })
	}
	return "127.0.0.1", ports[0], ports[1], nil
}

// pair is an even port and the one above it.
func pair() (rtp, rtcp *net.UDPConn, err error) {
	for range 200 {
		a, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, nil, err
		}
		if port := a.LocalAddr().(*net.UDPAddr).Port; port%2 == 0 {
			if b, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port + 1}); err == nil {
				return a, b, nil
			}
		}
		a.Close()
	}
	return nil, nil, fmt.Errorf("no two free ports beside each other")
}

func (e *ear) listen(c *net.UDPConn, audio bool) {
	buf := make([]byte, 2048)
	for {
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if !audio || n < 12 {
			continue
		}
		e.mu.Lock()
		e.packets = append(e.packets, heard{
			at: time.Now(), seq: binary.BigEndian.Uint16(buf[2:]), ts: binary.BigEndian.Uint32(buf[4:]),
			ssrc: binary.BigEndian.Uint32(buf[8:]), payload: slices.Clone(buf[12:n]),
		})
		e.mu.Unlock()
	}
}

// Start implements lab.Media.
func (e *ear) Start(r sdp.Result, _ bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.agreed = r
	if e.talks {
		conn, to, pt := e.conns[0], netip.AddrPortFrom(r.Audio.Addr, uint16(r.Audio.Port)), uint8(r.Audio.PT)
		e.wg.Go(func() { speak(conn, to, pt, e.done) })
	}
	return nil
}

// Update implements lab.Media.
func (e *ear) Update(sdp.Result) error { return nil }

// SendDTMF implements lab.Media.
func (e *ear) SendDTMF(rune) {}

// Close implements lab.Media.
func (e *ear) Close() {
	e.shut()
	e.wg.Wait()
}

func (e *ear) shut() {
	close(e.done)
	for _, c := range e.conns {
		c.Close()
	}
}

// ports are where the daemon receives what our sockets of the same index send; video's
// are audio's where there is none. Only after Start.
func (e *ear) ports() [4]netip.AddrPort {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.agreed.Audio.Remote
	v := a
	if e.agreed.Video != nil {
		v = e.agreed.Video.Remote
	}
	to := netip.AddrPortFrom
	return [4]netip.AddrPort{to(a.Addr, uint16(a.Port)), to(a.Addr, uint16(a.RTCPPort)), to(v.Addr, uint16(v.Port)), to(v.Addr, uint16(v.RTCPPort))}
}

// audioPT and videoPT are what the daemon expects in our packets; only after Start.
func (e *ear) audioPT() uint8 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return uint8(e.agreed.Audio.PT)
}

func (e *ear) videoPT() uint8 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return uint8(e.agreed.Video.PT)
}

// since are the packets from the n-th on.
func (e *ear) since(n int) []heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.packets[n:])
}

func (e *ear) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.packets)
}

// speak sends PCMA, a frame every 20 ms: a loud voice of syllables, until done.
func speak(c *net.UDPConn, to netip.AddrPort, pt uint8, done <-chan struct{}) {
	frame := time.NewTicker(20 * time.Millisecond)
	defer frame.Stop()
	b := make([]byte, 12+160)
	pcm := make([]int16, 160)
	b[0], b[1] = 0x80, pt
	binary.BigEndian.PutUint32(b[8:], rand.Uint32())
	for n := uint32(0); ; n++ {
		select {
		case <-done:
			return
		case <-frame.C:
		}
		for i := range pcm {
			at := float64(n)/50 + float64(i)/8000
			loud := 0.4 + 0.6*math.Abs(math.Sin(2*math.Pi*2*at))
			pcm[i] = int16(6000 * loud * (math.Sin(2*math.Pi*210*at) + 0.5*math.Sin(2*math.Pi*840*at) + 0.4*rand.Float64()))
		}
		binary.BigEndian.PutUint16(b[2:], uint16(n))
		binary.BigEndian.PutUint32(b[4:], n*160)
		g711.PCMA.Encode(pcm, b[12:])
		_, _ = c.WriteToUDPAddrPort(b, to) // a daemon that has gone is what the test sees
	}
}

// gaps are the packets that are missing between two that came, by sequence number (a
// new source counts as many), and the time from the first to the last.
func gaps(ps []heard) (missing int, span time.Duration) {
	for i := 1; i < len(ps); i++ {
		missing += int(ps[i].seq - ps[i-1].seq - 1)
		if ps[i].ssrc != ps[0].ssrc {
			missing += 1 << 16
		}
		span = ps[i].at.Sub(ps[0].at)
	}
	return missing, span
}

// rms is how loud PCMA packets are.
func rms(ps []heard) float64 {
	pcm := make([]int16, 1500)
	sum, n := 0.0, 0
	for _, p := range ps {
		k := g711.PCMA.Decode(p.payload, pcm)
		for _, s := range pcm[:k] {
			sum += float64(s) * float64(s)
		}
		n += k
	}
	return math.Sqrt(sum / float64(max(n, 1)))
}

// table is a daemon on a network with a conference of handsets that are all in.
type table struct {
	*daemon
	network    *network
	conference string
	members    []string
	handsets   []*handset
}

// convene starts a daemon, invites the handsets, calls them all and waits until they
// are in. video is fewPictures or noPictures.
func convene(n *network, kind bridge.ConferenceType, video string, handsets ...*handset) *table {
	n.t.Helper()
	d := startDaemon(n.t, n.ue()+video)
	d.ready()
	x := &table{daemon: d, network: n, conference: d.conference(kind), handsets: handsets}
	for _, h := range handsets {
		x.members = append(x.members, d.invite(x.conference, h.Number(), h.Name()))
	}
	d.call(x.conference, bridge.CallRequest{Targets: "all"})
	for _, m := range x.members {
		d.await(x.conference, m, "the conference", in)
	}
	return x
}

// hears waits until the handset has got n more packets, and returns them.
func (x *table) hears(h *handset, n int) []heard {
	x.t.Helper()
	e := h.ear()
	from := e.count()
	eventually(x.t, fmt.Sprintf("%d packets at %s", n, h.Name()), func() error {
		if got := e.count() - from; got < n {
			return fmt.Errorf("%d came", got)
		}
		return nil
	})
	return e.since(from)
}
