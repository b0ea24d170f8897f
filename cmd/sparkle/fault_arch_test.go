package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// A panic in a goroutine or a timer that nobody guards ends the daemon and every call. So in the
// rooms of the control process each is begun with a function that was made safe: by package
// fault, or by an attachment's safely and lasting.
func TestEveryGoroutineIsGuarded(t *testing.T) {
	guards := map[string]bool{"Safely": true, "Lasting": true, "safely": true, "lasting": true}
	guarded := func(e ast.Expr) bool {
		call, ok := e.(*ast.CallExpr)
		if !ok {
			return false
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		return ok && guards[sel.Sel.Name]
	}
	files := 0
	for _, dir := range []string{"../../bridge", "../../sip"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if d != nil && d.IsDir() && (d.Name() == "lab" || d.Name() == "storetest" || d.Name() == "web" || d.Name() == "testdata") {
				return fs.SkipDir
			}
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files++
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt: // go guarded(f)()
					if !guarded(n.Call.Fun) {
						t.Errorf("%s: a goroutine that a panic would take the daemon down with", set.Position(n.Pos()))
					}
				case *ast.CallExpr:
					sel, ok := n.Fun.(*ast.SelectorExpr)
					if ok && (sel.Sel.Name == "Go" || sel.Sel.Name == "AfterFunc") && len(n.Args) > 0 && !guarded(n.Args[len(n.Args)-1]) {
						t.Errorf("%s: %s with a function that nobody guards", set.Position(n.Pos()), sel.Sel.Name)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 50 {
		t.Errorf("%d files read", files)
	}
}
