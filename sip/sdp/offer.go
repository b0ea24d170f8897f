package sdp

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"
)

// AVPF is how an offer asks for RTCP feedback (IMS.md §2.1).
type AVPF string

const (
	CapNeg    AVPF = "capneg"     // RTP/AVP with an RFC 5939 potential configuration; "" too
	PlainAVPF AVPF = "plain_avpf" // m-line says RTP/AVPF
	PlainAVP  AVPF = "avp"        // no feedback is asked for
)

// Payload types of our offers. They never change within a session.
const (
	ptAMRWB, ptAMRWBOA = 97, 98
	ptAMR, ptAMROA     = 99, 100
	ptDTMF16, ptDTMF8  = 101, 102
	ptH264, ptH264Low  = 114, 115
	ptH264Single       = 116
	ptPCMU, ptPCMA     = 0, 8
	ptG722, ptCN       = 9, 13
	ptOpus, ptDTMF48   = 103, 104

	cvoID   = 4
	videoAS = 960 // kbit/s; VGA as handsets offer it
)

// NewOrigin is the o= of a new session: the id is the NTP time, as RFC 8866 §5.2
// recommends.
func NewOrigin(now time.Time) Origin {
	id := uint64(now.Unix()) + 2_208_988_800
	return Origin{Username: "-", SessionID: id, Version: id}
}

// OfferOptions says what to offer. Addr and AudioPort are required.
type OfferOptions struct {
	Origin    Origin     // of a new session (NewOrigin); ignored with Previous
	Addr      netip.Addr // where we receive
	AudioPort int
	Video     bool // offer video on VideoPort
	VideoPort int
	// Previous is our last description of this session, offer or answer (parsed). Its
	// m-lines keep their places (a refused or removed one stays with port 0, RFC 3264
	// §8), and the version rises if anything is different now.
	Previous       *Session
	AVPF           AVPF
	Opus           bool   // after AMR-WB
	G711           bool   // G.722, PCMA, PCMU and their comfort noise last: trunks, where calls end in CS networks
	Sprop          string // sprop-parameter-sets of our encoder, "" if it is not known
	AudioDirection Direction
	VideoDirection Direction
	// QoS adds active precondition lines: our resources are ready (RFC 3312).
	QoS bool
}

// Offer writes the description of IMS.md §2.1, or its audio half.
func Offer(o OfferOptions) []byte {
	w := writer{addr: o.Addr}
	w.media = append(w.media, w.audioOffer(o))
	w.as = audioAS(o)
	prev := o.Previous
	if prev == nil {
		if o.Video {
			w.as += videoAS
			w.media = append(w.media, w.videoOffer(o))
		}
		w.origin = o.Origin
		return w.bytes()
	}
	w.media = w.media[:0]
	audio, video := false, !o.Video
	for _, m := range prev.Media {
		switch {
		case m.Kind == "audio" && !audio:
			audio = true
			w.media = append(w.media, w.audioOffer(o))
		case m.Kind == "video" && !video:
			video = true
			w.as += videoAS
			w.media = append(w.media, w.videoOffer(o))
		default:
			w.media = append(w.media, refused(m))
		}
	}
	if !audio { // somebody else has taken the call over, with video only
		w.media = append(w.media, w.audioOffer(o))
	}
	if !video {
		w.as += videoAS
		w.media = append(w.media, w.videoOffer(o))
	}
	return w.following(prev)
}

// refused keeps the slot of an m-line. RFC 3264 §6: port 0, and formats of the other
// side because the grammar wants at least one.
func refused(m *Media) string {
	s := fmt.Sprintf("m=%s 0 %s", m.Kind, m.Proto)
	for _, f := range m.Formats {
		s += " " + f
	}
	return s + "\r\n"
}

// writer collects a description.
type writer struct {
	origin Origin
	addr   netip.Addr
	as     int // kbit/s, 0: no line
	media  []string
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IP4"
	}
	return "IP6"
}

func (w *writer) bytes() []byte {
	var b bytes.Buffer
	user := w.origin.Username
	if user == "" {
		user = "-"
	}
	fmt.Fprintf(&b, "v=0\r\no=%s %d %d IN %s %s\r\ns=-\r\nc=IN %s %s\r\n", user, w.origin.SessionID,
		w.origin.Version, family(w.addr), w.addr, family(w.addr), w.addr)
	if w.as > 0 {
		fmt.Fprintf(&b, "b=AS:%d\r\n", w.as)
	}
	b.WriteString("t=0 0\r\n")
	for _, m := range w.media {
		b.WriteString(m)
	}
	return b.Bytes()
}

// following numbers the description as the one after prev: the same version if not a
// byte is different, else one more (RFC 3264 §8).
func (w *writer) following(prev *Session) []byte {
	w.origin = prev.Origin
	if b := w.bytes(); bytes.Equal(b, prev.raw) {
		return b
	}
	w.origin.Version++
	return w.bytes()
}

// audioAS is the b=AS of 20 ms packets with their IP headers, of the widest format.
func audioAS(o OfferOptions) int {
	switch {
	case o.G711 && o.Addr.Is4():
		return 80
	case o.G711:
		return 88
	case o.Addr.Is4():
		return 41
	}
	return 49
}

// audioFormat is a payload type as it is written.
type audioFormat struct {
	pt        int
	enc, fmtp string
}

// opusFmtp is what we want to receive (RFC 7587 §6.1): what 16 kHz mono carries, at a rate
// that fits beside AMR-WB's, in packets of 20 ms, nothing in silence, and FEC.
const opusFmtp = "maxplaybackrate=16000;sprop-maxcapturerate=16000;maxaveragebitrate=24000;minptime=20;useinbandfec=1;usedtx=1"

// audioFormats are those of an offer, preferred first.
func audioFormats(o OfferOptions) []audioFormat {
	f := []audioFormat{
		{ptAMRWB, "AMR-WB/16000/1", "mode-change-capability=2;max-red=220"},
		{ptAMRWBOA, "AMR-WB/16000/1", "octet-align=1;mode-change-capability=2;max-red=220"},
	}
	if o.Opus {
		f = append(f, audioFormat{ptOpus, "opus/48000/2", opusFmtp})
	}
	f = append(f,
		audioFormat{ptAMR, "AMR/8000/1", "mode-change-capability=2;max-red=220"},
		audioFormat{ptAMROA, "AMR/8000/1", "octet-align=1;mode-change-capability=2;max-red=220"},
		audioFormat{ptDTMF16, "telephone-event/16000", "0-15"},
		audioFormat{ptDTMF8, "telephone-event/8000", "0-15"})
	if o.Opus {
		f = append(f, audioFormat{ptDTMF48, "telephone-event/48000", "0-15"})
	}
	if o.G711 {
		f = append(f, audioFormat{ptG722, "G722/8000", ""}, audioFormat{ptPCMA, "PCMA/8000", ""},
			audioFormat{ptPCMU, "PCMU/8000", ""}, audioFormat{ptCN, "CN/8000", ""})
	}
	return f
}

func (w *writer) audioOffer(o OfferOptions) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "m=audio %d RTP/AVP", o.AudioPort)
	formats := audioFormats(o)
	for _, f := range formats {
		fmt.Fprintf(&b, " %d", f.pt)
	}
	fmt.Fprintf(&b, "\r\nb=AS:%d\r\nb=RS:600\r\nb=RR:2000\r\n", audioAS(o))
	for _, f := range formats {
		fmt.Fprintf(&b, "a=rtpmap:%d %s\r\n", f.pt, f.enc)
		if f.fmtp != "" {
			fmt.Fprintf(&b, "a=fmtp:%d %s\r\n", f.pt, f.fmtp)
		}
	}
	b.WriteString("a=ptime:20\r\na=maxptime:240\r\n")
	b.WriteString(qosOffer(o.QoS))
	fmt.Fprintf(&b, "a=%s\r\n", o.AudioDirection)
	return b.String()
}

// qosOffer are the lines of RFC 3312 §5 for a side without a radio.
func qosOffer(on bool) string {
	if !on {
		return ""
	}
	return "a=curr:qos local sendrecv\r\na=curr:qos remote none\r\n" +
		"a=des:qos mandatory local sendrecv\r\na=des:qos optional remote sendrecv\r\n"
}

func (w *writer) videoOffer(o OfferOptions) string {
	var b bytes.Buffer
	proto := "RTP/AVP"
	if o.AVPF == PlainAVPF {
		proto = "RTP/AVPF"
	}
	fmt.Fprintf(&b, "m=video %d %s %d %d %d\r\nb=AS:%d\r\nb=RS:8000\r\nb=RR:6000\r\n",
		o.VideoPort, proto, ptH264, ptH264Low, ptH264Single, videoAS)
	if o.AVPF == CapNeg || o.AVPF == "" {
		b.WriteString("a=tcap:1 RTP/AVPF\r\na=pcfg:1 t=1\r\n")
	}
	sprop := ""
	if o.Sprop != "" {
		sprop = ";sprop-parameter-sets=" + o.Sprop
	}
	const vga, qvga = "[x=480,y=640] [x=640,y=480]", "[x=240,y=320] [x=320,y=240]"
	// Handsets look for their own level and size first (IMS.md §2.1): hence a payload
	// type of its own for level 1.2, with its own imageattr.
	fmt.Fprintf(&b, "a=rtpmap:%d H264/90000\r\na=fmtp:%d profile-level-id=42c01f;packetization-mode=1%s\r\n",
		ptH264, ptH264, sprop)
	fmt.Fprintf(&b, "a=imageattr:%d send %s recv %s %s\r\n", ptH264, vga, vga, qvga)
	fmt.Fprintf(&b, "a=rtpmap:%d H264/90000\r\na=fmtp:%d profile-level-id=42c00c;packetization-mode=1\r\n",
		ptH264Low, ptH264Low)
	fmt.Fprintf(&b, "a=imageattr:%d send %s recv %s\r\n", ptH264Low, qvga, qvga)
	fmt.Fprintf(&b, "a=rtpmap:%d H264/90000\r\na=fmtp:%d profile-level-id=42c00c;packetization-mode=0\r\n",
		ptH264Single, ptH264Single)
	if o.AVPF != PlainAVP {
		b.WriteString(feedbackLines)
	}
	fmt.Fprintf(&b, "a=extmap:%d %s\r\n", cvoID, cvoURI)
	b.WriteString(qosOffer(o.QoS))
	fmt.Fprintf(&b, "a=%s\r\n", o.VideoDirection)
	return b.String()
}

const feedbackLines = "a=rtcp-fb:* trr-int 5000\r\na=rtcp-fb:* nack\r\na=rtcp-fb:* nack pli\r\n" +
	"a=rtcp-fb:* ccm fir\r\na=rtcp-fb:* ccm tmmbr\r\n"
