package dialog

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Preconditions (RFC 3312, 4032): a bridge has no radio and is always ready. Passive, the
// default, we offer none; a phone may put them into its reliable 183 all the same. As
// long as it says that our side is not ready it will not ring, so it is told with an
// UPDATE once the PRACK is through. Active, our offer says so from the start. Its own
// resources have preconditionLimit to come; a 180 or 200 settles it whatever it said.

// owesQoS says whether a phone's answer waits for our half of the preconditions.
func (c *Call) owesQoS(sdp []byte) bool {
	if !slices.Contains(c.o.Supported, "precondition") {
		return false
	}
	for line := range bytes.Lines(sdp) {
		v, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("a=curr:qos remote "))
		if ok && string(bytes.TrimSpace(v)) != "sendrecv" {
			return true
		}
	}
	return false
}

// sendQoS offers what stands again, with what the phone wants to read.
func (c *Call) sendQoS(f *fork, e *early) {
	if c.peer != nil && fromTag(c.peer.req) == f.tag { // the peer's offer has to be answered first (RFC 3311 5.1)
		c.arm(timerQoSAgain, c.o.T1)
		return
	}
	e.owes = false
	f.localSeq++
	e.qosSeq, e.qos = f.localSeq, withoutRefused(e.ours, e.theirs)
	req := c.inDialog(f, sip.UPDATE, f.localSeq)
	add(req, "Contact", c.o.Contact)
	add(req, "Supported", strings.Join(c.o.Supported, ", "))
	add(req, "Require", "precondition")
	add(req, "Allow", c.o.Allow)
	e.wire = c.version(offerQoS(e.qos, "mandatory"))
	setSDP(req, e.wire)
	c.send(req, 0)
}

// ourQoS is the INVITE of ours in f to which the UPDATE with this CSeq belongs; nil: none.
func (c *Call) ourQoS(f *fork, seq uint32) *early {
	if r := c.reoffer; r != nil && f == c.winner && seq != 0 && r.qosSeq == seq {
		return &r.early
	}
	if seq != 0 && f.qosSeq == seq {
		return &f.early
	}
	return nil
}

// offerQoS adds the lines of a side that is ready to every medium that is not off. strength
// is how much we need the peer's: optional at first, as mandatory as it is for it later,
// for that may only rise (RFC 3312 5.1.2).
func offerQoS(sdp []byte, strength string) []byte {
	ready := "a=curr:qos local sendrecv\r\na=curr:qos remote none\r\n" +
		"a=des:qos mandatory local sendrecv\r\na=des:qos " + strength + " remote sendrecv\r\n"
	have := media(sdp)
	return appendToMedia(sdp, func(i int) string {
		if have[i].qos {
			return ""
		}
		return ready
	})
}

// unmet says whether an offer waits for the offerer's own resources: a medium whose
// local status falls short of what is mandatory for it (RFC 3312 5).
func unmet(offer []byte) bool {
	for _, m := range media(offer) {
		if m.live && m.unmet() {
			return true
		}
	}
	return false
}

// medium is an m-line and what it says of quality of service.
type medium struct {
	live, qos          bool
	curr, want, strong string // a=curr:qos local X; a=des:qos STRONG local X
}

func (m medium) unmet() bool {
	return m.strong == "mandatory" && m.want != "none" && m.curr != m.want && m.curr != "sendrecv"
}

func media(sdp []byte) (ms []medium) {
	for line := range strings.Lines(string(sdp)) {
		line = strings.TrimSpace(line)
		w := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "m="):
			ms = append(ms, medium{live: len(w) > 1 && w[1] != "0", curr: "none", want: "none"})
		case len(ms) == 0:
		case len(w) == 3 && w[0] == "a=curr:qos":
			m := &ms[len(ms)-1]
			m.qos = true
			if w[1] == "local" {
				m.curr = w[2]
			}
		case len(w) == 4 && w[0] == "a=des:qos" && w[2] == "local":
			m := &ms[len(ms)-1]
			m.strong, m.want = w[1], w[3]
		}
	}
	return ms
}

// answerQoS adds to our answer what a side that is always ready says to an offer with
// preconditions; where the offerer is not ready it is asked to confirm (RFC 3312 5.1).
func answerQoS(offer, answer []byte) []byte {
	offered, have := media(offer), media(answer)
	return appendToMedia(answer, func(i int) string {
		if i >= len(offered) || !offered[i].qos || have[i].qos {
			return ""
		}
		m := offered[i]
		s := "a=curr:qos local sendrecv\r\na=curr:qos remote " + m.curr + "\r\n" +
			"a=des:qos mandatory local sendrecv\r\na=des:qos mandatory remote sendrecv\r\n"
		if m.unmet() {
			s += "a=conf:qos remote sendrecv\r\n"
		}
		return s
	})
}

// appendToMedia adds lines to every medium of a description that is not off.
func appendToMedia(sdp []byte, lines func(i int) string) []byte {
	var out bytes.Buffer
	n, live := -1, false
	flush := func() {
		if live {
			out.WriteString(lines(n))
		}
	}
	for line := range bytes.Lines(sdp) {
		if bytes.HasPrefix(line, []byte("m=")) {
			flush()
			w := bytes.Fields(line)
			n, live = n+1, len(w) > 1 && string(w[1]) != "0"
		}
		out.Write(bytes.TrimRight(line, "\r\n"))
		out.WriteString("\r\n")
	}
	flush()
	return out.Bytes()
}

// withoutRefused is our description with port 0 where theirs has refused a medium, or left it
// out: its place stays, and nobody is asked again (RFC 3264 6, 8.2).
func withoutRefused(ours, theirs []byte) []byte {
	ms := media(theirs)
	if len(ms) == 0 {
		return ours
	}
	var out bytes.Buffer
	n, keep := -1, true
	for line := range bytes.Lines(ours) {
		if bytes.HasPrefix(line, []byte("m=")) {
			n++
			if keep = n < len(ms) && ms[n].live; !keep {
				w := strings.Fields(string(line))
				if len(w) > 1 {
					w[1] = "0"
				}
				out.WriteString(strings.Join(w, " ") + "\r\n")
			}
		}
		if keep {
			out.Write(line)
		}
	}
	return out.Bytes()
}

// version sees to it that the version of the o= line rises by one with every description
// that differs from the last (RFC 3264 8): we put some in ourselves, so what the owner
// counts is not what the peer sees.
func (c *Call) version(sdp []byte) []byte {
	start := bytes.Index(sdp, []byte("o="))
	if start < 0 {
		return sdp
	}
	end := len(sdp)
	if n := bytes.IndexAny(sdp[start:], "\r\n"); n >= 0 {
		end = start + n
	}
	w := strings.Fields(string(sdp[start:end]))
	if len(w) < 3 {
		return sdp
	}
	v, err := strconv.ParseUint(w[2], 10, 64)
	if err != nil {
		return sdp
	}
	w[2] = ""
	origin := strings.Join(w, " ")
	without := slices.Concat(sdp[:start], []byte(origin), sdp[end:])
	switch {
	case c.said == nil:
		c.saidVersion = v
	case !bytes.Equal(without, c.said):
		c.saidVersion++
	}
	c.said = without
	w[2] = strconv.FormatUint(c.saidVersion, 10)
	return slices.Concat(sdp[:start], []byte(strings.Join(w, " ")), sdp[end:])
}

// sameSession says whether two descriptions differ in nothing but their o= line: who described the
// session, and how often.
func sameSession(a, b []byte) bool {
	without := func(sdp []byte) (rest []byte) {
		for line := range bytes.Lines(sdp) {
			if !bytes.HasPrefix(line, []byte("o=")) {
				rest = append(rest, line...)
			}
		}
		return rest
	}
	return bytes.Equal(without(a), without(b))
}

// bearers takes what a far end says of its resources. Where nobody's are missing any
// more, nothing is waited for.
func (c *Call) bearers(e *early, sdp []byte) {
	e.waits = e.waits && unmet(sdp)
	for _, other := range c.forks {
		if other.waits {
			return
		}
	}
	c.stop(timerQoS)
}

// onQoSResponse takes the phone's answer to it; a refusal blocks nothing.
func (c *Call) onQoSResponse(f *fork, e *early, res *sip.Response) {
	if res.StatusCode < 200 {
		return
	}
	e.qosSeq = 0
	if res.StatusCode < 300 {
		if t := AddrSpec(value(res, "Contact")); t != "" {
			f.target = t // target refresh (RFC 3311 5.1)
		}
		if sdp := SDP(res); sdp != nil && e == c.unsettled(f) {
			e.ours, e.theirs, e.updated, e.offered = e.qos, sdp, true, false
			c.bearers(e, sdp)
		}
		return
	}
	if e != c.unsettled(f) || c.ended || c.hang != nil {
		return
	}
	wait, ok := seconds(value(res, "Retry-After"))
	switch {
	case res.StatusCode == 491:
		e.owes = true
		c.arm(timerQoSAgain, c.afterGlare())
	case res.StatusCode == 500 && ok && e.again < maxAgain: // it has an offer of its own in hand (RFC 3311 5.2)
		e.owes = true
		e.again++
		c.arm(timerQoSAgain, min(max(wait, c.o.T1), 10*time.Second))
	case res.StatusCode == 481 && f != c.winner:
		c.forkOver(f)
	}
}
