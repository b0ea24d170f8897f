package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"time"

	"sparkle/config"
)

// certificate is one that we show, or why it cannot be.
type certificate struct {
	whose string // "http", or an attachment's name
	file  string
	cert  *x509.Certificate
	do    string // what to do about err
	err   error
}

// shown reads the certificates that a configuration names; the first of a file is the leaf.
func shown(cfg config.File) (out []certificate) {
	add := func(whose, file string) {
		if file != "" {
			c := certificate{whose: whose, file: file}
			c.cert, c.do, c.err = leaf(file)
			out = append(out, c)
		}
	}
	add("http", cfg.HTTP.TLSCertFile)
	for _, a := range cfg.Attachments {
		add(a.Name, a.TLS.CertFile)
	}
	return out
}

func leaf(file string) (cert *x509.Certificate, do string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, "name a PEM file that the daemon may read", err
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, "name a PEM file with a certificate", fmt.Errorf("%s has none", file)
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if cert, err = x509.ParseCertificate(block.Bytes); err != nil {
			return nil, "replace it", fmt.Errorf("%s: %w", file, err)
		}
		return cert, "", nil
	}
}

// certificates judges those that we show.
func (r *report) certificates(cfg config.File, now time.Time) {
	for _, c := range shown(cfg) {
		if c.err != nil {
			r.fail("certificate "+c.whose, c.do, "%v", c.err)
			continue
		}
		r.expiry("certificate "+c.whose, c.cert, now)
	}
}

// CertificateExpiry is when the first of the certificates that a configuration names expires;
// zero if there is none that can be read.
func CertificateExpiry(cfg config.File) (first time.Time) {
	for _, c := range shown(cfg) {
		if c.err == nil && (first.IsZero() || c.cert.NotAfter.Before(first)) {
			first = c.cert.NotAfter
		}
	}
	return first
}

// certLog is how long before its end a daemon begins to speak of a certificate, once a day.
const certLog = 14 * 24 * time.Hour

// WatchCertificates logs which certificates are about to expire, at once and then daily, until
// ctx ends.
func WatchCertificates(ctx context.Context, cfg config.File, log *slog.Logger) {
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for now := time.Now(); ; {
		for _, c := range shown(cfg) {
			switch {
			case c.err != nil:
				log.Error("certificate cannot be read", "of", c.whose, "err", c.err)
			case c.cert.NotAfter.Before(now):
				log.Error("certificate has expired", "of", c.whose, "file", c.file, "not_after", c.cert.NotAfter.UTC())
			case c.cert.NotAfter.Sub(now) < certLog:
				log.Warn("certificate expires soon", "of", c.whose, "file", c.file, "not_after", c.cert.NotAfter.UTC(), "days", int(c.cert.NotAfter.Sub(now).Hours()/24))
			}
		}
		select {
		case now = <-daily.C:
		case <-ctx.Done():
			return
		}
	}
}
