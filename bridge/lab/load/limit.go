package load

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What a case has to keep to while legs are added, per cent.
const (
	mostMissing = 0.1
	mostLate    = 1
)

// limit finds the largest number of legs at which c keeps to mostMissing and mostLate with
// the media process on one core and the generator on another: upwards by a half until it
// does not, then between, to a twentieth.
func (s *Suite) limit(ctx context.Context, c conference) (best Row, err error) {
	step := max(c.room, 10)
	good, err := search(c.legs/2, step, MaxLegs, func(legs int) (bool, error) {
		c.legs, c.onsets, c.pinned = legs, 0, true
		row, err := s.audio(ctx, c)
		if err != nil {
			return false, err
		}
		ok := *row.Missing <= mostMissing && *row.Late <= mostLate
		if ok {
			best = row
		}
		return ok, nil
	})
	if err == nil && good == 0 {
		err = fmt.Errorf("load: not even %d legs keep to the limits", step)
	}
	return best, err
}

// search finds the largest multiple of step, at most most, for which try is true, to a twentieth.
// It begins near start; 0: none.
func search(start, step, most int, try func(n int) (bool, error)) (good int, err error) {
	fit := func(n int) int { return min(max(n/step, 1), most/step) * step }
	bad := most/step*step + step
	for n := fit(start); bad-good > max(bad/20, step); {
		ok, err := try(n)
		if err != nil {
			return good, err
		}
		if ok {
			good = n
		} else {
			bad = n
		}
		if n = fit((good + bad) / 2); bad > most { // nothing was too much yet
			n = fit(max(good*3/2, good+step))
		}
		if n <= good || n >= bad {
			break
		}
	}
	return good, nil
}

// pin puts all threads of a process, 0: this thread, on one core. New threads inherit it.
func pin(pid, core int) error {
	var set unix.CPUSet
	set.Set(core)
	if pid == 0 {
		return unix.SchedSetaffinity(0, &set)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("load: core %d: %w", core, err)
		}
	}
	return nil
}

// limitWindow is enough to see whether frames go missing.
const limitWindow = 4 * time.Second
