package lab

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sparkle/bridge/lab/wire"
	"sparkle/sip/sdp"
)

// call is one call of a handset. Of one that comes in: the callee's side of RFC 3261
// §13.3, with 100rel (RFC 3262), UPDATE (RFC 3311) and preconditions (RFC 3312). It belongs
// to the handset's loop.
type call struct {
	h   *Handset
	s   Script
	tx  *wire.ServerTx // of the INVITE that came in
	out *outgoing      // of one that the handset placed
	// view is what others see; index its place in the history, -1 before the first.
	view  Call
	index int

	tag       string            // ours in the dialog
	from, to  string            // values of From and To in our requests
	forks     map[string]string // To tags of the other phones that rang: "ringing", "answered", "gone"
	remoteURI string
	routes    []string
	localSeq  uint32
	remoteSeq uint32
	inviteSeq uint32

	offer   *sdp.Session // the INVITE's, nil if it had none
	local   []byte       // our last description
	agreed  sdp.Result
	media   Media
	ip      string
	audio   int
	video   int
	wantVid bool
	started bool

	rseq     uint32
	pending  *reliable
	answered bool // an answer has been sent (in a reliable 18x or the 2xx)
	waitQoS  bool // the caller's bearer is not up yet
	bearer   bool // ours is
	final    bool

	timer   *wire.Timer // the script's next step
	repeat  *wire.Timer // 2xx until ACK
	guard   *wire.Timer // bounds the wait for a PRACK, an ACK, a bearer
	session *wire.Timer
	hangUp  *wire.Timer

	re      *reoffer // our re-INVITE under way
	theirRe *wire.Message
	reTimer *wire.Timer
	dropped int // ACKs overheard so far
}

// reliable is a 1xx that waits for its PRACK.
type reliable struct {
	seq  uint32
	m    *wire.Message
	then func()
	wait time.Duration
	t    *wire.Timer
}

// allowed is what a handset says it knows.
const allowed = "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, OPTIONS, INFO"

// known options in Require; more is 420.
var known = map[string]bool{"100rel": true, "precondition": true, "timer": true, "path": true, "replaces": true}

func (h *Handset) request(tx *wire.ServerTx) {
	m := tx.Req
	if tag := m.ToTag(); tag != "" {
		k := h.live[m.Get("Call-ID")+"|"+tag]
		if k == nil {
			tx.Respond(m.Reply(481, "", ""))
			return
		}
		k.inDialog(tx)
		return
	}
	switch m.Method {
	case "INVITE":
		h.invited(tx)
	case "OPTIONS":
		r := m.Reply(200, "", wire.Token(4))
		r.Add("Allow", allowed)
		r.Add("Accept", "application/sdp")
		tx.Respond(r)
	case "BYE", "PRACK", "UPDATE", "INFO":
		tx.Respond(m.Reply(481, "", wire.Token(4)))
	default:
		r := m.Reply(405, "", wire.Token(4))
		r.Add("Allow", allowed)
		tx.Respond(r)
	}
}

func (h *Handset) ack(m *wire.Message, _ wire.Target) {
	if k := h.live[m.Get("Call-ID")+"|"+m.ToTag()]; k != nil {
		k.acked(m)
	}
}

// trace keeps each call's ladder.
func (h *Handset) trace(sent bool, _ wire.Target, m *wire.Message) {
	line := "-> "
	if !sent {
		line = "<- "
	}
	if m.Method != "" {
		line += m.Method
	} else {
		_, method := m.CSeq()
		line += fmt.Sprintf("%d %s", m.Status, method)
	}
	id := m.Get("Call-ID")
	for _, k := range h.live {
		if k.view.CallID == id && len(k.view.Ladder) < 200 {
			k.view.Ladder = append(k.view.Ladder, line)
			return
		}
	}
}

// invited begins a call.
func (h *Handset) invited(tx *wire.ServerTx) {
	m := tx.Req
	busy := map[*call]bool{}
	for _, k := range h.live {
		if k.view.State != Ended {
			busy[k] = true
		}
	}
	if len(busy) >= h.o.MaxCalls {
		r := m.Reply(486, "", wire.Token(4))
		r.Add("Reason", `Q.850;cause=17;text="User busy"`)
		tx.Respond(r)
		return
	}
	k := &call{h: h, s: h.s, tx: tx, tag: wire.Token(5), index: -1, forks: map[string]string{}}
	k.view = Call{
		CallID: m.Get("Call-ID"), From: orDefault(m.Get("P-Asserted-Identity"), m.Get("From")), To: m.Get("To"),
		State: Offered, Offer: string(m.Body), Invited: time.Now(), Ladder: []string{"<- INVITE"},
	}
	for _, x := range m.Headers {
		k.view.Headers = append(k.view.Headers, x.Name+": "+x.Value)
	}
	k.inviteSeq, _ = m.CSeq()
	k.remoteSeq = k.inviteSeq
	k.from, k.to = m.Get("To")+";tag="+k.tag, m.Get("From")
	if a, err := wire.ParseAddr(m.Get("Contact")); err == nil {
		k.remoteURI = a.URI
	}
	k.routes = m.Values("Record-Route")
	h.live[k.view.CallID+"|"+k.tag] = k
	tx.OnCancel = k.cancelled
	tx.Respond(m.Reply(100, "", ""))
	k.begin()
	h.publish(k)
}

// begin decides what the INVITE gets.
func (k *call) begin() {
	m := k.tx.Req
	for _, opt := range m.Values("Require") {
		if !known[strings.ToLower(opt)] {
			r := k.response(420, "")
			r.Add("Unsupported", opt)
			k.fail(r)
			return
		}
	}
	if k.remoteURI == "" {
		k.refuse(400, "", "", "")
		return
	}
	if len(m.Body) > 0 {
		var err error
		if k.offer, err = sdp.Parse(m.Body); err != nil {
			k.refuse(488, "", "", fmt.Sprintf("399 %s %q", k.h.ep.Addr(), err.Error()))
			return
		}
		k.view.HadVideo = k.offer.Video != nil && k.offer.Video.Port != 0
	}
	switch {
	case k.s.Status != 0 && k.s.AtOnce:
		k.refuse(k.s.Status, k.s.Phrase, k.s.Reason, k.s.Warning)
		return
	case k.s.VideoStatus != 0 && k.view.HadVideo:
		k.refuse(k.s.VideoStatus, "", "", orDefault(k.s.Warning, fmt.Sprintf("304 %s \"Media type not available\"", k.h.ep.Addr())))
		return
	}
	if err := k.open(); err != nil {
		status, code := sdp.StatusOf(err)
		k.refuse(status, "", "", fmt.Sprintf("%d %s %q", code, k.h.ep.Addr(), err.Error()))
		return
	}
	for i := range k.s.Forks {
		k.fork(i)
	}
	k.progress()
}

// openMedia gets the media's sockets.
func (k *call) openMedia() error {
	var err error
	if k.media, err = k.h.o.Media(k.h.o); err != nil {
		return err
	}
	k.view.Media = k.media
	if l, ok := k.media.(interface{ Loss(float64) }); ok && k.s.Lossy > 0 {
		l.Loss(k.s.Lossy)
	}
	if k.ip, k.audio, k.video, err = k.media.Open(); err != nil {
		k.media = nil // it closed what it had opened
		return err
	}
	k.wantVid = k.s.Video
	return nil
}

// open gets the media's sockets and works out our description.
func (k *call) open() error {
	err := k.openMedia()
	if err != nil {
		return err
	}
	if k.offer == nil {
		return k.offerOurs()
	}
	k.local, k.agreed, err = sdp.Answer(k.offer, k.answerOptions(k.qos()))
	return err
}

// offerOurs is for an INVITE without a description: ours is the offer, the answer
// comes in the ACK.
func (k *call) offerOurs() error {
	a, err := addrOf(k.ip)
	if err != nil {
		return err
	}
	k.local = sdp.Offer(sdp.OfferOptions{
		Origin: sdp.NewOrigin(time.Now()), Addr: a, AudioPort: k.audio, Video: k.wantVid, VideoPort: k.video, G711: true,
	})
	return nil
}

// answerOptions is what this phone can do.
func (k *call) answerOptions(qos []string) sdp.AnswerOptions {
	a, _ := addrOf(k.ip) // an unusable address makes Answer fail
	o := sdp.AnswerOptions{
		Origin: sdp.NewOrigin(time.Now()), Addr: a, AudioPort: k.audio, VideoPort: k.video,
		Codecs: k.s.Codecs, Video: k.wantVid, AudioLines: qos, VideoLines: qos,
		H264: "42c00c", Sizes: []sdp.Size{{Width: 240, Height: 320}},
	}
	if len(k.local) > 0 {
		o.Previous, _ = sdp.Parse(k.local)
	}
	return o
}

// qos are the precondition lines of the first answer, nil where there are none.
func (k *call) qos() []string {
	m := k.tx.Req
	if !k.s.Preconditions || !k.reliable() || !(m.Has("Supported", "precondition") || m.Has("Require", "precondition")) {
		return nil
	}
	remote := "none"
	if a := k.offer.Audio; a != nil {
		remote = localQoS(a)
	}
	k.waitQoS = remote != "sendrecv"
	return qosLines("none", remote)
}

// localQoS is what a description says of its writer's own bearer.
func localQoS(m *sdp.Media) string {
	for _, q := range m.QoS {
		f := strings.Fields(q.Value)
		if q.Key == "curr" && len(f) == 3 && f[0] == "qos" && f[1] == "local" {
			return f[2]
		}
	}
	return "none"
}

// reliable says whether 1xx go by RFC 3262 in this call.
func (k *call) reliable() bool {
	m := k.tx.Req
	return m.Has("Require", "100rel") || k.s.Reliable && m.Has("Supported", "100rel")
}

// response is a response to the INVITE with this dialog's headers.
func (k *call) response(status int, tag string) *wire.Message {
	m := k.tx.Req
	r := m.Reply(status, "", orDefault(tag, k.tag))
	if status > 100 && status < 300 {
		for _, v := range m.Values("Record-Route") {
			r.Add("Record-Route", v)
		}
		r.Add("Contact", k.h.contactValue())
		r.Add("Allow", allowed)
	}
	if k.s.Gateway {
		r.Add("Server", "MGCF")
	}
	return r
}

func withSDP(r *wire.Message, body []byte) *wire.Message {
	if len(body) > 0 {
		r.Add("Content-Type", "application/sdp")
		r.Body = body
	}
	return r
}

// fork rings another phone of the same number.
func (k *call) fork(i int) {
	tag := wire.Token(5)
	k.forks[tag] = "ringing"
	k.h.live[k.view.CallID+"|"+tag] = k
	r := k.response(180, tag)
	r.Set("Contact", "<"+k.h.ep.URI("fork"+strconv.Itoa(i), ";transport="+k.h.o.Transport)+">")
	k.tx.Respond(r)
}

// progress sends a 183 where the script has one, then waits to ring.
func (k *call) progress() {
	switch {
	case k.reliable() && k.s.Reliable && k.offer != nil:
		r := withSDP(k.response(183, ""), k.local)
		if k.s.Preconditions {
			r.Add("Require", "precondition")
		}
		k.answered = true
		k.view.Answer = string(k.local)
		k.sendReliable(r, func() { k.timer = k.h.ep.After(k.s.Bearer+k.s.Ring, k.bearerUp) })
		return
	case k.s.EarlyMedia:
		r := withSDP(k.response(183, ""), k.local)
		r.Add("P-Early-Media", "sendonly")
		k.tx.Respond(r)
	}
	k.timer = k.h.ep.After(k.s.Ring, k.ring)
}

// bearerUp rings, unless the caller still owes its half of the preconditions.
func (k *call) bearerUp() {
	k.bearer = true
	if !k.waitQoS {
		k.ring()
		return
	}
	k.guard = k.h.ep.After(20*k.h.t1(), func() { k.refuse(580, "", "", "") })
}

func (h *Handset) t1() time.Duration {
	if h.home.T1 > 0 {
		return h.home.T1
	}
	return 500 * time.Millisecond
}

// ring sends 180 and waits for the user.
func (k *call) ring() {
	k.guard.Stop()
	if k.final {
		return
	}
	if k.s.NoRing {
		k.decide()
		return
	}
	r := k.response(180, "")
	k.view.State, k.view.Rang = Ringing, time.Now()
	if k.reliable() {
		k.sendReliable(r, k.decide)
	} else {
		k.tx.Respond(r)
		k.decide()
	}
	k.h.publish(k)
}

// decide waits as long as the user takes and does what he does.
func (k *call) decide() {
	switch {
	case k.final:
	case k.s.Never: // 90 s is the handsets' own no-answer timer
		k.timer = k.h.ep.After(90*time.Second, func() {
			k.refuse(480, "", `Q.850;cause=19;text="No answer from user"`, "")
		})
	case k.s.Status != 0:
		k.timer = k.h.ep.After(k.s.Answer, func() { k.refuse(k.s.Status, k.s.Phrase, k.s.Reason, k.s.Warning) })
	default:
		k.timer = k.h.ep.After(k.s.Answer, k.accept)
	}
}

// sendReliable sends a 1xx until its PRACK comes (RFC 3262 §3).
func (k *call) sendReliable(r *wire.Message, then func()) {
	if k.rseq == 0 {
		k.rseq = 1
	} else {
		k.rseq++
	}
	r.Add("Require", "100rel")
	r.Add("RSeq", strconv.FormatUint(uint64(k.rseq), 10))
	p := &reliable{seq: k.rseq, m: r, then: then, wait: k.h.t1()}
	k.pending = p
	k.tx.Respond(r)
	var again func()
	again = func() {
		k.tx.Respond(r)
		p.wait *= 2
		p.t = k.h.ep.After(p.wait, again)
	}
	p.t = k.h.ep.After(p.wait, again)
	k.guard.Stop()
	k.guard = k.h.ep.After(64*k.h.t1(), func() { k.refuse(504, "PRACK missing", "", "") })
}

// pracked takes the PRACK of the pending 1xx.
func (k *call) pracked(tx *wire.ServerTx) {
	f := strings.Fields(tx.Req.Get("RAck"))
	p := k.pending
	if p == nil || len(f) != 3 || f[0] != strconv.FormatUint(uint64(p.seq), 10) ||
		f[1] != strconv.FormatUint(uint64(k.inviteSeq), 10) || f[2] != "INVITE" {
		tx.Respond(tx.Req.Reply(481, "", ""))
		return
	}
	r := tx.Req.Reply(200, "", "")
	if len(tx.Req.Body) > 0 && !k.answerOffer(tx, r) {
		return
	}
	k.pending = nil
	p.t.Stop()
	k.guard.Stop()
	k.view.Pracks++
	k.h.publish(k)
	tx.Respond(r)
	p.then()
}

// accept sends the 200 and repeats it until the ACK (RFC 3261 §13.3.1.4).
func (k *call) accept() {
	if k.final {
		return
	}
	r := k.response(200, "")
	switch {
	case k.s.RawSDP != "":
		withSDP(r, []byte(k.s.RawSDP))
	case !k.answered && !k.s.NoSDP:
		withSDP(r, k.local)
		k.view.Answer = string(k.local)
	}
	k.sessionTimer(k.tx.Req, r)
	k.final = true
	k.timer.Stop()
	k.guard.Stop()
	k.view.State, k.view.Status, k.view.AnsweredAt = Answered, 200, time.Now()
	if k.offer != nil && k.s.RawSDP == "" && !k.s.NoSDP {
		k.start(k.agreed)
	}
	k.tx.Respond(r)
	k.repeat2xx(r, k.h.t1())
	k.guard = k.h.ep.After(64*k.h.t1(), func() { k.bye(ByNoACK, `SIP;cause=408;text="ACK missing"`) })
	if k.s.ForkLate {
		k.lateFork(r)
	}
	k.h.publish(k)
}

// lateFork lets another phone answer too; the caller owes it an ACK and a BYE.
func (k *call) lateFork(r *wire.Message) {
	for tag := range k.forks {
		r2 := k.response(200, tag)
		withSDP(r2, r.Body)
		k.forks[tag] = "answered"
		k.tx.Respond(r2)
		return
	}
}

func (k *call) repeat2xx(r *wire.Message, wait time.Duration) {
	k.repeat = k.h.ep.After(wait, func() {
		k.tx.Respond(r)
		k.repeat2xx(r, min(2*wait, 8*k.h.t1()))
	})
}

// start hands the agreement to the media, once.
func (k *call) start(r sdp.Result) {
	k.agreed = r
	k.view.Agreed, k.view.Video, k.view.Held = r, r.Video != nil && r.WhyNoVideo == "", r.Held
	var err error
	if k.started {
		err = k.media.Update(r)
	} else {
		k.started = true
		err = k.media.Start(r, k.wantVid && r.Video != nil)
	}
	if err != nil {
		k.h.log.Warn("media does not follow", "call_id", k.view.CallID, "err", err)
	}
}

// acked takes the ACK of our 200, of a fork's, or of a re-INVITE's.
func (k *call) acked(m *wire.Message) {
	if st, fork := k.forks[m.ToTag()]; fork {
		if st == "answered" {
			k.forks[m.ToTag()] = "acked"
		}
		return
	}
	n, _ := m.CSeq()
	if k.theirRe != nil {
		if re, _ := k.theirRe.CSeq(); re == n {
			k.reTimer.Stop()
			k.theirRe = nil
			k.takeAnswer(m.Body)
			k.h.publish(k)
			return
		}
	}
	if n != k.inviteSeq || k.view.State == Ended || !k.final {
		return
	}
	if k.dropped < k.s.DropACK {
		k.dropped++
		return
	}
	k.repeat.Stop()
	k.guard.Stop()
	k.view.ACKs++
	if k.view.State == Answered {
		k.view.State, k.view.ConnectedAt = Connected, time.Now()
		if k.offer == nil {
			k.takeAnswer(m.Body)
		}
		if k.s.HangUp > 0 {
			k.hangUp = k.h.ep.After(k.s.HangUp, func() { k.bye(ByHandset, userEnds) })
		}
	}
	k.h.publish(k)
}

// userEnds is how handsets explain a BYE of their user [IMS.md §6].
const userEnds = `RELEASE_CAUSE;cause=1;text="User ends call"`

// takeAnswer reads the answer to an offer that our 2xx made.
func (k *call) takeAnswer(body []byte) {
	if len(body) == 0 {
		return
	}
	ours, err := sdp.Parse(k.local)
	if err == nil {
		var theirs *sdp.Session
		if theirs, err = sdp.Parse(body); err == nil {
			var r sdp.Result
			if r, err = sdp.Negotiate(ours, theirs); err == nil {
				k.start(r)
				return
			}
		}
	}
	k.h.log.Warn("answer not usable", "call_id", k.view.CallID, "err", err)
}

// refuse ends an unanswered call with a final failure.
func (k *call) refuse(status int, phrase, reason, warning string) {
	r := k.response(status, "")
	if phrase != "" {
		r.Phrase = phrase
	}
	if reason != "" {
		r.Add("Reason", reason)
	}
	if warning != "" {
		r.Add("Warning", warning)
	}
	k.fail(r)
}

func (k *call) fail(r *wire.Message) {
	if k.final {
		return
	}
	k.final = true
	k.view.Status = r.Status
	k.tx.Respond(r)
	k.end(ByRefusal)
}

// cancelled answers 487, or with LateOK lets a 200 cross the CANCEL.
func (k *call) cancelled(m *wire.Message) {
	k.view.Reason = m.Get("Reason")
	if k.final {
		return
	}
	if k.s.LateOK {
		k.stopPending()
		k.accept()
		return
	}
	k.final = true
	k.view.Status = 487
	k.tx.Respond(k.response(487, ""))
	k.end(ByCancel)
}

func (k *call) stopPending() {
	if k.pending != nil {
		k.pending.t.Stop()
		k.pending = nil
	}
}

// end stops everything the call had. Late requests in the dialog get 481 from then on,
// except that other forks' ACK and BYE are still understood for a while.
func (k *call) end(by string) {
	if k.view.State == Ended {
		return
	}
	k.stopPending()
	for _, t := range []*wire.Timer{k.timer, k.repeat, k.guard, k.session, k.hangUp, k.reTimer} {
		t.Stop()
	}
	k.view.State, k.view.By, k.view.EndedAt = Ended, by, time.Now()
	if k.media != nil {
		k.h.wg.Go(k.media.Close)
		k.media = nil
	}
	delete(k.h.live, k.view.CallID+"|"+k.tag)
	if len(k.forks) > 0 {
		k.h.ep.After(64*k.h.t1(), k.forgetForks)
	}
	k.h.publish(k)
}

func (k *call) forgetForks() {
	for tag := range k.forks {
		delete(k.h.live, k.view.CallID+"|"+tag)
	}
}

// sessionTimer takes part in RFC 4028 with the caller as refresher.
func (k *call) sessionTimer(req, r *wire.Message) {
	v, _, _ := strings.Cut(req.Get("Session-Expires"), ";")
	n, err := strconv.Atoi(strings.TrimSpace(v))
	if err != nil || n <= 0 || !req.Has("Supported", "timer") {
		return
	}
	r.Add("Require", "timer")
	r.Add("Session-Expires", fmt.Sprintf("%d;refresher=uac", n))
	k.session.Stop()
	k.session = k.h.ep.After(time.Duration(n)*time.Second, func() {
		k.bye(BySession, `SIP;cause=408;text="Session timer expired"`)
	})
}
