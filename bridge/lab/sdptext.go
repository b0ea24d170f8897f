package lab

import (
	"fmt"
	"strconv"
	"strings"
)

// description is a session description taken apart by lines, to write the next one of
// a session as a phone does: the same, a bit changed.
type description struct {
	session []string
	media   [][]string // each begins with its m-line
}

func splitSDP(b []byte) description {
	var d description
	for _, l := range strings.Split(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n") {
		switch {
		case l == "":
		case strings.HasPrefix(l, "m="):
			d.media = append(d.media, []string{l})
		case len(d.media) == 0:
			d.session = append(d.session, l)
		default:
			d.media[len(d.media)-1] = append(d.media[len(d.media)-1], l)
		}
	}
	return d
}

func (d description) bytes() []byte {
	lines := append([]string(nil), d.session...)
	for _, m := range d.media {
		lines = append(lines, m...)
	}
	return []byte(strings.Join(lines, "\r\n") + "\r\n")
}

// raise increases the version of o= (RFC 3264 §8).
func (d description) raise() {
	for i, l := range d.session {
		f := strings.Fields(l)
		if strings.HasPrefix(l, "o=") && len(f) == 6 {
			if v, err := strconv.ParseUint(f[2], 10, 64); err == nil {
				f[2] = strconv.FormatUint(v+1, 10)
				d.session[i] = strings.Join(f, " ")
			}
		}
	}
}

func kind(section []string) string {
	k, _, _ := strings.Cut(strings.TrimPrefix(section[0], "m="), " ")
	return k
}

func refusedSection(section []string) bool {
	f := strings.Fields(section[0])
	return len(f) > 1 && f[1] == "0"
}

// direct gives a section a direction.
func direct(section []string, dir string) []string {
	var out []string
	for _, l := range section {
		switch l {
		case "a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive":
		default:
			out = append(out, l)
		}
	}
	return append(out, "a="+dir)
}

// closed is a section with port 0.
func closedSection(section []string) []string {
	f := strings.Fields(section[0])
	if len(f) < 4 {
		return section
	}
	f[1] = "0"
	return []string{strings.Join(f, " ")}
}

// qosLines are the preconditions of a phone whose own bearer is not up yet; remote is
// what it knows of the caller's (RFC 3312 §5).
func qosLines(local, remote string) []string {
	l := []string{
		"a=curr:qos local " + local, "a=curr:qos remote " + remote,
		"a=des:qos mandatory local sendrecv", "a=des:qos mandatory remote sendrecv",
	}
	if remote != "sendrecv" {
		l = append(l, "a=conf:qos remote sendrecv")
	}
	return l
}

// videoSection is what a handset's phone offers for video when the call had none that
// it could have answered: level 1.2 portrait, as handsets do.
func videoSection(port int) []string {
	return []string{
		fmt.Sprintf("m=video %d RTP/AVP 115", port),
		"b=AS:416", "b=RS:8000", "b=RR:6000",
		"a=tcap:1 RTP/AVPF", "a=pcfg:1 t=1",
		"a=rtpmap:115 H264/90000", "a=fmtp:115 profile-level-id=42C00C;packetization-mode=1",
		"a=imageattr:115 send [x=240,y=320] recv [x=240,y=320]",
		"a=rtcp-fb:* nack pli", "a=rtcp-fb:* ccm fir", "a=extmap:4 urn:3gpp:video-orientation",
		"a=sendrecv",
	}
}
