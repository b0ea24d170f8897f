//go:build ignore

// make speaks the prompts with espeak-ng and brings them to 16 kHz with ffmpeg: `make
// prompts`, or `go generate ./bridge/prompts`. Silence at both ends is cut and
// all are equally loud.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
)

var texts = []struct{ name, zh, en string }{
	{"enter", "您好，请输入六位会议密码。", "Hello. Please enter the six digit conference PIN."},
	{"wrong", "密码不正确，请重新输入。", "That PIN is not correct. Please try again."},
	{"tries", "尝试次数过多，再见。", "Too many tries. Goodbye."},
	{"joined", "您已进入会议。", "You are in the conference."},
	{"full", "会议人数已满，再见。", "The conference is full. Goodbye."},
	{"refused", "您不能加入这个会议，再见。", "You cannot join this conference. Goodbye."},
	{"confirm", "有会议请您参加，加入请按一。", "You are called into a conference. To join, press 1."},
}

func main() {
	for _, t := range texts {
		speak("cmn", "190", t.zh, t.name+"-zh.wav")
		speak("en-us", "155", t.en, t.name+"-en.wav")
	}
}

// peak of every file, of 32767: -6 dBFS.
const peak = 16000

func speak(voice, speed, text, file string) {
	const trim = "silenceremove=start_periods=1:start_threshold=-50dB"
	spoken := run(nil, "espeak-ng", "-v", voice, "-s", speed, "--stdout", text)
	pcm := run(spoken, "ffmpeg", "-loglevel", "error", "-i", "-", "-af", trim+",areverse,"+trim+",areverse",
		"-ar", "16000", "-ac", "1", "-f", "s16le", "-")
	loudest := 1
	for i := 0; i+1 < len(pcm); i += 2 {
		v := int(int16(binary.LittleEndian.Uint16(pcm[i:])))
		loudest = max(loudest, v, -v)
	}
	for i := 0; i+1 < len(pcm); i += 2 {
		v := int(int16(binary.LittleEndian.Uint16(pcm[i:]))) * peak / loudest
		binary.LittleEndian.PutUint16(pcm[i:], uint16(int16(v)))
	}
	head := []byte("RIFF....WAVEfmt ")
	binary.LittleEndian.PutUint32(head[4:], uint32(36+len(pcm)))
	for _, v := range []any{uint32(16), uint16(1), uint16(1), uint32(16000), uint32(32000), uint16(2), uint16(16)} {
		head, _ = binary.Append(head, binary.LittleEndian, v)
	}
	head = binary.LittleEndian.AppendUint32(append(head, "data"...), uint32(len(pcm)))
	if err := os.WriteFile(file, append(head, pcm...), 0o644); err != nil {
		fail(file, err)
	}
}

func run(in []byte, name string, args ...string) []byte {
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		fail(name, err)
	}
	return out
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	os.Exit(1)
}
