// Package store keeps conferences, rosters, leg history and the audit in SQLite
// (modernc, no cgo). One goroutine writes, and commits together whatever has come
// while the last commit was on its way to the disk; an acknowledged write survives
// kill -9 and power loss (WAL, synchronous=FULL).
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"

	"sparkle/bridge"
	"sparkle/bridge/fault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options are the store's part of the configuration.
type Options struct {
	// Path of the database file; its directory must exist.
	Path string
	// MaxBytes limits the database's size; writes beyond it fail with storage_full.
	// 0: as large as the disk.
	MaxBytes int64
}

// Validate reports every fault at once.
func (o Options) Validate() error {
	var errs []error
	if o.Path == "" {
		errs = append(errs, errors.New("path: required"))
	}
	if strings.ContainsRune(o.Path, 0) {
		errs = append(errs, errors.New("path: has a NUL byte"))
	}
	if o.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("max_bytes %d: want 0 or more", o.MaxBytes))
	}
	return errors.Join(errs...)
}

const pageSize = 4096

// Store is an open database. Its methods may be called from anywhere.
type Store struct {
	db     *sql.DB
	writes chan *write // cap maxBatch: full, a caller of Put waits (or gives up by its context)
	wake   chan struct{}
	quit   chan struct{}
	done   chan struct{}
	once   sync.Once

	mu      sync.Mutex
	legs    map[string]bridge.LegRecord // queued, newest state only; at most maxQueued
	writing map[string]bridge.LegRecord // taken from legs, not yet committed
	audit   []bridge.AuditRecord        // queued; at most maxQueued
	seqs    map[string]uint64
	alive   time.Time // zero: nothing to write
	lost    uint64    // queued records thrown away because a queue was full
	failed  error     // of the last commit
}

// maxBatch writes share a commit. maxQueued legs (and as many audit rows) wait for a
// disk that refuses them; after that a queued one is dropped and counted.
const (
	maxBatch  = 256
	maxQueued = 10_000
)

// Open opens the database, makes it if need be and brings its schema up to date.
func Open(o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)",
	}}
	if o.MaxBytes > 0 {
		q.Add("_pragma", fmt.Sprintf("max_page_count(%d)", max(1, o.MaxBytes/pageSize)))
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: o.Path}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Path, err)
	}
	// One file, one writer: more connections only wait for each other.
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	if err := migrate(db); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", o.Path, err)
	}
	s := &Store{
		db: db, writes: make(chan *write, maxBatch), wake: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
		legs: map[string]bridge.LegRecord{}, seqs: map[string]uint64{},
	}
	go fault.Safely(nil, "store", s.run)()
	return s, nil
}

func migrate(db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if _, err := p.Up(context.Background()); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// DB is the database itself, for packages that keep tables of their own in it. Their
// writes take turns with the store's by SQLite's lock.
func (s *Store) DB() *sql.DB { return s.db }

// Lost counts queued records that were thrown away because the disk refused them for
// too long.
func (s *Store) Lost() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Healthy is nil while writes succeed, else why the last one did not.
func (s *Store) Healthy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Close writes what is queued, once, and closes the database.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.quit) })
	<-s.done
	return s.db.Close()
}

// asError makes a caller's error of SQLite's: no room, or no disk.
func asError(err error) error {
	if err == nil {
		return nil
	}
	if own := (*bridge.Error)(nil); errors.As(err, &own) {
		return err
	}
	if isFull(err) {
		return &bridge.Error{Kind: bridge.Full, Code: "storage_full", Detail: "the server's disk is full; nothing was changed"}
	}
	if se := (*sqlite.Error)(nil); errors.As(err, &se) {
		return &bridge.Error{Kind: bridge.Unavailable, Code: "storage_unavailable", Detail: "the server's database cannot be written now: " + se.Error()}
	}
	return err
}

func isFull(err error) bool {
	const sqliteFull = 13
	se := (*sqlite.Error)(nil)
	return errors.Is(err, syscall.ENOSPC) || errors.As(err, &se) && se.Code()&0xff == sqliteFull
}

var errClosed = &bridge.Error{Kind: bridge.Unavailable, Code: "storage_unavailable", Detail: "the server is shutting down"}
