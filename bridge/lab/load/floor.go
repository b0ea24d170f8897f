package load

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sparkle/media/codec/amr"
)

// prices are what this machine asks for the things that no engine can do without: CPU time
// of one each, with nothing else to do. They make machines comparable: see Result.floor.
type prices struct {
	encode, decode time.Duration // of a frame, over as many coders as a few conferences have
	send, receive  time.Duration // of a packet on loopback, many in a system call
}

// priceRounds are measured and the best is taken: a machine with others on it only adds.
const priceRounds = 5

// pricesOf measures, on a thread of its own, for about a fifth of a second.
func pricesOf(c Codec) (p prices, err error) {
	done := make(chan struct{})
	go func() { // not unlocked: its CPU clock is the thread's
		defer close(done)
		runtime.LockOSThread()
		if c.amr() {
			err = p.code(c)
		}
		if err == nil {
			err = p.carry(c)
		}
	}()
	<-done
	if err != nil {
		return prices{}, fmt.Errorf("load: prices: %w", err)
	}
	return p, nil
}

// spent is the thread's CPU time in f, divided by n; the best of priceRounds.
func spent(n int, f func()) time.Duration {
	var rounds []int64
	for range priceRounds {
		from := clock(unix.CLOCK_THREAD_CPUTIME_ID)
		f()
		rounds = append(rounds, clock(unix.CLOCK_THREAD_CPUTIME_ID)-from)
	}
	return time.Duration(slices.Min(rounds)) / time.Duration(n)
}

func (p *prices) code(c Codec) error {
	const coders, frames = 16, 96
	pcm := Speech(2, frames*320)
	var encoders [coders]*amr.Encoder
	var decoders [coders]*amr.Decoder
	for i := range coders {
		var err error
		if encoders[i], err = amr.NewEncoder(true, false); err != nil {
			return err
		}
		defer encoders[i].Close()
		if decoders[i], err = amr.NewDecoder(true); err != nil {
			return err
		}
		defer decoders[i].Close()
	}
	var bits [frames][amr.MaxBytes]byte
	var coded [frames]amr.Frame
	p.encode = spent(frames, func() {
		for n := range frames {
			coded[n] = encoders[n%coders].Encode(c.mode, pcm[n*320:(n+1)*320], bits[n][:])
		}
	})
	out := make([]int16, 320)
	p.decode = spent(frames, func() {
		for n := range frames {
			decoders[n%coders].Decode(coded[n], out)
		}
	})
	return nil
}

func (p *prices) carry(c Codec) error {
	const packets = 10 * rxBatch
	from, err := newSocket(packets, 0)
	if err != nil {
		return err
	}
	defer from.close()
	to, err := newSocket(0, 0)
	if err != nil {
		return err
	}
	defer to.close()
	head, body := make([]byte, 12), make([]byte, 160)
	if c.amr() {
		body = body[:amr.Bytes(true, uint8(c.mode))+1] // RFC 4867: ten bits more than the frame
	}
	addr := sockaddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.port))
	sent, got := 0, 0
	send := func() {
		for range packets {
			from.queue(head, body, &addr)
		}
		sent, _ = from.flush()
	}
	receive := func() {
		for got = 0; ; {
			n := to.read()
			got += n
			if n < rxBatch {
				return
			}
		}
	}
	p.send, p.receive = time.Hour, time.Hour
	for range priceRounds {
		at := clock(unix.CLOCK_THREAD_CPUTIME_ID)
		send()
		mid := clock(unix.CLOCK_THREAD_CPUTIME_ID)
		receive()
		end := clock(unix.CLOCK_THREAD_CPUTIME_ID)
		if sent == 0 || got == 0 {
			return fmt.Errorf("%d packets were sent on loopback, %d came", sent, got)
		}
		p.send = min(p.send, time.Duration(mid-at)/time.Duration(sent))
		p.receive = min(p.receive, time.Duration(end-mid)/time.Duration(got))
	}
	return nil
}

// floor is what the engine's work in the window would have cost at these prices: the frames
// it coded, the packets that came to it and that it sent.
func (r *Result) floor(p prices) time.Duration {
	return time.Duration(r.Engine.Encodes)*p.encode + time.Duration(r.Engine.Decodes)*p.decode +
		time.Duration(r.Sent)*p.receive + time.Duration(r.Frames)*p.send
}
