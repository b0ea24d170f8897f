package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/lab"
)

// frontList is what the front says of its security, in a writing of its own.
const frontList = `ipsec-3gpp;q=0.1 ,tls; q=0.500`

// front stands before the lab's core, which knows no TLS, as a P-CSCF that agrees on it (RFC 3329): it
// takes REGISTERs in clear and everything else over TLS, and takes out what was meant for it.
type front struct {
	t          *testing.T
	core       string
	clear, tls net.Listener

	mu    sync.Mutex
	conns []net.Conn
	seen  []string // "tcp REGISTER", "tls INVITE" …, each the first time
	wrong []string
	left  bool // a de-registration came by
}

// newFront listens, and writes the certificate of its TLS to a file.
func newFront(t *testing.T, core string) (f *front, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "front"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	f = &front{t: t, core: core}
	for range 50 { // until two ports in a row are free
		if f.clear, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if f.tls, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(f.clear.Addr().(*net.TCPAddr).Port+1))); err == nil {
			break
		}
		f.clear.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	f.tls = tls.NewListener(f.tls, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	var wg sync.WaitGroup
	wg.Go(func() { f.serve(f.clear, "tcp", &wg) })
	wg.Go(func() { f.serve(f.tls, "tls", &wg) })
	t.Cleanup(func() {
		f.clear.Close()
		f.tls.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			c.Close()
		}
		f.mu.Unlock()
		wg.Wait()
	})
	return f, ca
}

func (f *front) serve(l net.Listener, kind string, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		core, err := net.Dial("tcp", f.core)
		if err != nil {
			c.Close()
			continue
		}
		f.mu.Lock()
		f.conns = append(f.conns, c, core)
		f.mu.Unlock()
		relay := func(from, to net.Conn, edit func(head string) string) {
			defer from.Close()
			defer to.Close()
			for r := bufio.NewReader(from); ; {
				head, body, err := nextMessage(r)
				if err != nil {
					return
				}
				if _, err := io.WriteString(to, edit(head)+body); err != nil {
					return
				}
			}
		}
		wg.Go(func() { relay(c, core, func(head string) string { return f.in(kind, head) }) })
		wg.Go(func() { relay(core, c, f.out) })
	}
}

// nextMessage reads one; a keep-alive is a head of its own.
func nextMessage(r *bufio.Reader) (head, body string, err error) {
	for length := 0; ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		if head += line; line == "\r\n" {
			b := make([]byte, length)
			_, err := io.ReadFull(r, b)
			return head, string(b), err
		}
		if name, v, _ := strings.Cut(line, ":"); strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return "", "", err
			}
		}
	}
}

// in holds what the daemon sends to the agreement, and makes it something that the core takes: by
// TCP, and for the core's own address.
func (f *front) in(kind, head string) string {
	method, _, _ := strings.Cut(head, " ")
	if head == "\r\n" || strings.HasPrefix(head, "SIP/2.0") {
		return head
	}
	verify := strings.Contains(head, "\r\nSecurity-Verify: "+frontList+"\r\n") && strings.Count(head, "\r\nSecurity-Verify:") == 1
	must := strings.Contains(head, "\r\nRequire: sec-agree\r\n") && strings.Contains(head, "\r\nProxy-Require: sec-agree\r\n")
	said := strings.Contains(head, "Security-") || strings.Contains(head, "sec-agree")
	offer := strings.Contains(head, "\r\nSecurity-Client: tls\r\n")
	proof := !strings.Contains(head, `response=""`)
	f.mu.Lock()
	if what := kind + " " + method; !slices.Contains(f.seen, what) {
		f.seen = append(f.seen, what)
	}
	f.left = f.left || method == "REGISTER" && strings.Contains(head, "\r\nExpires: 0\r\n")
	var right bool
	switch {
	case kind == "tcp":
		right = method == "REGISTER" && offer && must && !proof && !strings.Contains(head, "Security-Verify")
	case method == "ACK", method == "CANCEL":
		right = !said
	case method == "REGISTER":
		right = offer && must && proof && verify
	default:
		right = must && verify && !offer
	}
	if !right {
		f.wrong = append(f.wrong, kind+":\n"+head)
	}
	f.mu.Unlock()
	head = regexp.MustCompile(`(?m)^(Security-(Client|Verify): .*|(Proxy-)?Require: sec-agree)\r\n`).ReplaceAllString(head, "")
	return strings.NewReplacer(f.clear.Addr().String(), f.core, f.tls.Addr().String(), f.core, "SIP/2.0/TLS", "SIP/2.0/TCP", "transport=tls", "transport=tcp").Replace(head)
}

// out is what a P-CSCF adds to the core's answers.
func (f *front) out(head string) string {
	if rest, ok := strings.CutPrefix(head, "SIP/2.0 401 Unauthorized\r\n"); ok {
		return "SIP/2.0 401 Unauthorized\r\nSecurity-Server: " + frontList + "\r\n" + rest
	}
	return head
}

// A daemon that agrees on TLS with its P-CSCF, from the file to a call and its end: the first
// REGISTER is all that goes in clear, and all that goes over TLS repeats the list.
func TestConferenceOverAnAgreement(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	phone := n.handset("+15550100006", lab.PSTN, true)
	f, ca := newFront(t, n.core.Addr().String())
	t.Cleanup(func() { // behind the daemon's
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.wrong) > 0 {
			t.Errorf("%d messages against the agreement, the first by %s", len(f.wrong), f.wrong[0])
		}
		if !f.left {
			t.Error("no de-registration came")
		}
		if in := slices.DeleteFunc(slices.Clone(f.seen), func(s string) bool { return !strings.HasPrefix(s, "tcp ") }); len(in) != 1 {
			t.Errorf("in clear came %q", in)
		}
		for _, what := range []string{"tls REGISTER", "tls SUBSCRIBE", "tls INVITE", "tls ACK", "tls BYE"} {
			if !slices.Contains(f.seen, what) {
				t.Errorf("no %s among %q", what, f.seen)
			}
		}
	})
	config := strings.NewReplacer(strconv.Quote(n.core.Addr().String()), strconv.Quote(f.clear.Addr().String()),
		"transport: tcp\n", fmt.Sprintf("transport: tcp\n    security_agreement: tls\n    tls: {ca_file: %q}\n", ca)).Replace(n.ue() + noPictures)
	d := startDaemon(t, config)
	d.ready()
	x := &table{daemon: d, network: n, conference: d.conference(bridge.AudioConference), handsets: []*handset{phone}}
	m := d.invite(x.conference, phone.Number(), phone.Name())
	d.call(x.conference, bridge.CallRequest{Targets: "all"})
	d.await(x.conference, m, "the conference", in)
	x.hears(phone, 25)
	if err := d.api.Hangup(t.Context(), x.conference, m); err != nil {
		t.Fatal(err)
	}
	d.ended(x.conference, m, bridge.HungUp)
}
