package api

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

type stopKey struct{}

// stopping is closed when the server begins to shut down; nil (never) elsewhere.
func stopping(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(stopKey{}).(chan struct{})
	return c
}

// NewHTTPServer is a server with the limits that a public port needs: 5 s for the
// headers, 30 s for the body, 64 KiB of headers. Its Shutdown ends event streams at
// once and waits for the rest.
func NewHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	stop := make(chan struct{})
	var once sync.Once
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // scanners' noise
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), stopKey{}, stop)
		},
	}
	srv.RegisterOnShutdown(func() { once.Do(func() { close(stop) }) })
	return srv
}
