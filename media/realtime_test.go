package media

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Everybody's timers may be late but the worker's.
func TestTimerSlack(t *testing.T) {
	slack := func(tid int) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid))
		if err != nil {
			t.Skip("the kernel does not tell a thread's timer slack: ", err)
		}
		return strings.TrimSpace(string(text))
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := slack(unix.Gettid())
	if err := relaxTimers(); err != nil {
		t.Skip("not allowed here: ", err)
	}
	if got := slack(unix.Gettid()); got != fmt.Sprint(int64(timerSlack)) {
		t.Errorf("slack %s", got)
	}
	done := make(chan string)
	go func() {
		runtime.LockOSThread() // ends with the goroutine
		punctual()
		done <- slack(unix.Gettid())
	}()
	if got := <-done; got != "1" {
		t.Errorf("the worker's slack %s", got)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, th := range threads { // the other tests' timers are as before
		_ = os.WriteFile("/proc/"+th.Name()+"/timerslack_ns", []byte(before), 0)
	}
}
