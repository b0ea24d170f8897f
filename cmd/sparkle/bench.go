package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sparkle/bridge/lab/churn"
	"sparkle/bridge/lab/load"
	"sparkle/config"
	"sparkle/media"
)

func benchCommand() *cobra.Command {
	var asJSON bool
	var suite load.Suite
	var calls churn.Suite
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure calls, and the media engine: CPU, delay, lateness, memory",
		Long: "Measure the media engine in a process of its own, under simulated phones: CPU time,\n" +
			"frames missing and late, delay, lateness of its tick, memory, and the mosaic. Then a\n" +
			"whole daemon under calls that SIPp answers (Debian package sip-tester): failures,\n" +
			"set-up time, CPU time by call, and the pace of a call to everybody. All in five minutes.\n\n" +
			"conf-dtx, conf-speech, rooms10-*, pairs and conf-pcmu are the cases that have goals, in AMR-WB 12.65.\nCases: " +
			strings.Join(benchCases(), ", ") + ".",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bench(cmd.Context(), suite, calls, asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:    "busy SOCKET",
		Short:  "Keep an engine and all cores busy until standard input ends; bench starts it",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return busy(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	cmd.Flags().StringSliceVar(&suite.Only, "only", nil, "run these cases only, as conf-dtx,mosaic")
	cmd.Flags().BoolVar(&suite.All, "all", false, "the cases of AMR-WB 23.85 and the larger mosaics as well")
	cmd.Flags().DurationVar(&suite.Window, "window", 5*time.Second, "how long each case is counted")
	cmd.Flags().IntVar(&calls.Rate, "rate", 50, "calls a second")
	cmd.Flags().StringVar(&calls.Profile, "cpu-profile", "", "of the daemon, per case: this name and the case's")
	cmd.Flags().DurationVar(&calls.For, "for", time.Minute, "how long calls are placed; half of it, how long they come in")
	cmd.Flags().BoolVar(&suite.Limits, "limits", false, "how many legs one core carries in each case that has a goal (about 20 minutes)")
	cmd.Flags().BoolVar(&suite.Realtime, "realtime", true, "ask for real-time priority, for the engine and the generator")
	return cmd
}

func benchCases() []string { return slices.Concat(load.Cases(), churn.Cases()) }

// bench runs both suites, the cases in suite.Only or all.
func bench(ctx context.Context, suite load.Suite, calls churn.Suite, asJSON bool, stdout, stderr io.Writer) error {
	var unknown error
	only := suite.Only
	for _, name := range only {
		if !slices.Contains(benchCases(), name) {
			unknown = errors.Join(unknown, fmt.Errorf("bench: no case %q; there are %s", name, strings.Join(benchCases(), ", ")))
		}
	}
	without := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(only), func(n string) bool { return slices.Contains(names, n) || !slices.Contains(benchCases(), n) })
	}
	suite.Only, calls.Only = without(churn.Cases()), without(load.Cases())
	dir, err := os.MkdirTemp("", "sparkle-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n := 0
	suite.Start = func(ctx context.Context, video bool) (load.Process, error) {
		n++
		return benchMedia(ctx, filepath.Join(dir, fmt.Sprint(n, ".sock")), video, suite.Realtime, stderr)
	}
	suite.Busy = startBusy
	calls.Dir = dir
	if calls.Program, err = os.Executable(); err != nil {
		return err
	}
	if err := errors.Join(unknown, suite.Validate(), calls.Validate()); err != nil {
		return err
	}
	// Where others were named, a suite without names has nothing to do.
	wanted := func(names []string) bool { return len(only) == 0 || len(names) > 0 }
	// The generator's thread sleeps in system calls and needs a P at once when it wakes.
	runtime.GOMAXPROCS(runtime.NumCPU() + 2)
	if asJSON {
		out := json.NewEncoder(stdout)
		var written, failed error
		if wanted(suite.Only) {
			failed = suite.Run(ctx, func(r load.Row) { written = errors.Join(written, out.Encode(r)) })
		}
		if wanted(calls.Only) && !suite.Limits && ctx.Err() == nil {
			failed = errors.Join(failed, calls.Run(ctx, func(r churn.Row) { written = errors.Join(written, out.Encode(r)) }))
		}
		return errors.Join(failed, written)
	}
	fmt.Fprintf(stdout, "%d cores (%s), %s, load before %s\n", runtime.NumCPU(), cpuModel(), runtime.Version(), loadAverage())
	if wanted(suite.Only) {
		table := load.Table{W: stdout}
		err = suite.Run(ctx, table.Row)
		fmt.Fprint(stdout, "\n", load.References)
	}
	if wanted(calls.Only) && !suite.Limits && ctx.Err() == nil {
		table := churn.Table{W: stdout}
		err = errors.Join(err, calls.Run(ctx, table.Row))
	}
	return err
}

// benchMedia starts a media process as serve does, with the defaults of the configuration.
func benchMedia(ctx context.Context, socket string, video, realtime bool, stderr io.Writer) (load.Process, error) {
	cfg := config.Default()
	cfg.Media.Realtime, cfg.Video.Enabled = realtime, video
	cfg.Media.PortMin, cfg.Media.PortMax = 0, 0 // any: a daemon may be running here
	options, err := json.Marshal(mediaOptions{Media: cfg.Media, Video: cfg.Video, Level: slog.LevelError})
	if err != nil {
		return nil, err
	}
	child, err := media.StartChild(ctx, media.ChildOptions{
		Args: []string{"media", "--socket", socket, "--options", string(options)}, Socket: socket, Stderr: stderr,
	})
	if err != nil {
		return nil, err
	}
	return benchProcess{child, socket}, nil
}

// benchProcess is a media process that others can talk to as well.
type benchProcess struct {
	*media.Child
	socket string
}

// startBusy starts the busy process. It ends with its standard input, also when we die.
func startBusy(ctx context.Context, p load.Process) (stop func() (load.BusyCount, error), err error) {
	b, ok := p.(benchProcess)
	if !ok {
		return nil, fmt.Errorf("bench: %T has no socket", p)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, "bench", "busy", b.socket)
	var out, faults bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &faults
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() (n load.BusyCount, err error) {
		in.Close()
		if err := cmd.Wait(); err != nil {
			return n, fmt.Errorf("bench: busy: %w: %s", err, bytes.TrimSpace(faults.Bytes()))
		}
		if err := json.Unmarshal(out.Bytes(), &n); err != nil {
			return n, fmt.Errorf("bench: busy: %w", err)
		}
		return n, nil
	}, nil
}

// busy is the busy process.
func busy(ctx context.Context, socket string, stdin io.Reader, stdout io.Writer) error {
	client, err := media.Dial(socket)
	if err != nil {
		return err
	}
	defer client.Close()
	b, err := load.StartBusy(ctx, client, runtime.NumCPU())
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	b.Close()
	return errors.Join(err, json.NewEncoder(stdout).Encode(b.Count()))
}

// cpuModel and loadAverage say on what the figures were measured; "unknown" where the
// kernel does not tell.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if name, model, ok := strings.Cut(in.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return "unknown"
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}
