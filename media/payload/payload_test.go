package payload

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"sparkle/media/codec/amr"
)

func room() *[MaxFrames]amr.Frame {
	var f [MaxFrames]amr.Frame
	for i := range f {
		f[i].Bits = make([]byte, 0, amr.MaxBytes)
	}
	return &f
}

func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, f := range []Format{{}, {Wide: true}, {OctetAligned: true}, {Wide: true, OctetAligned: true}} {
		for ft := range uint8(16) {
			bits := amr.Bits(f.Wide, ft)
			if bits < 0 {
				continue
			}
			fr := amr.Frame{Type: ft, Bits: make([]byte, (bits+7)/8)}
			for i := range fr.Bits {
				fr.Bits[i] = byte(rng.Uint32())
			}
			if tail := bits & 7; tail > 0 {
				fr.Bits[len(fr.Bits)-1] &= 0xff << (8 - tail)
			}
			dst := bytes.Repeat([]byte{0xff}, MaxPacked)
			n := f.Pack(dst, 7, fr)
			got := room()
			cmr, count, err := f.Unpack(dst[:n], got)
			if err != nil || cmr != 7 || count != 1 || got[0].Type != ft || got[0].Bad || !bytes.Equal(got[0].Bits, fr.Bits) {
				t.Fatalf("%+v FT %d: %v %d %+v, want %x", f, ft, err, cmr, got[0], fr.Bits)
			}
			want := (10 + bits + 7) / 8
			if f.OctetAligned {
				want = 2 + (bits+7)/8
			}
			if n != want {
				t.Errorf("%+v FT %d: %d octets, want %d", f, ft, n, want)
			}
			for cut := range n {
				if _, _, err := f.Unpack(dst[:cut], got); err == nil {
					t.Errorf("%+v FT %d cut to %d octets: accepted", f, ft, cut)
				}
			}
		}
	}
}

func TestZeroAllocations(t *testing.T) {
	f := Format{Wide: true}
	fr := amr.Frame{Type: 8, Bits: make([]byte, 60)}
	dst, got := make([]byte, MaxPacked), room()
	if n := testing.AllocsPerRun(100, func() {
		n := f.Pack(dst, NoRequest, fr)
		f.Unpack(dst[:n], got)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte{0xf0, 0x44, 1, 2, 3}, true, true)
	f.Add([]byte{0xf4, 0x7c}, true, false)
	f.Fuzz(func(t *testing.T, p []byte, wide, aligned bool) {
		got := room()
		_, n, err := Format{wide, aligned}.Unpack(p, got)
		if err == nil && n == 0 {
			t.Error("no frame and no error")
		}
		for _, fr := range got[:n] {
			if len(fr.Bits) != amr.Bytes(wide, fr.Type) {
				t.Errorf("FT %d with %d octets", fr.Type, len(fr.Bits))
			}
		}
	})
}
