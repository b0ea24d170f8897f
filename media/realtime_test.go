package media

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sparkle/media/mediapb"
	"sparkle/media/rtp"
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

// Where the kernel refuses, one line says what; where it does not, none.
func TestRefusedPriorityIsOneLine(t *testing.T) {
	var log bytes.Buffer
	a := newAir(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	log.Reset()
	a.e.lacks(nil, nil)
	if log.Len() > 0 {
		t.Errorf("nothing was refused: %s", &log)
	}
	a.e.lacks(nil, fmt.Errorf("SCHED_FIFO: %w", unix.EPERM), fmt.Errorf("mlockall: %w", unix.ENOMEM))
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "SCHED_FIFO") || !strings.Contains(log.String(), "mlockall") {
		t.Errorf("%d lines: %s", n, &log)
	}
}

// What is sent is marked as the bridge says: EF is in the packets themselves.
func TestPacketsAreMarked(t *testing.T) {
	a := newAir(t, Options{})
	a.set(confC())
	ear := listenUDP(t)
	defer ear.Close()
	raw, err := ear.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1) })
	if err != nil {
		t.Fatal(err)
	}
	a.join("c", "x", pcmu, 0, func(l *mediapb.Leg) {
		l.Audio.Dscp = 46
		l.Audio.Remote.Port, l.Audio.Remote.RtcpPort = uint32(addrOf(ear).Port()), uint32(addrOf(ear).Port())
	})
	a.run(5 * time.Second) // RTP, and a report
	seen := map[bool]int{}
	_ = raw.Read(func(fd uintptr) bool {
		for {
			b, oob := make([]byte, 2048), make([]byte, 64)
			n, oobn, _, _, err := unix.Recvmsg(int(fd), b, oob, unix.MSG_DONTWAIT)
			if err != nil || n < 2 {
				return true
			}
			msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil || len(msgs) != 1 || len(msgs[0].Data) == 0 || msgs[0].Data[0] != 46<<2 {
				t.Fatalf("marked %v, %v; want EF, 0xb8", msgs, err)
			}
			seen[b[1] == rtp.TypeSR]++
		}
	})
	if seen[false] == 0 || seen[true] == 0 {
		t.Errorf("%d packets of RTP, %d of RTCP", seen[false], seen[true])
	}
}
