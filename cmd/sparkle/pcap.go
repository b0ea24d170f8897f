package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sparkle/bridge/accounts"
	"sparkle/bridge/api/client"
)

func pcapCommand() *cobra.Command {
	var s server
	var file string
	var payload bool
	var seconds int
	cmd := &cobra.Command{
		Use:   "pcap LEG",
		Short: "Capture a live leg's SIP, RTP and RTCP for Wireshark",
		Long: "Capture a live leg's packets for a while: its SIP messages so far and those that come, and RTP and RTCP both\n" +
			"ways. Of RTP there are the headers only; --payload has what was said too and needs a key of scope admin. Every\n" +
			"capture is audited. IP and UDP headers are made up around what was sent and received. Ctrl-C ends it early.\n" +
			"Exit code 2: usage. 3: no such live leg.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if seconds < 1 || seconds > 600 {
				fmt.Fprintln(cmd.ErrOrStderr(), "sparkle: --seconds: want 1 to 600")
				return exitError(exitUsage)
			}
			scope := accounts.ConfRead
			if payload || s.key == "" {
				scope = accounts.AdminScope // on its own machine: every account's legs
			}
			var out io.Writer = cmd.OutOrStdout()
			if file != "" {
				f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
				if err != nil {
					return err
				}
				defer f.Close()
				out = f
			}
			return s.ask(cmd, scope, func(ctx context.Context, c *client.Client) error {
				err := c.Capture(ctx, args[0], time.Duration(seconds)*time.Second, payload, out)
				if ctx.Err() != nil {
					return nil
				}
				return err
			})
		},
	}
	s.flags(cmd)
	cmd.Flags().IntVar(&seconds, "seconds", 30, "for how long, 1 to 600")
	cmd.Flags().BoolVar(&payload, "payload", false, "what was said as well")
	cmd.Flags().StringVarP(&file, "file", "f", "", "write to this file, not to standard output")
	return cmd
}
