package latch

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var (
	named   = at("10.0.0.5:4000") // what the phone says of itself, behind its NAT
	phone   = at("203.0.113.9:61000")
	other   = at("203.0.113.9:61001") // its NAT's next port
	near    = at("203.0.113.66:9999") // inside the prefix too
	far     = at("198.51.100.1:4000")
	own     = netip.MustParseAddr("203.0.113.200")
	prefix  = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	natured = Policy{Want: named, Prefixes: prefix, Own: own, Version: 1, Live: true}
)

// step is one packet of a script, or a change of the policy before it.
type step struct {
	after time.Duration // since the step before
	from  netip.AddrPort
	ssrc  uint32
	seq   uint16
	in    bool
	to    netip.AddrPort // where ours go then
	set   *Policy
}

func run(t *testing.T, p Policy, steps []step) {
	t.Helper()
	var g Gate
	now := time.Hour
	g.Set(p, now)
	for i, s := range steps {
		now += s.after
		if s.set != nil {
			g.Set(*s.set, now)
		}
		if s.from.IsValid() {
			if got := g.May(s.from) && g.Take(s.from, s.ssrc, s.seq, now); got != s.in {
				t.Errorf("step %d from %v: let in %v", i, s.from, got)
			}
		}
		if g.To() != s.to {
			t.Errorf("step %d: packets go to %v, want %v", i, g.To(), s.to)
		}
	}
}

const ms = time.Millisecond

func TestOffAndStrict(t *testing.T) {
	want, third, fourth := at("192.0.2.7:4000"), at("192.0.2.7:5555"), at("192.0.2.7:6666")
	run(t, Policy{Want: want}, []step{
		{from: want, in: true, to: want}, {from: third, to: want}, {from: far, to: want}, {after: time.Hour, from: want, in: true, to: want},
	})
	strict := Policy{Want: want, AnyPort: true, Version: 1}
	again := strict
	again.Version = 2
	run(t, strict, []step{
		{from: far, to: want}, {after: time.Hour, from: third, in: true, to: want},
		{after: 4 * time.Second, from: fourth, in: true, to: want}, {after: 900 * ms, from: third, in: true, to: want},
		{after: 200 * ms, from: third, in: true, to: want}, {from: fourth, to: want}, {from: want, to: want},
		{set: &strict, from: fourth, to: want}, // said again, nothing new
		{set: &again, from: fourth, in: true, to: want}, {after: 6 * time.Second, from: third, to: want},
		{from: fourth, in: true, to: want},
	})
	var g Gate
	if g.May(want) || g.May(netip.AddrPort{}) && g.Take(netip.AddrPort{}, 1, 1, 0) && g.To().IsValid() {
		t.Error("a gate without a policy lets somebody in")
	}
}

func TestNAT(t *testing.T) {
	p := natured
	changed := natured
	changed.Version = 2
	moved := changed
	moved.Want = at("10.0.0.6:5000")
	late := natured
	late.Live = false
	for _, tt := range []struct {
		name  string
		p     Policy
		steps []step
	}{
		{"three in a row prove it", p, []step{
			{from: phone, ssrc: 1, seq: 65535, to: named}, {after: 20 * ms, from: phone, ssrc: 1, seq: 0, to: named},
			{after: 20 * ms, from: phone, ssrc: 1, seq: 2, in: true, to: phone}, {after: time.Hour, from: phone, ssrc: 7, seq: 9, in: true, to: phone},
			{from: other, ssrc: 1, seq: 3, to: phone}, {from: named, ssrc: 1, seq: 3, to: phone}, {from: far, to: phone}}},
		{"of one stream, forwards, and not the same", p, []step{
			{from: phone, ssrc: 1, seq: 1, to: named}, {from: phone, ssrc: 2, seq: 2, to: named}, {from: phone, ssrc: 3, seq: 3, to: named},
			{from: phone, ssrc: 3, seq: 3, to: named}, {from: phone, ssrc: 3, seq: 2, to: named}, {from: phone, ssrc: 3, seq: 100, to: named},
			{from: phone, ssrc: 3, seq: 101, to: named}, {from: phone, ssrc: 3, seq: 102, in: true, to: phone}}},
		{"nobody outside, nor we ourselves", p, []step{
			{from: far, ssrc: 1, seq: 1, to: named}, {from: far, ssrc: 1, seq: 2, to: named}, {from: far, ssrc: 1, seq: 3, to: named}, {from: far, ssrc: 1, seq: 4, to: named},
			{from: netip.AddrPortFrom(own, 5060), ssrc: 1, seq: 1, to: named}, {from: netip.AddrPortFrom(own, 5060), ssrc: 1, seq: 2, to: named},
			{from: netip.AddrPortFrom(own, 5060), ssrc: 1, seq: 3, to: named}}},
		{"the named one at once, and then nobody", p, []step{
			{from: near, ssrc: 1, seq: 1, to: named}, {from: near, ssrc: 1, seq: 2, to: named}, {from: named, ssrc: 5, seq: 5, in: true, to: named},
			{from: near, ssrc: 1, seq: 3, to: named}, {after: 3 * time.Second, from: near, ssrc: 1, seq: 4, to: named},
			{from: near, ssrc: 1, seq: 5, to: named}, {from: near, ssrc: 1, seq: 6, to: named}}},
		{"the named one displaces a quicker one", p, []step{
			{from: near, ssrc: 1, seq: 1, to: named}, {from: near, ssrc: 1, seq: 2, to: named}, {from: near, ssrc: 1, seq: 3, in: true, to: near},
			{after: time.Second, from: named, ssrc: 5, seq: 5, in: true, to: named}, {from: near, ssrc: 1, seq: 4, to: named}}},
		{"two at once: who is through first", p, []step{
			{from: near, ssrc: 1, seq: 1, to: named}, {from: phone, ssrc: 2, seq: 1, to: named}, {from: phone, ssrc: 2, seq: 2, to: named},
			{from: near, ssrc: 1, seq: 2, to: named}, {from: phone, ssrc: 2, seq: 3, in: true, to: phone}, {from: near, ssrc: 1, seq: 3, to: phone}}},
		{"not for ever", p, []step{
			{after: 11 * time.Second, from: phone, ssrc: 1, seq: 1, to: named}, {from: phone, ssrc: 1, seq: 2, to: named}, {from: phone, ssrc: 1, seq: 3, to: named},
			{set: &p, from: phone, ssrc: 1, seq: 4, to: named}, {set: &changed, from: phone, ssrc: 1, seq: 5, to: named},
			{from: phone, ssrc: 1, seq: 6, to: named}, {from: phone, ssrc: 1, seq: 7, in: true, to: phone}}},
		{"the answer begins the time", late, []step{
			{after: time.Minute, set: &p, from: phone, ssrc: 1, seq: 1, to: named}, {from: phone, ssrc: 1, seq: 2, to: named}, {from: phone, ssrc: 1, seq: 3, in: true, to: phone}}},
		{"only once", p, []step{
			{from: phone, ssrc: 1, seq: 1, to: named}, {from: phone, ssrc: 1, seq: 2, to: named}, {from: phone, ssrc: 1, seq: 3, in: true, to: phone},
			{after: 5 * time.Second, from: near, ssrc: 1, seq: 4, to: phone}, {from: near, ssrc: 1, seq: 5, to: phone}, {from: near, ssrc: 1, seq: 6, to: phone}}},
		{"after a change, once it is silent", p, []step{
			{from: phone, ssrc: 1, seq: 1, to: named}, {from: phone, ssrc: 1, seq: 2, to: named}, {from: phone, ssrc: 1, seq: 3, in: true, to: phone},
			{after: time.Minute, set: &changed, from: phone, ssrc: 1, seq: 4, in: true, to: phone},
			{after: 20 * ms, from: near, ssrc: 1, seq: 5, to: phone}, {from: near, ssrc: 1, seq: 6, to: phone}, {from: near, ssrc: 1, seq: 7, to: phone},
			{after: 600 * ms, from: other, ssrc: 1, seq: 8, to: phone}, {from: other, ssrc: 1, seq: 9, to: phone}, {from: other, ssrc: 1, seq: 10, in: true, to: other},
			{from: phone, ssrc: 1, seq: 11, to: other}}},
		{"another named address begins anew", p, []step{
			{from: phone, ssrc: 1, seq: 1, to: named}, {from: phone, ssrc: 1, seq: 2, to: named}, {from: phone, ssrc: 1, seq: 3, in: true, to: phone},
			{after: time.Minute, set: &moved, from: phone, ssrc: 1, seq: 4, to: moved.Want}, {from: phone, ssrc: 1, seq: 5, to: moved.Want},
			{from: phone, ssrc: 1, seq: 6, in: true, to: phone}}},
	} {
		t.Run(tt.name, func(t *testing.T) { run(t, tt.p, tt.steps) })
	}
}

// A source on its way is not pushed aside by a crowd that begins.
func TestACrowdDoesNotKeepAPhoneOut(t *testing.T) {
	var g Gate
	g.Set(natured, 0)
	crowd := func(n int) {
		for i := range n {
			g.Take(netip.AddrPortFrom(near.Addr(), uint16(1024+i)), uint32(i), uint16(i), time.Millisecond)
		}
	}
	g.Take(phone, 1, 1, 0)
	g.Take(phone, 1, 2, 0)
	crowd(1000)
	if !g.Take(phone, 1, 3, 20*time.Millisecond) || g.To() != phone {
		t.Error("the phone was kept out")
	}
}

func TestRTCPFollowsRTP(t *testing.T) {
	var g Gate
	now := time.Duration(0)
	p := natured
	p.Want = at("10.0.0.5:4001")
	g.Set(p, now)
	if g.May(far) || g.May(phone) && g.Control(phone, now) || g.To() != p.Want || !g.Control(p.Want, now) {
		t.Error("before RTP came from elsewhere RTCP did")
	}
	g.Follow(phone.Addr())
	third := at("203.0.113.9:7")
	for _, s := range []struct {
		after time.Duration
		from  netip.AddrPort
		in    bool
		to    netip.AddrPort
	}{
		{0, far, false, p.Want}, {0, near, false, p.Want},
		{0, other, false, p.Want}, {4 * time.Second, other, false, p.Want}, // it could be anybody
		{0, third, false, p.Want}, {3 * time.Second, other, false, p.Want}, {4 * time.Second, other, false, p.Want},
		{2 * time.Second, other, true, other}, {0, third, false, other}, {time.Hour, third, false, other},
		{time.Hour, other, true, other}, {0, p.Want, true, other}, {0, near, false, other},
	} {
		now += s.after
		if got := g.May(s.from) && g.Control(s.from, now); got != s.in || g.To() != s.to {
			t.Errorf("after %v from %v: let in %v, ours go to %v", now, s.from, got, g.To())
		}
	}
	g.Follow(phone.Addr())
	if g.To() != other {
		t.Error("following the same address begins anew")
	}
	g.Follow(netip.Addr{})
	if g.To() != p.Want || g.May(other) && g.Control(other, now) {
		t.Error("RTCP goes on elsewhere though RTP does not")
	}
}

// A thousand trials of random attacks (RELIABILITY G7): before the latch from outside, after
// it from anywhere, with the phone's SSRC and next numbers, with changes of the description
// in between: nothing comes in, nothing goes out to the attacker.
func TestThousandAttacks(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for trial := range 1000 {
		var g Gate
		p, now, seq := natured, time.Duration(0), uint16(rng.Uint32())
		g.Set(p, now)
		attack := func(latched bool) {
			for range rng.IntN(20) {
				from := netip.AddrPortFrom(far.Addr(), uint16(rng.IntN(65536)))
				if latched && rng.IntN(2) == 0 {
					from = netip.AddrPortFrom([]netip.Addr{phone.Addr(), near.Addr(), named.Addr()}[rng.IntN(3)], uint16(1024+rng.IntN(60000)))
				}
				for i := range uint16(4) {
					if from != phone && g.May(from) && g.Take(from, 1, seq+1+i, now) {
						t.Fatalf("trial %d: %v came in", trial, from)
					}
				}
			}
			if to := g.To(); to != phone && to != named {
				t.Fatalf("trial %d: packets go to %v", trial, to)
			}
		}
		for i := range 100 {
			now += 20 * ms
			attack(i >= 5)
			if i >= 2 {
				seq++
				if g.Take(phone, 1, seq, now) != (i >= 4) {
					t.Fatalf("trial %d: the phone's packet %d", trial, i)
				}
			}
			if i > 10 && rng.IntN(30) == 0 {
				p.Version++
				g.Set(p, now)
			}
		}
	}
}

func BenchmarkTake(b *testing.B) {
	var g Gate
	g.Set(natured, 0)
	for i := range uint16(3) {
		g.Take(phone, 1, i, 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !g.May(phone) || !g.Take(phone, 1, 4, 1) {
			b.Fatal("not let in")
		}
	}
}
