package media

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sparkle/media/codec/amr"
	"sparkle/media/mediapb"
	"sparkle/media/rtp"
)

// attacker says 3 kHz as loudly as it can, in packets that would be the victim's next ones.
type attacker struct {
	a    *air
	c    *net.UDPConn
	enc  *coder
	sent int
	got  int
}

func listenAt(t testing.TB, ip string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (a *air) attacker(ip string) *attacker {
	a.t.Helper()
	enc, err := newCoder(coderKind{codec: wb})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(enc.close)
	return &attacker{a: a, c: listenAt(a.t, ip), enc: enc}
}

// strike sends what the victim would send next, and RTCP in its name.
func (e *attacker) strike(v *phone) {
	e.a.t.Helper()
	var pcm [frameLen]int16
	for i := range pcm { // 3 kHz at 16 kHz: 16 samples are three periods
		pcm[i] = [16]int16{0, 27716, 21213, -11480, -30000, -11480, 21213, 27716, 0, -27716, -21213, 11480, 30000, 11480, -21213, -27716}[i%16]
	}
	for i := range 4 {
		e.enc.encode(8, &pcm)
		b := make([]byte, 12+frameMax+4)
		header(b, v.pt(), v.seq+1+uint16(i), v.ts+uint32(i+1)*320, v.ssrc)
		n := v.format.Pack(b[12:], 0, amr.Frame{Type: e.enc.out.ft, Bits: e.enc.out.bits}) // and would have the lowest mode
		e.write(b[:12+n], v.to)
	}
	bye := []byte{0x80, rtp.TypeRR, 0, 1, 0, 0, 0, byte(v.ssrc), 0x81, rtp.TypeBYE, 0, 1, 0, 0, 0, byte(v.ssrc)}
	e.write(bye, v.toRTCP)
}

func (e *attacker) write(b []byte, to netip.AddrPort) {
	e.a.t.Helper()
	if _, err := e.c.WriteToUDPAddrPort(b, to); err != nil {
		e.a.t.Fatal(err)
	}
	e.sent++
}

func (e *attacker) listen() { recv(e.c, func([]byte) { e.got++ }) }

// Whatever is sent by others, with the phone's SSRC and next numbers, before its first packet,
// while it talks, after a re-INVITE: those who hear it hear to the sample what they would have
// heard, and not one packet goes to an attacker (RELIABILITY rows 12 and 13, HV-F).
func TestNobodySpeaksForAnother(t *testing.T) {
	type scene struct {
		name      string
		latch     func(*mediapb.Remote)
		phone     string   // where it sends from; "": where it said
		attackers []string // from the beginning
		later     []string // once the phone is known
	}
	for _, s := range []scene{
		{"off", func(*mediapb.Remote) {}, "", []string{"127.0.0.1", "127.0.0.9"}, nil},
		{"strict", func(r *mediapb.Remote) { r.AnyPort = true }, "", []string{"127.0.0.9"}, nil},
		{"nat", func(r *mediapb.Remote) { r.NatPrefixes = []string{"127.0.0.16/28"} }, "127.0.0.20",
			[]string{"127.0.0.9", "127.0.0.1"}, []string{"127.0.0.20", "127.0.0.21", "127.0.0.5"}},
	} {
		t.Run(s.name, func(t *testing.T) {
			heard := func(attack bool) []float64 {
				a := newAir(t, Options{})
				a.set(confC())
				x := a.join("c", "x", wb, 0, func(l *mediapb.Leg) {
					l.Present = false
					s.latch(l.Audio.Remote)
					if s.phone != "" {
						l.Audio.Remote.Ip = "127.0.0.5" // what it believes it is
					}
				})
				if s.phone != "" {
					x.rtp, x.rtcp = listenAt(t, s.phone), listenAt(t, s.phone)
				}
				y := a.join("c", "y", wb, 0)
				a.join("c", "z", wb, 700)
				var evil []*attacker
				for _, ip := range s.attackers {
					evil = append(evil, a.attacker(ip))
				}
				run := func(d time.Duration) {
					for end := a.now + int64(d); a.now < end; {
						if attack {
							for _, e := range evil {
								e.strike(x)
							}
						}
						if a.now%int64(time.Second) == 0 && !x.off {
							rr := []byte{0x80, rtp.TypeRR, 0, 1, 0, 0, 0, byte(x.ssrc)}
							if _, err := x.rtcp.WriteToUDPAddrPort(rr, x.toRTCP); err != nil {
								t.Fatal(err)
							}
						}
						a.run(20 * time.Millisecond)
					}
				}
				x.off = true
				run(500 * time.Millisecond) // it rings
				x.leg.Present = true
				x.update()
				run(200 * time.Millisecond) // answered, and nothing comes yet
				x.off, x.toneHz = false, 500
				run(time.Second)
				y.hears(x, a.phones[2])
				for _, ip := range s.later {
					evil = append(evil, a.attacker(ip))
				}
				run(time.Second)
				x.leg.Audio.Remote.Version++
				x.update()
				run(6 * time.Second)
				y.hears(x, a.phones[2])
				x.hears(a.phones[2])
				got, sent := a.stats("x").Audio, 0
				for _, e := range evil {
					sent += e.sent
					if e.listen(); e.got != 0 {
						t.Errorf("%v was sent %d packets", e.c.LocalAddr(), e.got)
					}
				}
				early := 0
				if s.phone != "" {
					early = 2 // until three prove it
				}
				if int(got.RxPackets) != x.sent-early || int(got.RxStranger) < sent+early || got.RxLate != 0 || got.TxLoss != 0 {
					t.Errorf("of %d packets of the phone %d were taken, of %d of others %d refused; %d late", x.sent, got.RxPackets, sent, got.RxStranger, got.RxLate)
				}
				return y.heard
			}
			if quiet, attacked := heard(false), heard(true); !slices.Equal(quiet, attacked) {
				t.Errorf("what is heard is not the same to the sample: %d and %d of them", len(quiet), len(attacked))
			}
		})
	}
}

// Behind a NAT: nothing is sent where no valid stream came from, RTCP follows RTP, and a new
// mapping is found after a re-INVITE.
func TestAPhoneBehindNATIsFound(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	named, namedC := listenAt(t, "127.0.0.5"), listenAt(t, "127.0.0.5")
	x := a.join("c", "x", wb, 500, func(l *mediapb.Leg) {
		l.Audio.Remote = &mediapb.Remote{Ip: "127.0.0.5", Port: uint32(addrOf(named).Port()), RtcpPort: uint32(addrOf(namedC).Port()), NatPrefixes: []string{"127.0.0.16/28"}, Version: 1}
	})
	y := a.join("c", "y", wb, 300)
	count := func(c *net.UDPConn) (n int) {
		recv(c, func([]byte) { n++ })
		return n
	}
	mapped := func() *net.UDPConn {
		c := listenAt(t, "127.0.0.20")
		x.rtp = c
		return c
	}
	x.off = true
	mapped()
	x.rtcp = listenAt(t, "127.0.0.20")
	a.run(time.Second)
	if count(named) == 0 || len(x.packets) != 0 {
		t.Errorf("before it is heard: %d packets at the phone, and those named get none", len(x.packets))
	}
	// Payload types that were not negotiated, streams that change: no proof.
	for i := range 10 {
		b := make([]byte, 12+61)
		header(b, 97, uint16(i), uint32(i)*320, 9)
		x.write(b)
		header(b, 96, uint16(i), uint32(i)*320, uint32(i))
		x.write(b)
	}
	a.run(100 * time.Millisecond)
	if len(x.packets) != 0 || a.stats("x").Audio.RxPackets != 0 {
		t.Error("a source without three packets of a stream was believed")
	}
	x.off = false
	a.run(time.Second)
	count(named)
	count(namedC)
	// Its RTCP comes from there too.
	rr := []byte{0x80, rtp.TypeRR, 0, 1, 0, 0, 0, byte(x.ssrc)}
	for range 3 {
		if _, err := x.rtcp.WriteToUDPAddrPort(rr, x.toRTCP); err != nil {
			t.Fatal(err)
		}
		a.run(4 * time.Second)
	}
	a.run(6 * time.Second)
	x.hears(y)
	y.hears(x)
	if n := count(named); n != 0 {
		t.Errorf("%d packets still go to the named address", n)
	}
	if len(x.reports) < 2 {
		t.Errorf("%d reports at the phone", len(x.reports))
	}
	// Another mapping is a stranger, until the phone has said something new.
	mapped()
	a.run(2 * time.Second)
	y.hears()
	x.leg.Audio.Remote.Version++
	x.update()
	a.run(time.Second)
	y.hears(x)
	x.hears(y)
	bad := &mediapb.Leg{Id: "x", Audio: &mediapb.AudioStream{Codec: wb, PayloadType: 96, Send: true, Remote: &mediapb.Remote{Ip: "127.0.0.5", Port: 4000, NatPrefixes: []string{"everywhere"}}}}
	if err := a.e.SetLeg(t.Context(), bad); err == nil {
		t.Error("a prefix that is none was taken")
	}
}
