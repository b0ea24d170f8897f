package doctor

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"sparkle/config"
	"sparkle/sip/resolve"
)

// attachment looks its targets up and asks each address with OPTIONS, over TLS where a security
// agreement leads there.
func (r *report) attachment(ctx context.Context, a config.Attachment) {
	a, _ = a.Sealed()
	for _, t := range a.Targets {
		for _, e := range r.lookUp(ctx, a, t) {
			r.options(ctx, a, t, e)
		}
	}
}

// answerIn is how long a name server and a peer have.
const answerIn = 4 * time.Second

func (r *report) lookUp(ctx context.Context, a config.Attachment, t config.Target) []resolve.Endpoint {
	check := "dns " + a.Name
	host, port, err := net.SplitHostPort(t.Host)
	if err != nil {
		host, port = strings.Trim(t.Host, "[]"), "0"
	}
	n, _ := strconv.Atoi(port) // checked on load
	supported := []string{a.Transport, "udp", "tcp"}
	if a.Mode == "ue" {
		t.Transport, supported = a.Transport, []string{a.Transport}
	}
	q := resolve.Query{Host: host, Port: n, Transport: t.Transport, Supported: supported}
	if host == "localhost" {
		q.Host = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(q.Host); err == nil {
		ans, err := resolve.Literal(q)
		if err != nil {
			r.fail(check, "correct targets", "%s: %v", t.Host, err)
		}
		return ans.Endpoints
	}
	family := 6
	if ip, err := netip.ParseAddr(a.LocalAddr); err == nil && ip.Is4() {
		family = 4
	}
	res, err := resolve.New(a.DNS, family)
	if err != nil {
		r.fail(check, "set dns of the attachment, or /etc/resolv.conf", "%v", err)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	ans, err := res.Lookup(ctx, time.Now(), q)
	if err != nil || len(ans.Endpoints) == 0 {
		r.fail(check, "ask the carrier for the name and its name servers, or name an address", "%s: no address by NAPTR, SRV, A or AAAA: %v", t.Host, err)
		return nil
	}
	var found []string
	for _, e := range ans.Endpoints {
		found = append(found, e.Transport+" "+e.Addr.String())
	}
	r.ok(check, "%s is %s, for %v", t.Host, strings.Join(found, ", "), time.Until(ans.Until).Round(time.Second))
	return ans.Endpoints
}

// options sends one OPTIONS from a port of its own, as the attachment would.
func (r *report) options(ctx context.Context, a config.Attachment, t config.Target, e resolve.Endpoint) {
	check := "options " + a.Name
	transport := e.Transport
	if transport == "" {
		transport = a.Transport
	}
	where := transport + " " + e.Addr.String()
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	start := time.Now()
	answer, cert, err := ask(ctx, a, transport, t.Host, e.Addr.String())
	rtt := time.Since(start).Round(100 * time.Microsecond)
	if cert != nil {
		r.expiry("certificate of "+e.Addr.Addr().String(), cert, time.Now())
	}
	switch {
	case err != nil && a.Mode == "ue" && errors.Is(err, errSilent):
		r.warn(check, "a P-CSCF may answer only who is registered: see `sparkle attachments` once the daemon runs", "%s takes the connection and does not answer", where)
	case err != nil:
		r.fail(check, "check address, port, transport, routes and firewalls, and that the carrier knows our address "+a.LocalAddr, "%s: %v", where, err)
	case answer == 503:
		r.warn(check, "ask the carrier: the peer is overloaded or being drained", "%s answers 503 in %v", where, rtt)
	case answer == 403:
		r.warn(check, "ask the carrier to let our address "+a.LocalAddr+" in", "%s answers 403 in %v", where, rtt)
	default:
		r.ok(check, "%s answers %d in %v", where, answer, rtt)
	}
}

// errSilent: there is somebody, who says nothing.
var errSilent = errors.New("no answer")

// ask returns the status that answers an OPTIONS.
func ask(ctx context.Context, a config.Attachment, transport, name, to string) (status int, cert *x509.Certificate, err error) {
	deadline, _ := ctx.Deadline()
	local := net.ParseIP(a.LocalAddr)
	network := "tcp"
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: local}}
	if transport == "udp" {
		network, d.LocalAddr = "udp", &net.UDPAddr{IP: local}
	}
	c, err := d.DialContext(ctx, network, to)
	if err != nil {
		return 0, nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return 0, nil, err
	}
	if transport == "tls" {
		conf, err := tlsConfig(a, name)
		if err != nil {
			return 0, nil, err
		}
		s := tls.Client(c, conf)
		if err := s.HandshakeContext(ctx); err != nil {
			return 0, nil, fmt.Errorf("TLS: %w", err)
		}
		if peers := s.ConnectionState().PeerCertificates; len(peers) > 0 {
			cert = peers[0]
		}
		c = s
	}
	id := rand.Text()
	identity := a.IMPU
	if identity == "" {
		identity = "sip:" + a.Domain
	}
	msg := fmt.Sprintf("OPTIONS sip:%s SIP/2.0\r\nVia: SIP/2.0/%s %s;branch=z9hG4bK%s;rport\r\nMax-Forwards: 70\r\n"+
		"From: <%s>;tag=%s\r\nTo: <sip:%s>\r\nCall-ID: %s@%s\r\nCSeq: 1 OPTIONS\r\nAccept: application/sdp\r\nUser-Agent: Sparkle doctor\r\nContent-Length: 0\r\n\r\n",
		to, strings.ToUpper(transport), c.LocalAddr(), id, identity, id[:8], to, id, local)
	in := bufio.NewReaderSize(c, 64<<10)
	for try := range 3 { // UDP loses things
		if transport == "udp" {
			wait := time.Now().Add(time.Second << try / 2)
			if wait.After(deadline) {
				wait = deadline
			}
			_ = c.SetReadDeadline(wait) // on an open socket it cannot fail
		} else if try > 0 {
			break
		}
		if _, err := c.Write([]byte(msg)); err != nil {
			return 0, cert, err
		}
		line, err := in.ReadString('\n')
		if rest, ok := strings.CutPrefix(line, "SIP/2.0 "); ok && err == nil && len(rest) >= 3 {
			if status, err := strconv.Atoi(rest[:3]); err == nil {
				return status, cert, nil
			}
		}
		var timeout net.Error
		if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
			return 0, cert, err
		}
	}
	return 0, cert, errSilent
}

func tlsConfig(a config.Attachment, target string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.TLS.ServerName}
	if conf.ServerName == "" {
		if conf.ServerName = target; strings.Contains(target, ":") {
			if host, _, err := net.SplitHostPort(target); err == nil {
				conf.ServerName = host
			}
		}
	}
	if a.TLS.CAFile != "" {
		text, err := os.ReadFile(a.TLS.CAFile)
		if err != nil {
			return nil, err
		}
		if conf.RootCAs = x509.NewCertPool(); !conf.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate", a.TLS.CAFile)
		}
	}
	if a.TLS.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(a.TLS.CertFile, a.TLS.KeyFile)
		if err != nil {
			return nil, err
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}
