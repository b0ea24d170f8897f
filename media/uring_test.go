package media

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sparkle/media/port"
)

// peers are legs with sockets of their own, each with a phone's socket to send to.
func peers(t testing.TB, n int) (legs []*leg, phones []*net.UDPConn) {
	t.Helper()
	pool, err := port.NewPool(port.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		pair, err := pool.OpenPair(netip.MustParseAddr("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		phone := listenUDP(t)
		t.Cleanup(func() { pair.Close(); phone.Close() })
		l := newLeg(fmt.Sprint(i), pair, 0)
		l.st = &stream{}
		l.to[0] = toSockaddr(addrOf(phone))
		legs, phones = append(legs, l), append(phones, phone)
	}
	return legs, phones
}

// Both ways of sending deliver every packet to whom it is for, more than fit into one call
// too, and count what they did.
func TestSenders(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			s := newSender(Options{PlainSockets: plain}.withDefaults())
			defer s.close()
			if !plain && s.ring == nil {
				t.Log("this kernel has no io_uring for us: the plain way is tested twice")
			}
			legs, phones := peers(t, ringSize+50)
			for round := range 5 {
				for i, l := range legs {
					l.tx[0], l.tx[1], l.tx[2] = byte(i), byte(i>>8), byte(round)
					s.send(l, 20+i%50)
				}
				s.flush()
			}
			for i, p := range phones {
				n := 0
				recv(p, func(b []byte) {
					n++
					if got := int(b[0]) | int(b[1])<<8; got != i || len(b) != 20+i%50 {
						t.Fatalf("phone %d got %d octets for %d", i, len(b), got)
					}
				})
				if n != 5 {
					t.Fatalf("phone %d got %d packets, want 5", i, n)
				}
				if l := legs[i]; l.txCount != 5 || l.refused != 0 || l.txBytes != 5*uint64(20+i%50-12) {
					t.Fatalf("leg %d counts %d packets, %d octets, %d refused", i, l.txCount, l.txBytes, l.refused)
				}
			}
		})
	}
}

// A port that closed must not cost the packet after it, nor anybody else's.
func TestSendersAfterARefusal(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			s := newSender(Options{PlainSockets: plain}.withDefaults())
			defer s.close()
			legs, phones := peers(t, 3)
			to := addrOf(phones[1])
			phones[1].Close()
			for range 3 { // each meets the ICMP error of the one before
				for _, l := range legs {
					s.send(l, 20)
				}
				s.flush()
			}
			back, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(to))
			if err != nil {
				t.Skip("the port was taken by somebody else meanwhile")
			}
			defer back.Close()
			for _, l := range legs {
				s.send(l, 20)
			}
			s.flush()
			for i, p := range []*net.UDPConn{phones[0], back, phones[2]} {
				n := 0
				recv(p, func([]byte) { n++ })
				if want := []int{4, 1, 4}[i]; n != want {
					t.Errorf("phone %d got %d packets, want %d", i, n, want)
				}
			}
		})
	}
}

func TestSendingDoesNotAllocate(t *testing.T) {
	for _, plain := range []bool{false, true} {
		s := newSender(Options{PlainSockets: plain}.withDefaults())
		legs, _ := peers(t, 20)
		if n := testing.AllocsPerRun(50, func() {
			for _, l := range legs {
				s.send(l, 75)
			}
			s.flush()
		}); n != 0 {
			t.Errorf("plain=%v: %v allocations", plain, n)
		}
		s.close()
	}
}

// BenchmarkSend is the choice between the two ways: CPU time a packet, with a receiver on
// loopback whose half of the work the kernel does within the call.
func BenchmarkSend(b *testing.B) {
	const n = 500
	for _, plain := range []bool{false, true} {
		b.Run(fmt.Sprintf("plain=%v", plain), func(b *testing.B) {
			s := newSender(Options{PlainSockets: plain}.withDefaults())
			defer s.close()
			legs, phones := peers(b, n)
			var cpu int64
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for b.Loop() {
				from := threadCPU()
				for _, l := range legs {
					s.send(l, 75)
				}
				s.flush()
				cpu += threadCPU() - from
				for _, p := range phones {
					recv(p, func([]byte) {})
				}
			}
			b.ReportMetric(float64(cpu)/float64(b.N)/n/1000, "µs/packet")
		})
	}
}

// Both ways of receiving take every packet, in order: one or many from a socket, more sockets
// than fit into a call, and no more of a flood than a share.
func TestReaders(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			a := newAir(t, Options{PlainSockets: plain})
			a.set(confC())
			const n = rxReady + 50
			for i := range n {
				a.join("c", fmt.Sprint("leg", i), pcmu, 0)
			}
			w := a.e.workers[0]
			if !plain && w.rx.ring == nil {
				t.Log("this kernel has no io_uring for us: the plain way is tested twice")
			}
			burst := func(i int) int { return 1 + i%3*3 } // 1, 4 or 7 packets
			a.now += int64(time.Second)
			for i, p := range a.phones {
				for range burst(i) {
					p.talk()
				}
				p.arrive()
			}
			w.receive(a.now)
			for i, p := range a.phones {
				l := a.e.legs[p.leg.Id].leg.Load()
				if got := l.rx.Received; got != uint64(burst(i)) || l.jb.Late+l.jb.Duplicate != 0 {
					t.Fatalf("leg %d got %d packets, want %d; %+v", i, got, burst(i), l.jb.Counters)
				}
			}
			flooder := a.phones[3]
			l := a.e.legs[flooder.leg.Id].leg.Load()
			before := l.rx.Received
			for range 200 {
				flooder.talk()
			}
			flooder.arrive()
			w.receive(a.now)
			if got := l.rx.Received - before; got < 16 || got > 4*rxBatch*(2+2*n/rxReady) {
				t.Errorf("%d packets of a flood in a beat", got)
			}
		})
	}
}

// BenchmarkReceive is the choice between the two ways: CPU time a packet, one from each of
// many phones.
func BenchmarkReceive(b *testing.B) {
	const n = 500
	for _, plain := range []bool{false, true} {
		b.Run(fmt.Sprintf("plain=%v", plain), func(b *testing.B) {
			a := newAir(b, Options{PlainSockets: plain})
			a.set(confC())
			for i := range n {
				a.join("c", fmt.Sprint("leg", i), pcmu, 0)
			}
			w := a.e.workers[0]
			var cpu int64
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for b.Loop() {
				a.now += int64(tickTime)
				for _, p := range a.phones {
					p.talk()
					p.arrive()
				}
				from := threadCPU()
				w.receive(a.now)
				cpu += threadCPU() - from
			}
			b.ReportMetric(float64(cpu)/float64(b.N)/n/1000, "µs/packet")
		})
	}
}

func threadCPU() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return ts.Nano()
}
