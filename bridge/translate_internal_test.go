package bridge

import (
	"net/netip"
	"testing"

	"sparkle/sip"
	"sparkle/sip/sdp"
)

// What the peer says of RTCP's bandwidth holds, none as well; where it says nothing, 5 % of
// its b=AS, a quarter of that for senders.
func TestRTCPShare(t *testing.T) {
	for _, tt := range []struct {
		said, as int
		share    float64
		want     uint32
	}{
		{600, 41, senders, 600}, {0, 41, receivers, 0}, {-1, 40, senders, 500}, {-1, 40, receivers, 1500}, {-1, -1, senders, 0}, {-1, 0, receivers, 0},
	} {
		if got := rtcpShare(tt.said, tt.as, tt.share); got != tt.want {
			t.Errorf("b=RS or RR of %d with b=AS:%d: %d bit/s, want %d", tt.said, tt.as, got, tt.want)
		}
	}
}

// Where an attachment lets media come from reaches the engine, with the version of the phone's
// description.
func TestLatchReachesTheEngine(t *testing.T) {
	r := sdp.Remote{Addr: netip.MustParseAddr("192.0.2.1"), Port: 4000, RTCPPort: 4001}
	for _, any := range []bool{false, true} {
		if got := remote(r, sip.MediaProfile{AnyPort: any}, 7); got.AnyPort != any || got.Port != 4000 || got.NatPrefixes != nil || got.Version != 7 {
			t.Errorf("any port %v: %v", any, got)
		}
	}
	got := remote(r, sip.MediaProfile{NATPrefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}, 1)
	if len(got.NatPrefixes) != 1 || got.NatPrefixes[0] != "203.0.113.0/24" {
		t.Errorf("behind NAT: %v", got)
	}
}

// The numbers that packets from the peer carry, ours, reach the engine beside the peer's own.
func TestPayloadTypesReachTheEngine(t *testing.T) {
	r := sdp.Remote{Addr: netip.MustParseAddr("192.0.2.1"), Port: 4000, RTCPPort: 4001}
	m := mediaLeg(&leg{agreed: &sdp.Result{Audio: &sdp.Audio{Remote: r, Codec: "AMR-WB", PT: 104, RecvPT: 97, DTMFPT: 110, DTMFRecvPT: 101},
		Video: &sdp.Video{Remote: r, PT: 99, RecvPT: 114}}})
	a, v := m.Audio, m.Video
	if a.PayloadType != 104 || a.GetReceivePayloadType() != 97 || a.DtmfPayloadType != 110 || a.GetReceiveDtmfPayloadType() != 101 {
		t.Errorf("audio %v", a)
	}
	if v.PayloadType != 99 || v.GetReceivePayloadType() != 114 {
		t.Errorf("video %v", v)
	}
}

// What was negotiated of RTCP feedback and of changes of the codec's mode reaches the engine,
// and nothing else does.
func TestFeedbackReachesTheEngine(t *testing.T) {
	r := sdp.Remote{Addr: netip.MustParseAddr("192.0.2.1"), Port: 4000, RTCPPort: 4001}
	l := &leg{agreed: &sdp.Result{Audio: &sdp.Audio{Remote: r, Codec: "AMR", ModeChangePeriod: 2, ModeChangeNeighbor: true},
		Video: &sdp.Video{Remote: r, NACK: true, TMMBR: true, TrrInt: 5000}}}
	m := mediaLeg(l)
	if a := m.Audio; a.ModeChangePeriod != 2 || !a.ModeChangeNeighbor {
		t.Errorf("audio %v", a)
	}
	if v := m.Video; !v.FbNack || !v.FbTmmbr || v.FbPli || v.FbFir || v.TrrIntMs != 5000 {
		t.Errorf("video %v", v)
	}
	l.agreed.Video = &sdp.Video{Remote: r, PLI: true}
	if v := mediaLeg(l).Video; v.FbNack || v.FbTmmbr || !v.FbPli {
		t.Errorf("video with PLI only %v", v)
	}
}
