package dialog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
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
		Authorize: func(req *sip.Request, res *sip.Response) error {
			if res.Reason == "bad realm" {
				return errors.New("not ours")
			}
			req.AppendHeader(sip.NewHeader("Authorization", "Digest proof"))
			return nil
		},
	}
}

func newBench(t *testing.T, o Options) *bench {
	start := time.Unix(1000, 0)
	return &bench{t: t, c: New(o), now: start, start: start, sent: map[string]*sip.Request{}, names: map[string]string{
		"NOTREADY": "m=audio 4 RTP/AVP 97\r\na=curr:qos local none\r\na=curr:qos remote sendrecv\r\na=des:qos mandatory local sendrecv\r\n",
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
	res.AppendHeader(sip.HeaderClone(req.From()))
	to := sip.HeaderClone(req.To()).(*sip.ToHeader)
	if w[1] != "-" {
		to.Params.Remove("tag")
		to.Params.Add("tag", w[1])
	}
	res.AppendHeader(to)
	res.AppendHeader(sip.HeaderClone(req.CSeq()))
	if w[1] != "-" {
		add(res, "Contact", "<sip:"+w[1]+"@198.51.100.7:5070>")
	}
	b.decorate(res, rest)
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
		case Emit:
			switch e := a.Event.(type) {
			case Offer:
				a.Event = Offer{e.ID, []byte(b.name(e.SDP))}
			case Answer:
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
			return "final answer " + string(e.SDP)
		}
		return "early answer " + string(e.SDP)
	case Offer:
		return fmt.Sprintf("offer %d %s", e.ID, e.SDP)
	case Reoffered:
		return fmt.Sprintf("reoffered %d %s", e.Status, e.SDP)
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

// up is a connected call: the scripts below go on from there.
const up = `
start -> INVITE 1
< 180 a -> ringing
< 200 a answer Allow=INVITE,UPDATE -> ACK 1 to a; final answer answer; connected
`

func TestScripts(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		// The initial INVITE, RFC 3261 13.2.2 and 17.1.1.
		{"answered", up},
		{"100 alone is no progress", `
			start -> INVITE 1
			< 100 - ->
			wait 60s -> CANCEL 1
			< 487 a -> ended by timeout setup_timeout 487`},
		{"busy", `
			start -> INVITE 1
			< 486 a -> ended by remote 486`},
		{"2xx without tag", `
			start -> INVITE 1
			< 200 - answer -> ACK 1; final answer answer; connected`},
		{"unreliable 18x is a preview, the 2xx binds", `
			start -> INVITE 1
			< 183 a one -> early answer one
			< 183 a one ->
			< 200 a two -> ACK 1 to a; final answer two; connected`},
		{"reliable 18x binds, the 2xx is ignored", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 200 a two -> ACK 1 to a; final answer one; connected`},
		{"RSeq: repetition and gap are ignored, the next is taken", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 183 a one rel=5 ->
			< 180 a rel=7 ->
			< 180 a rel=6 -> PRACK 3 to a RAck=6 1 INVITE; ringing`},
		{"each fork has its own RSeq and CSeq", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 183 b two rel=900 -> PRACK 2 to b RAck=900 1 INVITE; early answer two
			< 200 b -> ACK 1 to b; final answer two; connected
			< 200 a -> ACK 1 to a; BYE 3 to a
			< 200 a -> ACK 1 to a
			< 200 b -> ACK 1 to b`},
		{"PRACK refused with 481: the fork keeps its answer", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			< 481 a prack ->
			< 183 a one rel=9 ->
			< 200 a -> ACK 1 to a; final answer one; connected`},
		{"PRACK without an answer: the same", `
			start -> INVITE 1
			< 183 a one rel=5 -> PRACK 2 to a RAck=5 1 INVITE; early answer one
			timeout PRACK ->
			< 200 a -> ACK 1 to a; final answer one; connected`},
		{"199 ends a fork", `
			start -> INVITE 1
			< 183 a one -> early answer one
			< 199 a ->
			< 183 a one -> early answer one`},
		{"no description by the 2xx", `
			start -> INVITE 1
			< 200 a -> ACK 1 to a; BYE 2 to a; ended by remote no_sdp`},
		{"180 after 200 is nothing", up + `
			< 180 a ->`},

		// CANCEL, RFC 3261 9.1.
		{"CANCEL waits for the first 1xx", `
			start -> INVITE 1
			hangup ->
			< 100 - -> CANCEL 1
			< 487 a -> ended by local hung_up 487`},
		{"CANCEL and 200 cross", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			< 200 a answer -> ACK 1 to a; BYE 2 to a; ended by local hung_up
			< 200 a answer -> ACK 1 to a
			< 200 b answer -> ACK 1 to b; BYE 2 to b`},
		{"nobody confirms the CANCEL; a 200 comes late", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			wait 6s -> ended by local hung_up
			wait 20s ->
			< 200 a answer -> ACK 1 to a; BYE 2 to a`},
		{"200 before any 1xx, hung up already", `
			start -> INVITE 1
			hangup ->
			< 200 a answer -> ACK 1 to a; BYE 2 to a; ended by local hung_up`},
		{"hung up before the start", `
			hangup -> ended by local hung_up
			start ->`},
		{"ring timeout", `
			start -> INVITE 1
			< 180 a -> ringing
			wait 61s -> CANCEL 1
			< 487 a -> ended by timeout ring_timeout 487`},
		{"early media only rings too", `
			start -> INVITE 1
			< 183 a one -> early answer one
			wait 61s -> CANCEL 1
			< 487 a -> ended by timeout ring_timeout 487`},
		{"second hang-up is nothing", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			hangup ->
			< 487 a -> ended by local hung_up 487
			hangup ->`},

		{"CANCEL answered 481: the INVITE's own answer decides", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			< 481 a cancel ->
			< 200 a answer -> ACK 1 to a; BYE 2 to a; ended by local hung_up`},
		{"a 200 after 64·T1 of the CANCEL is a stray", `
			start -> INVITE 1
			< 180 a -> ringing
			hangup -> CANCEL 1
			wait 6s -> ended by local hung_up
			wait 40s ->`},

		// The INVITE again, each way once.
		{"401 once", `
			start -> INVITE 1
			< 401 a -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 401 a -> ended by remote 401`},
		{"407 we cannot answer", `
			start -> INVITE 1
			< 407 a phrase=bad_realm -> ended by remote 407`},
		{"422 once, credentials stay", `
			start -> INVITE 1
			< 401 a -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 422 a Min-SE=3600 -> INVITE 3 Authorization=Digest proof Session-Expires=3600
			< 422 a Min-SE=7200 -> ended by remote 422`},
		{"420 once", `
			start -> INVITE 1
			< 420 a Unsupported=precondition -> INVITE 2 Session-Expires=1800
			< 420 a Unsupported=timer -> ended by remote 420`},
		{"420 for what we did not ask", `
			start -> INVITE 1
			< 420 a Unsupported=foo -> ended by remote 420`},
		{"421: what it needs and we know", `
			start -> INVITE 1
			< 420 a Unsupported=100rel -> INVITE 2 Session-Expires=1800
			< 421 a Require=100rel -> INVITE 3 Session-Expires=1800
			< 421 a Require=100rel -> ended by remote 421`},
		{"421: what we do not know", `
			start -> INVITE 1
			< 421 a Require=sec-agree -> ended by remote 421`},
		{"redirected: the target is told", `
			start -> INVITE 1
			< 302 a -> ended by remote 302 to sip:a@198.51.100.7:5070`},
		{"580: the bridge decides", `
			start -> INVITE 1
			< 580 a -> ended by remote 580`},
		{"an answer to the refused INVITE comes late", `
			start -> INVITE 1
			< 401 a -> INVITE 2 Authorization=Digest proof Session-Expires=1800
			< 180 b -> ringing
			< 200 b answer -> ACK 2 to b; final answer answer; connected`},

		// Transactions that break.
		{"no response", `
			start -> INVITE 1
			timeout INVITE -> ended by network no_response`},
		{"a transaction's timeout while the phone rings is not the call's end", `
			start -> INVITE 1
			< 180 a -> ringing
			timeout INVITE ->
			< 200 a one -> ACK 1 to a; final answer one; connected`},
		{"no transport", `
			start -> INVITE 1
			fail INVITE -> ended by network transport`},
		{"connection lost while it rings: the answer finds another", `
			start -> INVITE 1
			< 180 a -> ringing
			fail INVITE ->
			< 200 a answer -> ACK 1 to a; final answer answer; connected`},

		// The end.
		{"we hang up", up + `
			hangup -> BYE 2 to a; ended by local hung_up connected
			> BYE a 1 -> BYE1=200`},
		{"the peer hangs up", up + `
			> BYE a 1 -> BYE1=200; ended by remote connected
			> INFO a 2 -> INFO2=481`},
		{"BYE overtakes the 200", `
			start -> INVITE 1
			< 180 a -> ringing
			> BYE a 1 -> BYE1=200
			< 200 a answer -> ACK 1 to a; ended by remote`},

		// Requests of the peer, RFC 3261 12.2.2.
		{"unknown dialog", up + `
			> BYE zz 1 -> BYE1=481`},
		{"CSeq order", up + `
			> OPTIONS a 10 -> OPTIONS10=200
			> OPTIONS a 9 -> OPTIONS9=500
			> OPTIONS a 10 -> OPTIONS10=482
			> OPTIONS a 12 -> OPTIONS12=200`},
		{"methods", up + `
			> PRACK a 1 -> PRACK1=481
			> MESSAGE a 2 -> MESSAGE2=405
			> REFER a 3 -> other 1 REFER
			> INFO a 4 body=application/dtmf-relay -> INFO4=200; digit 7
			> INFO a 5 body=text/plain -> INFO5=415
			> INFO a 6 -> INFO6=200
			> UPDATE a 7 -> UPDATE7=200
			> INVITE a 8 body=text/plain -> INVITE8=415`},
		{"re-INVITE, answered, ACK lost twice", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200
			wait 1600ms -> INVITE5=200; INVITE5=200
			> ACK a 5 ->
			wait 30s ->`},
		{"re-INVITE, refused", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 606 -> INVITE5=606`},
		{"re-INVITE, nobody replies", up + `
			> INVITE a 5 hold -> offer 1 hold
			wait 2s -> INVITE5=488
			reply 1 held ->`},
		{"re-INVITE, nobody acknowledges", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200
			wait 32s -> INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; BYE 2 to a; ended by timeout no_ack connected`},
		{"re-INVITE without description: ours is the offer", up + `
			> INVITE a 5 -> offer 1
			reply 1 ours -> INVITE5=200
			> ACK a 5 theirs -> reoffered 200 theirs`},
		{"ACK of another INVITE does not count", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200
			> ACK a 4 ->
			wait 500ms -> INVITE5=200
			> ACK a 5 ->`},
		{"re-INVITE cancelled", up + `
			> INVITE a 5 hold -> offer 1 hold
			cancelled INVITE5 ->
			reply 1 held ->`},
		{"two offers at once", up + `
			> INVITE a 5 hold -> offer 1 hold
			> UPDATE a 6 more -> UPDATE6=500 Retry-After=2
			reply 1 held -> INVITE5=200
			> ACK a 5 ->
			> UPDATE a 7 more -> offer 2 more
			reply 2 ok -> UPDATE7=200`},
		{"preconditions, passive: UPDATE before the answer", `
			start -> INVITE 1
			< 183 a one rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer one
			> UPDATE a 1 ready -> offer 1 ready
			reply 1 ready-too -> UPDATE1=200
			< 180 a -> ringing
			< 200 a -> ACK 1 to a; final answer one; connected`},
		{"preconditions, passive: the phone waits for our half", `
			start -> INVITE 1
			< 183 a a=curr:qos_remote_none rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer a=curr:qos remote none
			< 200 a prack -> UPDATE 3 to a
			< 200 a upd final ->
			< 180 a rel=2 -> PRACK 4 to a RAck=2 1 INVITE; ringing
			< 200 a prack ->
			< 200 a -> ACK 1 to a; final answer final; connected`},
		{"preconditions: it knows that we are ready", `
			start -> INVITE 1
			< 183 a a=curr:qos_remote_sendrecv rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer a=curr:qos remote sendrecv
			< 200 a prack ->`},
		{"preconditions: their bearer does not come", `
			start -> INVITE 1
			< 183 a NOTREADY rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer NOTREADY
			< 200 a prack ->
			wait 14s ->
			wait 1s -> CANCEL 1
			< 487 a -> ended by timeout precondition_timeout 487`},
		{"preconditions: it rings whatever it said", `
			start -> INVITE 1
			< 183 a NOTREADY rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer NOTREADY
			< 180 a -> ringing
			wait 20s ->
			< 200 a -> ACK 1 to a; final answer NOTREADY; connected`},
		{"preconditions: UPDATE crosses UPDATE", `
			start -> INVITE 1
			< 183 a a=curr:qos_remote_none rel=1 -> PRACK 2 to a RAck=1 1 INVITE; early answer a=curr:qos remote none
			< 200 a prack -> UPDATE 3 to a
			> UPDATE a 1 theirs -> UPDATE1=491
			< 491 a upd ->
			wait 2s ->
			> UPDATE a 2 theirs -> offer 1 theirs
			reply 1 ours -> UPDATE2=200
			wait 2s -> UPDATE 4 to a
			< 200 a upd final ->
			< 200 a -> ACK 1 to a; final answer final; connected`},
		{"UPDATE before our offer has its answer", `
			start -> INVITE 1
			< 183 a one -> early answer one
			> UPDATE a 1 theirs -> UPDATE1=491
			< 200 a two -> ACK 1 to a; final answer two; connected`},
		{"hung up with an offer open", up + `
			> INVITE a 5 hold -> offer 1 hold
			hangup -> BYE 2 to a; INVITE5=487; ended by local hung_up connected`},

		// Offers of ours.
		{"our re-INVITE", up + `
			propose more -> INVITE 2 to a
			< 180 a re ->
			< 200 a re yes -> ACK 2 to a; reoffered 200 yes
			< 200 a re yes -> ACK 2 to a`},
		{"our re-INVITE refused: the call goes on", up + `
			propose more -> INVITE 2 to a
			< 603 a re -> reoffered 603
			hangup -> BYE 3 to a; ended by local hung_up connected`},
		{"glare: both offer", up + `
			propose more -> INVITE 2 to a
			> INVITE a 5 hold -> INVITE5=491
			< 491 a re ->
			wait 2s ->
			wait 2s -> INVITE 3 to a
			< 200 a re yes -> ACK 3 to a; reoffered 200 yes`},
		{"the peer's offer wins the wait after glare", up + `
			propose more -> INVITE 2 to a
			< 491 a re ->
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> reoffered 491; INVITE5=200
			> ACK a 5 ->
			wait 4s ->
			propose again -> INVITE 3 to a`},
		{"an offer of the peer that is refused leaves ours standing", up + `
			propose more -> INVITE 2 to a
			< 491 a re ->
			> INVITE a 5 nonsense -> offer 1 nonsense
			reply 1 488 -> INVITE5=488
			wait 4s -> INVITE 3 to a`},
		{"our offers queue, the newest wins", up + `
			propose one -> INVITE 2 to a
			propose two ->
			propose three ->
			< 200 a re yes -> ACK 2 to a; reoffered 200 yes; INVITE 3 to a
			< 200 a re aye -> ACK 3 to a; reoffered 200 aye`},
		{"500 with Retry-After: again, three times", up + `
			propose more -> INVITE 2 to a
			< 500 a re Retry-After=2 ->
			wait 2s -> INVITE 3 to a
			< 500 a re Retry-After=0 ->
			wait 500ms -> INVITE 4 to a
			< 500 a re Retry-After=99 ->
			wait 10s -> INVITE 5 to a
			< 500 a re Retry-After=1 -> reoffered 500`},
		{"500 without: refused", up + `
			propose more -> INVITE 2 to a
			< 500 a re -> reoffered 500`},
		{"a 200 crosses the CANCEL of our re-INVITE", up + `
			propose more -> INVITE 2 to a
			wait 71s -> CANCEL 2 to a
			< 200 a re yes -> ACK 2 to a; reoffered 200 yes
			< 200 a cancel ->`},
		{"the target moves with re-INVITE and UPDATE", up + `
			> INVITE a 5 hold Contact=<sip:moved@h> -> offer 1 hold
			reply 1 held -> INVITE5=200
			> ACK a 5 ->
			propose more -> INVITE 2 to a at moved
			< 200 a re yes -> ACK 2 to a; reoffered 200 yes
			> UPDATE a 6 Contact=<sip:again@h> -> UPDATE6=200
			hangup -> BYE 3 to a at again; ended by local hung_up connected`},
		{"481 to our re-INVITE: the dialog is gone", up + `
			propose more -> INVITE 2 to a
			< 481 a re -> BYE 3 to a; ended by network dialog_lost connected`},
		{"nobody answers our re-INVITE", up + `
			propose more -> INVITE 2 to a
			timeout re -> BYE 3 to a; ended by network dialog_lost connected`},
		{"no transport for our re-INVITE: the call goes on", up + `
			propose more -> INVITE 2 to a
			fail re -> reoffered 503`},
		{"our re-INVITE rings for ever", up + `
			propose more -> INVITE 2 to a
			< 180 a re ->
			wait 71s -> CANCEL 2 to a
			< 487 a re -> reoffered 487`},

		// Session timers, RFC 4028.
		{"we refresh with UPDATE", `
			start -> INVITE 1
			< 200 a answer Allow=INVITE,UPDATE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 200 a upd Session-Expires=600;refresher=uac ->
			wait 300s -> UPDATE 3 to a Session-Expires=600;refresher=uac
			timeout UPDATE -> BYE 4 to a; ended by network dialog_lost connected`},
		{"we refresh with re-INVITE where UPDATE is not allowed", `
			start -> INVITE 1
			< 200 a answer Allow=INVITE,BYE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> INVITE 2 to a Session-Expires=600;refresher=uac
			< 200 a re answer Session-Expires=600;refresher=uac -> ACK 2 to a
			wait 299s ->`},
		{"UPDATE refused with 405: re-INVITE", `
			start -> INVITE 1
			< 200 a answer Allow=UPDATE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 405 a upd -> INVITE 3 to a Session-Expires=600;refresher=uac`},
		{"UPDATE refused with 422: again with more", `
			start -> INVITE 1
			< 200 a answer Allow=UPDATE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			< 422 a upd Min-SE=900 -> UPDATE 3 to a Session-Expires=900;refresher=uac`},
		{"no connection for the refresh: again, until the end", `
			start -> INVITE 1
			< 200 a answer Allow=UPDATE Session-Expires=600;refresher=uac -> ACK 1 to a; final answer answer; connected
			wait 300s -> UPDATE 2 to a Session-Expires=600;refresher=uac
			fail UPDATE ->
			wait 10s -> UPDATE 3 to a Session-Expires=600;refresher=uac
			< 200 a upd ->`},
		{"the peer was to refresh and did not", `
			start -> INVITE 1
			< 200 a answer Session-Expires=600;refresher=uas -> ACK 1 to a; final answer answer; connected
			wait 567s ->
			wait 1s -> BYE 2 to a; ended by timeout session_expired connected`},
		{"the peer refreshes", `
			start -> INVITE 1
			< 200 a answer Session-Expires=600;refresher=uas -> ACK 1 to a; final answer answer; connected
			wait 300s ->
			> UPDATE a 1 Session-Expires=600;refresher=uac Supported=timer -> UPDATE1=200 Session-Expires=600;refresher=uac
			wait 500s ->
			> INVITE a 2 same Session-Expires=600;refresher=uas -> offer 1 same
			reply 1 same -> INVITE2=200 Session-Expires=600;refresher=uas
			> ACK a 2 ->
			wait 300s -> INVITE 2 to a Session-Expires=600;refresher=uac`},
		{"the peer wants too short a session", up + `
			> UPDATE a 1 Session-Expires=30 Supported=timer -> UPDATE1=422 Min-SE=90
			> UPDATE a 2 Session-Expires=30 -> UPDATE2=200`},
		{"the peer knows no session timer: none runs", up + `
			wait 100h ->`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options()
			newBench(t, o).run(tt.script)
		})
	}
}

// A lost dialog needs nothing any more; one that may still hear a 2xx lingers 64·T1.
func TestDone(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		lingers      bool
	}{
		{"refused", "start -> INVITE 1\n< 486 a -> ended by remote 486", false},
		{"hung up early in the call", up + "hangup -> BYE 2 to a; ended by local hung_up connected\n< 200 a bye ->", true},
		{"hung up late", up + "wait 33s ->\nhangup -> BYE 2 to a; ended by local hung_up connected\n< 200 a bye ->", false},
		{"BYE unanswered", up + "wait 33s ->\nhangup -> BYE 2 to a; ended by local hung_up connected\ntimeout BYE ->", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, options())
			b.run(tt.script)
			if b.c.Done() == tt.lingers {
				t.Errorf("Done is %v", b.c.Done())
			}
			b.wait(33 * time.Second)
			if !b.c.Done() || !b.c.Next().IsZero() {
				t.Errorf("after 64·T1: done %v, next %v", b.c.Done(), b.c.Next())
			}
		})
	}
}

// The ACK and BYE of an answer to nothing we know go where its dialog is.
func TestStray(t *testing.T) {
	b := newBench(t, options())
	b.run("start -> INVITE 1")
	res := b.response([]string{"200", "x", "answer", "Record-Route=<sip:p1;lr>,<sip:p2;lr>"})
	id := sip.CallIDHeader("old@192.0.2.10")
	res.AppendHeader(&id)
	ack, bye := Stray(options(), res)
	if ack == nil || bye == nil {
		t.Fatal("no ACK or no BYE")
	}
	for _, m := range []*sip.Request{ack, bye} {
		if string(*m.CallID()) != "old@192.0.2.10" || toTag(m) != "x" || fromTag(m) != "us" || value(m, "Route") != "<sip:p2;lr>" || m.Recipient.User != "x" {
			t.Errorf("%s", m)
		}
	}
	if ack.CSeq().SeqNo != 1 || bye.CSeq().SeqNo != 2 {
		t.Errorf("CSeq %d and %d", ack.CSeq().SeqNo, bye.CSeq().SeqNo)
	}
}

func TestOfferQoS(t *testing.T) {
	got := string(offerQoS([]byte("v=0\r\no=- 7 8 IN IP4 h\r\nm=audio 4 RTP/AVP 97\r\na=x\r\nm=video 0 RTP/AVP 98\r\n"), "mandatory"))
	want := "v=0\r\no=- 7 8 IN IP4 h\r\nm=audio 4 RTP/AVP 97\r\na=x\r\n" +
		"a=curr:qos local sendrecv\r\na=curr:qos remote none\r\na=des:qos mandatory local sendrecv\r\na=des:qos mandatory remote sendrecv\r\n" +
		"m=video 0 RTP/AVP 98\r\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again := string(offerQoS([]byte(got), "optional")); again != got {
		t.Errorf("lines are there twice:\n%s", again)
	}
	if again := string(answerQoS([]byte(got), []byte(got))); again != got {
		t.Errorf("lines are there twice:\n%s", again)
	}
}

// The version of a description rises by one with each that differs, whoever changed it.
func TestVersion(t *testing.T) {
	c := New(options())
	for _, step := range []struct{ in, want string }{
		{"o=- 7 8 IN IP4 h\r\na\r\n", "o=- 7 8 IN IP4 h\r\na\r\n"},
		{"o=- 7 8 IN IP4 h\r\nb\r\n", "o=- 7 9 IN IP4 h\r\nb\r\n"},
		{"o=- 7 9 IN IP4 h\r\nb\r\n", "o=- 7 9 IN IP4 h\r\nb\r\n"},
		{"o=- 7 9 IN IP4 h\r\nc", "o=- 7 10 IN IP4 h\r\nc"},
		{"o=- x y", "o=- x y"},
		{"nothing", "nothing"},
	} {
		if got := string(c.version([]byte(step.in))); got != step.want {
			t.Errorf("%q became %q, want %q", step.in, got, step.want)
		}
	}
}
