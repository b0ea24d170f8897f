package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/lab"
)

// kill -9 of the video process is not heard: everybody stays, no audio packet is
// missing, and a new video process comes up.
func TestDeadVideoProcessIsNotHeard(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	talker := n.handset("+15550100006", lab.PSTN, true)
	viewer := n.handset("+8613800138001", lab.VolteVideo, false)
	listener := n.handset("+15550100007", lab.PSTN, false)
	x := convene(n, bridge.VideoConference, fewPictures, talker, viewer, listener)
	video := x.child("video", process{})
	x.hears(listener, 25)
	x.hears(viewer, 25)
	from, fromAMR := listener.ear().count(), viewer.ear().count()
	if err := syscall.Kill(video.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again := x.child("video", video)
	x.hears(listener, 50)
	x.hears(viewer, 25)
	for _, e := range []struct {
		name string
		got  []heard
	}{{"PCMA", listener.ear().since(from)}, {"AMR-WB", viewer.ear().since(fromAMR)}} {
		missing, span := gaps(e.got)
		// Judged by counts: a busy machine may be late with some, but a mixer that waited
		// for the video process to come back would have sent next to nothing meanwhile.
		if due := int(span / (20 * time.Millisecond)); missing != 0 || len(e.got) < due*6/10 {
			t.Errorf("%s: %d packets are missing, %d came where %d were due", e.name, missing, len(e.got), due)
		}
	}
	// It was the talker who was heard all the time, not comfort.
	if loud := rms(listener.ear().since(from)); loud < 500 {
		t.Errorf("the listener hears %.0f, want the talker", loud)
	}
	for _, m := range x.members {
		got := x.await(x.conference, m, "the conference", in)
		if legs, err := x.api.Legs(t.Context(), x.conference, m); err != nil || len(legs) != 1 {
			t.Errorf("%s has %d legs (%v), want the one it had", got.Name, len(legs), err)
		}
	}
	if again == video || !again.alive() {
		t.Errorf("video process %+v after %+v", again, video)
	}
	awaitGone(t, []process{video})
}

// kill -9 of the media process: everybody is called back into the conference.
func TestDeadMediaProcessCallsMembersBack(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	talker := n.handset("+15550100006", lab.PSTN, true)
	viewer := n.handset("+8613800138001", lab.VolteVideo, false)
	x := convene(n, bridge.VideoConference, fewPictures, talker, viewer)
	x.pardons = []string{"media process ended", "the media engine is down"}
	media, video := x.child("media", process{}), x.child("video", process{})
	if err := syscall.Kill(media.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, []process{media, video}) // the kernel ends the grandchild
	for _, m := range x.members {
		var legs []bridge.Leg
		eventually(t, "a second leg that connects", func() (err error) {
			legs, err = x.api.Legs(t.Context(), x.conference, m)
			if err == nil && (len(legs) != 2 || legs[0].State != bridge.Connected) {
				err = fmt.Errorf("legs are %+v", legs)
			}
			return err
		})
		if lost := legs[1]; lost.Outcome != bridge.Dropped || lost.Text == nil || lost.Text.En == "" || lost.EndedAt == nil {
			t.Errorf("the lost leg is %+v, want dropped with a sentence", lost)
		}
	}
	if got := x.hears(viewer, 25); len(got) == 0 {
		t.Error("nothing is heard after the call back")
	}
	m := x.await(x.conference, x.members[1], "video again", func(m bridge.Member) bool { return in(m) && m.Leg.Media.Video != nil })
	if m.Leg.Media.Video.Codec != "H264" {
		t.Errorf("video is %+v", m.Leg.Media.Video)
	}
	for i, h := range x.handsets {
		if calls := h.Calls(); len(calls) != 2 || calls[0].State != lab.Ended {
			t.Errorf("%s saw %d calls, want the lost and the new one: %+v", x.handsets[i].Name(), len(calls), calls)
		}
	}
}

// kill -9 of control ends its children; what was acknowledged is there after the
// restart, and calls that were live are closed with a sentence.
func TestDeadControlLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	viewer := n.handset("+8613800138001", lab.VolteVideo, false)
	busy := n.handset("+8613800138007", lab.Busy, false)
	d := startDaemon(t, n.ue())
	d.ready()
	conference := d.conference(bridge.VideoConference)
	m, engaged := d.invite(conference, viewer.Number(), "陈晨"), d.invite(conference, busy.Number(), "王芳")
	d.call(conference, bridge.CallRequest{Targets: "all"})
	d.await(conference, m, "the conference", in)
	d.ended(conference, engaged, bridge.Busy)
	children := d.children()
	if len(children) < 2 {
		t.Errorf("children are %v, want media and video", children)
	}
	late := d.invite(conference, "+8613800138099", "last moment") // acknowledged, then the lights go out
	d.kill()
	awaitGone(t, children)

	d.start()
	members, err := d.api.Members(t.Context(), conference)
	if err != nil || len(members) != 3 {
		t.Fatalf("the roster is %+v, %v", members, err)
	}
	for i, want := range []struct {
		id, name string
		outcome  bridge.Outcome
	}{{m, "陈晨", bridge.Dropped}, {engaged, "王芳", bridge.Busy}, {late, "last moment", ""}} {
		got := members[i]
		if got.ID != want.id || got.Name != want.name || got.State != bridge.Idle || got.Leg != nil {
			t.Errorf("member %d is %+v, want %+v, idle", i, got, want)
		}
		switch o := got.LastOutcome; {
		case want.outcome == "":
			if o != nil {
				t.Errorf("%s was never called and has outcome %+v", want.name, o)
			}
		case o == nil || o.Outcome != want.outcome || o.Text.En == "" || o.Text.Zh == "":
			t.Errorf("%s: outcome %+v, want %s with a sentence", want.name, o, want.outcome)
		}
	}
	legs, err := d.api.Legs(t.Context(), conference, m)
	if err != nil || len(legs) != 1 || legs[0].State != bridge.Ended || legs[0].EndedAt == nil || legs[0].ConnectedAt == nil ||
		!strings.Contains(legs[0].Text.En, "restarted") {
		t.Errorf("the history is %+v, %v", legs, err)
	}
	// And it works: the same member can be called again once the phone has let go.
	d.ready()
	if err := viewer.HangUp(); err != nil {
		t.Fatal(err)
	}
	d.call(conference, bridge.CallRequest{Members: []string{m}})
	d.await(conference, m, "the conference, again", in)
}
