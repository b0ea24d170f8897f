package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sparkle/bridge"
	"sparkle/bridge/accounts"
	"sparkle/bridge/api/client"
	"sparkle/bridge/lab"
	"sparkle/bridge/lab/load"
	"sparkle/sip/sdp"
)

// loadOptions are the flags of sparkle load.
type loadOptions struct {
	listen, first, codec, quiet, name string
	trunks                            []string
	calls, talkers, onsets, pid, core int
	turn, duration, within            time.Duration
	place, asJSON                     bool
}

func loadCommand() *cobra.Command {
	var o loadOptions
	daemon := &server{}
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Many simulated handsets in a process of their own: what comes back to each, and what it costs",
		Long: "Runs a small IMS core with as many handsets as calls, all voice, driven by one thread with media that was\n" +
			"encoded beforehand. They answer whoever calls them over a trunk: a daemon whose attachment's target is\n" +
			"--listen. With --place the handsets are put into a new conference of that daemon and all are called.\n" +
			"When all calls are up it counts for --duration and says for each leg which frames were missing or late,\n" +
			"where there were gaps, and how long a word takes from one phone to another; and the CPU time of each\n" +
			"process of the daemon, which is found by the socket that the phones' media goes to.",
		Example: "  sparkle load --listen 127.0.0.1:5090 --calls 200 --talkers 3 --codec amr-wb/12.65 --place",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runLoad(cmd, o, daemon)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the core, TCP and UDP")
	f.StringArrayVar(&o.trunks, "trunk", []string{"127.0.0.0/8"}, "who may call: ip, ip:port or prefix")
	f.IntVar(&o.calls, "calls", 10, "handsets, and calls to wait for")
	f.StringVar(&o.first, "first", "+8613900000000", "number of the first handset; the others follow")
	f.StringVar(&o.codec, "codec", "amr-wb/23.85", "amr-wb/12.65, amr-wb/23.85, pcmu or opus (the attachment needs offer_opus)")
	f.IntVar(&o.talkers, "talkers", 3, "how many talk at once")
	f.DurationVar(&o.turn, "turn", 2*time.Second, "how long, before the next ones do")
	f.StringVar(&o.quiet, "quiet", "dtx", "what the others send: dtx, or frames of quiet noise (frames)")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "how long is counted")
	f.IntVar(&o.onsets, "onsets", 10, "how many first words are timed afterwards")
	f.DurationVar(&o.within, "within", time.Minute, "how long calls may take to come up")
	f.BoolVar(&o.place, "place", false, "have the daemon call all of them into a new conference")
	f.StringVar(&o.name, "name", "load", "of that conference")
	f.IntVar(&o.pid, "pid", 0, "the daemon's process, its children are found; 0: the one that the media comes from, on this machine")
	f.IntVar(&o.core, "core", runtime.NumCPU()-1, "core that the generator's thread keeps to; -1: any")
	f.BoolVar(&o.asJSON, "json", false, "one JSON object a leg, then one of all")
	daemon.flags(cmd)
	return cmd
}

// loadSummary is the last object of --json.
type loadSummary struct {
	Legs       int                `json:"legs"`
	Seconds    float64            `json:"seconds"`
	Codec      string             `json:"codec"`
	Talkers    int                `json:"talkers"`
	Frames     uint64             `json:"frames"`
	MissingPct float64            `json:"missing_pct"`
	LatePct    float64            `json:"late_pct"`
	DelayP50   float64            `json:"delay_p50_ms"`
	DelayMax   float64            `json:"delay_max_ms"`
	Unheard    uint64             `json:"unheard"`
	CPU        map[string]float64 `json:"cpu_ms_per_s"` // by process: control, media, video …
	CPUPerLeg  map[string]float64 `json:"cpu_ms_per_s_per_leg"`
	GenLateMax float64            `json:"generator_late_max_ms"`
	GenDropped uint64             `json:"generator_dropped"`
}

// loadLeg is one object of --json.
type loadLeg struct {
	Leg     int     `json:"leg"`
	Frames  uint64  `json:"frames"`
	Missing uint64  `json:"missing"`
	Late    uint64  `json:"late"`
	Lost    uint64  `json:"lost"`
	Gaps    uint64  `json:"gaps"`
	Modes   []int   `json:"modes,omitempty"` // of AMR-WB, that came
	Delay   float64 `json:"delay_mean_ms"`
	DelayMx float64 `json:"delay_max_ms"`
}

func runLoad(cmd *cobra.Command, o loadOptions, daemon *server) error {
	codec, err := loadCodec(o.codec)
	if err != nil {
		return err
	}
	if o.quiet != "dtx" && o.quiet != "frames" {
		return fmt.Errorf("--quiet: %q is neither dtx nor frames", o.quiet)
	}
	first, err := strconv.ParseUint(strings.TrimPrefix(o.first, "+"), 10, 62)
	if err != nil || !strings.HasPrefix(o.first, "+") {
		return fmt.Errorf("--first: %q is not a number with +", o.first)
	}
	if o.duration < time.Second || o.duration > time.Hour {
		return fmt.Errorf("--duration: %v, want 1s to 1h", o.duration)
	}
	if o.core >= runtime.NumCPU() {
		return fmt.Errorf("--core: %d, there are %d", o.core, runtime.NumCPU())
	}
	if _, _, err := processes(o.pid); err != nil {
		return err
	}
	// The generator's thread sleeps in system calls and needs a P at once when it wakes.
	runtime.GOMAXPROCS(runtime.NumCPU() + 2)
	phones, err := load.NewPhones(load.PhonesOptions{Calls: o.calls, Talkers: o.talkers, Turn: o.turn, Codec: codec,
		Always: o.quiet == "frames", Onsets: o.onsets, Realtime: true, Core: o.core})
	if err != nil {
		return err
	}
	defer phones.Close()
	script := lab.Script{Codecs: []sdp.Codec{codec.SDP()}}
	serve := lab.ServeOptions{Core: lab.CoreOptions{Addr: o.listen, TrunkPeers: o.trunks}}
	var numbers []bridge.MemberSpec
	for i := range o.calls {
		number := fmt.Sprintf("+%d", first+uint64(i))
		numbers = append(numbers, bridge.MemberSpec{Number: number, Name: fmt.Sprint("Phone ", i)})
		serve.Handsets = append(serve.Handsets, lab.HandsetOptions{Number: number, Name: fmt.Sprint("Phone ", i), Profile: lab.VolteVoice, Script: &script,
			Media: func(lab.HandsetOptions) (lab.Media, error) { return phones.Voice() }})
	}
	ready := make(chan *lab.Core, 1)
	serve.Ready = func(c *lab.Core, _ []*lab.Handset) { ready <- c }
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- lab.Serve(ctx, serve) }()
	defer func() { cancel(); <-served }()
	select {
	case c := <-ready:
		fmt.Fprintf(cmd.ErrOrStderr(), "%d handsets at %s, %s to +%d\n", o.calls, c.Addr(), o.first, first+uint64(o.calls-1))
	case err := <-served:
		served <- err
		return cmp.Or(err, errors.New("load: the core ended"))
	case <-ctx.Done():
		return ctx.Err()
	}
	if o.place {
		id := ""
		err := daemon.ask(cmd, accounts.AdminScope, func(ctx context.Context, api *client.Client) (err error) {
			ctx, cancel := context.WithTimeout(ctx, o.within)
			defer cancel()
			id, err = placeCalls(ctx, api, o.name, numbers)
			return err
		})
		if err != nil {
			return err
		}
		defer func() {
			_ = daemon.ask(cmd, accounts.AdminScope, func(ctx context.Context, api *client.Client) error {
				return api.DeleteConference(ctx, id)
			})
			_ = await(cmd.Context(), phones, func(up int) bool { return up == 0 }, 5*time.Second) // their goodbyes
		}()
	}
	if err := await(ctx, phones, func(up int) bool { return up >= o.calls }, o.within); err != nil {
		return err
	}
	if o.pid == 0 {
		o.pid = daemonOf(phones.Engine())
	}
	names, pids, err := processes(o.pid)
	if err != nil {
		return err
	}
	r, legs, cpu, err := phones.Measure(o.duration, pids)
	if err != nil {
		return err
	}
	return reportLoad(cmd.OutOrStdout(), o, codec, r, legs, names, cpu)
}

// loadCodec reads the flag.
func loadCodec(v string) (c load.Codec, err error) {
	switch strings.ToLower(v) {
	case "amr-wb/12.65":
		return load.AMRWB(2), nil
	case "amr-wb/23.85", "amr-wb":
		return load.AMRWB(8), nil
	case "pcmu":
		return load.PCMU(), nil
	case "opus":
		return load.Opus(), nil
	}
	return c, fmt.Errorf("--codec: %q is none of amr-wb/12.65, amr-wb/23.85, pcmu, opus", v)
}

// placeCalls makes a conference of all numbers and calls them.
func placeCalls(ctx context.Context, api *client.Client, name string, members []bridge.MemberSpec) (id string, err error) {
	c, err := api.CreateConference(ctx, name, bridge.AudioConference)
	if err != nil {
		return "", err
	}
	for at := 0; at < len(members) && err == nil; at += 200 {
		_, err = api.AddMembers(ctx, c.ID, members[at:min(at+200, len(members))])
	}
	for err == nil { // a trunk whose target has just come is up when its next OPTIONS is answered
		var problem *client.Error
		if _, err = api.Call(ctx, c.ID, bridge.CallRequest{Targets: "all"}); !errors.As(err, &problem) || problem.Code != "attachment_down" {
			break
		}
		select {
		case <-time.After(500 * time.Millisecond):
			err = nil
		case <-ctx.Done():
		}
	}
	if err != nil {
		return "", errors.Join(err, api.DeleteConference(context.WithoutCancel(ctx), c.ID))
	}
	return c.ID, nil
}

// await waits for a number of calls to be up.
func await(ctx context.Context, p *load.Phones, enough func(up int) bool, within time.Duration) error {
	late := time.NewTimer(within)
	defer late.Stop()
	for {
		up, changed := p.Up()
		if enough(up) {
			return nil
		}
		select {
		case <-changed:
		case <-late.C:
			return fmt.Errorf("load: %d calls are up after %v", up, within)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func reportLoad(out io.Writer, o loadOptions, codec load.Codec, r *load.Result, legs []load.LegResult, names []string, cpu []time.Duration) error {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	pct := func(part, all uint64) float64 { return 100 * float64(part) / float64(max(all, 1)) }
	s := loadSummary{Legs: len(legs), Seconds: r.Window.Seconds(), Codec: codec.Name, Talkers: o.talkers, Frames: r.Frames,
		MissingPct: pct(r.Missing, r.Frames+r.Missing), LatePct: pct(r.Late, r.Frames),
		DelayP50: ms(r.Delay.Quantile(0.5)), DelayMax: ms(r.Delay.Max()), Unheard: r.Unheard,
		CPU: map[string]float64{}, CPUPerLeg: map[string]float64{}, GenLateMax: ms(r.GenLate.Max()), GenDropped: r.GenOverflow + r.GenRefused}
	for i, n := range names {
		s.CPU[n] += float64(cpu[i].Microseconds()) / 1000 / s.Seconds
	}
	for n, v := range s.CPU {
		s.CPUPerLeg[n] = v / float64(max(len(legs), 1))
	}
	if o.asJSON {
		enc := json.NewEncoder(out)
		for i, l := range legs {
			if err := enc.Encode(loadLeg{i, l.Frames, l.Missing, l.Late, l.Lost, l.Gaps, l.Modes, ms(l.DelayMean), ms(l.DelayMax)}); err != nil {
				return err
			}
		}
		return enc.Encode(s)
	}
	fmt.Fprintf(out, "%5s %8s %8s %8s %8s %8s %12s %12s\n", "leg", "frames", "missing", "late", "lost", "gaps", "delay ms", "max ms")
	for i, l := range legs {
		fmt.Fprintf(out, "%5d %8d %8d %8d %8d %8d %12.1f %12.1f\n", i, l.Frames, l.Missing, l.Late, l.Lost, l.Gaps, ms(l.DelayMean), ms(l.DelayMax))
	}
	fmt.Fprintf(out, "\n%d legs, %s, %d talk, %.1f s: %d frames, %.3f %% missing, %.3f %% late, in to out %.1f ms (p50), %.1f ms (max)\n",
		s.Legs, s.Codec, s.Talkers, s.Seconds, s.Frames, s.MissingPct, s.LatePct, s.DelayP50, s.DelayMax)
	for _, n := range slices.Sorted(maps.Keys(s.CPU)) {
		fmt.Fprintf(out, "%-8s %8.1f ms CPU a second, %.3f a leg\n", n, s.CPU[n], s.CPUPerLeg[n])
	}
	if len(s.CPU) == 0 {
		fmt.Fprintln(out, "no CPU time: the daemon is on another machine or another user's; --pid names it")
	}
	if s.GenDropped > 0 {
		fmt.Fprintf(out, "the generator lost %d packets itself: they are not the daemon's\n", s.GenDropped)
	}
	return nil
}

// daemonOf is the control process of an engine's: its parent, where the engine has a process of
// its own. 0: unknown.
func daemonOf(engine int) int {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", engine))
	if err != nil {
		return 0
	}
	if f := strings.Split(string(args), "\x00"); len(f) < 2 || f[1] != "media" {
		return engine
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", engine))
	if err != nil {
		return engine
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			if pid, err := strconv.Atoi(strings.TrimSpace(v)); err == nil && pid > 1 {
				return pid
			}
		}
	}
	return engine
}

// processes finds a daemon's tree: names and pids, of control and its children. 0: none.
func processes(pid int) (names []string, pids []int, err error) {
	if pid == 0 {
		return nil, nil, nil
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
		return nil, nil, fmt.Errorf("--pid: there is no process %d", pid)
	}
	names, pids = []string{"control"}, []int{pid}
	for i := 0; i < len(pids); i++ {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		if err != nil {
			return nil, nil, err
		}
		for _, t := range tasks {
			b, err := os.ReadFile(t)
			if err != nil {
				continue // the thread has ended
			}
			for _, child := range strings.Fields(string(b)) {
				n, err := strconv.Atoi(child)
				if err != nil {
					continue
				}
				args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n))
				if err != nil {
					continue
				}
				what := "other"
				if f := strings.Split(string(args), "\x00"); len(f) > 1 && f[1] != "" {
					what = f[1]
				}
				names, pids = append(names, what), append(pids, n)
			}
		}
	}
	return names, pids, nil
}
