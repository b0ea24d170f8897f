package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sparkle/config"
)

// The three files of README's "Connect to your core" load, and are what they are said to be.
func TestReadmeConfigurationsLoad(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "## Connect to your core\n")
	if !ok {
		t.Fatal("README has no such section")
	}
	section, _, _ = strings.Cut(section, "\n### ")
	dir := t.TempDir()
	var modes []string
	for _, block := range regexp.MustCompile(`(?m)(?:^(?:    .*)?\n)+`).FindAllString(section, -1) {
		block = regexp.MustCompile(`(?m)^    `).ReplaceAllString(block, "")
		if !strings.Contains(block, "attachments:") {
			continue
		}
		file := filepath.Join(dir, "sparkle.yaml")
		if err := os.WriteFile(file, []byte(block), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := config.Plan(file, nil) // nobody has the files of /etc/sparkle
		if err != nil {
			t.Errorf("%v in\n%s", err, block)
			continue
		}
		if err := cfg.SIP("Sparkle").Validate(); err != nil {
			t.Errorf("the user agent would not take it: %v in\n%s", err, block)
		}
		modes = append(modes, cfg.Attachments[0].Mode)
	}
	if got := strings.Join(modes, " "); got != "ue trunk as" {
		t.Errorf("worked configurations: %q", got)
	}
}

// README says which commands of "See it work" write JSON, and those do.
func TestReadmeSaysWhatWritesJSON(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "### See it work\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var said, do []string
	if m := regexp.MustCompile("((?:`[a-z]+`(?:, | and )?)+) have `-o json`").FindStringSubmatch(section); m != nil {
		for _, name := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(m[1], -1) {
			said = append(said, name[1])
		}
	}
	shown := regexp.MustCompile(`(?m)^    sparkle ([a-z]+(?: [a-z]+)?)`).FindAllStringSubmatch(section, -1)
	for _, m := range shown {
		code, help, _ := sparkle(t, append(strings.Fields(m[1]), "--help")...)
		if code != 0 {
			t.Errorf("sparkle %s --help: exit code %d", m[1], code)
		}
		if regexp.MustCompile(`-o, --output .*\bjson\b`).MatchString(help) && !slices.Contains(do, m[1]) {
			do = append(do, m[1])
		}
	}
	slices.Sort(do)
	if len(shown) < 5 || !slices.Equal(said, do) {
		t.Errorf("README says that %q write JSON, of what it shows %q do", said, do)
	}
}
