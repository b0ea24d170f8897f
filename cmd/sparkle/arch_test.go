package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport is the house's import DAG, room by room (DESIGN §2). cmd may import all.
var mayImport = map[string][]string{
	"sip":    {},
	"media":  {},
	"bridge": {"sip", "media"},
	"config": {"sip", "media", "bridge"},
	"cmd":    {"sip", "media", "bridge", "config"},
}

// rooms are the top level's; a Go package elsewhere has no place in the house.
var rooms = []string{"cmd", "bridge", "sip", "media", "config"}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "sparkle/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

func room(path string) string {
	rest, _ := strings.CutPrefix(path, "sparkle/")
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func TestImportsFollowTheDAG(t *testing.T) {
	for _, p := range packages(t) {
		from := room(p.ImportPath)
		if !slices.Contains(rooms, from) {
			t.Errorf("%s is in no room of the house", p.ImportPath)
		}
		for _, dep := range p.Imports {
			if !strings.HasPrefix(dep, "sparkle/") {
				continue
			}
			if to := room(dep); to != from && !slices.Contains(mayImport[from], to) {
				t.Errorf("%s imports %s: %s may not import %s", p.ImportPath, dep, from, to)
			}
			if isLab(dep) && !isLab(p.ImportPath) && from != "cmd" {
				t.Errorf("%s imports %s: only cmd and tests may import the lab", p.ImportPath, dep)
			}
		}
		// Tests may use the lab, but sip and media never meet, not even there.
		for _, dep := range slices.Concat(p.TestImports, p.XTestImports) {
			if from == "sip" && room(dep) == "media" || from == "media" && room(dep) == "sip" {
				t.Errorf("the tests of %s import %s: sip and media never meet", p.ImportPath, dep)
			}
		}
	}
}

// Outer packages import the root of their room, never the reverse.
func TestRootsDoNotImportTheirShell(t *testing.T) {
	shells := []string{"sparkle/bridge/api", "sparkle/bridge/console", "sparkle/bridge/lab", "sparkle/bridge/metrics"}
	for _, p := range packages(t) {
		if p.ImportPath != "sparkle/bridge" {
			continue
		}
		for _, dep := range p.Imports {
			for _, s := range shells {
				if dep == s || strings.HasPrefix(dep, s+"/") {
					t.Errorf("%s imports %s", p.ImportPath, dep)
				}
			}
		}
	}
}

func isLab(path string) bool {
	return path == "sparkle/bridge/lab" || strings.HasPrefix(path, "sparkle/bridge/lab/")
}
