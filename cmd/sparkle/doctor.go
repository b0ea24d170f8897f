package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"sparkle/config"
	"sparkle/config/doctor"
)

func doctorCommand() *cobra.Command {
	var path, output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine this machine and its way to the carrier",
		Long: "Examine this machine and its way to the carrier: configuration, clock, limits, disk, ports, codecs, certificates,\n" +
			"names, and one OPTIONS to every peer. Run it as the daemon's user.\n" +
			"Exit code 0: nothing is wrong (warnings are not). 1: something is. 2: usage, or a faulty configuration.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path, os.Environ())
			var faults config.Faults
			var found []doctor.Finding
			switch {
			case errors.As(err, &faults):
				found = doctor.Faulty(faults)
			case err != nil:
				fmt.Fprintln(cmd.ErrOrStderr(), "sparkle:", err)
				return exitError(exitUsage)
			default:
				found = doctor.Examine(cmd.Context(), cfg)
			}
			if output == "json" {
				err = printJSON(cmd.OutOrStdout(), found)
			} else {
				err = doctor.WriteText(cmd.OutOrStdout(), found)
			}
			switch {
			case err != nil:
				return err
			case faults != nil:
				return exitError(exitUsage)
			case doctor.Worst(found) == doctor.Fail:
				return exitError(exitFailed)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "configuration file; without it the defaults and the environment hold")
	formatFlag(cmd, &output, "table", "json")
	return cmd
}
