package sdp

import (
	"slices"
	"strconv"
	"strings"
)

const cvoURI = "urn:3gpp:video-orientation"

// attribute reads one a= line of m. What does not parse is as if it were not there:
// formats that needed it are then not chosen.
func (m *Media) attribute(a Attribute) {
	if d, ok := parseDirection(a.Key); ok {
		m.Direction = d
		return
	}
	switch a.Key {
	case "rtpmap":
		m.rtpmap(a.Value)
	case "fmtp":
		pt, rest, _ := strings.Cut(a.Value, " ")
		if f := m.format(pt); f != nil && f.Fmtp == "" {
			f.Fmtp = strings.TrimSpace(rest)
		}
	case "ptime":
		m.Ptime = packetTime(a.Value)
	case "maxptime":
		m.MaxPtime = packetTime(a.Value)
	case "rtcp":
		port, _, _ := strings.Cut(a.Value, " ")
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n >= 1024 {
			m.RTCPPort = int(n)
		}
	case "rtcp-fb":
		m.feedback(a.Value)
	case "extmap":
		id, uri, _ := strings.Cut(a.Value, " ")
		id, _, _ = strings.Cut(id, "/")
		uri, _, _ = strings.Cut(strings.TrimSpace(uri), " ")
		if n, err := strconv.Atoi(id); err == nil && n >= 1 && n <= 14 && uri == cvoURI && m.CVO == 0 {
			m.CVO = n
		}
	case "imageattr":
		m.imageattr(a.Value)
	case "framesize":
		m.frameSize(a.Value)
	case "tcap":
		m.tcap(a.Value)
	case "acap":
		m.acap(a.Value)
	case "pcfg", "acfg":
		m.config(a)
	case "curr", "des", "conf":
		m.QoS = append(m.QoS, a)
	}
}

// format finds the payload format of a written payload type.
func (m *Media) format(pt string) *Format {
	n, err := strconv.Atoi(pt)
	if err != nil {
		return nil
	}
	for i := range m.Payloads {
		if m.Payloads[i].PT == n {
			return &m.Payloads[i]
		}
	}
	return nil
}

// rtpmap: the first mapping of a payload type wins.
func (m *Media) rtpmap(v string) {
	pt, enc, _ := strings.Cut(v, " ")
	f := m.format(pt)
	if f == nil || f.Params != nil { // Params set: mapped already
		return
	}
	parts := strings.Split(strings.TrimSpace(enc), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return
	}
	rate, err := strconv.Atoi(parts[1])
	if err != nil || rate < 1 || rate > 1_000_000 {
		return
	}
	channels := 1
	if len(parts) == 3 {
		if channels, err = strconv.Atoi(parts[2]); err != nil || channels < 1 || channels > 255 {
			return
		}
	}
	f.Name, f.RateHz, f.Channels = canonical(parts[0]), rate, channels
	f.Params = map[string]string{}
}

// packetTime takes 1..1000 ms; anything else is not said at all.
func packetTime(v string) int {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 1000 {
		return 0
	}
	return n
}

func (m *Media) feedback(v string) {
	pt, val, ok := strings.Cut(v, " ")
	fb := Feedback{PT: -1, Value: strings.Join(strings.Fields(val), " ")}
	if pt != "*" {
		n, err := strconv.ParseUint(pt, 10, 7)
		if err != nil {
			return
		}
		fb.PT = int(n)
	}
	if ok && fb.Value != "" {
		m.Feedback = append(m.Feedback, fb)
	}
}

func (m *Media) tcap(v string) {
	f := strings.Fields(v)
	if len(f) < 2 {
		return
	}
	n, err := strconv.Atoi(f[0])
	if err != nil || n < 1 || n > 1000 {
		return
	}
	if m.TCap == nil {
		m.TCap = map[int]string{}
	}
	for i, proto := range f[1:] {
		if _, dup := m.TCap[n+i]; !dup {
			m.TCap[n+i] = proto
		}
	}
}

func (m *Media) acap(v string) {
	number, attr, _ := strings.Cut(v, " ")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 {
		return
	}
	if m.ACap == nil {
		m.ACap = map[int]Attribute{}
	}
	if _, dup := m.ACap[n]; !dup {
		key, val, _ := strings.Cut(strings.TrimSpace(attr), ":")
		m.ACap[n] = Attribute{Key: key, Value: strings.TrimSpace(val)}
	}
}

func (m *Media) config(a Attribute) {
	f := strings.Fields(a.Value)
	if len(f) == 0 {
		return
	}
	n, err := strconv.Atoi(f[0])
	if err != nil || n < 1 {
		return
	}
	c := PotentialConfig{Number: n, Value: a.Value}
	for _, part := range f[1:] {
		if t, ok := strings.CutPrefix(part, "t="); ok {
			t, _, _ = strings.Cut(t, "|") // alternatives: the first is preferred
			c.Transport, _ = strconv.Atoi(t)
		}
		if list, ok := strings.CutPrefix(part, "a="); ok {
			c.Attributes = list
		}
		if part[0] == '+' { // an extension that must be known
			return
		}
	}
	if a.Key == "acfg" {
		m.ACfg = &c
		return
	}
	m.PCfg = append(m.PCfg, c)
}

// chooseAVPF picks the potential configuration that an answer takes where it wants feedback.
// What that configuration says of feedback holds then, and may stand nowhere else.
func (m *Media) chooseAVPF() {
	for _, c := range m.PCfg {
		if m.TCap[c.Transport] != "RTP/AVPF" {
			continue
		}
		for list := range strings.SplitSeq(c.Attributes, "|") { // alternatives, preferred first
			taken, ok := m.capabilities(list)
			if !ok {
				continue
			}
			c.Attributes = ""
			for i, n := range taken {
				c.Attributes += [2]string{"", ","}[min(i, 1)] + strconv.Itoa(n)
				m.feedback(m.ACap[n].Value)
			}
			m.AVPF = &c
			return
		}
	}
}

// capabilities are the attributes of one alternative of a potential configuration: "1,2" are
// needed, "[3]" is not (RFC 5939 §3.5.1). ok is false if it needs more than feedback, or deletes
// what the m-line has ("-m:").
func (m *Media) capabilities(list string) (taken []int, ok bool) {
	if strings.HasPrefix(list, "-") {
		return nil, false
	}
	optional := false
	for part := range strings.SplitSeq(list, ",") {
		optional = optional || strings.HasPrefix(part, "[")
		n, err := strconv.Atoi(strings.Trim(part, "[]"))
		switch known := err == nil && m.ACap[n].Key == "rtcp-fb"; {
		case known && len(taken) < 32:
			taken = append(taken, n)
		case !optional && list != "":
			return nil, false
		}
		optional = optional && !strings.HasSuffix(part, "]")
	}
	return taken, true
}

func (m *Media) frameSize(v string) {
	pt, size, _ := strings.Cut(v, " ")
	w, h, _ := strings.Cut(strings.TrimSpace(size), "-")
	n, err := strconv.Atoi(pt)
	x, err1 := strconv.Atoi(w)
	y, err2 := strconv.Atoi(h)
	if err != nil || err1 != nil || err2 != nil || !sane(Size{x, y}) {
		return
	}
	if m.framesize == nil {
		m.framesize = map[int][2]int{}
	}
	m.framesize[n] = [2]int{x, y}
}

func sane(s Size) bool {
	return s.Width >= 16 && s.Height >= 16 && s.Width <= 8192 && s.Height <= 8192
}

// imageattr: "114 send [x=480,y=640] recv [x=480,y=640] [x=640,y=480]" (RFC 6236).
func (m *Media) imageattr(v string) {
	pt, rest, _ := strings.Cut(v, " ")
	n := -1
	if pt != "*" {
		var err error
		if n, err = strconv.Atoi(pt); err != nil {
			return
		}
	}
	var ia ImageAttr
	list := (*[]Size)(nil)
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		switch {
		case strings.HasPrefix(rest, "send"):
			list, rest = &ia.Send, rest[4:]
		case strings.HasPrefix(rest, "recv"):
			list, rest = &ia.Recv, rest[4:]
		case rest[0] == '*':
			rest = rest[1:]
		case rest[0] == '[':
			set, after, ok := bracketed(rest)
			if !ok || list == nil {
				return
			}
			if s := imageSet(set); sane(s) && len(*list) < 32 {
				*list = append(*list, s)
			}
			rest = after
		default:
			return
		}
	}
	if m.Images == nil {
		m.Images = map[int]ImageAttr{}
	}
	if _, dup := m.Images[n]; !dup {
		m.Images[n] = ia
	}
}

// bracketed splits "[…] rest", minding nested brackets of ranges.
func bracketed(s string) (inside, rest string, ok bool) {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '[':
			depth++
		case ']':
			if depth--; depth == 0 {
				return s[1:i], s[i+1:], true
			}
		}
	}
	return "", "", false
}

func imageSet(s string) Size { return Size{largest(s, "x="), largest(s, "y=")} }

// largest reads "x=640", "x=[128:16:640]" or "x=[320,640]" out of a set.
func largest(set, key string) int {
	_, v, ok := strings.Cut(set, key)
	if !ok {
		return 0
	}
	if strings.HasPrefix(v, "[") {
		v, _, _ = strings.Cut(v[1:], "]")
	} else {
		v, _, _ = strings.Cut(v, ",")
	}
	best := 0
	for part := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == ':' || r == ',' }) {
		if n, err := strconv.Atoi(part); err == nil {
			best = max(best, n)
		}
	}
	return best
}

// finish reads the format's parameters.
func (f *Format) finish() {
	f.Params = map[string]string{}
	for part := range strings.SplitSeq(f.Fmtp, ";") {
		k, v, ok := strings.Cut(strings.TrimSpace(part), "=")
		if k = strings.ToLower(strings.TrimSpace(k)); k != "" && ok {
			if _, dup := f.Params[k]; !dup {
				f.Params[k] = strings.TrimSpace(v)
			}
		}
	}
	switch f.Name {
	case "":
		f.Fault = "no rtpmap"
	case "AMR", "AMR-WB":
		f.amr()
	case "H264":
		f.h264()
	case "opus":
		f.opus()
	case "PCMU", "PCMA", "G722", "CN", "telephone-event":
		if f.Channels != 1 {
			f.Fault = "channels"
		}
	}
}

// number reads a parameter of 0..max; def if absent. Nonsense is a fault.
func (f *Format) number(key string, def, max int) int {
	v, ok := f.Params[key]
	if !ok {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > max {
		f.Fault = key
		return def
	}
	return n
}

func (f *Format) amr() {
	rate, modes := 8000, 7
	if f.Name == "AMR-WB" {
		rate, modes = 16000, 8
	}
	if f.RateHz != rate {
		f.Fault = "clock rate"
	}
	if f.Channels != 1 {
		f.Fault = "channels"
	}
	a := &f.AMR
	a.OctetAlign = f.number("octet-align", 0, 1) == 1
	a.ChangePeriod = f.number("mode-change-period", 1, 2)
	a.ChangeCapability = f.number("mode-change-capability", 1, 2)
	a.ChangeNeighbor = f.number("mode-change-neighbor", 0, 1) == 1
	a.MaxRed = f.number("max-red", -1, 65535)
	a.CRC = f.number("crc", 0, 1) == 1
	a.RobustSorting = f.number("robust-sorting", 0, 1) == 1
	a.Interleaving = f.number("interleaving", 0, 1<<16)
	if a.CRC || a.RobustSorting || a.Interleaving > 0 {
		a.OctetAlign = true // RFC 4867 §8.1: they imply it
	}
	set, ok := f.Params["mode-set"]
	if !ok {
		return
	}
	for part := range strings.SplitSeq(set, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 0 || n > modes {
			f.Fault = "mode-set"
			a.ModeSet = nil
			return
		}
		a.ModeSet = append(a.ModeSet, n)
	}
	slices.Sort(a.ModeSet)
	a.ModeSet = slices.Compact(a.ModeSet)
}

// opus: the rtpmap is the same for all streams (RFC 7587 §7), the rest is advice.
func (f *Format) opus() {
	if f.RateHz != 48000 {
		f.Fault = "clock rate"
	}
	if f.Channels != 2 {
		f.Fault = "channels"
	}
	f.Opus = Opus{FEC: f.number("useinbandfec", 0, 1) == 1, DTX: f.number("usedtx", 0, 1) == 1,
		Stereo: f.number("stereo", 0, 1) == 1, MaxBitrate: f.number("maxaveragebitrate", 0, 1<<30),
		MaxPlayback: f.number("maxplaybackrate", 0, 1<<30)}
}

func (f *Format) h264() {
	h := &f.H264
	h.Profile = ProfileLevel{0x42, 0x00, 10} // RFC 6184 §8.1: Baseline level 1
	if v, ok := f.Params["profile-level-id"]; ok {
		p, err := ParseProfileLevel(v)
		if err != nil {
			f.Fault = "profile-level-id"
		}
		h.Profile = p
	}
	if f.RateHz != 90000 {
		f.Fault = "clock rate"
	}
	h.PacketizationMode = f.number("packetization-mode", 0, 2)
	h.LevelAsymmetry = f.number("level-asymmetry-allowed", 0, 1) == 1
	if s := f.Params["sprop-parameter-sets"]; len(s) <= maxSprop {
		h.Sprop = s
	}
}
