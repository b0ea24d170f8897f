package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"sparkle/config"
	"sparkle/media"
	"sparkle/media/video"
)

// mediaOptions is what serve hands to its media process, as JSON on its command line.
type mediaOptions struct {
	Media config.Media
	Video config.Video
	Level slog.Level
}

func mediaCommand() *cobra.Command {
	var socket, options string
	cmd := &cobra.Command{
		Use:    "media",
		Short:  "The media process; serve starts it",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var o mediaOptions
			if err := json.Unmarshal([]byte(options), &o); err != nil {
				return fmt.Errorf("media: --options: %w", err)
			}
			log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: o.Level})).
				With("process", "media")
			opt := config.File{Media: o.Media}.Engine()
			opt.Log = log
			if o.Video.Enabled {
				exe, err := os.Executable()
				if err != nil {
					return err
				}
				opt.Pictures = pictures(video.Options{Command: []string{exe, "video"}, FPS: o.Video.FPS, Stall: o.Video.Stall, Log: log})
			}
			return media.Main(cmd.Context(), socket, opt)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "Unix socket to listen on")
	cmd.Flags().StringVar(&options, "options", "{}", "options as JSON")
	return cmd
}

func videoCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "video",
		Short:  "The video process; media starts it",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return video.Main(cmd.Context()) },
	}
}
