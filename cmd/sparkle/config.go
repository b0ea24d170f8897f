package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"sparkle/config"
	"sparkle/config/interop"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at a configuration without starting anything"}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check FILE",
			Short: "Say everything that is wrong with it, by line and key",
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if _, err := loadConfig(cmd, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
				return nil
			},
		},
		&cobra.Command{
			Use:   "print [FILE]",
			Short: "Print the configuration in force, defaults and environment included, secrets redacted",
			Args:  cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				path := ""
				if len(args) == 1 {
					path = args[0]
				}
				cfg, err := loadConfig(cmd, path)
				if err != nil {
					return err
				}
				text, err := config.Print(cfg)
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			},
		},
		&cobra.Command{
			Use:   "interop [FILE]",
			Short: "Print what a carrier's questionnaire asks: one page an attachment, in Markdown",
			Long:  "Print what a carrier's questionnaire asks: one page an attachment, in Markdown. Files of secrets and certificates\nneed not be there yet.",
			Args:  cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				path := ""
				if len(args) == 1 {
					path = args[0]
				}
				cfg, err := loadPlan(cmd, path)
				if err != nil {
					return err
				}
				if len(cfg.Attachments) == 0 {
					return errors.New("no attachment is configured: there is nothing to say to a carrier")
				}
				return interop.Write(cmd.OutOrStdout(), cfg, "Sparkle/"+version())
			},
		},
		&cobra.Command{
			Use:   "example",
			Short: "Print the commented example",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := cmd.OutOrStdout().Write(config.Example)
				return err
			},
		},
	)
	return cmd
}

// loadConfig prints every fault as "file:line: key: text", so that an editor can jump
// to it, and exits with 2.
func loadConfig(cmd *cobra.Command, path string) (config.File, error) {
	cfg, err := config.Load(path, os.Environ())
	return cfg, printFaults(cmd, path, err)
}

// loadPlan is loadConfig of what is not to be run yet: the carrier asks before there are secrets
// and certificates, and who writes the answer need not be one who may read them.
func loadPlan(cmd *cobra.Command, path string) (config.File, error) {
	cfg, unread, err := config.Plan(path, os.Environ())
	for _, f := range unread {
		printFault(cmd, path, "warning: ", f)
	}
	return cfg, printFaults(cmd, path, err)
}

func printFaults(cmd *cobra.Command, path string, err error) error {
	var faults config.Faults
	if !errors.As(err, &faults) {
		return err
	}
	for _, f := range faults {
		printFault(cmd, path, "", f)
	}
	return exitError(2)
}

func printFault(cmd *cobra.Command, path, weight string, f config.Fault) {
	where := path
	if f.Line == 0 {
		where = "(default or environment)"
	}
	if f.Line > 0 {
		where = fmt.Sprintf("%s:%d", path, f.Line)
		f.Line = 0
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s%s\n", where, weight, f)
}
