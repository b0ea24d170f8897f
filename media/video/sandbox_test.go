package video

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// probe is what a confined process could still do.
type probe struct {
	Have, Lacking                  []string
	Read, Write, Dial, Exec, Alloc string // errors, "" if it worked
	Nice                           int
}

// probeMain confines this process and tries what must fail.
func probeMain(dir string) {
	var p probe
	p.Have, p.Lacking = confine(1 << 30)
	text := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return ""
	}
	_, err := os.ReadFile(filepath.Join(dir, "secret"))
	p.Read = text(err)
	p.Write = text(os.WriteFile(filepath.Join(dir, "written"), []byte("x"), 0o600))
	_, err = net.Dial("udp", "127.0.0.1:9")
	p.Dial = text(err)
	p.Exec = text(syscall.Exec("/bin/true", []string{"true"}, nil))
	p.Nice, _ = syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	_, err = syscall.Mmap(-1, 0, 3<<30, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	p.Alloc = text(err)
	_ = json.NewEncoder(os.Stdout).Encode(p)
}

// What the video process says it gave up, it has given up.
func TestConfinedProcessCanDoNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/proc/self/exe", "probe", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	var p probe
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("in force: %s; lacking: %s", strings.Join(p.Have, ", "), strings.Join(p.Lacking, ", "))
	if slices.Contains(p.Have, "no new privileges, landlock files") && (p.Read == "" || p.Write == "") {
		t.Errorf("files can be used: read %q, write %q", p.Read, p.Write)
	}
	if slices.Contains(p.Have, "seccomp") && (p.Dial == "" || p.Exec == "") {
		t.Errorf("dial %q, exec %q", p.Dial, p.Exec)
	}
	if slices.Contains(p.Have, "rlimit memory") && p.Alloc == "" {
		t.Error("3 GiB could be had under a limit of 1")
	}
	if slices.Contains(p.Have, "nice") && p.Nice != 10 { // the raw system call says 20-nice
		t.Errorf("priority %d, want 20-10", p.Nice)
	}
	if len(p.Have) == 0 {
		t.Errorf("nothing is in force: %v", p.Lacking)
	}
}
