package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sparkle/bridge/lab"
	"sparkle/bridge/lab/demo"
	"sparkle/bridge/lab/ims"
	"sparkle/bridge/lab/phone"
)

func labCommand() *cobra.Command {
	var (
		listen                        string
		kamailio                      bool
		trunks, handsets, subscribers []string
	)
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run the simulated IMS core and handsets alone, for another daemon or SIPp",
		Long: "Runs a small IMS core and handsets on loopback. Without --handset the eight phones of the demo are there.\n" +
			"A handset is number,profile[,name]; a subscriber is the identity of a daemon or SIPp that registers\n" +
			"(impi,impu,algorithm,secrets).\n" +
			"With --kamailio the core is a real one: Kamailio's P-, I- and S-CSCF (Debian's packages) with an HSS. What is\n" +
			"printed is a configuration for `sparkle serve`, with a port that is not the lab's.",
		Example: "  sparkle lab --listen 127.0.0.1:5060 --trunk 127.0.0.1 --handset +8613800138001,volte-video,Alice\n" +
			"  sparkle lab --subscriber 100@ims.test,sip:100@ims.test,sha-256,secret",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := lab.ServeOptions{
				Core: lab.CoreOptions{Addr: listen, TrunkPeers: trunks, Log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))},
				Out:  cmd.OutOrStdout(),
			}
			for _, text := range handsets {
				h, err := lab.ParseHandset(text)
				if err != nil {
					return err
				}
				o.Handsets = append(o.Handsets, h)
			}
			for _, text := range subscribers {
				s, err := lab.ParseSubscriber(text)
				if err != nil {
					return err
				}
				o.Subscribers = append(o.Subscribers, s)
			}
			roster := o.Handsets
			if roster == nil {
				roster = lab.DemoRoster()
			}
			o.Media = demo.Phones(roster, phone.Options{})
			if kamailio {
				return ims.Serve(cmd.Context(), o)
			}
			return lab.Serve(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:0", "address of the core, TCP and UDP")
	f.BoolVar(&kamailio, "kamailio", false, "a real core instead of the simulated one")
	f.StringArrayVar(&trunks, "trunk", nil, "peer that may call without registration: ip, ip:port or prefix")
	f.StringArrayVar(&handsets, "handset", nil, "number,profile[,name]")
	f.StringArrayVar(&subscribers, "subscriber", nil, "impi,impu,md5|sha-256,password or impi,impu,akav1-md5,K,OPc")
	return cmd
}

func demoCommand() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Start the daemon with the lab, call eight phones, show what each hears and sees",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			o.Program, o.Out = exe, cmd.OutOrStdout()
			kept, err := hushCodecs()
			if err != nil {
				return err
			}
			cmd.Root().SetErr(kept)
			if f, ok := o.Out.(*os.File); ok {
				info, err := f.Stat()
				o.Table = err == nil && info.Mode()&os.ModeCharDevice != 0
			}
			ok, err := demo.Run(cmd.Context(), o)
			switch {
			case errors.Is(err, context.Canceled) && !o.Once: // Ctrl-C is how a demo ends
				return nil
			case err != nil:
				return err
			case !ok:
				return exitError(1)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Once, "once", false, "end when everything is judged: exit code 0 if all held")
	f.BoolVar(&o.JSON, "json", false, "one JSON object a line and member")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:0", "address of the API and the console")
	f.StringVar(&o.Dir, "dir", "", "keep the daemon's data and log here")
	return cmd
}

// hushCodecs takes file descriptor 2 away from C libraries: the handsets' openh264 writes
// warnings to it that would break the table. What Go writes, crashes included, still goes
// to standard error.
func hushCodecs() (stderr *os.File, err error) {
	fd, err := unix.Dup(2)
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	stderr = os.NewFile(uintptr(fd), "stderr")
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return stderr, errors.Join(debug.SetCrashOutput(stderr, debug.CrashOptions{}), unix.Dup2(int(null.Fd()), 2))
}
