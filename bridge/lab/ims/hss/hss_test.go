package hss

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	dm "sparkle/bridge/lab/ims/diameter"
	"sparkle/sip/aka"
)

const domain = "ims.test"

var (
	k   = []byte("0123456789abcdef")
	opc = []byte("fedcba9876543210")
)

func listen(t *testing.T) *HSS {
	t.Helper()
	h, err := Listen(Options{Host: "hss." + domain, Domain: domain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	for _, u := range []User{
		{IMPI: "1@" + domain, IMPUs: []string{"sip:+1@" + domain, "tel:+1"}, K: k, OPc: opc, SQN: 320,
			Filters: []Filter{{Server: "sip:as.test", Method: "INVITE", Session: Originating}}},
		{IMPI: "2@" + domain, IMPUs: []string{"sip:+2@" + domain}, Password: "geheim"},
	} {
		if err := h.SetUser(u); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// node is a Diameter peer of ours.
type node struct {
	t    *testing.T
	conn net.Conn
	n    uint32
}

func dial(t *testing.T, h *HSS) *node {
	t.Helper()
	c, err := net.Dial("tcp", h.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	n := &node{t: t, conn: c}
	a := n.ask(dm.CapabilitiesExchange, 0)
	if a.AVPs.Text(dm.OriginHost, 0) != "hss."+domain || resultOf(a) != dm.Success {
		t.Fatalf("CEA %+v", a)
	}
	return n
}

func (n *node) ask(command, app uint32, avps ...dm.AVP) *dm.Message {
	n.t.Helper()
	n.n++
	m := &dm.Message{Flags: dm.Request, Command: command, App: app, HopByHop: n.n, EndToEnd: n.n + 7}
	m.AVPs = append(m.AVPs, dm.Bytes(dm.SessionID, 0, "s;1;1"), dm.Bytes(dm.OriginHost, 0, "scscf."+domain))
	m.AVPs = append(m.AVPs, avps...)
	if _, err := n.conn.Write(m.Bytes()); err != nil {
		n.t.Fatal(err)
	}
	a := n.read()
	if a.IsRequest() || a.Command != command || a.HopByHop != n.n || a.EndToEnd != n.n+7 || a.AVPs.Text(dm.SessionID, 0) != "s;1;1" {
		n.t.Fatalf("answer to %d is %+v", command, a)
	}
	return a
}

func (n *node) read() *dm.Message {
	n.t.Helper()
	m, err := dm.Read(n.conn)
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

func who(impi, impu string) []dm.AVP {
	return []dm.AVP{dm.Bytes(dm.UserName, 0, impi), dm.Bytes(dm.PublicIdentity, dm.TGPP, impu)}
}

func (n *node) assign(impi, impu string, typ uint32) *dm.Message {
	n.t.Helper()
	return n.ask(dm.ServerAssignment, dm.Cx, append(who(impi, impu),
		dm.Bytes(dm.ServerName, dm.TGPP, "sip:scscf"), dm.Uint32(dm.AssignmentType, dm.TGPP, typ))...)
}

func TestWhoMayRegister(t *testing.T) {
	n := dial(t, listen(t))
	for _, tt := range []struct {
		impi, impu string
		want       uint32
	}{
		{"1@ims.test", "sip:+1@ims.test", dm.FirstRegistration},
		{"1@ims.test", "tel:+1", dm.FirstRegistration},
		{"1@ims.test", "sip:+2@ims.test", dm.IdentitiesDontMatch},
		{"9@ims.test", "sip:+1@ims.test", dm.UserUnknown},
		{"", "", dm.UserUnknown},
	} {
		if got := resultOf(n.ask(dm.UserAuthorization, dm.Cx, who(tt.impi, tt.impu)...)); got != tt.want {
			t.Errorf("%q as %q: %d, want %d", tt.impi, tt.impu, got, tt.want)
		}
	}
	n.assign("1@ims.test", "sip:+1@ims.test", 1)
	a := n.ask(dm.UserAuthorization, dm.Cx, who("1@ims.test", "tel:+1")...)
	if resultOf(a) != dm.SubsequentRegister || a.AVPs.Text(dm.ServerName, dm.TGPP) != "sip:scscf" {
		t.Errorf("of a registered user: %+v", a)
	}
}

func TestProfileAndLocation(t *testing.T) {
	h := listen(t)
	h.SetService(Service{Identity: "sip:conf@" + domain, Server: "sip:as.test"})
	n := dial(t, h)
	where := func(impu string) (uint32, string) {
		a := n.ask(dm.LocationInfo, dm.Cx, dm.Bytes(dm.PublicIdentity, dm.TGPP, impu))
		return resultOf(a), a.AVPs.Text(dm.ServerName, dm.TGPP)
	}
	if code, _ := where("tel:+1"); code != dm.IdentityNotRegistered {
		t.Errorf("before: %d", code)
	}
	doc := n.assign("1@ims.test", "sip:+1@ims.test", 1).AVPs.Text(dm.UserData, dm.TGPP)
	for _, want := range []string{"<PrivateID>1@ims.test<", "<Identity>tel:+1<", "<ServerName>sip:as.test<", "<Method>INVITE<", "<SessionCase>0<"} {
		if !strings.Contains(doc, want) {
			t.Errorf("the profile has no %s: %s", want, doc)
		}
	}
	if code, server := where("tel:+1"); code != dm.Success || server != "sip:scscf" || !h.Registered("tel:+1") {
		t.Errorf("registered: %d %q", code, server)
	}
	if code, server := where("sip:conf@" + domain); code != dm.Success || server != "sip:as.test" {
		t.Errorf("service: %d %q", code, server)
	}
	if code, _ := where("tel:+9"); code != dm.UserUnknown {
		t.Errorf("unknown: %d", code)
	}
	n.assign("1@ims.test", "sip:+1@ims.test", 5)
	if code, _ := where("tel:+1"); code != dm.IdentityNotRegistered || h.Registered("tel:+1") {
		t.Errorf("after: %d", code)
	}
}

// challenge asks for a vector, after a resynchronisation if auts says so.
func (n *node) challenge(scheme, auts string) *dm.Message {
	n.t.Helper()
	item := []dm.AVP{dm.Bytes(dm.AuthenticationScheme, dm.TGPP, scheme)}
	if auts != "" {
		item = append(item, dm.Bytes(dm.Authorization, dm.TGPP, auts))
	}
	return n.ask(dm.MultimediaAuth, dm.Cx, append(who("1@ims.test", "tel:+1"), dm.Group(dm.AuthDataItem, dm.TGPP, item...))...)
}

// A SIM accepts the vectors, and brings the network back in step with its own number.
func TestVectorsAndResync(t *testing.T) {
	n := dial(t, listen(t))
	sim, err := aka.New(k, opc)
	if err != nil {
		t.Fatal(err)
	}
	check := func(a *dm.Message, sqnMS uint64) (string, [14]byte, error) {
		v := a.AVPs.Inner(dm.AuthDataItem, dm.TGPP)
		ra := v.Text(dm.Authenticate, dm.TGPP)
		if len(ra) != 32 {
			t.Fatalf("challenge %+v", a)
		}
		r, auts, err := sim.Check([16]byte([]byte(ra[:16])), [16]byte([]byte(ra[16:])), sqnMS)
		if err == nil && (v.Text(dm.Authorization, dm.TGPP) != string(r.RES[:]) || v.Text(dm.ConfidentialityKey, dm.TGPP) != string(r.CK[:]) ||
			v.Text(dm.IntegrityKey, dm.TGPP) != string(r.IK[:])) {
			t.Errorf("the SIM answers %x, the network expects %+v", r, v)
		}
		return ra[:16], auts, err
	}
	if _, _, err := check(n.challenge("Digest-AKAv1-MD5", ""), 320); err != nil {
		t.Error(err)
	}
	rand, auts, err := check(n.challenge("unknown", ""), 6400)
	if err == nil {
		t.Fatal("a SIM that is ahead accepts an old number")
	}
	if _, _, err := check(n.challenge("unknown", rand+string(auts[:])), 6400); err != nil {
		t.Errorf("after resynchronisation: %v", err)
	}
	auts[13]++
	if a := n.challenge("unknown", rand+string(auts[:])); resultOf(a) != dm.UnableToComply {
		t.Errorf("forged AUTS: %+v", a)
	}
	if a := n.challenge("unknown", "short"); resultOf(a) != dm.UnableToComply {
		t.Errorf("short AUTS: %+v", a)
	}
	if a := n.challenge("SIP Digest", ""); resultOf(a) != dm.SchemeNotSupported {
		t.Errorf("digest of a SIM: %+v", a)
	}
}

func TestDeregister(t *testing.T) {
	h := listen(t)
	n := dial(t, h)
	if err := h.Deregister(t.Context(), "1@ims.test"); err == nil {
		t.Error("somebody is taken out who was not in")
	}
	n.assign("1@ims.test", "sip:+1@ims.test", 1)
	done := make(chan error, 1)
	go func() { done <- h.Deregister(t.Context(), "1@ims.test") }()
	rtr := n.read()
	if !rtr.IsRequest() || rtr.Command != dm.RegistrationTerm || rtr.AVPs.Text(dm.PublicIdentity, dm.TGPP) != "sip:+1@ims.test" ||
		rtr.AVPs.Text(dm.DestinationHost, 0) != "scscf."+domain {
		t.Fatalf("RTR %+v", rtr)
	}
	a := rtr.Answer()
	a.AVPs = append(a.AVPs, dm.Uint32(dm.ResultCode, 0, dm.Success))
	if _, err := n.conn.Write(a.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || h.Registered("tel:+1") {
		t.Errorf("deregistered: %v", err)
	}
	n.assign("1@ims.test", "sip:+1@ims.test", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.Deregister(ctx, "1@ims.test"); err == nil {
		t.Error("an S-CSCF that says nothing has answered")
	}
}

func TestUserValidate(t *testing.T) {
	good := User{IMPI: "1", IMPUs: []string{"tel:+1"}, Password: "x"}
	for name, edit := range map[string]func(*User){
		"no private identity": func(u *User) { u.IMPI = "" }, "no public identity": func(u *User) { u.IMPUs = nil },
		"odd identity": func(u *User) { u.IMPUs = []string{"mailto:x"} }, "no secret": func(u *User) { u.Password = "" },
		"short K": func(u *User) { u.K = k[:8] }, "no OPc": func(u *User) { u.K = k }, "long AMF": func(u *User) { u.AMF = k },
		"filter": func(u *User) { u.Filters = []Filter{{Server: "as"}} },
	} {
		u := good
		edit(&u)
		if u.Validate() == nil {
			t.Errorf("%s is fine: %+v", name, u)
		}
	}
	h := listen(t)
	if err := h.SetUser(User{IMPI: "3@ims.test", IMPUs: []string{"tel:+1"}, Password: "x"}); err == nil {
		t.Error("an identity belongs to two")
	}
}
