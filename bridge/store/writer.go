package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/fault"
)

// write is one acknowledged change: f runs in a savepoint of a shared transaction.
type write struct {
	f    func(*sql.Tx) error
	done chan error // cap 1
}

// do hands f to the writer and waits until it is on the disk. A write whose caller
// gives up may still happen.
func (s *Store) do(ctx context.Context, f func(*sql.Tx) error) error {
	w := &write{f: f, done: make(chan error, 1)}
	select {
	case <-s.quit:
		return errClosed
	default:
	}
	select {
	case s.writes <- w:
	case <-s.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.done:
		return asError(err)
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		select {
		case err := <-w.done: // it was in the last batch
			return asError(err)
		default:
			return errClosed
		}
	}
}

// gather is how long what nobody waits for may wait for more of its kind. A leg changes
// its state five times while it is set up, and only the last counts; without the wait each
// was a commit, and a third of what a call cost.
const gather = 50 * time.Millisecond

// run is the writer. What is queued goes with the next batch, or after gather by itself;
// when the disk refuses it, it stays queued and is tried again after a second.
func (s *Store) run() {
	defer close(s.done)
	var retry, gathered <-chan time.Time
	for {
		var batch []*write
		select {
		case w := <-s.writes:
			batch = append(batch, w)
		case <-s.wake:
			if retry == nil && gathered == nil { // where the disk has just refused: not at once
				gathered = time.After(gather)
			}
			continue
		case <-gathered:
			gathered = nil
		case <-retry:
			retry = nil
		case <-s.quit:
			for { // those that came before quit
				batch = s.drain(nil)
				s.commit(batch)
				if len(batch) == 0 {
					return
				}
			}
		}
		if retry != nil && len(batch) == 0 {
			continue
		}
		if !s.commit(s.drain(batch)) && retry == nil {
			retry = time.After(time.Second)
		}
	}
}

func (s *Store) drain(batch []*write) []*write {
	for len(batch) < maxBatch {
		select {
		case w := <-s.writes:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// commit is commitAll; a fault in it costs the batch and the queue, not the writer.
func (s *Store) commit(batch []*write) (ok bool) {
	if fault.Run(nil, "store", func() { ok = s.commitAll(batch) }) {
		return ok
	}
	for _, w := range batch {
		select {
		case w.done <- errFault:
		default: // it was answered
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost += uint64(len(s.writing))
	s.writing, s.failed = nil, errFault
	return false
}

var errFault = errors.New("store: a fault of ours, which is in the log")

// commitAll writes a batch and everything queued. A queue that cannot be written does
// not take acknowledged writes down with it: these are then tried alone.
func (s *Store) commitAll(batch []*write) bool {
	q := s.take()
	errs, err := s.transact(batch, q)
	if err != nil && !q.empty() {
		s.giveBack(q)
		q = queued{}
		if len(batch) > 0 {
			var alone error
			errs, alone = s.transact(batch, q)
			if alone == nil {
				s.note(err) // the queue still waits
				answer(batch, errs)
				return false
			}
			err = alone
		}
	}
	s.note(err)
	if err != nil {
		for _, w := range batch {
			w.done <- err
		}
		return false
	}
	s.mu.Lock()
	s.writing = nil
	s.mu.Unlock()
	answer(batch, errs)
	return true
}

func answer(batch []*write, errs []error) {
	for i, w := range batch {
		w.done <- errs[i]
	}
}

func (s *Store) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
}

// transact runs a batch and a queue in one transaction; errs are those of single
// writes, whose savepoints were rolled back.
func (s *Store) transact(batch []*write, q queued) (errs []error, err error) {
	errs = make([]error, len(batch))
	if len(batch) == 0 && q.empty() {
		return errs, nil
	}
	tx, err := s.db.Begin()
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() // no effect after Commit
	for i, w := range batch {
		if _, err := tx.Exec("SAVEPOINT w"); err != nil {
			return nil, fmt.Errorf("savepoint: %w", err)
		}
		if errs[i] = w.f(tx); errs[i] != nil {
			if isFull(errs[i]) { // SQLite may have ended the transaction itself
				return nil, errs[i]
			}
			if _, err := tx.Exec("ROLLBACK TO w"); err != nil {
				return nil, fmt.Errorf("rollback: %w", err)
			}
		}
		if _, err := tx.Exec("RELEASE w"); err != nil {
			return nil, fmt.Errorf("release: %w", err)
		}
	}
	if err := q.write(tx); err != nil {
		return nil, err
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return errs, nil
}

// queued is what goes to the disk without anybody waiting for it.
type queued struct {
	legs  map[string]bridge.LegRecord
	audit []bridge.AuditRecord
	seqs  map[string]uint64
	alive time.Time
}

func (q queued) empty() bool { return len(q.legs)+len(q.audit)+len(q.seqs) == 0 && q.alive.IsZero() }

func (s *Store) take() queued {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := queued{legs: s.legs, audit: s.audit, seqs: s.seqs, alive: s.alive}
	s.writing = s.legs
	s.legs, s.audit, s.seqs, s.alive = map[string]bridge.LegRecord{}, nil, map[string]uint64{}, time.Time{}
	return q
}

// giveBack queues again what could not be written; newer states win.
func (s *Store) giveBack(q queued) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(q.legs, s.legs)
	maps.Copy(q.seqs, s.seqs)
	s.legs, s.seqs, s.writing = q.legs, q.seqs, nil
	s.audit = append(q.audit, s.audit...)
	for len(s.audit) > maxQueued {
		s.audit = s.audit[1:]
		s.lost++
	}
	for id := range s.legs {
		if len(s.legs) <= maxQueued {
			break
		}
		delete(s.legs, id)
		s.lost++
	}
}

func (s *Store) kick() {
	select {
	case s.wake <- struct{}{}:
	default: // one is waiting already
	}
}

// QueueLeg writes the newest state of a leg soon. Full, it drops a new leg and counts.
func (s *Store) QueueLeg(r bridge.LegRecord) {
	s.mu.Lock()
	if _, known := s.legs[r.Leg.ID]; known || len(s.legs) < maxQueued {
		s.legs[r.Leg.ID] = r
	} else {
		s.lost++
	}
	s.mu.Unlock()
	s.kick()
}

// QueueAudit writes an audit row soon. Full, it drops the row and counts.
func (s *Store) QueueAudit(r bridge.AuditRecord) {
	s.mu.Lock()
	if len(s.audit) < maxQueued {
		s.audit = append(s.audit, r)
	} else {
		s.lost++
	}
	s.mu.Unlock()
	s.kick()
}

// QueueSeq notes soon where a later start goes on counting.
func (s *Store) QueueSeq(conference string, seq uint64) {
	s.mu.Lock()
	s.seqs[conference] = seq
	s.mu.Unlock()
	s.kick()
}

// QueueAlive notes soon that the process lived then.
func (s *Store) QueueAlive(at time.Time) {
	s.mu.Lock()
	s.alive = at
	s.mu.Unlock()
	s.kick()
}

func (q queued) write(tx *sql.Tx) error {
	if !q.alive.IsZero() {
		if _, err := tx.Exec(`INSERT INTO alive (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at=excluded.at`, q.alive.UnixNano()); err != nil {
			return fmt.Errorf("alive: %w", err)
		}
	}
	for _, r := range q.legs {
		doc, err := json.Marshal(r.Leg)
		if err != nil {
			return fmt.Errorf("leg %s: %w", r.Leg.ID, err)
		}
		l := r.Leg
		if _, err := tx.Exec(`INSERT INTO legs
			(id, member_id, conference_id, number, attachment, outcome, call_id, icid, started_at, connected_at, ended_at, doc)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET
			member_id=excluded.member_id, conference_id=excluded.conference_id, number=excluded.number, attachment=excluded.attachment,
			outcome=excluded.outcome, call_id=excluded.call_id, icid=excluded.icid, connected_at=excluded.connected_at,
			ended_at=excluded.ended_at, doc=excluded.doc`,
			l.ID, l.Member, l.Conference, r.Number, l.Attachment, string(l.Outcome), l.CallID, l.ICID,
			l.StartedAt.UnixNano(), nanos(l.ConnectedAt), nanos(l.EndedAt), string(doc)); err != nil {
			return fmt.Errorf("leg %s: %w", l.ID, err)
		}
	}
	for _, a := range q.audit {
		if _, err := tx.Exec(`INSERT INTO audit (at, actor, actor_name, via, remote, action, target, result)
			VALUES (?,?,?,?,?,?,?,?)`, a.At.UnixNano(), a.Actor, a.ActorName, a.Via, a.Remote, a.Action, a.Target, a.Result); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
	}
	for id, seq := range q.seqs { // of a conference that is still there
		if _, err := tx.Exec(`UPDATE event_seq SET seq=? WHERE conference_id=?`, int64(seq), id); err != nil {
			return fmt.Errorf("seq: %w", err)
		}
	}
	return nil
}

func nanos(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UnixNano()
}
