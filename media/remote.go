package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"sparkle/media/mediapb"
)

//go:generate protoc -I .. --go_out=.. --go_opt=module=sparkle --go-grpc_out=.. --go-grpc_opt=module=sparkle media/mediapb/media.proto

// errClosed is what every call answers after Close.
var errClosed = status.Error(codes.Unavailable, "media: the engine is closed")

// Serve offers an engine over gRPC on a Unix socket at path, which only this user may
// open (mode 0600), until ctx ends. A stale socket file of a dead process is replaced;
// a live one is an error.
func Serve(ctx context.Context, path string, engine API) error {
	l, err := Listen(ctx, path)
	if err != nil {
		return err
	}
	return ServeListener(ctx, l, engine)
}

// Listen makes the Unix socket of Serve.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("media: %s exists and is not a socket", filepath.Base(path))
		}
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
		if err == nil {
			c.Close()
			return nil, fmt.Errorf("media: somebody already listens on %s", filepath.Base(path))
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("media: stale socket: %w", err)
		}
	}
	// Bound under another name and only then moved to path: nobody can connect between
	// bind and chmod.
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(tmp)
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", tmp)
	if err != nil {
		return nil, fmt.Errorf("media: listen: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		l.Close()
		_ = os.Remove(tmp)
		return nil, fmt.Errorf("media: socket: %w", err)
	}
	return &unixListener{Listener: l, path: path}, nil
}

// unixListener removes its socket file when closed.
type unixListener struct {
	net.Listener
	path string
}

func (l *unixListener) Close() error {
	_ = os.Remove(l.path)
	return l.Listener.Close()
}

// ServeListener is Serve on a listener, which it closes.
func ServeListener(ctx context.Context, l net.Listener, engine API) error {
	s := grpc.NewServer()
	mediapb.RegisterMediaServer(s, &server{api: engine})
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
		case <-done:
		}
		s.Stop() // streams of events never end by themselves
	}()
	err := s.Serve(l)
	close(done)
	<-stopped
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// server translates between gRPC and API.
type server struct {
	mediapb.UnimplementedMediaServer
	api API
}

func (s *server) SetConference(ctx context.Context, c *mediapb.Conference) (*mediapb.Empty, error) {
	return &mediapb.Empty{}, s.api.SetConference(ctx, c)
}

func (s *server) CloseConference(ctx context.Context, r *mediapb.ConferenceRef) (*mediapb.Empty, error) {
	return &mediapb.Empty{}, s.api.CloseConference(ctx, r.Id)
}

func (s *server) OpenLeg(ctx context.Context, r *mediapb.OpenLegRequest) (*mediapb.OpenLegReply, error) {
	return s.api.OpenLeg(ctx, r)
}

func (s *server) SetLeg(ctx context.Context, l *mediapb.Leg) (*mediapb.Empty, error) {
	return &mediapb.Empty{}, s.api.SetLeg(ctx, l)
}

func (s *server) OpenVideo(ctx context.Context, r *mediapb.LegRef) (*mediapb.OpenLegReply, error) {
	return s.api.OpenVideo(ctx, r.Id)
}

func (s *server) CloseVideo(ctx context.Context, r *mediapb.LegRef) (*mediapb.Empty, error) {
	return &mediapb.Empty{}, s.api.CloseVideo(ctx, r.Id)
}

func (s *server) CloseLeg(ctx context.Context, r *mediapb.LegRef) (*mediapb.LegStats, error) {
	return s.api.CloseLeg(ctx, r.Id)
}

func (s *server) Play(ctx context.Context, r *mediapb.PlayRequest) (*mediapb.Empty, error) {
	return &mediapb.Empty{}, s.api.Play(ctx, r)
}

func (s *server) Preview(ctx context.Context, r *mediapb.PreviewRequest) (*mediapb.PreviewReply, error) {
	return s.api.Preview(ctx, r.Conference, int(r.Quality))
}

func (s *server) Snapshot(ctx context.Context, _ *mediapb.Empty) (*mediapb.SnapshotReply, error) {
	return s.api.Snapshot(ctx)
}

func (s *server) Capture(r *mediapb.CaptureRequest, out grpc.ServerStreamingServer[mediapb.Captured]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	return s.api.Capture(ctx, r, func(c *mediapb.Captured) {
		if out.Send(c) != nil {
			cancel()
		}
	})
}

func (s *server) Events(_ *mediapb.Empty, out grpc.ServerStreamingServer[mediapb.Event]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	return s.api.Events(ctx, func(ev *mediapb.Event) {
		if out.Send(ev) != nil {
			cancel()
		}
	})
}

// Client is an engine in another process. It implements API and is safe for
// concurrent use. Calls fail with UNAVAILABLE while the process is gone and work
// again when it is back.
type Client struct {
	conn *grpc.ClientConn
	rpc  mediapb.MediaClient
}

var _ API = (*Client)(nil)

// Dial makes a client for the engine at a Unix socket. It does not wait for the
// engine; Ready does.
func Dial(path string) (*Client, error) {
	conn, err := grpc.NewClient("passthrough:media", // the address is in the dialer: a path may hold anything
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)), // a Snapshot of thousands of legs
	)
	if err != nil {
		return nil, fmt.Errorf("media: dial: %w", err)
	}
	return &Client{conn: conn, rpc: mediapb.NewMediaClient(conn)}, nil
}

// Ready waits until the engine answers or ctx ends.
func (c *Client) Ready(ctx context.Context) error {
	for {
		c.conn.Connect()
		st := c.conn.GetState()
		if st == connectivity.Ready {
			_, err := c.Snapshot(ctx)
			if err == nil || status.Code(err) != codes.Unavailable {
				return err
			}
		}
		if !c.conn.WaitForStateChange(ctx, st) {
			return fmt.Errorf("media: engine not ready: %w", ctx.Err())
		}
	}
}

// Close ends all calls.
func (c *Client) Close() error { return c.conn.Close() }

// SetConference implements API.
func (c *Client) SetConference(ctx context.Context, m *mediapb.Conference) error {
	_, err := c.rpc.SetConference(ctx, m)
	return err
}

// CloseConference implements API.
func (c *Client) CloseConference(ctx context.Context, id string) error {
	_, err := c.rpc.CloseConference(ctx, &mediapb.ConferenceRef{Id: id})
	return err
}

// OpenLeg implements API.
func (c *Client) OpenLeg(ctx context.Context, r *mediapb.OpenLegRequest) (*mediapb.OpenLegReply, error) {
	return c.rpc.OpenLeg(ctx, r)
}

// SetLeg implements API.
func (c *Client) SetLeg(ctx context.Context, l *mediapb.Leg) error {
	_, err := c.rpc.SetLeg(ctx, l)
	return err
}

// OpenVideo implements API.
func (c *Client) OpenVideo(ctx context.Context, leg string) (*mediapb.OpenLegReply, error) {
	return c.rpc.OpenVideo(ctx, &mediapb.LegRef{Id: leg})
}

// CloseVideo implements API.
func (c *Client) CloseVideo(ctx context.Context, leg string) error {
	_, err := c.rpc.CloseVideo(ctx, &mediapb.LegRef{Id: leg})
	return err
}

// CloseLeg implements API.
func (c *Client) CloseLeg(ctx context.Context, id string) (*mediapb.LegStats, error) {
	return c.rpc.CloseLeg(ctx, &mediapb.LegRef{Id: id})
}

// Play implements API.
func (c *Client) Play(ctx context.Context, r *mediapb.PlayRequest) error {
	_, err := c.rpc.Play(ctx, r)
	return err
}

// Preview implements API.
func (c *Client) Preview(ctx context.Context, conference string, quality int) (*mediapb.PreviewReply, error) {
	if quality < 0 || quality > 100 {
		return nil, status.Errorf(codes.InvalidArgument, "quality: %d is not in 0..100", quality)
	}
	return c.rpc.Preview(ctx, &mediapb.PreviewRequest{Conference: conference, Quality: uint32(quality)})
}

// Snapshot implements API.
func (c *Client) Snapshot(ctx context.Context) (*mediapb.SnapshotReply, error) {
	return c.rpc.Snapshot(ctx, &mediapb.Empty{})
}

// Capture implements API.
func (c *Client) Capture(ctx context.Context, r *mediapb.CaptureRequest, f func(*mediapb.Captured)) error {
	stream, err := c.rpc.Capture(ctx, r)
	if err != nil {
		return err
	}
	for {
		batch, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		f(batch)
	}
}

// Events implements API.
func (c *Client) Events(ctx context.Context, f func(*mediapb.Event)) error {
	stream, err := c.rpc.Events(ctx, &mediapb.Empty{})
	if err != nil {
		return err
	}
	for {
		ev, err := stream.Recv()
		if err != nil {
			return err
		}
		f(ev)
	}
}
