package churn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/api"
	"sparkle/bridge/api/client"
	"sparkle/bridge/lab"
	"sparkle/bridge/lab/load"
)

// conferencesIn is how many the callers are spread over.
const conferencesIn = 20

// callsIn has SIPp call conferences that are open to everybody.
func (s *Suite) callsIn(ctx context.Context, dir string) (row Row, err error) {
	row.Rate = float64(s.rate())
	d, err := s.startDaemon(ctx, dir, nobody, "")
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	c := &caller{api: d.api, want: bridge.Left, why: map[string]int{}, setup: new(load.Histogram), changed: make(chan struct{}, 1)}
	defer c.wg.Wait()
	defer cancel()
	users, err := openConferences(ctx, d.api, conferencesIn)
	if err != nil {
		return row, err
	}
	if err := c.listen(ctx); err != nil {
		return row, err
	}
	before, err := d.cpu()
	if err != nil {
		return row, err
	}
	began := time.Now()
	row.Calls = int(s.duration().Seconds() * float64(s.rate()) / 2)
	sipp, err := s.callers(ctx, d, dir, users, row.Calls)
	if err != nil {
		return row, err
	}
	defer sipp.Kill()
	sippErr := sipp.Wait(s.duration() + time.Minute)
	late := c.await(ctx, row.Calls, 10*time.Second)
	row.Seconds = round(time.Since(began).Seconds(), 2)
	after, cpuErr := d.cpu()
	row.account(c, before, after)
	return row, errors.Join(sippErr, late, cpuErr, failures(row))
}

// callers starts the SIPp that calls the users in turn.
func (s *Suite) callers(ctx context.Context, d *daemon, dir string, users []string, calls int) (*lab.SIPp, error) {
	as, err := d.api.Attachments(ctx)
	if err != nil || len(as) != 1 || as[0].LocalAddr == "" {
		return nil, fmt.Errorf("churn: where does the daemon listen? %+v, %w", as, err)
	}
	list := filepath.Join(dir, "users.csv")
	if err := os.WriteFile(list, []byte("SEQUENTIAL\n"+strings.Join(users, "\n")+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("churn: %w", err)
	}
	file, err := scenario(dir, "uac.xml")
	if err != nil {
		return nil, err
	}
	return lab.StartSIPp(lab.SIPpOptions{Scenario: file, Transport: "tcp", Dir: dir, Peer: as[0].LocalAddr, Limit: s.duration() + 2*time.Minute,
		Args: []string{"-inf", list, "-m", fmt.Sprint(calls), "-r", fmt.Sprint(s.rate()), "-l", fmt.Sprint(20 * s.rate())}})
}

// openConferences are conferences that anybody may join; the users are the user parts of
// their URIs.
func openConferences(ctx context.Context, c *client.Client, n int) (users []string, err error) {
	open := bridge.JoinOpen
	for range n {
		conf, err := c.CreateConference(ctx, "churn", bridge.VideoConference)
		if err == nil {
			conf, err = c.UpdateConference(ctx, conf.ID, api.ConferencePatch{JoinPolicy: &open})
		}
		if err != nil {
			return nil, fmt.Errorf("churn: %w", err)
		}
		user, _, ok := strings.Cut(strings.TrimPrefix(conf.DialIn.URI, "sip:"), "@")
		if !ok {
			return nil, fmt.Errorf("churn: a conference has no URI: %+v", conf.DialIn)
		}
		users = append(users, user)
	}
	return users, nil
}
