package video

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"golang.org/x/net/ipv4"

	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/mediapb"
	"sparkle/media/video/wire"
)

var (
	peer  = netip.MustParseAddrPort("192.0.2.7:4000")
	peerC = netip.MustParseAddrPort("192.0.2.7:4001")
	start = time.Unix(1_000_000, 0)
)

// bare is a leg without sockets, for what needs none.
func bare(t testing.TB, change func(*mediapb.VideoStream)) (*leg, *Plane) {
	o := Options{InProcess: true}
	o.defaults()
	p := &Plane{opt: o, box: newOutbox(), sources: map[uint32]*leg{}, tiers: map[uint32]*tier{}}
	l := newLeg(p, "l", "c", 1, Sockets{})
	v := &mediapb.VideoStream{Remote: &mediapb.Remote{Ip: "192.0.2.7", Port: 4000}, PayloadType: 114, PacketizationMode: 1,
		ProfileLevelId: "42c00c", Width: 240, Height: 320, Send: true, Recv: true, FbPli: true, FbFir: true}
	if change != nil {
		change(v)
	}
	s, err := newStream(v, 15, true)
	if err != nil {
		t.Fatal(err)
	}
	l.stream, l.live = s, true
	l.gates(start)
	l.rx.last, l.rx.shown = start, true
	return l, p
}

func packet(seq uint16, ssrc uint32, payload ...byte) []byte {
	b, err := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 114, SequenceNumber: seq, Timestamp: uint32(seq) * 6000, SSRC: ssrc, Marker: true}, Payload: payload}).Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

func TestAnyPortIsFixedAfterFiveSeconds(t *testing.T) {
	var pkt rtp.Packet
	l, _ := bare(t, func(v *mediapb.VideoStream) { v.Remote.AnyPort = true })
	other := netip.AddrPortFrom(peer.Addr(), 5555)
	third := netip.AddrPortFrom(peer.Addr(), 6666)
	elsewhere := netip.MustParseAddrPort("192.0.2.8:4000")
	for i, tt := range []struct {
		from netip.AddrPort
		at   time.Duration
		ok   bool
	}{
		{elsewhere, 0, false}, {other, 0, true}, {third, 4 * time.Second, true}, {other, 4900 * time.Millisecond, true},
		{third, 6 * time.Second, false}, {other, 6 * time.Second, true}, {peer, 7 * time.Second, false}, {elsewhere, 7 * time.Second, false},
	} {
		before := l.rx.stranger
		l.receive(packet(uint16(i), 1, 0x61, 9), tt.from, start.Add(tt.at), &pkt)
		if got := l.rx.stranger == before; got != tt.ok {
			t.Errorf("step %d from %v after %v: taken %v, want %v", i, tt.from, tt.at, got, tt.ok)
		}
	}
	// RTCP's ports by the same rule.
	rr, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		from netip.AddrPort
		at   time.Duration
		ok   bool
	}{
		{elsewhere, 0, false}, {third, 0, true}, {other, 4 * time.Second, true}, {third, 6 * time.Second, false}, {other, 6 * time.Second, true},
	} {
		before := l.rx.stranger
		l.report(rr, tt.from, start.Add(time.Minute+tt.at))
		if got := l.rx.stranger == before; got != tt.ok {
			t.Errorf("step %d, RTCP from %v after %v: taken %v, want %v", i, tt.from, tt.at, got, tt.ok)
		}
	}
	strict, _ := bare(t, nil)
	strict.receive(packet(1, 1, 0x61, 9), other, start, &pkt)
	if strict.rx.stranger != 1 {
		t.Error("another port was taken from a leg whose port is signalled")
	}
}

// A peer that answers with a number of its own sends ours (RFC 3264 §6.1); its own is taken too.
func TestRenumberedPayloadType(t *testing.T) {
	for _, ours := range []uint32{114, 99} {
		var pkt rtp.Packet
		l, _ := bare(t, func(v *mediapb.VideoStream) {
			v.PayloadType, v.ReceivePayloadType = 114+99-ours, &ours
		})
		l.receive(packet(1, 1, 0x65, 9), peer, start, &pkt)
		if l.rx.dropped != 0 || !l.rx.started {
			t.Errorf("ours %d, theirs %d: a packet of 114 is dropped", ours, 114+99-ours)
		}
	}
}

// Behind a NAT the phone's pictures are taken, and ours go, where three packets of one stream
// came from; others with its SSRC and next numbers are not seen, and are sent nothing.
func TestPicturesOfAPhoneBehindNAT(t *testing.T) {
	at := func(ip string) *net.UDPConn {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	l, p, named, _ := wired(t, func(v *mediapb.VideoStream) { v.Remote.NatPrefixes = []string{"127.0.0.16/28"} })
	phone, near, far := at("127.0.0.20"), at("127.0.0.21"), at("127.0.0.9")
	var pkt rtp.Packet
	seq, after := uint16(0), time.Duration(0)
	send := func(from *net.UDPConn) bool {
		before := l.rx.meter.received
		seq++
		l.receive(packet(seq, 7, 0x65, 0x88, 9), local(from), start.Add(after+time.Duration(seq)*10*time.Millisecond), &pkt)
		if l.rx.meter.received > before {
			return true
		}
		seq-- // the next is still the next
		return false
	}
	for range 10 {
		if send(far) {
			t.Fatal("pictures from outside the prefixes")
		}
	}
	l.send(picture(100))
	if len(came(t, named)) == 0 {
		t.Error("nothing goes where signalling says")
	}
	for _, want := range []bool{false, false, true} { // three packets of one stream prove a phone
		if seq++; send(phone) != want {
			t.Errorf("packet %d of the phone", seq)
		}
	}
	after = 3 * time.Second // before, the named address would have been preferred
	for range 10 {
		if send(near) || send(far) || send(named) {
			t.Error("pictures from two")
		}
	}
	if !send(phone) || len(p.box.units) != 2 {
		t.Errorf("%d pictures", len(p.box.units))
	}
	l.send(picture(100))
	if len(came(t, phone)) == 0 || len(came(t, named))+len(came(t, near))+len(came(t, far)) != 0 {
		t.Error("pictures do not go to the phone alone")
	}
	bye := []byte{0x80, 201, 0, 1, 0, 0, 0, 7, 0x81, 206, 0, 2, 0, 0, 0, 7, 0, 0, 0, 9}
	for i := range 100 {
		l.report(bye, local(near), start.Add(time.Duration(i)*time.Second))
		l.beat(start.Add(time.Duration(i) * time.Second))
	}
	if n := len(came(t, near)); n != 0 || l.tx.askedBy != 0 {
		t.Errorf("%d packets of RTCP to a stranger, %d requests taken of it", n, l.tx.askedBy)
	}
}

func TestAStrayStreamChangesNothingANewOneDoes(t *testing.T) {
	var pkt rtp.Packet
	l, _ := bare(t, nil)
	seq := uint16(0)
	send := func(ssrc uint32) {
		seq++
		l.receive(packet(seq, ssrc, 0x65, 9), peer, start, &pkt)
	}
	send(1)
	send(2)
	send(1)
	if l.rx.ssrc != 1 || l.rx.dropped != 1 {
		t.Errorf("ssrc %d, dropped %d after one stray packet", l.rx.ssrc, l.rx.dropped)
	}
	for range 3 {
		send(2)
	}
	if l.rx.ssrc != 2 {
		t.Error("a new stream was not taken")
	}
	for i := range 5000 { // RELIABILITY row 14: a flood of SSRCs costs nothing
		send(uint32(i + 10))
	}
	if l.rx.ssrc != 2 {
		t.Error("a flood of streams moved us")
	}
}

func TestKeyFrameIsAskedForAgainAndGivenUp(t *testing.T) {
	l, _ := bare(t, nil)
	l.sock = Sockets{udp(t), udp(t)}
	defer l.sock.close()
	phone := udp(t)
	defer phone.Close()
	l.stream.rtcp = local(phone)
	l.gates(start)
	l.rx.known, l.rx.ssrc = true, 77
	l.rx.needKey(start)
	var at []time.Duration
	for d := time.Duration(0); d < 7*time.Second; d += 100 * time.Millisecond {
		before := l.rx.asked
		l.askForKey(start.Add(d))
		if l.rx.asked != before {
			at = append(at, d)
		}
	}
	if len(at) != 4 || at[0] != 0 || at[1] != time.Second || at[2] != 2*time.Second || at[3] != 4*time.Second {
		t.Errorf("asked at %v, want at 0, 1, 2 and 4 s", at)
	}
	buf := make([]byte, 1500)
	n, _, err := phone.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	ps, err := rtcp.Unmarshal(buf[:n])
	if err != nil {
		t.Fatal(err)
	}
	if fir, ok := ps[len(ps)-1].(*rtcp.FullIntraRequest); !ok || fir.FIR[0].SSRC != 77 {
		t.Errorf("a source that never showed a picture was sent %T, want FIR", ps[len(ps)-1])
	}
	quiet, _ := bare(t, func(v *mediapb.VideoStream) { v.FbPli, v.FbFir = false, false })
	quiet.rx.known = true
	quiet.rx.needKey(start)
	quiet.askForKey(start)
	if quiet.rx.asked != 0 {
		t.Error("feedback was sent that was not negotiated")
	}
}

func TestRepeatedFIRIsOneRequest(t *testing.T) {
	l, _ := bare(t, nil)
	fir := func(n uint8) []byte {
		b, err := rtcp.Marshal([]rtcp.Packet{&rtcp.FullIntraRequest{SenderSSRC: 1, MediaSSRC: l.tx.ssrc, FIR: []rtcp.FIREntry{{SSRC: l.tx.ssrc, SequenceNumber: n}}}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for i, tt := range []struct {
		n    uint8
		want bool
	}{{1, true}, {1, false}, {2, true}, {2, false}, {0, true}} {
		if got := l.report(fir(tt.n), peerC, start); got != tt.want {
			t.Errorf("request %d with number %d: %v, want %v", i, tt.n, got, tt.want)
		}
	}
	if l.report(fir(9), peer, start) {
		t.Error("RTCP from the RTP port was taken")
	}
}

func TestStallIsToldOnceAndEnds(t *testing.T) {
	var pkt rtp.Packet
	l, _ := bare(t, nil)
	l.receive(packet(1, 1, 0x65, 9), peer, start, &pkt)
	var told []*mediapb.Event
	for d := time.Duration(0); d < 30*time.Second; d += 100 * time.Millisecond {
		told = append(told, l.stalls(start.Add(d))...)
	}
	if len(told) != 2 || told[0].GetMediaStalled().GetKind() != "video" || told[1].GetVideoState().GetState() != "stalled" {
		t.Fatalf("told %v", told)
	}
	ev := l.receive(packet(2, 1, 0x65, 9), peer, start.Add(31*time.Second), &pkt)
	if len(ev) != 1 || ev[0].GetMediaResumed() == nil {
		t.Errorf("after the stall: %v", ev)
	}
	// packets, but never a picture
	l, _ = bare(t, nil)
	told = nil
	for i := range uint16(150) {
		at := start.Add(time.Duration(i) * 100 * time.Millisecond)
		l.receive(packet(i, 1, 0x61, 9), peer, at, &pkt)
		told = append(told, l.stalls(at)...)
	}
	if len(told) != 1 || told[0].GetVideoState().GetState() != "undecodable" {
		t.Errorf("told %v, want undecodable", told)
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	l, p := bare(t, nil)
	l.sock = Sockets{udp(t), udp(t)}
	defer l.sock.close()
	sink := udp(t)
	defer sink.Close()
	l.stream.remote = local(sink)
	l.gates(start)
	l.tier = 1
	l.tx.pack.Mode = 1
	u := wire.Unit{ID: 1, Key: true, At: time.Now().UnixNano(), Data: append([]byte{0, 0, 0, 1, 0x65}, make([]byte, 3000)...)}
	for i := range u.Data[5:] {
		u.Data[5+i] = 0x55
	}
	l.send(&u)
	if n := testing.AllocsPerRun(100, func() { l.send(&u) }); n > 0 {
		t.Errorf("sending a picture allocates %v times, want 0", n)
	}
	if l.tx.packets < 300 {
		t.Errorf("only %d packets were sent", l.tx.packets)
	}
	l.stream.remote = peer
	l.gates(start)
	var pkt rtp.Packet
	var box []byte
	b := packet(1, 1, append([]byte{0x65}, make([]byte, 900)...)...)
	for i := range b[13:] {
		b[13+i] = 0x55
	}
	seq := uint16(1)
	one := func() {
		b[2], b[3] = byte(seq>>8), byte(seq)
		b[6] = byte(seq)
		l.receive(b, peer, start, &pkt)
		box = p.box.take(box[:0])
		seq++
	}
	one()
	one()
	if n := testing.AllocsPerRun(100, one); n > 1 { // Emit's slice only at the start
		t.Errorf("receiving a picture allocates %v times, want at most 1", n)
	}
}

// Whatever comes on a leg's sockets: no panic, bounded memory.
func FuzzReceive(f *testing.F) {
	f.Add(packet(1, 1, 0x65, 1, 2, 3), false)
	f.Add([]byte{0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9}, true)
	for _, p := range []rtcp.Packet{&rtcp.TransportLayerNack{MediaSSRC: 9, Nacks: []rtcp.NackPair{{PacketID: 7, LostPackets: 0xffff}}},
		putMaxRates(fmtTMMBR, 1, maxRate{9, 100_000, 40}), putMaxRates(fmtTMMBN, 1, maxRate{9, 100_000, 40}, maxRate{8, 0, 0})} {
		f.Add(marshal(f, p), true)
	}
	for _, dir := range []string{"rtp", "rtcp"} {
		files, _ := filepath.Glob(filepath.Join("testdata", "malformed", dir, "*.bin"))
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, dir == "rtcp")
		}
	}
	sock := Sockets{udp(f), udp(f)} // on loopback: what they are told to send to the phone goes nowhere
	f.Cleanup(sock.close)
	f.Fuzz(func(t *testing.T, b []byte, control bool) {
		l, p := bare(t, func(v *mediapb.VideoStream) { mends(v); v.CvoExtension = 4 })
		l.rx.ssrc, l.rx.known, l.tx.ssrc, l.tier = 1, true, 9, 1
		l.sock, l.tx.cache = sock, &cache{}
		l.tx.cache.put(7, []byte{1}, start)
		if control {
			l.report(b, peerC, start)
			return
		}
		var pkt rtp.Packet
		l.receive(b, peer, start, &pkt)
		l.receive(packet(2, 1, 0x65, 1), peer, start, &pkt)
		if p.box.octets > 1<<17 {
			t.Fatalf("%d octets wait after two datagrams", p.box.octets)
		}
	})
}

// With more members than tiles whoever talks is drawn; who was silent for longest,
// of equals the last to join, gives way; order stays that of joining.
func TestTalkersAreVisible(t *testing.T) {
	c := &conference{spoke: map[string]int64{}}
	for i := range 20 {
		c.legs = append(c.legs, &leg{id: string(rune('a' + i)), present: i != 3})
	}
	names := func() (s string) {
		for _, l := range c.visible() {
			s += l.id
		}
		return s
	}
	if got := names(); got != "abcefghijklmnopq" {
		t.Errorf("visible %s", got)
	}
	c.spoke["t"], c.spoke["q"] = 2, 1
	if got := names(); got != "abcefghijklmnoqt" {
		t.Errorf("with talkers: visible %s", got)
	}
}

// What a phone of packetization-mode 0 is sent fits the smallest path of IPv6, 1280 octets
// (IMS.md §5.2, §5.5), whatever the picture: a payload of 1200 at most.
func TestSlicesFitThePath(t *testing.T) {
	for _, size := range [][2]int{{240, 320}, {480, 640}} {
		w := (&tier{key: tierKey{width: size[0], height: size[1], fps: 15, bps: 768_000}, profile: "42c01f"}).wire()
		enc, err := h264.NewEncoder(h264.Params{Width: w.Width, Height: w.Height, FPS: w.FPS, BitrateBps: w.BitrateBps, ProfileLevelID: w.Profile, MaxSlice: w.MaxSlice})
		if err != nil {
			t.Fatal(err)
		}
		defer enc.Close()
		l, _, phone, _ := wired(t, func(v *mediapb.VideoStream) { v.PacketizationMode, v.CvoExtension = 0, 4 })
		l.tx.pack.Mode = 0
		rng := rand.New(rand.NewPCG(1, 2))
		m := yuv.New(w.Width, w.Height)
		for i := range 30 {
			for k := range m.Y {
				if i%10 == 0 || k%37 == i {
					m.Y[k] = byte(rng.IntN(256))
				}
			}
			if i%15 == 0 {
				enc.ForceKeyFrame()
			}
			au, key, err := enc.Encode(m, int64(i*66))
			if err != nil {
				t.Fatal(err)
			}
			l.send(&wire.Unit{ID: 1, Key: key, At: time.Now().UnixNano(), Data: au})
			for _, b := range came(t, phone) {
				if n := len(b) + 40 + 8; n > 1280 {
					t.Errorf("picture %d: a packet of %d octets with its headers", i, n)
				}
			}
		}
		if l.tx.refused != 0 || l.tx.packets < 60 {
			t.Errorf("%d packets, %d pictures refused", l.tx.packets, l.tx.refused)
		}
	}
}

// Both of the leg's sockets mark what they send as the bridge says: AF41.
func TestPacketsAreMarked(t *testing.T) {
	sock := Sockets{udp(t), udp(t)}
	defer sock.RTP.Close()
	defer sock.RTCP.Close()
	l, _ := bare(t, func(v *mediapb.VideoStream) { v.Dscp = 34 })
	l.sock = sock
	l.setDSCP(l.stream)
	for _, c := range []*net.UDPConn{sock.RTP, sock.RTCP} {
		if tos, err := ipv4.NewConn(c).TOS(); err != nil || tos != 34<<2 {
			t.Errorf("TOS %#x, %v; want AF41, 0x88", tos, err)
		}
	}
}
