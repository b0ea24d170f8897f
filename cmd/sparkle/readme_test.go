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
	secrets := t.TempDir() // the secrets of /etc/sparkle
	for name, s := range map[string]string{"k": strings.Repeat("0", 32), "opc": strings.Repeat("1", 32)} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var modes []string
	for _, block := range regexp.MustCompile(`(?m)(?:^(?:    .*)?\n)+`).FindAllString(section, -1) {
		block = regexp.MustCompile(`(?m)^    `).ReplaceAllString(block, "")
		if !strings.Contains(block, "attachments:") {
			continue
		}
		cfg, err := config.Parse([]byte(strings.ReplaceAll(block, "/etc/sparkle", secrets)), nil)
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
