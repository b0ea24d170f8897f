package sip

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs the certificates of a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key, a.cert = a.make("ca", nil)
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name+".pem") }

// make issues a certificate for a name, the authority's own if names is nil.
func (a *authority) make(file string, names []string) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: file}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	parent, signer := a.cert, a.key
	if names == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, parent, signer = true, true, x509.KeyUsageCertSign, c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	k, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{file: {Type: "CERTIFICATE", Bytes: der}, file + "-key": {Type: "EC PRIVATE KEY", Bytes: k}} {
		if err := os.WriteFile(a.file(name), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, parsed
}

// listenTLS is a peer that speaks TLS and wants to see a certificate.
func (a *authority) listenTLS(file string) *peer {
	a.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	return a.serveTLS(file, l)
}

// serveTLS is listenTLS on a listener that there is.
func (a *authority) serveTLS(file string, l net.Listener) *peer {
	a.t.Helper()
	cert, err := tls.LoadX509KeyPair(a.file(file), a.file(file+"-key"))
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	p := &peer{t: a.t, net: "tls", addr: l.Addr().String(), l: l, in: make(chan message, 256)}
	a.t.Cleanup(func() { l.Close(); p.drop() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, c)
			p.mu.Unlock()
			go p.serveConn(c)
		}
	}()
	return p
}

func (a *authority) options(p *peer) func(*AttachmentOptions) {
	return func(o *AttachmentOptions) {
		o.Transport, o.TLS = "tls", TLSOptions{CertFile: a.file("us"), KeyFile: a.file("us-key"), CAFile: a.file("ca"), ServerName: "sbc.example"}
	}
}

// A call over mutual TLS, and what the peer asks on a connection of its own.
func TestCallOverTLS(t *testing.T) {
	ca := newAuthority(t)
	ca.make("us", []string{"sparkle.example"})
	ca.make("sbc", []string{"sbc.example"})
	p := ca.listenTLS("sbc")
	ua := newTrunk(t, p, ca.options(p))
	call, ev := place(t, ua)
	inv := p.expect("INVITE")
	if via := inv.get("Via"); len(via) < 12 || via[:11] != "SIP/2.0/TLS" {
		t.Errorf("Via %q", via)
	}
	inv.write(answer(inv, 200, "OK", "x", "Contact: <sip:callee@"+p.addr+";transport=tls>", "\n"+answerSDP))
	p.expect("ACK")
	next[Answer](ev)
	next[Connected](ev)
	call.Hangup("hung_up", "")
	bye := p.expect("BYE")
	bye.write(answer(bye, 200, "OK", ""))
	next[Ended](ev)

	s := ua.Attachments()[0]
	if s.Targets[0].Transport != "tls" || s.Targets[0].RTT <= 0 {
		t.Errorf("target %+v", s.Targets[0])
	}
	dial := func(cfg *tls.Config) (string, error) {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", s.LocalAddr, cfg)
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, p.toUs(ua, "OPTIONS", "sip:us@"+s.LocalAddr, "o1")); err != nil {
			return "", err
		}
		m, err := readMessage(bufio.NewReader(c))
		return m.start, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	mine, err := tls.LoadX509KeyPair(ca.file("sbc"), ca.file("sbc-key"))
	if err != nil {
		t.Fatal(err)
	}
	if start, err := dial(&tls.Config{RootCAs: pool, ServerName: "sparkle.example", Certificates: []tls.Certificate{mine}}); err != nil || start != "SIP/2.0 200 OK" {
		t.Errorf("OPTIONS from the peer: %q, %v", start, err)
	}
	ca.make("neighbour", []string{"neighbour.example"}) // whom the same authority has signed
	theirs, err := tls.LoadX509KeyPair(ca.file("neighbour"), ca.file("neighbour-key"))
	if err != nil {
		t.Fatal(err)
	}
	if start, err := dial(&tls.Config{RootCAs: pool, ServerName: "sparkle.example", Certificates: []tls.Certificate{theirs}}); err == nil {
		t.Errorf("another name than the peer's got %q", start)
	}
	named := newTrunk(t, p, ca.options(p), func(o *AttachmentOptions) { o.TLS.PeerNames = []string{"other.example", "neighbour.example"} })
	s = named.Attachments()[0]
	ua = named
	if start, err := dial(&tls.Config{RootCAs: pool, ServerName: "sparkle.example", Certificates: []tls.Certificate{theirs}}); err != nil || start != "SIP/2.0 200 OK" {
		t.Errorf("a name that is configured got %q, %v", start, err)
	}
	if start, err := dial(&tls.Config{RootCAs: pool, ServerName: "sparkle.example"}); err == nil {
		t.Errorf("a peer without a certificate got %q", start)
	}
}

// A certificate of another name, or of nobody's, is no peer: the trunk stays down.
func TestTLSPeerIsVerified(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	ca.make("us", []string{"sparkle.example"})
	ca.make("other", []string{"other.example"})
	stranger.make("sbc", []string{"sbc.example"})
	for file, by := range map[string]*authority{"other": ca, "sbc": stranger} {
		p := by.listenTLS(file)
		o := AttachmentOptions{Name: "t", Mode: ModeTrunk, LocalAddr: "127.0.0.1", Domain: "carrier.example", Targets: []string{p.addr}}
		ca.options(p)(&o)
		ua, err := New(Options{Attachments: []AttachmentOptions{o}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		awaitState(t, ua, "down with a reason", func(s AttachmentState) bool { return s.State == "down" && s.LastError != "" })
		_ = ua.Close(t.Context())
	}
}

func TestTLSFilesAreNamed(t *testing.T) {
	_, err := New(Options{Attachments: []AttachmentOptions{{Name: "t", Mode: ModeTrunk, Transport: "tls", LocalAddr: "127.0.0.1", Domain: "x.example",
		Targets: []string{"127.0.0.1:5061"}, TLS: TLSOptions{CAFile: "/nowhere/ca.pem"}}}}, nil)
	if err == nil {
		t.Error("a CA file that is not there is no error")
	}
}
