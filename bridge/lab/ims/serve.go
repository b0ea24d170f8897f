package ims

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"sparkle/bridge/lab"
)

// Serve runs a core with handsets until ctx ends, for somebody who wants to connect his
// own daemon: what lab.Serve is with the simulated core. Of s.Core only Addr and Log count;
// Addr is the P-CSCF's and must be of 127.0.0.1. Without a subscriber there is one, and the
// attachment for it is printed as the daemon's configuration wants it.
func Serve(ctx context.Context, s lab.ServeOptions) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("ims: %w", err)
	}
	o := Options{Log: s.Core.Log}
	if s.Core.Addr != "" {
		at, err := netip.ParseAddrPort(s.Core.Addr)
		if err != nil || at.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
			return fmt.Errorf("ims: address %q: the core is on 127.0.0.1 only", s.Core.Addr)
		}
		o.Port = int(at.Port())
	}
	if len(s.Core.TrunkPeers) > 0 {
		return errors.New("ims: Kamailio's P-CSCF takes no trunk")
	}
	dir, err := os.MkdirTemp("", "sparkle-ims-")
	if err != nil {
		return err
	}
	o.Dir = dir
	c, err := Start(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	if len(s.Subscribers) == 0 {
		s.Subscribers = []lab.Subscriber{daemonSubscriber(c.Domain())}
	}
	for _, x := range s.Subscribers {
		if err := c.AddSubscriber(x); err != nil {
			return err
		}
	}
	roster := s.Handsets
	if roster == nil {
		roster = lab.DemoRoster()
	}
	var hs []*lab.Handset
	for _, h := range roster {
		if h.Media == nil {
			h.Media = s.Media
		}
		x, err := c.AddHandset(h)
		if err != nil {
			return err
		}
		hs = append(hs, x)
	}
	if s.Out != nil {
		if err := c.describe(s.Out, s.Subscribers, hs); err != nil {
			return err
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			c.Close()
			return os.RemoveAll(dir) // after a failure the logs stay
		case <-tick.C:
			if err := c.Err(); err != nil {
				return err
			}
		}
	}
}

// daemonSubscriber is an identity for a daemon, with the key of TS 35.208 test set 1.
func daemonSubscriber(domain string) lab.Subscriber {
	unhex := func(s string) []byte { b, _ := hex.DecodeString(s); return b } // ours are good
	const number = "+15550100100"
	return lab.Subscriber{IMPI: lab.IMPI(number, domain), IMPU: lab.IMPU(number, domain), Auth: lab.Auth{Algorithm: lab.AKAv1,
		K: unhex("465b5ce8b199b49faa5f0a2ee238a6bc"), OPc: unhex("cd63cb71954a9f4e48a5994e37a02baf")}}
}

// describe prints what is there, and the daemon's configuration for the first subscriber.
func (c *Core) describe(w io.Writer, subs []lab.Subscriber, hs []*lab.Handset) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Kamailio: P-CSCF %s, I-CSCF %s, S-CSCF %s (UDP and TCP); HSS %s (Diameter Cx)\n", c.at.PCSCF, c.at.ICSCF, c.at.SCSCF, c.at.HSS)
	fmt.Fprintf(&b, "# configuration and logs: %s\n", c.o.Dir)
	for _, h := range hs {
		fmt.Fprintf(&b, "# handset   %-16s %-22s %s\n", h.Number(), h.Profile(), h.Name())
	}
	for _, s := range subs[1:] {
		fmt.Fprintf(&b, "# account   %s  %s\n", s.IMPU, s.IMPI)
	}
	b.WriteString("# The daemon's configuration:\nattachments:\n" + subs[0].Attachment("kamailio", c.at.PCSCF, c.o.Domain, "reg_event: required"))
	_, err := io.WriteString(w, b.String())
	return err
}
