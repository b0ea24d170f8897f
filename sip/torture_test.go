package sip

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// torture is what our UA must say to each message of RFC 4475. It takes no calls and is
// no registrar: a sound INVITE gets 404, a REGISTER 405. 0 is silence. Where the RFC's
// own verdict is not met, off says why; the message is sent all the same.
var torture = []struct {
	id     string
	status int
	note   string
	off    string
}{
	{"wsinv", 400, "valid", "sipgo 1.7.2 keeps the LWS around = in a parameter's name and finds no From tag; ought to be 404"},
	{"intmeth", 405, "", ""},
	{"esc01", 404, "", ""},
	{"escnull", 405, "", ""},
	{"esc02", 405, "an escape in a method is none", ""},
	{"lwsdisp", 200, "", ""},
	{"dblreq", 405, "one answer, to what comes before the trailing octets", ""},
	{"semiuri", 200, "", ""},
	{"transports", 200, "", ""},
	{"noreason", 0, "a stray 100", ""},
	{"badinv01", 400, "", ""},
	{"ncl", 400, "", ""},
	{"scalar02", 400, "", ""},
	{"scalarlg", 0, "", ""},
	{"quotbal", 400, "", ""},
	{"ltgtruri", 400, "", ""},
	{"lwsruri", 400, "", ""},
	{"lwsstart", 400, "", ""},
	{"trws", 400, "", ""},
	{"escruri", 404, "the Route in the Request-URI is not followed", ""},
	{"baddate", 404, "nobody reads Date", ""},
	{"regbadct", 405, "", ""},
	{"badaspec", 400, "", ""},
	{"badvers", 505, "", ""},
	{"mismatch01", 400, "", ""},
	{"mismatch02", 400, "", ""},
	{"bigcode", 0, "", ""},
	{"badbranch", 200, "matched as RFC 2543 has it", ""},
	{"unkscm", 416, "", ""},
	{"unksm2", 405, "", ""},
	{"bext01", 420, "", ""},
	{"invut", 415, "", ""},
	{"mcl01", 400, "", ""},
	{"bcast", 0, "nothing goes to 255.255.255.255", ""},
	{"zeromf", 200, "an endpoint answers", ""},
	{"cparam01", 405, "", ""},
	{"cparam02", 405, "", ""},
	{"regescrt", 405, "", ""},
	{"sdp01", 406, "", ""},
}

// topVia is the top Via up to its sent-by.
var topVia = regexp.MustCompile(`(?i)\n(?:via|v)\s*:\s*SIP\s*/\s*[0-9.]+\s*/\s*[A-Z]+\s+[^\s;,]+`)

func TestRFC4475(t *testing.T) {
	const dir = "../testdata/sip/rfc4475"
	files, err := filepath.Glob(dir + "/*.dat")
	if err != nil || len(files) != len(torture) {
		t.Fatalf("%d messages for %d rows, %v", len(files), len(torture), err)
	}
	both(t, func(t *testing.T, network string) {
		for i, tt := range torture {
			t.Run(tt.id, func(t *testing.T) {
				// The messages share branches: a UA each, or one finds another's transaction.
				ua := newTrunk(t, newPeer(t, network))
				addr := ua.Attachments()[0].LocalAddr
				msg, err := os.ReadFile(filepath.Join(dir, tt.id+".dat"))
				if err != nil {
					t.Fatal(err)
				}
				if network == "udp" {
					at := topVia.FindIndex(msg)
					if at == nil {
						t.Fatal("no Via")
					}
					msg = slices.Concat(msg[:at[1]], []byte(";rport"), msg[at[1]:])
				}
				if tt.off != "" {
					t.Log("OFF:", tt.off)
				}
				c := knock(t, network, addr)
				c.send(msg)
				if tt.status != 0 {
					if m := c.receive(); m.method() != "SIP/2.0" || !strings.HasPrefix(m.start, "SIP/2.0 "+strconv.Itoa(tt.status)+" ") {
						t.Fatalf("answered %q, want %d", m.start, tt.status)
					}
					c = knock(t, network, addr)
				}
				id := fmt.Sprintf("alive-%s-%d", network, i)
				c.send([]byte(fmt.Sprintf("OPTIONS sip:x@y SIP/2.0\r\nVia: SIP/2.0/%s %s;rport;branch=z9hG4bK%s\r\nMax-Forwards: 70\r\n"+
					"From: <sip:a@b>;tag=1\r\nTo: <sip:x@y>\r\nCall-ID: %s\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
					strings.ToUpper(network), c.conn.LocalAddr(), id, id)))
				if m := c.receive(); m.start != "SIP/2.0 200 OK" || m.get("Call-Id") != id {
					t.Fatalf("afterwards %q (%s)", m.start, m.get("Call-Id"))
				}
				if err := ua.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
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
