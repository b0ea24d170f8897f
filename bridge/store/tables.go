package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"sparkle/bridge"
)

// PutConference makes or changes a conference. An existing sequence number is kept.
func (s *Store) PutConference(ctx context.Context, c bridge.Conference, seq uint64) error {
	return s.do(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec(`INSERT INTO conferences
			(id, name, type, owner, created_at, updated_at, pin, alias, join_policy, who_may_refer, answer_confirm, ad_hoc, dial_limit, layout, rejoin)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
			ON CONFLICT (id) DO UPDATE SET name=excluded.name, updated_at=excluded.updated_at, pin=excluded.pin, alias=excluded.alias,
			join_policy=excluded.join_policy, who_may_refer=excluded.who_may_refer, answer_confirm=excluded.answer_confirm,
			layout=excluded.layout, rejoin=excluded.rejoin`,
			c.ID, c.Name, string(c.Type), c.Owner, c.CreatedAt.UnixNano(), c.UpdatedAt.UnixNano(),
			c.PIN, c.Alias, string(c.JoinPolicy), string(c.WhoMayRefer), c.AnswerConfirm, c.AdHoc, c.DialLimit, string(c.Layout), c.Rejoin); err != nil {
			return fmt.Errorf("conference %s: %w", c.ID, err)
		}
		_, err := tx.Exec(`INSERT INTO event_seq (conference_id, seq) VALUES (?,?) ON CONFLICT DO NOTHING`, c.ID, int64(seq))
		return err
	})
}

// DropConference forgets a conference and its roster; unknown is no error.
func (s *Store) DropConference(ctx context.Context, id string) error {
	return s.do(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(`DELETE FROM conferences WHERE id=?`, id)
		return err
	})
}

// PutMembers makes or changes members, all or none.
func (s *Store) PutMembers(ctx context.Context, members ...bridge.Member) error {
	return s.do(ctx, func(tx *sql.Tx) error {
		for _, m := range members {
			if _, err := tx.Exec(`INSERT INTO members
				(id, conference_id, number, name, role, muted, video_muted, deaf, held, created_at) VALUES (?,?,?,?,?,?,?,?,?,?)
				ON CONFLICT (id) DO UPDATE SET name=excluded.name, role=excluded.role, muted=excluded.muted,
				video_muted=excluded.video_muted, deaf=excluded.deaf, held=excluded.held`,
				m.ID, m.Conference, m.Number, m.Name, m.Role, m.Muted, m.VideoMuted, m.Deaf, m.Held, m.CreatedAt.UnixNano()); err != nil {
				return fmt.Errorf("member %s: %w", m.ID, err)
			}
		}
		return nil
	})
}

// DropMember forgets a member; unknown is no error.
func (s *Store) DropMember(ctx context.Context, id string) error {
	return s.do(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(`DELETE FROM members WHERE id=?`, id)
		return err
	})
}

// PutLegs writes the newest states of legs.
func (s *Store) PutLegs(ctx context.Context, legs ...bridge.LegRecord) error {
	q := queued{legs: map[string]bridge.LegRecord{}}
	for _, r := range legs {
		q.legs[r.Leg.ID] = r
	}
	return s.do(ctx, q.write)
}

// Load returns every conference with its roster, the members' last outcomes, and the
// legs that never ended.
func (s *Store) Load(ctx context.Context) (bridge.Saved, error) {
	var out bridge.Saved
	index := map[string]int{}
	err := s.each(ctx, func(rows *sql.Rows) error {
		var c bridge.Conference
		var created, updated, seq int64
		if err := rows.Scan(&c.ID, &c.Name, &c.Type, &c.Owner, &created, &updated, &seq,
			&c.PIN, &c.Alias, &c.JoinPolicy, &c.WhoMayRefer, &c.AnswerConfirm, &c.AdHoc, &c.DialLimit, &c.Layout, &c.Rejoin); err != nil {
			return err
		}
		c.CreatedAt, c.UpdatedAt = at(created), at(updated)
		index[c.ID] = len(out.Conferences)
		out.Conferences = append(out.Conferences, bridge.SavedConference{Conference: c, Seq: uint64(seq)})
		return nil
	}, `SELECT id, name, type, owner, created_at, updated_at, coalesce(seq, 0), pin, alias, join_policy, who_may_refer, answer_confirm, ad_hoc, dial_limit, layout, rejoin
		FROM conferences LEFT JOIN event_seq ON conference_id = id ORDER BY id`)
	if err != nil {
		return out, fmt.Errorf("load conferences: %w", err)
	}
	err = s.each(ctx, func(rows *sql.Rows) error {
		var m bridge.Member
		var created int64
		var last sql.NullString
		if err := rows.Scan(&m.ID, &m.Conference, &m.Number, &m.Name, &m.Role, &m.Muted, &m.VideoMuted, &m.Deaf, &m.Held, &created, &last); err != nil {
			return err
		}
		m.CreatedAt, m.State = at(created), bridge.Idle
		if last.Valid {
			l, err := decodeLeg(last.String)
			if err != nil {
				return err
			}
			m.LastOutcome = bridge.OutcomeOf(l)
		}
		i, ok := index[m.Conference]
		if !ok {
			return fmt.Errorf("member %s has no conference", m.ID) // the schema forbids it
		}
		out.Conferences[i].Members = append(out.Conferences[i].Members, m)
		return nil
	}, `SELECT m.id, m.conference_id, m.number, m.name, m.role, m.muted, m.video_muted, m.deaf, m.held, m.created_at,
			(SELECT doc FROM legs WHERE member_id = m.id AND ended_at IS NOT NULL ORDER BY id DESC LIMIT 1)
		FROM members m ORDER BY m.id`)
	if err != nil {
		return out, fmt.Errorf("load members: %w", err)
	}
	err = s.each(ctx, func(rows *sql.Rows) error {
		var doc, number string
		if err := rows.Scan(&doc, &number); err != nil {
			return err
		}
		l, err := decodeLeg(doc)
		out.Live = append(out.Live, bridge.LegRecord{Leg: l, Number: number})
		return err
	}, `SELECT doc, number FROM legs WHERE ended_at IS NULL ORDER BY id`)
	if err != nil {
		return out, fmt.Errorf("load legs: %w", err)
	}
	err = s.each(ctx, func(rows *sql.Rows) error {
		var alive int64
		err := rows.Scan(&alive)
		out.Alive = at(alive)
		return err
	}, `SELECT at FROM alive`)
	if err != nil {
		return out, fmt.Errorf("load alive: %w", err)
	}
	return out, nil
}

// Legs pages through a member's legs, newest first. cursor is "" or a page's next.
func (s *Store) Legs(ctx context.Context, conference, member string, limit int, cursor string) ([]bridge.Leg, string, error) {
	below := cursor
	if below == "" {
		below = "~" // above every id
	}
	// Queued states are read before the table: one that is committed in between is then
	// seen twice, not never.
	byID := map[string]bridge.Leg{}
	s.mu.Lock()
	for _, queue := range []map[string]bridge.LegRecord{s.writing, s.legs} {
		for id, r := range queue {
			if r.Leg.Member == member && r.Leg.Conference == conference && id < below {
				byID[id] = r.Leg
			}
		}
	}
	s.mu.Unlock()
	err := s.each(ctx, func(rows *sql.Rows) error {
		var doc string
		if err := rows.Scan(&doc); err != nil {
			return err
		}
		l, err := decodeLeg(doc)
		if _, newer := byID[l.ID]; !newer {
			byID[l.ID] = l
		}
		return err
	}, `SELECT doc FROM legs WHERE member_id=? AND conference_id=? AND id<? ORDER BY id DESC LIMIT ?`, member, conference, below, limit+1)
	if err != nil {
		return nil, "", asError(fmt.Errorf("legs: %w", err))
	}
	items := make([]bridge.Leg, 0, len(byID))
	for _, l := range byID {
		items = append(items, l)
	}
	slices.SortFunc(items, func(a, b bridge.Leg) int { return cmp.Compare(b.ID, a.ID) })
	if len(items) > limit {
		return items[:limit], items[limit-1].ID, nil
	}
	return items, "", nil
}

// Unsettled returns the legs that ended after a time, oldest first, after those that never
// ended: a crash may have kept their charging records, or their ends, from being written.
func (s *Store) Unsettled(ctx context.Context, after time.Time) ([]bridge.LegRecord, error) {
	var out []bridge.LegRecord
	err := s.each(ctx, func(rows *sql.Rows) error {
		var doc, number string
		if err := rows.Scan(&doc, &number); err != nil {
			return err
		}
		l, err := decodeLeg(doc)
		out = append(out, bridge.LegRecord{Leg: l, Number: number})
		return err
	}, `SELECT doc, number FROM legs WHERE ended_at > ? OR ended_at IS NULL ORDER BY ended_at, id`, after.UnixNano())
	if err != nil {
		return nil, fmt.Errorf("unsettled legs: %w", err)
	}
	return out, nil
}

// Audit returns audit rows, newest first.
func (s *Store) Audit(ctx context.Context, limit int) ([]bridge.AuditRecord, error) {
	var out []bridge.AuditRecord
	err := s.each(ctx, func(rows *sql.Rows) error {
		var a bridge.AuditRecord
		var when int64
		if err := rows.Scan(&when, &a.Actor, &a.ActorName, &a.Via, &a.Remote, &a.Action, &a.Target, &a.Result); err != nil {
			return err
		}
		a.At = at(when)
		out = append(out, a)
		return nil
	}, `SELECT at, actor, actor_name, via, remote, action, target, result FROM audit ORDER BY id DESC LIMIT ?`, limit)
	return out, err
}

func (s *Store) each(ctx context.Context, f func(*sql.Rows) error, query string, args ...any) error {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func decodeLeg(doc string) (bridge.Leg, error) {
	var l bridge.Leg
	if err := json.Unmarshal([]byte(doc), &l); err != nil {
		return l, fmt.Errorf("leg %.40q: %w", doc, err)
	}
	return l, nil
}

func at(n int64) time.Time { return time.Unix(0, n).UTC() }
