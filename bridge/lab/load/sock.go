package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's batch calls, which x/sys/unix does not have. None of them blocks, hence
// RawSyscall: the scheduler need not know.

const (
	rxBatch = 32
	rxSize  = 512 // octets kept of a datagram: every audio frame and report fits
	ctlSize = 64  // of control data: one timestamp
	// rxWant is the receive buffer: a second of 64 legs.
	rxWant = 4 << 20
)

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// socket is a UDP socket on loopback with the buffers of its batch calls.
type socket struct {
	fd   int
	port uint16

	rx     [rxBatch]mmsghdr
	rxIov  [rxBatch]unix.Iovec
	rxFrom [rxBatch]unix.RawSockaddrInet4
	rxBuf  [rxBatch][rxSize]byte
	rxCtl  [rxBatch][ctlSize]byte

	tx     []mmsghdr // filled from the front by queue
	txIov  [][2]unix.Iovec
	queued int
}

// newPair binds an even port for RTP, whose queue holds batch packets, and the odd one above
// it for RTCP.
func newPair(batch int) (media, control *socket, err error) {
	for range 200 {
		if media, err = newSocket(batch, 0); err != nil {
			return nil, nil, err
		}
		if media.port%2 == 0 {
			if control, err = newSocket(0, media.port+1); err == nil {
				return media, control, nil
			}
		}
		media.close()
	}
	return nil, nil, errors.New("load: no two free ports beside each other")
}

// newSocket binds a port, 0: an ephemeral one; batch is how many packets queue can hold.
func newSocket(batch int, port uint16) (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("load: socket: %w", err)
	}
	s := &socket{fd: fd, tx: make([]mmsghdr, batch), txIov: make([][2]unix.Iovec, batch)}
	if err := s.setup(port); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("load: socket: %w", err)
	}
	for i := range s.rx {
		h := &s.rx[i].hdr
		s.rxIov[i].Base = &s.rxBuf[i][0]
		s.rxIov[i].SetLen(rxSize)
		h.Iov = &s.rxIov[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&s.rxFrom[i]))
		h.Control = &s.rxCtl[i][0]
	}
	for i := range s.tx {
		h := &s.tx[i].hdr
		h.Iov = &s.txIov[i][0]
		h.SetIovlen(2)
		h.Namelen = unix.SizeofSockaddrInet4
	}
	return s, nil
}

func (s *socket) setup(port uint16) error {
	// Beyond net.core.rmem_max where we may, else as large as it gets: what overflows is
	// counted.
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, rxWant) != nil {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, rxWant); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return err
	}
	if err := unix.Bind(s.fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	a, err := unix.Getsockname(s.fd)
	if err != nil {
		return err
	}
	s.port = uint16(a.(*unix.SockaddrInet4).Port)
	return nil
}

func (s *socket) close() { unix.Close(s.fd) }

// queue adds a packet of two parts for the next flush; false when the batch is full.
func (s *socket) queue(head, body []byte, to *unix.RawSockaddrInet4) bool {
	if s.queued == len(s.tx) {
		return false
	}
	iov := &s.txIov[s.queued]
	iov[0].Base = unsafe.SliceData(head)
	iov[0].SetLen(len(head))
	iov[1].Base = unsafe.SliceData(body)
	iov[1].SetLen(len(body))
	s.tx[s.queued].hdr.Name = (*byte)(unsafe.Pointer(to))
	s.queued++
	return true
}

// flush sends what is queued and says how many the kernel took and refused.
func (s *socket) flush() (sent, refused int) {
	for at := 0; at < s.queued; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.tx[at])),
			uintptr(s.queued-at), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == 0:
			sent += int(n)
			at += int(n)
		case errno == unix.EINTR:
		default:
			refused++
			at++
		}
	}
	s.queued = 0
	return sent, refused
}

// read takes up to rxBatch packets; 0 when there are none.
func (s *socket) read() int {
	for i := range s.rx {
		s.rx[i].hdr.Namelen = unix.SizeofSockaddrInet4
		s.rx[i].hdr.SetControllen(ctlSize)
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.rx[0])),
			rxBatch, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EINTR, unix.ECONNREFUSED: // the latter: something we sent met a closed port
			continue
		}
		return 0
	}
}

// packet is the i-th of the last read: its octets, the port it came from, and when the
// kernel received it (ns of CLOCK_REALTIME; 0 if it did not say).
func (s *socket) packet(i int) (b []byte, from uint16, at int64) {
	h := &s.rx[i]
	p := (*[2]byte)(unsafe.Pointer(&s.rxFrom[i].Port))
	return s.rxBuf[i][:min(h.len, rxSize)], uint16(p[0])<<8 | uint16(p[1]), stamp(s.rxCtl[i][:min(h.hdr.Controllen, ctlSize)])
}

// stamp finds SCM_TIMESTAMPNS in control data; 0: it is not there.
func stamp(ctl []byte) int64 {
	const head = unix.SizeofCmsghdr
	for len(ctl) >= head {
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(ctl)))
		n := int(h.Len)
		if n < head || n > len(ctl) {
			return 0
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && n >= head+16 {
			sec, ns := binary.NativeEndian.Uint64(ctl[head:]), binary.NativeEndian.Uint64(ctl[head+8:])
			return int64(sec)*1e9 + int64(ns)
		}
		ctl = ctl[min(unix.CmsgSpace(n-head), len(ctl)):]
	}
	return 0
}

// overflow is how many packets did not fit into the receive buffer so far.
func (s *socket) overflow() uint64 {
	var info [16]uint32 // SK_MEMINFO_VARS and some
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[unix.SK_MEMINFO_DROPS])
}

func sockaddr(a netip.AddrPort) unix.RawSockaddrInet4 {
	r := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
	p := (*[2]byte)(unsafe.Pointer(&r.Port))
	p[0], p[1] = byte(a.Port()>>8), byte(a.Port())
	return r
}

// clock reads a kernel clock in nanoseconds.
func clock(id int32) int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(id, &ts)
	return ts.Nano()
}

// sleepUntil sleeps to an absolute instant of CLOCK_MONOTONIC.
func sleepUntil(at int64) {
	ts := unix.NsecToTimespec(at)
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
	}
}

// goRealtime gives the calling thread, which must be locked, SCHED_FIFO below the
// engine's priority of 20, so that what is measured is the engine and not us.
func goRealtime() bool {
	param := struct{ priority int32 }{10}
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, 1, uintptr(unsafe.Pointer(&param)))
	runtime.KeepAlive(&param)
	return errno == 0
}
