package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
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
