// Package demo is the main job from end to end: a lab (an IMS core and handsets on
// loopback), the real daemon as a process of its own, a video conference made through
// the public HTTP API, everybody called, and a judgement of what each handset heard
// and saw. The daemon does not know that it is a demo.
package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/api/client"
	"sparkle/bridge/lab"
	"sparkle/bridge/lab/phone"
)

// Options of Run.
type Options struct {
	Program string        // the sparkle binary
	Listen  string        // of the API and console; "" is 127.0.0.1:0
	Dir     string        // for the daemon's data, logs and what handsets recorded; "" is a new one, removed after
	Once    bool          // end when all is judged
	JSON    bool          // a row a line, as JSON objects; nothing else on Out
	Table   bool          // redraw a live table in place: Out is a terminal
	Out     io.Writer     // rows and table
	Talk    time.Duration // how long the conference is listened to; 0: 14 s
}

const (
	subscriber = "+15550100100"
	account    = "admin"
	settle     = 45 * time.Second // everybody was in for long enough, or it will not happen
	noAnswer   = 12               // seconds that the phone nobody picks up rings
)

// Demo is a running one.
type Demo struct {
	o        Options
	dir      string
	core     *lab.Core
	phones   []*lab.Handset
	daemon   *daemon
	api      *client.Client
	password string
	conf     bridge.Conference
	members  map[string]bridge.Member // by number, the newest known
	drawn    string                   // the table as last printed
}

// Run does the whole and reports whether everything held.
func Run(ctx context.Context, o Options) (ok bool, err error) {
	if o.Talk == 0 {
		o.Talk = 14 * time.Second
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	d := &Demo{o: o, members: map[string]bridge.Member{}}
	defer d.close()
	if err := d.start(ctx); err != nil {
		return false, err
	}
	if err := d.callAll(ctx); err != nil {
		return false, err
	}
	// Handsets are listened to from when all are in that should be; meanwhile the one
	// nobody picks up goes on ringing.
	var from time.Time
	err = d.watch(ctx, time.Now().Add(settle), func() bool {
		if from.IsZero() && d.allIn() {
			from = time.Now()
		}
		return d.settled() && !from.IsZero() && time.Since(from) >= o.Talk
	})
	if err != nil {
		return false, err
	}
	rows := d.judge(from)
	ok = d.report(rows)
	if o.Once {
		return ok, nil
	}
	d.say("\nConsole: %s   account %s, password %s\nCtrl-C ends the demo.\n", d.daemon.url, account, d.password)
	return ok, d.stay(ctx)
}

// say prints for people; JSON's readers get rows only.
func (d *Demo) say(format string, args ...any) {
	if !d.o.JSON {
		fmt.Fprintf(d.o.Out, format, args...)
	}
}

func (d *Demo) start(ctx context.Context) error {
	if d.dir = d.o.Dir; d.dir == "" {
		dir, err := os.MkdirTemp("", "sparkle-demo-")
		if err != nil {
			return err
		}
		d.dir = dir
	} else if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	var err error
	if d.core, err = lab.StartCore(lab.CoreOptions{}); err != nil {
		return err
	}
	impi := subscriber + "@" + d.core.Domain()
	secret := rand.Text()
	// SHA-256, so that the demo needs no SIM; AKA is tested elsewhere.
	if err := d.core.AddSubscriber(impi, "sip:"+impi, lab.Auth{Algorithm: lab.SHA256, Password: secret}); err != nil {
		return err
	}
	roster := lab.DemoRoster()
	if d.phones, err = d.core.AddRoster(roster, Phones(roster, phone.Options{})); err != nil {
		return err
	}
	d.password = rand.Text()[:12]
	d.daemon, err = startDaemon(ctx, daemonOptions{
		program: d.o.Program, dir: d.dir, listen: d.o.Listen, core: d.core.Addr().String(), domain: d.core.Domain(),
		impi: impi, secret: secret, password: d.password,
	})
	if err != nil {
		return err
	}
	if d.api, err = client.New(d.daemon.url, ""); err != nil {
		return err
	}
	if err := d.ready(ctx); err != nil {
		return fmt.Errorf("the daemon is not ready: %w (its log: %s)", err, d.daemon.logPath)
	}
	_, err = d.api.Login(ctx, account, d.password)
	d.say("Lab: IMS core %s, %d handsets. Daemon: %s/console/ (account %s, password %s)\n",
		d.core.Addr(), len(d.phones), d.daemon.url, account, d.password)
	return err
}

// ready waits until the daemon says that calls can be placed: it has registered.
func (d *Demo) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		err := d.api.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-d.daemon.done:
			return errors.New("it has ended")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (d *Demo) callAll(ctx context.Context) error {
	var err error
	if d.conf, err = d.api.CreateConference(ctx, "演示会议 Demo", bridge.VideoConference); err != nil {
		return err
	}
	specs := make([]bridge.MemberSpec, len(d.phones))
	for i, h := range d.phones {
		specs[i] = bridge.MemberSpec{Number: h.Number(), Name: h.Name()}
	}
	invited, err := d.api.AddMembers(ctx, d.conf.ID, specs)
	if err != nil {
		return err
	}
	for i, r := range invited {
		if r.Error != nil {
			return fmt.Errorf("invite %s: %s", specs[i].Name, r.Error.Code)
		}
	}
	_, err = d.api.Call(ctx, d.conf.ID, bridge.CallRequest{Targets: "all", RingTimeout: noAnswer * time.Second})
	return err
}

// watch refreshes the members until done or the deadline.
func (d *Demo) watch(ctx context.Context, deadline time.Time, done func() bool) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		members, err := d.api.Members(ctx, d.conf.ID)
		if err != nil {
			return err
		}
		for _, m := range members {
			d.members[m.Number] = m
		}
		d.draw()
		if done() || time.Now().After(deadline) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.daemon.done:
			return fmt.Errorf("the daemon has ended (its log: %s)", d.daemon.logPath)
		case <-tick.C:
		}
	}
}

// settled: nobody is ringing any more, and whoever was called has an end or is in.
func (d *Demo) settled() bool {
	for _, m := range d.members {
		if m.State == bridge.MemberRings || m.State == bridge.Idle && m.LastOutcome == nil {
			return false
		}
	}
	return len(d.members) == len(d.phones)
}

// allIn: everybody is in the conference who should be.
func (d *Demo) allIn() bool {
	return !slices.ContainsFunc(d.expected(), func(h *lab.Handset) bool {
		return d.members[h.Number()].State != bridge.InConference
	})
}

// stay keeps the demo up, live, until ctx ends.
func (d *Demo) stay(ctx context.Context) error {
	err := d.watch(ctx, time.Now().Add(365*24*time.Hour), func() bool { return false })
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// close ends everything in the order of a clean goodbye: the daemon says BYE and
// de-registers while the core is still there to hear it.
func (d *Demo) close() {
	if d.api != nil {
		d.api.Close()
	}
	if d.daemon != nil {
		d.daemon.stop()
	}
	if d.core != nil {
		d.core.Close()
	}
	if d.o.Dir == "" && d.dir != "" {
		os.RemoveAll(d.dir)
	}
}

// names of those handsets that are to be in the conference.
func (d *Demo) expected() []*lab.Handset {
	return slices.DeleteFunc(slices.Clone(d.phones), func(h *lab.Handset) bool {
		return h.Profile() == lab.Busy || h.Profile() == lab.NoAnswer
	})
}
