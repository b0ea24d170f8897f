package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"sparkle/bridge"
	"sparkle/bridge/accounts"
	"sparkle/bridge/api"
	"sparkle/bridge/cdr"
	"sparkle/bridge/console"
	"sparkle/bridge/metrics"
	"sparkle/bridge/store"
	"sparkle/config"
	"sparkle/config/doctor"
	"sparkle/media"
	"sparkle/sip"
)

// shutdownCap bounds a clean shutdown: BYE and CANCEL (5 s), then de-registration (5 s).
const shutdownCap = 12 * time.Second

func serveCommand() *cobra.Command {
	var path, profile string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, path)
			if err != nil {
				return err
			}
			stop, err := profileCPU(profile)
			if err != nil {
				return err
			}
			defer stop()
			return serve(cmd.Context(), cfg, os.Getenv("SPARKLE_ADMIN_PASSWORD"), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "configuration file; without it the defaults and the environment hold")
	cmd.Flags().StringVar(&profile, "cpu-profile", "", "write a CPU profile of this process (go tool pprof) to a file")
	_ = cmd.Flags().MarkHidden("cpu-profile") // it is there
	return cmd
}

// profileCPU profiles into a file until stop; without a name it does nothing.
func profileCPU(name string) (stop func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("cpu-profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("cpu-profile: %w", err)
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

// serve is the whole daemon, until ctx ends. Opened first is closed last. What people are
// to read goes to stdout, log lines go to stderr.
func serve(ctx context.Context, cfg config.File, adminPassword string, stdout, stderr io.Writer) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))

	defer noReload(log)()
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	// First, so that a port in use is said before anything else is touched.
	listener, err := net.Listen("tcp", cfg.HTTP.Listen)
	if err != nil {
		return fmt.Errorf("http.listen: %w", err)
	}
	defer listener.Close()

	db, err := store.Open(store.Options{Path: filepath.Join(cfg.DataDir, "sparkle.db")})
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer db.Close()
	people, err := accounts.New(db.DB(), accounts.Options{}, log)
	if err != nil {
		return fmt.Errorf("accounts: %w", err)
	}

	bills, err := openCDR(ctx, cfg, db, log)
	if err != nil {
		return err
	}
	if bills != nil {
		defer func() {
			if err := bills.Close(); err != nil {
				log.Error("charging records", "err", err)
			}
		}()
	}

	ua, err := sip.New(cfg.SIP("Sparkle/"+version()), log)
	if err != nil {
		return fmt.Errorf("sip: %w", err)
	}
	defer closing(ua.Close)

	// The bridge is made after the media process, whose callbacks need it.
	var core struct {
		sync.Mutex
		*bridge.Bridge
	}
	tell := func(f func(*bridge.Bridge)) {
		core.Lock()
		b := core.Bridge
		core.Unlock()
		if b != nil {
			f(b)
		}
	}
	engine, err := startMedia(ctx, cfg, level, stderr, log,
		func(error) { tell((*bridge.Bridge).MediaDown) },
		func(int) { tell((*bridge.Bridge).MediaUp) })
	if err != nil {
		return err
	}
	defer engine.Close()

	deps := bridge.Deps{Caller: ua, Tracer: ua, Media: engine.Client, Store: db, Log: log, Options: cfg.Bridge()}
	if bills != nil {
		deps.Charger = bills
	}
	b, err := bridge.New(deps)
	if err != nil {
		return err
	}
	defer closing(b.Close)
	core.Lock()
	core.Bridge = b
	core.Unlock()

	pages, err := console.Handler("/console/")
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.New(b), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ask := api.Deps{
		Service: b, Accounts: people, Console: pages, Log: log, Hosts: cfg.HTTP.Hosts,
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}
	registry.MustRegister(metrics.NewCertificate(func() time.Time { return doctor.CertificateExpiry(cfg) }))
	if bills != nil {
		registry.MustRegister(metrics.NewCDR(bills))
		ask.CDRs = bills
	}
	handler, err := api.NewHandler(ask)
	if err != nil {
		return err
	}
	// Last, for what is shown once must not be lost with a start that fails.
	printed, created, err := people.EnsureAdmin(ctx, adminPassword)
	if err != nil {
		return fmt.Errorf("accounts: %w", err)
	}
	if created && printed != "" {
		fmt.Fprintf(stdout, "First start: account admin, password %s (shown only now)\n", printed)
	}
	return answer(ctx, cfg, b, api.NewHTTPServer(handler, log), listener, stdout, log)
}

// openCDR opens the charging records and brings them and the database, one of which a crash
// may have left behind the other, to the same legs; nil if there are to be none.
func openCDR(ctx context.Context, cfg config.File, db *store.Store, log *slog.Logger) (*cdr.Writer, error) {
	if !cfg.Charging.Enabled {
		return nil, nil
	}
	o := cfg.CDR()
	o.Log = log
	w, err := cdr.Open(o)
	if err != nil {
		return nil, err
	}
	legs, err := db.Unsettled(ctx, w.Horizon())
	if err == nil {
		if ended := w.Reconcile(legs); len(ended) > 0 {
			err = db.PutLegs(ctx, ended...)
		}
	}
	if err != nil {
		_ = w.Close() // the next start finds again what waits in it
		return nil, fmt.Errorf("cdr: %w", err)
	}
	return w, nil
}

// answer answers until ctx ends or something that must run has ended. The API is up last:
// it answers only when calls can work.
func answer(ctx context.Context, cfg config.File, b *bridge.Bridge, srv *http.Server, l net.Listener, stdout io.Writer, log *slog.Logger) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	// Calls that are waited for after the signal need the engine heard.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	wg.Go(func() { cancel(b.Run(running)) })
	wg.Go(func() { doctor.WatchCertificates(ctx, cfg, log) })
	wg.Go(func() {
		scheme := "http"
		var err error
		if cfg.HTTP.TLSCertFile != "" {
			scheme = "https"
		}
		url := scheme + "://" + l.Addr().String()
		log.Info("serving", "url", url, "version", version())
		fmt.Fprintf(stdout, "Console: %s/console/\n", url)
		if scheme == "https" {
			err = srv.ServeTLS(l, cfg.HTTP.TLSCertFile, cfg.HTTP.TLSKeyFile)
		} else {
			err = srv.Serve(l)
		}
		cancel(err)
	})
	<-ctx.Done()
	if cfg.Calls.Drain > 0 && errors.Is(context.Cause(ctx), context.Canceled) {
		drain(b, cfg.Calls.Drain, log)
	}
	log.Info("shutting down")
	closing(srv.Shutdown)
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// drain waits for the calls that there are, as long as may be; another signal cuts it short.
func drain(b *bridge.Bridge, most time.Duration, log *slog.Logger) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	log.Info("draining: no call begins any more; another signal ends those that there are", "at_most", most)
	if err := b.Drain(ctx); err != nil {
		log.Warn("not all calls ended by themselves", "err", err)
	}
}

// noReload keeps a SIGHUP from ending the daemon and every call.
func noReload(log *slog.Logger) (stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for range hup {
			log.Warn("SIGHUP: nothing is read again; restart the daemon for a new configuration")
		}
	}()
	return func() {
		signal.Stop(hup)
		close(hup)
	}
}

// closing gives f the time that a clean end may take.
func closing(f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownCap)
	defer cancel()
	_ = f(ctx) // what could not be ended in time ends with the process
}

// maxSocketPath is what the kernel takes: sun_path less its NUL.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// startMedia starts the media process, which starts the video process itself.
func startMedia(ctx context.Context, cfg config.File, level slog.Level, stderr io.Writer, log *slog.Logger, down func(error), up func(int)) (*media.Child, error) {
	options, err := json.Marshal(mediaOptions{Media: cfg.Media, Video: cfg.Video, Level: level})
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(cfg.DataDir, "media.sock")
	if n := len(socket) - maxSocketPath; n > 0 {
		return nil, fmt.Errorf("data_dir: %s: %d bytes too long for the path of the socket in it", cfg.DataDir, n)
	}
	// It outlives the signal that ends ctx: BYEs come first, then media.
	return media.StartChild(context.WithoutCancel(ctx), media.ChildOptions{
		Args:   []string{"media", "--socket", socket, "--options", string(options)},
		Socket: socket, Log: log, Stderr: stderr, OnDown: down, OnUp: up,
	})
}
