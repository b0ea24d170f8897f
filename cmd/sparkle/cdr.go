package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sparkle/bridge/cdr"
)

func cdrCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cdr", Short: "Charging records"}
	var path, dir, from, to, format, file string
	var want cdr.Filter
	export := &cobra.Command{
		Use:   "export",
		Short: "Write the charging records of this machine as CSV or lines of JSON",
		Long: "Write the charging records of this machine, in order of their numbers, as CSV or lines of JSON.\n" +
			"It reads the files under data_dir/cdr; the daemon may run or not.\n" +
			"--from and --to take 2026-11-25, 2026-11-25T18:00:00Z or 24h (so long ago); a record counts by its end.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if want.From, err = moment(from, time.Now()); err != nil {
				return fmt.Errorf("--from: %w", err)
			}
			if want.To, err = moment(to, time.Now()); err != nil {
				return fmt.Errorf("--to: %w", err)
			}
			if dir == "" {
				cfg, err := loadConfig(cmd, path)
				if err != nil {
					return err
				}
				dir = cfg.CDR().Dir
			}
			if file == "" {
				return exportCDR(cmd, dir, want, format, cmd.OutOrStdout())
			}
			out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) // numbers are in it
			if err != nil {
				return err
			}
			return errors.Join(exportCDR(cmd, dir, want, format, out), out.Close())
		},
	}
	f := export.Flags()
	f.StringVarP(&path, "config", "c", "", "configuration file")
	f.StringVar(&dir, "dir", "", "directory of the records; without it data_dir/cdr of the configuration")
	f.StringVar(&from, "from", "", "those that ended then or later")
	f.StringVar(&to, "to", "", "those that ended before")
	f.StringVarP(&format, "output", "o", "csv", "csv or jsonl")
	f.StringVarP(&file, "file", "f", "", "write to this file")
	f.Uint64Var(&want.After, "after", 0, "those with a greater sequence number")
	f.StringVar(&want.Conference, "conference", "", "those of one conference")
	f.StringVar(&want.Attachment, "attachment", "", "those of one attachment")
	f.StringVar(&want.Direction, "direction", "", "outbound or inbound")
	f.StringVar(&want.Outcome, "outcome", "", "busy, no_answer, left …")
	cmd.AddCommand(export)
	return cmd
}

// exportCDR exits with 1 if a line could not be read; the others are written all the same.
func exportCDR(cmd *cobra.Command, dir string, want cdr.Filter, format string, to io.Writer) error {
	out := bufio.NewWriter(to)
	enc, err := cdr.NewEncoder(out, format)
	if err != nil {
		return err
	}
	var bad error
	for r, err := range cdr.Read(dir, want) {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("no charging records: %w", err)
		}
		if err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "sparkle:", err)
			bad = exitError(1)
			continue
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return errors.Join(enc.Flush(), out.Flush(), bad)
}

// moment reads a time as people type it: a date (UTC), a time, or a duration ago.
func moment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: 2026-11-25, 2026-11-25T18:00:00Z or 24h", s)
}
