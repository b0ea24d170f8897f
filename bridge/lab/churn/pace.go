package churn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sparkle/bridge"
)

const (
	paceMembers = 200
	paceCPS     = 20
)

// Pace is how even a train of INVITEs came: Rate a second over the whole of it, and how
// far any second's worth of them was off, in per cent: of all runs of as many INVITEs as
// the limit allows in a second, the one whose duration was furthest from a second.
type Pace struct {
	Rate     float64
	WorstPct float64
}

// paceOf is the pace of arrivals against a limit a second.
func paceOf(at []time.Duration, cps int) (p Pace, err error) {
	if len(at) <= cps {
		return p, fmt.Errorf("churn: %d INVITEs are not more than a second's worth, %d", len(at), cps)
	}
	for i := 1; i < len(at); i++ {
		if at[i] < at[i-1] {
			return p, errors.New("churn: the arrivals are not in order")
		}
	}
	whole := at[len(at)-1] - at[0]
	p.Rate = float64(len(at)-1) / whole.Seconds()
	for i := cps; i < len(at); i++ {
		off := (at[i] - at[i-cps]).Seconds() - 1
		if math.Abs(off) > math.Abs(p.WorstPct/100) {
			p.WorstPct = 100 * off
		}
	}
	return p, nil
}

// callAll calls a whole conference at once over an attachment that allows fewer calls a
// second, and reads at the peer when the INVITEs came.
func (s *Suite) callAll(ctx context.Context, dir string) (row Row, err error) {
	row.Limit = paceCPS
	arrivals := filepath.Join(dir, "arrivals")
	sipp, err := phones(dir, "arrivals.xml", time.Minute, "-trace_logs", "-log_file", arrivals)
	if err != nil {
		return row, err
	}
	defer sipp.Kill()
	d, err := s.startDaemon(ctx, dir, sipp.Addr, fmt.Sprintf("cps: %d\n", paceCPS))
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	c, err := newCaller(ctx, d.api, paceMembers, paceMembers, bridge.Busy)
	if err != nil {
		cancel()
		return row, err
	}
	defer c.wg.Wait()
	defer cancel()
	if err := c.listen(ctx); err != nil {
		return row, err
	}
	began := time.Now()
	results, err := d.api.Call(ctx, c.members[0].conference, bridge.CallRequest{Targets: "all"})
	if err != nil {
		return row, fmt.Errorf("churn: %w", err)
	}
	for _, r := range results {
		if r.Error != nil {
			c.fail("api: " + string(r.Error.Code))
		}
	}
	row.Calls = len(results)
	late := c.await(ctx, row.Calls, time.Minute)
	row.Seconds = round(time.Since(began).Seconds(), 2)
	c.mu.Lock()
	row.Failed, row.Why = c.failed, c.why
	c.mu.Unlock()
	if err := errors.Join(late, failures(row), sipp.Finish(30*time.Second)); err != nil {
		return row, err
	}
	f, err := os.Open(arrivals)
	if err != nil {
		return row, fmt.Errorf("churn: %w", err)
	}
	defer f.Close()
	at, err := readArrivals(f)
	if err != nil {
		return row, err
	}
	if len(at) != row.Calls {
		return row, fmt.Errorf("churn: %d INVITEs came for %d calls", len(at), row.Calls)
	}
	p, err := paceOf(at, paceCPS)
	row.InviteRate, row.WorstSecondPct = round(p.Rate, 3), round(p.WorstPct, 2)
	if err == nil {
		err = p.judge(paceCPS)
	}
	return row, err
}

// ErrPace says that INVITEs came further from their pace than paceOff.
var ErrPace = errors.New("churn: the pace is off")

// paceOff is how far from the limit the whole train may be, and any second of it, in per cent.
const paceOff = 5

func (p Pace) judge(cps int) error {
	whole := 100 * (p.Rate/float64(cps) - 1)
	if math.Abs(whole) > paceOff || math.Abs(p.WorstPct) > paceOff {
		return fmt.Errorf("%w: %.3f a second where %d are allowed (%+.2f %%), the worst second %+.2f %%; at most %d %% are", ErrPace, p.Rate, cps, whole, p.WorstPct, paceOff)
	}
	return nil
}

// readArrivals reads SIPp's log: lines "INVITE seconds.microseconds".
func readArrivals(r io.Reader) ([]time.Duration, error) {
	var out []time.Duration
	for in := bufio.NewScanner(r); in.Scan(); {
		rest, ok := strings.CutPrefix(in.Text(), "INVITE ")
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		if len(f) == 0 {
			return nil, fmt.Errorf("churn: SIPp logged %q", in.Text())
		}
		sec, err := strconv.ParseFloat(f[len(f)-1], 64)
		if err != nil {
			return nil, fmt.Errorf("churn: SIPp logged %q: %w", in.Text(), err)
		}
		out = append(out, time.Duration(sec*1e6)*time.Microsecond)
	}
	return out, nil
}
