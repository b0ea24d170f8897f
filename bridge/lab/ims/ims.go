// Package ims runs a real IMS core on loopback: Kamailio as P-, I- and S-CSCF, from Debian's
// packages, with the lab's own HSS. It is the second opinion on everything between the UA
// and a carrier; lab.Core is the simulated one, which can misbehave.
//
// No port is fixed and no file of the machine is touched: configuration is written from
// templates into a directory that Start is given. A Core that is not closed ends with the
// process that started it.
package ims

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"text/template"
	"time"

	_ "modernc.org/sqlite" // the I-CSCF's table of S-CSCFs

	"sparkle/bridge/lab"
	"sparkle/bridge/lab/ims/hss"
)

//go:embed kamailio
var templates embed.FS

// packages are Debian's, by a file that each is recognised by, in the directory of modules.
var packages = []struct{ name, module string }{
	{"kamailio", "tm.so"}, {"kamailio-ims-modules", "ims_registrar_scscf.so"}, {"kamailio-presence-modules", "presence.so"},
	{"kamailio-sqlite-modules", "db_sqlite.so"},
}

// modules is where Debian has them: the directory is named after the architecture.
func modules() string {
	found, _ := filepath.Glob("/usr/lib/*/kamailio/modules") // the pattern is good
	if len(found) == 0 {
		return "/usr/lib/kamailio/modules"
	}
	return found[0]
}

// Missing names the Debian packages that Start needs and this machine does not have.
func Missing() []string {
	var out []string
	_, err := exec.LookPath("kamailio")
	for _, p := range packages {
		_, e := os.Stat(filepath.Join(modules(), p.module))
		if e != nil || p.name == "kamailio" && err != nil {
			out = append(out, p.name)
		}
	}
	return out
}

// Options of Start.
type Options struct {
	Dir     string        // for configuration and logs; it must exist and be the core's alone
	Domain  string        // home domain; "" is lab.DefaultDomain
	Port    int           // of the P-CSCF; 0: one that is free
	Expires time.Duration // that registrations are granted at most; 0 is an hour
	Log     *slog.Logger  // of the HSS
}

// Core is a running IMS core.
type Core struct {
	o     Options
	hss   *hss.HSS
	procs []*process
	at    addresses

	mu       sync.Mutex
	handsets []*lab.Handset
}

// addresses are where everything listens, UDP and TCP alike; templates see them.
type addresses struct {
	Dir, Domain, Modules     string
	Name                     string // of the Diameter peer, in diameter.xml
	Expires                  int    // seconds
	HSS, PCSCF, ICSCF, SCSCF netip.AddrPort
	IPsecClient, IPsecServer int
}

// starts is how often a core is started anew because somebody else took one of its ports
// between their choice and Kamailio's start.
const starts = 3

// Start returns when the core takes registrations.
func Start(ctx context.Context, o Options) (*Core, error) {
	if missing := Missing(); len(missing) > 0 {
		return nil, fmt.Errorf("ims: not installed: Debian packages %s", strings.Join(missing, " "))
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("ims: %w", err)
	}
	o.Dir = dir
	if o.Domain == "" {
		o.Domain = lab.DefaultDomain
	}
	if o.Expires == 0 {
		o.Expires = time.Hour
	}
	for try := 1; ; try++ {
		c, err := start(ctx, o)
		switch {
		case err == nil:
			return c, nil
		case try == starts || ctx.Err() != nil || o.Port != 0 || !errors.Is(err, errPort):
			return nil, fmt.Errorf("ims: %w", err)
		}
	}
}

func start(ctx context.Context, o Options) (_ *Core, err error) {
	c := &Core{o: o}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	// Kamailio resolves the name of its Diameter peer. An address needs no resolver.
	if c.hss, err = hss.Listen(hss.Options{Host: "127.0.0.1", Domain: o.Domain, Log: o.Log}); err != nil {
		return nil, err
	}
	if c.at, err = c.choose(); err != nil {
		return nil, err
	}
	if err := c.configure(); err != nil {
		return nil, err
	}
	for _, name := range []string{"scscf", "icscf", "pcscf"} {
		p, err := run(o.Dir, name)
		if err != nil {
			return nil, err
		}
		c.procs = append(c.procs, p)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return c, c.await(ctx)
}

// choose finds a port for each.
func (c *Core) choose() (addresses, error) {
	a := addresses{Dir: c.o.Dir, Domain: c.o.Domain, Modules: modules() + "/", HSS: c.hss.Addr(), Expires: int(c.o.Expires.Seconds())}
	taken := map[int]bool{0: true}
	ports := [5]int{c.o.Port}
	for i := range ports {
		for taken[ports[i]] {
			var err error
			if ports[i], err = lab.SparePort(); err != nil {
				return a, err
			}
		}
		taken[ports[i]] = true
	}
	for i, to := range []*netip.AddrPort{&a.PCSCF, &a.ICSCF, &a.SCSCF} {
		*to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(ports[i]))
	}
	a.IPsecClient, a.IPsecServer = ports[3], ports[4]
	return a, nil
}

// configure writes the files.
func (c *Core) configure() error {
	set, err := template.ParseFS(templates, "kamailio/*")
	if err != nil {
		return fmt.Errorf("templates: %w", err) // ours: it cannot happen to anybody else
	}
	write := func(file, from, name string) error {
		var b bytes.Buffer
		at := c.at
		at.Name = name
		if err := set.ExecuteTemplate(&b, from, at); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(c.o.Dir, file), b.Bytes(), 0o600)
	}
	for _, f := range []struct{ file, from, name string }{
		{"common.cfg", "common.cfg", ""}, {"pcscf.cfg", "pcscf.cfg", ""}, {"icscf.cfg", "icscf.cfg", ""}, {"scscf.cfg", "scscf.cfg", ""},
		{"icscf.sql", "icscf.sql", ""}, {"icscf.xml", "diameter.xml", "icscf"}, {"scscf.xml", "diameter.xml", "scscf"},
	} {
		if err := write(f.file, f.from, f.name); err != nil {
			return err
		}
	}
	return c.database()
}

// database is the I-CSCF's.
func (c *Core) database() error {
	file := filepath.Join(c.o.Dir, "icscf.db")
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) { // an earlier try's
		return err
	}
	text, err := os.ReadFile(filepath.Join(c.o.Dir, "icscf.sql"))
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	_, err = db.Exec(string(text))
	return errors.Join(err, db.Close())
}

// Domain is the home domain.
func (c *Core) Domain() string { return c.o.Domain }

// PCSCF is where phones, and a daemon that registers, send; UDP and TCP.
func (c *Core) PCSCF() netip.AddrPort { return c.at.PCSCF }

// ICSCF is where another network's requests come in.
func (c *Core) ICSCF() netip.AddrPort { return c.at.ICSCF }

// SCSCF is where an application server sends; UDP and TCP.
func (c *Core) SCSCF() netip.AddrPort { return c.at.SCSCF }

// HSS is the home subscriber server, for its users.
func (c *Core) HSS() *hss.HSS { return c.hss }

// Err says which process has ended that should run, and how its log ends; nil: all run.
func (c *Core) Err() error {
	for _, p := range c.procs {
		select {
		case <-p.done:
			return fmt.Errorf("ims: %w", p.ended())
		default:
		}
	}
	return nil
}

// Close ends the handsets, Kamailio and the HSS, and waits.
func (c *Core) Close() {
	c.mu.Lock()
	hs := c.handsets
	c.handsets = nil
	c.mu.Unlock()
	for _, h := range hs {
		h.Close()
	}
	for _, p := range c.procs {
		p.stop()
	}
	if c.hss != nil {
		c.hss.Close()
	}
}
