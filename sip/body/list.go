package body

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
)

// Bounds of a list. Conferences hold some hundred members; nesting beyond list in list
// has no use (RFC 5363 3.1.1 discourages any).
const (
	maxEntries  = 512
	maxXMLDepth = 16
	maxURI      = 256
)

const (
	listsNS = "urn:ietf:params:xml:ns:resource-lists"
	copyNS  = "urn:ietf:params:xml:ns:copycontrol"
)

// Entry is one recipient.
type Entry struct {
	URI       string
	Copy      string // to | cc | bcc (RFC 5364); "" not said
	Anonymize bool   // others must not be shown it
}

// ParseList reads application/resource-lists+xml (RFC 4826 3): the entries of all lists in
// order. entry-ref and external, which need a server elsewhere, are passed over. A document
// type is refused: nobody needs entities to name phones.
func ParseList(b []byte) ([]Entry, error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	d.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, ErrSyntax } // UTF-8 only
	var entries []Entry
	depth, seen := 0, false
	for {
		// RawToken would not match start and end; Token does, and knows no entities.
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			if !seen {
				return nil, ErrSyntax
			}
			return entries, nil
		}
		if err != nil {
			return nil, ErrSyntax
		}
		switch tok := tok.(type) {
		case xml.Directive:
			return nil, ErrSyntax
		case xml.StartElement:
			if depth++; depth > maxXMLDepth {
				return nil, ErrLimit
			}
			if depth == 1 {
				if seen || tok.Name.Local != "resource-lists" || tok.Name.Space != listsNS {
					return nil, ErrSyntax
				}
				seen = true
			}
			if depth < 3 || tok.Name.Local != "entry" || tok.Name.Space != listsNS {
				continue
			}
			e := entry(tok.Attr)
			if e.URI == "" {
				return nil, ErrSyntax
			}
			if len(entries) == maxEntries || len(e.URI) > maxURI {
				return nil, ErrLimit
			}
			entries = append(entries, e)
		case xml.EndElement:
			depth--
		}
	}
}

func entry(attrs []xml.Attr) Entry {
	var e Entry
	for _, a := range attrs {
		switch {
		case a.Name.Local == "uri" && a.Name.Space == "":
			e.URI = strings.TrimSpace(a.Value)
		case a.Name.Local == "copyControl" && a.Name.Space == copyNS:
			e.Copy = strings.ToLower(a.Value)
		case a.Name.Local == "anonymize" && a.Name.Space == copyNS:
			e.Anonymize = a.Value == "true" || a.Value == "1"
		}
	}
	if strings.IndexFunc(e.URI, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '<' || r == '>' || r == '"' }) >= 0 {
		e.URI = ""
	}
	return e
}

// Hidden: others must not be shown whom it names (RFC 5364 4).
func (e Entry) Hidden() bool { return e.Anonymize || e.Copy == "bcc" }

// URIs are those of a list, each once, and those of them that are hidden.
func URIs(list []Entry) (all, hidden []string) {
	for _, e := range list {
		if !slices.Contains(all, e.URI) {
			all = append(all, e.URI)
		}
		if e.Hidden() && !slices.Contains(hidden, e.URI) {
			hidden = append(hidden, e.URI)
		}
	}
	return all, hidden
}
