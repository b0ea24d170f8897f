package sip

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// torture is what our UA must say to each message of RFC 4475 and RFC 5118. Its owner
// rejects every call with 404; it is no registrar. 0 is silence.
var torture = []struct {
	id     string
	status int
	owner  bool // the call reaches the owner
	note   string
}{
	{"rfc4475/wsinv", 481, false, "it is in a dialog that we do not have"},
	{"rfc4475/intmeth", 405, false, ""},
	{"rfc4475/esc01", 404, true, ""},
	{"rfc4475/escnull", 405, false, ""},
	{"rfc4475/esc02", 405, false, "an escape in a method is none"},
	{"rfc4475/lwsdisp", 200, false, ""},
	{"rfc4475/longreq", 404, true, ""},
	{"rfc4475/dblreq", 405, false, "one answer, to what comes before the trailing octets"},
	{"rfc4475/semiuri", 200, false, ""},
	{"rfc4475/transports", 200, false, ""},
	{"rfc4475/mpart01", 405, false, "we take no MESSAGE"},
	{"rfc4475/unreason", 0, false, "a stray 200"},
	{"rfc4475/noreason", 0, false, "a stray 100"},
	{"rfc4475/badinv01", 400, false, ""},
	{"rfc4475/clerr", 400, false, "on TCP its end never comes"},
	{"rfc4475/ncl", 400, false, ""},
	{"rfc4475/scalar02", 400, false, ""},
	{"rfc4475/scalarlg", 0, false, ""},
	{"rfc4475/quotbal", 400, false, ""},
	{"rfc4475/ltgtruri", 400, false, ""},
	{"rfc4475/lwsruri", 400, false, ""},
	{"rfc4475/lwsstart", 400, false, ""},
	{"rfc4475/trws", 400, false, ""},
	{"rfc4475/escruri", 404, true, "the Route in the Request-URI is not followed"},
	{"rfc4475/baddate", 404, true, "nobody reads Date"},
	{"rfc4475/regbadct", 405, false, ""},
	{"rfc4475/badaspec", 400, false, ""},
	{"rfc4475/baddn", 200, false, "what is meant is clear"},
	{"rfc4475/badvers", 505, false, ""},
	{"rfc4475/mismatch01", 400, false, ""},
	{"rfc4475/mismatch02", 400, false, ""},
	{"rfc4475/bigcode", 0, false, ""},
	{"rfc4475/badbranch", 200, false, "matched as RFC 2543 has it"},
	{"rfc4475/insuf", 0, false, "a response needs From, To and Call-ID (RFC 3261 8.2.6.2)"},
	{"rfc4475/unkscm", 416, false, ""},
	{"rfc4475/novelsc", 416, false, ""},
	{"rfc4475/unksm2", 405, false, ""},
	{"rfc4475/bext01", 420, false, ""},
	{"rfc4475/invut", 415, false, ""},
	{"rfc4475/regaut01", 405, false, ""},
	{"rfc4475/multi01", 400, false, ""},
	{"rfc4475/mcl01", 400, false, ""},
	{"rfc4475/bcast", 0, false, "nothing goes to 255.255.255.255"},
	{"rfc4475/zeromf", 200, false, "an endpoint answers"},
	{"rfc4475/cparam01", 405, false, ""},
	{"rfc4475/cparam02", 405, false, ""},
	{"rfc4475/regescrt", 405, false, ""},
	{"rfc4475/sdp01", 406, false, ""},
	{"rfc4475/inv2543", 400, false, "no tag in From, no branch: no transaction can be made of it (RFC 3261 8.1.1.3 wants the tag)"},

	{"rfc5118/ipv6-good", 405, false, ""},
	{"rfc5118/ipv6-bad", 400, false, ""},
	{"rfc5118/port-ambiguous", 405, false, ""},
	{"rfc5118/port-unambiguous", 405, false, ""},
	{"rfc5118/via-received-param-with-delim", 481, false, ""},
	{"rfc5118/via-received-param-no-delim", 200, false, ""},
	{"rfc5118/ipv6-in-sdp", 404, true, ""},
	{"rfc5118/mult-ip-in-header", 481, false, ""},
	{"rfc5118/mult-ip-in-sdp", 404, true, ""},
	{"rfc5118/ipv4-mapped-ipv6", 404, true, ""},
	{"rfc5118/ipv6-correct-abnf-2-colons", 200, false, ""},
	{"rfc5118/ipv6-bug-abnf-3-colons", 200, false, ""},
}

const tortureDir = "../testdata/sip/"

// topVia is the top Via up to its sent-by.
var topVia = regexp.MustCompile(`(?i)\n(?:via|v)\s*:\s*SIP\s*/\s*[0-9.]+\s*/\s*[A-Z]+\s+[^\s;,]+`)

// tortured is a UA whose owner takes the calls for "alive" and rejects all others.
type tortured struct {
	t    *testing.T
	net  string
	ua   *UA
	p    *peer
	addr string
	seen chan Incoming // what was rejected
	n    int
}

func newTortured(t *testing.T, network string) *tortured {
	p := newPeer(t, network)
	k := &tortured{t: t, net: network, p: p, ua: newTrunk(t, p, func(o *AttachmentOptions) { o.InviteRate, o.PeerRate = 1e6, 1e6 }), seen: make(chan Incoming, 1e4)}
	k.addr = k.ua.Attachments()[0].LocalAddr
	k.ua.OnIncoming(func(in Incoming, call IncomingCall) func(Event) {
		if strings.Contains(in.Target, "alive") {
			call.Accept(Acceptance{SDP: []byte(answerSDP)})
		} else {
			call.Reject(404, 0)
			k.seen <- in
		}
		return func(Event) {}
	})
	return k
}

// alive is the valid case after each: a call that is taken and hung up.
func (k *tortured) alive() {
	k.t.Helper()
	k.n++
	a := newAsker(k.t, k.p, k.ua, "sip:alive@sparkle.example")
	a.call = fmt.Sprintf("alive-%d", k.n)
	if res := a.ask("INVITE", a.contact(), "\n"+offerSDP); res.status() != "200" || res.body != answerSDP || res.get("Call-Id") != a.call {
		k.t.Fatalf("a valid INVITE is answered %s (%s)", res.start, res.get("Call-Id"))
	}
	a.send(fmt.Appendf(nil, "ACK sip:alive@sparkle.example SIP/2.0\r\nVia: SIP/2.0/%s %s;rport;branch=z9hG4bKack%s\r\nMax-Forwards: 70\r\n"+
		"From: \"Ann\" <sip:ann@home.example>;tag=peer\r\nTo: <sip:alive@sparkle.example>;tag=%s\r\nCall-ID: %s\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
		a.net, a.conn.LocalAddr(), a.call, a.tag, a.call))
	res := a.ask("BYE")
	for strings.HasSuffix(res.get("Cseq"), "INVITE") { // the 200 came again before the ACK
		res = a.receive()
	}
	if res.status() != "200" {
		k.t.Fatalf("BYE is answered %s: %q", res.start, res.order)
	}
	a.conn.Close()
}

// message is a message to be sent over this transport. On UDP its answer must find a
// socket that is not the one its Via names.
func (k *tortured) message(file string) []byte {
	k.t.Helper()
	msg, err := os.ReadFile(file)
	if err != nil {
		k.t.Fatal(err)
	}
	if k.net != "udp" {
		return msg
	}
	at := topVia.FindIndex(msg)
	if at == nil {
		k.t.Fatal("no Via")
	}
	return slices.Concat(msg[:at[1]], []byte(";rport"), msg[at[1]:])
}

func TestTorture(t *testing.T) {
	files, err := filepath.Glob(tortureDir + "rfc*/*.dat")
	if err != nil || len(files) != len(torture) {
		t.Fatalf("%d messages for %d rows, %v", len(files), len(torture), err)
	}
	both(t, func(t *testing.T, network string) {
		for _, tt := range torture {
			t.Run(tt.id, func(t *testing.T) {
				// The messages share branches: a UA each, or one finds another's transaction.
				k := newTortured(t, network)
				c := knock(t, network, k.addr)
				c.send(k.message(tortureDir + tt.id + ".dat"))
				want := tt.status
				if network == "tcp" && tt.id == "rfc4475/clerr" {
					want = 0
				}
				if want != 0 {
					m := c.final()
					if !strings.HasPrefix(m.start, "SIP/2.0 "+strconv.Itoa(want)+" ") {
						t.Fatalf("answered %q, want %d", m.start, want)
					}
				}
				if tt.owner && want == tt.status {
					got(t, k.seen)
				}
				k.alive()
				if want == 0 { // the valid call took its time: an answer would be there
					c.silent()
				}
				if len(k.seen) != 0 {
					t.Errorf("the owner was shown %+v", <-k.seen)
				}
				if err := k.ua.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// final is the next final response.
func (k *knocker) final() message {
	k.t.Helper()
	for {
		if m := k.receive(); !strings.HasPrefix(m.start, "SIP/2.0 1") {
			return m
		}
	}
}

// silent wants nothing to have come.
func (k *knocker) silent() {
	k.t.Helper()
	_ = k.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	b := make([]byte, 65536)
	if n, err := k.conn.Read(b); err == nil {
		k.t.Errorf("answered %q", b[:n])
	} else if errors.Is(err, io.EOF) && k.r.Buffered() > 0 {
		k.t.Error("answered and closed")
	}
}

// The same messages from where they are collected with a manifest of what a UAS may say,
// if that is at hand.
func TestTortureManifest(t *testing.T) {
	dirs, _ := filepath.Glob("../../shared/torture/rfc*")
	if d := os.Getenv("SPARKLE_TORTURE"); d != "" {
		dirs, _ = filepath.Glob(filepath.Join(d, "rfc*"))
	}
	if len(dirs) == 0 {
		t.Skip("no collection: set SPARKLE_TORTURE to its folder")
	}
	for _, dir := range dirs {
		var manifest struct {
			Messages []struct {
				ID, File, Verdict string
				UAS               json.RawMessage
			}
		}
		b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &manifest); err != nil {
			t.Fatal(err)
		}
		both(t, func(t *testing.T, network string) {
			for _, tt := range manifest.Messages {
				t.Run(tt.ID, func(t *testing.T) {
					k := newTortured(t, network)
					c := knock(t, network, k.addr)
					msg := k.message(filepath.Join(dir, tt.File))
					c.send(msg)
					allowed := string(tt.UAS)
					if network == "tcp" && strings.Contains(allowed, "merits") && longer(msg) {
						allowed += "rest of the stream: 400" // as published, they say less than they carry
					}
					if !strings.Contains(allowed, "none") && !strings.Contains(allowed, "ignore") {
						status := c.final().status()
						// "merits": 200 of OPTIONS, 404 by the owner, 405 and 481 of what we do not do.
						if strings.Contains(allowed, "merits") || strings.Contains(allowed, "lenient") {
							allowed += " 200 404 405 481"
						}
						if strings.Contains(allowed, "lenient") {
							allowed += " 400"
						}
						if !strings.Contains(allowed, status) {
							t.Errorf("answered %s, allowed is %s", status, allowed)
						}
					}
					k.alive()
					if strings.Contains(string(tt.UAS), "none") {
						c.silent()
					}
				})
			}
		})
	}
}

// longer says whether a message carries more than its Content-Length says.
func longer(msg []byte) bool {
	n, err := frame(msg)
	return err == nil && n >= 0 && n < len(msg)
}

// mutate changes a message in one to three places, in ways that parsers have fallen over.
func mutate(r *rand.Rand, msg []byte) []byte {
	out := bytes.Clone(msg)
	for range 1 + r.IntN(3) {
		lines := bytes.Split(out, []byte("\r\n"))
		i := r.IntN(len(lines))
		at := r.IntN(len(out))
		switch r.IntN(14) {
		case 0: // a line less
			lines = slices.Delete(lines, i, i+1)
		case 1: // a line twice
			lines = slices.Insert(lines, i, lines[i])
		case 2: // two lines change places
			j := r.IntN(len(lines))
			lines[i], lines[j] = lines[j], lines[i]
		case 3: // an octet of any value
			out[at] = byte(r.IntN(256))
			continue
		case 4: // cut off
			out = out[:at+1]
			continue
		case 5: // a long run
			lines[i] = append(bytes.Clone(lines[i]), bytes.Repeat([]byte{"aA0 %;,:\"<@\x00\xff\t"[r.IntN(14)]}, 1<<r.IntN(14))...)
		case 6: // a separator too many or another
			out = slices.Insert(out, at, ";,:=<>\"@[]?&%\\/ \t"[r.IntN(17)])
			continue
		case 7: // a number that does not fit
			out = digits.ReplaceAllFunc(out, func(d []byte) []byte {
				if r.IntN(8) != 0 {
					return d
				}
				return []byte([]string{"-1", "0", "4294967296", "18446744073709551616", "99999999999999999999999", "1e9", "%d", "2147483648"}[r.IntN(8)])
			})
			continue
		case 8: // format strings, controls, broken UTF-8
			lines[i] = append(bytes.Clone(lines[i]), []string{"%n%s%x", "\x00", "\xc0\xaf", "\r", "\n", "\u202e", "%00%0d%0a"}[r.IntN(7)]...)
		case 9: // another line end
			sep := []string{"\n", "\r", "\r\n ", "\r\n\t", "\r\n\r\n"}[r.IntN(5)]
			out = bytes.Replace(out, []byte("\r\n"), []byte(sep), 1+r.IntN(4))
			continue
		case 10: // an empty value
			if name, _, ok := bytes.Cut(lines[i], []byte(":")); ok {
				lines[i] = append(bytes.Clone(name), ':')
			}
		case 11: // another method
			out = bytes.ReplaceAll(out, []byte("INVITE"), []byte([]string{"ACK", "CANCEL", "BYE", "OPTIONS", "SUBSCRIBE", "REFER", "NOTIFY", "PRACK", "invite", "SIP/2.0"}[r.IntN(10)]))
			continue
		case 12: // a tag that nobody gave
			out = bytes.Replace(out, []byte("To: "), []byte("To: <sip:a@b>;tag=x, "), 1)
			continue
		case 13: // headers that matter
			lines = slices.Insert(lines, 1+r.IntN(len(lines)), [][]byte{[]byte("Require: 100rel, x"), []byte("Replaces: a;to-tag=b;from-tag=c"), []byte("Content-Length: 5"),
				[]byte("Content-Type: multipart/mixed;boundary=b"), []byte("Refer-To: <sip:a@b?Replaces=%"), []byte("Event: conference"), []byte("Session-Expires: 1"),
				[]byte("Record-Route: <sip:" + strings.Repeat("x", 2000)), []byte("Via: SIP/2.0/UDP " + strings.Repeat("1.", 500))}[r.IntN(9)])
		}
		out = bytes.Join(lines, []byte("\r\n"))
		if len(out) == 0 {
			out = []byte{'\r'}
		}
	}
	return out[:min(len(out), 60000)]
}

var digits = regexp.MustCompile(`\d+`)

// bases are sound messages that mutations start from.
func bases(addr string) [][]byte {
	var out [][]byte
	for i, m := range []struct{ method, extra, body string }{
		{"INVITE", "Contact: <sip:a@127.0.0.1>\r\nContent-Type: application/sdp\r\n", offerSDP},
		{"INVITE", "Contact: \"A\" <sip:a@127.0.0.1;transport=udp>;+g.x=\"<urn:a:b>\"\r\n" + multipart + "\r\n", parts(sdpPart, listPart)},
		{"INVITE", "Contact: <sip:a@b>\r\nSupported: 100rel, timer\r\nSession-Expires: 1800;refresher=uac\r\nP-Asserted-Identity: \"A, B\" <sip:+15550123@h;user=phone>, <tel:+15550123;verstat=x>\r\nHistory-Info: <sip:a@b?Reason=SIP%3Bcause%3D302>;index=1, <sip:c@d>;index=1.1\r\n", ""},
		{"OPTIONS", "Accept: application/sdp\r\n", ""},
		{"SUBSCRIBE", "Contact: <sip:a@b>\r\nEvent: conference;id=1\r\nExpires: 3600\r\n", ""},
		{"REFER", "Contact: <sip:a@b>\r\nRefer-To: <sip:+15550123@h;method=BYE?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2>\r\nReferred-By: <sip:a@b>;cid=\"x\"\r\n", ""},
		{"BYE", "Reason: Q.850;cause=16;text=\"x\"\r\n", ""},
		{"UPDATE", "Contact: <sip:a@b>\r\n", ""},
		{"PRACK", "RAck: 1 1 INVITE\r\n", ""},
		{"CANCEL", "", ""},
	} {
		tag := ""
		if slices.Contains([]string{"BYE", "UPDATE", "PRACK"}, m.method) {
			tag = ";tag=ours"
		}
		out = append(out, fmt.Appendf(nil, "%s sip:room@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bKBRANCH\r\nMax-Forwards: 70\r\n"+
			"From: \"M\" <sip:m@mutants.example>;tag=m%d\r\nTo: <sip:room@sparkle.example>%s\r\nCall-ID: CALLID@mutants\r\nCSeq: 1 %s\r\n%sContent-Length: %d\r\n\r\n%s",
			m.method, addr, i, tag, m.method, m.extra, len(m.body), m.body))
	}
	return append(out, fmt.Appendf(nil, "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bKBRANCH\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: CALLID\r\nCSeq: 1 INVITE\r\nContact: <sip:x@127.0.0.1>\r\nContent-Length: 0\r\n\r\n", addr))
}

// Whatever mutated messages come, the UA goes on: a valid call works after each hundred,
// and when all is over nothing of them is left. The seed is the test's.
func TestMutations(t *testing.T) {
	count := 2500 // for each transport
	if testing.Short() {
		count = 500
	}
	both(t, func(t *testing.T, network string) {
		before := runtime.NumGoroutine()
		k := newTortured(t, network)
		k.ua.OnSubscribe(func(_ Subscribe, s Subscription) func(SubscriptionEvent) {
			s.Accept(time.Hour)
			s.Notify("x/y", []byte("x"))
			return func(SubscriptionEvent) {}
		})
		k.ua.OnRefer(func(_ Refer, r Referral) { r.Accept(); r.Progress(200, "OK") })
		quit := make(chan struct{})
		drained := make(chan struct{})
		go func() { // what the UA sends to the mutants' dialogs
			defer close(drained)
			for {
				select {
				case m := <-k.p.in:
					if m.method() != "SIP/2.0" && m.method() != "ACK" {
						m.write(answer(m, 481, "Gone", ""))
					}
				case <-k.seen:
				case <-quit:
					return
				}
			}
		}()
		r := rand.New(rand.NewPCG(4475, 5118))
		from := bases(k.p.addr)
		c := knock(t, network, k.addr)
		for i := range count {
			msg := bytes.ReplaceAll(from[r.IntN(len(from))], []byte("BRANCH"), fmt.Appendf(nil, "%d", i))
			msg = mutate(r, bytes.ReplaceAll(msg, []byte("CALLID"), fmt.Appendf(nil, "mut%d", i)))
			if network == "tcp" { // framing errors close it
				c.conn.Close()
				c = knock(t, network, k.addr)
			}
			if _, err := c.conn.Write(msg); err != nil && network == "udp" {
				t.Fatalf("message %d: %v", i, err)
			}
			if i%100 == 99 {
				k.alive()
			}
		}
		c.conn.Close()
		close(quit)
		<-drained
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = k.ua.Close(ctx)
		k.p.drop()
		deadline := time.Now().Add(patience)
		for runtime.NumGoroutine() > before+10 { // the peer's own sockets
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
			}
			<-time.After(5 * time.Millisecond)
		}
	})
}

// knocker is a socket of a peer that speaks first.
type knocker struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func knock(t *testing.T, network, addr string) *knocker {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &knocker{t, c, bufio.NewReader(c)}
}

func (k *knocker) send(b []byte) {
	k.t.Helper()
	if _, err := k.conn.Write(b); err != nil {
		k.t.Fatal(err)
	}
}

// receive is the next message.
func (k *knocker) receive() message {
	k.t.Helper()
	_ = k.conn.SetReadDeadline(time.Now().Add(patience))
	r := k.r
	if _, udp := k.conn.(*net.UDPConn); udp {
		buf := make([]byte, 65536)
		n, err := k.conn.Read(buf)
		if err != nil {
			k.t.Fatal("nothing came: ", err)
		}
		r = bufio.NewReader(bytes.NewReader(buf[:n]))
	}
	m, err := readMessage(r)
	if err != nil {
		k.t.Fatal("nothing came: ", err)
	}
	return m
}
