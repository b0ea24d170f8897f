package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sparkle/media"
	"sparkle/media/codec/h264"
	"sparkle/media/codec/yuv"
	"sparkle/media/mediapb"
	"sparkle/media/rtp"
	"sparkle/media/video/rtp264"
)

// VideoOptions is one video conference: every member sends a moving picture, encoded
// once beforehand and replayed, and all receive the mosaic in one tier of the same size.
type VideoOptions struct {
	API           media.API
	PID           int // of the media process, 0: this one
	Members       int // 1..16
	Width, Height int
	FPS           int           // 0: 15
	Warm          time.Duration // 0: 4 s, in which every source has sent a key frame
	Window        time.Duration // 0: 6 s
	Conference    string        // "": "video"
}

// Validate reports every fault.
func (o VideoOptions) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("load: "+format, args...)) }
	if o.API == nil {
		bad("no engine")
	}
	if o.Members < 1 || o.Members > 16 {
		bad("%d video members, want 1..16", o.Members)
	}
	if o.Width < 32 || o.Height < 32 || o.Width > h264.MaxWidth || o.Height > h264.MaxHeight || o.Width%2+o.Height%2 != 0 {
		bad("picture of %dx%d", o.Width, o.Height)
	}
	if o.FPS < 0 || o.FPS > 30 {
		bad("%d frames per second", o.FPS)
	}
	if o.PID < 0 || o.Warm < 0 || o.Window < 0 {
		bad("pid %d, warm %v, window %v", o.PID, o.Warm, o.Window)
	}
	return errors.Join(errs...)
}

func (o VideoOptions) withDefaults() VideoOptions {
	if o.FPS == 0 {
		o.FPS = 15
	}
	if o.Warm == 0 {
		o.Warm = mosaicWarm
	}
	if o.Window == 0 {
		o.Window = 6 * time.Second
	}
	if o.Conference == "" {
		o.Conference = "video"
	}
	return o
}

// VideoResult is what a mosaic cost.
type VideoResult struct {
	Window            time.Duration
	Composed, Encoded uint64
	// Received is how many pictures the leg with the fewest got, Missing how many packets
	// did not come, of all legs.
	Received, Missing uint64
	Tiles             int
	DecodeErrors      uint64
	CPU               time.Duration // of the video process
	MediaCPU          time.Duration // of the media process: depacketising, packetising, sockets
	RSS               int64         // of the video process at the end
	PID               int           // of the video process
}

// bitrate of a phone's encoder and of the mosaic, at a picture size.
func bitrate(w, h int) int {
	if w*h > 352*288 {
		return 1_000_000
	}
	return 384_000
}

// level is the profile-level-id that carries a picture size at 30 frames per second.
func level(w, h int) string {
	switch {
	case w*h <= 320*240:
		return "42c00d"
	case w*h <= 720*576:
		return "42c01e"
	}
	return "42c028"
}

// clipSeconds is how long a source is before it repeats, with a key frame.
const clipSeconds = 3

type videoPacket struct {
	payload []byte
	last    bool
}

// newClip encodes a speaker-like picture: a still, textured background, and a head that
// moves.
func newClip(w, h, fps int) ([][]videoPacket, error) {
	enc, err := h264.NewEncoder(h264.Params{Width: w, Height: h, FPS: fps, BitrateBps: bitrate(w, h) * 2 / 3, ProfileLevelID: level(w, h)})
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer enc.Close()
	img := yuv.New(w, h)
	pack := rtp264.Packetizer{Mode: 1}
	clip := make([][]videoPacket, clipSeconds*fps)
	for n := range clip {
		draw(img, float64(n)/float64(fps))
		au, key, err := enc.Encode(img, int64(n*1000/fps))
		if err != nil {
			return nil, fmt.Errorf("load: source: %w", err)
		}
		if n == 0 && !key {
			return nil, errors.New("load: source does not begin with a key frame")
		}
		err = pack.Packetize(au, func(p []byte, last bool) error {
			clip[n] = append(clip[n], videoPacket{append([]byte(nil), p...), last})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("load: source: %w", err)
		}
	}
	return clip, nil
}

// draw paints the picture at t seconds.
func draw(m *yuv.Image, t float64) {
	cx := float64(m.Width) * (0.5 + 0.08*math.Sin(2*t))
	cy := float64(m.Height) * (0.5 + 0.05*math.Sin(3*t))
	rx, ry := float64(m.Width)*0.2, float64(m.Height)*0.35
	for y := range m.Height {
		row := m.Y[y*m.YStride : y*m.YStride+m.Width]
		for x := range row {
			dx, dy := (float64(x)-cx)/rx, (float64(y)-cy)/ry
			if d := dx*dx + dy*dy; d < 1 {
				row[x] = byte(200 - 90*d + 10*math.Sin(20*dx)*math.Sin(15*dy+6*t))
			} else {
				row[x] = byte(70 + (x*7+y*13)%32 + x*40/m.Width)
			}
		}
	}
	for y := range m.Height / 2 {
		for x := range m.Width / 2 {
			m.U[y*m.CStride+x] = byte(110 + x*20/m.Width)
			m.V[y*m.CStride+x] = byte(130 + y*20/m.Height)
		}
	}
}

// VideoLoad is a running video conference. StartVideo makes one, Close ends it.
type VideoLoad struct {
	o         VideoOptions
	rtp, rtcp *net.UDPConn
	clip      [][]videoPacket
	to        []*net.UDPAddr
	byPort    map[uint16]*viewer // not changed once the reader runs
	viewers   []viewer
	stop      atomic.Bool
	wg        sync.WaitGroup
}

// viewer counts what one member receives.
type viewer struct {
	pictures, missing atomic.Uint64
	seq               uint16 // the reader's
	seen              bool
}

// StartVideo opens the conference and lets its members send.
func StartVideo(ctx context.Context, o VideoOptions) (*VideoLoad, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	clip, err := newClip(o.Width, o.Height, o.FPS)
	if err != nil {
		return nil, err
	}
	v := &VideoLoad{o: o, clip: clip, byPort: map[uint16]*viewer{}, viewers: make([]viewer, o.Members)}
	local := net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	if v.rtp, err = net.ListenUDP("udp4", &local); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if v.rtcp, err = net.ListenUDP("udp4", &local); err != nil {
		v.rtp.Close()
		return nil, fmt.Errorf("load: %w", err)
	}
	_ = v.rtp.SetReadBuffer(rxWant) // smaller is no error: what overflows is missing
	if err := v.open(ctx); err != nil {
		v.Close()
		return nil, err
	}
	v.wg.Go(v.send)
	v.wg.Go(v.receive)
	v.wg.Go(func() { discard(v.rtcp) })
	return v, nil
}

func (v *VideoLoad) open(ctx context.Context) error {
	o := v.o
	if err := o.API.SetConference(ctx, &mediapb.Conference{Id: o.Conference, Video: true}); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	for i := range o.Members {
		id := LegID(o.Conference, i)
		reply, err := o.API.OpenLeg(ctx, &mediapb.OpenLegRequest{Conference: o.Conference, Leg: id, LocalIp: "127.0.0.1", Video: true})
		if err != nil {
			return fmt.Errorf("load: open video leg %d: %w", i, err)
		}
		v.to = append(v.to, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(reply.VideoPort)})
		v.byPort[uint16(reply.VideoPort)] = &v.viewers[i]
		err = o.API.SetLeg(ctx, &mediapb.Leg{Id: id, Name: fmt.Sprint("Member ", i+1), Present: true, Video: &mediapb.VideoStream{
			Remote:      &mediapb.Remote{Ip: "127.0.0.1", Port: udpPort(v.rtp), RtcpPort: udpPort(v.rtcp)},
			PayloadType: 114, PacketizationMode: 1, ProfileLevelId: level(o.Width, o.Height),
			Width: uint32(o.Width), Height: uint32(o.Height), Fps: uint32(o.FPS), BitrateBps: uint32(bitrate(o.Width, o.Height)),
			Send: true, Recv: true, FbPli: true, FbFir: true,
		}})
		if err != nil {
			return fmt.Errorf("load: set video leg %d: %w", i, err)
		}
	}
	return nil
}

func udpPort(c *net.UDPConn) uint32 { return uint32(c.LocalAddr().(*net.UDPAddr).Port) }

// Close ends the conference and waits for what it started.
func (v *VideoLoad) Close() {
	v.stop.Store(true)
	_ = v.o.API.CloseConference(context.Background(), v.o.Conference)
	v.rtp.Close()
	v.rtcp.Close()
	v.wg.Wait()
}

// send plays the clip from every member: in turn within a frame's time, and each a part
// of the clip later than the one before, so that key frames do not come together.
func (v *VideoLoad) send() {
	o := v.o
	step := int64(time.Second) / int64(o.FPS*o.Members)
	buf := make([]byte, rtp.HeaderSize+rtp264.MaxPayload+200)
	seq := make([]uint16, o.Members)
	start := clock(unix.CLOCK_MONOTONIC)
	for n := 0; ; n++ {
		for k := range o.Members {
			sleepUntil(start + int64(n*o.Members+k)*step)
			if v.stop.Load() {
				return
			}
			at := n - k*len(v.clip)/o.Members
			if at < 0 {
				continue
			}
			ts := uint32(int64(n) * 90000 / int64(o.FPS))
			for _, p := range v.clip[at%len(v.clip)] {
				rtp.PutHeader(buf, p.last, 114, seq[k], ts, uint32(1000+k))
				seq[k]++
				size := rtp.HeaderSize + copy(buf[rtp.HeaderSize:], p.payload)
				_, _ = v.rtp.WriteTo(buf[:size], v.to[k]) // a refused packet is a lost one
			}
		}
	}
}

func (v *VideoLoad) receive() {
	buf := make([]byte, 2048)
	var h rtp.Packet
	for {
		n, from, err := v.rtp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		w := v.byPort[from.Port()]
		if err != nil || w == nil || h.Parse(buf[:n]) != nil {
			continue
		}
		if step := int16(h.Seq - w.seq); w.seen && step > 1 {
			w.missing.Add(uint64(step - 1))
		}
		w.seq, w.seen = h.Seq, true
		if h.Marker {
			w.pictures.Add(1)
		}
	}
}

// discard reads reports and requests until c is closed: the sources repeat key frames.
func discard(c *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		if _, _, err := c.ReadFromUDPAddrPort(buf); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// mosaicWarm is until every source has sent a key frame.
const mosaicWarm = 4 * time.Second

// Measure waits until the conference has warmed up and then measures a window.
func (v *VideoLoad) Measure(ctx context.Context) (*VideoResult, error) {
	if err := wait(ctx, v.o.Warm); err != nil {
		return nil, err
	}
	a, err := v.look(ctx)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, v.o.Window); err != nil {
		return nil, err
	}
	b, err := v.look(ctx)
	if err != nil {
		return nil, err
	}
	if a.room.GetPid() != b.room.GetPid() {
		return nil, fmt.Errorf("load: the video process %d ended while it was measured", a.room.GetPid())
	}
	r := &VideoResult{
		Window: b.at.Sub(a.at), CPU: b.cpu - a.cpu, MediaCPU: b.mediaCPU - a.mediaCPU,
		Composed: b.room.GetFramesComposed() - a.room.GetFramesComposed(),
		Encoded:  b.room.GetFramesEncoded() - a.room.GetFramesEncoded(),
		Tiles:    int(b.room.GetTiles()), DecodeErrors: b.room.GetDecodeErrors(), PID: int(b.room.GetPid()),
		Received: math.MaxUint64,
	}
	for i := range b.pictures {
		r.Received = min(r.Received, b.pictures[i]-a.pictures[i])
		r.Missing += b.missing[i] - a.missing[i]
	}
	r.RSS, err = RSS(r.PID)
	return r, err
}

// sight is what can be seen at one instant.
type sight struct {
	at                time.Time
	cpu, mediaCPU     time.Duration
	room              *mediapb.VideoRoomStats
	pictures, missing []uint64
}

func (v *VideoLoad) look(ctx context.Context) (s sight, err error) {
	snap, err := v.o.API.Snapshot(ctx)
	if err != nil {
		return s, fmt.Errorf("load: %w", err)
	}
	for _, c := range snap.GetConferences() {
		if c.GetId() == v.o.Conference {
			s.room = c.GetVideo()
		}
	}
	if s.room == nil {
		return s, errors.New("load: the engine tells nothing of the mosaic")
	}
	s.at = time.Now()
	if s.cpu, err = CPU(int(s.room.GetPid())); err != nil {
		return s, err
	}
	if s.mediaCPU, err = CPU(v.o.PID); err != nil {
		return s, err
	}
	for i := range v.viewers {
		s.pictures = append(s.pictures, v.viewers[i].pictures.Load())
		s.missing = append(s.missing, v.viewers[i].missing.Load())
	}
	return s, nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
