package load

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sparkle/sip"
)

// flood is a user agent as a control process has it, and a peer that asks it with OPTIONS
// far more often than keep-alives do.
type flood struct {
	ua       *sip.UA
	peer     *net.UDPConn
	to       *net.UDPAddr
	sent     atomic.Uint64
	answered atomic.Uint64
	wg       sync.WaitGroup
}

// startFlood begins to ask, rate times a second, until ctx ends. close must be called then.
func startFlood(ctx context.Context, rate int) (*flood, error) {
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	_ = peer.SetReadBuffer(rxWant) // smaller is no error: what overflows is not counted as answered
	// Every message is let in: refused by the limit of a peer it would cost next to nothing.
	ua, err := sip.New(sip.Options{Attachments: []sip.AttachmentOptions{{
		Name: "flood", Mode: sip.ModeTrunk, Transport: "udp", LocalAddr: "127.0.0.1", Domain: "flood.invalid",
		IMPU: "sip:sparkle@flood.invalid", Targets: []string{peer.LocalAddr().String()}, OptionsInterval: -1, PeerRate: 100 * float64(rate),
	}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		peer.Close()
		return nil, fmt.Errorf("load: %w", err)
	}
	to, err := net.ResolveUDPAddr("udp4", ua.Attachments()[0].LocalAddr)
	f := &flood{ua: ua, peer: peer, to: to}
	if err != nil {
		f.close()
		return nil, fmt.Errorf("load: %w", err)
	}
	f.wg.Go(func() { f.ask(ctx, rate) })
	f.wg.Go(f.count)
	return f, nil
}

// floodBeat is how often what is due is sent: at 5,000 a second, ten at a time.
const floodBeat = 2 * time.Millisecond

func (f *flood) ask(ctx context.Context, rate int) {
	beat := time.NewTicker(floodBeat)
	defer beat.Stop()
	start, from := time.Now(), f.peer.LocalAddr().String()
	var msg []byte
	for n := uint64(1); ; {
		select {
		case <-beat.C:
		case <-ctx.Done():
			return
		}
		for due := uint64(time.Since(start).Seconds() * float64(rate)); n <= due; n++ {
			msg = fmt.Appendf(msg[:0], "OPTIONS sip:sparkle@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bK%d\r\nMax-Forwards: 70\r\n"+
				"From: <sip:peer@flood.invalid>;tag=%d\r\nTo: <sip:sparkle@flood.invalid>\r\nCall-ID: %d@flood.invalid\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
				f.to, from, n, n, n)
			if _, err := f.peer.WriteToUDP(msg, f.to); err == nil {
				f.sent.Add(1)
			}
		}
	}
}

func (f *flood) count() {
	const ok = "SIP/2.0 200"
	buf := make([]byte, 64<<10)
	for {
		n, err := f.peer.Read(buf)
		if err != nil {
			return
		}
		if n > len(ok) && string(buf[:len(ok)]) == ok {
			f.answered.Add(1)
		}
	}
}

// close ends it and waits; the context that it was started with has ended.
func (f *flood) close() {
	f.peer.Close()
	f.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = f.ua.Close(ctx)
}
