package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sparkle/bridge"
	"sparkle/bridge/accounts"
	"sparkle/bridge/api/client"
)

func attachmentsCommand() *cobra.Command {
	var s server
	var output string
	cmd := &cobra.Command{
		Use:   "attachments [NAME]",
		Short: "Show how the connections to carriers are",
		Long: "Show how the connections to carriers are: registration, peers, limits and what waits.\n" +
			"Exit code 0: all of them are up. 1: one is not, or there is none. 2: usage. 3: no such attachment.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd, accounts.ConfRead, func(ctx context.Context, c *client.Client) error {
				items, err := c.Attachments(ctx)
				if err != nil {
					return err
				}
				if len(args) == 1 {
					all := items
					items = nil
					for _, a := range all {
						if a.Name == args[0] {
							items = append(items, a)
						}
					}
					if items == nil {
						fmt.Fprintf(cmd.ErrOrStderr(), "sparkle: there is no attachment %q\n", args[0])
						return exitError(exitMissing)
					}
				}
				if output == "json" {
					err = printJSON(cmd.OutOrStdout(), items)
				} else {
					err = attachmentTable(cmd.OutOrStdout(), items, time.Now())
				}
				if err != nil {
					return err
				}
				up := len(items) > 0
				for _, a := range items {
					up = up && a.Up
				}
				if !up {
					return exitError(exitFailed)
				}
				return nil
			})
		},
	}
	s.flags(cmd)
	formatFlag(cmd, &output, "table", "json")
	cmd.AddCommand(registerCommand())
	return cmd
}

// registerCommand is for who has mended what kept an attachment from being registered.
func registerCommand() *cobra.Command {
	var s server
	cmd := &cobra.Command{
		Use:   "register NAME",
		Short: "Have an attachment register again at once",
		Long: "Have an attachment of mode ue register again at once, also where it gave up (auth_failed, rejected).\n" +
			"How that went is shown by `sparkle attachments NAME`. Exit code 0: a REGISTER is on its way. 1: it does not register. 3: no such attachment.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd, accounts.AdminScope, func(ctx context.Context, c *client.Client) error {
				return c.Register(ctx, args[0])
			})
		},
	}
	s.flags(cmd)
	return cmd
}

// attachmentTable writes one block an attachment: what it is, then its peers.
func attachmentTable(w io.Writer, items []bridge.Attachment, now time.Time) error {
	if len(items) == 0 {
		_, err := fmt.Fprintln(w, "No attachment is configured: calls are refused. See `sparkle config example`.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tMODE\tSTATE\tFOR\tCALLS\tWAITING\tCPS\tIDENTITY\tLOCAL")
	for _, a := range items {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", a.Name, a.Mode, a.State, ago(a.Since, now),
			of(a.Calls, a.MaxCalls), a.Queued, limit(a.CPS), dash(a.Identity), dash(a.LocalAddr))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, a := range items {
		fmt.Fprintf(w, "\n%s: %s\n", a.Name, attachmentWords(a, now))
		if len(a.Targets) > 0 {
			fmt.Fprintln(t, "  PEER\tNAME\tOVER\tSTATE\tRTT\tCALLS\tCPS\tPRIORITY\tWEIGHT")
		}
		for _, p := range a.Targets {
			state, rtt := p.State, "-"
			if p.Until != nil {
				state += " for " + p.Until.Sub(now).Round(time.Second).String()
			}
			if p.RTTMs != nil {
				rtt = fmt.Sprintf("%.1f ms", *p.RTTMs)
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", p.Address, dash(p.Name), p.Transport, state, rtt,
				of(p.Calls, p.MaxCalls), limit(p.CPS), p.Priority, p.Weight)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// attachmentWords is the state in a sentence, with what to do where that is known.
func attachmentWords(a bridge.Attachment, now time.Time) string {
	var s []string
	switch a.State {
	case "registered":
		s = append(s, "registered, calls can be placed")
	case "up":
		s = append(s, "up, calls can be placed")
	case "registering":
		s = append(s, "registering; no call can be placed yet")
	case "auth_failed":
		s = append(s, "the core does not take our credentials: check impi, auth and domain")
	case "rejected":
		s = append(s, "the core refuses to register us: is the identity provisioned?")
	case "unregistered":
		s = append(s, "not registered; tried again with back-off")
	case "down":
		s = append(s, "no peer answers OPTIONS: check address, port, transport and the way there")
	case "suspended":
		s = append(s, "every peer asked us to wait (503 with Retry-After)")
	default:
		s = append(s, a.State)
	}
	if a.LastError != "" {
		s = append(s, "last error: "+a.LastError)
	}
	if r := a.Registration; r != nil {
		if r.PCSCF != "" {
			s = append(s, "P-CSCF "+r.PCSCF)
		}
		if r.Expires != nil {
			s = append(s, "expires in "+r.Expires.Sub(now).Round(time.Second).String())
		}
		if len(r.Identities) > 0 {
			s = append(s, "may call as "+strings.Join(r.Identities, ", "))
		}
		s = append(s, "reg event "+r.RegEvent)
	}
	if a.Mode == "as" {
		s = append(s, fmt.Sprintf("%d users registered with the core", a.Presence))
	}
	in := a.Ingress
	for _, n := range []struct {
		count uint64
		what  string
	}{{in.Shed, "requests shed (503)"}, {in.Throttled, "datagrams above peer_rate"}, {in.Strangers, "from strangers"}, {in.Malformed, "malformed"}, {in.Faults, "faults of ours"}} {
		if n.count > 0 {
			s = append(s, fmt.Sprintf("%d %s", n.count, n.what))
		}
	}
	return strings.Join(s, "; ")
}

func ago(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	return now.Sub(*t).Round(time.Second).String()
}

// of is a count and its limit.
func of(n, most int) string {
	if most == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d of %d", n, most)
}

func limit(cps float64) string {
	if cps == 0 {
		return "-"
	}
	return fmt.Sprintf("%g", cps)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
