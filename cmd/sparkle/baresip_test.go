package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/lab"
	"sparkle/bridge/lab/demo"
	"sparkle/bridge/lab/phone"
)

// baresip is a phone of somebody else: AMR-WB, octet-aligned only, by opencore and
// vo-amrwbenc, and H.264 by libavcodec. Its microphone and camera are files, its loudspeaker
// is recorded, and its screen can be photographed.
type baresip struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	ctrl string        // address of its control socket
	done chan struct{} // closed when it has ended
}

// baresipAccount is how it registers.
type baresipAccount struct {
	impu, user, password string
	proxy                string // ip:port
}

// startBaresip starts one that answers by itself, and waits until it is registered. speaker
// is whom it sounds and looks like.
func startBaresip(t *testing.T, a baresipAccount, speaker int) *baresip {
	t.Helper()
	bin, err := exec.LookPath("baresip")
	modules, _ := filepath.Glob("/usr/lib/baresip/modules") // Debian's place; the pattern is good
	if err != nil || len(modules) == 0 {
		t.Skip("NOT RUN: baresip is not installed (make test installs it); no phone of somebody else hears and sees us then")
	}
	if _, err := os.Stat(filepath.Join(modules[0], "avcodec.so")); err != nil {
		t.Skip("NOT RUN: baresip-ffmpeg is not installed (make test installs it): baresip has no H.264 then")
	}
	sipPort, err := lab.SparePort()
	ctrlPort, err2 := lab.SparePort()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	b := &baresip{t: t, dir: t.TempDir(), ctrl: fmt.Sprintf("127.0.0.1:%d", ctrlPort), done: make(chan struct{})}
	b.material(speaker)
	b.write("accounts", []byte(fmt.Sprintf("<%s;transport=tcp>;auth_user=%s;auth_pass=%s;outbound=\"sip:%s;transport=tcp\";regint=600;"+
		"answermode=auto;audio_codecs=AMR-WB/16000/1;video_codecs=H264\n", a.impu, a.user, a.password, a.proxy)))
	b.write("contacts", nil)
	b.write("config", []byte(fmt.Sprintf(`poll_method epoll
sip_listen 127.0.0.1:%[1]d
net_interface 127.0.0.1
audio_source aufile,%[2]s/voice.wav
audio_player aubridge,nobody
audio_alert aubridge,nobody
ausrc_srate 16000
auplay_srate 16000
ausrc_channels 1
auplay_channels 1
video_source avformat,%[2]s/camera.avi
video_display fakevideo,nil
video_size 240x320
video_bitrate 256000
video_fps 15
rtcp_mux no
jitter_buffer_delay 1-5
module_path %[3]s
module amr.so
module aufile.so
module aubridge.so
module sndfile.so
module avcodec.so
module avformat.so
module swscale.so
module fakevideo.so
module snapshot.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen %[4]s
snd_path %[2]s
`, sipPort, b.dir, modules[0], b.ctrl)))
	log, err := os.Create(filepath.Join(b.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	b.cmd = exec.Command(bin, "-f", b.dir)
	b.cmd.Dir = b.dir
	b.cmd.Stdout, b.cmd.Stderr = log, log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(b.done); _ = b.cmd.Wait() }()
	t.Cleanup(b.stop)
	return b
}

func (b *baresip) write(name string, data []byte) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// material is what its microphone and camera take.
func (b *baresip) material(speaker int) {
	b.t.Helper()
	voice, err := phone.SpeechWAV(speaker, time.Minute)
	camera, err2 := phone.CameraY4M(speaker)
	if err := errors.Join(err, err2); err != nil {
		b.t.Fatal(err)
	}
	b.write("voice.wav", voice)
	b.write("camera.y4m", camera)
	// Five seconds of pictures, and its own way of showing them again does not work: a minute.
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		b.t.Skip("NOT RUN: ffmpeg is not installed (make test installs it)")
	}
	cmd := exec.Command(ffmpeg, "-v", "error", "-stream_loop", "11", "-i", "camera.y4m", "-c:v", "mjpeg", "-q:v", "3", "camera.avi")
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
}

// stop lets it say goodbye.
func (b *baresip) stop() {
	_ = b.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-b.done:
	case <-time.After(5 * time.Second):
		_ = b.cmd.Process.Kill()
		<-b.done
	}
	if b.t.Failed() {
		text, _ := os.ReadFile(filepath.Join(b.dir, "log"))
		var said []string
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, "efps=") { // its running display
				said = append(said, line)
			}
		}
		b.t.Logf("baresip says:\n%s", strings.Join(said, ""))
	}
}

// order has it do something: JSON in a netstring, as its module ctrl_tcp wants.
func (b *baresip) order(command, params string) error {
	c, err := net.DialTimeout("tcp", b.ctrl, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	text, err := json.Marshal(map[string]string{"command": command, "params": params, "token": command})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "%d:%s,", len(text), text); err != nil {
		return err
	}
	// Events come on the same socket; the answer is the one with our token.
	for r := bufio.NewReader(c); ; {
		var n int
		if _, err := fmt.Fscanf(r, "%d:", &n); err != nil || n < 0 || n > 1<<16 {
			return fmt.Errorf("answer to %s: length %d, %w", command, n, err)
		}
		answer := make([]byte, n+1) // and the comma
		for got := 0; got < len(answer); {
			k, err := r.Read(answer[got:])
			if err != nil {
				return err
			}
			got += k
		}
		var v struct {
			Response bool
			OK       bool
			Data     string
			Token    string
		}
		if err := json.Unmarshal(answer[:n], &v); err != nil {
			return fmt.Errorf("answer to %s: %w", command, err)
		}
		if v.Response && v.Token == command {
			if !v.OK {
				return fmt.Errorf("%s: %s", command, v.Data)
			}
			return nil
		}
	}
}

// says whether its log has a text.
func (b *baresip) says(text string) bool {
	said, _ := os.ReadFile(filepath.Join(b.dir, "log")) // not there yet: nothing
	return strings.Contains(string(said), text)
}

// heard is who speaks in what came out of its loudspeaker, after the call.
func (b *baresip) heard(names []string) ([]phone.Heard, error) {
	files, err := filepath.Glob(filepath.Join(b.dir, "dump-*-dec.wav"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("recordings %v, %v", files, err)
	}
	file, err := os.ReadFile(files[0])
	if err != nil {
		return nil, err
	}
	return phone.HeardInWAV(file, names)
}

// screen is what it shows now.
func (b *baresip) screen() (image.Image, error) {
	file := filepath.Join(b.dir, "screen.png")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := b.order("snapshot_recv", file); err != nil { // with the next picture that comes
		return nil, err
	}
	var last error
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); <-tick.C {
		f, err := os.Open(file)
		if err != nil {
			last = err
			continue
		}
		img, err := png.Decode(f)
		f.Close()
		if err == nil {
			return img, nil
		}
		last = err // it is still being written
	}
	return nil, last
}

const baresipNumber = "+15550100003"

// A phone that nobody of us wrote is called, answers by itself, and is a member like any
// other: the handset hears and sees it, it hears and sees the handset. It registers with
// the lab's core, and with a real one.
func TestBaresip(t *testing.T) {
	t.Parallel()
	roster := []lab.HandsetOptions{{Number: "+15550100001", Name: "Alice", Profile: lab.VolteVideo}, {Number: baresipNumber, Name: "Baresip"}}
	factory := demo.Phones(roster, phone.Options{})
	alice := roster[0]
	alice.Media = factory
	t.Run("lab core", func(t *testing.T) {
		t.Parallel()
		n := startNetwork(t)
		a, s := subscribeBaresip(n.core.Domain(), n.core.Addr().String())
		if err := n.core.AddSubscriber(s.IMPI, s.IMPU, s.Auth); err != nil {
			t.Fatal(err)
		}
		h, err := n.core.AddHandset(alice)
		if err != nil {
			t.Fatal(err)
		}
		b := startBaresip(t, a, 1)
		meetBaresip(t, b, h, n.ue(), func() bool { return n.core.Registered(s.IMPU) })
	})
	t.Run("Kamailio", func(t *testing.T) {
		t.Parallel()
		c := startIMS(t)
		a, s := subscribeBaresip(c.Domain(), c.PCSCF().String())
		if err := c.AddSubscriber(s); err != nil {
			t.Fatal(err)
		}
		h, err := c.AddHandset(alice)
		if err != nil {
			t.Fatal(err)
		}
		b := startBaresip(t, a, 1)
		meetBaresip(t, b, h, imsAttachment(t, c), func() bool { return c.HSS().Registered(s.IMPU) })
	})
}

// subscribeBaresip is its subscription. Its first REGISTER has no Authorization: the network
// makes the private identity of the public one (TS 23.003 13.4B).
func subscribeBaresip(domain, proxy string) (baresipAccount, lab.Subscriber) {
	impu := lab.IMPU(baresipNumber, domain)
	impi := strings.TrimPrefix(impu, "sip:")
	const password = "geheim"
	return baresipAccount{impu: impu, user: impi, password: password, proxy: proxy},
		lab.Subscriber{IMPI: impi, IMPU: impu, Auth: lab.Auth{Password: password}}
}

// awaitBaresip waits for its registration.
func awaitBaresip(t *testing.T, b *baresip, registered func() bool) {
	t.Helper()
	eventually(t, "registration of baresip", func() error {
		if !b.says("200 OK") || !registered() {
			return errors.New("it is not registered")
		}
		return nil
	})
}

// hearsAndSees waits until the handset hears and sees somebody, and nobody else.
func hearsAndSees(t *testing.T, h *lab.Handset, who string) {
	t.Helper()
	began, p := time.Now(), h.Media().(*phone.Phone)
	eventually(t, h.Name()+" hearing and seeing "+who, func() error {
		heard, seen := p.Heard(began), p.Seen(began, []string{who})
		if len(heard) != 1 || heard[0].Who != who || !slices.Contains(seen.Moving, who) {
			return fmt.Errorf("heard %+v, seen %+v", heard, seen)
		}
		return nil
	})
}

// sees waits until baresip shows a picture with somebody's name in it.
func sees(t *testing.T, b *baresip, who string) (shown image.Image) {
	t.Helper()
	eventually(t, "baresip seeing "+who, func() (err error) {
		if shown, err = b.screen(); err != nil {
			return err
		}
		if names := phone.NamesIn(shown, []string{who}); len(names) != 1 {
			return fmt.Errorf("in a picture of %v", shown.Bounds().Size())
		}
		return nil
	})
	return shown
}

// meetBaresip is the conference.
func meetBaresip(t *testing.T, b *baresip, h *lab.Handset, attachment string, registered func() bool) {
	t.Helper()
	awaitBaresip(t, b, registered)
	d := startDaemon(t, attachment+"video: {fps: 10}\n")
	d.ready()
	room := d.conference(bridge.VideoConference)
	alice, other := d.invite(room, h.Number(), "Alice"), d.invite(room, baresipNumber, "Baresip")
	d.call(room, bridge.CallRequest{Targets: "all"})
	d.await(room, alice, "the conference", in)
	m := d.await(room, other, "the conference", in)
	if a := m.Leg.Media.Audio; a == nil || a.Codec != "AMR-WB" {
		t.Errorf("audio is %+v", a)
	}
	if v := m.Leg.Media.Video; v == nil || v.Codec != "H264" {
		t.Fatalf("video is %+v: %v", v, m.Leg.Media.WhyNoVideo)
	}
	began := time.Now()
	hearsAndSees(t, h, "Baresip")
	shown := sees(t, b, "Alice")
	m = d.await(room, other, "the conference", in)
	if v := m.Leg.Media.Video; shown.Bounds().Dx() != v.Width || shown.Bounds().Dy() != v.Height {
		t.Errorf("baresip shows %v, agreed was %d×%d", shown.Bounds().Size(), v.Width, v.Height)
	}
	if wait := 11*time.Second - time.Since(began); wait > 0 {
		<-time.After(wait) // until the handset has had its turn to speak
	}
	if err := d.api.Hangup(t.Context(), room, other); err != nil {
		t.Fatal(err)
	}
	d.ended(room, other, bridge.HungUp)
	eventually(t, "baresip's recording", func() error {
		heard, err := b.heard([]string{"Alice", "Baresip"})
		if err != nil {
			return err
		}
		if len(heard) != 1 || heard[0].Who != "Alice" {
			return fmt.Errorf("baresip heard %+v", heard)
		}
		return nil
	})
}

// A phone dials the daemon's number through a real core, is asked for the PIN, types it and
// is in: the handset that was called hears it. Its number is what the P-CSCF asserts.
func TestBaresipDialsIn(t *testing.T) {
	t.Parallel()
	c := startIMS(t)
	a, s := subscribeBaresip(c.Domain(), c.PCSCF().String())
	if err := c.AddSubscriber(s); err != nil {
		t.Fatal(err)
	}
	roster := []lab.HandsetOptions{{Number: "+15550100001", Name: "Alice", Profile: lab.VolteVideo}, {Number: baresipNumber, Name: "Baresip"}}
	alice := roster[0]
	alice.Media = demo.Phones(roster, phone.Options{})
	h, err := c.AddHandset(alice)
	if err != nil {
		t.Fatal(err)
	}
	b := startBaresip(t, a, 1)
	awaitBaresip(t, b, func() bool { return c.HSS().Registered(s.IMPU) })
	d := startDaemon(t, imsAttachment(t, c)+fewPictures+fmt.Sprintf("inbound: {dial_in: [%q]}\n", imsNumber))
	d.ready()
	room := d.conference(bridge.VideoConference)
	conf, err := d.api.Conference(t.Context(), room)
	if err != nil {
		t.Fatal(err)
	}
	first := d.invite(room, h.Number(), "Alice")
	d.numbers = append(d.numbers, baresipNumber)
	d.call(room, bridge.CallRequest{Targets: "all"})
	d.await(room, first, "the conference", in)
	if err := b.order("dial", "sip:"+imsNumber+"@"+c.Domain()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the call", func() error {
		if !b.says("Call established") {
			return errors.New("it is not established")
		}
		return nil
	})
	for _, key := range conf.PIN { // as fingers do; baresip forgets a key when the next one comes
		<-time.After(250 * time.Millisecond)
		if err := b.order("sndcode", string(key)); err != nil {
			t.Fatal(err)
		}
	}
	var m bridge.Member
	eventually(t, "the caller's row", func() error {
		members, err := d.api.Members(t.Context(), room)
		if err != nil {
			return err
		}
		for _, x := range members {
			if x.Number == baresipNumber && in(x) {
				m = x
				return nil
			}
		}
		return fmt.Errorf("there are %+v", members)
	})
	if m.Leg.Direction != "inbound" || m.Leg.Media.Audio == nil || m.Leg.Media.Audio.Codec != "AMR-WB" {
		t.Errorf("leg %+v", m.Leg)
	}
	if v := m.Leg.Media.Video; v == nil || v.Codec != "H264" {
		t.Errorf("video is %+v: %v", v, m.Leg.Media.WhyNoVideo)
	}
	hearsAndSees(t, h, "Baresip")
	sees(t, b, "Alice")
	if err := b.order("hangup", ""); err != nil {
		t.Fatal(err)
	}
	d.ended(room, m.ID, bridge.Left)
}
