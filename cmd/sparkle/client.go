package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"sparkle/bridge/accounts"
	"sparkle/bridge/api/client"
	"sparkle/bridge/store"
)

// Exit codes of the commands that ask a daemon. 0 is well; what else it means is said on
// standard error.
const (
	exitFailed  = 1 // it could not be done, or what was looked at is not well
	exitUsage   = 2 // the command line or the configuration
	exitMissing = 3 // there is no such thing
)

// server says which daemon a command asks, and as whom.
type server struct{ url, key, config string }

// flags adds those of every command that asks a daemon.
func (s *server) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.url, "url", os.Getenv("SPARKLE_URL"), "the daemon, http://host:port; or SPARKLE_URL")
	// Not a default that --help would print.
	f.StringVar(&s.key, "key", "", "API key; or SPARKLE_API_KEY")
	f.StringVarP(&s.config, "config", "c", "", "on the daemon's own machine: its configuration file, which stands for what is not given")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		fmt.Fprintln(cmd.ErrOrStderr(), "sparkle:", err)
		return exitError(exitUsage)
	})
}

// local is how long a key lives that a command makes for itself on the daemon's machine.
const local = 5 * time.Second

// ask calls f with a client of the daemon. Without a key it makes one in the daemon's
// database, which only who may read that can, and takes it back afterwards.
func (s *server) ask(cmd *cobra.Command, scope accounts.Scope, f func(context.Context, *client.Client) error) (err error) {
	ctx, base, key := cmd.Context(), s.url, s.key
	if key == "" {
		key = os.Getenv("SPARKLE_API_KEY")
	}
	if base != "" && key == "" && s.config == "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "sparkle: --url needs --key or SPARKLE_API_KEY (`sparkle apikey new NAME` prints one)")
		return exitError(exitUsage)
	}
	if base == "" || key == "" {
		cfg, err := loadConfig(cmd, s.config)
		if err != nil {
			return err
		}
		if base == "" {
			if base, err = localURL(cfg.HTTP.Listen, cfg.HTTP.TLSCertFile != ""); err != nil {
				return err
			}
		}
		if key == "" {
			k, done, err := localKey(ctx, cfg.DataDir, scope)
			if err != nil {
				return fmt.Errorf("%w; or use --url and --key", err)
			}
			key = k
			defer done()
		}
	}
	c, err := client.New(base, key)
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "sparkle:", err)
		return exitError(exitUsage)
	}
	defer c.Close()
	err = f(ctx, c)
	var problem *client.Error
	if errors.As(err, &problem) && problem.Status == http.StatusNotFound {
		fmt.Fprintln(cmd.ErrOrStderr(), "sparkle:", err)
		return exitError(exitMissing)
	}
	return err
}

// localURL is where a daemon on this machine answers.
func localURL(listen string, tls bool) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" {
		return "", fmt.Errorf("http.listen is %s: say where the daemon is with --url", listen)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}
	if tls {
		u.Scheme = "https"
	}
	return u.String(), nil
}

// localKey makes a key for this one command.
func localKey(ctx context.Context, dataDir string, scope accounts.Scope) (key string, done func(), err error) {
	path := filepath.Join(dataDir, "sparkle.db")
	if _, err := os.Stat(path); err != nil { // Open would make one
		return "", nil, fmt.Errorf("no daemon's database: %w", err)
	}
	db, err := store.Open(store.Options{Path: path})
	if err != nil {
		return "", nil, fmt.Errorf("store: %w", err)
	}
	people, err := accounts.New(db.DB(), accounts.Options{}, slog.New(slog.DiscardHandler))
	if err == nil {
		key, err = people.NewAPIKey(ctx, "command line "+ulid.Make().String(), scope)
	}
	if err != nil {
		db.Close()
		return "", nil, err
	}
	return key, func() {
		defer db.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), local)
		defer cancel()
		if p, err := people.APIKey(ctx, key); err == nil {
			_ = people.RevokeKey(ctx, p.ID) // it is kept nowhere: at worst a row stays
		}
	}, nil
}

// format is the flag -o; usage of a value that is not one of names is an error.
func formatFlag(cmd *cobra.Command, to *string, names ...string) {
	cmd.Flags().StringVarP(to, "output", "o", names[0], fmt.Sprint("one of ", names))
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, n := range names {
			if *to == n {
				return inner(cmd, args)
			}
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "sparkle: -o %q is not one of %v\n", *to, names)
		return exitError(exitUsage)
	}
}

// printJSON writes what a program reads.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
