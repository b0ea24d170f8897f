package api

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/pressly/goose/v3"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"sparkle/bridge"
	"sparkle/bridge/accounts"
	"sparkle/bridge/cdr"
	"sparkle/sip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a bridge in memory: enough of its rules for the API's own to be tested.
type fake struct {
	mu      sync.Mutex
	confs   []bridge.Conference
	members map[string][]bridge.Member
	legs    []bridge.Leg
	down    bool // no attachment is up
	created int
	actors  []bridge.Actor
	calls   []bridge.CallRequest
	err     error         // what CreateConference fails with
	panics  bool          // CreateConference panics
	block   chan struct{} // CreateConference waits for it
	entered chan struct{} // and says here that it does
	events  chan bridge.Event
	after   []string
	closed  chan struct{} // a subscription was closed
	ready   map[string]string
	jpeg    []byte
}

var at = time.Date(2026, 11, 23, 21, 0, 0, 0, time.UTC)

func (f *fake) CaptureMedia(ctx context.Context, a bridge.Actor, leg string, payload bool, tell func([]bridge.MediaPacket)) (uint64, error) {
	if leg != "leg_1" || !a.Admin {
		return 0, &bridge.Error{Kind: bridge.Missing, Code: "leg_not_found"}
	}
	data := make([]byte, 12)
	data[0] = 0x80
	if payload {
		data = append(data, "speech"...)
	}
	tell([]bridge.MediaPacket{{At: at, Sent: true, Local: netip.MustParseAddrPort("192.0.2.1:4000"), Remote: netip.MustParseAddrPort("192.0.2.2:5000"), Length: 18, Data: data}})
	return 0, nil // the leg has ended
}

func (f *fake) LegTrace(_ context.Context, a bridge.Actor, leg string, full bool) (bridge.LegTrace, error) {
	if leg != "leg_1" || !a.Admin {
		return bridge.LegTrace{}, &bridge.Error{Kind: bridge.Missing, Code: "trace_not_found"}
	}
	m := sip.TraceMessage{At: at, Sent: true, Transport: "TCP", Local: "192.0.2.1:5060", Remote: "192.0.2.2:5060",
		Raw: []byte("OPTIONS sip:+8613800138001@ims.example SIP/2.0\r\nCall-ID: 1@a\r\nCSeq: 1 OPTIONS\r\nSupported: path\r\n\r\n")}
	return bridge.LegTrace{Leg: leg, Messages: []sip.TraceMessage{m}}, nil
}

// fakeCDRs are three charging records.
type fakeCDRs struct{}

func (fakeCDRs) Page(want cdr.Filter, limit int) (items []cdr.Record, more bool, err error) {
	for seq := want.After + 1; seq <= 3; seq++ {
		if len(items) == limit {
			return items, true, nil
		}
		items = append(items, cdr.Record{Seq: seq, Version: 1, Leg: "leg_1", Direction: "outbound", Outcome: "busy", Start: cdr.Time{Time: at}, End: cdr.Time{Time: at}})
	}
	return items, false, nil
}

func newFake() *fake {
	return &fake{members: map[string][]bridge.Member{}, closed: make(chan struct{}, 100), events: make(chan bridge.Event, 10), jpeg: []byte("\xff\xd8picture\xff\xd9")}
}

func missing(what, id string) error {
	return &bridge.Error{Kind: bridge.Missing, Code: what + "_not_found", Detail: "no " + what + " " + id}
}

// find is called with f.mu held.
func (f *fake) find(a bridge.Actor, id string) (*bridge.Conference, error) {
	f.actors = append(f.actors, a)
	for i := range f.confs {
		if f.confs[i].ID == id && (a.Admin || f.confs[i].Owner == a.Account) {
			return &f.confs[i], nil
		}
	}
	return nil, missing("conference", id)
}

func (f *fake) CreateConference(ctx context.Context, a bridge.Actor, s bridge.ConferenceSpec) (bridge.Conference, error) {
	if f.panics {
		panic("told to")
	}
	if f.block != nil {
		f.entered <- struct{}{}
		<-f.block
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return bridge.Conference{}, f.err
	}
	f.created++
	c := bridge.Conference{ID: fmt.Sprintf("conf_%03d", f.created), Name: s.Name, Type: s.Type, State: "idle", Owner: a.Account, CreatedAt: at, UpdatedAt: at,
		PIN: cmp.Or(s.PIN, "314159"), Alias: s.Alias, JoinPolicy: cmp.Or(s.JoinPolicy, bridge.JoinPIN), WhoMayRefer: cmp.Or(s.WhoMayRefer, bridge.ReferCreator),
		Layout: cmp.Or(s.Layout, bridge.LayoutMosaic)}
	f.confs = append(f.confs, c)
	return c, nil
}

func (f *fake) Conferences(_ context.Context, a bridge.Actor, limit int, cursor string) ([]bridge.Conference, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, _ := strconv.Atoi(cursor)
	var mine []bridge.Conference
	for _, c := range f.confs {
		if a.Admin || c.Owner == a.Account {
			mine = append(mine, c)
		}
	}
	mine = mine[min(from, len(mine)):]
	if len(mine) > limit {
		return mine[:limit], strconv.Itoa(from + limit), nil
	}
	return mine, "", nil
}

func (f *fake) Conference(_ context.Context, a bridge.Actor, id string) (bridge.Conference, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(a, id)
	if err != nil {
		return bridge.Conference{}, err
	}
	return *c, nil
}

func (f *fake) UpdateConference(_ context.Context, a bridge.Actor, id string, p bridge.ConferencePatch) (bridge.Conference, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(a, id)
	if err != nil {
		return bridge.Conference{}, err
	}
	if p.Name != nil {
		c.Name = *p.Name
	}
	return *c, nil
}

func (f *fake) DeleteConference(_ context.Context, a bridge.Actor, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(a, id)
	if err == nil {
		c.ID = "gone"
	}
	return err
}

func (f *fake) AddMembers(_ context.Context, a bridge.Actor, id string, ms []bridge.MemberSpec) ([]bridge.MemberResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(a, id); err != nil {
		return nil, err
	}
	out := make([]bridge.MemberResult, len(ms))
rows:
	for i, m := range ms {
		if !strings.HasPrefix(m.Number, "+") {
			out[i].Err = &bridge.Error{Kind: bridge.Invalid, Code: "number_invalid", Detail: "no number", Field: "/number"}
			continue
		}
		for _, old := range f.members[id] {
			if old.Number == m.Number {
				out[i].Err = &bridge.Error{Kind: bridge.Conflict, Code: "member_exists", Detail: "is on the roster", Field: "/number"}
				continue rows
			}
		}
		x := bridge.Member{ID: fmt.Sprintf("mbr_%03d", len(f.members[id])+1), Conference: id, Number: m.Number, Name: m.Name, Role: "speaker", State: bridge.Idle, CreatedAt: at}
		if m.Role != "" {
			x.Role = m.Role
		}
		f.members[id] = append(f.members[id], x)
		out[i].Member = &x
	}
	return out, nil
}

func (f *fake) Members(_ context.Context, a bridge.Actor, id string) ([]bridge.Member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(a, id); err != nil {
		return nil, err
	}
	return append([]bridge.Member(nil), f.members[id]...), nil
}

func (f *fake) member(a bridge.Actor, id, m string) (*bridge.Member, error) {
	if _, err := f.find(a, id); err != nil {
		return nil, err
	}
	for i := range f.members[id] {
		if f.members[id][i].ID == m {
			return &f.members[id][i], nil
		}
	}
	return nil, missing("member", m)
}

func (f *fake) Member(_ context.Context, a bridge.Actor, id, m string) (bridge.Member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, err := f.member(a, id, m)
	if err != nil {
		return bridge.Member{}, err
	}
	return *x, nil
}

func (f *fake) UpdateMember(_ context.Context, a bridge.Actor, id, m string, p bridge.MemberPatch) (bridge.Member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, err := f.member(a, id, m)
	if err != nil {
		return bridge.Member{}, err
	}
	if p.Muted != nil {
		x.Muted = *p.Muted
	}
	if p.Role != nil {
		x.Role = *p.Role
	}
	return *x, nil
}

func (f *fake) RemoveMember(_ context.Context, a bridge.Actor, id, m string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, err := f.member(a, id, m)
	if err == nil {
		x.ID = "gone"
	}
	return err
}

func newLeg(id, m string) bridge.Leg {
	return bridge.Leg{ID: "leg_" + m, Member: m, Conference: id, State: bridge.Dialing, Since: at, Direction: "outbound", Attachment: "ims", StartedAt: at}
}

func (f *fake) Call(_ context.Context, a bridge.Actor, id string, r bridge.CallRequest) ([]bridge.CallResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(a, id); err != nil {
		return nil, err
	}
	f.calls = append(f.calls, r)
	if f.down && len(f.members[id]) > 0 {
		return nil, &bridge.Error{Kind: bridge.Unavailable, Code: "attachment_down", Detail: "no attachment is up"}
	}
	var out []bridge.CallResult
	for i := range f.members[id] {
		m := &f.members[id][i]
		res := bridge.CallResult{Member: m.ID}
		switch {
		case m.Leg != nil:
			res.Err = &bridge.Error{Kind: bridge.Conflict, Code: "member_in_call", Detail: "in a call"}
		default:
			l := newLeg(id, m.ID)
			m.Leg, m.State, res.Leg = &l, bridge.MemberRings, &l
		}
		out = append(out, res)
	}
	return out, nil
}

func (f *fake) SetLegMedia(_ context.Context, a bridge.Actor, id, m, media string) (bridge.Leg, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, err := f.member(a, id, m)
	if err != nil {
		return bridge.Leg{}, err
	}
	if x.Leg == nil {
		return bridge.Leg{}, &bridge.Error{Kind: bridge.Conflict, Code: "not_connected", Detail: "not in the conference"}
	}
	if x.Leg.Change != nil && media == "video" {
		return bridge.Leg{}, &bridge.Error{Kind: bridge.TooSoon, Code: "upgrade_too_soon", Detail: "asked already", Retry: 42 * time.Second}
	}
	x.Leg.Change = &bridge.MediaChange{To: media, State: "asking", At: at}
	return *x.Leg, nil
}

func (f *fake) HangupMember(_ context.Context, a bridge.Actor, id, m string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, err := f.member(a, id, m)
	if err == nil {
		x.Leg, x.State = nil, bridge.Idle
		x.LastOutcome = &bridge.LastOutcome{Outcome: bridge.Cancelled, SIP: &bridge.SIPResult{Status: 487, Reason: "Request Terminated"}, Text: bridge.Text{Zh: "已取消", En: "Cancelled"}, At: at}
	}
	return err
}

func (f *fake) HangupAll(_ context.Context, a bridge.Actor, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.find(a, id)
	return err
}

func (f *fake) SetWhisper(_ context.Context, a bridge.Actor, id string, w bridge.WhisperSpec) error {
	return f.HangupAll(context.Background(), a, id)
}

func (f *fake) EndWhisper(_ context.Context, a bridge.Actor, id string) error {
	return f.HangupAll(context.Background(), a, id)
}

func (f *fake) Preview(_ context.Context, a bridge.Actor, id string) (bridge.Preview, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(a, id); err != nil {
		return bridge.Preview{}, err
	}
	return bridge.Preview{JPEG: f.jpeg, At: at}, nil
}

func (f *fake) Legs(_ context.Context, a bridge.Actor, id, m string, limit int, cursor string) ([]bridge.Leg, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.member(a, id, m); err != nil {
		return nil, "", err
	}
	from, _ := strconv.Atoi(cursor)
	rest := f.legs[min(from, len(f.legs)):]
	if len(rest) > limit {
		return rest[:limit], strconv.Itoa(from + limit), nil
	}
	return rest, "", nil
}

func (f *fake) Attachments(context.Context) []sip.AttachmentState {
	return []sip.AttachmentState{{Name: "ims", Mode: "ue", State: "registered", Up: true, Since: at, Expires: at.Add(time.Hour), Identity: "sip:+8613800138000@ims.example", LocalAddr: "192.0.2.5:5060", CPS: 20, MaxCalls: 1000, Queued: 2,
		Targets: []sip.TargetState{{Addr: "198.51.100.5:5060", Name: "p-cscf.ims.example:5060", Transport: "tcp", State: "in_use", RTT: 12500 * time.Microsecond}},
		Reg: &sip.RegistrationState{PCSCF: "198.51.100.5:5060", Expires: at.Add(time.Hour), ServiceRoutes: 1,
			Identities: []string{"sip:+8613800138000@ims.example", "tel:+8613800138000"}, RegEvent: "active", RegEventExpires: at.Add(time.Hour)}}}
}

func (f *fake) RegisterAttachment(context.Context, bridge.Actor, string) error { return nil }

// Subscribe hands out f.events to everybody, after a snapshot or the resumed id.
func (f *fake) Subscribe(ctx context.Context, a bridge.Actor, conference, after string) (*bridge.Subscription, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if conference != "" {
		if _, err := f.find(a, conference); err != nil {
			return nil, err
		}
	}
	f.after = append(f.after, after)
	if after == "" {
		f.events <- bridge.Event{ID: "e0", Time: at, Type: "snapshot", Data: json.RawMessage(`{"conferences":[],"attachments":[]}`)}
	}
	return &bridge.Subscription{C: f.events, Close: func() { f.closed <- struct{}{} }}, nil
}

func (f *fake) Ready(context.Context) map[string]string { return f.ready }

// house is a server under test with an account and key of each kind.
type house struct {
	*fake
	url      string
	http     *http.Client
	accounts *accounts.Accounts
	server   *http.Server
	keys     map[string]string // by role
	log      *bytes.Buffer     // read it when the server has stopped
	tokens   map[string]string // session tokens by role
}

const password = "correct horse"

func newAccounts(t testing.TB) *accounts.Accounts {
	t.Helper()
	db, err := sql.Open("sqlite", ":memory:?_pragma=foreign_keys(1)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	p, err := goose.NewProvider(goose.DialectSQLite3, db, os.DirFS("../store/migrations"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := accounts.New(db, accounts.Options{HashMemoryKiB: 8}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newHouse(t testing.TB, change ...func(*Deps)) *house {
	t.Helper()
	h := &house{fake: newFake(), accounts: newAccounts(t), keys: map[string]string{}, tokens: map[string]string{}, log: &bytes.Buffer{}}
	for _, role := range []accounts.Role{accounts.Admin, accounts.Organiser, accounts.Viewer} {
		name := string(role)
		if _, err := h.accounts.Create(t.Context(), name, password, role); err != nil {
			t.Fatal(err)
		}
		key, err := h.accounts.NewKey(t.Context(), accounts.KeySpec{Name: name, Account: name, Scopes: role.Scopes()})
		if err != nil {
			t.Fatal(err)
		}
		h.keys[name] = key
	}
	log := slog.New(slog.NewJSONHandler(&lockedWriter{w: h.log}, nil))
	d := Deps{Service: h.fake, CDRs: fakeCDRs{}, Accounts: h.accounts, Log: log,
		Console: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "pages of "+r.URL.Path) }),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			fmt.Fprint(w, "up 1\n")
		})}
	for _, c := range change {
		c(&d)
	}
	handler, err := NewHandler(d)
	if err != nil {
		t.Fatal(err)
	}
	h.server = NewHTTPServer(conforms(t, handler), log)
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = h.server
	ts.Start()
	t.Cleanup(ts.Close)
	h.url, h.http = ts.URL, ts.Client()
	h.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(h.http.CloseIdleConnections)
	return h
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// contract is the validated openapi.yaml, read once for all tests.
var contract = sync.OnceValues(func() (routers.Router, error) {
	doc, err := openapi3.NewLoader().LoadFromData(specYAML)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	return legacy.NewRouter(doc)
})

// conforms holds every answer of the handler against the contract.
func conforms(t testing.TB, next http.Handler) http.Handler {
	router, err := contract()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &tee{ResponseWriter: w}
		defer func() {
			if e := recover(); e != nil {
				panic(e)
			}
			route, params, err := router.FindRoute(r)
			if err != nil {
				route = nil
			}
			if err := conformsTo(r, route, params, c); err != nil {
				t.Errorf("%s %s -> %d is not as the contract says: %v\n%s", r.Method, r.URL, c.status, err, c.body.String())
			}
		}()
		next.ServeHTTP(c, r)
	})
}

func conformsTo(r *http.Request, route *routers.Route, params map[string]string, c *tee) error {
	if c.Header().Get("X-Request-Id") == "" {
		return fmt.Errorf("no request id")
	}
	if c.status >= 400 && c.Header().Get("Content-Type") != "application/problem+json" && r.URL.Path != "/readyz" {
		return fmt.Errorf("an error of type %q", c.Header().Get("Content-Type"))
	}
	if route == nil || r.Method == http.MethodHead {
		return nil
	}
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route},
		Status:                 c.status, Header: c.Header(),
		Options: &openapi3filter.Options{MultiError: true, IncludeResponseStatus: true},
	}
	switch t, _, _ := strings.Cut(c.Header().Get("Content-Type"), ";"); t {
	case "application/json", "application/problem+json":
		in.SetBodyBytes(c.body.Bytes())
	default: // a picture, a stream, a document
		in.Options.ExcludeResponseBody = true
	}
	return openapi3filter.ValidateResponse(context.Background(), in)
}

// answer is what came back, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) problem(t testing.TB) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return p
}

// ask sends one request; header pairs follow the body. as is a role, or "" for nobody.
func (h *house) ask(t testing.TB, as, method, path, body string, header ...string) answer {
	t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, h.url+path, rd)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if as != "" {
		req.Header.Set("Authorization", "Bearer "+h.keys[as])
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	res, err := h.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, b}
}

// login returns the Cookie header of a new session.
func (h *house) login(t testing.TB, account string) string {
	t.Helper()
	a := h.ask(t, "", "POST", "/v1/sessions", `{"account":"`+account+`","password":"`+password+`"}`)
	if a.status != 201 {
		t.Fatalf("login: %d %s", a.status, a.body)
	}
	c, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	return c
}

// seed makes a conference of the account with two members.
func (h *house) seed(t testing.TB, as string) {
	t.Helper()
	if a := h.ask(t, as, "POST", "/v1/conferences", `{"name":"Monday","type":"video"}`); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	a := h.ask(t, as, "POST", "/v1/conferences/conf_001/members", `[{"number":"+8613800138001","name":"王芳"},{"number":"+8613800138002"}]`)
	if a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
}
