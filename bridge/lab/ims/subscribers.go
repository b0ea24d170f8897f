package ims

import (
	"errors"
	"fmt"
	"strings"

	"sparkle/bridge/lab"
	"sparkle/bridge/lab/ims/hss"
)

// AddSubscriber provisions an identity for somebody outside: a daemon, or a SIPp that
// registers. An identity with a number in it may be called by that number too.
func (c *Core) AddSubscriber(s lab.Subscriber) error {
	if err := s.Auth.Validate(); err != nil {
		return fmt.Errorf("ims: subscriber %s: %w", s.IMPI, err)
	}
	if s.Auth.Algorithm == lab.SHA256 {
		return errors.New("ims: Kamailio's S-CSCF knows MD5 and AKAv1-MD5, not SHA-256")
	}
	u := hss.User{IMPI: s.IMPI, IMPUs: []string{s.IMPU}, SQN: s.Auth.SQN, AMF: s.Auth.AMF}
	if s.Auth.Algorithm == lab.AKAv1 {
		u.K, u.OPc = s.Auth.K, s.Auth.OPc
	} else {
		u.Password = s.Auth.Password
	}
	if number, _, ok := strings.Cut(strings.TrimPrefix(s.IMPU, "sip:"), "@"); ok && strings.HasPrefix(number, "+") {
		u.IMPUs = append(u.IMPUs, "tel:"+number)
	}
	return c.hss.SetUser(u)
}

// AddHandset makes a phone of the lab with a subscriber of its own and, unless its script is
// off, registers it. It returns when it can be called; Close of the core closes it.
func (c *Core) AddHandset(o lab.HandsetOptions) (*lab.Handset, error) {
	if o.Auth == nil {
		sim := lab.NewSIM()
		o.Auth = &sim
	}
	s := lab.Subscriber{IMPI: lab.IMPI(o.Number, c.o.Domain), IMPU: lab.IMPU(o.Number, c.o.Domain), Auth: *o.Auth}
	if err := c.AddSubscriber(s); err != nil {
		return nil, err
	}
	h, err := lab.NewHandset(lab.Network{Addr: c.at.PCSCF, Domain: c.o.Domain, Log: c.o.Log}, o)
	if err != nil {
		return nil, fmt.Errorf("ims: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handsets = append(c.handsets, h)
	return h, nil
}
