package main

import (
	"context"

	"github.com/spf13/cobra"

	"sparkle/bridge/accounts"
	"sparkle/bridge/api/client"
)

func traceCommand() *cobra.Command {
	var s server
	var output string
	var full bool
	cmd := &cobra.Command{
		Use:   "trace LEG",
		Short: "Show what a leg said and heard in SIP, as a ladder",
		Long: "Show what a leg said and heard in SIP, as a ladder: of a live leg, and for an hour of an ended one.\n" +
			"Subscribers' digits are masked; --full shows the messages whole and needs a key of scope admin.\n" +
			"Exit code 2: usage. 3: no such leg, or its messages are no longer there.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			scope := accounts.ConfRead
			if full || s.key == "" {
				scope = accounts.AdminScope // on its own machine: every account's legs
			}
			return s.ask(cmd, scope, func(ctx context.Context, c *client.Client) error {
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
	formatFlag(cmd, &output, "text", "json")
	return cmd
}
