package api

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTrace(t *testing.T) {
	h := newHouse(t)
	h.seed(t, "admin")
	a := h.ask(t, "viewer", "GET", "/v1/legs/leg_1/trace?format=text", "")
	if a.status != 200 || a.header.Get("Content-Type") != "text/plain; charset=utf-8" || !strings.Contains(string(a.body), "OPTIONS sip:+86138****8001@ims.example") {
		t.Errorf("as text: %d %s %s", a.status, a.header.Get("Content-Type"), a.body)
	}
	for path, want := range map[string]string{"/v1/legs/leg_1/pcap?payload=true": "scope_missing", "/v1/legs/leg_1/pcap?seconds=601": "parameter_invalid",
		"/v1/legs/leg_1/pcap?max_bytes=1": "parameter_invalid", "/v1/legs/leg_2/pcap": "leg_not_found"} {
		if a := h.ask(t, "viewer", "GET", path, ""); !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %d %s, want %s", path, a.status, a.body, want)
		}
	}
	a = h.ask(t, "viewer", "GET", "/v1/legs/leg_1/trace?format=pcap", "")
	if a.status != 200 || a.header.Get("Content-Type") != "application/vnd.tcpdump.pcap" || !strings.Contains(string(a.body), "+86138****8001") || strings.Contains(string(a.body), "13800138001") {
		t.Errorf("as a capture: %d %s %q", a.status, a.header.Get("Content-Type"), a.body)
	}
	for path, want := range map[string]int{"?full=true": 403, "?format=xml": 400, "?full=perhaps": 400} {
		if a := h.ask(t, "viewer", "GET", "/v1/legs/leg_1/trace"+path, ""); a.status != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := h.ask(t, "admin", "GET", "/v1/legs/leg_1/trace?full=true", ""); a.status != 200 || !strings.Contains(string(a.body), "+8613800138001") {
		t.Errorf("whole: %d %s", a.status, a.body)
	}
	if a := h.ask(t, "admin", "GET", "/v1/legs/leg_2/trace", ""); a.status != 404 {
		t.Errorf("another leg: %d", a.status)
	}
}

func TestCDRPages(t *testing.T) {
	h := newHouse(t)
	h.seed(t, "admin")
	var seqs []uint64
	for path := "/v1/cdrs?limit=2"; path != ""; {
		a := h.ask(t, "admin", "GET", path, "")
		var p struct {
			Items []struct{ Seq uint64 }
			Next  string `json:"next_cursor"`
		}
		if err := json.Unmarshal(a.body, &p); err != nil || a.status != 200 || len(p.Items) == 0 {
			t.Fatalf("%s: %d, %v, %s", path, a.status, err, a.body)
		}
		for _, r := range p.Items {
			seqs = append(seqs, r.Seq)
		}
		if path = ""; p.Next != "" {
			path = "/v1/cdrs?limit=2&cursor=" + p.Next
		}
	}
	if len(seqs) != 3 || seqs[2] != 3 {
		t.Errorf("paged through %v", seqs)
	}
	for _, bad := range []string{"cursor=leg_1", "limit=0", "from=yesterday"} {
		if a := h.ask(t, "admin", "GET", "/v1/cdrs?"+bad, ""); a.status != 400 {
			t.Errorf("%s: %d", bad, a.status)
		}
	}
}
