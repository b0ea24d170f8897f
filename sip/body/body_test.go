package body

import (
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const list = `<?xml version="1.0" encoding="UTF-8"?>
<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists" xmlns:cp="urn:ietf:params:xml:ns:copycontrol">
  <list>
    <entry uri="sip:+8613800138001@home.example;user=phone" cp:copyControl="to"><display-name>陈晨</display-name></entry>
    <entry uri="tel:+15550123" cp:copyControl="bcc" cp:anonymize="true"/>
    <list><entry uri="tel:+15550123"/></list>
    <external anchor="http://example.com/list"/>
  </list>
</resource-lists>`

// mixed is a multipart body out of "headers\n\nbody" parts.
func mixed(parts ...string) []byte {
	var b strings.Builder
	for _, p := range parts {
		h, body, _ := strings.Cut(p, "\n\n")
		b.WriteString("--xx\r\n" + strings.ReplaceAll(h, "\n", "\r\n") + "\r\n\r\n" + body + "\r\n")
	}
	b.WriteString("--xx--\r\n")
	return []byte(b.String())
}

const (
	sdpPart  = "Content-Type: application/sdp\nContent-Disposition: session\n\nv=0"
	listPart = "content-type: Application/Resource-Lists+XML\nContent-Disposition: recipient-list; handling=required\nContent-ID: <a@b>\n\n"
)

func TestParse(t *testing.T) {
	multi := Header{Type: `multipart/mixed; boundary="xx"`}
	for _, tt := range []struct {
		name string
		h    Header
		in   []byte
		want []Part
		err  error
	}{
		{"none", Header{Type: "x"}, nil, nil, nil},
		{"one", Header{Type: "Application/SDP;charset=utf-8"}, []byte("v=0"), []Part{{Type: SDP, Data: []byte("v=0")}}, nil},
		{"two", multi, mixed(sdpPart, listPart+"<x/>"), []Part{
			{Type: SDP, Disposition: "session", Data: []byte("v=0")},
			{Type: ResourceLists, Disposition: "recipient-list", Handling: "required", ID: "a@b", Data: []byte("<x/>")}}, nil},
		{"nested", multi, mixed("Content-Type: multipart/alternative;boundary=yy\n\n--yy\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--yy--"),
			[]Part{{Type: SDP, Data: []byte("v=0")}}, nil},
		{"optional, base64", multi, mixed("Content-Type: application/isup\nContent-Disposition: signal;handling=optional\nContent-Transfer-Encoding: base64\n\n" +
			base64.StdEncoding.EncodeToString([]byte("\x01\x00"))), []Part{{Type: "application/isup", Disposition: "signal", Handling: "optional", Data: []byte("\x01\x00")}}, nil},
		{"no type in a part", multi, mixed("X: y\n\nhello"), []Part{{Type: "text/plain", Data: []byte("hello")}}, nil},
		{"no boundary", Header{Type: "multipart/mixed"}, mixed(sdpPart), nil, ErrSyntax},
		{"other boundary", Header{Type: "multipart/mixed;boundary=zz"}, mixed(sdpPart), nil, ErrSyntax},
		{"cut off", multi, mixed(sdpPart)[:20], nil, ErrSyntax},
		{"unknown encoding", multi, mixed("Content-Type: application/sdp\nContent-Transfer-Encoding: gzip\n\nx"), nil, ErrSyntax},
		{"no media type", Header{Type: "nonsense /"}, []byte("x"), nil, ErrSyntax},
		{"many parts", multi, mixed(strings.Split(strings.Repeat(sdpPart+"|", maxParts), "|")...), nil, ErrLimit},
	} {
		got, err := Parse(tt.h, tt.in)
		if !errors.Is(err, tt.err) || err == nil && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
	deep := []byte("v=0")
	h := Header{Type: SDP}
	for i := range maxDepth + 1 {
		deep = fmt.Appendf(nil, "--b%d\r\nContent-Type: %s\r\n\r\n%s\r\n--b%d--", i, h.Type, deep, i)
		h.Type = fmt.Sprintf("multipart/mixed;boundary=b%d", i)
	}
	if _, err := Parse(h, deep); !errors.Is(err, ErrLimit) {
		t.Errorf("nested too deep: %v", err)
	}
}

func TestRecipients(t *testing.T) {
	multi := Header{Type: "multipart/mixed;boundary=xx"}
	parts, err := Parse(multi, mixed(sdpPart, listPart+list))
	if err != nil {
		t.Fatal(err)
	}
	found, err := Recipients(parts)
	got, hidden := URIs(found)
	want := []string{"sip:+8613800138001@home.example;user=phone", "tel:+15550123"}
	if err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(hidden, want[1:]) {
		t.Errorf("%q, hidden %q, %v", got, hidden, err)
	}
	all, err := ParseList([]byte(list))
	if err != nil || len(all) != 3 || all[1] != (Entry{"tel:+15550123", "bcc", true}) {
		t.Errorf("%+v, %v", all, err)
	}
	parts[1].Disposition = "icon"
	if got, err := Recipients(parts); got != nil || err != nil {
		t.Errorf("not a recipient list: %+v, %v", got, err)
	}
}

func TestListRefused(t *testing.T) {
	open := `<resource-lists xmlns="` + listsNS + `"><list>`
	for name, tt := range map[string]struct {
		in   string
		want error
	}{
		"empty":          {"", ErrSyntax},
		"other document": {`<x xmlns="` + listsNS + `"/>`, ErrSyntax},
		"no namespace":   {`<resource-lists/>`, ErrSyntax},
		"entities": {`<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>` + open + `<entry uri="&b;"/></list></resource-lists>`,
			ErrSyntax},
		"unknown entity": {open + `<entry uri="&a;"/></list></resource-lists>`, ErrSyntax},
		"not closed":     {open, ErrSyntax},
		"no uri":         {open + `<entry/></list></resource-lists>`, ErrSyntax},
		"a uri that injects": {open + "<entry uri=\"sip:a@b&gt;&#13;&#10;X: y\"/></list></resource-lists>",
			ErrSyntax},
		"charset":   {`<?xml version="1.0" encoding="iso-8859-1"?>` + open + `</list></resource-lists>`, ErrSyntax},
		"deep":      {open + strings.Repeat("<list>", 100000), ErrLimit},
		"many":      {open + strings.Repeat(`<entry uri="sip:a@b"/>`, maxEntries+1), ErrLimit},
		"long":      {open + `<entry uri="sip:` + strings.Repeat("a", maxURI) + `"/>`, ErrLimit},
		"two roots": {open + `</list></resource-lists>` + open + `</list></resource-lists>`, ErrSyntax},
	} {
		if got, err := ParseList([]byte(tt.in)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("multipart/mixed;boundary=xx", mixed(sdpPart, listPart+list))
	f.Add("application/sdp", []byte("v=0"))
	f.Fuzz(func(t *testing.T, kind string, b []byte) {
		parts, err := Parse(Header{Type: kind}, b)
		if err != nil {
			return
		}
		total := 0
		for _, p := range parts {
			total += len(p.Data)
			if p.Type == "" || strings.HasPrefix(p.Type, "multipart/") {
				t.Fatalf("part of type %q", p.Type)
			}
		}
		if len(parts) > maxParts || total > len(b) {
			t.Fatalf("%d parts of %d octets out of %d", len(parts), total, len(b))
		}
		if us, err := Recipients(parts); err == nil && len(us) > maxEntries {
			t.Fatal(len(us))
		}
	})
}

func FuzzList(f *testing.F) {
	f.Add([]byte(list))
	f.Fuzz(func(t *testing.T, b []byte) {
		es, err := ParseList(b)
		if err != nil {
			return
		}
		for _, e := range es {
			if e.URI == "" || strings.ContainsAny(e.URI, " <>\r\n\"\x00") {
				t.Fatalf("%q", e.URI)
			}
		}
	})
}
