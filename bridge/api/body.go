package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
)

const (
	maxBody  = 1 << 20
	maxDepth = 32 // of nested arrays and objects
)

// readBody reads the whole body, at most maxBody.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		return nil, fail(http.StatusRequestEntityTooLarge, "body_too_large", "the body is over 1 MiB")
	case err != nil:
		return nil, fail(http.StatusBadRequest, "body_unreadable", "the body ended early")
	}
	return b, nil
}

// checkType refuses a body that does not say it is JSON.
func checkType(r *http.Request) error {
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := params["charset"]
	if err != nil || t != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return fail(http.StatusUnsupportedMediaType, "content_type_unsupported", "want Content-Type: application/json")
	}
	return nil
}

// checkJSON holds a body against its schema: 400 if it is not JSON, 422 with every
// fault's pointer if it does not fit.
func checkJSON(schema *openapi3.Schema, b []byte) error {
	if !utf8.Valid(b) {
		return fail(http.StatusBadRequest, "malformed_json", "the body is not UTF-8")
	}
	if err := checkDepth(b); err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		detail := err.Error()
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			detail = fmt.Sprintf("at byte %d: %v", syntax.Offset, syntax)
		}
		return fail(http.StatusBadRequest, "malformed_json", detail)
	}
	var faults []FieldError
	collect(&faults, "", visit(schema, v))
	if len(faults) == 0 {
		return nil
	}
	slices.SortFunc(faults, func(a, b FieldError) int {
		return strings.Compare(a.Pointer+"\x00"+a.Detail, b.Pointer+"\x00"+b.Detail)
	})
	faults = slices.Compact(faults)
	if len(faults) > 20 { // 500 rows with five faults each tell nothing more
		faults = faults[:20]
	}
	p := fail(http.StatusUnprocessableEntity, codeOf(faults), strings.TrimPrefix(faults[0].Pointer+": "+faults[0].Detail, ": "))
	p.fields = faults
	return p
}

// visit validates v; of alternatives it takes the one of v's type first, so that
// the faults are those of what was meant.
func visit(schema *openapi3.Schema, v any) error {
	if len(schema.OneOf) > 0 {
		var want []string
		for _, alt := range schema.OneOf {
			t := alt.Value.Type.Slice()
			if slices.Contains(t, typeOf(v)) {
				return visit(alt.Value, v)
			}
			want = append(want, t...)
		}
		return fmt.Errorf("want %s", strings.Join(want, " or "))
	}
	return schema.VisitJSON(v, openapi3.MultiErrors(), openapi3.VisitAsRequest())
}

func typeOf(v any) string {
	switch v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	}
	return ""
}

// collect flattens validation errors into pointer and words.
func collect(out *[]FieldError, prefix string, err error) {
	switch e := err.(type) {
	case nil:
	case openapi3.MultiError:
		for _, sub := range e {
			collect(out, prefix, sub)
		}
	case *openapi3.SchemaError:
		path, reason := e.JSONPointer(), e.Reason
		if q, ok := strings.CutSuffix(reason, " is unsupported"); ok { // it points at the object around
			if name, err := strconv.Unquote(strings.TrimPrefix(q, "property ")); err == nil {
				path, reason = append(path, name), "there is no such field"
			}
		}
		var ptr strings.Builder
		ptr.WriteString(prefix)
		for _, p := range path {
			ptr.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
		}
		if e.SchemaField == "oneOf" { // what kin-openapi says of these names Go types
			reason = "none of the allowed forms fits"
		}
		*out = append(*out, FieldError{Pointer: ptr.String(), Detail: reason})
	default:
		*out = append(*out, FieldError{Pointer: prefix, Detail: err.Error()})
	}
}

// codeOf is FIELD_required or FIELD_invalid when one member of the body is at fault
// (in whichever row), else request_invalid.
func codeOf(faults []FieldError) string {
	code := ""
	for _, f := range faults {
		name := f.Pointer[strings.LastIndexByte(f.Pointer, '/')+1:]
		c := "request_invalid"
		if f.Detail == "there is no such field" {
			c = "field_unknown"
		} else if known[name] {
			c = name + "_invalid"
			if name == "name" && (strings.Contains(f.Detail, "missing") || strings.Contains(f.Detail, "minimum string length")) {
				c = "name_required"
			}
		}
		if code != "" && c != code {
			return "request_invalid"
		}
		code = c
	}
	return code
}

// known are the fields with a code of their own in the public catalogue.
var known = map[string]bool{
	"name": true, "type": true, "number": true, "role": true, "targets": true, "media": true,
	"ring_timeout_s": true, "from": true, "to": true, "mode": true,
}

// checkDepth bounds what the decoder would recurse into.
func checkDepth(b []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fail(http.StatusBadRequest, "json_too_deep", fmt.Sprintf("at byte %d: more than %d levels", i, maxDepth))
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// replaceBody hands the bytes on to the decoder.
func replaceBody(r *http.Request, b []byte) {
	r.Body = io.NopCloser(bytes.NewReader(b))
	r.ContentLength = int64(len(b))
}
