package dialog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"sparkle/sip/digest"
)

// bench drives one Call by words and writes down what it does, in words. A step is
// "input -> outputs"; the clock is the bench's.
type bench struct {
	t     *testing.T
	c     *Call
	now   time.Time
	sent  map[string]*sip.Request // last of each method; "re" is the last re-INVITE
	start time.Time
	names map[string]string // words that stand for a description
}

// named is what a word of a script stands for.
func (b *bench) named(w string) string {
	if s, ok := b.names[w]; ok {
		return s
	}
	return strings.ReplaceAll(w, "_", " ")
}

// name is the word for a description.
func (b *bench) name(sdp []byte) string {
	for w, s := range b.names {
		if s == string(sdp) {
			return w
		}
	}
	return string(sdp)
}

func options() Options {
	n := 0
	return Options{
		CallID: "call@192.0.2.10", From: "<sip:+15550100@ims.example>", FromTag: "us",
		To: "<tel:+15550123>", Target: "tel:+15550123", Contact: "<sip:us@192.0.2.10:5060;transport=tcp>;audio",
		Routes: []string{"<sip:pcscf.example;lr>"}, Supported: []string{"100rel", "timer", "precondition"},
		Allow: "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, OPTIONS, INFO", Transport: "TCP", Host: "192.0.2.10", Port: 5060,
		Offer: []byte("offer"), SessionExpires: 1800 * time.Second,
		ID: func() string { n++; return strconv.Itoa(n) },
		Redirect: func(uri string) (string, bool) {
			return uri, strings.HasPrefix(strings.ToLower(uri), "sip:next") || strings.HasPrefix(uri, "tel:")
		},
		Authorize: func(req *sip.Request, res *sip.Response, realm string) (digest.Challenge, error) {
			ch := digest.Challenge{Realm: value(res, "Realm"), Stale: value(res, "Stale") == "true"}
			if res.Reason == "bad realm" || realm != "" && realm != ch.Realm {
				return ch, errors.New("not ours")
			}
			for req.RemoveHeader("Authorization") {
			}
			req.AppendHeader(sip.NewHeader("Authorization", "Digest proof"))
			return ch, nil
		},
	}
}

func newBench(t *testing.T, o Options) *bench {
	start := time.Unix(1000, 0)
	return &bench{t: t, c: New(o), now: start, start: start, sent: map[string]*sip.Request{}, names: map[string]string{
		"NOTREADY": "m=audio 4 RTP/AVP 97\r\na=curr:qos local none\r\na=curr:qos remote sendrecv\r\na=des:qos mandatory local sendrecv\r\n",
		"NEITHER":  "m=audio 4 RTP/AVP 97\r\na=curr:qos local none\r\na=curr:qos remote none\r\na=des:qos mandatory local sendrecv\r\n",
	}}
}

// run plays a script; every step is checked.
func (b *bench) run(script string) {
	b.t.Helper()
	for i, line := range strings.Split(strings.TrimSpace(script), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		in, want, _ := strings.Cut(line, "->")
		got := strings.Join(b.step(strings.Fields(in)), "; ")
		if want = strings.TrimSpace(want); got != want {
			b.t.Errorf("step %d: %s\n got: %s\nwant: %s", i+1, strings.TrimSpace(in), got, want)
		}
	}
}

func (b *bench) step(w []string) []string {
	arg := func(i int) string {
		if i < len(w) {
			return w[i]
		}
		return ""
	}
	switch w[0] {
	case "start":
		return b.feed(Start{})
	case "hangup":
		return b.feed(Hangup{Why: "hung_up", Reason: "SIP;cause=200"})
	case "propose":
		return b.feed(Propose{SDP: []byte(arg(1))})
	case "reply":
		id, _ := strconv.ParseUint(arg(1), 10, 64)
		if status, err := strconv.Atoi(arg(2)); err == nil {
			return b.feed(Reply{ID: id, Status: status})
		}
		return b.feed(Reply{ID: id, SDP: []byte(b.named(arg(2))), Status: 200})
	case "cancelled":
		return b.feed(Cancelled{Tx: arg(1)})
	case "ring":
		return b.feed(Ring{})
	case "accept":
		return b.feed(Accept{SDP: []byte(b.named(arg(1))), Contact: arg(2)})
	case "reject":
		status, _ := strconv.Atoi(arg(1))
		return b.feed(Reject{Status: status})
	case "tell":
		id, _ := strconv.ParseUint(arg(1), 10, 64)
		status, _ := strconv.Atoi(arg(2))
		return b.feed(Tell{ID: id, Status: status})
	case "ask":
		id, _ := strconv.ParseUint(arg(1), 10, 64)
		return b.feed(Ask{ID: id, Method: sip.RequestMethod(arg(2)), Body: []byte("x"), ContentType: "message/sipfrag"})
	case "use":
		n, _ := strconv.Atoi(arg(1))
		return b.feed(Use{n})
	case "fail", "timeout":
		return b.feed(Failed{Req: b.sent[arg(1)], Timeout: w[0] == "timeout"})
	case "wait":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			b.t.Fatal(err)
		}
		return b.wait(d)
	case "<":
		return b.feed(Response{b.response(w[1:])})
	case ">":
		return b.feed(b.request(w[1:]))
	}
	b.t.Fatalf("unknown step %q", w)
	return nil
}

// wait lets time pass and fires every deadline in it at its instant.
func (b *bench) wait(d time.Duration) (out []string) {
	until := b.now.Add(d)
	for {
		next := b.c.Next()
		if next.IsZero() || next.After(until) {
			b.now = until
			return out
		}
		b.now = next
		out = append(out, b.feed(Tick{})...)
	}
}

// response makes one from words: status tag [re|upd|bye|prack|cancel|notify] and header words.
func (b *bench) response(w []string) *sip.Response {
	status, _ := strconv.Atoi(w[0])
	method := "INVITE"
	var rest []string
	for _, x := range w[2:] {
		switch x {
		case "re", "upd", "bye", "prack", "cancel", "notify":
			method = map[string]string{"re": "re", "upd": "UPDATE", "bye": "BYE", "prack": "PRACK", "cancel": "CANCEL", "notify": "NOTIFY"}[x]
		default:
			rest = append(rest, x)
		}
	}
	req := b.sent[method]
	if req == nil {
		b.t.Fatalf("no %s was sent", method)
	}
	res := sip.NewResponse(status, "phrase")
	res.AppendHeader(sip.HeaderClone(req.Via()))
	res.AppendHeader(sip.HeaderClone(req.From()))
	to := sip.HeaderClone(req.To()).(*sip.ToHeader)
	if w[1] != "-" {
		to.Params.Remove("tag")
		to.Params.Add("tag", w[1])
	}
	res.AppendHeader(to)
	res.AppendHeader(sip.HeaderClone(req.CSeq()))
	b.decorate(res, rest)
	if w[1] != "-" && value(res, "Contact") == "" {
		add(res, "Contact", "<sip:"+w[1]+"@198.51.100.7:5070>")
	}
	return res
}

// decorate puts in what words stand for.
func (b *bench) decorate(m sip.Message, words []string) {
	for _, x := range words {
		if s, ok := b.names[x]; ok {
			setSDP(m, []byte(s))
		} else {
			decorate(m, []string{x})
		}
	}
}

// decorate turns words into headers and body.
func decorate(m sip.Message, words []string) {
	for _, x := range words {
		name, v, ok := strings.Cut(x, "=")
		switch {
		case name == "rel":
			add(m, "Require", "100rel")
			add(m, "RSeq", v)
		case name == "phrase":
			m.(*sip.Response).Reason = strings.ReplaceAll(v, "_", " ")
		case name == "a":
			setSDP(m, []byte(strings.ReplaceAll(x, "_", " ")))
		case name == "body":
			add(m, "Content-Type", v)
			m.SetBody([]byte("Signal=7\r\n"))
		case ok:
			if name == "RAck" {
				v = strings.ReplaceAll(v, "_", " ")
			}
			add(m, name, v)
		default:
			setSDP(m, []byte(x))
		}
	}
}

// request makes one of the peer: method tag cseq and header words.
func (b *bench) request(w []string) Request {
	var uri sip.Uri
	_ = sip.ParseUri("sip:us@192.0.2.10:5060", &uri)
	req := sip.NewRequest(sip.RequestMethod(w[0]), uri)
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: "TCP", Host: "198.51.100.7", Params: sip.NewParams()}
	via.Params.Add("branch", "z9hG4bKp"+w[2])
	req.AppendHeader(via)
	appendAddress(req, "From", "<tel:+15550123>", w[1])
	req.AppendHeader(&sip.ToHeader{Address: uri, Params: sip.HeaderParams{{K: "tag", V: "us"}}})
	id := sip.CallIDHeader("call@192.0.2.10")
	req.AppendHeader(&id)
	seq, _ := strconv.Atoi(w[2])
	req.AppendHeader(&sip.CSeqHeader{SeqNo: uint32(seq), MethodName: req.Method})
	b.decorate(req, w[3:])
	return Request{Req: req, Tx: w[0] + w[2]}
}

func (b *bench) feed(in Input) (out []string) {
	for _, a := range b.c.Step(b.now, in) {
		switch a := a.(type) {
		case Send:
			name := string(a.Req.Method)
			if name == "INVITE" && toTag(a.Req) != "" {
				name = "re"
			}
			b.sent[name] = a.Req
			out = append(out, describe(a.Req))
		case Ack:
			out = append(out, describe(a.Req))
		case Respond:
			s := fmt.Sprintf("%v=%d", a.Tx, a.Res.StatusCode)
			for _, name := range []string{"RSeq", "Session-Expires", "Min-SE", "Retry-After"} {
				if v := value(a.Res, name); v != "" {
					s += " " + name + "=" + v
				}
			}
			if body := a.Res.Body(); a.Tx == "INV" && len(body) > 0 {
				s += " " + strings.ReplaceAll(strings.TrimSpace(string(body)), "\r\n", "|")
			}
			out = append(out, s)
			if a.Then != nil {
				out = append(out, told(a.Then))
			}
		case ByeRefused:
			out = append(out, fmt.Sprint("BYE refused ", a.Res.StatusCode))
		case Emit:
			switch e := a.Event.(type) {
			case Offer:
				e.SDP = []byte(b.name(e.SDP))
				a.Event = e
			case Answer:
				e.SDP = []byte(b.name(e.SDP))
				a.Event = e
			case Reoffered:
				e.SDP = []byte(b.name(e.SDP))
				a.Event = e
			case Refreshed:
				e.SDP = []byte(b.name(e.SDP))
				a.Event = e
			}
			out = append(out, strings.TrimSpace(told(a.Event)))
		}
	}
	return out
}

func describe(req *sip.Request) string {
	s := fmt.Sprintf("%s %d", req.Method, req.CSeq().SeqNo)
	if tag := toTag(req); tag != "" {
		s += " to " + tag
	}
	if user := req.Recipient.User; user == "moved" || user == "again" {
		s += " at " + user
	}
	if req.IsInvite() && toTag(req) == "" && req.Recipient.Host == "h" {
		s += " for " + req.Recipient.String()
	}
	for _, name := range []string{"RAck", "Authorization", "Session-Expires", "Min-SE"} {
		if v := value(req, name); v != "" && !(name[0] != 'R' && name[0] != 'A' && s == "INVITE 1") && name != "Min-SE" {
			s += " " + name + "=" + v
		}
	}
	return s
}

func told(e Event) (told string) {
	switch e := e.(type) {
	case Answer:
		if e.Final {
			return "final answer " + string(e.SDP) + ours(e.Local, e.Offered)
		}
		return "early answer " + string(e.SDP)
	case Offer:
		s := fmt.Sprintf("offer %d %s", e.ID, e.SDP)
		if e.Early {
			s = "early " + s + ours(e.Local, false)
		}
		return s
	case Reoffered:
		s := strings.TrimSpace(fmt.Sprintf("reoffered %d %s", e.Status, e.SDP)) + ours(e.Local, e.Offered)
		if e.Offer != 0 {
			s += fmt.Sprintf(" to offer %d", e.Offer)
		}
		return s
	case Refreshed:
		return fmt.Sprintf("refreshed %s", e.SDP) + ours(e.Local, false)
	case Replied:
		if !e.Used {
			return fmt.Sprintf("no reply to %d", e.Offer)
		}
		return fmt.Sprintf("replied %d", e.Offer)
	case Info:
		return "digit " + string(e.Digit)
	case Other:
		return fmt.Sprintf("other %d %s", e.ID, e.Req.Method)
	case Asked:
		return fmt.Sprintf("asked %d %d", e.ID, e.Status)
	case Ended:
		s := "ended by " + e.By
		defer func() {
			if e.Target != "" {
				told += " to " + e.Target
			}
		}()
		if e.Why != "" {
			s += " " + e.Why
		}
		if e.Status != 0 {
			s += " " + strconv.Itoa(e.Status)
		}
		if e.Connected {
			s += " connected"
		}
		return s
	}
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e), "dialog."))
}

// ours is our own description where it is not the offer of the INVITE: what we said last to
// a far end, or our answer to its offer.
func ours(local []byte, offered bool) string {
	switch {
	case local == nil:
		return ""
	case offered:
		return " answered " + string(local)
	}
	return " after " + string(local)
}

// up is a connected call: the scripts below go on from there.
const up = `
start -> INVITE 1
< 180 a -> ringing
< 200 a answer Allow=INVITE,UPDATE -> ACK 1 to a; final answer answer; connected
`

// script is a row of a table: a name, and what a bench plays.
type script struct{ name, text string }

// play runs every row against a call that goes out.
func play(t *testing.T, rows []script) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { newBench(t, options()).run(row.text) })
	}
}
