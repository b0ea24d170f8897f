package hss

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	dm "sparkle/bridge/lab/ims/diameter"
)

// peer is one Diameter connection.
type peer struct {
	h    *HSS
	conn net.Conn
	host string // Origin-Host of its CER; h.mu guards it

	mu      sync.Mutex // guards writes and what follows
	hop     uint32
	pending map[uint32]chan *dm.Message // cap 1 each: one answer
}

func (h *HSS) accept() {
	for {
		c, err := h.l.Accept()
		if err != nil {
			return // closed
		}
		p := &peer{h: h, conn: c, hop: rand.Uint32(), pending: map[uint32]chan *dm.Message{}}
		h.mu.Lock()
		if h.closed {
			c.Close()
		} else {
			h.peers[p] = true
			h.wg.Go(p.run)
		}
		h.mu.Unlock()
	}
}

// run reads until the peer goes.
func (p *peer) run() {
	defer func() {
		p.conn.Close()
		p.h.mu.Lock()
		delete(p.h.peers, p)
		p.h.stir()
		p.h.mu.Unlock()
	}()
	for {
		m, err := dm.Read(p.conn)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				p.h.log.Warn("diameter peer dropped", "peer", p.conn.RemoteAddr().String(), "err", err)
			}
			return
		}
		if !m.IsRequest() {
			p.answered(m)
			continue
		}
		if err := p.write(p.answer(m)); err != nil {
			p.h.log.Warn("diameter answer not sent", "err", err)
			return
		}
		if m.Command == dm.DisconnectPeer {
			return
		}
	}
}

func (p *peer) write(m *dm.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, err := p.conn.Write(m.Bytes())
	return err
}

// answer handles the base protocol and hands the rest to Cx.
func (p *peer) answer(m *dm.Message) *dm.Message {
	if m.App == dm.Cx {
		return p.h.cx(m)
	}
	a := m.Answer()
	switch m.Command {
	case dm.CapabilitiesExchange:
		p.h.mu.Lock()
		p.host = m.AVPs.Text(dm.OriginHost, 0)
		p.h.stir()
		p.h.mu.Unlock()
		a.AVPs = append(a.AVPs, dm.Uint32(dm.ResultCode, 0, dm.Success))
		a.AVPs = append(a.AVPs, p.h.origin()...)
		a.AVPs = append(a.AVPs, address(p.conn.LocalAddr()), dm.Uint32(dm.VendorID, 0, dm.TGPP),
			dm.Bytes(dm.ProductName, 0, "Sparkle lab HSS"), dm.Uint32(dm.SupportedVendorID, 0, dm.TGPP), cxApp())
	case dm.DeviceWatchdog, dm.DisconnectPeer:
		a.AVPs = append(a.AVPs, dm.Uint32(dm.ResultCode, 0, dm.Success))
		a.AVPs = append(a.AVPs, p.h.origin()...)
	default:
		a.Flags |= dm.Error
		a.AVPs = append(a.AVPs, dm.Uint32(dm.ResultCode, 0, dm.CommandUnsupported))
		a.AVPs = append(a.AVPs, p.h.origin()...)
	}
	return a
}

// address is Host-IP-Address: family 1, and the IPv4 address (RFC 6733 §4.3.1).
func address(a net.Addr) dm.AVP {
	ip := netip.IPv4Unspecified()
	if t, ok := a.(*net.TCPAddr); ok {
		ip = t.AddrPort().Addr().Unmap()
	}
	family := uint16(1)
	if ip.Is6() {
		family = 2
	}
	return dm.Bytes(dm.HostIPAddress, 0, append(binary.BigEndian.AppendUint16(nil, family), ip.AsSlice()...))
}

func (h *HSS) origin() []dm.AVP {
	return []dm.AVP{dm.Bytes(dm.OriginHost, 0, h.o.Host), dm.Bytes(dm.OriginRealm, 0, h.o.Domain)}
}

// cxApp names Cx.
func cxApp() dm.AVP {
	return dm.Group(dm.VendorApplicationID, 0, dm.Uint32(dm.VendorID, 0, dm.TGPP), dm.Uint32(dm.AuthApplicationID, 0, dm.Cx))
}

// request sends one of our own and waits for its answer.
func (p *peer) request(ctx context.Context, m *dm.Message) (*dm.Message, error) {
	answer := make(chan *dm.Message, 1)
	p.mu.Lock()
	p.hop++
	m.HopByHop, m.EndToEnd = p.hop, p.hop
	p.pending[m.HopByHop] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.pending, m.HopByHop)
		p.mu.Unlock()
	}()
	if err := p.write(m); err != nil {
		return nil, err
	}
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer: %w", context.Cause(ctx))
	}
}

func (p *peer) answered(m *dm.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.pending[m.HopByHop]; c != nil {
		c <- m // has room: the entry goes with the first answer
		delete(p.pending, m.HopByHop)
	}
}
