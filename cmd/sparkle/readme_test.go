package main

import (
	"os"
	"path/filepath"
	"regexp"
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
