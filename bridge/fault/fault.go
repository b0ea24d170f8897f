// Package fault keeps a panic of ours from being the end of the daemon, and with it of every
// call: each goroutine and timer of the control process that is not SIP's runs under it (SIP's
// own are guarded in package sip). What could not be done is for the caller to make good; a
// fault in the media process ends that process, which is started again (package media).
package fault

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"
)

var count atomic.Uint64

// Count is how many faults there were in this process.
func Count() uint64 { return count.Load() }

// Note counts one that was recovered from, and logged, elsewhere.
func Note() { count.Add(1) }

// Run runs f; false: it panicked, which was counted and logged. A nil log is slog's default.
func Run(log *slog.Logger, what string, f func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			count.Add(1)
			if log == nil {
				log = slog.Default()
			}
			log.Error("fault", "in", what, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	f()
	return true
}

// Safely is f for a goroutine or a timer of its own.
func Safely(log *slog.Logger, what string, f func()) func() {
	return func() { Run(log, what, f) }
}

// Lasting is f for a goroutine that the daemon cannot be without: after a fault it begins
// again, a second later. f returns when it is not needed any more.
func Lasting(log *slog.Logger, what string, f func()) func() {
	return func() {
		for !Run(log, what, f) {
			time.Sleep(time.Second)
		}
	}
}
