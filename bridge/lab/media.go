package lab

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"sparkle/sip/sdp"
)

// Media is what a handset says, hears and sees in one call. Package phone has the real
// one. The handset calls it from one goroutine, Close last and only once.
type Media interface {
	// Open binds the sockets and says where they receive; ports are even, RTCP is one
	// above.
	Open() (ip string, audioPort, videoPort int, err error)
	// Start begins to send and receive as agreed. videoOn is false for a phone whose
	// camera is off or that refused video.
	Start(r sdp.Result, videoOn bool) error
	// Update follows a changed agreement: hold, video off, a new address.
	Update(r sdp.Result) error
	SendDTMF(digit rune)
	Close()
}

// MediaFactory makes the media of one call of a handset.
type MediaFactory func(HandsetOptions) (Media, error)

// Silent is a Media that sends nothing and counts what arrives. Its sockets are real,
// so nobody else gets the packets of its calls.
type Silent struct {
	conns          []*net.UDPConn // audio, audio RTCP, video, video RTCP
	wg             sync.WaitGroup
	packets        [4]atomic.Uint64
	starts, update atomic.Int64
}

// NewSilent is a MediaFactory.
func NewSilent(HandsetOptions) (Media, error) { return &Silent{}, nil }

// Open implements Media.
func (s *Silent) Open() (string, int, int, error) {
	ip := net.IPv4(127, 0, 0, 1)
	audio, err := s.pair(ip)
	if err != nil {
		return "", 0, 0, err
	}
	video, err := s.pair(ip)
	if err != nil {
		s.Close()
		return "", 0, 0, err
	}
	for i, c := range s.conns {
		s.wg.Go(func() {
			buf := make([]byte, 2048)
			for {
				if _, _, err := c.ReadFromUDPAddrPort(buf); err != nil {
					return
				}
				s.packets[i].Add(1)
			}
		})
	}
	return ip.String(), audio, video, nil
}

// pair binds an even port and the odd one above it.
func (s *Silent) pair(ip net.IP) (int, error) {
	for range 100 {
		a, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
		if err != nil {
			return 0, err
		}
		port := a.LocalAddr().(*net.UDPAddr).Port
		if port%2 == 0 {
			b, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: port + 1})
			if err == nil {
				s.conns = append(s.conns, a, b)
				return port, nil
			}
		}
		a.Close()
	}
	return 0, fmt.Errorf("no two free ports beside each other on %v", ip)
}

// Start implements Media.
func (s *Silent) Start(sdp.Result, bool) error { s.starts.Add(1); return nil }

// Update implements Media.
func (s *Silent) Update(sdp.Result) error { s.update.Add(1); return nil }

// SendDTMF implements Media; Silent is silent.
func (s *Silent) SendDTMF(rune) {}

// Packets is how many datagrams came to the audio and the video port.
func (s *Silent) Packets() (audio, video uint64) { return s.packets[0].Load(), s.packets[2].Load() }

// Close implements Media.
func (s *Silent) Close() {
	for _, c := range s.conns {
		c.Close()
	}
	s.wg.Wait()
}

// addrOf reads the address that a Media says.
func addrOf(ip string) (netip.Addr, error) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return a, fmt.Errorf("media address: %w", err)
	}
	return a, nil
}
