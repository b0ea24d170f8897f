package lab

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sparkle/sip/aka"
)

// sipp runs a scenario against the core and fails the test with SIPp's own words.
func sipp(t *testing.T, c *Core, scenario string, args ...string) {
	t.Helper()
	bin, err := exec.LookPath("sipp")
	if err != nil {
		t.Skip("NOT RUN: sipp is not installed (apt package sip-tester); the lab then has no second opinion")
	}
	file, err := filepath.Abs(filepath.Join("testdata", "sipp", scenario))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	all := append([]string{c.Addr().String(), "-sf", file, "-i", "127.0.0.1", "-p", spare(t),
		"-timeout", "30s", "-timeout_error", "-nostdin", "-trace_err", "-error_file", filepath.Join(dir, "errors")}, args...)
	cmd := exec.CommandContext(testContextLong(t), bin, all...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TERM=dumb")
	if out, err := cmd.CombinedOutput(); err != nil {
		said, _ := os.ReadFile(filepath.Join(dir, "errors"))
		t.Fatalf("sipp: %v\n%s\n%s", err, tail(said), tail(out))
	}
}

func tail(b []byte) []byte { return b[max(0, len(b)-3000):] }

// spare is a port for SIPp: not told one, it falls back to the well-known port.
func spare(t *testing.T) string {
	t.Helper()
	port, err := SparePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(port)
}

func TestSIPpCallsAHandset(t *testing.T) {
	for _, transport := range []string{"u1", "t1"} {
		t.Run(transport, func(t *testing.T) {
			c := startCore(t, CoreOptions{TrunkPeers: []string{"127.0.0.1"}})
			h := addHandset(t, c, HandsetOptions{Number: "+8613800138001", MaxCalls: 100})
			const calls = 20
			sipp(t, c, "uac.xml", "-t", transport, "-s", h.Number(), "-m", fmt.Sprint(calls), "-r", "50")
			got := h.Calls()
			if len(got) != calls {
				t.Errorf("%d calls at the handset, want %d", len(got), calls)
			}
			for _, k := range got {
				if k.State != Ended || k.By != ByCaller || k.ACKs == 0 || k.Agreed.Audio.Codec != "AMR-WB" {
					t.Errorf("call %s is %s by %q, %d ACKs: %v", k.CallID, k.State, k.By, k.ACKs, k.Ladder)
				}
			}
		})
	}
}

func TestSIPpRegisters(t *testing.T) {
	k, op := []byte("0123456789abcdef"), []byte("operator variant")
	opc, err := aka.OPc(k, op)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		auth Auth
		line string
	}{
		{"MD5", Auth{Password: "geheim"}, "[authentication username=15550100@%s password=geheim]"},
		{"AKAv1-MD5", Auth{Algorithm: AKAv1, K: k, OPc: opc[:]},
			"[authentication username=15550100@%s aka_K=0x" + hex.EncodeToString(k) + " aka_OP=0x" + hex.EncodeToString(op) + " aka_AMF=0x8000]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startCore(t, CoreOptions{})
			if err := c.AddSubscriber("15550100@"+c.Domain(), "sip:+15550100@"+c.Domain(), tt.auth); err != nil {
				t.Fatal(err)
			}
			if tt.auth.Algorithm == AKAv1 {
				sameChallenges(t, c)
			}
			line := fmt.Sprintf(tt.line, c.Domain())
			inf := filepath.Join(t.TempDir(), "in.csv")
			text := "SEQUENTIAL\n" + strings.Join([]string{"+15550100", c.Domain(), line}, ";") + "\n"
			if err := os.WriteFile(inf, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			sipp(t, c, "register.xml", "-t", "u1", "-auth_uri", c.Domain(), "-inf", inf, "-m", "1")
			n := c.Counters()
			if n["tx 200 REGISTER"] != 2 || n["tx 401 REGISTER"] != 2 || n["tx 403 REGISTER"] != 0 {
				t.Errorf("the core saw %v", n)
			}
			if c.Registered("tel:+15550100") {
				t.Error("still registered")
			}
		})
	}
}

// sameChallenges has the core draw the same challenges in every run. SIPp 3.6.1 takes RES for
// a C string and so answers some challenges wrongly, others not at all; these are good ones.
func sameChallenges(t *testing.T, c *Core) {
	t.Helper()
	if err := c.ep.Do(func() {
		for _, s := range c.subs {
			s.sim.rnd = rand.NewChaCha8([32]byte{1})
		}
	}); err != nil {
		t.Fatal(err)
	}
}
