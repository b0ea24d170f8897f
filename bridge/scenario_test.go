package bridge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sparkle/bridge"
	"sparkle/bridge/store/storetest"
	"sparkle/media/mediapb"
	"sparkle/sip"
)

var rewrite = flag.Bool("rewrite", false, "write what happened into the scenario files")

// dialIn is the number that the house's conferences share.
const dialIn = "+861066668888"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var organiser = bridge.Actor{Account: "acc_1", Name: "organiser", Via: "session", Remote: "192.0.2.1"}

// The fake must keep the same promises as the real store.
func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) (bridge.Store, func() bridge.Store) {
		s := newMemory()
		return s, func() bridge.Store { return s }
	})
}

// house is a bridge with everything around it faked, and one conference.
type house struct {
	more   []func(*bridge.Options)
	bills  ledger
	t      *testing.T
	b      *bridge.Bridge
	net    *network
	eng    *engine
	mem    *memory
	conf   string
	ids    map[string]string // name -> member id
	names  map[string]string // id -> name
	number map[string]string // name -> number
	start  time.Time
	stop   func()

	mu     sync.Mutex
	log    []string // events as words
	engLog []string
	events []bridge.Event
	logs   lockedBuffer

	callers map[string]*caller // who has dialled in, by name
	watches map[string]*watch
	actor   bridge.Actor // who does what the lines say
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newHouse(t *testing.T, kind bridge.ConferenceType, more ...func(*bridge.Options)) *house {
	h := &house{actor: organiser, t: t, net: newNetwork(), eng: newEngine(), mem: newMemory(), start: time.Now(),
		ids: map[string]string{}, names: map[string]string{}, number: map[string]string{}, callers: map[string]*caller{}, watches: map[string]*watch{}}
	h.eng.played = func(leg, prompt string) { h.say("%s hears: %s", h.callerOf(leg), prompt) }
	h.eng.log = func(s string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.engLog = append(h.engLog, s)
	}
	h.more = more
	h.boot()
	c, err := h.b.CreateConference(t.Context(), h.actor, bridge.ConferenceSpec{Name: "team", Type: kind})
	if err != nil {
		t.Fatal(err)
	}
	h.conf = c.ID
	h.listen()
	return h
}

func (h *house) boot() {
	h.t.Helper()
	o := bridge.Options{DialIn: []string{dialIn}, FactoryURIs: []string{"sip:mmtel@conf-factory.ims.example"}, Domain: "ims.example"}
	for _, f := range h.more {
		f(&o)
	}
	b, err := bridge.New(bridge.Deps{Caller: h.net, Media: h.eng, Store: h.mem, Charger: &h.bills, Tracer: ladders{}, Log: slog.New(slog.NewJSONHandler(&h.logs, nil)),
		Options: o})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { b.Run(ctx) })
	h.b = b
	h.stop = func() {
		cancel()
		wg.Wait()
	}
}

// listen follows the conference's events until Close.
func (h *house) listen() {
	sub, err := h.b.Subscribe(context.Background(), h.actor, h.conf, "")
	if err != nil {
		h.t.Fatal(err)
	}
	h.follow(sub)
}

// follow keeps what happens as words.
func (h *house) follow(sub *bridge.Subscription) {
	go func() {
		for e := range sub.C {
			h.mu.Lock()
			h.events = append(h.events, e)
			if w := h.words(e); w != "" {
				h.log = append(h.log, fmt.Sprintf("%7.3f %s", e.Time.Sub(h.start).Seconds(), w))
			}
			h.mu.Unlock()
		}
	}()
}

func (h *house) close() {
	h.t.Helper()
	if err := h.b.Close(context.Background()); err != nil {
		h.t.Error(err)
	}
	h.stop()
	h.check()
}

// check: nothing is left in the engine, and no number has been logged.
func (h *house) check() {
	h.t.Helper()
	for _, s := range h.eng.left() {
		h.t.Error("engine: " + s)
	}
	for _, n := range h.number {
		if strings.Contains(h.logs.String(), n[1:]) {
			h.t.Errorf("number of a member in the log")
		}
	}
}

func (h *house) words(e bridge.Event) string {
	name := h.names[e.Member]
	switch e.Type {
	case "leg.updated", "leg.ended":
		var l bridge.Leg
		json.Unmarshal(e.Data, &l)
		s := fmt.Sprintf("%s: %s", name, l.State)
		if l.Attachment == "spare" {
			s += " by spare"
		}
		if l.Outcome != "" {
			s += " " + string(l.Outcome)
		}
		if l.SIP != nil {
			s += fmt.Sprintf(" %d/%d", l.SIP.Status, l.SIP.Q850)
		}
		if l.Text != nil {
			s += " " + l.Text.Zh + " " + l.Text.En
		}
		if l.Retry != nil {
			s += " Retry: " + l.Retry.How
			if l.Retry.AfterS > 0 {
				s += fmt.Sprintf(" after %d s", l.Retry.AfterS)
			}
		}
		if l.AwaitingConfirm {
			s += " answered, awaits 1"
		}
		if l.State == bridge.Connected {
			if l.Media.Audio != nil {
				s += " " + l.Media.Audio.Codec
			}
			if l.Media.Video != nil {
				s += fmt.Sprintf(" %dx%d", l.Media.Video.Width, l.Media.Video.Height)
			}
			if l.Media.WhyNoVideo != nil {
				s += " (" + *l.Media.WhyNoVideo + ")"
			}
			s += videoWords(l)
		}
		return s
	case "member.updated", "conference.updated", "talkers", "snapshot":
		return "" // follow from the rest
	case "whisper.updated":
		s := string(e.Data)
		for id, name := range h.names {
			s = strings.ReplaceAll(s, id, name)
		}
		return "whisper " + s
	}
	if strings.HasPrefix(e.Type, "member.") {
		var m bridge.Member
		json.Unmarshal(e.Data, &m)
		name = m.Name
		if e.Type == "member.added" && h.names[m.ID] == "" { // who has called in
			h.names[m.ID] = m.Name
			if h.ids[m.Name] == "" {
				h.ids[m.Name] = m.ID
			}
		}
	}
	return strings.TrimPrefix(name+": "+e.Type, ": ")
}

func (h *house) add(name, fate string) error {
	n := fmt.Sprintf("+8613800%06d", len(h.ids)+1)
	h.net.mu.Lock()
	h.net.fate[n] = fate
	h.net.mu.Unlock()
	res, err := h.b.AddMembers(h.t.Context(), h.actor, h.conf, []bridge.MemberSpec{{Number: n, Name: name}})
	if err != nil {
		return err
	}
	if res[0].Err != nil {
		return res[0].Err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids[name], h.names[res[0].Member.ID], h.number[name] = res[0].Member.ID, name, n
	return nil
}

func (h *house) wait(d time.Duration) {
	time.Sleep(d) // virtual
	synctest.Wait()
}

func (h *house) member(name string) bridge.Member {
	m, err := h.b.Member(h.t.Context(), h.actor, h.conf, h.ids[name])
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

// take returns what happened since the last take: events in order, then the engine's
// commands sorted, because those come from another goroutine.
func (h *house) take() string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	out := slices.Clone(h.log)
	// Phones act at the same instant in any order; each one's own order counts.
	slices.SortStableFunc(out, func(a, b string) int { return strings.Compare(who(a), who(b)) })
	slices.Sort(h.engLog)
	for _, s := range h.engLog {
		if !strings.Contains(s, "present") && !strings.Contains(s, "whisper") {
			continue // streams of a phone that has not answered yet; may be joined with the next
		}
		for id := range h.eng.legsByID() {
			s = strings.ReplaceAll(s, id, "leg of "+h.names[h.memberOfLeg(id)])
		}
		out = append(out, "        engine: "+s)
	}
	h.log, h.engLog = nil, nil
	return strings.Join(out, "\n")
}

// who is the time and the name of a line.
func who(line string) string {
	s, _, _ := strings.Cut(line, ":")
	return s
}

// say adds a line that is not an event.
func (h *house) say(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, fmt.Sprintf("%7.3f ", time.Since(h.start).Seconds())+fmt.Sprintf(format, args...))
}

func (e *engine) legsByID() map[string]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]bool{}
	for id := range e.legs {
		out[id] = true
	}
	return out
}

func (h *house) memberOfLeg(id string) string {
	for _, e := range h.events {
		if e.Leg == id && e.Member != "" {
			return e.Member
		}
	}
	return ""
}

// run does one line of a scenario.
func (h *house) run(line string) error {
	ctx := h.t.Context()
	f := strings.Fields(line)
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	patch := func(p bridge.MemberPatch) error {
		_, err := h.b.UpdateMember(ctx, h.actor, h.conf, h.ids[arg(1)], p)
		return err
	}
	yes, no := true, false
	switch f[0] {
	case "member":
		return h.add(arg(1), arg(2))
	case "call":
		req := bridge.CallRequest{Targets: arg(1)}
		if id, ok := h.ids[arg(1)]; ok {
			req.Targets, req.Members = "", []string{id}
		}
		if arg(2) != "" {
			confirm := arg(2) == "confirm"
			req.AnswerConfirm = &confirm
		}
		res, err := h.b.Call(ctx, h.actor, h.conf, req)
		for _, r := range res {
			if r.Err != nil {
				h.say("%s: refused: %s", h.names[r.Member], r.Err.Code)
			}
		}
		return err
	case "hangup":
		if arg(1) == "all" {
			return h.b.HangupAll(ctx, h.actor, h.conf)
		}
		return h.b.HangupMember(ctx, h.actor, h.conf, h.ids[arg(1)])
	case "remove":
		return h.b.RemoveMember(ctx, h.actor, h.conf, h.ids[arg(1)])
	case "delete":
		return h.b.DeleteConference(ctx, h.actor, h.conf)
	case "mute":
		return patch(bridge.MemberPatch{Muted: &yes})
	case "unmute":
		return patch(bridge.MemberPatch{Muted: &no})
	case "role":
		return patch(bridge.MemberPatch{Role: &f[2]})
	case "whisper":
		if arg(1) == "end" {
			return h.b.EndWhisper(ctx, h.actor, h.conf)
		}
		w := bridge.WhisperSpec{From: cmpOr(h.ids[arg(1)], arg(1)), Mode: arg(2)}
		for _, name := range f[3:] {
			w.To = append(w.To, h.ids[name])
		}
		return h.b.SetWhisper(ctx, h.actor, h.conf, w)
	case "peer":
		c := h.net.phone(h.number[arg(1)])
		if c == nil {
			return fmt.Errorf("no call with %s", arg(1))
		}
		return h.peer(c, arg(2))
	case "refer":
		return h.refer(arg(1), arg(2), arg(3), f[4:])
	case "subscribe":
		return h.subscribe(arg(1), f[2:])
	case "refresh":
		h.watches[arg(1)].tell(sip.SubscriptionRefreshed{Expires: time.Hour})
		return nil
	case "adopt":
		return h.adopt()
	case "confirm":
		on := arg(1) == "on"
		_, err := h.b.UpdateConference(ctx, h.actor, h.conf, bridge.ConferencePatch{AnswerConfirm: &on})
		return err
	case "rejoin":
		on := arg(1) == "on"
		_, err := h.b.UpdateConference(ctx, h.actor, h.conf, bridge.ConferencePatch{Rejoin: &on})
		return err
	case "referrers":
		p := bridge.Referrers(arg(1))
		_, err := h.b.UpdateConference(ctx, h.actor, h.conf, bridge.ConferencePatch{WhoMayRefer: &p})
		return err
	case "dial":
		return h.dial(arg(1), arg(2), f[3:])
	case "press", "info":
		return h.press(f[0], arg(1), arg(2))
	case "caller":
		return h.callerDoes(arg(1), arg(2))
	case "policy":
		p := bridge.JoinPolicy(arg(1))
		_, err := h.b.UpdateConference(ctx, h.actor, h.conf, bridge.ConferencePatch{JoinPolicy: &p})
		return err
	case "ask":
		_, err := h.b.SetLegMedia(ctx, h.actor, h.conf, h.ids[arg(1)], arg(2))
		var own *bridge.Error
		if errors.As(err, &own) && own.Retry > 0 {
			h.say("%s: try again in %v", arg(1), own.Retry)
		}
		return err
	case "phone":
		if c := h.net.phone(h.number[arg(1)]); c != nil {
			c.mu.Lock()
			c.reacts = arg(2)
			c.mu.Unlock()
		}
		return nil
	case "engine":
		return h.engine(arg(1), arg(2))
	case "attachment":
		if arg(1) == "spare" {
			h.net.mu.Lock()
			defer h.net.mu.Unlock()
			h.net.spare = true
			return nil
		}
		h.net.setUp(arg(1) == "up")
		return nil
	case "media":
		switch arg(1) {
		case "down":
			h.eng.die()
			h.b.MediaDown()
		case "up":
			h.eng.revive()
			h.b.MediaUp()
		case "dead":
			h.eng.events <- &mediapb.Event{Conference: h.conf, Leg: h.member(arg(2)).Leg.ID, What: &mediapb.Event_MediaStalled{
				MediaStalled: &mediapb.MediaStalled{Kind: "audio", LegDead: true}}}
		}
		return nil
	case "after":
		d, err := time.ParseDuration(arg(1))
		h.wait(d)
		return err
	}
	return fmt.Errorf("no such command: %q", line)
}

func (h *house) nameOf(number string) string {
	for name, n := range h.number {
		if n == number {
			return name
		}
	}
	return "nobody"
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (h *house) peer(c *call, what string) error {
	audio := func(dir string) func(string) string {
		return func(s string) string {
			return strings.ReplaceAll(s, "a=sendrecv", "a="+dir)
		}
	}
	var id uint64
	switch what {
	case "hold":
		id = c.reoffer(audio("sendonly"))
	case "oldhold":
		id = c.reoffer(func(s string) string { return strings.ReplaceAll(s, "c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0") })
	case "resume":
		id = c.reoffer(audio("sendrecv"))
	case "voiceonly":
		id = c.reoffer(func(s string) string { return strings.Replace(s, "m=video 50002", "m=video 0", 1) })
	case "nonsense":
		id = c.reoffer(func(string) string { return "v=7" })
	case "offerless":
		id = c.reoffer(nil)
	case "addvideo", "inactive", "srvcc", "srvcc1", "takenover", "dropaudio", "dropall", "dropallheld", "family", "fewer", "cameraoff", "novideoheld":
		id = c.newOffer(what)
	case "moves", "mutes", "unmutes", "shuts", "raves": // in its answer to a refresh of ours
		c.refreshed(func(s string) string {
			switch what {
			case "moves": // to another border controller
				return strings.NewReplacer("IN IP4 127.0.0.1", "IN IP4 127.0.0.8", "m=audio 50000", "m=audio 50100", "m=video 50002", "m=video 50102").Replace(s)
			case "mutes":
				return strings.ReplaceAll(s, "a=sendrecv", "a=sendonly")
			case "unmutes":
				return strings.ReplaceAll(s, "a=sendonly", "a=sendrecv")
			case "shuts":
				return strings.Replace(s, "m=video 50102", "m=video 0", 1)
			}
			return "v=7"
		})
		synctest.Wait()
		h.say("%s: media go to%s", h.nameOf(c.inv.Number), h.eng.remotes(h.member(h.nameOf(c.inv.Number)).Leg.ID))
		return nil
	case "bye":
		c.bye(16)
		return nil
	case "lost":
		c.bye(41)
		return nil
	case "radio":
		c.end(sip.Ended{By: sip.ByRemote, ReleaseCause: 3})
		return nil
	default:
		return fmt.Errorf("a phone cannot %q", what)
	}
	synctest.Wait()
	r := c.replyTo(id)
	dir := ports(r)
	for _, d := range []string{"sendrecv", "sendonly", "recvonly", "inactive"} {
		if bytes.Contains(r.sdp, []byte("a="+d)) {
			dir += " " + d
		}
	}
	h.say("%s: reply: status %d,%s", h.nameOf(c.inv.Number), r.status, cmpOr(dir, " no description"))
	return nil
}

// A scenario file is blocks: commands, ----, what happened. -rewrite updates it; read
// that diff as a review.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("../testdata/scenario/bridge-*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				got := play(t, string(text))
				if *rewrite {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				} else if got != string(text) {
					t.Errorf("%s: other things happened:\n%s", file, diff(string(text), got))
				}
			})
		})
	}
}

func play(t *testing.T, text string) string {
	h := newHouse(t, bridge.VideoConference)
	defer h.close()
	h.take()
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		commands, _, _ := strings.Cut(block, "\n----")
		for line := range strings.SplitSeq(commands, "\n") {
			if strings.HasPrefix(line, "#") {
				continue
			}
			if err := h.run(line); err != nil {
				h.say("%s: error: %v", cmpOr(strings.Join(strings.Fields(line)[1:2], ""), "all"), err)
			}
			synctest.Wait()
		}
		fmt.Fprintf(&out, "%s\n----\n", commands)
		if s := h.take(); s != "" {
			out.WriteString(s + "\n")
		}
		out.WriteString("\n")
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out []string
	for i := range max(len(w), len(g)) {
		a, b := "", ""
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			out = append(out, "- "+a, "+ "+b)
		}
	}
	return strings.Join(out, "\n")
}
