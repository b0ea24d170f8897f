package churn

import (
	"context"
	"errors"
	"time"

	"sparkle/bridge"
)

// callDuration is how long the phones of uas.xml talk, and then some: a member is free
// again after it.
const callDuration = 8 * time.Second

// callsOut has the daemon place calls to SIPp, which hangs up.
func (s *Suite) callsOut(ctx context.Context, dir string) (row Row, err error) {
	row.Rate = float64(s.rate())
	sipp, err := phones(dir, "uas.xml", s.duration()+2*time.Minute)
	if err != nil {
		return row, err
	}
	defer sipp.Kill()
	d, err := s.startDaemon(ctx, dir, sipp.Addr, "cps: 1000\n")
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	c, err := newCaller(ctx, d.api, s.rate()*int(callDuration/time.Second), conferenceSize, bridge.Left)
	if err != nil {
		cancel()
		return row, err
	}
	defer c.wg.Wait()
	defer cancel()
	if err := c.listen(ctx); err != nil {
		return row, err
	}
	before, err := d.cpu()
	if err != nil {
		return row, err
	}
	began := time.Now()
	row.Calls = c.place(ctx, s.rate(), s.duration())
	late := c.await(ctx, row.Calls, time.Minute)
	row.Seconds = round(time.Since(began).Seconds(), 2)
	after, cpuErr := d.cpu()
	row.account(c, before, after)
	return row, errors.Join(late, cpuErr, failures(row), sipp.Finish(30*time.Second))
}

// account takes what the caller saw, and the CPU time between.
func (w *Row) account(c *caller, before, after map[string]time.Duration) {
	c.mu.Lock()
	w.Failed, w.Why = c.failed, c.why
	w.SetupP50, w.SetupP99, w.SetupMax = ms(c.setup.Quantile(0.5)), ms(c.setup.Quantile(0.99)), ms(c.setup.Max())
	c.mu.Unlock()
	if w.Calls > 0 {
		w.ControlCPU = ms((after["control"] - before["control"]) / time.Duration(w.Calls))
		w.MediaCPU = ms((after["media"] - before["media"]) / time.Duration(w.Calls))
	}
}
