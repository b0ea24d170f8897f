package video

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"sparkle/media/codec/h264"
	"sparkle/media/video/mosaic"
	"sparkle/media/video/worker"
)

// Main is a video process: what `sparkle video` runs. It is started by a Plane with
// a connection as file descriptor 3 and its options in the environment. Fonts and
// codecs are loaded first; then the process gives up files, network and new
// programs, as far as the kernel can take them, and serves until the connection
// ends. It logs JSON to stderr.
func Main(ctx context.Context) error {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("process", "video", "pid", os.Getpid())
	var opt childOptions
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &opt); err != nil {
		return errors.New("video: this process is started by the media process, not by hand")
	}
	if opt.FPS < 1 || opt.FPS > 30 {
		return fmt.Errorf("video: %d pictures per second", opt.FPS)
	}
	if err := syscall.SetNonblock(3, true); err != nil {
		return fmt.Errorf("video: file descriptor 3: %w", err)
	}
	conn := os.NewFile(3, "media process")
	fonts := mosaic.LoadFonts(opt.Fonts, log)
	if _, err := h264.Probe(); err != nil {
		return err
	}
	if d, err := h264.NewDecoder(); err != nil { // libavcodec initialises itself
		return err
	} else {
		d.Close()
	}
	have, lacking := confine(opt.MemoryBytes)
	for _, l := range lacking {
		log.Warn("video process is less confined", "why", l)
	}
	return worker.Run(ctx, conn, worker.Options{FPS: opt.FPS, Fonts: fonts, Log: log, Sandbox: have, Lacking: lacking})
}
