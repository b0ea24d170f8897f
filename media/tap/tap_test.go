package tap

import (
	"bytes"
	"net/netip"
	"testing"
)

var here, there = netip.MustParseAddrPort("127.0.0.1:4000"), netip.MustParseAddrPort("127.0.0.2:5000")

func TestHeadersOnlyUnlessPayloadIsWanted(t *testing.T) {
	plain := append([]byte{0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}, "speech"...)
	csrc := append([]byte{0x81, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7}, "speech"...)
	ext := append([]byte{0x90, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x40, 0, 0, 0}, "speech"...)
	lies := []byte{0x9f, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3}
	for _, tt := range []struct {
		b             []byte
		rtcp, payload bool
		want          int
	}{
		{plain, false, false, 12}, {csrc, false, false, 16}, {ext, false, false, 20}, {lies, false, false, 15}, {[]byte{1}, false, false, 1},
		{nil, false, false, 0}, {plain, false, true, 18}, {plain, true, false, 18}, {make([]byte, 2000), false, true, maxKept},
	} {
		tap := New(tt.payload)
		tap.Put(true, tt.rtcp, here, there, tt.b)
		p := <-tap.C
		if len(p.Data()) != tt.want || p.Len != len(tt.b) || !bytes.Equal(p.Data(), tt.b[:tt.want]) || !p.Sent || p.Local != here || p.Remote != there {
			t.Errorf("of %x (RTCP %v, payload %v) %d octets were kept, want %d", tt.b, tt.rtcp, tt.payload, len(p.Data()), tt.want)
		}
	}
}

func TestATapNeverHoldsUp(t *testing.T) {
	(*Tap)(nil).Put(true, false, here, there, []byte{1})
	tap := New(true)
	for range cap(tap.C) + 10 {
		tap.Put(false, false, here, there, []byte{1})
	}
	if tap.Lost() != 10 {
		t.Errorf("%d lost, want 10", tap.Lost())
	}
	b := make([]byte, 75)
	if n := testing.AllocsPerRun(100, func() { tap.Put(false, false, here, there, b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
