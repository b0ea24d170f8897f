package port

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// smallRange finds pairs consecutive even/odd ports that nobody holds now.
func smallRange(t *testing.T, pairs int) (minPort, maxPort uint16) {
	t.Helper()
	eph, err := NewPool(Options{})
	if err != nil {
		t.Fatal(err)
	}
search:
	for range 100 {
		first, err := eph.OpenPair(loopback)
		if err != nil {
			t.Fatal(err)
		}
		first.Close()
		if int(first.Port)+2*pairs > 65000 {
			continue
		}
		for i := range pairs {
			q, err := eph.bind(loopback, first.Port+uint16(2*i))
			if err != nil {
				continue search
			}
			q.Close()
		}
		return first.Port, first.Port + uint16(2*pairs) - 1
	}
	t.Fatal("no free range found")
	return 0, 0
}

func fds(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd")
	}
	return len(d)
}

func TestPairsAreEvenOddAndRest(t *testing.T) {
	now := time.Unix(1000, 0)
	lo, hi := smallRange(t, 3)
	p, err := NewPool(Options{Min: lo, Max: hi, Quarantine: 10 * time.Second, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	before := fds(t)
	var got []*Pair
	seen := map[uint16]bool{}
	for range 3 {
		q, err := p.OpenPair(loopback)
		if err != nil {
			t.Fatal(err)
		}
		if q.Port%2 != 0 || seen[q.Port] {
			t.Errorf("port %d: odd or given out twice", q.Port)
		}
		seen[q.Port] = true
		got = append(got, q)
	}
	if _, err := p.OpenPair(loopback); !errors.Is(err, ErrExhausted) {
		t.Errorf("fourth of three pairs: %v, want ErrExhausted", err)
	}
	first := got[0].Port
	got[0].Close()
	got[0].Close() // again: nothing
	now = now.Add(9 * time.Second)
	if _, err := p.OpenPair(loopback); !errors.Is(err, ErrExhausted) {
		t.Errorf("in quarantine: %v, want ErrExhausted", err)
	}
	now = now.Add(time.Second)
	q, err := p.OpenPair(loopback)
	if err != nil || q.Port != first {
		t.Fatalf("after quarantine: %v, %v, want port %d", q, err, first)
	}
	q.Close()
	got[1].Close()
	got[2].Close()
	if n := fds(t); n != before {
		t.Errorf("%d descriptors open, %d before", n, before)
	}
	if p.Open() != 0 {
		t.Errorf("%d pairs out, want 0", p.Open())
	}
	now = now.Add(10 * time.Second)
	if p.Free() != 3 {
		t.Errorf("%d free, want 3: nothing may be lost", p.Free())
	}
}

func TestPortsOfOthersAreSkipped(t *testing.T) {
	lo, hi := smallRange(t, 2)
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(lo) + 1})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	p, err := NewPool(Options{Min: lo, Max: hi})
	if err != nil {
		t.Fatal(err)
	}
	before := fds(t)
	q, err := p.OpenPair(loopback)
	if err != nil || q.Port != lo+2 {
		t.Fatalf("got %v, %v, want port %d", q, err, lo+2)
	}
	if _, err := p.OpenPair(loopback); !errors.Is(err, ErrExhausted) {
		t.Errorf("the other's pair: %v, want ErrExhausted", err)
	}
	other.Close()
	second, err := p.OpenPair(loopback)
	if err != nil || second.Port != lo {
		t.Fatalf("after the other went: %v, %v, want port %d", second, err, lo)
	}
	q.Close()
	second.Close()
	if n := fds(t); n != before-1 {
		t.Errorf("%d descriptors, want %d", n, before-1)
	}
}

func TestConnsCarryPackets(t *testing.T) {
	p, err := NewPool(Options{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := p.OpenPair(loopback)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.SetDSCP(46); err != nil {
		t.Error(err)
	}
	if err := q.SetDSCP(64); err == nil {
		t.Error("DSCP 64 accepted")
	}
	rtp, rtcp, err := q.Conns()
	if err != nil {
		t.Fatal(err)
	}
	defer rtp.Close()
	defer rtcp.Close()
	if _, err := rtp.WriteTo([]byte("x"), rtcp.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	rtcp.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 8)
	if n, from, err := rtcp.ReadFrom(buf); err != nil || n != 1 || from.(*net.UDPAddr).Port != int(q.Port) {
		t.Errorf("read %d from %v: %v", n, from, err)
	}
	q.Close()
}

func TestWrongOptionsAndAddresses(t *testing.T) {
	for _, o := range []Options{
		{Min: 80, Max: 90},
		{Min: 5000, Max: 5000},
		{Min: 5001, Max: 5002},
		{Min: 6000, Max: 5000},
		{Quarantine: -1},
	} {
		if _, err := NewPool(o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
	p, _ := NewPool(Options{Min: 20000, Max: 20100})
	free := p.Free()
	for _, ip := range []string{"0.0.0.0", "::", "224.0.0.1", "192.0.2.1"} {
		if q, err := p.OpenPair(netip.MustParseAddr(ip)); err == nil {
			q.Close()
			t.Errorf("%s bound", ip)
		}
	}
	if _, err := p.OpenPair(netip.Addr{}); err == nil {
		t.Error("no address bound")
	}
	if p.Free() != free {
		t.Errorf("%d pairs lost", free-p.Free())
	}
}
