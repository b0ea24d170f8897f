package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sparkle/bridge/lab/churn"
)

func soakCommand() *cobra.Command {
	var asJSON bool
	var s churn.Soak
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Keep a daemon under calls and watch what it holds",
		Long: "Start a daemon, have SIPp (Debian package sip-tester) answer its calls for a while, and\n" +
			"print memory, file descriptors and goroutines as they go, how they grew, and what was\n" +
			"left when the last call was over. The exit code is 1 if a call failed or something leaks.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return soak(cmd.Context(), s, asJSON, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	cmd.Flags().IntVar(&s.Rate, "rate", 10, "calls a second")
	cmd.Flags().DurationVar(&s.For, "for", time.Hour, "how long calls are placed")
	cmd.Flags().DurationVar(&s.Every, "every", 0, "between samples; 0: a sixtieth of --for")
	return cmd
}

func soak(ctx context.Context, s churn.Soak, asJSON bool, stdout io.Writer) error {
	dir, err := os.MkdirTemp("", "sparkle-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.Dir = dir
	if s.Program, err = os.Executable(); err != nil {
		return err
	}
	if asJSON {
		out := json.NewEncoder(stdout)
		var written error
		slopes, err := s.Run(ctx, func(x churn.Sample) { written = errors.Join(written, out.Encode(x)) })
		for _, x := range slopes {
			written = errors.Join(written, out.Encode(x))
		}
		return errors.Join(err, written)
	}
	fmt.Fprintf(stdout, "%8s %8s %6s  %s\n", "s", "calls", "failed", "process: RSS MiB, descriptors, goroutines")
	slopes, err := s.Run(ctx, func(x churn.Sample) {
		fmt.Fprintf(stdout, "%8.0f %8d %6d ", x.Seconds, x.Calls, x.Failed)
		for _, h := range x.Held {
			fmt.Fprintf(stdout, " %s: %.1f, %d, %d ", h.Process, h.RSSMiB, h.FDs, h.Goroutines)
		}
		fmt.Fprintln(stdout, " ", x.Phase)
	})
	for _, x := range slopes {
		fmt.Fprintf(stdout, "%-8s grew by %+.2f MiB, %+.1f descriptors, %+.1f goroutines an hour (%d samples); left: %+.1f MiB, %+d, %+d\n",
			x.Process, x.RSSMiBPerH, x.FDsPerH, x.GoroutinesPerH, x.Samples, x.LeftRSSMiB, x.LeftFDs, x.LeftGoroutines)
	}
	return err
}
