package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sparkle/config"
)

// peer answers OPTIONS on UDP with a status; 0: it only listens.
func peer(t *testing.T, status int) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if status == 0 || !strings.HasPrefix(string(buf[:n]), "OPTIONS sip:") {
				continue
			}
			fmt.Fprintf(writerTo{c, from}, "SIP/2.0 %d Whatever\r\nContent-Length: 0\r\n\r\n", status)
		}
	}()
	return c.LocalAddr().String()
}

type writerTo struct {
	c  net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.c.WriteTo(b, w.to) }

// find returns the findings of one check as "level what".
func find(fs []Finding, check string) string {
	var out []string
	for _, f := range fs {
		if f.Check == check {
			out = append(out, string(f.Level)+" "+f.What)
		}
		if f.Level != OK && f.Do == "" && !strings.Contains(f.What, "not known") {
			out = append(out, f.Check+" does not say what to do")
		}
	}
	return strings.Join(out, "; ")
}

func parse(t *testing.T, format string, args ...any) config.File {
	t.Helper()
	cfg, err := config.Parse(fmt.Appendf(nil, format, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

const trunk = `
data_dir: %q
http: {listen: %q}
media: {port_min: %d, port_max: %d}
attachments:
  - {name: t, mode: trunk, transport: udp, local_addr: %s, targets: [%q], domain: example.net, impu: "tel:+15550100", max_calls: 200}
`

func TestExamine(t *testing.T) {
	dir := t.TempDir()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() })
	go func() { // somebody else's web server
		for {
			c, err := busy.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for _, tt := range []struct {
		name, http, local, target string
		lo, hi                    int
		want                      map[string]string
	}{
		{"well", "127.0.0.1:0", "127.0.0.1", peer(t, 200), 40000, 41999, map[string]string{
			"options t": "ok udp ", "port http": "ok ", "port t": "ok udp 127.0.0.1:0 can be bound", "rtp ports": "ok 40000 to 41999: enough for 500 legs", "data_dir": "ok "}},
		{"a method that the peer does not know is an answer", "127.0.0.1:0", "127.0.0.1", peer(t, 405), 0, 0, map[string]string{
			"options t": "ok udp ", "rtp ports": "ok any free one"}},
		{"refused and too few ports", "127.0.0.1:0", "127.0.0.1", peer(t, 403), 40000, 40039, map[string]string{
			"options t": "warn udp ", "rtp ports": "warn 40000 to 40039 are enough for 10 legs"}},
		{"silent", "127.0.0.1:0", "127.0.0.1", peer(t, 0), 0, 0, map[string]string{"options t": "fail udp "}},
		{"port taken", busy.Addr().String(), "127.0.0.1", peer(t, 200), 0, 0, map[string]string{"port http": "fail listen tcp", "daemon": "ok no daemon"}},
		{"not our address", "127.0.0.1:0", "192.0.2.1", "192.0.2.7:5060", 0, 0, map[string]string{
			"port t": "fail 192.0.2.1 is no address of this machine", "options t": "fail udp 192.0.2.7:5060"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fs := Examine(t.Context(), parse(t, trunk, dir, tt.http, tt.lo, tt.hi, tt.local, tt.target))
			for check, want := range tt.want {
				if got := find(fs, check); !strings.HasPrefix(got, want) || strings.Contains(got, "does not say") {
					t.Errorf("%s: %q, want %q", check, got, want)
				}
			}
		})
	}
}

func TestDataDir(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: "fail cannot be written", filepath.Join(t.TempDir(), "new", "er"): "ok ", "/" + strings.Repeat("d/", 60): "fail 2"} {
		r := &report{}
		r.dataDir(config.File{DataDir: path})
		if got := find(r.findings, "data_dir"); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestCodecs(t *testing.T) {
	r := &report{}
	r.codecs(config.Default())
	for _, c := range []string{"codec AMR-WB", "codec AMR", "codec Opus", "codec G.722", "codec H.264"} {
		if got := find(r.findings, c); !strings.HasPrefix(got, "ok encodes") && !strings.Contains(got, "cgo") {
			t.Errorf("%s: %q", c, got)
		}
	}
}

func TestCertificates(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		from, until time.Duration
		want        string
	}{
		"well":         {-time.Hour, 90 * 24 * time.Hour, "ok valid until 2027-02-23"},
		"soon":         {-time.Hour, 10 * 24 * time.Hour, "warn expires on 2026-12-05, in 10 days"},
		"expired":      {-2 * time.Hour, -time.Hour, "fail expired on 2026-11-25"},
		"not yet":      {48 * time.Hour, 72 * time.Hour, "fail not valid before 2026-11-27"},
		"no such file": {want: "fail open"},
	} {
		file := filepath.Join(t.TempDir(), "cert.pem")
		if tt.until != 0 {
			c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(tt.from), NotAfter: now.Add(tt.until)}
			der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := &report{}
		r.certificates(config.File{HTTP: config.HTTP{TLSCertFile: file}}, now)
		if got := find(r.findings, "certificate http"); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// One socket is one attachment's, whichever of its transports it is for; and the API does not
// belong where the carrier is.
func TestAttachmentsDoNotShare(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free, and its next
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	const two = `
data_dir: %q
http: {listen: %q}
attachments:
  - {name: one, mode: trunk, transport: udp, local_addr: %[3]s, local_port: %[4]d, targets: [{host: "192.0.2.7:5060"}, {host: "192.0.2.8:5060", transport: tcp}], domain: example.net, impu: "tel:+15550100"}
  - {name: two, mode: trunk, transport: tcp, local_addr: %[3]s, local_port: %[4]d, targets: ["192.0.2.9:5060"], domain: example.net, impu: "tel:+15550100"}
`
	r := &report{}
	r.ports(parse(t, two, t.TempDir(), "127.0.0.1:0", "127.0.0.1", port), false)
	if got, want := find(r.findings, "port one"), fmt.Sprintf("ok udp 127.0.0.1:%d can be bound; ok tcp 127.0.0.1:%[1]d can be bound", port); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := find(r.findings, "port two"); !strings.HasPrefix(got, "fail tcp") || !strings.HasSuffix(got, "is attachment one's too") {
		t.Error(got)
	}
	for listen, want := range map[string]string{"0.0.0.0:8080": "warn http.listen 0.0.0.0:8080: every address", ":8080": "warn http.listen :8080: every",
		"192.0.2.1:8080": "warn http.listen 192.0.2.1:8080 is the address of attachment one; warn", "192.0.2.2:8080": "", "127.0.0.1:8080": ""} {
		r := &report{}
		r.management(parse(t, two, "x", listen, "192.0.2.1", 5070))
		if got := find(r.findings, "http and the carrier"); want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", listen, got, want)
		}
	}
}

// Where a security agreement begins in clear, both sockets must be free, and the peer is asked where
// everything goes afterwards: at the port of TLS.
func TestSecurityAgreement(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port // nobody listens there any more
	l.Close()
	cfg := parse(t, `
data_dir: %q
attachments:
  - {name: u, mode: ue, transport: udp, security_agreement: tls, local_addr: 127.0.0.1, targets: ["127.0.0.1:%d"], domain: ims.example, impi: a@ims.example, impu: "sip:a@ims.example", auth: {password: x}}
`, t.TempDir(), port-1)
	r := &report{}
	r.ports(cfg, false)
	if got, want := find(r.findings, "port u"), "ok tls 127.0.0.1:0 can be bound; ok udp 127.0.0.1:0 can be bound"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r = &report{}
	r.attachment(t.Context(), cfg.Attachments[0])
	if got, want := find(r.findings, "options u"), fmt.Sprintf("fail tls 127.0.0.1:%d: ", port); !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Two weeks before a certificate ends its daemon begins to say so.
func TestCertificatesAreWatched(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, left time.Duration) string {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(left)}
		der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cfg := config.File{HTTP: config.HTTP{TLSCertFile: file("http", 20*24*time.Hour)}, Attachments: []config.Attachment{
		{Name: "soon", TLS: config.TLS{CertFile: file("soon", 10*24*time.Hour)}}, {Name: "none", TLS: config.TLS{CertFile: filepath.Join(dir, "none")}}}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // once
	var log strings.Builder
	WatchCertificates(ctx, cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if s := log.String(); strings.Count(s, "\n") != 2 || !strings.Contains(s, `level=WARN msg="certificate expires soon" of=soon`) || !strings.Contains(s, `level=ERROR msg="certificate cannot be read" of=none`) {
		t.Error(s)
	}
	if first := CertificateExpiry(cfg); time.Until(first).Round(time.Hour) != 10*24*time.Hour {
		t.Errorf("the first expires %v", first)
	}
	if first := CertificateExpiry(config.File{}); !first.IsZero() {
		t.Errorf("none expires %v", first)
	}
}

func TestWorstAndText(t *testing.T) {
	fs := []Finding{{"a", OK, "is well", ""}, {"b", Warn, "is odd", "look"}, {"c", Fail, "is broken", "mend"}}
	if Worst(fs[:1]) != OK || Worst(fs[:2]) != Warn || Worst(fs) != Fail {
		t.Error("the worst level is not the worst")
	}
	var b strings.Builder
	if err := WriteText(&b, fs); err != nil || !strings.Contains(b.String(), "-> mend\n1 ok, 1 to look at, 1 wrong\n") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// A peer that never answers costs the time that it has, and no more.
func TestSilenceIsBounded(t *testing.T) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	r := &report{}
	r.attachment(ctx, parse(t, trunk, "/x", "127.0.0.1:0", 0, 0, "127.0.0.1", peer(t, 0)).Attachments[0])
	if took := time.Since(start); took > 2*time.Second || !strings.HasPrefix(find(r.findings, "options t"), "fail") {
		t.Errorf("took %v: %+v", took, r.findings)
	}
}

// Every address that media is to be received at must be one of this machine.
func TestMediaAddresses(t *testing.T) {
	at := func(ip string) []config.Attachment { return []config.Attachment{{Name: "t", LocalAddr: ip}} }
	for _, tt := range []struct {
		cfg  config.File
		want string
	}{
		{config.File{}, "ok "},
		{config.File{Attachments: at("127.0.0.1"), Media: config.Media{OtherIP: "::1"}}, "ok "},
		{config.File{Attachments: at("127.0.0.1"), Media: config.Media{OtherIP: "2001:db8::1"}}, "fail "},
		{config.File{Attachments: at("127.0.0.1"), Media: config.Media{LocalIP: "192.0.2.1"}}, "fail "},
		{config.File{Attachments: at("192.0.2.1"), Media: config.Media{LocalIP: "127.0.0.1"}}, "ok "},
	} {
		r := &report{}
		r.rtpPorts(tt.cfg)
		if got := find(r.findings, "rtp ports"); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%+v: %q, want %q", tt.cfg.Media, got, tt.want)
		}
	}
}
