package diameter

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// A Device-Watchdog-Request put together by hand from RFC 6733 §3 and §5.5.1.
const watchdog = "01 000030 80 000118 00000000 00000007 00000009" +
	"00000108 40 00000d 6162632e64000000" + // Origin-Host "abc.d", padded by 3
	"00000128 40 00000c 7a7a7a7a" // Origin-Realm "zzzz"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	wire := unhex(t, watchdog)
	m, err := Read(bytes.NewReader(wire))
	if err != nil {
		t.Fatal(err)
	}
	want := &Message{Flags: Request, Command: DeviceWatchdog, HopByHop: 7, EndToEnd: 9,
		AVPs: AVPs{Bytes(OriginHost, 0, "abc.d"), Bytes(OriginRealm, 0, "zzzz")}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("parsed %+v, want %+v", m, want)
	}
	if !bytes.Equal(m.Bytes(), wire) {
		t.Errorf("written as\n%x, was\n%x", m.Bytes(), wire)
	}
}

func TestGroups(t *testing.T) {
	m := &Message{Flags: Request | Proxiable, Command: MultimediaAuth, App: Cx, AVPs: AVPs{
		Bytes(SessionID, 0, "a;1;2"),
		Group(AuthDataItem, TGPP, Uint32(ItemNumber, TGPP, 1), Bytes(Authenticate, TGPP, []byte{1, 2, 3})),
	}}
	got, err := Parse(m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	item := got.AVPs.Inner(AuthDataItem, TGPP)
	if n, ok := item.Number(ItemNumber, TGPP); !ok || n != 1 {
		t.Errorf("item number %d %v", n, ok)
	}
	if item.Text(Authenticate, TGPP) != "\x01\x02\x03" || item.Find(Authenticate, 0) != nil {
		t.Errorf("item %v", item)
	}
	if n, ok := got.AVPs.Number(SessionID, 0); ok {
		t.Errorf("five bytes are the number %d", n)
	}
	if got.AVPs.Inner(SessionID, 0) != nil || got.AVPs.Inner(UserName, 0) != nil || got.AVPs.Text(UserName, 0) != "" {
		t.Error("something is found that is not there")
	}
	a := got.Answer()
	if a.IsRequest() || a.Flags != Proxiable || a.AVPs.Text(SessionID, 0) != "a;1;2" {
		t.Errorf("answer %+v", a)
	}
}

func TestMalformed(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                       "",
		"version 2":                   "02" + watchdog[2:],
		"longer than it says":         watchdog + "00000000",
		"shorter than it says":        watchdog[:len(watchdog)-8],
		"AVP shorter than its header": "01 00001c 80 000118 00000000 00000007 00000009 00000108 40 000007",
		"AVP beyond the end":          "01 00001c 80 000118 00000000 00000007 00000009 00000108 40 000010",
		"vendor beyond the end":       "01 00001c 80 000118 00000000 00000007 00000009 00000108 c0 000008",
		"half an AVP":                 "01 000018 80 000118 00000000 00000007 00000009 00000108",
	} {
		if m, err := Parse(unhex(t, text)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for name, text := range map[string]string{"huge": "01ffffff", "tiny": "01000004", "not Diameter": "47455420"} {
		if m, err := Read(bytes.NewReader(unhex(t, text))); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

// What parses is written so that it parses to the same, and nothing crashes.
func FuzzParse(f *testing.F) {
	f.Add(unhex(f, watchdog))
	f.Add((&Message{Flags: Request, Command: MultimediaAuth, App: Cx, AVPs: AVPs{
		Group(AuthDataItem, TGPP, Bytes(AuthenticationScheme, TGPP, "Unknown"))}}).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		for _, a := range m.AVPs {
			m.AVPs.Inner(a.Code, a.Vendor)
			m.AVPs.Number(a.Code, a.Vendor)
		}
		m.Answer()
		again, err := Parse(m.Bytes())
		if err != nil || !reflect.DeepEqual(m.AVPs, again.AVPs) || m.Command != again.Command {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}
