package video

import (
	"bytes"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"sparkle/media/mediapb"
	"sparkle/media/video/wire"
)

// wired is a leg without a Plane's goroutines whose phone has real sockets.
func wired(t testing.TB, change func(*mediapb.VideoStream)) (l *leg, p *Plane, rtpTo, rtcpTo *net.UDPConn) {
	l, p = bare(t, change)
	l.sock = Sockets{udp(t), udp(t)}
	rtpTo, rtcpTo = udp(t), udp(t)
	t.Cleanup(func() { l.sock.close(); rtpTo.Close(); rtcpTo.Close() })
	l.stream.remote, l.stream.rtcp = local(rtpTo), local(rtcpTo)
	l.gates(start)
	if l.tier, l.tx.pack.Mode = 1, 1; l.stream.pb.FbNack {
		l.tx.cache = &cache{}
	}
	return l, p, rtpTo, rtcpTo
}

func mends(v *mediapb.VideoStream) { v.FbNack, v.FbTmmbr = true, true }

// came is every datagram that has come; loopback delivers within the send call.
func came(t testing.TB, c *net.UDPConn) (all [][]byte) {
	t.Helper()
	buf := make([]byte, 2048)
	for {
		if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return all
		}
		all = append(all, bytes.Clone(buf[:n]))
	}
}

// heard is the feedback in all RTCP that has come, without reports.
func heard(t testing.TB, c *net.UDPConn) (all []rtcp.Packet) {
	t.Helper()
	for _, b := range came(t, c) {
		ps, err := rtcp.Unmarshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := ps[0].(*rtcp.ReceiverReport); !ok && len(ps) > 2 {
			if _, ok := ps[0].(*rtcp.SenderReport); !ok {
				t.Errorf("feedback without a report before it: %v", ps)
			}
		}
		for _, p := range ps {
			switch p.(type) {
			case *rtcp.ReceiverReport, *rtcp.SenderReport, *rtcp.SourceDescription:
			default:
				all = append(all, p)
			}
		}
	}
	return all
}

func marshal(t testing.TB, p rtcp.Packet) []byte {
	t.Helper()
	b, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 9}, p})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func picture(octets int) *wire.Unit {
	return &wire.Unit{ID: 1, Key: true, At: time.Now().UnixNano(), Data: append([]byte{0, 0, 0, 1, 0x65}, bytes.Repeat([]byte{0x55}, octets)...)}
}

func seqOf(b []byte) uint16 { return uint16(b[2])<<8 | uint16(b[3]) }

// A packet that the phone asks for is sent again as it was: once in a round trip, while it
// is fresh, and only where NACK was negotiated.
func TestWhatAPhoneMissesIsSentAgain(t *testing.T) {
	l, _, rtpTo, _ := wired(t, mends)
	l.send(picture(5000))
	sent := came(t, rtpTo)
	if len(sent) != 5 {
		t.Fatalf("%d packets of a picture, want 5", len(sent))
	}
	now := time.Now()
	ask := func(media uint32, at time.Time, seqs ...uint16) [][]byte {
		l.report(marshal(t, &rtcp.TransportLayerNack{SenderSSRC: 9, MediaSSRC: media, Nacks: rtcp.NackPairsFromSequenceNumbers(seqs)}), l.stream.rtcp, at)
		return came(t, rtpTo)
	}
	second, last := seqOf(sent[1]), seqOf(sent[4])
	if got := ask(l.tx.ssrc, now, second, last); len(got) != 2 || !bytes.Equal(got[0], sent[1]) || !bytes.Equal(got[1], sent[4]) {
		t.Fatalf("asked for two of them, got %d", len(got))
	}
	if got := ask(l.tx.ssrc, now.Add(19*time.Millisecond), second); len(got) != 0 {
		t.Error("sent twice within 20 ms")
	}
	l.ctl.rtt = 100 * time.Millisecond
	if got := ask(l.tx.ssrc, now.Add(99*time.Millisecond), second); len(got) != 0 {
		t.Error("sent twice within a round trip")
	}
	if got := ask(l.tx.ssrc, now.Add(101*time.Millisecond), second); len(got) != 1 {
		t.Error("not sent again after a round trip")
	}
	if got := ask(l.tx.ssrc+1, now, seqOf(sent[0])); len(got) != 0 {
		t.Error("sent for somebody else's stream")
	}
	if got := ask(l.tx.ssrc, now, seqOf(sent[0])+1000); len(got) != 0 {
		t.Error("sent what never was")
	}
	if got := ask(l.tx.ssrc, now.Add(time.Second), seqOf(sent[0])); len(got) != 0 {
		t.Error("sent what is a second old")
	}
	if s := l.statistics(now); s.NacksRx != 7 || s.Resent != 3 || s.TxPackets != 8 {
		t.Errorf("%d asked for, %d sent again, %d sent", s.NacksRx, s.Resent, s.TxPackets)
	}
	l, _, rtpTo, _ = wired(t, nil)
	l.send(picture(5000))
	sent = came(t, rtpTo)
	if got := ask(l.tx.ssrc, now, seqOf(sent[0])); len(got) != 0 {
		t.Error("sent again though NACK was not negotiated")
	}
}

// A storm of NACKs is answered with a quarter of the stream's rate (RELIABILITY row 15).
func TestAStormOfNACKsIsNotAmplified(t *testing.T) {
	l, _, rtpTo, _ := wired(t, mends)
	now := time.Now()
	var all []uint16
	octets := 0
	for i := range 10_000 { // for 10 s; every round a new picture and all of it asked for
		at := now.Add(time.Duration(i) * time.Millisecond)
		if i%66 == 0 {
			l.send(picture(3000)) // 384 kbit/s in 15 pictures
			all = all[:0]
			for s := range uint16(cacheSlots) {
				all = append(all, l.tx.seq-1-s)
			}
			slices.Reverse(all)
			for j := range l.tx.cache.slots {
				l.tx.cache.slots[j].at = at
			}
			came(t, rtpTo)
		}
		before := l.tx.bytes
		l.report(marshal(t, &rtcp.TransportLayerNack{MediaSSRC: l.tx.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(all)}), l.stream.rtcp, at)
		octets += int(l.tx.bytes - before)
	}
	// Ten seconds at a quarter of 384 kbit/s, and the second's worth that the cache begins with.
	if most := 11 * 384_000 / 8 / resendShare; octets > most || octets < most/2 {
		t.Errorf("%d octets sent again in 10 s, want at most %d", octets, most)
	}
}

func TestSendingForASecondTimeDoesNotAllocate(t *testing.T) {
	l, _, _, _ := wired(t, mends)
	u := picture(3000)
	for range cacheSlots {
		l.send(u)
	}
	if n := testing.AllocsPerRun(100, func() { l.send(u) }); n > 0 {
		t.Errorf("sending a picture to a phone with NACK allocates %v times, want 0", n)
	}
	now := time.Now()
	nacks := []rtcp.NackPair{{PacketID: l.tx.seq - 1}}
	if n := testing.AllocsPerRun(100, func() {
		now = now.Add(100 * time.Millisecond)
		l.tx.cache.slots[(l.tx.seq-1)%cacheSlots].at = now
		l.resend(nacks, now)
	}); n > 1 { // Range's function
		t.Errorf("sending a packet again allocates %v times", n)
	}
	if l.tx.resent < 50 {
		t.Errorf("only %d were sent again", l.tx.resent)
	}
}

// arrive hands a leg packets of a phone, one octet of a single NAL unit each.
func arrive(l *leg, at time.Time, seqs ...uint16) {
	var pkt rtp.Packet
	for _, s := range seqs {
		l.receive(packet(s, 1, 0x65, 0x88, 9), peer, at, &pkt)
	}
}

// What is missing of a phone's pictures is asked for, and what comes of it is in its place:
// no key frame is needed.
func TestWhatIsMissingIsAskedFor(t *testing.T) {
	l, p, _, rtcpTo := wired(t, mends)
	l.stream.remote = peer
	l.gates(start)
	l.rx.last = start
	at := func(d time.Duration) time.Time { return start.Add(d) }
	arrive(l, start, 1, 2)
	heard(t, rtcpTo)
	arrive(l, at(0), 4)
	if got := heard(t, rtcpTo); len(got) != 0 {
		t.Errorf("asked at once for what was only overtaken: %v", got)
	}
	arrive(l, at(time.Millisecond), 5)
	got := heard(t, rtcpTo)
	if len(got) != 1 {
		t.Fatalf("told the phone %v", got)
	}
	n, ok := got[0].(*rtcp.TransportLayerNack)
	if !ok || n.MediaSSRC != 1 || n.SenderSSRC != l.tx.ssrc || len(n.Nacks) != 1 || !slices.Equal(n.Nacks[0].PacketList(), []uint16{3}) {
		t.Fatalf("asked for %v", got[0])
	}
	arrive(l, at(2*time.Millisecond), 6)
	if got := heard(t, rtcpTo); len(got) != 0 {
		t.Error("asked twice within a round trip")
	}
	if len(p.box.units) != 2 {
		t.Errorf("%d pictures before the gap was filled", len(p.box.units))
	}
	arrive(l, at(30*time.Millisecond), 3)
	if len(p.box.units) != 6 {
		t.Errorf("%d pictures, want all six", len(p.box.units))
	}
	if s := l.statistics(at(0)); s.NacksTx != 1 || s.Recovered != 1 {
		t.Errorf("%d asked for, %d came", s.NacksTx, s.Recovered)
	}
	// One that does not come is asked for twice and given up in time.
	arrive(l, at(100*time.Millisecond), 8, 9)
	for d := 100; d < 400; d += 5 {
		l.chase(at(time.Duration(d) * time.Millisecond))
	}
	asked := 0
	for _, g := range heard(t, rtcpTo) {
		if _, ok := g.(*rtcp.TransportLayerNack); ok {
			asked++
		}
	}
	if asked != 2 || len(p.box.units) != 8 {
		t.Errorf("asked %d times, want 2; %d pictures, want the one after the gap too", asked, len(p.box.units))
	}
	l, _, _, rtcpTo = wired(t, nil)
	l.stream.remote = peer
	l.gates(start)
	arrive(l, start, 1, 2, 4, 5, 6)
	if got := heard(t, rtcpTo); len(got) != 0 {
		t.Errorf("asked though NACK was not negotiated: %v", got)
	}
}

// A key frame is a burst: forty packets that are here at once may wait for the one that is
// missing, where it was asked for.
func TestAHoleInABurstIsMended(t *testing.T) {
	l, p, _, rtcpTo := wired(t, mends)
	l.stream.remote = peer
	l.gates(start)
	var pkt rtp.Packet
	fragment := func(seq uint16) []byte {
		b, err := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 114, SequenceNumber: seq, Timestamp: 6000, SSRC: 1, Marker: seq == 40},
			Payload: append([]byte{0x7c, map[uint16]byte{1: 0x85, 40: 0x45}[seq] | 0x05}, bytes.Repeat([]byte{byte(seq)}, 1000)...)}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for seq := uint16(1); seq <= 40; seq++ {
		if seq != 7 {
			l.receive(fragment(seq), peer, start, &pkt)
		}
	}
	var lost []uint16
	for _, g := range heard(t, rtcpTo) {
		if n, ok := g.(*rtcp.TransportLayerNack); ok {
			lost = append(lost, n.Nacks[0].PacketList()...)
		}
	}
	if !slices.Equal(lost, []uint16{7}) || len(p.box.units) != 0 {
		t.Fatalf("asked for %v with %d pictures out", lost, len(p.box.units))
	}
	l.receive(fragment(7), peer, start.Add(70*time.Millisecond), &pkt)
	if len(p.box.units) != 1 || p.box.octets < 40_000 || !l.rx.needSince.IsZero() {
		t.Errorf("%d pictures of %d octets; a key frame is asked for: %v", len(p.box.units), p.box.octets, !l.rx.needSince.IsZero())
	}
}

// Loss beyond mending is not asked for packet by packet, and feedback stays within the
// leg's share of RTCP.
func TestNACKsAreBounded(t *testing.T) {
	l, _, _, rtcpTo := wired(t, func(v *mediapb.VideoStream) { mends(v); v.RtcpRsBps, v.RtcpRrBps = 8000, 6000 })
	l.stream.remote = peer
	l.gates(start)
	arrive(l, start, 1)
	heard(t, rtcpTo)
	octets, at, seq := 0, start, uint16(1)
	for i := range 2000 { // every second packet lost for 10 s, and now and then forty in a row
		at = at.Add(5 * time.Millisecond)
		if seq += 2; i%500 == 250 {
			seq += 40
		}
		arrive(l, at, seq)
		for _, b := range came(t, rtcpTo) {
			octets += len(b)
		}
	}
	if most := 12 * 7000 / 8; octets == 0 || octets > most { // both send: half of RS and RR
		t.Errorf("%d octets of RTCP in 10 s, the share is %d", octets, most)
	}
}

func TestMaxRatesOnTheWire(t *testing.T) {
	for _, bps := range []uint64{0, 1, 64_000, 131_071, 131_072, 192_000, 1<<40 + 1<<25, 1 << 62} {
		raw := []byte(*putMaxRates(fmtTMMBR, 7, maxRate{8, bps, 40}).(*rtcp.RawPacket))
		kind, sender, got, ok := parseMaxRates(raw)
		if !ok || kind != fmtTMMBR || sender != 7 || len(got) != 1 || got[0].ssrc != 8 || got[0].overhead != 40 {
			t.Fatalf("%d: %v %v %v %v", bps, kind, sender, got, ok)
		}
		if got[0].bps > bps || got[0].bps < bps-bps>>16 {
			t.Errorf("%d bit/s read as %d", bps, got[0].bps)
		}
	}
	// RFC 5104 §4.2.1.1: exponent 1, mantissa 96000, overhead 40.
	b := []byte{0x83, 205, 0, 4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8, 0x06, 0xee, 0x00, 0x28}
	if _, _, got, ok := parseMaxRates(b); !ok || got[0] != (maxRate{8, 192_000, 40}) {
		t.Errorf("%+v", got)
	}
	if got := []byte(*putMaxRates(fmtTMMBR, 7, maxRate{8, 192_000, 40}).(*rtcp.RawPacket)); !bytes.Equal(got, b) {
		t.Errorf("%x, want %x", got, b)
	}
	for n := range b { // cut off anywhere: nothing, or whole entries only
		if _, _, got, ok := parseMaxRates(b[:n]); ok && n < 12 || len(got) > 0 {
			t.Errorf("%d octets are %v", n, got)
		}
	}
	over := bytes.Clone(b)
	over[16], over[17] = 0xff, 0xff // mantissa and exponent at their largest
	if _, _, got, _ := parseMaxRates(over); got[0].bps < 1<<62 || got[0].payloadOf(15) < 1<<30 {
		t.Errorf("no limit at all reads as %+v", got[0])
	}
}

func TestClassesWithinALimit(t *testing.T) {
	for _, tt := range []struct{ full, limit, want int }{
		{384_000, 384_000, 384_000}, {384_000, 1 << 30, 384_000}, {384_000, 383_999, 192_000}, {384_000, 100_000, 96_000},
		{384_000, 95_000, 64_000}, {384_000, 64_000, 64_000}, {384_000, 63_000, 0}, {384_000, 0, 0}, {64_000, 64_000, 64_000},
		{96_000, 70_000, 64_000}, {768_000, 400_000, 384_000},
	} {
		if got := within(tt.full, tt.limit); got != tt.want {
			t.Errorf("%d of %d bit/s allowed: class %d, want %d", tt.limit, tt.full, got, tt.want)
		}
	}
}

func tmmbr(t testing.TB, ssrc uint32, bps uint64) []byte {
	return marshal(t, putMaxRates(fmtTMMBR, 9, maxRate{ssrc, bps, 40}))
}

// A phone's limit holds at once, is confirmed, and is left step by step.
func TestAPhonesLimitIsObeyed(t *testing.T) {
	l, _, _, rtcpTo := wired(t, mends)
	l.stream.pb.BitrateBps = 384_000
	class := func() int {
		key, ok := l.wantsTier()
		if !ok {
			return 0
		}
		return key.bps
	}
	if class() != 384_000 {
		t.Fatalf("class %d without a limit", class())
	}
	l.report(tmmbr(t, l.tx.ssrc, 130_000), l.stream.rtcp, start)
	if class() != 96_000 || !l.ctl.retier {
		t.Errorf("class %d under 130 kbit/s, tiers are looked at: %v", class(), l.ctl.retier)
	}
	got := heard(t, rtcpTo)
	if len(got) != 1 {
		t.Fatalf("answered %v", got)
	}
	kind, sender, entries, ok := parseMaxRates(*got[0].(*rtcp.RawPacket))
	if !ok || kind != fmtTMMBN || sender != l.tx.ssrc || len(entries) != 1 || entries[0].ssrc != 9 || entries[0].overhead != 40 || entries[0].bps > 130_000 || entries[0].bps < 129_000 {
		t.Errorf("confirmed %+v", entries)
	}
	l.ctl.retier = false
	l.report(tmmbr(t, l.tx.ssrc+1, 70_000), l.stream.rtcp, start)
	if class() != 96_000 || len(heard(t, rtcpTo)) != 0 {
		t.Error("a limit of another stream was taken")
	}
	// As much as before is allowed: it comes back by doubling.
	up := start.Add(time.Second)
	l.report(tmmbr(t, l.tx.ssrc, 2_000_000), l.stream.rtcp, up)
	if class() != 96_000 || l.ctl.retier {
		t.Errorf("class %d at once", class())
	}
	var at []time.Duration
	for d := time.Duration(0); d < 30*time.Second; d += 100 * time.Millisecond {
		if before := class(); l.askForRate(up.Add(d)) && class() <= before {
			t.Errorf("tiers looked at for class %d after %d", class(), before)
		} else if class() > before {
			at = append(at, d)
		}
	}
	if class() != 384_000 || len(at) != 2 || at[0] < 3*time.Second || at[1]-at[0] < raiseEvery {
		t.Errorf("class %d, raised at %v", class(), at)
	}
	// Less than anything: no pictures. And a storm: few answers.
	heard(t, rtcpTo)
	for i := range 1000 {
		l.report(tmmbr(t, l.tx.ssrc, uint64(i%2)*30_000), l.stream.rtcp, up.Add(40*time.Second+time.Duration(i)*time.Millisecond))
	}
	if class() != 0 {
		t.Errorf("class %d under 30 kbit/s", class())
	}
	if n := len(heard(t, rtcpTo)); n == 0 || n > 20 {
		t.Errorf("%d answers to 1000 limits in a second", n)
	}
	if s := l.statistics(start); s.TxLimitBps == 0 && l.tx.limit.allowed != 0 {
		t.Errorf("%+v", s)
	}
	l, _, _, rtcpTo = wired(t, nil)
	l.report(tmmbr(t, l.tx.ssrc, 100_000), l.stream.rtcp, start)
	if key, _ := l.wantsTier(); key.bps != 384_000 || len(heard(t, rtcpTo)) != 0 {
		t.Error("a limit was taken that was not negotiated")
	}
}

// The same through the whole plane: within 200 ms the phone is in a tier that suits, the
// others stay where they are, and phones with nearly equal limits share one.
func TestALimitMovesAPhoneToAnotherTier(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	limited := func(l *mediapb.Leg, _ *phone) { l.Video.FbTmmbr = true }
	a := join(t, p, "c", "A", 30, nil)
	b := join(t, p, "c", "B", 200, limited)
	c := join(t, p, "c", "C", 0, limited)
	eventually(t, 10*time.Second, "pictures at all three", func() bool {
		x, _ := a.counts()
		y, _ := b.counts()
		z, _ := c.counts()
		return x > 3 && y > 3 && z > 3
	})
	classes := func() (all []int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for key := range p.confs["c"].tiers {
			all = append(all, key.bps)
		}
		slices.Sort(all)
		return all
	}
	if got := classes(); !slices.Equal(got, []int{384_000}) {
		t.Fatalf("tiers %v", got)
	}
	before, began := map[*phone]int{}, time.Now()
	for i, ph := range []*phone{b, c} {
		ph.mu.Lock()
		before[ph] = ph.keys
		ssrc := ph.ssrc
		ph.mu.Unlock()
		if _, err := ph.rtcp.WriteToUDPAddrPort(tmmbr(t, ssrc, uint64(220_000+10_000*i)), ph.toC); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 2*time.Second, "two tiers", func() bool { return slices.Equal(classes(), []int{192_000, 384_000}) })
	if d := time.Since(began); d > slow*200*time.Millisecond {
		t.Errorf("obeyed after %v, want 200 ms", d)
	}
	for _, ph := range []*phone{b, c} {
		eventually(t, 10*time.Second, "pictures in the new tier", func() bool {
			_, keys := ph.counts()
			return keys > before[ph]
		})
		eventually(t, time.Second, "a confirmation", func() bool {
			ph.mu.Lock()
			defer ph.mu.Unlock()
			return slices.ContainsFunc(ph.reports, func(r rtcp.Packet) bool {
				raw, ok := r.(*rtcp.RawPacket)
				if !ok {
					return false
				}
				kind, _, _, ok := parseMaxRates(*raw)
				return ok && kind == fmtTMMBN
			})
		})
	}
}

// What is asked of a phone whose pictures get lost (IMS.md §5.3).
func TestRateAskedOfAPhone(t *testing.T) {
	var r receiveRate
	now, expected, seen, octets := start, uint64(0), uint64(0), uint64(0)
	second := func(loss float64) bool {
		now = now.Add(time.Second)
		expected += 100
		seen += 100 - uint64(100*loss)
		octets += 50_000 // 400 kbit/s
		return r.step(now, expected, seen, octets)
	}
	run := func(n int, loss float64) (changed []int) {
		for i := range n {
			if second(loss) {
				changed = append(changed, i)
			}
		}
		return changed
	}
	run(20, 0.04)
	if r.limit != 0 {
		t.Errorf("%d bit/s for 4 %% loss", r.limit)
	}
	run(4, 0.1)
	if r.limit != 0 {
		t.Error("asked for less after 4 s")
	}
	if run(1, 0.1); r.limit != 300_000 {
		t.Errorf("%d bit/s after 5 s of loss at 400 kbit/s, want 300", r.limit)
	}
	said := 0
	for i := range 100 { // until it is confirmed, but not for ever
		if r.due(now.Add(time.Duration(i) * 100 * time.Millisecond)) {
			said++
		}
	}
	if said != sayAgain {
		t.Errorf("said %d times", said)
	}
	if run(60, 0.5); r.limit != rateFloor {
		t.Errorf("%d bit/s after a minute of loss, want the floor", r.limit)
	}
	if got := run(10, 0); len(got) != 1 || got[0] != 9 || r.limit != 240_000 {
		t.Errorf("after 10 s without loss %d bit/s, raised at %v", r.limit, got)
	}
	if run(9, 0); r.limit != 240_000 {
		t.Error("raised again before another 10 s")
	}
	run(1, 0.03) // one bad second begins the wait anew
	if run(9, 0); r.limit != 240_000 {
		t.Error("raised in spite of loss 9 s ago")
	}
	if run(100, 0); r.limit != 0 {
		t.Errorf("%d bit/s are still asked for", r.limit)
	}
}

// The leg asks the phone by TMMBR, and no more once that is confirmed.
func TestAPhoneIsAskedForLess(t *testing.T) {
	l, _, _, rtcpTo := wired(t, mends)
	l.stream.remote = peer
	l.gates(start)
	l.ctl.rtt = time.Second // too far away for NACK: what is lost is lost
	seq := uint16(0)
	var got []rtcp.Packet
	for i := range 800 {
		at := start.Add(time.Duration(i) * 10 * time.Millisecond)
		if seq++; i%10 != 3 {
			arrive(l, at, seq)
		}
		l.askForRate(at)
		got = append(got, heard(t, rtcpTo)...)
	}
	var rates []maxRate
	for _, g := range got {
		if raw, ok := g.(*rtcp.RawPacket); ok {
			kind, sender, e, ok := parseMaxRates(*raw)
			if !ok || kind != fmtTMMBR || sender != l.tx.ssrc {
				t.Fatalf("told the phone %v", g)
			}
			rates = append(rates, e...)
		}
	}
	if len(rates) < 2 || len(rates) > 4 || rates[0] != (maxRate{1, rateFloor, 40}) {
		t.Fatalf("asked for %v, want the floor, and again while it is not confirmed", rates)
	}
	l.report(marshal(t, putMaxRates(fmtTMMBN, 1, maxRate{l.tx.ssrc, rateFloor, 40})), l.stream.rtcp, start)
	for i := range 50 {
		l.askForRate(start.Add(8*time.Second + time.Duration(i)*100*time.Millisecond))
	}
	if got := heard(t, rtcpTo); len(got) != 0 {
		t.Errorf("asked again for what was confirmed: %v", got)
	}
}

// Where only FIR was negotiated each request has a number of its own, however it came about.
func TestEachRequestHasItsNumber(t *testing.T) {
	l, _, _, rtcpTo := wired(t, func(v *mediapb.VideoStream) { v.FbPli = false })
	l.stream.remote = peer
	l.gates(start)
	arrive(l, start, 1)
	l.rx.needSince = time.Time{} // the first key frame came
	l.ctl.firSeq = 5
	for d := time.Duration(0); d < 8*time.Second; d += 100 * time.Millisecond {
		l.stalls(start.Add(d))
		l.askForKey(start.Add(d))
	}
	var numbers []uint8
	for _, g := range heard(t, rtcpTo) {
		numbers = append(numbers, g.(*rtcp.FullIntraRequest).FIR[0].SequenceNumber)
	}
	if !slices.Equal(numbers, []uint8{6, 6, 6}) {
		t.Errorf("numbers %v after 5", numbers)
	}
}

// Where the phone sends again what got lost, loss costs no key frames and no picture.
func TestLossIsMendedWithoutKeyFrames(t *testing.T) {
	p, _ := plane(t, inProcess())
	p.SetConference("c", true, false)
	a := join(t, p, "c", "A", 100, func(l *mediapb.Leg, ph *phone) {
		l.Video.FbNack = true
		ph.sent = map[uint16][]byte{}
		ph.lose = func(n int) bool { return n > 10 && n%9 == 0 }
	})
	var s *mediapb.StreamStats
	eventually(t, 30*time.Second, "10 packets that came when they were asked for", func() bool {
		s = p.Snapshot().Legs["A"]
		return s.Recovered >= 10
	})
	// One is asked for at the start. Without NACK there would be one for each that was lost;
	// a busy machine may be late for a few.
	if s.KeyframeRequestsTx > 5 || s.NacksTx < s.Recovered {
		t.Errorf("%d key frames asked for with %d packets asked for and %d come", s.KeyframeRequestsTx, s.NacksTx, s.Recovered)
	}
	x, y := middle(1, 0, 240, 320)
	eventually(t, 5*time.Second, "A's own picture", func() bool { return near(a.at(x, y), 100) })
}

// Loss that a phone reports moves it to a lower tier, with and without TMMBR (DESIGN.md §6):
// after 5 s of it, and back after 10 s without.
func TestReportedLossChoosesTheTier(t *testing.T) {
	l, _ := bare(t, nil)
	now, highest, lost := start, uint32(1000), uint32(0)
	reports := func(d, every time.Duration, percent uint32) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(every)
			n := uint32(every / (10 * time.Millisecond)) // 100 packets a second
			highest += n
			lost += n * percent / 100
			rr := rtcp.ReceiverReport{SSRC: 9, Reports: []rtcp.ReceptionReport{{SSRC: l.tx.ssrc, FractionLost: uint8(percent * 256 / 100), TotalLost: lost, LastSequenceNumber: highest}}}
			b, err := rtcp.Marshal([]rtcp.Packet{&rr})
			if err != nil {
				t.Fatal(err)
			}
			l.report(b, peerC, now)
		}
	}
	for _, tt := range []struct {
		what     string
		d, every time.Duration
		percent  uint32
		want     int
	}{
		{"none", 20 * time.Second, time.Second, 0, 384_000},
		{"a burst", 3 * time.Second, time.Second, 30, 384_000},
		{"none again", 5 * time.Second, time.Second, 0, 384_000},
		{"a little, for long", time.Minute, time.Second, 4, 384_000},
		{"much for 5 s", 6 * time.Second, time.Second, 10, 192_000},
		{"much for long: the floor", time.Minute, time.Second, 10, 192_000},
		{"a little", time.Minute, time.Second, 4, 192_000},
		{"none for less than 10 s", 9 * time.Second, time.Second, 0, 192_000},
		{"none for 10 s", 3 * time.Second, time.Second, 0, 384_000},
		{"much again at once", 6 * time.Second, time.Second, 10, 192_000},
		{"none: it was too early", 12 * time.Second, time.Second, 0, 192_000},
		{"none: this long", 10 * time.Second, time.Second, 0, 384_000},
		{"none for long", time.Minute, time.Second, 0, 384_000},
		{"reports of a phone that sends few", 15 * time.Second, 5 * time.Second, 10, 192_000},
		{"none of them", 15 * time.Second, 5 * time.Second, 0, 384_000},
	} {
		l.ctl.retier = false
		before, _ := l.wantsTier()
		reports(tt.d, tt.every, tt.percent)
		key, ok := l.wantsTier()
		if !ok || key.bps != tt.want {
			t.Fatalf("%s: %d bit/s %v, want %d", tt.what, key.bps, ok, tt.want)
		}
		if l.ctl.retier != (before.bps != key.bps) {
			t.Errorf("%s: it is put into another tier: %v", tt.what, l.ctl.retier)
		}
	}
}
