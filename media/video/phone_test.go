package video

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"go.uber.org/goleak"

	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/mediapb"
	"sparkle/media/video/rtp264"
)

// The test binary is its own video process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "video" {
		if err := Main(context.Background()); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "probe" {
		probeMain(os.Args[2])
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// eventually polls a real condition.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		<-tick.C
	}
}

// events gathers what a Plane emits.
type events struct {
	mu  sync.Mutex
	all []*mediapb.Event
}

func (e *events) add(ev *mediapb.Event) {
	e.mu.Lock()
	e.all = append(e.all, ev)
	e.mu.Unlock()
}

func (e *events) count(is func(*mediapb.Event) bool) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if is(ev) {
			n++
		}
	}
	return n
}

func plane(t testing.TB, opt Options) (*Plane, *events) {
	ev := &events{}
	opt.Emit = ev.add
	p, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := p.WaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	return p, ev
}

func inProcess() Options { return Options{InProcess: true} }

func childProcess() Options { return Options{Command: []string{"/proc/self/exe", "video"}} }

func udp(t testing.TB) *net.UDPConn {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func local(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// phone is a handset: it sends one colour and decodes what it receives.
type phone struct {
	t         testing.TB
	id        string
	rtp, rtcp *net.UDPConn
	to, toC   netip.AddrPort // the leg's sockets
	luma      byte
	cvo       byte
	w, h      int
	stop      chan struct{}
	wg        sync.WaitGroup
	forceKey  chan struct{}
	lose      func(n int) bool

	mu       sync.Mutex
	picture  *yuv.Image
	pictures int
	keys     int
	ssrc     uint32
	reports  []rtcp.Packet
	lastAt   time.Time
	maxGap   time.Duration
	types    map[byte]int
	sent     map[uint16][]byte // to be sent again, where NACK was negotiated
}

// join opens a leg with sockets for a new phone and tells the plane about it.
func join(t testing.TB, p *Plane, conf, id string, luma byte, change func(*mediapb.Leg, *phone)) *phone {
	t.Helper()
	ph := handset(t, id, luma)
	sock := Sockets{udp(t), udp(t)}
	ph.to, ph.toC = local(sock.RTP), local(sock.RTCP)
	if err := p.OpenLeg(conf, id, sock); err != nil {
		t.Fatal(err)
	}
	leg := ph.wants()
	if change != nil {
		change(leg, ph)
	}
	if err := p.SetLeg(id, leg); err != nil {
		t.Fatal(err)
	}
	ph.start()
	return ph
}

func handset(t testing.TB, id string, luma byte) *phone {
	ph := &phone{t: t, id: id, rtp: udp(t), rtcp: udp(t), luma: luma, w: 240, h: 320, stop: make(chan struct{}), forceKey: make(chan struct{}, 1), types: map[byte]int{}}
	t.Cleanup(ph.close)
	return ph
}

// wants is what the phone negotiated.
func (ph *phone) wants() *mediapb.Leg {
	return &mediapb.Leg{Id: ph.id, Name: ph.id, Present: true, Video: &mediapb.VideoStream{
		Remote:      &mediapb.Remote{Ip: "127.0.0.1", Port: uint32(local(ph.rtp).Port()), RtcpPort: uint32(local(ph.rtcp).Port())},
		PayloadType: 114, PacketizationMode: 1, ProfileLevelId: "42c00c", Width: 240, Height: 320, Fps: 15, BitrateBps: 384_000,
		Send: true, Recv: true, FbPli: true, FbFir: true}}
}

func (ph *phone) start() {
	ph.wg.Go(ph.receive)
	ph.wg.Go(ph.receiveRTCP)
	if ph.luma != 0 {
		ph.wg.Go(ph.send)
	}
}

func (ph *phone) close() {
	select {
	case <-ph.stop:
		return
	default:
	}
	close(ph.stop)
	ph.rtp.Close()
	ph.rtcp.Close()
	ph.wg.Wait()
}

func (ph *phone) send() {
	enc, err := h264.NewEncoder(h264.Params{Width: ph.w, Height: ph.h, FPS: 15, BitrateBps: 200_000, ProfileLevelID: "42c00d"})
	if err != nil {
		ph.t.Error(err)
		return
	}
	defer enc.Close()
	src := yuv.New(ph.w, ph.h)
	pack := rtp264.Packetizer{Mode: 1}
	tick := time.NewTicker(time.Second / 15)
	defer tick.Stop()
	seq, ts, n := uint16(65530), uint32(1<<32-9000), 0
	for i := 0; ; i++ {
		src.Fill(ph.luma, 128, 128)
		dot := src.Sub(2*(i%60), 0, 8, 8) // something moves
		dot.Fill(ph.luma^8, 128, 128)
		au, _, err := enc.Encode(src, int64(i*66))
		if err != nil {
			ph.t.Error(err)
			return
		}
		_ = pack.Packetize(au, func(pl []byte, last bool) error {
			p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 114, SequenceNumber: seq, Timestamp: ts, SSRC: 4711, Marker: last}, Payload: pl}
			if ph.cvo != 0 && last {
				_ = p.SetExtension(4, []byte{ph.cvo})
			}
			b, _ := p.Marshal()
			if ph.sent != nil {
				ph.mu.Lock()
				ph.sent[seq] = b
				delete(ph.sent, seq-100)
				ph.mu.Unlock()
			}
			seq++
			n++
			if ph.lose == nil || !ph.lose(n) {
				_, _ = ph.rtp.WriteToUDPAddrPort(b, ph.to)
			}
			return nil
		})
		ts += 6000
		select {
		case <-tick.C:
		case <-ph.stop:
			return
		}
		select {
		case <-ph.forceKey:
			enc.ForceKeyFrame()
		default:
		}
	}
}

func (ph *phone) receive() {
	dec, err := h264.NewDecoder()
	if err != nil {
		ph.t.Error(err)
		return
	}
	defer dec.Close()
	var depay rtp264.Depacketizer
	buf := make([]byte, 2048)
	for {
		n, _, err := ph.rtp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		var p rtp.Packet
		if err := p.Unmarshal(buf[:n]); err != nil || p.PayloadType != 114 || len(p.Payload) > rtp264.MaxPayload {
			ph.t.Errorf("phone %s got a bad packet: %d octets, %v", ph.id, n, err)
			continue
		}
		ph.mu.Lock()
		ph.ssrc = p.SSRC
		ph.types[p.Payload[0]&0x1f]++
		ph.mu.Unlock()
		depay.Push(p.Payload, p.SequenceNumber, p.Timestamp, p.Marker, func(au rtp264.AccessUnit) {
			m, err := dec.Decode(au.Data)
			ph.mu.Lock()
			defer ph.mu.Unlock()
			if au.Key {
				ph.keys++
			}
			if err != nil || m == nil {
				return
			}
			ph.picture = yuv.Resized(ph.picture, m.Width, m.Height)
			_ = m.CopyTo(ph.picture)
			ph.pictures++
			now := time.Now()
			if !ph.lastAt.IsZero() {
				ph.maxGap = max(ph.maxGap, now.Sub(ph.lastAt))
			}
			ph.lastAt = now
		})
	}
}

func (ph *phone) receiveRTCP() {
	buf := make([]byte, 2048)
	for {
		n, _, err := ph.rtcp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		ps, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			ph.t.Errorf("phone %s got bad RTCP: %v", ph.id, err)
			continue
		}
		for _, p := range ps {
			switch p := p.(type) {
			case *rtcp.TransportLayerNack:
				ph.mu.Lock()
				for i := range p.Nacks {
					for _, seq := range p.Nacks[i].PacketList() {
						if b := ph.sent[seq]; b != nil {
							_, _ = ph.rtp.WriteToUDPAddrPort(b, ph.to)
						}
					}
				}
				ph.mu.Unlock()
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				select {
				case ph.forceKey <- struct{}{}:
				default:
				}
			}
		}
		ph.mu.Lock()
		ph.reports = append(ph.reports, ps...)
		ph.mu.Unlock()
	}
}

// at is the luma around a place of the last picture, or 0.
func (ph *phone) at(x, y int) byte {
	ph.mu.Lock()
	defer ph.mu.Unlock()
	if ph.picture == nil || x >= ph.picture.Width || y >= ph.picture.Height {
		return 0
	}
	return ph.picture.Y[y*ph.picture.YStride+x]
}

func (ph *phone) counts() (pictures, keys int) {
	ph.mu.Lock()
	defer ph.mu.Unlock()
	return ph.pictures, ph.keys
}

func near(a, b byte) bool { return max(a, b)-min(a, b) < 12 }

// seesColour says whether tile i of n shows a colour.
func seesColour(ph *phone, n, i int, luma byte) bool {
	x, y := middle(n, i, 240, 320)
	return near(ph.at(x, y), luma)
}
