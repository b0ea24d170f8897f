package rtp264

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pion/rtp"
)

// packets reads a file of RTP packets, each behind a 2-octet length.
func packets(t testing.TB, path string) (out []*rtp.Packet) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for len(b) >= 2 {
		n := int(binary.BigEndian.Uint16(b))
		p := &rtp.Packet{}
		if err := p.Unmarshal(b[2 : 2+n]); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out = append(out, p)
		b = b[2+n:]
	}
	return out
}

func feed(d *Depacketizer, ps []*rtp.Packet) (units []AccessUnit) {
	keep := func(au AccessUnit) {
		au.Data = bytes.Clone(au.Data)
		units = append(units, au)
	}
	for _, p := range ps {
		d.Push(p.Payload, p.SequenceNumber, p.Timestamp, p.Marker, keep)
	}
	d.Flush(keep)
	return units
}

// manifest says what each malformed file must give: how many access units, how many
// octets in all, and whether something in it is refused.
var manifest = map[string]struct {
	units, octets int
	refused       bool
}{
	"ok-fua-3":          {1, 1905, false}, // 1901 and a start code
	"annexb-in-rtp":     {0, 0, true},
	"fua-2byte":         {0, 0, true},
	"fua-forbidden-bit": {0, 0, true},
	"fua-gap":           {0, 0, true},
	"fua-nested-24":     {0, 0, true},
	"fua-no-start":      {0, 0, true},
	"fua-s-and-e":       {0, 0, true},
	"fua-two-starts":    {1, 56, true}, // the second unit
	"fua-type-change":   {0, 0, true},
	"fub-29":            {0, 0, true},
	"marker-never":      {60, 60 * 55, false},
	"pps-bad-id":        {0, 0, true}, // has a start code inside
	"sei-64k":           {0, 0, false},
	"sps-huge":          {0, 0, true},
	"sps-size-flip":     {-1, -1, true},
	"stap-1-left":       {0, 0, true},
	"stap-700":          {0, 0, false},
	"stap-b-mtap":       {0, 0, true},
	"stap-len-0":        {0, 0, true},
	"stap-nested":       {0, 0, true},
	"stap-overrun":      {0, 0, true},
}

func TestMalformedCorpus(t *testing.T) {
	files, _ := filepath.Glob("testdata/malformed/*.bin")
	if len(files) != len(manifest) {
		t.Errorf("%d files, the manifest has %d", len(files), len(manifest))
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".bin")
		t.Run(name, func(t *testing.T) {
			want, ok := manifest[name]
			if !ok {
				t.Fatal("not in the manifest")
			}
			var d Depacketizer
			octets := 0
			units := feed(&d, packets(t, f))
			for _, u := range units {
				octets += len(u.Data)
				if want.refused && name != "sps-size-flip" && !u.Damaged {
					t.Error("a unit beside a refused one is not marked damaged")
				}
			}
			if want.units >= 0 && (len(units) != want.units || octets != want.octets) {
				t.Errorf("%d units of %d octets, want %d of %d", len(units), octets, want.units, want.octets)
			}
			if got := d.Stats.Refused > 0; got != want.refused {
				t.Errorf("refused %d, want some: %v", d.Stats.Refused, want.refused)
			}
			if cap(d.au)+cap(d.out)+cap(d.fu) > 1<<20 {
				t.Errorf("%d octets held after a small file", cap(d.au)+cap(d.out)+cap(d.fu))
			}
		})
	}
}

// unit is an access unit of the given NAL sizes; the first two are parameter sets.
func unit(rng *rand.Rand, key bool, sizes ...int) []byte {
	var out []byte
	if key {
		out = append(out, annexB(smallSPS)...)
		out = append(out, annexB([]byte{0x68, 0xce, 0x3c, 0x80})...)
	}
	for _, n := range sizes {
		nal := make([]byte, n)
		for i := range nal {
			nal[i] = byte(rng.IntN(254) + 2) // no zeros: no start codes
		}
		nal[0] = 0x61
		if key {
			nal[0] = 0x65
		}
		out = append(out, annexB(nal)...)
	}
	return out
}

func annexB(nal []byte) []byte { return append([]byte{0, 0, 0, 1}, nal...) }

// smallSPS is a real encoder's, Constrained Baseline level 1.2, 240x320.
var smallSPS = []byte{0x67, 0x42, 0xc0, 0x0c, 0x8c, 0x8d, 0x41, 0xe1, 0x49, 0x00, 0xf0, 0x88, 0x46, 0xa0}

func TestPacketizeThenDepacketize(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name  string
		mode  int
		key   bool
		sizes []int
		packs int
	}{
		{"small", 0, false, []int{300}, 1},
		{"slices", 0, true, []int{1100, 1190, 1200}, 5},
		{"key in mode 1", 1, true, []int{5000}, 1 + 5},
		{"just fits", 1, false, []int{1200}, 1},
		{"just not", 1, false, []int{1201}, 2},
		{"many", 1, false, []int{10, 4000, 10}, 1 + 4 + 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			au := unit(rng, tt.key, tt.sizes...)
			p := Packetizer{Mode: tt.mode}
			var d Depacketizer
			var got []AccessUnit
			seq, lasts := uint16(65534), 0
			err := p.Packetize(au, func(payload []byte, last bool) error {
				if len(payload) > MaxPayload {
					t.Errorf("payload of %d octets", len(payload))
				}
				if last {
					lasts++
				}
				if typ := payload[0] & 0x1f; tt.mode == 0 && typ > 23 {
					t.Errorf("type %d in mode 0", typ)
				}
				d.Push(payload, seq, 9000, last, func(au AccessUnit) {
					au.Data = bytes.Clone(au.Data)
					got = append(got, au)
				})
				seq++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if n := int(seq - 65534); n != tt.packs || lasts != 1 {
				t.Errorf("%d packets, %d with marker, want %d and 1", n, lasts, tt.packs)
			}
			if len(got) != 1 || !bytes.Equal(got[0].Data, au) || got[0].Key != tt.key || got[0].Damaged || got[0].Timestamp != 9000 {
				t.Errorf("%d units, or another one than went in", len(got))
			}
		})
	}
}

func TestMode0RefusesWhatCannotFit(t *testing.T) {
	p := Packetizer{Mode: 0}
	for _, n := range []int{MaxPayload + 1, 3000} {
		err := p.Packetize(unit(rand.New(rand.NewPCG(1, 1)), false, n), func([]byte, bool) error { return nil })
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d octets: %v, want ErrTooLarge", n, err)
		}
	}
}

func TestLossMarksUnitsDamaged(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var d Depacketizer
	var seq uint16
	var flags []bool
	emit := func(au AccessUnit) { flags = append(flags, au.Damaged) }
	for i := range 5 {
		p := Packetizer{Mode: 1}
		k := 0
		_ = p.Packetize(unit(rng, i == 0, 3000), func(payload []byte, last bool) error {
			if !(i == 2 && k == 1) { // the middle of the third picture is lost
				d.Push(payload, seq, uint32(i)*6000, last, emit)
			}
			seq++
			k++
			return nil
		})
	}
	// The third picture had one unit only: nothing of it is left, so four come out,
	// and the one after the loss carries the news.
	if want := []bool{false, false, true, false}; len(flags) != 4 || flags[2] != want[2] || flags[0] || flags[1] || flags[3] {
		t.Errorf("damaged flags %v, want %v", flags, want)
	}
	if d.Stats.Lost != 1 {
		t.Errorf("lost %d, want 1", d.Stats.Lost)
	}
}

func TestFragmentsAreBounded(t *testing.T) {
	var d Depacketizer
	p := append([]byte{0x7c, 0x85}, make([]byte, 1400)...)
	for i := range 100_000 { // 140 MB if nobody counted
		d.Push(p, uint16(i), 3000, false, func(AccessUnit) {})
		p[1] = 0x05
	}
	if n := cap(d.fu) + cap(d.au) + cap(d.out); n > 2*MaxNAL+2*MaxAccessUnit {
		t.Errorf("%d octets held", n)
	}
	if d.Stats.Refused == 0 {
		t.Error("nothing refused")
	}
}

func TestReorder(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in, want []uint16
		late     uint64
	}{
		{"in order", []uint16{5, 6, 7}, []uint16{5, 6, 7}, 0},
		{"swapped", []uint16{5, 7, 6, 8}, []uint16{5, 6, 7, 8}, 0},
		{"wrap", []uint16{65534, 0, 65535, 2, 1}, []uint16{65534, 65535, 0, 1, 2}, 0},
		{"twice", []uint16{5, 5, 6, 6}, []uint16{5, 6}, 2},
		{"twice while waiting", []uint16{5, 7, 7, 6}, []uint16{5, 6, 7}, 1},
		{"lost", []uint16{5, 7, 8, 9, 10, 11, 12, 13}, []uint16{5, 7, 8, 9, 10, 11, 12, 13}, 0},
		{"two lost", []uint16{5, 8, 9, 10, 11, 12, 13}, []uint16{5, 8, 9, 10, 11, 12, 13}, 0},
		{"too late", []uint16{5, 7, 8, 9, 10, 11, 12, 6}, []uint16{5, 7, 8, 9, 10, 11, 12}, 1},
		{"far ahead", []uint16{5, 7, 30, 31}, []uint16{5, 7, 30, 31}, 0},
		{"new start", []uint16{5, 6, 30000, 30001}, []uint16{5, 6, 30000, 30001}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r Reorder
			var got []uint16
			out := func(p []byte, seq uint16, _ uint32, _ bool) {
				if binary.BigEndian.Uint16(p) != seq {
					t.Errorf("payload of %d under number %d", binary.BigEndian.Uint16(p), seq)
				}
				got = append(got, seq)
			}
			buf := make([]byte, 2)
			for _, s := range tt.in {
				binary.BigEndian.PutUint16(buf, s) // reused, as a socket's buffer is
				r.Push(buf, s, 0, false, out)
			}
			r.Flush(out)
			if len(got) != len(tt.want) || r.Late != tt.late {
				t.Fatalf("got %v late %d, want %v late %d", got, r.Late, tt.want, tt.late)
			}
			for i := range got {
				if got[i] != tt.want[i] {
					t.Fatalf("got %v, want %v", got, tt.want)
				}
			}
		})
	}
}

func FuzzDepacketizer(f *testing.F) {
	files, _ := filepath.Glob("testdata/malformed/*.bin")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Depacketizer
		var r Reorder
		check := func(au AccessUnit) {
			if len(au.Data) == 0 || len(au.Data) > MaxAccessUnit {
				t.Fatalf("unit of %d octets", len(au.Data))
			}
			Split(au.Data, func(nal []byte) bool {
				switch typ := nal[0] & 0x1f; {
				case typ > 8 || typ == TypeSEI || typ == 0:
					t.Fatalf("unit of type %d got through", typ)
				case typ == TypeSPS:
					if _, err := ParseSPS(nal); err != nil {
						t.Fatalf("unchecked SPS: %v", err)
					}
				}
				return true
			})
		}
		for len(b) >= 2 {
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			var p rtp.Packet
			if p.Unmarshal(b[2:2+n]) == nil {
				r.Push(p.Payload, p.SequenceNumber, p.Timestamp, p.Marker, func(pl []byte, seq uint16, ts uint32, m bool) {
					d.Push(pl, seq, ts, m, check)
				})
			}
			b = b[2+n:]
		}
		d.Flush(check)
	})
}

func FuzzParseSPS(f *testing.F) {
	f.Add(smallSPS)
	f.Add([]byte{0x67, 0x64, 0, 0x1f, 0xac, 0xd9, 0x40, 0x50, 5, 0xbb, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0, 3, 1, 0xe0, 0xf1, 0x83, 0x19, 0x60})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSPS(b)
		if err == nil && (s.Width < 1 || s.Height < 1 || s.Width > MaxWidth || s.Height > MaxHeight) {
			t.Fatalf("%dx%d passed", s.Width, s.Height)
		}
	})
}

func FuzzPacketizer(f *testing.F) {
	f.Add(unit(rand.New(rand.NewPCG(1, 1)), true, 3000), true)
	f.Fuzz(func(t *testing.T, b []byte, mode1 bool) {
		p := Packetizer{}
		if mode1 {
			p.Mode = 1
		}
		_ = p.Packetize(b, func(pl []byte, _ bool) error {
			if len(pl) == 0 || len(pl) > MaxPayload {
				t.Fatalf("payload of %d", len(pl))
			}
			return nil
		})
	})
}

// What is wrong with a set costs that set only: phones write them in many ways, and the
// stream brings its own.
func TestParseSprop(t *testing.T) {
	good := Sprop(append(annexB(smallSPS), annexB([]byte{0x68, 0xce, 0x3c, 0x80})...))
	sps, pps, _ := strings.Cut(good, ",")
	huge := packets(t, "testdata/malformed/sps-huge.bin")[0].Payload
	if huge[0]&0x1f != TypeSPS {
		t.Fatalf("unit of type %d", huge[0]&0x1f)
	}
	for _, tt := range []struct{ name, in, want string }{
		{"none", "", ""},
		{"two sets", good, good},
		{"no padding", strings.ReplaceAll(good, "=", ""), good},
		{"blanks", sps + ", " + pps, good},
		{"no base64", "!!!," + pps, pps},
		{"SEI between", sps + ",BgUA," + pps, good},
		{"SPS cut off", "Z0LADA==," + pps, pps},
		{"SPS beyond the limits", base64.StdEncoding.EncodeToString(huge) + "," + pps, pps},
		{"too long", sps + "," + strings.Repeat("A", 4000), sps},
		{"too many", strings.Repeat(pps+",", 9), strings.TrimSuffix(strings.Repeat(pps+",", 8), ",")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Sprop(ParseSprop(tt.in)); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseSPS(t *testing.T) {
	for _, tt := range []struct {
		name string
		nal  []byte
		w, h int
	}{
		{"openh264 240x320", smallSPS, 240, 320},
		{"x264 High 1280x720", []byte{0x67, 0x64, 0, 0x1f, 0xac, 0xd9, 0x40, 0x50, 5, 0xbb, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0, 3, 1, 0xe0, 0xf1, 0x83, 0x19, 0x60}, 1280, 720},
	} {
		s, err := ParseSPS(tt.nal)
		if err != nil || s.Width != tt.w || s.Height != tt.h {
			t.Errorf("%s: %+v, %v, want %dx%d", tt.name, s, err, tt.w, tt.h)
		}
		for n := range tt.nal[:8] {
			if _, err := ParseSPS(tt.nal[:n]); !errors.Is(err, ErrSPS) {
				t.Errorf("%s cut to %d: %v, want ErrSPS", tt.name, n, err)
			}
		}
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	au := unit(rand.New(rand.NewPCG(7, 7)), false, 2500)
	p := Packetizer{Mode: 1}
	var d Depacketizer
	var r Reorder
	seq, ts := uint16(0), uint32(0)
	n := 0
	emit := func(AccessUnit) { n++ }
	push := func(pl []byte, seq uint16, ts uint32, m bool) { d.Push(pl, seq, ts, m, emit) }
	send := func(pl []byte, last bool) error {
		r.Push(pl, seq, ts, last, push)
		seq++
		return nil
	}
	one := func() {
		ts += 6000
		_ = p.Packetize(au, send)
	}
	one()
	one()
	if a := testing.AllocsPerRun(100, one); a != 0 {
		t.Errorf("a picture through packetiser, reorder and depacketiser allocates %v times, want 0", a)
	}
	if n < 100 {
		t.Errorf("only %d units came out", n)
	}
}

func BenchmarkDepacketize(b *testing.B) {
	au := unit(rand.New(rand.NewPCG(7, 7)), false, 2500)
	p := Packetizer{Mode: 1}
	var d Depacketizer
	seq, ts := uint16(0), uint32(0)
	emit := func(AccessUnit) {}
	send := func(pl []byte, last bool) error {
		d.Push(pl, seq, ts, last, emit)
		seq++
		return nil
	}
	b.ReportAllocs()
	for b.Loop() {
		ts += 6000
		_ = p.Packetize(au, send)
	}
}
