package bridge

import (
	"context"
	"crypto/subtle"
	"time"

	"sparkle/bridge/fault"
	"sparkle/bridge/prompts"
	"sparkle/media/mediapb"
	"sparkle/sip"
	"sparkle/sip/ims"
)

// door is where a leg stands that is connected and not in: it hears prompts and is heard,
// seen and known by nobody. Keys open it (IMS.md §4.4):
//
//	prompt ─ keys, 10 s ─> PIN ─ right ─> in
//	   ^                    │
//	   └── wrong, twice ────┴─ third time ─> "too many tries" ─> BYE, SIP;cause=403
//
// What is typed is compared in constant time, counted, and neither kept nor logged.
//
// A member who was called may stand there too, until he presses 1: a mailbox does not
// (IMS.md §6). To everybody else he rings.
type door struct {
	room    *room  // whose PIN opens it; nil: the PIN says whose
	target  string // what was dialled, for the limit on guesses
	confirm bool   // no PIN: the key 1

	digits  []byte
	tries   int
	step    int    // changes whenever what is waited for does
	playing string // id of the prompt
	shuts   time.Time
	opened  bool // the PIN was right
	moving  bool // to the conference from the lobby
	offered bool // its ports there, to the phone
	leaving bool // the last prompt plays
	timer   *time.Timer
}

const (
	maxTries = 3
	tryTime  = 10 * time.Second // from the end of the prompt, and from each key
	doorTime = 2 * time.Minute  // in all, whatever is typed

	confirmTime = 5 * time.Second // tryTime of one key
)

// caller is by whom guesses are counted. Numbers that nobody vouches for are one caller:
// changing them must not give more tries.
func (v *visitor) caller() string {
	if c := v.in.Caller; c.Trusted && c.URI != "" {
		return "caller " + c.URI
	}
	return "unverified " + v.in.Attachment
}

// knock begins at the door, once connected.
func (r *room) knock(now time.Time, l *leg) {
	l.door.shuts = now.Add(doorTime)
	first := prompts.Enter
	if l.door.confirm {
		first = prompts.Confirm
	}
	r.ask(now, l, first)
}

// ask plays a prompt and waits for keys.
func (r *room) ask(now time.Time, l *leg, n prompts.Name) {
	d := l.door
	d.digits = d.digits[:0]
	r.expect(l, r.say(l, n)+d.patience())
}

// patience is how long a key is waited for.
func (d *door) patience() time.Duration {
	if d.confirm {
		return confirmTime
	}
	return tryTime
}

// expect waits, and no longer than the door is open.
func (r *room) expect(l *leg, wait time.Duration) {
	d := l.door
	d.step++
	step := d.step
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timer = time.AfterFunc(wait, fault.Safely(r.log, "door", func() {
		r.post(func(now time.Time) {
			if r.legs[l.ID] == l && l.door == d && d.step == step {
				r.about = l
				r.waited(now, l)
			}
		})
	}))
}

// waited: nothing more was typed, or the last prompt has ended.
func (r *room) waited(now time.Time, l *leg) {
	d := l.door
	switch {
	case d.leaving:
		r.hang(now, l, "not_admitted", `SIP;cause=403;text="Not admitted"`,
			&verdict{outcome: HungUp, text: Text{Zh: "未通过会议验证，已挂断", En: "Hung up: the caller was not admitted."}})
	case d.confirm:
		if d.tries++; d.tries < maxTries {
			l.note(now, "state", "asked again to press 1")
			r.ask(now, l, prompts.Confirm)
			return
		}
		r.hang(now, l, "not_confirmed", `SIP;cause=480;text="Not confirmed"`,
			&verdict{outcome: HungUp, text: Text{Zh: "接听后未按键确认（可能是语音信箱）", En: "Answered, but nobody pressed 1: a mailbox, perhaps."},
				retry: ims.Retry{How: ims.RetryLater}})
	case len(d.digits) > 0:
		r.tryPIN(now, l)
	default:
		r.missed(now, l)
	}
}

// onKey is a key of a leg, wherever it came from.
func (r *room) onKey(now time.Time, l *leg, key rune) {
	if l.door != nil && l.ConnectedAt != nil && l.why == "" {
		r.key(now, l, key)
	}
}

// played: the time for an answer begins when the question has been heard.
func (r *room) played(now time.Time, l *leg, e *mediapb.PlayEnded) {
	d := l.door
	if d == nil || d.playing == "" || d.playing != e.Id || e.Cut || d.opened || l.why != "" {
		return
	}
	d.playing = ""
	if d.leaving {
		r.waited(now, l)
		return
	}
	r.expect(l, d.patience())
}

// key is one key of a caller at the door.
func (r *room) key(now time.Time, l *leg, key rune) {
	d := l.door
	if d.leaving || d.opened {
		return
	}
	if now.After(d.shuts) {
		r.turnAway(now, l, prompts.Tries)
		return
	}
	if d.playing != "" { // who types has heard enough
		r.play(l, "", nil)
		d.playing = ""
	}
	switch {
	case d.confirm:
		if key == '1' {
			l.note(now, "state", "pressed 1")
			r.comeIn(now, l)
		}
		return
	case key == '*':
		d.digits = d.digits[:0]
	case key == '#':
		if len(d.digits) > 0 {
			r.tryPIN(now, l)
			return
		}
	case key >= '0' && key <= '9':
		if d.digits = append(d.digits, byte(key)); len(d.digits) == pinLen {
			r.tryPIN(now, l)
			return
		}
	}
	r.expect(l, tryTime)
}

func (r *room) tryPIN(now time.Time, l *leg) {
	d, b := l.door, r.b
	typed := string(d.digits)
	clear(d.digits[:cap(d.digits)])
	d.digits = d.digits[:0]
	if b.guesses.shut(now, l.visitor.caller(), d.target) {
		r.turnAway(now, l, prompts.Tries)
		return
	}
	to := d.room
	switch {
	case to == nil:
		to = b.byPIN(typed)
	case subtle.ConstantTimeCompare([]byte(typed), []byte(r.conf.PIN)) != 1:
		to = nil
	}
	if to == nil {
		b.guesses.wrong(now, l.visitor.caller(), d.target)
		l.note(now, "state", "a wrong PIN")
		r.missed(now, l)
		return
	}
	d.opened = true
	d.step++
	l.note(now, "state", "the PIN is right")
	// His row may have to be written first.
	if !b.spawn(func() {
		status := 403
		id := ""
		if c := to.view.Load(); c.Conference.JoinPolicy != JoinListed || isListed(b, c, l.visitor) {
			id, status = b.admit(to, l.visitor)
		}
		r.post(func(now time.Time) { r.admitted(now, l, to, id, status) })
	}) {
		r.turnAway(now, l, prompts.Refused)
	}
}

func isListed(b *Bridge, c *View, v *visitor) bool {
	_, ok := b.listed(c, v.in.Caller)
	return ok
}

// missed counts a try.
func (r *room) missed(now time.Time, l *leg) {
	l.door.tries++
	if l.door.tries >= maxTries || now.After(l.door.shuts) {
		r.turnAway(now, l, prompts.Tries)
		return
	}
	r.ask(now, l, prompts.Wrong)
}

// turnAway says goodbye, and hangs up when it has been said.
func (r *room) turnAway(now time.Time, l *leg, n prompts.Name) {
	l.door.leaving, l.door.opened = true, false
	l.note(now, "state", "not admitted: "+string(n))
	r.expect(l, r.say(l, n))
}

// admitted: his row is there, or he is refused in spite of the PIN.
func (r *room) admitted(now time.Time, l *leg, to *room, id string, status int) {
	switch {
	case l.dead || l.why != "":
		to.post(func(now time.Time) { to.forget(now, id) })
	case status == 486:
		r.turnAway(now, l, prompts.Full)
	case status != 0:
		r.turnAway(now, l, prompts.Refused)
	case to == r:
		l.Member = id
		r.comeIn(now, l)
	default:
		r.sendTo(now, l, to, id)
	}
}

// comeIn opens the door: from now on the leg is its member's, heard and seen.
func (r *room) comeIn(now time.Time, l *leg) {
	m := r.member(l.Member)
	if m == nil {
		r.turnAway(now, l, prompts.Refused)
		return
	}
	l.door.stop()
	confirmed := l.door.confirm
	l.door, l.AwaitingConfirm = nil, false
	state := Connected
	if l.held {
		state = Held
	}
	if m.leg != l {
		l.State, l.Since = state, now.UTC()
		r.takePlace(now, l)
	} else {
		r.setState(now, l, state)
	}
	r.pushLeg(l)
	if l.visitor != nil {
		r.inviteList(now, l)
	}
	if !confirmed {
		r.say(l, prompts.Joined)
	}
}

func (d *door) stop() {
	d.step++
	if d.timer != nil {
		d.timer.Stop()
	}
}

// forget drops a row that was made for a caller who then hung up, if it was his alone.
func (r *room) forget(now time.Time, id string) {
	if m := r.member(id); m != nil && m.Number == "" && m.leg == nil {
		r.dropRow(now, m)
	}
}

// sendTo hands a leg from the lobby to the conference whose PIN was given. The engine
// closes it here and opens it there; the new ports are offered to the phone. Nobody but
// the closure holds the leg on the way.
func (r *room) sendTo(now time.Time, l *leg, to *room, id string) {
	l.door.stop()
	l.door.moving = true
	l.note(now, "state", "goes to its conference")
	l.visitor.detach()
	delete(r.legs, l.ID)
	r.b.legRoom.Delete(l.ID)
	opened := l.opened
	l.opened, l.agreed = false, nil
	r.b.freePorts(l)
	r.dirty = true
	r.opening++ // the lobby's conference stays open until it is closed there
	r.work.do(func(ctx context.Context) {
		if opened {
			stats, err := r.b.media.CloseLeg(ctx, l.ID)
			r.b.totals.close(l.ID, stats)
			if err != nil {
				r.log.Warn("media did not close a leg", "leg_id", l.ID, "err", err)
			}
		}
		r.post(func(time.Time) { r.opening-- })
		if !to.post(func(now time.Time) { to.receive(now, l, id) }) {
			r.post(func(now time.Time) { // it has been deleted meanwhile
				r.legs[l.ID] = l
				l.visitor.attach(r, l)
				r.hang(now, l, "conference_gone", `SIP;cause=404;text="The conference has ended"`, nil)
			})
		}
	})
}

// receive takes a leg from the lobby.
func (r *room) receive(now time.Time, l *leg, id string) {
	l.Conference, l.Member = r.id, id
	l.wantsPic = l.wantsPic && r.conf.Type == VideoConference
	r.legs[l.ID] = l
	l.visitor.attach(r, l)
	m := r.member(id)
	if m == nil || r.closing || r.mediaDown {
		r.hang(now, l, "conference_gone", `SIP;cause=404;text="The conference has ended"`, nil)
		return
	}
	r.openLeg(l)
}

// moveIn offers the phone the ports that it has in its conference.
func (r *room) moveIn(now time.Time, l *leg) {
	if l.pending != nil || l.late != nil || l.given != nil || l.why != "" {
		return // one offer at a time
	}
	offer, err := l.makeOffer(now)
	if err != nil {
		r.log.Warn("no offer for a leg from the lobby", "leg_id", l.ID, "err", err)
		r.drop(now, l, "media_lost")
		return
	}
	l.door.offered = true
	l.call.Offer(offer, focusUser(r.id)) // from now on that is whom it talks to
}

// movedIn is the phone's answer to that; without one it cannot be heard.
func (r *room) movedIn(now time.Time, l *leg, e sip.Reoffered) {
	if e.SDP != nil {
		own, res, err := r.b.settled(l.local, e.SDP, e.Local, e.Offered)
		if err == nil {
			if why := r.mayHaveVideo(); why != "" && offeredType(l.visitor.in.Offer) == VideoConference {
				res.WhyNoVideo = why // he offered it in the lobby
			}
			l.local = own
			r.agree(now, l, res)
			r.comeIn(now, l)
			r.tellMismatch(now, l)
			return
		}
	}
	r.hang(now, l, "media_incompatible", `SIP;cause=488;text="Not Acceptable Here"`,
		&verdict{outcome: Dropped, text: Text{Zh: "话机未接受会议的媒体", En: "The phone did not take the conference's media."}})
}

// say plays a prompt to a leg in its language, and tells how long it lasts.
func (r *room) say(l *leg, n prompts.Name) time.Duration {
	pcm := prompts.PCM(n, language(l.number))
	id := newID("say")
	if l.door != nil {
		l.door.playing = id
	}
	r.play(l, id, pcm)
	return prompts.Length(pcm)
}

// play lets a leg hear a sound; without one, what plays stops.
func (r *room) play(l *leg, id string, pcm []byte) {
	if !l.opened {
		return
	}
	req := &mediapb.PlayRequest{Leg: l.ID, Id: id, Pcm: pcm}
	r.work.do(func(ctx context.Context) {
		if err := r.b.media.Play(ctx, req); err != nil {
			r.log.Warn("media played no prompt", "leg_id", req.Leg, "err", err) // the caller still has his tries
		}
	})
}
