package dialog

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Preconditions, passive (RFC 3312, IMS.md 2.2): we offer none, for a bridge has no
// radio and is always ready. A phone may put them into its reliable 183 all the same;
// as long as it says that our side is not ready it will not ring, so it is told with
// an UPDATE once the PRACK is through. Nobody waits for more: a 180 or 200 settles it.

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

// sendQoS sends the offer again with what the phone wants to read.
func (c *Call) sendQoS(f *fork) {
	f.owes = false
	c.bump++
	f.localSeq++
	f.qosSeq = f.localSeq
	req := c.inDialog(f, sip.UPDATE, f.localSeq)
	add(req, "Contact", c.o.Contact)
	add(req, "Supported", strings.Join(c.o.Supported, ", "))
	add(req, "Require", "precondition")
	add(req, "Allow", c.o.Allow)
	setSDP(req, c.version(withQoS(c.o.Offer)))
	c.do(Send{req})
}

// withQoS adds the lines of a side that is ready to every medium that is not off.
func withQoS(sdp []byte) []byte {
	const ready = "a=curr:qos local sendrecv\r\na=curr:qos remote none\r\n" +
		"a=des:qos mandatory local sendrecv\r\na=des:qos mandatory remote sendrecv\r\n"
	var out bytes.Buffer
	live := false
	for line := range bytes.Lines(sdp) {
		if bytes.HasPrefix(line, []byte("m=")) {
			if live {
				out.WriteString(ready)
			}
			w := bytes.Fields(line)
			live = len(w) > 1 && string(w[1]) != "0"
		}
		out.Write(bytes.TrimRight(line, "\r\n"))
		out.WriteString("\r\n")
	}
	if live {
		out.WriteString(ready)
	}
	return out.Bytes()
}

// version raises the version of the o= line by the descriptions we have put in
// ourselves: what the bridge counts must go on behind them (RFC 3264 8).
func (c *Call) version(sdp []byte) []byte {
	if c.bump == 0 {
		return sdp
	}
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
	w[2] = strconv.FormatUint(v+c.bump, 10)
	return slices.Concat(sdp[:start], []byte(strings.Join(w, " ")), sdp[end:])
}

// onQoSResponse takes the phone's answer to it; a refusal blocks nothing.
func (c *Call) onQoSResponse(f *fork, res *sip.Response) {
	if res.StatusCode < 200 {
		return
	}
	f.qosSeq = 0
	if sdp := SDP(res); sdp != nil && res.StatusCode < 300 && f != c.winner {
		f.answer = sdp
	}
}
