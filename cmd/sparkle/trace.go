package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"sparkle/bridge/accounts"
	"sparkle/bridge/api/client"
)

func traceCommand() *cobra.Command {
	var s server
	var output string
	var file string
	var full bool
	cmd := &cobra.Command{
		Use:   "trace LEG",
		Short: "Show what a leg said and heard in SIP, as a ladder",
		Long: "Show what a leg said and heard in SIP, as a ladder: of a live leg, and for an hour of an ended one.\n" +
			"Subscribers' digits are masked; --full shows the messages whole and needs a key of scope admin.\n" +
			"-o pcap is a capture file of the SIP messages for Wireshark (no media; what went over TCP is shown as UDP).\n" +
			"Exit code 2: usage. 3: no such leg, or its messages are no longer there.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			scope := accounts.ConfRead
			if full || s.key == "" {
				scope = accounts.AdminScope // on its own machine: every account's legs
			}
			return s.ask(cmd, scope, func(ctx context.Context, c *client.Client) error {
				if output == "pcap" {
					b, err := c.Pcap(ctx, args[0], full)
					if err != nil {
						return err
					}
					if file == "" {
						_, err = cmd.OutOrStdout().Write(b)
						return err
					}
					return os.WriteFile(file, b, 0o600)
				}
				l, err := c.Trace(ctx, args[0], full)
				if err != nil {
					return err
				}
				if output == "json" {
					return printJSON(cmd.OutOrStdout(), l)
				}
				return l.WriteText(cmd.OutOrStdout())
			})
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&full, "full", false, "whole messages, with every number; it is audited")
	cmd.Flags().StringVarP(&file, "file", "f", "", "with -o pcap: write to this file")
	formatFlag(cmd, &output, "text", "json", "pcap")
	return cmd
}
