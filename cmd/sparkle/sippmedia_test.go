package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math"
	"os"
	"path/filepath"
	"testing"

	"sparkle/media/codec/g711"
	"sparkle/media/dtmf"
	"sparkle/media/rtp"
)

var rewriteMedia = flag.Bool("rewrite", false, "write what SIPp plays into testdata/sipp/media")

// What SIPp plays is what this code makes, to the octet.
func TestSIPpMedia(t *testing.T) {
	for name, want := range map[string][]byte{
		"tone.alaw":       tone(),
		"keys-amrwb.pcap": capture(keys("12#")),
		"pin-amrwb.pcap":  capture(keys(sippPIN)),
	} {
		file := filepath.Join("..", "..", "testdata", "sipp", "media", name)
		if *rewriteMedia {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what this code makes (%v); run it with -rewrite", name, err)
		}
	}
}

// tone is 400 Hz in PCMA, half a second: whole periods, so that it can be repeated.
func tone() []byte {
	pcm := make([]int16, 4000)
	for i := range pcm {
		pcm[i] = int16(8000 * math.Sin(2*math.Pi*400*float64(i)/8000))
	}
	out := make([]byte, len(pcm))
	g711.PCMA.Encode(pcm, out)
	return out
}

// frameTicks is 20 ms of AMR-WB.
const frameTicks = 320

// keys is the RTP of a phone that sends AMR-WB, payload type 97, nothing in it but
// NO_DATA, and presses keys for 100 ms each, payload type 101, a packet every 20 ms.
func keys(digits string) [][]byte {
	noData := []byte{0xF7, 0xC0} // bandwidth-efficient (RFC 4867 4.3): CMR 15, one frame of type 15, good
	var out [][]byte
	seq, ts := uint16(1), uint32(0)
	packet := func(pt uint8, marker bool, ts uint32, payload []byte) {
		b := make([]byte, rtp.HeaderSize, rtp.HeaderSize+len(payload))
		rtp.PutHeader(b, marker, pt, seq, ts, 0x51b9)
		out = append(out, append(b, payload...))
		seq++
	}
	speak := func(frames int) {
		for range frames {
			packet(97, false, ts, noData)
			ts += frameTicks
		}
	}
	speak(10)
	for _, d := range digits {
		press := dtmf.Press{Digit: byte(d), Volume: 10, Step: frameTicks, Hold: 5 * frameTicks}
		down := ts
		for {
			b := make([]byte, dtmf.Size)
			n, marker := press.Next(b)
			if n == 0 {
				break
			}
			packet(101, marker, down, b[:n])
			ts += frameTicks
		}
		speak(10)
	}
	return out
}

// capture is a pcap file with the packets 20 ms apart. SIPp takes the UDP payload and the
// times from it, and sends them from its own address and port to the far end's.
func capture(packets [][]byte) []byte {
	le, be := binary.LittleEndian, binary.BigEndian
	out := le.AppendUint32(nil, 0xa1b2c3d4)
	out = le.AppendUint16(out, 2)
	out = le.AppendUint16(out, 4)
	out = le.AppendUint32(out, 0)
	out = le.AppendUint32(out, 0)
	out = le.AppendUint32(out, 65535)
	out = le.AppendUint32(out, 1) // Ethernet
	for i, p := range packets {
		frame := make([]byte, 14+20+8, 14+20+8+len(p))
		be.PutUint16(frame[12:], 0x0800)
		ip := frame[14:]
		ip[0], ip[8], ip[9] = 0x45, 64, 17
		be.PutUint16(ip[2:], uint16(20+8+len(p)))
		copy(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2}) // RFC 5737
		udp := ip[20:]
		be.PutUint16(udp, 4000)
		be.PutUint16(udp[2:], 4000)
		be.PutUint16(udp[4:], uint16(8+len(p)))
		frame = append(frame, p...)
		us := i * 20_000
		for _, v := range []int{us / 1e6, us % 1e6, len(frame), len(frame)} {
			out = le.AppendUint32(out, uint32(v))
		}
		out = append(out, frame...)
	}
	return out
}
