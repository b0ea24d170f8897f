package cdr

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sparkle/bridge"
)

// The files of a directory:
//
//	cdr-20261125-000000000001.jsonl       closed: may be collected and removed
//	cdr-20261125-000000004711.jsonl.part  being written
//	state.json                            the last number given, for when all are removed
//
// The number is that of the first record in it.
const partial = ".part"

var fileName = regexp.MustCompile(`^cdr-\d{8}-(\d{12,20})\.jsonl(\.part)?$`)

type named struct {
	path  string
	first uint64
	part  bool
}

// list is the directory's files in order of their records.
func list(dir string) ([]named, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []named
	for _, e := range entries {
		if m := fileName.FindStringSubmatch(e.Name()); m != nil {
			first, err := strconv.ParseUint(m[1], 10, 64)
			if err != nil {
				continue
			}
			out = append(out, named{filepath.Join(dir, e.Name()), first, m[2] != ""})
		}
	}
	slices.SortFunc(out, func(a, b named) int { return cmp.Compare(a.first, b.first) })
	return out, nil
}

// state survives the removal of every collected file.
type state struct {
	LastSeq uint64    `json:"last_seq"`
	Since   time.Time `json:"since"` // the first record was written after this
}

func (w *Writer) statePath() string { return filepath.Join(w.o.Dir, "state.json") }

// recover reads what is there: it cuts off a half line, closes a file that was being
// written and finds the last sequence number.
func (w *Writer) recover() error {
	if err := os.MkdirAll(w.o.Dir, 0o700); err != nil {
		return err
	}
	var s state
	text, err := os.ReadFile(w.statePath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Since = w.o.now().UTC()
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(text, &s); err != nil {
			return fmt.Errorf("%s: %w", w.statePath(), err)
		}
	}
	w.seq, w.since = s.LastSeq, s.Since
	files, err := list(w.o.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.part {
			if err := w.finish(f.path); err != nil {
				return fmt.Errorf("%s: %w", f.path, err)
			}
		}
	}
	if files, err = list(w.o.Dir); err != nil {
		return err
	}
	w.known, w.after = map[string]Record{}, w.since
	newest := files[max(len(files)-2, 0):] // enough to know what the last minutes have
	first := true
	for _, f := range newest {
		for r, err := range readFile(f.path) {
			if err != nil {
				w.log.Error("a line of a charging file cannot be read", "file", filepath.Base(f.path), "err", err)
				continue
			}
			if first && r.Seq > 1 { // older ones are elsewhere; near their end we cannot know
				w.after = r.End.Add(10 * time.Second)
			}
			first = false
			if !r.Superseded { // the leg went on
				w.known[r.Leg] = r
			}
			w.seq = max(w.seq, r.Seq)
		}
	}
	return w.saveState()
}

// finish closes a file that a process left open.
func (w *Writer) finish(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	if whole == 0 {
		return os.Remove(path)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if whole < len(text) {
		w.log.Warn("a charging file ended in half a line, which was never acknowledged", "file", filepath.Base(path))
		if err := f.Truncate(int64(whole)); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return w.publish(path)
}

// publish takes .part off a file's name. Nobody ever sees a closed file that is not whole.
func (w *Writer) publish(path string) error {
	if err := os.Rename(path, strings.TrimSuffix(path, partial)); err != nil {
		return err
	}
	if err := syncDir(w.o.Dir); err != nil {
		return err
	}
	return w.saveState()
}

// saveState writes state.json whole or not at all.
func (w *Writer) saveState() error {
	text, err := json.Marshal(state{LastSeq: w.seq, Since: w.since})
	if err != nil {
		return err
	}
	tmp := w.statePath() + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, w.statePath()); err != nil {
		return err
	}
	return syncDir(w.o.Dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// expire removes closed files that are older than Options.Keep.
func (w *Writer) expire() {
	if w.o.Keep == 0 {
		return
	}
	files, err := list(w.o.Dir)
	if err != nil {
		w.log.Warn("old charging files stay", "err", err)
		return
	}
	for _, f := range files {
		st, err := os.Stat(f.path)
		if err != nil || f.part || w.o.now().Sub(st.ModTime()) < w.o.Keep {
			continue
		}
		if err := os.Remove(f.path); err != nil {
			w.log.Warn("an old charging file stays", "file", filepath.Base(f.path), "err", err)
		}
	}
}

// Horizon is the time after which Reconcile knows every leg that has a record.
func (w *Writer) Horizon() time.Time { return w.after }

// Reconcile settles what a crash left of the legs that, by the database, ended after
// Horizon or never ended. It writes the records that ended legs lack, and returns the legs
// without an end that do have one, ended as charged. It is to be called once, before Charge.
func (w *Writer) Reconcile(legs []bridge.LegRecord) (ended []bridge.LegRecord) {
	missing := 0
	for _, r := range legs {
		c, known := w.known[r.Leg.ID]
		switch {
		case r.Leg.EndedAt == nil && known:
			bridge.Charged(&r.Leg, bridge.Outcome(c.Outcome), c.sip(), c.Answer.Time, c.End.Time)
			ended = append(ended, r)
		case r.Leg.EndedAt != nil && !known && r.Leg.EndedAt.After(w.after):
			c := w.o.recordOf(r)
			c.Recovered = true
			missing++
			w.queue(c)
		}
	}
	if missing > 0 {
		w.log.Warn("charging records were missing and are written from the database", "records", missing)
	}
	w.known = nil
	return ended
}

// maxLine is more than a record can have.
const maxLine = 64 << 10

// readFile reads a file's whole lines; a last line without its end is not there yet.
func readFile(path string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer f.Close()
		in := bufio.NewReaderSize(f, maxLine)
		for n := 1; ; n++ {
			line, err := in.ReadSlice('\n')
			if err == io.EOF {
				return
			}
			var r Record
			if err == nil {
				err = json.Unmarshal(line, &r)
			}
			if err != nil {
				err = fmt.Errorf("%s:%d: %w", filepath.Base(path), n, err)
			}
			if !yield(r, err) || errors.Is(err, bufio.ErrBufferFull) {
				return
			}
		}
	}
}

// Filter says which records are wanted; a zero field does not matter.
type Filter struct {
	After      uint64    // those with a greater sequence number
	From, To   time.Time // that ended at or after From and before To
	Conference string
	Attachment string
	Direction  string
	Outcome    string
}

func (f Filter) takes(r Record) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	return r.Seq > f.After && (f.From.IsZero() || !r.End.Before(f.From)) && (f.To.IsZero() || r.End.Before(f.To)) &&
		is(f.Conference, r.Conference) && is(f.Attachment, r.Attachment) && is(f.Direction, r.Direction) && is(f.Outcome, r.Outcome)
}

// Read goes through a directory's records in order of their numbers, those of the file
// being written too. A line that cannot be read is an error; going on skips it.
func Read(dir string, want Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		files, err := list(dir)
		if err != nil {
			yield(Record{}, err)
			return
		}
		for i, f := range files {
			if i+1 < len(files) && files[i+1].first <= want.After+1 {
				continue // all of it is before
			}
			path := f.path
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) { // closed meanwhile, or collected
				if path = strings.TrimSuffix(path, partial); path == f.path {
					continue
				}
			}
			for r, err := range readFile(path) {
				if errors.Is(err, fs.ErrNotExist) {
					break
				}
				if (err != nil || want.takes(r)) && !yield(r, err) {
					return
				}
			}
		}
	}
}

// Page is up to limit records that are safe on the disk, and whether there are more. A
// line that cannot be read is logged and left out.
func (w *Writer) Page(want Filter, limit int) (items []Record, more bool, err error) {
	synced := w.Synced()
	for r, err := range Read(w.o.Dir, want) {
		switch {
		case errors.As(err, new(*fs.PathError)):
			return nil, false, err
		case err != nil:
			w.log.Error("a line of a charging file cannot be read", "err", err)
			continue
		case r.Seq > synced:
			return items, false, nil
		case len(items) == limit:
			return items, true, nil
		}
		items = append(items, r)
	}
	return items, false, nil
}
