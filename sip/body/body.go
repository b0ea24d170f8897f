// Package body reads what a SIP message carries besides one session description: bodies
// of several parts (RFC 5621), and lists of URIs (RFC 4826 as RFC 5366 and 5368 use it).
// Pure functions; everything they take from a peer is bounded.
package body

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"strings"
)

// Types we know.
const (
	SDP           = "application/sdp"
	ResourceLists = "application/resource-lists+xml"
)

// Errors a caller may tell apart: a body that is broken, and one that is more than we take.
var (
	ErrSyntax = errors.New("body: malformed")
	ErrLimit  = errors.New("body: too much")
)

// Bounds of what is taken apart: no sound message has more.
const (
	maxParts = 8
	maxDepth = 3 // of multipart in multipart
)

// Part is one body with its own headers.
type Part struct {
	Type        string // media type in lower case, without parameters
	Disposition string // of Content-Disposition in lower case; "" not said
	Handling    string // of Content-Disposition: optional (who does not know it passes it over), required, or ""
	ID          string // of Content-ID, without the angle brackets
	Data        []byte
}

// Header is the content headers of a message, or of a part.
type Header struct{ Type, Disposition, ID, Encoding string }

// Parse takes a body apart. A body of one part is that part; an empty one has none. The
// parts of a multipart, nested ones too, come in order.
func Parse(h Header, data []byte) ([]Part, error) {
	if len(data) == 0 {
		return nil, nil
	}
	return parse(nil, h, data, 0)
}

func parse(parts []Part, h Header, data []byte, depth int) ([]Part, error) {
	kind, params, err := mime.ParseMediaType(h.Type)
	if err != nil {
		return nil, ErrSyntax
	}
	if !strings.HasPrefix(kind, "multipart/") {
		if len(parts) == maxParts {
			return nil, ErrLimit
		}
		p, err := part(kind, h, data)
		return append(parts, p), err
	}
	if depth == maxDepth {
		return nil, ErrLimit
	}
	if params["boundary"] == "" {
		return nil, ErrSyntax
	}
	r := multipart.NewReader(bytes.NewReader(data), params["boundary"])
	for n := 0; ; n++ {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) && n > 0 {
			return parts, nil
		}
		if err != nil {
			return nil, ErrSyntax
		}
		inner, err := io.ReadAll(p)
		if err != nil {
			return nil, ErrSyntax
		}
		ph := Header{p.Header.Get("Content-Type"), p.Header.Get("Content-Disposition"), p.Header.Get("Content-Id"), p.Header.Get("Content-Transfer-Encoding")}
		if ph.Type == "" {
			ph.Type = "text/plain" // RFC 2046 5.1
		}
		if parts, err = parse(parts, ph, inner, depth+1); err != nil {
			return nil, err
		}
	}
}

func part(kind string, h Header, data []byte) (Part, error) {
	p := Part{Type: kind, Data: data, ID: strings.Trim(strings.TrimSpace(h.ID), "<>")}
	if h.Disposition != "" {
		d, params, err := mime.ParseMediaType(h.Disposition)
		if err != nil {
			return p, ErrSyntax
		}
		p.Disposition, p.Handling = d, strings.ToLower(params["handling"])
	}
	switch strings.ToLower(strings.TrimSpace(h.Encoding)) {
	case "", "binary", "8bit", "7bit": // as it is; SIP is 8-bit clean
	case "base64":
		// The decoder passes over line ends.
		plain, err := base64.StdEncoding.AppendDecode(nil, bytes.TrimSpace(data))
		if err != nil {
			return p, ErrSyntax
		}
		p.Data = plain
	default:
		return p, ErrSyntax
	}
	return p, nil
}

// Find is the first part of a type; nil if there is none.
func Find(parts []Part, kind string) *Part {
	for i := range parts {
		if parts[i].Type == kind {
			return &parts[i]
		}
	}
	return nil
}

// Recipients are the entries of the recipient list among parts (RFC 5366 4); nil if there is
// none.
func Recipients(parts []Part) ([]Entry, error) {
	for _, p := range parts {
		if p.Type != ResourceLists || p.Disposition != "" && p.Disposition != "recipient-list" {
			continue
		}
		return ParseList(p.Data)
	}
	return nil, nil
}
