package hss

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	dm "sparkle/bridge/lab/ims/diameter"
	"sparkle/sip/aka"
)

// Authentication schemes (TS 29.229 §6.3.9).
const (
	schemeAKA     = "Digest-AKAv1-MD5"
	schemeDigest  = "SIP Digest"
	schemeUnknown = "Unknown" // the HSS knows what the user has; Kamailio writes it small
)

// sqnStep leaves the five low bits, the index of the SIM's array, at zero (TS 33.102
// annex C.1.2).
const sqnStep = 1 << 5

// Server-Assignment-Types (TS 29.229 §6.3.15) that end a registration: 4 time-out, 5 user, 8
// administrative, 9 and 10 authentication failed or timed out, 11 too much data. 6 and 7 end
// it and keep the server's name.
var (
	ending   = []uint32{4, 5, 8, 9, 10, 11}
	keepName = []uint32{6, 7}
)

// cx answers a request of Cx and notes it.
func (h *HSS) cx(m *dm.Message) *dm.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := Request{IMPI: m.AVPs.Text(dm.UserName, 0), IMPU: m.AVPs.Text(dm.PublicIdentity, dm.TGPP)}
	var result dm.AVP
	var more []dm.AVP
	switch m.Command {
	case dm.UserAuthorization:
		r.Name = "UAR"
		result, more = h.authorize(r, m)
	case dm.MultimediaAuth:
		r.Name = "MAR"
		result, more, r.Resync = h.authenticate(r, m)
	case dm.ServerAssignment:
		r.Name = "SAR"
		r.Type, _ = m.AVPs.Number(dm.AssignmentType, dm.TGPP)
		result, more = h.assign(r, m)
	case dm.LocationInfo:
		r.Name = "LIR"
		result, more = h.locate(r)
	default:
		r.Name, result = fmt.Sprint(m.Command), dm.Uint32(dm.ResultCode, 0, dm.CommandUnsupported)
	}
	a := m.Answer()
	a.AVPs = append(a.AVPs, cxApp(), dm.Uint32(dm.AuthSessionState, 0, 1)) // 1: no state is kept
	a.AVPs = append(a.AVPs, h.origin()...)
	a.AVPs = append(a.AVPs, result)
	a.AVPs = append(a.AVPs, more...)
	r.Result = resultOf(a)
	h.seen = append(h.seen, r)
	h.stir()
	h.log.Debug("cx", "request", r.Name, "impi", r.IMPI, "impu", r.IMPU, "result", r.Result)
	return a
}

func success() dm.AVP { return dm.Uint32(dm.ResultCode, 0, dm.Success) }

// experimental is a result of Cx's own.
func experimental(code uint32) dm.AVP {
	return dm.Group(dm.ExperimentalResult, 0, dm.Uint32(dm.VendorID, 0, dm.TGPP), dm.Uint32(dm.ExperimentalCode, 0, code))
}

func resultOf(a *dm.Message) uint32 {
	if n, ok := a.AVPs.Number(dm.ResultCode, 0); ok {
		return n
	}
	n, _ := a.AVPs.Inner(dm.ExperimentalResult, 0).Number(dm.ExperimentalCode, 0)
	return n
}

// user finds whom a request is about; the result is what is wrong, or nothing.
func (h *HSS) user(r Request) (*subscriber, *dm.AVP) {
	s := h.users[r.IMPI]
	code := uint32(0)
	switch {
	case s == nil:
		code = dm.UserUnknown
	case !s.has(r.IMPU):
		code = dm.IdentitiesDontMatch
	default:
		return s, nil
	}
	e := experimental(code)
	return nil, &e
}

// authorize is UAR (TS 29.228 §6.1.1): may this identity register, and where?
func (h *HSS) authorize(r Request, m *dm.Message) (dm.AVP, []dm.AVP) {
	s, wrong := h.user(r)
	if wrong != nil {
		return *wrong, nil
	}
	if s.server != "" {
		return experimental(dm.SubsequentRegister), []dm.AVP{dm.Bytes(dm.ServerName, dm.TGPP, s.server)}
	}
	if t, _ := m.AVPs.Number(dm.AuthorizationType, dm.TGPP); t == 1 { // de-registration
		return experimental(dm.IdentityNotRegistered), nil
	}
	return experimental(dm.FirstRegistration), []dm.AVP{dm.Group(dm.ServerCapabilities, dm.TGPP,
		dm.Uint32(dm.MandatoryCapability, dm.TGPP, 0), dm.Uint32(dm.MandatoryCapability, dm.TGPP, 1))}
}

// authenticate is MAR (TS 29.228 §6.3): what to challenge with.
func (h *HSS) authenticate(r Request, m *dm.Message) (result dm.AVP, more []dm.AVP, resync bool) {
	s, wrong := h.user(r)
	if wrong != nil {
		return *wrong, nil, false
	}
	asked := m.AVPs.Inner(dm.AuthDataItem, dm.TGPP)
	scheme := schemeDigest
	if s.mil != nil {
		scheme = schemeAKA
	}
	if want := asked.Text(dm.AuthenticationScheme, dm.TGPP); want != scheme && !strings.EqualFold(want, schemeUnknown) {
		return experimental(dm.SchemeNotSupported), nil, false
	}
	item := []dm.AVP{dm.Uint32(dm.ItemNumber, dm.TGPP, 1), dm.Bytes(dm.AuthenticationScheme, dm.TGPP, scheme)}
	if s.mil == nil {
		item = append(item, dm.Group(dm.DigestAuthenticate, dm.TGPP, dm.Bytes(dm.DigestRealm, 0, h.o.Domain),
			dm.Bytes(dm.DigestQoP, 0, "auth"), dm.Bytes(dm.DigestHA1, 0, s.ha1(h.o.Domain))))
	} else {
		if auts := asked.Text(dm.Authorization, dm.TGPP); auts != "" {
			resync = true
			if err := s.resync([]byte(auts)); err != nil {
				h.log.Warn("resynchronisation refused", "impi", r.IMPI, "err", err)
				return dm.Uint32(dm.ResultCode, 0, dm.UnableToComply), nil, true
			}
		}
		v := s.vector()
		item = append(item,
			dm.Bytes(dm.Authenticate, dm.TGPP, slices.Concat(v.RAND[:], v.AUTN[:])), dm.Bytes(dm.Authorization, dm.TGPP, v.XRES[:]),
			dm.Bytes(dm.ConfidentialityKey, dm.TGPP, v.CK[:]), dm.Bytes(dm.IntegrityKey, dm.TGPP, v.IK[:]))
	}
	return success(), []dm.AVP{dm.Bytes(dm.UserName, 0, r.IMPI), dm.Bytes(dm.PublicIdentity, dm.TGPP, r.IMPU),
		dm.Uint32(dm.NumberAuthItems, dm.TGPP, 1), dm.Group(dm.AuthDataItem, dm.TGPP, item...)}, resync
}

// vector is the next challenge.
func (s *subscriber) vector() aka.Vector {
	var rnd [16]byte
	if _, err := rand.Read(rnd[:]); err != nil {
		panic("no randomness: " + err.Error()) // crypto/rand never fails on Linux
	}
	amf := [2]byte{0x80, 0}
	if s.AMF != nil {
		amf = [2]byte(s.AMF)
	}
	s.sqn = (s.sqn + sqnStep) & aka.SQNMask
	return s.mil.Vector(rnd, s.sqn, amf)
}

// resync takes over the SIM's sequence number from RAND and AUTS.
func (s *subscriber) resync(b []byte) error {
	if len(b) != 30 {
		return fmt.Errorf("RAND and AUTS have %d bytes, not 30", len(b))
	}
	sqn, err := s.mil.Resync([16]byte(b), b[16:])
	if err != nil {
		return err
	}
	s.sqn = sqn &^ (sqnStep - 1)
	return nil
}

// assign is SAR (TS 29.228 §6.1.2): an S-CSCF takes a user, or lets him go.
func (h *HSS) assign(r Request, m *dm.Message) (dm.AVP, []dm.AVP) {
	s := h.owner(r.IMPU)
	if s == nil || r.IMPI != "" && s.IMPI != r.IMPI {
		return experimental(dm.UserUnknown), nil
	}
	switch {
	case slices.Contains(ending, r.Type):
		s.server, s.up = "", false
	case slices.Contains(keepName, r.Type):
		s.up = false
	default:
		s.server, s.peer = m.AVPs.Text(dm.ServerName, dm.TGPP), m.AVPs.Text(dm.OriginHost, 0)
		s.up = r.Type == 1 || r.Type == 2 // first, again
	}
	doc, err := s.document()
	if err != nil {
		h.log.Error("no profile", "err", err)
		return dm.Uint32(dm.ResultCode, 0, dm.UnableToComply), nil
	}
	return success(), []dm.AVP{dm.Bytes(dm.UserName, 0, s.IMPI), dm.Bytes(dm.UserData, dm.TGPP, doc),
		dm.Group(dm.ChargingInformation, dm.TGPP, dm.Bytes(dm.PrimaryCCFName, dm.TGPP, "aaa://ccf."+h.o.Domain))}
}

// locate is LIR (TS 29.228 §6.1.4): where does a request to this identity go?
func (h *HSS) locate(r Request) (dm.AVP, []dm.AVP) {
	if server := h.services[r.IMPU]; server != "" {
		return success(), []dm.AVP{dm.Bytes(dm.ServerName, dm.TGPP, server)}
	}
	s := h.owner(r.IMPU)
	switch {
	case s == nil:
		return experimental(dm.UserUnknown), nil
	case s.server == "":
		return experimental(dm.IdentityNotRegistered), nil
	}
	return success(), []dm.AVP{dm.Bytes(dm.ServerName, dm.TGPP, s.server)}
}

// Deregister takes a user's registration away (TS 29.228 §6.1.3): RTR to the S-CSCF that
// serves him, which tells the phone. It returns once that has answered.
func (h *HSS) Deregister(ctx context.Context, impi string) error {
	h.mu.Lock()
	s := h.users[impi]
	if s == nil || s.server == "" {
		h.mu.Unlock()
		return fmt.Errorf("hss: %s is not registered", impi)
	}
	var to *peer
	for p := range h.peers {
		if p.host == s.peer {
			to = p
		}
	}
	host, impus := s.peer, slices.Clone(s.IMPUs)
	s.server, s.up = "", false
	m := &dm.Message{Flags: dm.Request | dm.Proxiable, Command: dm.RegistrationTerm, App: dm.Cx}
	m.AVPs = append(m.AVPs, dm.Bytes(dm.SessionID, 0, fmt.Sprintf("%s;%s;%d", h.o.Host, impi, len(h.seen))), cxApp(),
		dm.Uint32(dm.AuthSessionState, 0, 1))
	m.AVPs = append(m.AVPs, h.origin()...)
	h.mu.Unlock()
	if to == nil {
		return fmt.Errorf("hss: %s is not connected", host)
	}
	m.AVPs = append(m.AVPs, dm.Bytes(dm.DestinationHost, 0, host), dm.Bytes(dm.DestinationRealm, 0, h.o.Domain), dm.Bytes(dm.UserName, 0, impi))
	for _, i := range impus {
		m.AVPs = append(m.AVPs, dm.Bytes(dm.PublicIdentity, dm.TGPP, i))
	}
	m.AVPs = append(m.AVPs, dm.Group(dm.DeregistrationReason, dm.TGPP,
		dm.Uint32(dm.ReasonCode, dm.TGPP, 0), dm.Bytes(dm.ReasonInfo, dm.TGPP, "by the operator"))) // 0: permanent termination
	a, err := to.request(ctx, m)
	if err != nil {
		return fmt.Errorf("hss: RTR: %w", err)
	}
	if n := resultOf(a); n != dm.Success {
		return fmt.Errorf("hss: RTR answered %d", n)
	}
	return nil
}
