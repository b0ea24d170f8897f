package payload

import (
	"os"
	"path/filepath"
	"testing"

	"sparkle/media/codec/amr"
)

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "amrwb", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPayloadsFromTheWild(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		frames int
		first  uint8 // frame type
		cmr    uint8
	}{
		{"ok-23.85", nil, 1, 8, 15},
		{"ok-6.60", nil, 1, 0, 15},
		{"ok-sid", nil, 1, amr.SIDWide, 15},
		{"ok-nodata", nil, 1, amr.NoData, 15},
		{"ok-bad-q", nil, 1, 2, 15},
		{"ok-12-frames", nil, 12, 2, 15},
		{"empty", ErrShort, 0, 0, 0},
		{"ft-10", ErrReserved, 0, 0, 0},
		{"ft-11", ErrReserved, 0, 0, 0},
		{"ft-13", ErrReserved, 0, 0, 0},
		{"cmr-9", nil, 1, 2, 9}, // speech is kept; such a CMR is the leg's to ignore
		{"cmr-10", nil, 1, 2, 10},
		{"cmr-11", nil, 1, 2, 11},
		{"cmr-12", nil, 1, 2, 12},
		{"cmr-13", nil, 1, 2, 13},
		{"cmr-14", nil, 1, 2, 14},
		{"cmr-outside-modeset", nil, 1, 2, 8},
		{"cut-1", ErrShort, 0, 0, 0},
		{"cut-10", ErrShort, 0, 0, 0},
		{"cut-32", ErrShort, 0, 0, 0},
		{"toc-only", ErrShort, 0, 0, 0},
		{"toc-F-never-ends", ErrFrames, 0, 0, 0},
		{"toc-200", ErrFrames, 0, 0, 0},
		{"trailing", ErrLong, 0, 0, 0},
		{"be-ok", nil, 1, 2, 15},
		{"be-1byte", ErrShort, 0, 0, 0},
	} {
		f := Format{Wide: true, OctetAligned: tt.name[:3] != "be-"}
		got := room()
		cmr, n, err := f.Unpack(file(t, tt.name), got)
		if err != tt.err || n != tt.frames {
			t.Errorf("%s: %d frames, %v, want %d, %v", tt.name, n, err, tt.frames, tt.err)
			continue
		}
		if err != nil {
			continue
		}
		if cmr != tt.cmr || got[0].Type != tt.first || got[0].Bad != (tt.name == "ok-bad-q") {
			t.Errorf("%s: CMR %d, %+v", tt.name, cmr, got[0])
		}
		for _, fr := range got[:n] {
			if len(fr.Bits) != amr.Bytes(true, fr.Type) {
				t.Errorf("%s: frame type %d with %d octets", tt.name, fr.Type, len(fr.Bits))
			}
		}
	}
}

// A payload in the other format than was agreed is seen to be broken, so that it is
// counted and does not reach the decoder as noise; a little padding is not.
func TestTheOtherFormatIsNoticed(t *testing.T) {
	if _, _, err := (Format{Wide: true}).Unpack(file(t, "ok-23.85"), room()); err == nil {
		t.Error("octet-aligned 23.85 read as bandwidth-efficient")
	}
	if _, _, err := (Format{Wide: true, OctetAligned: true}).Unpack(file(t, "be-ok"), room()); err == nil {
		t.Error("bandwidth-efficient 12.65 read as octet-aligned")
	}
	if _, n, err := (Format{Wide: true, OctetAligned: true}).Unpack(append(file(t, "ok-23.85"), 0), room()); err != nil || n != 1 {
		t.Errorf("with an octet of padding: %d frames, %v", n, err)
	}
}

// Several frames in one packet, of several types, in both formats (RFC 4867 §4.3.5.2 and
// §4.4.5.1): the builder here is a plain string of bits, a second opinion on Pack.
func TestSeveralFrames(t *testing.T) {
	for _, f := range []Format{{Wide: true}, {Wide: true, OctetAligned: true}, {}, {OctetAligned: true}} {
		types := []uint8{2, 15, 0, 7, 8}
		bits := "1111"
		if f.OctetAligned {
			bits += "0000"
		}
		for i, ft := range types {
			more := "1"
			if i == len(types)-1 {
				more = "0"
			}
			bits += more
			for k := 3; k >= 0; k-- {
				bits += string('0' + rune(ft>>k&1))
			}
			bits += "1"
			if f.OctetAligned {
				bits += "00"
			}
		}
		want := make([][]byte, len(types))
		for i, ft := range types {
			n := amr.Bits(f.Wide, ft)
			want[i] = make([]byte, (n+7)/8)
			for k := range n {
				if (k*7+i)%3 == 0 {
					bits += "1"
					want[i][k/8] |= 0x80 >> (k % 8)
				} else {
					bits += "0"
				}
			}
			for f.OctetAligned && len(bits)%8 != 0 {
				bits += "0"
			}
		}
		for len(bits)%8 != 0 {
			bits += "0"
		}
		p := make([]byte, len(bits)/8)
		for i, c := range bits {
			if c == '1' {
				p[i/8] |= 0x80 >> (i % 8)
			}
		}
		got := room()
		cmr, n, err := f.Unpack(p, got)
		if err != nil || n != len(types) || cmr != NoRequest {
			t.Fatalf("%+v: %d frames, CMR %d, %v", f, n, cmr, err)
		}
		for i, fr := range got[:n] {
			if fr.Type != types[i] || string(fr.Bits) != string(want[i]) {
				t.Errorf("%+v frame %d: type %d %x, want %d %x", f, i, fr.Type, fr.Bits, types[i], want[i])
			}
		}
	}
}

func BenchmarkPack2385(b *testing.B) {
	for _, f := range []Format{{Wide: true}, {Wide: true, OctetAligned: true}} {
		b.Run(name(f), func(b *testing.B) {
			fr := amr.Frame{Type: 8, Bits: make([]byte, 60)}
			dst := make([]byte, MaxPacked)
			b.ReportAllocs()
			for b.Loop() {
				f.Pack(dst, NoRequest, fr)
			}
		})
	}
}

func BenchmarkUnpack2385(b *testing.B) {
	for _, f := range []Format{{Wide: true}, {Wide: true, OctetAligned: true}} {
		b.Run(name(f), func(b *testing.B) {
			dst, got := make([]byte, MaxPacked), room()
			p := dst[:f.Pack(dst, NoRequest, amr.Frame{Type: 8, Bits: make([]byte, 60)})]
			b.ReportAllocs()
			for b.Loop() {
				f.Unpack(p, got)
			}
		})
	}
}

func name(f Format) string {
	if f.OctetAligned {
		return "octet-aligned"
	}
	return "bandwidth-efficient"
}
