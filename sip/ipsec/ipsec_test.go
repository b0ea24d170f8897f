package ipsec

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
)

var (
	ours   = Mechanism{Alg: "hmac-sha-1-96", EAlg: "aes-cbc", SPIC: 1001, SPIS: 1002, PortC: 5062, PortS: 5063}
	theirs = Mechanism{Alg: "hmac-sha-1-96", EAlg: "aes-cbc", SPIC: 2001, SPIS: 2002, PortC: 6100, PortS: 6101, Q: 900}
	ik, ck = key("000102030405060708090a0b0c0d0e0f"), key("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
)

func key(s string) (k [16]byte) {
	b, _ := hex.DecodeString(s)
	copy(k[:], b)
	return k
}

func TestMechanisms(t *testing.T) {
	if want := "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=1001;spi-s=1002;port-c=5062;port-s=5063"; ours.String() != want {
		t.Errorf("%s\nwant %s", ours, want)
	}
	got, err := Parse([]string{"tls;q=0.2, " + theirs.String(), "ipsec-3gpp; alg=hmac-md5-96; spi-c=300; spi-s=301; port-c=1; port-s=2",
		"ipsec-3gpp;alg=hmac-md5-96;prot=ah;spi-c=1"})
	if err != nil || len(got) != 2 || got[0] != theirs || got[1].EAlg != "null" || got[1].Alg != "hmac-md5-96" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"spi-c=255", "spi-c=x", "spi-s=4294967296", "port-c=0", "port-s=65536"} {
		k, _, _ := strings.Cut(bad, "=")
		i := strings.Index(theirs.String(), k+"=")
		v := theirs.String()[:i] + bad
		if _, err := Parse([]string{v}); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestChoose(t *testing.T) {
	weak := Mechanism{Alg: "hmac-md5-96", EAlg: "null", Q: 100}
	if m, err := Choose([]Mechanism{weak, ours}, []Mechanism{weak, theirs}); err != nil || m != theirs {
		t.Errorf("%+v, %v: the server's preference decides", m, err)
	}
	if _, err := Choose([]Mechanism{ours}, []Mechanism{weak}); !errors.Is(err, ErrNoneInCommon) {
		t.Error(err)
	}
}

// TS 33.203 Annex I.
func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		got  []byte
		want string
	}{
		{IntegrityKey("hmac-md5-96", ik), "000102030405060708090a0b0c0d0e0f"},
		{IntegrityKey("hmac-sha-1-96", ik), "000102030405060708090a0b0c0d0e0f00000000"},
		{EncryptionKey("aes-cbc", ck), "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"},
		{EncryptionKey("des-ede3-cbc", ck), "f0f1f2f3f4f5f6f7f8f9fafbfcfdfefff0f1f2f3f4f5f6f7"},
		{EncryptionKey("null", ck), ""},
	} {
		if hex.EncodeToString(tt.got) != tt.want {
			t.Errorf("%x, want %s", tt.got, tt.want)
		}
	}
}

// The messages are read back by another implementation of the kernel's structures.
func TestNetlink(t *testing.T) {
	for _, host := range [][2]string{{"192.0.2.1", "198.51.100.5"}, {"2001:db8::1", "2001:db8::5"}} {
		us, p := netip.MustParseAddr(host[0]), netip.MustParseAddr(host[1])
		set, err := Set(us, p, ours, theirs, ik, ck, 40)
		if err != nil {
			t.Fatal(err)
		}
		want := []struct {
			from, to string
			spi      uint32
			out      uint8
		}{{":5062", ":6101", 2002, 1}, {":6101", ":5062", 1001, 0}, {":5063", ":6100", 2001, 1}, {":6100", ":5063", 1002, 0}}
		for i, s := range set {
			if !strings.HasSuffix(s.From.String(), want[i].from) || !strings.HasSuffix(s.To.String(), want[i].to) {
				t.Errorf("SA %d is %v to %v", i, s.From, s.To)
			}
			b := s.NewSA(4 * time.Minute)
			if len(b)%4 != 0 || nl.NativeEndian().Uint32(b) != uint32(len(b)) || nl.NativeEndian().Uint16(b[4:]) != nl.XFRM_MSG_NEWSA {
				t.Fatalf("header %x", b[:16])
			}
			sa := nl.DeserializeXfrmUsersaInfo(b[16:])
			if sa.Id.Daddr.ToIP().String() != s.To.Addr().String() || sa.Saddr.ToIP().String() != s.From.Addr().String() || nl.Swap32(sa.Id.Spi) != want[i].spi ||
				sa.Id.Proto != 50 || sa.Mode != 0 || sa.Reqid != 40+uint32(i) || sa.ReplayWindow != 32 || sa.Lft.HardAddExpiresSeconds != 240 ||
				sa.Lft.HardByteLimit != nl.XFRM_INF || nl.Swap16(sa.Sel.Dport) != s.To.Port() || nl.Swap16(sa.Sel.Sport) != s.From.Port() ||
				sa.Sel.DportMask != 0xffff || int(sa.Sel.PrefixlenD) != us.BitLen() {
				t.Errorf("SA %d reads %+v", i, sa)
			}
			attrs, err := nl.ParseRouteAttr(b[16+nl.SizeofXfrmUsersaInfo:])
			if err != nil || len(attrs) != 2 {
				t.Fatalf("attributes %v, %v", attrs, err)
			}
			auth, enc := nl.DeserializeXfrmAlgo(attrs[0].Value), nl.DeserializeXfrmAlgo(attrs[1].Value)
			if nl.BytesToString(auth.AlgName[:]) != "hmac(sha1)" || !bytes.Equal(auth.AlgKey, append(ik[:], 0, 0, 0, 0)) || auth.AlgKeyLen != 160 ||
				nl.BytesToString(enc.AlgName[:]) != "cbc(aes)" || !bytes.Equal(enc.AlgKey, ck[:]) || attrs[0].Attr.Type != nl.XFRMA_ALG_AUTH || attrs[1].Attr.Type != nl.XFRMA_ALG_CRYPT {
				t.Errorf("algorithms %+v %+v", auth, enc)
			}
			b = s.NewPolicy()
			pol := nl.DeserializeXfrmUserpolicyInfo(b[16:])
			if pol.Dir != want[i].out || pol.Action != 0 || pol.Priority != 1000 || nl.Swap16(pol.Sel.Sport) != s.From.Port() {
				t.Errorf("policy %d reads %+v", i, pol)
			}
			attrs, err = nl.ParseRouteAttr(b[16+nl.SizeofXfrmUserpolicyInfo:])
			if err != nil || len(attrs) != 1 || attrs[0].Attr.Type != nl.XFRMA_TMPL || len(attrs[0].Value) != nl.SizeofXfrmUserTmpl {
				t.Fatalf("attributes %v, %v", attrs, err)
			}
			if tmpl := nl.DeserializeXfrmUserTmpl(attrs[0].Value); tmpl.Reqid != s.ReqID || nl.Swap32(tmpl.XfrmId.Spi) != s.SPI || tmpl.Saddr.ToIP().String() != s.From.Addr().String() {
				t.Errorf("template %+v", tmpl)
			}
		}
	}
	if _, err := Set(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), ours, theirs, ik, ck, 1); err == nil {
		t.Error("two families in one association")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(theirs.String())
	f.Add("ipsec-3gpp;alg=hmac-md5-96;spi-c=,tls;q=2")
	f.Fuzz(func(t *testing.T, s string) {
		ms, err := Parse([]string{s})
		if err != nil {
			return
		}
		for _, m := range ms {
			if again, err := Parse([]string{m.String()}); err != nil || len(again) != 1 || again[0] != m {
				t.Errorf("%s does not read as itself: %+v, %v", m, again, err)
			}
		}
	})
}
