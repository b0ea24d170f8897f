package media

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sender sends the packets of a tick together: through io_uring where the kernel allows
// it, one system call for all sockets (a quarter cheaper, MEDIA.md §6), otherwise one call
// each, at once. The worker's.
type sender struct {
	ring *ring // nil: none
	legs []*leg
}

func newSender(opt Options) *sender {
	s := &sender{}
	if opt.PlainSockets {
		return s
	}
	r, err := newRing(ringSize)
	if err != nil {
		opt.Log.Debug("packets are sent one by one", "err", err)
		return s
	}
	s.ring = r
	s.legs = make([]*leg, 0, ringSize)
	return s
}

// send queues or sends n octets of l.tx to the leg's peer. They must stay until flush.
func (s *sender) send(l *leg, n int) {
	if s.ring == nil {
		l.sent(n, sendTo(l.pair.RTP, l.tx[:n], &l.to[0]))
		return
	}
	if len(s.legs) == ringSize {
		s.flush()
	}
	l.msg.set(l.tx[:n], &l.to[0])
	s.ring.sendmsg(len(s.legs), l.pair.RTP, &l.msg.hdr)
	s.legs = append(s.legs, l)
}

// flush sends what is queued.
func (s *sender) flush() {
	if s.ring == nil || len(s.legs) == 0 {
		return
	}
	for i := s.ring.submit(len(s.legs)); i < len(s.legs); i++ {
		s.again(i)
	}
	for {
		i, _, ok := s.ring.result() // successes are not told of
		if !ok {
			break
		}
		s.again(i) // an earlier packet may have met a closed port: this one has not been tried
	}
	for _, l := range s.legs {
		if l != nil {
			l.sent(int(l.msg.iov.Len), true)
		}
	}
	s.legs = s.legs[:0]
}

// again sends one that did not leave, by itself.
func (s *sender) again(i int) {
	l := s.legs[i]
	s.legs[i] = nil
	n := int(l.msg.iov.Len)
	l.sent(n, sendTo(l.pair.RTP, l.tx[:n], &l.to[0]))
}

func (s *sender) close() {
	if s.ring != nil {
		s.ring.close()
	}
}

// message is one datagram in the kernel's form. It may not move while it is queued, so it
// lives in its leg.
type message struct {
	hdr unix.Msghdr
	iov unix.Iovec
}

func (m *message) set(b []byte, to *sockaddr) {
	m.iov.Base = &b[0]
	m.iov.SetLen(len(b))
	m.hdr.Iov = &m.iov
	m.hdr.SetIovlen(1)
	m.hdr.Name = (*byte)(unsafe.Pointer(&to.raw))
	m.hdr.Namelen = to.len
}

// ring is an io_uring of requests that do not wait: they are done within submit, by this
// thread.
type ring struct {
	fd      int
	mem     []byte // both queues
	sqeMem  []byte
	sqes    unsafe.Pointer
	sqMask  uint32
	sqTail  *atomic.Uint32
	sqArray unsafe.Pointer
	cqHead  *atomic.Uint32
	cqTail  *atomic.Uint32
	cqMask  uint32
	cqes    unsafe.Pointer
	tail    uint32
}

// ringSize is how many packets leave in one call, rxReady how many are taken.
const ringSize = 1024

// The parts of <linux/io_uring.h> that are needed.
const (
	uringFeatSingleMmap = 1 << 0
	uringFeatCQESkip    = 1 << 11
	uringEnterGetEvents = 1 << 0
	uringOpSendmsg      = 9
	uringOpRecvmsg      = 10
	uringSQESkipSuccess = 1 << 6
	uringOffSQRing      = 0
	uringOffSQEs        = 0x10000000
)

type uringParams struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	_                                                                  [3]uint32
	sq                                                                 struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

type uringSQE struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, msgFlags uint32
	data          uint64
	_             [3]uint64
}

type uringCQE struct {
	data  uint64
	res   int32
	flags uint32
}

func newRing(entries uint32) (*ring, error) {
	p := uringParams{}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring: %w", errno)
	}
	r := &ring{fd: int(fd)}
	if p.features&uringFeatSingleMmap == 0 || p.features&uringFeatCQESkip == 0 {
		r.close()
		return nil, fmt.Errorf("io_uring: this kernel's is too old")
	}
	size := max(int(p.sq.array)+int(p.sqEntries)*4, int(p.cq.cqes)+int(p.cqEntries)*int(unsafe.Sizeof(uringCQE{})))
	var err error
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.mem, err = unix.Mmap(r.fd, uringOffSQRing, size, prot, flags); err == nil {
		r.sqeMem, err = unix.Mmap(r.fd, uringOffSQEs, int(p.sqEntries)*int(unsafe.Sizeof(uringSQE{})), prot, flags)
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("io_uring: %w", err)
	}
	at := func(off uint32) unsafe.Pointer { return unsafe.Pointer(&r.mem[off]) }
	r.sqes, r.sqArray, r.cqes = unsafe.Pointer(&r.sqeMem[0]), at(p.sq.array), at(p.cq.cqes)
	r.sqTail, r.cqHead, r.cqTail = (*atomic.Uint32)(at(p.sq.tail)), (*atomic.Uint32)(at(p.cq.head)), (*atomic.Uint32)(at(p.cq.tail))
	r.sqMask, r.cqMask = *(*uint32)(at(p.sq.mask)), *(*uint32)(at(p.cq.mask))
	r.tail = r.sqTail.Load()
	return r, nil
}

// sendmsg queues a datagram. Its index comes back if it fails.
func (r *ring) sendmsg(index, fd int, hdr *unix.Msghdr) {
	r.queue(uringSQE{opcode: uringOpSendmsg, flags: uringSQESkipSuccess, msgFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL}, index, fd, hdr)
}

// recvmsg queues the taking of a datagram.
func (r *ring) recvmsg(index, fd int, hdr *unix.Msghdr) {
	r.queue(uringSQE{opcode: uringOpRecvmsg, msgFlags: unix.MSG_DONTWAIT}, index, fd, hdr)
}

func (r *ring) queue(e uringSQE, index, fd int, hdr *unix.Msghdr) {
	e.fd, e.addr, e.len, e.data = int32(fd), uint64(uintptr(unsafe.Pointer(hdr))), 1, uint64(index)
	slot := r.tail & r.sqMask
	*(*uringSQE)(unsafe.Add(r.sqes, uintptr(slot)*unsafe.Sizeof(uringSQE{}))) = e
	*(*uint32)(unsafe.Add(r.sqArray, uintptr(slot)*4)) = slot
	r.tail++
}

// submit does the n queued requests and says how many of them, the first, it did: all, but
// for a kernel out of memory. The others are forgotten.
func (r *ring) submit(n int) (done int) {
	r.sqTail.Store(r.tail)
	for done < n {
		k, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n-done), 0, uringEnterGetEvents, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 || k == 0 {
			r.tail -= uint32(n - done)
			r.sqTail.Store(r.tail)
			break
		}
		done += int(k)
	}
	return done
}

// result takes what became of a request: its index, and octets or a negative error number;
// false when there is none left. Requests come back in the order in which they were queued.
func (r *ring) result() (index int, res int32, ok bool) {
	head := r.cqHead.Load()
	if head == r.cqTail.Load() {
		return 0, 0, false
	}
	cqe := *(*uringCQE)(unsafe.Add(r.cqes, uintptr(head&r.cqMask)*unsafe.Sizeof(uringCQE{})))
	r.cqHead.Store(head + 1)
	return int(cqe.data), cqe.res, true
}

func (r *ring) close() {
	if r.sqeMem != nil {
		_ = unix.Munmap(r.sqeMem)
	}
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
	}
	unix.Close(r.fd)
}
