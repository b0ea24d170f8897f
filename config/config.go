// Package config is the configuration file: its keys, defaults and faults, and how
// they map onto the rooms' Options. A file is whole or it is refused, with every
// fault named at once by line and key.
package config

import (
	"net"
	"strconv"
	"time"

	"sparkle/sip"
)

// File is the configuration file. Every key has a default that works; see
// example.yaml for a sentence about each. Durations are written as 30s, 5m, 1h.
type File struct {
	DataDir     string       `yaml:"data_dir"`
	Log         Log          `yaml:"log"`
	HTTP        HTTP         `yaml:"http"`
	Calls       Calls        `yaml:"calls"`
	Inbound     Inbound      `yaml:"inbound"`
	Media       Media        `yaml:"media"`
	Video       Video        `yaml:"video"`
	Charging    Charging     `yaml:"cdr"`
	Attachments []Attachment `yaml:"attachments"`
}

// Log says what is written to standard error, as JSON lines.
type Log struct {
	Level string `yaml:"level"` // debug | info | warn | error
}

// HTTP is the address of the API and the console.
type HTTP struct {
	Listen      string   `yaml:"listen"`        // host:port; port 0 is any free one
	TLSCertFile string   `yaml:"tls_cert_file"` // PEM; empty: plain HTTP
	TLSKeyFile  string   `yaml:"tls_key_file"`
	Hosts       []string `yaml:"hosts"` // names browsers may call it by; empty: any
}

// Calls holds what is true of every call.
type Calls struct {
	RingTimeout  time.Duration `yaml:"ring_timeout"`           // 5s to 3m
	SetupTimeout time.Duration `yaml:"setup_timeout"`          // 5s to 3m
	Drain        time.Duration `yaml:"drain_timeout"`          // how long SIGTERM waits for calls to end by themselves; 0: not
	RetryAudio   bool          `yaml:"retry_audio_on_decline"` // call by voice who declined a call because it had video
	Country      string        `yaml:"country"`                // ISO 3166: whose emergency numbers are refused; empty: every country's
	Allow        []string      `yaml:"allow"`                  // prefixes of the numbers that may be called; empty: all
	Deny         []string      `yaml:"deny"`                   // prefixes of those that must not be; it wins
	CallingCode  string        `yaml:"calling_code"`           // of numbers typed without one; empty: such numbers are refused
}

// Inbound is what may be called.
type Inbound struct {
	DialIn      []string `yaml:"dial_in"`      // numbers shared by all conferences: the PIN says which one is meant
	FactoryURIs []string `yaml:"factory_uris"` // sip: URIs at which a phone makes a conference (TS 24.147)
	Domain      string   `yaml:"domain"`       // of the conferences' own URIs; empty: the first attachment's
}

// Media is the media process.
type Media struct {
	LocalIP    string        `yaml:"local_ip"` // where RTP is received and what SDP says; empty: the attachment's
	OtherIP    string        `yaml:"other_ip"` // one of the other IP family; empty: none
	PortMin    int           `yaml:"port_min"` // 0 and 0: any free port
	PortMax    int           `yaml:"port_max"`
	Timeout    time.Duration `yaml:"timeout"` // neither RTP nor RTCP for so long: the leg is dropped
	Realtime   bool          `yaml:"realtime"`
	IOUring    bool          `yaml:"io_uring"`    // where the kernel has it
	MaxTalkers int           `yaml:"max_talkers"` // the loudest so many are heard at once
	AGC        bool          `yaml:"agc"`         // a slow gain for each talker
}

// Video is the video process.
type Video struct {
	Enabled bool          `yaml:"enabled"`
	FPS     int           `yaml:"fps"`
	Stall   time.Duration `yaml:"stall"` // no picture for so long: stalled
}

// Charging are the charging records, under data_dir/cdr.
type Charging struct {
	Enabled  bool   `yaml:"enabled"`
	Numbers  string `yaml:"numbers"`   // full | masked
	MaxMB    int    `yaml:"max_mb"`    // of a file; the next begins then, and at midnight UTC
	KeepDays int    `yaml:"keep_days"` // closed files are removed after so many days; 0: never
}

// Attachment is one connection to a carrier.
type Attachment struct {
	Name          string        `yaml:"name"`
	Mode          string        `yaml:"mode"`      // ue | trunk | as
	Transport     string        `yaml:"transport"` // tcp | udp | tls; with an agreement of the first REGISTER only
	LocalAddr     string        `yaml:"local_addr"`
	LocalPort     int           `yaml:"local_port"` // 0: any
	Targets       []Target      `yaml:"targets"`    // best first
	DNS           []string      `yaml:"dns"`        // name servers, host:port; empty: the system's
	TLS           TLS           `yaml:"tls"`
	TrustPeers    []string      `yaml:"trust_peers"`
	Domain        string        `yaml:"domain"`
	PeerDomain    string        `yaml:"peer_domain"` // of numbers in sip: URIs; empty: the domain
	IMPI          string        `yaml:"impi"`
	IMPU          string        `yaml:"impu"`
	Auth          Auth          `yaml:"auth"`
	Challenge     Challenge     `yaml:"challenge"`
	Expires       time.Duration `yaml:"expires"`
	RegState      string        `yaml:"regstate"`   // as: unreg | reg
	OrigRoute     string        `yaml:"orig_route"` // as: param | user
	Trusted       bool          `yaml:"trusted"`    // RFC 3325
	HideCaller    bool          `yaml:"hide_caller"`
	RegEvent      string        `yaml:"reg_event"`          // required | try | off
	Agreement     string        `yaml:"security_agreement"` // ue: off | tls (RFC 3329)
	OptionsEvery  time.Duration `yaml:"options_interval"`   // trunk, as; 0: nobody is asked, all are up
	KeepAlive     time.Duration `yaml:"keep_alive"`         // CRLF on streams; 0: none
	Failover      time.Duration `yaml:"failover_timer"`     // 0: 4 s on UDP, 6 s on streams
	FailoverOn    []int         `yaml:"failover_on"`
	Redirect      bool          `yaml:"follow_redirect"` // 300, 301, 302 within the same network
	DSCP          int           `yaml:"dscp"`            // of SIP; 0: the system's
	NumberForm    string        `yaml:"number_form"`     // tel | sip; by default sip on a trunk
	Preconditions string        `yaml:"preconditions"`   // off | passive | active | required
	Latch         string        `yaml:"latch"`           // off | strict | nat
	NATPrefixes   []string      `yaml:"nat_prefixes"`    // nat: where media may come from
	VideoAVPF     string        `yaml:"video_avpf"`      // capneg | plain_avpf | avp
	OfferG711     bool          `yaml:"offer_g711"`      // by default true on a trunk
	OfferOpus     bool          `yaml:"offer_opus"`
	PANI          string        `yaml:"pani"`            // P-Access-Network-Info; empty: not sent
	SessionExp    time.Duration `yaml:"session_expires"` // RFC 4028: the interval asked for
	MinSE         time.Duration `yaml:"min_se"`          // the shortest one taken
	MaxDuration   time.Duration `yaml:"max_duration"`    // of an answered call; 0: no limit
	IsFocus       bool          `yaml:"isfocus"`
	MaxCalls      int           `yaml:"max_calls"`
	CPS           float64       `yaml:"cps"`         // INVITEs a second; 0: no limit
	PeerRate      float64       `yaml:"peer_rate"`   // SIP messages a second from one address
	InviteRate    float64       `yaml:"invite_rate"` // new INVITEs a second from one address; several share it

	wrong []string // yaml's complaints, until decode has collected them
}

// Target is one peer of an attachment. In the file it may also be its host alone; then its
// place in the list is its priority.
type Target struct {
	Host      string  `yaml:"host"`      // host:port, or a name: NAPTR, SRV, addresses
	Transport string  `yaml:"transport"` // udp | tcp | tls; empty: the attachment's, or what the DNS says
	Priority  int     `yaml:"priority"`  // lower first
	Weight    int     `yaml:"weight"`    // share among equal priorities
	CPS       float64 `yaml:"cps"`       // 0: only the attachment's limit
	MaxCalls  int     `yaml:"max_calls"` // 0: only the attachment's limit

	short bool
}

// TLS is the certificates of an attachment with transport tls, or a security agreement, PEM.
type TLS struct {
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	CAFile     string `yaml:"ca_file"`     // empty: the system's
	ServerName string `yaml:"server_name"` // empty: the targets' hosts

	PeerNames []string `yaml:"peer_names"` // of those that connect to us; empty: server_name, or the targets' hosts
}

// Auth is how an attachment proves who it is. Each secret may be in a file of its own.
type Auth struct {
	Algorithms   []string `yaml:"algorithms"` // AKAv1-MD5, SHA-256 ...: those allowed; empty: what the secret allows
	Password     string   `yaml:"password" secret:"true"`
	PasswordFile string   `yaml:"password_file"`
	K            string   `yaml:"k" secret:"true"` // 32 hex digits
	KFile        string   `yaml:"k_file"`
	OP           string   `yaml:"op" secret:"true"`
	OPFile       string   `yaml:"op_file"`
	OPc          string   `yaml:"opc" secret:"true"`
	OPcFile      string   `yaml:"opc_file"`
	SQNFile      string   `yaml:"sqn_file"`
	Realm        string   `yaml:"realm"` // empty: the domain; *: any
	BareFirst    bool     `yaml:"bare_first"`
	Outbound     bool     `yaml:"outbound"` // reg-id in Contact, Supported: outbound (RFC 5626)
}

// Challenge is the proof that a trunk asks of who begins something; empty: none.
type Challenge struct {
	Username     string   `yaml:"username"`
	Password     string   `yaml:"password" secret:"true"`
	PasswordFile string   `yaml:"password_file"`
	Realm        string   `yaml:"realm"`      // empty: the domain
	Algorithms   []string `yaml:"algorithms"` // of SHA-512-256, SHA-256, MD5; empty: SHA-256 and MD5
}

// Default is the configuration of an empty file. It runs: the API on loopback, no
// attachment, so calls are refused with attachment_down until one is added.
func Default() File {
	return File{
		DataDir: "/var/lib/sparkle",
		Log:     Log{Level: "info"},
		HTTP:    HTTP{Listen: "127.0.0.1:8080"},
		Calls: Calls{
			RingTimeout:  60 * time.Second,
			SetupTimeout: 60 * time.Second,
			Country:      "CN",
			CallingCode:  "+86",
		},
		Media: Media{
			PortMin: 40000, PortMax: 49999,
			Timeout:    20 * time.Second,
			Realtime:   true,
			IOUring:    true,
			MaxTalkers: 8,
		},
		Video:    Video{Enabled: true, FPS: 15, Stall: 10 * time.Second},
		Charging: Charging{Enabled: true, Numbers: "full", MaxMB: 16},
	}
}

// DefaultAttachment is what the keys of an attachment of a mode are when they are not given:
// phones behind a peer's CS breakout want G.711, and a peer our numbers in its own domain.
func DefaultAttachment(mode string) Attachment {
	trunk, form := mode == "trunk", "tel"
	if trunk {
		form = "sip"
	}
	return Attachment{
		Mode:          mode,
		Transport:     "tcp",
		LocalAddr:     "127.0.0.1",
		Expires:       600000 * time.Second, // TS 24.229 §5.1.1.2
		RegEvent:      "try",
		Agreement:     sip.AgreeOff,
		RegState:      "unreg",
		OrigRoute:     "param",
		Trusted:       true,
		OptionsEvery:  30 * time.Second,
		KeepAlive:     2 * time.Minute,
		FailoverOn:    []int{503},
		MaxCalls:      1000,
		CPS:           20,
		PeerRate:      2000,
		InviteRate:    200,
		NumberForm:    form,
		OfferG711:     trunk,
		Preconditions: "passive",
		Latch:         "off",
		VideoAVPF:     "capneg",
		SessionExp:    1800 * time.Second,
		MinSE:         90 * time.Second,
		MaxDuration:   24 * time.Hour,
	}
}

// Sealed is the attachment as all but its first REGISTERs goes out: where a security agreement begins
// in clear, TLS is one port above that of tcp or udp (RFC 3261 §19.1.2: 5060 and 5061), on both
// sides. begun is that transport, "" where all goes as the attachment says.
func (a Attachment) Sealed() (sealed Attachment, begun string) {
	if a.Agreement != sip.AgreeTLS || a.Transport == "tls" {
		return a, ""
	}
	begun, a.Transport = a.Transport, "tls"
	if a.LocalPort != 0 {
		a.LocalPort++
	}
	targets := a.Targets
	a.Targets = nil
	for _, t := range targets {
		t.Transport = ""
		if host, port, err := net.SplitHostPort(t.Host); err == nil {
			n, _ := strconv.Atoi(port) // checked on load
			t.Host = net.JoinHostPort(host, strconv.Itoa(n+1))
		}
		a.Targets = append(a.Targets, t)
	}
	return a, begun
}
