package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

func TestMessagesComeBack(t *testing.T) {
	unit := Unit{ID: 7, Key: true, Rotate: 3, Mirror: true, Damaged: true, At: 1 << 60, Data: []byte("picture")}
	conf := Conference{ID: "conf_1", Tiles: []Tile{{Leg: "l", Name: "王", Talking: true, Source: 3}}, Tiers: []Tier{{ID: 1, Width: 240, Height: 320}}}
	var b []byte
	b = AppendUnit(b, TypeUnit, &unit)
	b = AppendJSON(b, TypeConference, conf)
	b = AppendID(b, TypeJPEG, 9, []byte("jpeg"))
	r := Reader{R: bytes.NewReader(b)}

	typ, body, err := r.Next()
	if got, perr := ParseUnit(body); typ != TypeUnit || err != nil || perr != nil || !reflect.DeepEqual(got, unit) {
		t.Errorf("unit: %v %+v %v %v", typ, got, err, perr)
	}
	var c Conference
	if typ, body, err = r.Next(); typ != TypeConference || err != nil || ParseJSON(body, &c) != nil || !reflect.DeepEqual(c, conf) {
		t.Errorf("conference: %v %+v %v", typ, c, err)
	}
	typ, body, err = r.Next()
	if id, data, perr := ParseID(body); typ != TypeJPEG || err != nil || perr != nil || id != 9 || string(data) != "jpeg" {
		t.Errorf("jpeg: %v %d %q %v", typ, id, data, err)
	}
	if _, _, err = r.Next(); err != io.EOF {
		t.Errorf("%v, want EOF", err)
	}
}

func TestBadLengthsAreRefused(t *testing.T) {
	for _, b := range [][]byte{{0, 0, 0, 0, 1}, {255, 255, 255, 255, 1}, {0x10, 0, 0, 0, 1}} {
		r := Reader{R: bytes.NewReader(b)}
		if _, _, err := r.Next(); !errors.Is(err, ErrMessage) {
			t.Errorf("%v: %v, want ErrMessage", b, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(AppendUnit(nil, TypeUnit, &Unit{ID: 1, Data: []byte("x")}))
	f.Add(AppendJSON(nil, TypeHello, Hello{PID: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Reader{R: bytes.NewReader(b)}
		for {
			_, body, err := r.Next()
			if err != nil {
				return
			}
			_, _ = ParseUnit(body)
			_, _, _ = ParseID(body)
			var c Conference
			_ = ParseJSON(body, &c)
		}
	})
}
