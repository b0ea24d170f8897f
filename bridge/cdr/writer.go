package cdr

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/fault"
)

// Options of a Writer.
type Options struct {
	Dir string
	// Masked hides the subscriber digits of numbers.
	Masked bool
	// MaxBytes of a file, after which the next begins. 0: 16 MiB.
	MaxBytes int64
	// Keep is how long closed files stay; 0: until somebody takes them away.
	Keep time.Duration
	// Identities are our numbers or URIs, by attachment.
	Identities map[string]string
	Log        *slog.Logger // nil: discards

	open func(path string) (file, error) // nil: the file system
	now  func() time.Time                // nil: the clock
}

// Validate reports every fault at once.
func (o Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("dir: required"))
	}
	if o.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("max_bytes %d: want 0 or more", o.MaxBytes))
	}
	if o.Keep < 0 {
		errs = append(errs, fmt.Errorf("keep %v: want 0 or more", o.Keep))
	}
	return errors.Join(errs...)
}

// file is what a Writer needs of an open file.
type file interface {
	Write([]byte) (int, error)
	Sync() error
	Truncate(int64) error
	Close() error
}

func openFile(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// maxWaiting records are kept in memory for a disk that refuses them. Beyond it a record
// is dropped and counted; the next start writes it from the database.
const maxWaiting = 10_000

// maxBatch records share a write and a sync.
const maxBatch = 256

// retryAfter is how long a disk that refused is left alone.
const retryAfter = time.Second

// Stats are a Writer's counters.
type Stats struct {
	Written  uint64 // on the disk
	Failures uint64 // writes that the disk refused; the records wait
	Dropped  uint64 // records thrown away because too many waited
	Waiting  int
}

// Writer writes records. Charge may be called from anywhere and does not wait; one
// goroutine writes, and syncs what has come meanwhile together.
type Writer struct {
	o    Options
	log  *slog.Logger
	wake chan struct{} // cap 1
	quit chan struct{}
	done chan struct{}
	once sync.Once

	mu      sync.Mutex
	waiting []Record // no sequence numbers yet; at most maxWaiting
	stats   Stats
	synced  uint64 // newest sequence number that is on the disk

	// The goroutine's; before it runs, Open's.
	cur   *part
	seq   uint64
	bad   bool // the last write failed, and was logged
	since time.Time
	known map[string]Record // legs with a record, of those that ended after horizon; until Reconcile
	after time.Time         // horizon
}

// part is the file that is being written.
type part struct {
	f    file
	path string // with .part
	size int64  // of what is whole and on the disk
	torn bool   // there may be more in the file than size
	day  string
}

// Open recovers what a process before this one left in the directory, which is made if it
// is not there, and begins to write. A half line at the end of a file was never
// acknowledged, and goes.
func Open(o Options) (*Writer, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("cdr: %w", err)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 16 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.open == nil {
		o.open = openFile
	}
	if o.now == nil {
		o.now = time.Now
	}
	w := &Writer{o: o, log: o.Log, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	if err := w.recover(); err != nil {
		return nil, fmt.Errorf("cdr: %w", err)
	}
	w.synced = w.seq
	go fault.Safely(w.log, "cdr", w.run)()
	return w, nil
}

// Charge writes the record of an ended leg soon.
func (w *Writer) Charge(r bridge.LegRecord) { w.queue(w.o.recordOf(r)) }

func (w *Writer) queue(c Record) {
	w.mu.Lock()
	if len(w.waiting) < maxWaiting {
		w.waiting = append(w.waiting, c)
	} else {
		w.stats.Dropped++
	}
	w.mu.Unlock()
	w.kick()
}

func (w *Writer) kick() {
	select {
	case w.wake <- struct{}{}:
	default: // one is waiting already
	}
}

// Synced is the newest sequence number that survives a power cut.
func (w *Writer) Synced() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.synced
}

// Stats is how it goes.
func (w *Writer) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Waiting = len(w.waiting)
	return s
}

// Dir is where the files are.
func (w *Writer) Dir() string { return w.o.Dir }

// Close writes what waits, as far as the disk takes it, and closes the file, so that it
// can be collected.
func (w *Writer) Close() error {
	w.once.Do(func() { close(w.quit) })
	<-w.done
	if n := w.Stats().Waiting; n > 0 {
		return fmt.Errorf("cdr: %d records could not be written; the next start writes them from the database", n)
	}
	return nil
}

func (w *Writer) run() {
	defer close(w.done)
	midnight := time.NewTimer(untilMidnight(w.o.now()))
	defer midnight.Stop()
	var retry <-chan time.Time
	for {
		select {
		case <-w.wake:
			if retry != nil {
				continue // the disk has just refused; not again at once
			}
		case <-retry:
			retry = nil
		case <-midnight.C:
			midnight.Reset(untilMidnight(w.o.now()))
			w.note(w.rotate())
			w.expire()
			continue
		case <-w.quit:
			for w.flush() == nil && w.Stats().Waiting > 0 {
			}
			w.note(w.rotate())
			return
		}
		for {
			err := w.flush()
			if w.note(err); err != nil {
				retry = time.After(retryAfter)
				break
			}
			if w.Stats().Waiting == 0 {
				break
			}
		}
	}
}

func untilMidnight(now time.Time) time.Duration {
	now = now.UTC()
	return now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
}

// note logs when the disk begins to refuse and when it takes records again.
func (w *Writer) note(err error) {
	if err != nil {
		w.mu.Lock()
		w.stats.Failures++
		w.mu.Unlock()
		if !w.bad {
			w.log.Error("charging records cannot be written; they wait in memory", "dir", w.o.Dir, "err", err)
		}
	} else if w.bad {
		w.log.Info("charging records are written again", "dir", w.o.Dir)
	}
	w.bad = err != nil
}

// flush is flushBatch; a fault in it is like a disk that refuses.
func (w *Writer) flush() (err error) {
	err = errors.New("a fault of ours, which is in the log")
	fault.Run(w.log, "cdr", func() { err = w.flushBatch() })
	return err
}

// flushBatch writes and syncs up to maxBatch records. Refused, they stay in the queue and
// their half is cut off again before the next try.
func (w *Writer) flushBatch() error {
	w.mu.Lock()
	batch := w.waiting[:min(len(w.waiting), maxBatch)]
	w.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	now := w.o.now()
	if w.cur != nil && (w.cur.day != day(now) || w.cur.size >= w.o.MaxBytes) {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	if err := w.begin(now); err != nil {
		return err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	for i, c := range batch {
		if c.Seq = w.seq + uint64(i) + 1; enc.Encode(c) != nil {
			return fmt.Errorf("record of leg %s cannot be encoded", c.Leg) // plain data always can
		}
	}
	w.cur.torn = true
	if _, err := w.cur.f.Write(buf.Bytes()); err != nil {
		return err
	}
	if err := w.cur.f.Sync(); err != nil {
		return err
	}
	w.cur.torn = false
	w.cur.size += int64(buf.Len())
	w.seq += uint64(len(batch))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced = w.seq
	w.stats.Written += uint64(len(batch))
	w.waiting = append([]Record(nil), w.waiting[len(batch):]...)
	return nil
}

// begin makes sure that there is a file to write to, whole up to its end.
func (w *Writer) begin(now time.Time) error {
	if w.cur == nil {
		path := filepath.Join(w.o.Dir, fmt.Sprintf("cdr-%s-%012d.jsonl%s", day(now), w.seq+1, partial))
		f, err := w.o.open(path)
		if err != nil {
			return err
		}
		w.cur = &part{f: f, path: path, day: day(now)}
		if err := syncDir(w.o.Dir); err != nil {
			return err
		}
	}
	if !w.cur.torn {
		return nil
	}
	if err := w.cur.f.Truncate(w.cur.size); err != nil {
		return err
	}
	w.cur.torn = false
	return nil
}

// rotate closes the file and gives it the name under which it is collected.
func (w *Writer) rotate() error {
	if w.cur == nil {
		return nil
	}
	if w.cur.torn {
		if err := w.cur.f.Truncate(w.cur.size); err != nil {
			return err
		}
		w.cur.torn = false
	}
	path := w.cur.path
	_ = w.cur.f.Close() // all of it has been synced
	empty := w.cur.size == 0
	w.cur = nil
	if empty {
		return os.Remove(path)
	}
	return w.publish(path)
}

func day(t time.Time) string { return t.UTC().Format("20060102") }
