package config

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"sparkle/sip"
)

// The example is the documentation of every key, so it is compared with the code.
func TestExampleIsTheDefaults(t *testing.T) {
	got, err := Parse(Example, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := Default(); got.DataDir != want.DataDir || !reflect.DeepEqual(normal(got), normal(want)) {
		t.Errorf("example.yaml differs from Default():\n got %+v\nwant %+v", got, want)
	}
	for f := range reflect.TypeFor[File]().Fields() {
		if !bytes.Contains(Example, []byte("\n"+f.Tag.Get("yaml")+":")) {
			t.Errorf("example.yaml lacks %s", f.Tag.Get("yaml"))
		}
	}
}

func normal(f File) File {
	if len(f.HTTP.Hosts) == 0 {
		f.HTTP.Hosts = nil
	}
	if len(f.Attachments) == 0 {
		f.Attachments = nil
	}
	if len(f.Inbound.DialIn)+len(f.Inbound.FactoryURIs) == 0 {
		f.Inbound.DialIn, f.Inbound.FactoryURIs = nil, nil
	}
	if len(f.Calls.Allow)+len(f.Calls.Deny) == 0 {
		f.Calls.Allow, f.Calls.Deny = nil, nil
	}
	return f
}

// commented takes the attachment out of the example's comments.
func commented(t *testing.T) []byte {
	t.Helper()
	_, tail, ok := bytes.Cut(Example, []byte("attachments: []\n"))
	if !ok {
		t.Fatal("example.yaml has no commented attachment")
	}
	return append([]byte("attachments:\n"), regexp.MustCompile(`(?m)^#`).ReplaceAll(tail, nil)...)
}

func TestCommentedAttachmentNamesEveryKeyWithItsDefault(t *testing.T) {
	text := commented(t)
	var raw struct {
		Attachments []map[string]any `yaml:"attachments"`
	}
	if err := yaml.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	auth := raw.Attachments[0]["auth"].(map[string]any)
	for _, c := range []struct {
		t    reflect.Type
		keys map[string]any
	}{{reflect.TypeFor[Attachment](), raw.Attachments[0]}, {reflect.TypeFor[Auth](), auth},
		{reflect.TypeFor[TLS](), raw.Attachments[0]["tls"].(map[string]any)},
		{reflect.TypeFor[Challenge](), raw.Attachments[0]["challenge"].(map[string]any)}} {
		for f := range c.t.Fields() {
			if _, ok := c.keys[f.Tag.Get("yaml")]; f.IsExported() && !ok {
				t.Errorf("the commented attachment lacks %s", f.Tag.Get("yaml"))
			}
		}
	}
	got, err := Parse(text, []string{"SPARKLE__ATTACHMENTS__0__AUTH__PASSWORD=x"})
	if err != nil {
		t.Fatal(err)
	}
	a, want := got.Attachments[0], DefaultAttachment("ue")
	if a.Mode != want.Mode || a.Expires != want.Expires || a.OptionsEvery != want.OptionsEvery ||
		a.NumberForm != want.NumberForm || a.Preconditions != want.Preconditions || a.VideoAVPF != want.VideoAVPF ||
		a.Transport != want.Transport || a.KeepAlive != want.KeepAlive || a.Failover != want.Failover ||
		!reflect.DeepEqual(a.FailoverOn, want.FailoverOn) || a.DSCP != want.DSCP || a.MaxCalls != want.MaxCalls || a.CPS != want.CPS ||
		a.OfferG711 != want.OfferG711 || a.OfferOpus != want.OfferOpus || len(a.Auth.Algorithms) != len(want.Auth.Algorithms) {
		t.Errorf("the commented attachment shows other defaults than the code:\n got %+v\nwant %+v", a, want)
	}
}

// A target is its host alone or a section; its place is its priority unless it says one.
func TestTargets(t *testing.T) {
	text := `attachments:
  - name: peering
    mode: trunk
    targets:
      - 192.0.2.1:5060
      - sip:192.0.2.2:5070;transport=udp
      - {host: sbc.example.net, transport: tcp, priority: 7, weight: 3, cps: 2.5, max_calls: 40}
    domain: example.net
    impu: tel:+15550100
    max_calls: 0
    cps: 0
`
	f, err := Parse([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := f.SIP("x").Attachments[0]
	want := []sip.Target{{Host: "192.0.2.1:5060"}, {Host: "192.0.2.2:5070", Transport: "udp", Priority: 1},
		{Host: "sbc.example.net", Transport: "tcp", Priority: 7, Weight: 3, CPS: 2.5, MaxCalls: 40}}
	if !reflect.DeepEqual(got.Peers, want) {
		t.Errorf("targets %+v\nwant    %+v", got.Peers, want)
	}
	if got.CPS >= 0 || got.MaxCalls >= 0 {
		t.Errorf("0 is no limit: cps %v, max_calls %d", got.CPS, got.MaxCalls)
	}
	if err := f.SIP("x").Validate(); err != nil {
		t.Error(err)
	}
}

// What an agreement begins with is beside what it leads to: TLS has the next port, here and there.
func TestSecurityAgreement(t *testing.T) {
	for _, tt := range []struct {
		keys, target          string
		transport, clear, got string
		port                  int
	}{
		{"security_agreement: tls, transport: tcp, local_port: 5060", "127.0.0.1:5060", "tls", "tcp", "127.0.0.1:5061", 5061},
		{"security_agreement: tls, transport: udp", "sip:127.0.0.1:5080;transport=udp", "tls", "udp", "127.0.0.1:5081", 0},
		{"security_agreement: tls", "pcscf.ims.test", "tls", "tcp", "pcscf.ims.test", 0},
		{"security_agreement: tls, transport: tls, local_port: 5061", "127.0.0.1:5061", "tls", "", "127.0.0.1:5061", 5061},
		{"security_agreement: 'off', local_port: 5060", "127.0.0.1:5060", "tcp", "", "127.0.0.1:5060", 5060},
	} {
		text := fmt.Sprintf("attachments:\n  - {name: a, mode: ue, targets: [%q], domain: ims.test, impi: a@ims.test, impu: 'sip:a@ims.test', auth: {password: x}, %s}\n", tt.target, tt.keys)
		f, err := Parse([]byte(text), nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.keys, err)
		}
		o := f.SIP("x")
		if err := o.Validate(); err != nil {
			t.Errorf("%s: %v", tt.keys, err)
		}
		if a := o.Attachments[0]; a.Transport != tt.transport || a.Clear != tt.clear || a.Peers[0].Host != tt.got || a.LocalPort != tt.port {
			t.Errorf("%s: %s, first %q, to %+v from %d", tt.keys, a.Transport, a.Clear, a.Peers, a.LocalPort)
		}
		if f.Attachments[0].Targets[0].Host == tt.got && tt.clear != "" && tt.target != tt.got {
			t.Errorf("%s: the file's own targets have changed", tt.keys)
		}
	}
}

// What the file says of NAT reaches those who describe media.
func TestNATPrefixes(t *testing.T) {
	f, err := Parse([]byte(ue("auth: {password: x}\n    latch: nat\n    nat_prefixes: [203.0.113.0/24, 198.51.100.0/24]")), nil)
	if err != nil {
		t.Fatal(err)
	}
	o := f.SIP("x")
	if a := o.Attachments[0]; a.Latch != sip.LatchNAT || len(a.NATPrefixes) != 2 || a.NATPrefixes[1].String() != "198.51.100.0/24" {
		t.Errorf("latch %s of %v", a.Latch, a.NATPrefixes)
	}
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	o.Attachments[0].NATPrefixes = nil
	if o.Validate() == nil {
		t.Error("latch nat without prefixes is valid")
	}
}

// Every fault is reported at once, each with its line and key.
func TestFaults(t *testing.T) {
	cert, key := certificate(t)
	for _, tt := range []struct {
		name, text string
		env        []string
		want       []string
	}{
		{"limits, targets and failover", strings.ReplaceAll(ue("cps: -1"), "targets: ['127.0.0.1:5060']",
			"targets:\n      - host: a.example\n        wait: 3\n      - {host: b.example, transport: sctp, weight: 70000, cps: -1}\n      - {host: c.example, transport: udp}\n    failover_on: [486]\n    dscp: 64\n    failover_timer: 1ms\n    tls: {cert_file: x}"), nil, []string{
			`line 5: unknown key "wait"`,
			`line 2: attachments[0].auth: neither`, `line 6: attachments[0].targets[1].transport: "sctp" is not one of udp, tcp, tls`, `line 6: attachments[0].targets[1].transport: "sctp": mode ue`, `attachments[0].targets[1].weight: 70000 is not from 0 to 65535`,
			`attachments[0].targets[1].cps: -1 is negative`,
			`line 7: attachments[0].targets[2].transport: "udp": mode ue has one transport, tcp`,
			`line 8: attachments[0].failover_on[0]: 486 is none of 500, 502, 503, 504`, `line 9: attachments[0].dscp: 64 is not from 0 to 63`,
			`line 10: attachments[0].failover_timer: 1ms is not from 500ms to 30s`, `line 11: attachments[0].tls: a certificate and its key go together`, `attachments[0].cps: -1 is negative`}},
		{"empty is fine", "", nil, nil},
		{"comments only", "# nothing\n", nil, nil},
		{"unknown key", "htp:\n  listen: x\n", nil, []string{`line 1: unknown key "htp"`}},
		{"unknown key inside", "http:\n  lisen: 127.0.0.1:1\n", nil, []string{`line 2: unknown key "lisen"`}},
		{"not YAML", "http: [\n", nil, []string{"line 1: did not find expected node content"}},
		{"two documents", "data_dir: a\n---\ndata_dir: b\n", nil, []string{"a second document"}},
		{"wrong types, all of them", "video:\n  fps: many\ncalls:\n  ring_timeout: soon\nmedia:\n  realtime: perhaps\n", nil, []string{
			`line 2: video.fps: many is not a number`, `line 4: calls.ring_timeout: soon is not a duration (30s, 5m, 1h)`, `line 6: media.realtime: perhaps is not a true or false`}},
		{"wrong values, all of them", "log:\n  level: loud\nhttp:\n  listen: nowhere\ncalls:\n  ring_timeout: 1s\n  calling_code: China\n  deny: [+1900, '900']\nvideo:\n  fps: 0\n  stall: 1s\n", nil, []string{
			`line 2: log.level: "loud" is not one of debug, info, warn, error`,
			`line 4: http.listen: "nowhere" is not host:port`,
			`line 6: calls.ring_timeout: 1s is not from 5s to 3m0s`,
			`line 7: calls.calling_code: "China" is not a country's calling code such as +86`,
			`line 8: calls.deny[1]: "900" is not the beginning of a number: + and 1 to 15 digits`,
			`line 10: video.fps: 0 is not from 1 to 30`,
			`line 11: video.stall: 1s is not from 3s to 5m0s`}},
		{"other address", "media:\n  other_ip: any\n", nil, []string{`line 2: media.other_ip: "any" is not a concrete IP address`}},
		{"one family", "media:\n  local_ip: 192.0.2.1\n  other_ip: 192.0.2.2\n", nil, []string{"line 3: media.other_ip: \"192.0.2.2\" is of the same IP family as media.local_ip"}},
		{"port range", "media:\n  port_min: 40000\n  port_max: 40001\n", nil, []string{"line 3: media.port_max: a video leg needs four ports"}},
		{"tls by half", "http:\n  tls_cert_file: a.pem\n", nil, []string{"line 2: http.tls_cert_file: a certificate and its key go together"}},
		{"attachment", "attachments:\n  - name: a b\n    mode: pbx\n    local_addr: 0.0.0.0\n    targets: [core]\n    domain: ''\n    impu: bob\n", nil, []string{
			`line 2: attachments[0].name: "a b" is not a name`,
			`line 3: attachments[0].mode: "pbx" is not one of ue, trunk`,
			`line 4: attachments[0].local_addr: "0.0.0.0" is not a concrete IP address`,
			`line 5: attachments[0].targets[0]: "core" is not host:port`,
			`line 6: attachments[0].domain:`,
			`line 7: attachments[0].impu: "bob" is neither`}},
		{"unknown key in an attachment", "attachments:\n  - name: a\n    tarets: []\n    auth:\n      pasword: x\n", nil, []string{
			`line 3: unknown key "tarets"`, `line 5: unknown key "pasword"`}},
		{"unknown key in one attachment, wrong type in the next, wrong value in the last",
			ue("auth: {password: x}\n    tarets: []") + strings.TrimPrefix(strings.ReplaceAll(ue("auth: {password: x}\n    max_calls: many"), "carrier", "b"), "attachments:\n") +
				strings.TrimPrefix(strings.ReplaceAll(ue("auth: {password: x}\n    cps: -1"), "carrier", "c"), "attachments:\n"), nil, []string{
				`unknown key "tarets"`, `attachments[1].max_calls: many is not a number`, `attachments[2].cps: -1 is negative`}},
		{"types on one line", "video: {enabled: perhaps, fps: 10}\n", nil, []string{`line 1: perhaps is not a true or false`}},
		{"latch nat without prefixes", ue("auth: {password: x}\n    latch: nat"), nil, []string{"attachments[0].nat_prefixes: is empty"}},
		{"prefixes without latch nat", ue("auth: {password: x}\n    latch: strict\n    nat_prefixes: [203.0.113.0/24]"), nil, []string{"attachments[0].nat_prefixes: goes with latch: nat, not strict"}},
		{"prefixes of nobody and everybody", ue("auth: {password: x}\n    latch: nat\n    nat_prefixes: [203.0.113.7, '2001:db8::/32', 0.0.0.0/0]"), nil, []string{
			`nat_prefixes[0]: "203.0.113.7" is not an address range`, `nat_prefixes[1]: 2001:db8::/32 cannot be reached`, `nat_prefixes[2]: 0.0.0.0/0 is everybody`}},
		{"latch of another kind", ue("auth: {password: x}\n    latch: open"), nil, []string{`attachments[0].latch: "open" is not one of off, strict, nat`}},
		{"latch nat", ue("auth: {password: x}\n    latch: nat\n    nat_prefixes: [203.0.113.0/24]"), nil, nil},
		{"names of certificates that nobody asks for", ue("auth: {password: x}\n    tls: {peer_names: [a.example]}"), nil, []string{"attachments[0].tls.peer_names: goes with ca_file"}},
		{"a security agreement of another kind", ue("auth: {password: x}\n    security_agreement: ipsec-3gpp"), nil, []string{`line 8: attachments[0].security_agreement: "ipsec-3gpp" is not one of off, tls`}},
		{"a security agreement as YAML's false", ue("auth: {password: x}\n    security_agreement: no"), nil, []string{`line 8: attachments[0].security_agreement: "no" is not one of off, tls`}},
		{"a security agreement without registering", ue("mode: trunk\n    security_agreement: tls"), nil, []string{"line 8: attachments[0].security_agreement: tls is agreed on by registering, which mode trunk does not"}},
		{"no port for TLS", strings.Replace(ue("auth: {password: x}\n    security_agreement: tls\n    local_port: 65535"), ":5060", ":65535", 1), nil, []string{
			"line 9: attachments[0].local_port: security_agreement has TLS on the next port", "line 3: attachments[0].targets[0]: security_agreement has TLS on the next port"}},
		{"a port for TLS itself", strings.Replace(ue("auth: {password: x}\n    security_agreement: tls\n    transport: tls\n    local_port: 65535"), ":5060", ":65535", 1), nil, nil},
		{"a target outside the agreement", strings.Replace(ue("auth: {password: x}\n    security_agreement: tls"), "'127.0.0.1:5060'", "'sip:127.0.0.1:5061;transport=tls'", 1), nil, []string{
			`line 3: attachments[0].targets[0].transport: "tls": mode ue has one transport, tcp`}},
		{"no proof", ue("auth: {}"), nil, []string{"attachments[0].auth: neither password nor k"}},
		{"bad key", ue("auth: {k: abc, opc: '" + hex32 + "'}"), nil, []string{"attachments[0].auth.k: is not 32 hex digits"}},
		{"an algorithm without its secret", ue("auth: {password: x, algorithms: [AKAv1-MD5, SHA-256, SHA-512-256]}"), nil, []string{"attachments[0].auth.algorithms[0]: AKAv1-MD5 needs k"}},
		{"another without its secret", ue("auth: {k: '" + hex32 + "', opc: '" + hex32 + "', algorithms: [AKAv2-MD5, MD5]}"), nil, []string{"attachments[0].auth.algorithms[1]: MD5 needs a password"}},
		{"a trunk's algorithm", ue("mode: trunk\n    auth: {password: x, algorithms: [MD4, AKAv1-MD5]}"), nil, []string{`attachments[0].auth.algorithms[0]: "MD4" is none of`, "attachments[0].auth.algorithms[1]: AKAv1-MD5 needs k"}},
		{"a challenge of nobody", ue("mode: trunk\n    challenge: {realm: r, algorithms: [MD5]}"), nil, []string{
			"line 8: attachments[0].challenge.username: is empty", "line 8: attachments[0].challenge.password: is empty"}},
		{"a challenge that no peer can answer", ue("mode: trunk\n    challenge:\n      username: 'a:b'\n      password: hunter2\n      realm: 'a\"b'\n      algorithms: [SHA-256, AKAv1-MD5, MD4, SHA-256]"), nil, []string{
			`line 9: attachments[0].challenge.username: "a:b": no colon may be in it`, `line 11: attachments[0].challenge.realm: "a\"b" cannot stand between quotes`,
			`line 12: attachments[0].challenge.algorithms[1]: "AKAv1-MD5" is none of SHA-512-256, SHA-256, MD5`, `algorithms[2]: "MD4" is none of`, `algorithms[3]: SHA-256 is named twice`}},
		{"a challenge of a ue", ue("auth: {password: x}\n    challenge: {username: u, password: p}"), nil, []string{"line 8: attachments[0].challenge: goes with mode trunk, not ue"}},
		{"a challenge of an as", ue("mode: as\n    challenge: {username: u, password: p}"), nil, []string{"line 8: attachments[0].challenge: goes with mode trunk, not as"}},
		{"a challenge without its file", ue("mode: trunk\n    challenge: {username: u, password_file: /does/not/exist}"), nil, []string{"line 8: attachments[0].challenge.password_file: open /does/not/exist"}},
		{"an unknown key in a challenge", ue("mode: trunk\n    challenge: {user: u}"), nil, []string{`line 8: unknown key "user"`}},
		{"a challenge", ue("mode: trunk\n    challenge: {username: u, password: p, realm: r, algorithms: [MD5, SHA-512-256, SHA-256]}"), nil, nil},
		{"k alone", ue("auth: {k: '" + hex32 + "'}"), nil, []string{"k needs either op or opc"}},
		{"files that are not there", "http: {tls_cert_file: /no/cert, tls_key_file: /no/key}\n" + ue("auth: {k_file: /no/k, opc_file: /no/opc}\n    tls:\n      cert_file: /no/a\n      key_file: /no/b\n      ca_file: /no/c"), nil, []string{
			"line 1: http.tls_cert_file: open /no/cert", "line 1: http.tls_key_file: open /no/key",
			"line 8: attachments[0].auth.k_file: open /no/k", "line 8: attachments[0].auth.opc_file: open /no/opc",
			"line 10: attachments[0].tls.cert_file: open /no/a", "line 11: attachments[0].tls.key_file: open /no/b", "line 12: attachments[0].tls.ca_file: open /no/c"}},
		{"files that are something else", ue("auth: {password: x}\n    tls: {cert_file: " + cert + ", key_file: " + cert + ", ca_file: " + key + "}"), nil, []string{
			"line 8: attachments[0].tls.cert_file: " + cert + " with " + cert + ": tls:", "line 8: attachments[0].tls.ca_file: " + key + " holds no certificate"}},
		{"files that are right", "http: {tls_cert_file: " + cert + ", tls_key_file: " + key + "}\n" + ue("auth: {password: x}\n    tls: {cert_file: "+cert+", key_file: "+key+", ca_file: "+cert+"}"), nil, nil},
		{"k_file alone", ue("auth: {k_file: " + cert + "}"), nil, []string{"k needs either op or opc", "attachments[0].auth.k: is not 32 hex digits"}},
		{"missing secret file", ue("auth: {password_file: /does/not/exist}"), nil, []string{"attachments[0].auth.password_file: open /does/not/exist"}},
		{"same name twice", ue("auth: {password: x}") + strings.TrimPrefix(ue("auth: {password: x}"), "attachments:\n"), nil, []string{`attachments[1].name: "carrier" is another attachment's`}},
		{"environment: unknown", "", []string{"SPARKLE__HTTP__PORT=1"}, []string{`SPARKLE__HTTP__PORT: unknown key "port"`}},
		{"environment: wrong type", "", []string{"SPARKLE__VIDEO__FPS=many"}, []string{`SPARKLE__VIDEO__FPS: not a number`}},
		{"environment: no such entry", "", []string{"SPARKLE__ATTACHMENTS__0__NAME=x"}, []string{`no entry "0": there are 0`}},
		{"environment: a section", "", []string{"SPARKLE__HTTP=x"}, []string{"is a section"}},
		{"environment: others are not ours", "", []string{"SPARKLE_ADMIN_PASSWORD=x", "HOME=/"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.text), tt.env)
			if tt.want == nil {
				if err != nil {
					t.Fatalf("unexpected: %v", err)
				}
				return
			}
			var faults Faults
			if !errors.As(err, &faults) {
				t.Fatalf("error %v is no Faults", err)
			}
			for _, w := range tt.want {
				if !strings.Contains(faults.Error(), w) {
					t.Errorf("missing %q in:\n%s", w, faults.Error())
				}
			}
			if n := len(faults); tt.name != "attachment" && n > len(tt.want) && tt.name != "unknown key in an attachment" {
				t.Errorf("%d faults, want %d:\n%s", n, len(tt.want), faults.Error())
			}
		})
	}
}

// A plan may be made before there are secrets and certificates: what is wrong with those files is
// told apart, and the configuration is as it will be. What is wrong with itself is an error all
// the same.
func TestPlan(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sparkle.yaml")
	plan := func(text string) (File, Faults, error) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Plan(file, nil)
	}
	text := ue("auth: {k_file: /no/k, opc_file: /no/opc}\n    tls: {ca_file: /no/c}")
	f, unread, err := plan(text)
	if err != nil || len(unread) != 3 {
		t.Errorf("%v, unread %v", err, unread)
	}
	if err := f.SIP("x").Validate(); err != nil {
		t.Error(err)
	}
	if _, unread, err = plan(text + "    cps: -1\n"); unread != nil || !strings.Contains(fmt.Sprint(err), "cps: -1") || !strings.Contains(fmt.Sprint(err), "/no/k") {
		t.Errorf("%v, unread %v", err, unread)
	}
	if f, unread, err = plan(ue("auth: {password: x}")); err != nil || unread != nil || f.Attachments[0].Auth.Password != "x" {
		t.Errorf("%v, unread %v", err, unread)
	}
	if _, _, err = Plan(file+".not", nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// certificate writes one that is signed by itself, and its key.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, b := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

const hex32 = "00112233445566778899aabbccddeeff"

func ue(more string) string {
	return "attachments:\n  - name: carrier\n    targets: ['127.0.0.1:5060']\n    domain: ims.test\n    impi: a@ims.test\n    impu: sip:+15550100@ims.test\n    " + more + "\n"
}

func TestEnvironmentAndSecretFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Parse([]byte(ue("auth: {password_file: "+file+"}")), []string{
		"SPARKLE__HTTP__LISTEN=127.0.0.1:0", "SPARKLE__VIDEO__ENABLED=false", "SPARKLE__CALLS__RING_TIMEOUT=30s",
		"SPARKLE__ATTACHMENTS__0__TARGETS=['127.0.0.1:5070', '127.0.0.1:5080']",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.HTTP.Listen != "127.0.0.1:0" || c.Video.Enabled || c.Calls.RingTimeout.Seconds() != 30 ||
		len(c.Attachments[0].Targets) != 2 || c.Attachments[0].Auth.Password != "s3cret" {
		t.Errorf("overrides did not take: %+v", c)
	}
	out, err := Print(c)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out, []byte("s3cret")) {
		t.Errorf("a secret is printed:\n%s", out)
	}
	inline, err := Parse([]byte(ue("auth: {password: s3cret}")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := Print(inline); bytes.Contains(text, []byte("s3cret")) || !bytes.Contains(text, []byte(Redacted)) {
		t.Errorf("a secret is printed:\n%s", text)
	}
	if c.Attachments[0].Auth.Password != "s3cret" {
		t.Error("printing took the secret away from its owner")
	}
	if bytes.Contains(out, []byte(Redacted)) {
		t.Errorf("a secret that is in a file is printed as if it were not:\n%s", out)
	}
	if c, err = Parse(out, nil); err != nil || c.Calls.RingTimeout.Seconds() != 30 {
		t.Errorf("what is printed does not load: %v", err)
	}
}

// What a peer is to prove is a secret as what we prove is.
func TestChallengeIsRedacted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for challenge, want := range map[string]string{"password: s3cret": "password: '" + Redacted + "'", "password_file: " + file: "password_file: " + file} {
		c, err := Parse([]byte(ue("mode: trunk\n    challenge: {username: their-sbc, "+challenge+"}")), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.SIP("x").Attachments[0].Challenge; got.Password != "s3cret" || got.Username != "their-sbc" {
			t.Errorf("%s: %+v", challenge, got)
		}
		out, err := Print(c)
		if err != nil || bytes.Contains(out, []byte("s3cret")) || !bytes.Contains(out, []byte("username: their-sbc")) || !bytes.Contains(out, []byte(want)) {
			t.Errorf("%s: %v\n%s", challenge, err, out)
		}
		if _, err := Parse(out, nil); err != nil {
			t.Errorf("what is printed does not load: %v", err)
		}
	}
	c, err := Parse([]byte(ue("mode: trunk\n    challenge: {username: u}")), []string{"SPARKLE__ATTACHMENTS__0__CHALLENGE__PASSWORD=12345"})
	if err != nil || c.Attachments[0].Challenge.Password != "12345" {
		t.Errorf("from the environment: %v", err)
	}
}

// No fault may show a secret, whatever is wrong with it.
func TestFaultsDoNotShowSecrets(t *testing.T) {
	_, err := Parse([]byte(ue("auth: {k: hunter2, op: hunter2}")), []string{"SPARKLE__ATTACHMENTS__0__AUTH__OPC=hunter2"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Example)
	f.Add([]byte(ue("auth: {password: x}")))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := Parse(text, nil); err != nil && err.Error() == "" {
			t.Error("an error without a text")
		}
	})
}

// media.io_uring: false is sockets without it.
func TestIOUringIsASwitch(t *testing.T) {
	for text, plain := range map[string]bool{"": false, "media: {io_uring: true}\n": false, "media: {io_uring: false}\n": true} {
		f, err := Parse([]byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Engine().PlainSockets; got != plain {
			t.Errorf("%q: plain sockets %v, want %v", text, got, plain)
		}
	}
}

// What passes the check starts: an attachment that gives one secret and names no algorithm.
func TestOneSecretIsEnough(t *testing.T) {
	for _, auth := range []string{"password: x", "k: '" + hex32 + "', opc: '" + hex32 + "'"} {
		f, err := Parse([]byte(ue("auth: {"+auth+"}")), []string{"SPARKLE__DATA_DIR=" + t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		ua, err := sip.New(f.SIP("x"), nil)
		if err != nil {
			t.Errorf("%s: %v", auth, err)
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nobody is there to de-register from
		_ = ua.Close(ctx)
	}
}

// Every key of an attachment changes what the user agent is told, and an empty or zero value is
// not the default where it means none.
func TestEveryKeyOfAnAttachmentCounts(t *testing.T) {
	cert := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(cert, []byte(hex32), 0o600); err != nil {
		t.Fatal(err)
	}
	chain, key := certificate(t)
	other := map[string]string{ // another value of each key than ue has, or is the default
		"name": "other", "mode": "trunk", "transport": "udp", "local_addr": "127.0.0.2", "local_port": "5070", "targets": "['127.0.0.1:5061']",
		"dns": "['127.0.0.1:53']", "trust_peers": "[192.0.2.0/24]", "domain": "other.test", "peer_domain": "their.test", "impi": "b@ims.test",
		"impu": "tel:+15550101", "expires": "1h", "regstate": "reg", "orig_route": "user", "trusted": "false", "hide_caller": "true",
		"reg_event": "'off'", "security_agreement": "tls", "options_interval": "0s", "keep_alive": "0s", "failover_timer": "1s", "failover_on": "[]", "follow_redirect": "true",
		"dscp": "24", "number_form": "sip", "preconditions": "'off'", "latch": "strict", "nat_prefixes": "[203.0.113.0/24]\n    latch: nat",
		"video_avpf": "avp", "offer_g711": "true", "offer_opus": "true", "pani": "IEEE-802.3", "session_expires": "10m", "min_se": "2m",
		"max_duration": "0s", "isfocus": "true", "max_calls": "0", "cps": "0", "peer_rate": "20", "invite_rate": "2",
		"auth.algorithms": "[MD5]", "auth.password": "y", "auth.password_file": cert, "auth.k": hex32 + ", opc: " + hex32, "auth.k_file": cert + ", opc: " + hex32,
		"auth.op": hex32 + ", k: " + hex32, "auth.op_file": cert + ", k: " + hex32, "auth.opc": hex32 + ", k: " + hex32, "auth.opc_file": cert + ", k: " + hex32,
		"auth.sqn_file": "/tmp/sqn", "auth.realm": "r", "auth.bare_first": "true", "auth.outbound": "true",
		"challenge.username": "v", "challenge.password": "q", "challenge.password_file": cert, "challenge.realm": "r", "challenge.algorithms": "[MD5]",
		"tls.cert_file": chain + ", key_file: " + key, "tls.key_file": key + ", cert_file: " + chain, "tls.ca_file": chain, "tls.server_name": "a", "tls.peer_names": "[a], ca_file: " + chain,
	}
	options := func(lines map[string]string) sip.AttachmentOptions {
		t.Helper()
		text := "attachments:\n  - "
		for k, v := range lines {
			text += k + ": " + v + "\n    "
		}
		f, err := Parse([]byte(text), nil)
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		return f.SIP("x").Attachments[0]
	}
	base := func() map[string]string {
		return map[string]string{"name": "carrier", "targets": "['127.0.0.1:5060']", "domain": "ims.test", "impi": "a@ims.test",
			"impu": "sip:+15550100@ims.test", "auth": "{password: x}"}
	}
	usual := options(base())
	challenge := func(key, value string) string {
		keys := map[string]string{"username": "u", "password": "p"}
		if key == "password_file" {
			delete(keys, "password")
		}
		if key != "" {
			keys[key] = value
		}
		var b strings.Builder
		for k, v := range keys {
			b.WriteString(k + ": " + v + ", ")
		}
		return "{" + strings.TrimSuffix(b.String(), ", ") + "}"
	}
	lines := base()
	lines["mode"], lines["challenge"] = "trunk", challenge("", "")
	asking := options(lines)
	check := func(section string, typ reflect.Type) {
		for f := range typ.Fields() {
			if !f.IsExported() {
				continue
			}
			key := f.Tag.Get("yaml")
			full := section + key
			value, ok := other[full]
			if !ok {
				if key != "auth" && key != "tls" && key != "challenge" {
					t.Errorf("%s has no row here: what does it change?", full)
				}
				continue
			}
			lines := base()
			switch section {
			case "auth.":
				if key != "password" && key != "password_file" {
					value += ", password: x"
				}
				lines["auth"] = "{" + key + ": " + value + "}"
			case "tls.":
				lines["tls"] = "{" + key + ": " + value + "}"
			case "challenge.":
				lines["mode"], lines["challenge"] = "trunk", challenge(key, value)
			default:
				lines[key] = value
			}
			than := usual
			if section == "challenge." {
				than = asking
			}
			if reflect.DeepEqual(options(lines), than) {
				t.Errorf("%s: %s changes nothing", full, value)
			}
		}
	}
	check("", reflect.TypeFor[Attachment]())
	check("auth.", reflect.TypeFor[Auth]())
	check("tls.", reflect.TypeFor[TLS]())
	check("challenge.", reflect.TypeFor[Challenge]())
	trunk := base()
	trunk["mode"] = "trunk"
	if o := options(trunk); o.NumberForm != "sip" || !o.OfferG711 || usual.OfferG711 || usual.NumberForm != "tel" {
		t.Errorf("defaults by mode: trunk %s, G.711 %v", o.NumberForm, o.OfferG711)
	}
}
