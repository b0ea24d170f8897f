package video

import (
	"bytes"
	"testing"

	"sparkle/media/video/wire"
)

// messages reads what an outbox gives.
func messages(t *testing.T, b []byte) (types []wire.Type, units []wire.Unit) {
	r := wire.Reader{R: bytes.NewReader(b)}
	for {
		typ, body, err := r.Next()
		if err != nil {
			return types, units
		}
		types = append(types, typ)
		if typ == wire.TypeUnit {
			u, err := wire.ParseUnit(body)
			if err != nil {
				t.Fatal(err)
			}
			u.Data = bytes.Clone(u.Data)
			units = append(units, u)
		}
	}
}

// drain takes everything.
func drain(t *testing.T, o *outbox) (types []wire.Type, units []wire.Unit) {
	for {
		b := o.take(nil)
		if len(b) == 0 {
			return types, units
		}
		ty, u := messages(t, b)
		types, units = append(types, ty...), append(units, u...)
	}
}

func TestFullOutboxDropsTheOldestSourceUntilItsKeyFrame(t *testing.T) {
	o := newOutbox()
	push := func(id uint32, key bool) bool {
		return o.unit(&wire.Unit{ID: id, Key: key, Data: []byte{byte(id)}})
	}
	push(1, true)
	for i := range maxUnits - 1 {
		if !push(2+uint32(i%3), i < 3) {
			t.Fatalf("unit %d not taken while there is room", i)
		}
	}
	if !push(3, false) { // one too many: source 1, the oldest, pays
		t.Error("the newest was not taken")
	}
	if push(1, false) {
		t.Error("source 1 was taken without a key frame")
	}
	if !push(1, true) || o.needKey[1] { // which in turn costs the next oldest
		t.Error("source 1's key frame was not taken")
	}
	_, units := drain(t, o)
	for _, u := range units {
		if u.ID == 1 && !u.Key || u.ID == 2 {
			t.Errorf("a unit of source %d got through (key %v)", u.ID, u.Key)
		}
	}
	if o.octets != 0 || o.dropped == 0 {
		t.Errorf("%d octets left over, %d dropped", o.octets, o.dropped)
	}
}

func TestOutboxIsBoundedInOctets(t *testing.T) {
	o := newOutbox()
	big := make([]byte, 1<<20)
	for i := range 100 {
		o.unit(&wire.Unit{ID: uint32(i), Key: true, Data: big})
	}
	if o.octets > maxOctets+wire.MaxMessage {
		t.Errorf("%d octets wait", o.octets)
	}
}

func TestOutboxMergesStatesAndWishes(t *testing.T) {
	o := newOutbox()
	for i := range 100 {
		o.setConference(wire.Conference{ID: "c", Tiles: make([]wire.Tile, i%5)})
		o.keyFrame(7)
		o.unit(&wire.Unit{ID: 9, Key: true})
		o.setPing(uint32(i))
	}
	o.closeConference("d")
	types, units := drain(t, o)
	n := map[wire.Type]int{}
	for _, typ := range types {
		n[typ]++
	}
	if n[wire.TypeConference] != 1 || n[wire.TypeKeyFrame] != 1 || n[wire.TypePing] != 1 || n[wire.TypeClose] != 1 || len(units) != 100 {
		t.Errorf("messages by type: %v", n)
	}
	if types[0] != wire.TypeClose || types[1] != wire.TypeConference {
		t.Errorf("states come after pictures: %v", types[:4])
	}
}

func TestRestartForgetsPicturesAndWantsKeys(t *testing.T) {
	o := newOutbox()
	o.unit(&wire.Unit{ID: 1, Key: true})
	o.keyFrame(5)
	o.preview(wire.Preview{ID: 3})
	o.restart([]wire.Conference{{ID: "a"}})
	o.await(1)
	o.await(2)
	if o.unit(&wire.Unit{ID: 2}) || !o.unit(&wire.Unit{ID: 1, Key: true}) {
		t.Error("a new process must start with key frames")
	}
	types, units := drain(t, o)
	if len(types) != 3 || len(units) != 1 || types[0] != wire.TypeConference || types[1] != wire.TypePreview {
		t.Errorf("after restart: %v", types)
	}
	o.forget(2)
	if len(o.needKey) != 0 {
		t.Errorf("a closed source is remembered: %v", o.needKey)
	}
}

func TestOutboxDoesNotAllocate(t *testing.T) {
	o := newOutbox()
	data, b := make([]byte, 3000), make([]byte, 0, 128<<10)
	one := func() {
		o.unit(&wire.Unit{ID: 1, Key: true, Data: data})
		b = o.take(b[:0])
	}
	one()
	if n := testing.AllocsPerRun(100, one); n > 0 {
		t.Errorf("a picture through the outbox allocates %v times, want 0", n)
	}
}
