package dialog

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// statusesOf are the statuses that the code of a directory and below gives an answer: a number in
// a call that answers or refuses, in a field or a variable of that name, or returned by what says
// which status it is to be. Where is one place for each.
func statusesOf(t *testing.T, dir string) map[int]string {
	t.Helper()
	where := map[int]string{}
	files := token.NewFileSet()
	number := func(e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.INT {
			if n, err := strconv.Atoi(l.Value); err == nil && n >= 100 && n < 700 {
				where[n] = files.Position(l.Pos()).String()
			}
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "lab":
			return filepath.SkipDir // phones of ours in tests: what they say is no word of the daemon
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if answers(nameOf(n.Fun)) {
					for _, a := range n.Args {
						number(a)
					}
				}
			case *ast.KeyValueExpr:
				if strings.EqualFold(nameOf(n.Key), "status") {
					number(n.Value)
				}
			case *ast.AssignStmt:
				for i, l := range n.Lhs {
					if strings.EqualFold(nameOf(l), "status") && len(n.Rhs) == len(n.Lhs) {
						number(n.Rhs[i])
					}
				}
			case *ast.FuncDecl:
				if saysStatus(n.Type) {
					ast.Inspect(n, func(n ast.Node) bool {
						if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) > 0 {
							number(r.Results[0])
						}
						return true
					})
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return where
}

func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func answers(function string) bool {
	name := strings.ToLower(function)
	for _, verb := range []string{"respon", "refus", "reject", "answer", "phrase", "say", "tellother"} {
		if strings.Contains(name, verb) {
			return true
		}
	}
	return false
}

// saysStatus: its first result is called that.
func saysStatus(f *ast.FuncType) bool {
	return f.Results != nil && len(f.Results.List[0].Names) > 0 && f.Results.List[0].Names[0].Name == "status"
}

// Nothing goes out as "408 Refused".
func TestPhraseOfEveryStatus(t *testing.T) {
	for _, tt := range []struct {
		dir   string
		among []int // or the search finds nothing any more
	}{
		{"../../sip", []int{100, 180, 200, 400, 403, 408, 413, 415, 420, 481, 487, 488, 504, 580, 603}},
		{"../../bridge", []int{403, 404, 406, 481, 489, 503, 603}},
	} {
		found := statusesOf(t, tt.dir)
		for _, status := range tt.among {
			if found[status] == "" {
				t.Errorf("%s: %d was not found", tt.dir, status)
			}
		}
		for status, at := range found {
			if Phrase(status) == Phrase(0) {
				t.Errorf("%d has no phrase of its own; given at %s", status, at)
			}
		}
	}
}
