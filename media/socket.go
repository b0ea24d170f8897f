package media

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The worker's view of the kernel: non-blocking datagram sockets read and written
// many packets per call, without allocation. x/sys/unix has no recvmmsg, so the two
// calls are made here. They never block, hence RawSyscall: the scheduler need not
// know.

const (
	rxReady = 256  // sockets that one call reads a packet from each
	rxBatch = 16   // packets per recvmmsg of one socket; more are taken by the next call
	rxSize  = 2048 // larger datagrams are truncated, flagged and dropped as malformed
	ctlSize = 32   // of control data: the kernel's time of arrival
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// reader takes the packets of a tick: one from each socket that has any with a single call,
// through io_uring where the kernel allows it (BenchmarkReceive), and what more there is
// socket by socket.
type reader struct {
	ring *ring // nil: all socket by socket
	hdr  []mmsghdr
	iov  []unix.Iovec
	from []unix.RawSockaddrInet6 // large enough for both families
	ctl  [][ctlSize]byte
	buf  [][rxSize]byte
	used int   // headers that the last call wrote into
	skew int64 // monotonic less real time, ns
}

func newReader(opt Options) *reader {
	r, n := &reader{}, rxBatch
	if !opt.PlainSockets {
		var err error
		if r.ring, err = newRing(rxReady); err != nil {
			opt.Log.Debug("packets are received socket by socket", "err", err)
		} else {
			n = rxReady
		}
	}
	r.hdr, r.iov, r.from = make([]mmsghdr, n), make([]unix.Iovec, n), make([]unix.RawSockaddrInet6, n)
	r.ctl, r.buf = make([][ctlSize]byte, n), make([][rxSize]byte, n)
	for i := range r.hdr {
		r.iov[i].Base = &r.buf[i][0]
		r.iov[i].SetLen(rxSize)
		r.hdr[i].hdr.Iov = &r.iov[i]
		r.hdr[i].hdr.SetIovlen(1)
		r.hdr[i].hdr.Name = (*byte)(unsafe.Pointer(&r.from[i]))
		r.hdr[i].hdr.Control = &r.ctl[i][0]
	}
	r.used = n
	return r
}

func (r *reader) close() {
	if r.ring != nil {
		r.ring.close()
	}
}

// fresh makes headers ready for the next call.
func (r *reader) fresh() {
	for i := range r.used {
		r.hdr[i].hdr.Namelen = unix.SizeofSockaddrInet6
		r.hdr[i].hdr.SetControllen(ctlSize)
	}
	r.used = 0
}

// ask queues the taking of the i-th packet, from fd.
func (r *reader) ask(i, fd int) { r.ring.recvmsg(i, fd, &r.hdr[i].hdr) }

// take takes the first n packets, which were asked for. got hears of those that were there.
func (r *reader) take(n int, got func(i int)) {
	r.used = n
	r.ring.submit(n) // what it does not do is still there when the sockets are looked at again
	for {
		i, res, ok := r.ring.result()
		if !ok {
			return
		}
		if res >= 0 { // else EAGAIN, or an ICMP error that belongs to something we sent
			r.hdr[i].len = uint32(res)
			got(i)
		}
	}
}

// stamp asks the kernel for the time at which each packet arrives, so that a socket that
// is read once a tick says as well as one that is waited for how regular its packets are.
func stamp(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
}

// begin is called before the sockets are read. now is the engine's clock, monotonic.
func (r *reader) begin(now int64) {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &ts)
	r.skew = now - ts.Nano()
}

// arrival is when the i-th datagram of the last read came, by the engine's clock: not
// after now, and not more than two ticks before it, whoever sets the wall clock meanwhile.
func (r *reader) arrival(i int, now int64) int64 {
	c := &r.ctl[i]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
	if r.hdr[i].hdr.Controllen < unix.SizeofCmsghdr+16 || h.Level != unix.SOL_SOCKET || h.Type != unix.SO_TIMESTAMPNS {
		return now
	}
	ts := (*unix.Timespec)(unsafe.Pointer(&c[unix.SizeofCmsghdr]))
	return min(max(ts.Nano()+r.skew, now-2*int64(tickTime)), now)
}

// read takes up to rxBatch datagrams from fd; 0 when there are none.
func (r *reader) read(fd int) int {
	r.fresh()
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.hdr[0])),
		rxBatch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0 // EAGAIN, or an ICMP error that belongs to something we sent
	}
	r.used = int(n)
	return int(n)
}

// packet is the i-th datagram of the last read and where it came from. ok is false if
// it did not fit.
func (r *reader) packet(i int) (b []byte, from netip.AddrPort, ok bool) {
	h := &r.hdr[i]
	return r.buf[i][:h.len], addrPort(&r.from[i]), h.hdr.Flags&unix.MSG_TRUNC == 0
}

func addrPort(raw *unix.RawSockaddrInet6) netip.AddrPort {
	p := (*[2]byte)(unsafe.Pointer(&raw.Port))
	port := uint16(p[0])<<8 | uint16(p[1])
	if raw.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(raw.Addr), port)
}

// sockaddr is a destination in the kernel's form.
type sockaddr struct {
	raw unix.RawSockaddrInet6
	len uint32
}

func toSockaddr(a netip.AddrPort) sockaddr {
	var s sockaddr
	if a.Addr().Is4() {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		four.Family = unix.AF_INET
		four.Addr = a.Addr().As4()
		s.len = unix.SizeofSockaddrInet4
	} else {
		s.raw.Family = unix.AF_INET6
		s.raw.Addr = a.Addr().As16()
		s.len = unix.SizeofSockaddrInet6
	}
	p := (*[2]byte)(unsafe.Pointer(&s.raw.Port))
	p[0], p[1] = byte(a.Port()>>8), byte(a.Port())
	return s
}

// sendTo sends one datagram and says whether the kernel took it.
func sendTo(fd int, b []byte, to *sockaddr) bool {
	for range 2 {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(&to.raw)), uintptr(to.len))
		switch errno {
		case 0:
			return true
		case unix.ECONNREFUSED:
			continue // an earlier packet met a closed port; this one has not been tried
		}
		return false
	}
	return false
}

// poller waits for nothing: it asks which sockets have packets.
type poller struct {
	fd     int
	events [rxReady]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &poller{fd: fd}, nil
}

// add watches fd; the events carry slot and rtcp.
func (p *poller) add(fd int, slot int32, rtcp bool) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: slot}
	if rtcp {
		ev.Pad = 1
	}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev)
}

func (p *poller) remove(fd int) { _ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) }

// ready returns how many of events are filled.
func (p *poller) ready() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
		uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (p *poller) close() { unix.Close(p.fd) }
