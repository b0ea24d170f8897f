package notifier

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// FragType is the type of the documents of the package refer (RFC 3515 2.4.5).
const FragType = "message/sipfrag;version=2.0"

// ErrFrag says that a body is no sipfrag with a status line.
var ErrFrag = errors.New("notifier: no status line")

// Frag is the document that tells how far a REFER has come: a status line (RFC 3420).
func Frag(status int, phrase string) []byte {
	phrase = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, phrase)
	return fmt.Appendf(nil, "SIP/2.0 %d %s\r\n", min(max(status, 100), 699), phrase)
}

// ParseFrag reads the status line of a sipfrag; header lines behind it are not looked at.
func ParseFrag(b []byte) (status int, phrase string, err error) {
	line, _, _ := strings.Cut(string(b), "\n")
	version, rest, ok := strings.Cut(strings.TrimRight(line, "\r"), " ")
	code, phrase, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(code)
	if !ok || err != nil || len(code) != 3 || n < 100 || n > 699 || !strings.EqualFold(version, "SIP/2.0") {
		return 0, "", ErrFrag
	}
	return n, strings.TrimSpace(phrase), nil
}
