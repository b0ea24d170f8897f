package sdp

import (
	"slices"
	"strconv"
	"strings"
)

// negotiateVideo fills r.Video or r.WhyNoVideo from an answer to our offer.
func (r *Result) negotiateVideo(offer, answer *Session) {
	o := offer.Video
	if o == nil || o.Port == 0 {
		r.WhyNoVideo = VideoNotOffered
		return
	}
	a := at(answer, o)
	switch {
	case a == nil:
		r.WhyNoVideo = VideoMissingMLine
	case a.Port == 0:
		r.WhyNoVideo = VideoRefused
	default:
		r.agreeVideo(o, a, videoPair(o, a), o.accepted(a))
	}
}

// accepted reports whether the answer a to m allows RTCP feedback: RTP/AVPF is in the
// m-line, or a potential configuration with it was taken (RFC 5939 §3.6).
func (m *Media) accepted(a *Media) bool {
	if a.Proto == "RTP/AVPF" {
		return m.Proto == "RTP/AVPF" || len(m.TCap) > 0
	}
	if a.ACfg == nil {
		return false
	}
	for _, c := range m.PCfg {
		if c.Number == a.ACfg.Number {
			return m.TCap[c.Transport] == "RTP/AVPF"
		}
	}
	return false
}

// pair is one H.264 format as both sides wrote it.
type pair struct{ ours, theirs *Format }

// videoPair picks their first H.264 format that we have too: the same payload type if
// that is one, else any of the same profile (IMS.md §5.2). nil: none.
func videoPair(ours, theirs *Media) *pair {
	for i := range theirs.Payloads {
		f := &theirs.Payloads[i]
		if !usableH264(f) {
			continue
		}
		best := (*Format)(nil)
		for j := range ours.Payloads {
			g := &ours.Payloads[j]
			if !usableH264(g) {
				continue
			}
			if best == nil || g.PT == f.PT {
				best = g
			}
		}
		if best != nil {
			return &pair{best, f}
		}
	}
	return nil
}

func usableH264(f *Format) bool {
	return f.Name == "H264" && f.Fault == "" && f.H264.PacketizationMode <= 1 && f.H264.Profile.Decodable()
}

// agreeVideo fills r.Video. avpf says whether feedback was negotiated.
func (r *Result) agreeVideo(ours, theirs *Media, p *pair, avpf bool) {
	rem, err := remoteOf(theirs, ours.Addr, ErrBadAnswer)
	if err != nil || p == nil {
		if err != nil {
			r.note("video: %v", err)
		}
		r.WhyNoVideo = VideoCodecMismatch
		return
	}
	g, f := p.ours, p.theirs
	v := &Video{Remote: rem, PT: f.PT, RecvPT: g.PT, Sprop: f.H264.Sprop, AVPF: avpf,
		AS: theirs.AS, RS: theirs.RS, RR: theirs.RR,
		PacketizationMode: min(g.H264.PacketizationMode, f.H264.PacketizationMode)}
	level := min(g.H264.Profile.Level(), f.H264.Profile.Level())
	if g.H264.LevelAsymmetry && f.H264.LevelAsymmetry {
		level = f.H264.Profile.Level()
	}
	// max-fs, max-mbps and max-br are a peer's leave to be sent more than its level has
	// (RFC 6184 §8.1). It is not used: an encoder writes the level that a stream needs into it.
	limit := limitsOf(level)
	v.Profile = constrainedAt(limit.level)
	v.RecvLevel = g.H264.Profile
	size := theirs.wantedSize(f.PT, limit)
	v.Width, v.Height = size.Width, size.Height
	v.FPS = frameRate(size, limit)
	v.BitrateBps = bitrate(theirs, limit, size)
	if theirs.CVO != 0 && ours.CVO != 0 {
		v.CVO = theirs.CVO
	}
	if avpf {
		has := func(what string) bool { return ours.wants(g.PT, what) && theirs.wants(f.PT, what) }
		v.NACK, v.PLI, v.FIR, v.TMMBR = has("nack"), has("nack pli"), has("ccm fir"), has("ccm tmmbr")
		v.TrrInt = theirs.trrInt(f.PT)
	}
	v.Send, v.Recv = flows(ours, theirs)
	r.Video = v
	if !v.Send && !v.Recv {
		r.WhyNoVideo = VideoInactive
	}
}

// wants reports whether m lists feedback what for a payload type.
func (m *Media) wants(pt int, what string) bool {
	return slices.ContainsFunc(m.Feedback, func(fb Feedback) bool {
		return (fb.PT == -1 || fb.PT == pt) && (fb.Value == what || strings.HasPrefix(fb.Value, what+" smaxpr"))
	})
}

// trrInt is the trr-int of a payload type in ms (RFC 4585 §4.2), 0 if there is none.
func (m *Media) trrInt(pt int) int {
	for _, fb := range m.Feedback {
		if v, ok := strings.CutPrefix(fb.Value, "trr-int "); ok && (fb.PT == -1 || fb.PT == pt) {
			if ms, err := strconv.ParseUint(v, 10, 31); err == nil {
				return int(ms)
			}
		}
	}
	return 0
}

// carries reports whether pictures of that size may be sent: the level has room (H.264 §A.3.1)
// and they are none that no encoder makes.
func (l levelLimits) carries(s Size) bool {
	w, h := (s.Width+15)/16, (s.Height+15)/16
	return s.Width >= 32 && s.Height >= 32 && s.Width <= 1920 && s.Height <= 1088 &&
		w*h <= l.fs && w*w <= 8*l.fs && h*h <= 8*l.fs
}

func macroblocks(s Size) int { return ((s.Width + 15) / 16) * ((s.Height + 15) / 16) }

// wantedSize is what the peer wants to be sent: the first of its imageattr recv list that
// the level allows, its framesize, else what phones of that level show: portrait.
func (m *Media) wantedSize(pt int, limit levelLimits) Size {
	ia, ok := m.Images[pt]
	if !ok {
		ia = m.Images[-1]
	}
	for _, s := range ia.Recv {
		if limit.carries(s) {
			return even(s)
		}
	}
	if fs, ok := m.framesize[pt]; ok && len(ia.Recv) == 0 {
		if s := (Size{fs[0], fs[1]}); limit.carries(s) {
			return even(s)
		}
	}
	switch {
	case limit.fs >= 1200: // level 2.2 and up
		return Size{480, 640}
	case limit.fs >= 300: // level 1.1 and up
		return Size{240, 320}
	}
	return Size{144, 176}
}

// even: 4:2:0 pictures have even sides.
func even(s Size) Size { return Size{s.Width &^ 1, s.Height &^ 1} }

// frameRate is 15 as phones have it, 30 where level 3 and up leaves room.
func frameRate(s Size, limit levelLimits) int {
	most := limit.mbps / max(1, macroblocks(s))
	want := 15
	if limit.level >= 300 {
		want = 30
	}
	return max(1, min(want, most))
}

// bitrate is what we may send: b=TIAS as it stands, else b=AS less about a tenth of
// IP, UDP and RTP headers; never above the level.
func bitrate(m *Media, limit levelLimits, s Size) int {
	most := min(limit.kbps*1000, 2_000_000)
	switch {
	case m.TIAS > 0:
		return min(most, m.TIAS)
	case m.AS > 0:
		share := 90
		if m.Addr.Is6() {
			share = 87
		}
		return min(most, m.AS*10*share)
	case macroblocks(s) > 396:
		return min(most, 768_000)
	}
	return min(most, 384_000)
}
