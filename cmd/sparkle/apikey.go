package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sparkle/bridge/accounts"
	"sparkle/bridge/store"
)

func apikeyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "apikey", Short: "Keys for programs that use the API"}
	var path, scopes string
	create := &cobra.Command{
		Use:   "new NAME",
		Short: "Make a key and print it once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(cmd, path)
			if err != nil {
				return err
			}
			db, err := store.Open(store.Options{Path: filepath.Join(cfg.DataDir, "sparkle.db")})
			if err != nil {
				return fmt.Errorf("store: %w", err)
			}
			defer db.Close()
			people, err := accounts.New(db.DB(), accounts.Options{}, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			var want []accounts.Scope
			for s := range strings.SplitSeq(scopes, ",") {
				want = append(want, accounts.Scope(strings.TrimSpace(s)))
			}
			key, err := people.NewAPIKey(cmd.Context(), args[0], want...)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), key)
			return nil
		},
	}
	create.Flags().StringVarP(&path, "config", "c", "", "configuration file")
	create.Flags().StringVar(&scopes, "scopes", "conf:read,conf:write,call:dial,member:whisper", "what it may do; admin for everything")
	cmd.AddCommand(create)
	return cmd
}
