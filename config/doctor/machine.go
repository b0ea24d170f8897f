package doctor

import (
	"bufio"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sparkle/config"
	"sparkle/sip"
)

// What a machine should have.
const (
	filesPerLeg  = 6         // two or four sockets, and SIP's share
	rtPriority   = 20        // of the media process's threads
	lockedBytes  = 256 << 20 // what the media process may map
	rcvDefault   = 212_992   // Linux's own default; less loses packets of a burst
	freeWarn     = 1 << 30
	freeFail     = 100 << 20
	clockWarn    = 100 * time.Millisecond // traces of two machines no longer match
	certWarn     = 30 * 24 * time.Hour
	capIPCLock   = 14
	capSysNice   = 23
	rlimitRTPrio = unix.RLIMIT_RTPRIO
)

// machine looks at the clock and at what the kernel grants.
func (r *report) machine(cfg config.File) {
	r.clock()
	legs := wantedLegs(cfg)
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		r.warn("open files", "", "not known: %v", err)
	} else if need := uint64(legs*filesPerLeg + 200); files.Max < need {
		r.warn("open files", fmt.Sprintf("LimitNOFILE=%d in the unit, or ulimit -n", need), "%d at most; %d legs need about %d", files.Max, legs, need)
	} else {
		r.ok("open files", "%d at most, enough for %d legs", files.Max, legs)
	}
	caps := capabilities()
	switch prio, err := limit(rlimitRTPrio); {
	case !cfg.Media.Realtime:
		r.ok("real-time priority", "not wanted: media.realtime is false")
	case caps>>capSysNice&1 == 1 || err == nil && prio >= rtPriority:
		r.ok("real-time priority", "granted: audio does not wait for other programs")
	default:
		r.warn("real-time priority", "AmbientCapabilities=CAP_SYS_NICE or LimitRTPRIO=20 in the unit", "not granted: audio is late while other programs are busy")
	}
	switch mem, err := limit(unix.RLIMIT_MEMLOCK); {
	case !cfg.Media.Realtime:
	case caps>>capIPCLock&1 == 1 || err == nil && mem >= lockedBytes:
		r.ok("locked memory", "granted")
	default:
		r.warn("locked memory", "LimitMEMLOCK=infinity in the unit", "%d KiB at most: audio may wait for swap", mem>>10)
	}
	switch n, err := sysctl("net/core/rmem_default"); {
	case err != nil:
		r.warn("udp buffers", "", "not known: %v", err)
	case n < rcvDefault:
		r.warn("udp buffers", fmt.Sprintf("sysctl -w net.core.rmem_default=%d", rcvDefault), "net.core.rmem_default is %d: bursts of video are lost", n)
	default:
		r.ok("udp buffers", "net.core.rmem_default is %d", n)
	}
}

// clock asks the kernel how well the clock is disciplined (adjtimex(2)); nothing is set.
func (r *report) clock() {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		r.warn("clock", "", "not known: %v", err)
		return
	}
	const timeError = 5
	unsynced := t.Status&unix.STA_UNSYNC != 0 || state == timeError
	most := time.Duration(t.Maxerror) * time.Microsecond
	switch {
	case unsynced:
		r.warn("clock", "run chrony, systemd-timesyncd or ntpd, and check that it reaches a server", "not synchronised: times in traces and charging records may be wrong")
	case most > clockWarn:
		r.warn("clock", "look at `chronyc tracking` or `timedatectl timesync-status`", "synchronised, but may be wrong by %v", most)
	default:
		r.ok("clock", "synchronised, wrong by %v at most, drift %.1f ppm", most, float64(t.Freq)/65536)
	}
}

// wantedLegs is how many calls the configuration lets be at once.
func wantedLegs(cfg config.File) int {
	n := 0
	for _, a := range cfg.Attachments {
		if a.MaxCalls == 0 {
			n += 500
		}
		n += a.MaxCalls
	}
	return max(n, 100)
}

func limit(resource int) (uint64, error) {
	var l unix.Rlimit
	err := unix.Getrlimit(resource, &l)
	return l.Max, err
}

// capabilities are those in effect, 0 if they are not known.
func capabilities() uint64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return n
		}
	}
	return 0
}

func sysctl(name string) (int, error) {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// dataDir writes and syncs a file where the database and the charging records go.
func (r *report) dataDir(cfg config.File) {
	const own = "make it, owned by the daemon's user, or change data_dir"
	dir := cfg.DataDir
	for { // the daemon makes what is missing
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		r.fail("data_dir", own, "cannot be written: %v", err)
		return
	}
	_, err = f.Write([]byte("sparkle doctor\n"))
	err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
	if err != nil {
		r.fail("data_dir", own, "cannot be written: %v", err)
		return
	}
	if n := len(filepath.Join(cfg.DataDir, "media.sock")) - (len(syscall.RawSockaddrUnix{}.Path) - 1); n > 0 {
		r.fail("data_dir", "choose a shorter path", "%d bytes too long for the path of the socket in it", n)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		r.warn("data_dir", "", "free space not known: %v", err)
		return
	}
	free := fs.Bavail * uint64(fs.Bsize)
	switch {
	case free < freeFail:
		r.fail("data_dir", "make room: nothing can be stored on a full disk", "%s has %d MiB free", dir, free>>20)
	case free < freeWarn:
		r.warn("data_dir", "make room: charging records and history grow", "%s has %d MiB free", dir, free>>20)
	default:
		r.ok("data_dir", "%s can be written, %.1f GiB free", dir, float64(free)/(1<<30))
	}
}

// reachable is a listening address as one connects to it.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// ports binds each port for a moment. up: a daemon has them.
func (r *report) ports(cfg config.File, up bool) {
	if l, err := net.Listen("tcp", cfg.HTTP.Listen); err == nil {
		l.Close()
		r.ok("port http", "%s is free", cfg.HTTP.Listen)
	} else if up {
		r.ok("port http", "%s is the running daemon's", cfg.HTTP.Listen)
	} else {
		r.fail("port http", "stop who has it, or change http.listen", "%v", err)
	}
	if host, _, err := net.SplitHostPort(cfg.HTTP.Listen); err == nil && cfg.HTTP.TLSCertFile == "" {
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && !ip.IsLoopback() {
			r.warn("http without TLS", "set http.tls_cert_file, or listen on loopback behind a proxy", "passwords and keys go over the network in clear")
		}
	}
	r.management(cfg)
	held := map[string]string{} // by socket: whose
	for i, o := range cfg.SIP("").Attachments {
		for _, l := range o.Listens() {
			defer r.sipPort(cfg.Attachments[i], l, up, held)()
		}
	}
	r.rtpPorts(cfg)
}

// management sees whether the API is where the carrier is.
func (r *report) management(cfg config.File) {
	host, _, err := net.SplitHostPort(cfg.HTTP.Listen)
	if err != nil {
		return
	}
	ip, err := netip.ParseAddr(host)
	if err == nil && ip.IsLoopback() || len(cfg.Attachments) == 0 {
		return
	}
	do := "set http.listen to an address that the carrier does not reach"
	if host == "" || err == nil && ip.IsUnspecified() {
		r.warn("http and the carrier", do, "http.listen %s: every address of this machine, the carrier's side too", cfg.HTTP.Listen)
		return
	}
	for _, a := range cfg.Attachments {
		if own, bad := netip.ParseAddr(a.LocalAddr); err == nil && bad == nil && own.Unmap() == ip.Unmap() {
			r.warn("http and the carrier", do, "http.listen %s is the address of attachment %s", cfg.HTTP.Listen, a.Name)
		}
	}
}

// sipPort binds a socket, and holds it until release: two attachments cannot have one.
func (r *report) sipPort(a config.Attachment, l sip.Listening, up bool, held map[string]string) (release func()) {
	check, at := "port "+a.Name, net.JoinHostPort(a.LocalAddr, strconv.Itoa(l.Port))
	network := "tcp"
	if l.Transport == "udp" {
		network = "udp"
	}
	release = func() {}
	if other := held[network+at]; other != "" && l.Port != 0 {
		r.fail(check, "give one of them another local_port", "%s %s is attachment %s's too", l.Transport, at, other)
		return release
	}
	held[network+at] = a.Name
	var c io.Closer
	var err error
	if network == "udp" {
		c, err = net.ListenPacket("udp", at)
	} else {
		c, err = net.Listen("tcp", at)
	}
	switch {
	case err == nil:
		release = func() { c.Close() }
		r.ok(check, "%s %s can be bound", l.Transport, at)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		r.fail(check, "set local_addr to an address of this machine (`ip addr`)", "%s is no address of this machine", a.LocalAddr)
	case errors.Is(err, syscall.EADDRINUSE) && up:
		r.ok(check, "%s %s is the running daemon's", l.Transport, at)
	default:
		r.fail(check, "stop who has it, or change local_port", "%v", err)
	}
	return release
}

// rtpSample is how many ports of the range are tried.
const rtpSample = 200

// mediaIPs are the addresses that media is received at; without an attachment and one of its own, any.
func mediaIPs(cfg config.File) (ips []string) {
	o := cfg.Bridge()
	for _, a := range cfg.Attachments {
		ips = append(ips, o.LocalIP(a.LocalAddr), o.OtherIP(a.LocalAddr))
	}
	ips = append(ips, o.MediaIP, o.OtherMediaIP)
	slices.Sort(ips)
	if ips = slices.Compact(ips); ips[0] == "" {
		ips = ips[1:]
	}
	if len(ips) == 0 {
		return []string{""}
	}
	return ips
}

// rtpPorts compares the range with the calls that may be, and tries some of it.
func (r *report) rtpPorts(cfg config.File) {
	lo, hi := cfg.Media.PortMin, cfg.Media.PortMax
	ips := mediaIPs(cfg)
	for _, ip := range ips {
		c, err := net.ListenPacket("udp", net.JoinHostPort(ip, "0"))
		if err != nil {
			r.fail("rtp ports", "set media.local_ip and media.other_ip to addresses of this machine", "%v", err)
			return
		}
		c.Close()
	}
	if lo == 0 && hi == 0 {
		r.ok("rtp ports", "any free one: a firewall must let all of them through")
		return
	}
	per := 2
	if cfg.Video.Enabled {
		per = 4
	}
	legs, want := (hi-lo+1)/per, wantedLegs(cfg)
	tried, taken := 0, 0
	step := max((hi-lo+1)/rtpSample, 1)
	for port := lo; port <= hi; port += step {
		tried++
		c, err := net.ListenPacket("udp", net.JoinHostPort(ips[0], strconv.Itoa(port)))
		if err != nil { // it is taken: see above
			taken++
			continue
		}
		c.Close()
	}
	switch {
	case legs < want:
		r.warn("rtp ports", "widen media.port_min and port_max, or lower max_calls", "%d to %d are enough for %d legs, the attachments may have %d", lo, hi, legs, want)
	case taken*2 > tried:
		r.warn("rtp ports", "choose a range that nobody else uses", "%d of %d ports tried are taken", taken, tried)
	default:
		r.ok("rtp ports", "%d to %d: enough for %d legs; %d of %d ports tried are free", lo, hi, legs, tried-taken, tried)
	}
}

// expiry judges a certificate's time; the first of a file is the leaf.
func (r *report) expiry(check string, cert *x509.Certificate, now time.Time) {
	left := cert.NotAfter.Sub(now)
	switch day := cert.NotAfter.UTC().Format(time.DateOnly); {
	case now.Before(cert.NotBefore):
		r.fail(check, "check the clock, or wait", "not valid before %s", cert.NotBefore.UTC().Format(time.DateOnly))
	case left < 0:
		r.fail(check, "renew it", "expired on %s", day)
	case left < certWarn:
		r.warn(check, "renew it", "expires on %s, in %d days", day, int(left.Hours()/24))
	default:
		r.ok(check, "valid until %s", day)
	}
}
