package ims

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
)

// ErrBadNumber says that a text is no international phone number.
var ErrBadNumber = errors.New("not an international phone number (+country and digits)")

// Number is a phone number in E.164 form: "+", then 7 to 15 digits. It prints and logs
// with the subscriber digits masked; only Digits and URI give it whole, and only the
// wire and the store ask for that.
type Number string

// ParseNumber reads what people type and networks send: "+86 138-0013-8000",
// "0086 138 0013 8000", "tel:+8613800138000;x=y", "sip:+8613800138000@home;user=phone".
// National numbers are refused: their country is a guess.
func ParseNumber(s string) (Number, error) {
	s = strings.TrimSpace(s)
	if len(s) > 256 {
		return "", ErrBadNumber
	}
	if scheme, rest, ok := strings.Cut(s, ":"); ok {
		switch strings.ToLower(scheme) {
		case "tel":
			s, _, _ = strings.Cut(rest, ";")
		case "sip", "sips":
			user, _, at := strings.Cut(rest, "@")
			if !at {
				return "", ErrBadNumber
			}
			s, _, _ = strings.Cut(user, ";")
			s = strings.Replace(s, "%2B", "+", 1)
		default:
			return "", ErrBadNumber
		}
	}
	digits := stripSeparators(s)
	switch {
	case strings.HasPrefix(digits, "+"):
		digits = digits[1:]
	case strings.HasPrefix(digits, "00"):
		digits = digits[2:]
	default:
		return "", ErrBadNumber
	}
	if len(digits) < 7 || len(digits) > 15 || digits[0] == '0' || !allDigits(digits) {
		return "", ErrBadNumber
	}
	return Number("+" + digits), nil
}

// ValidCallingCode says whether s is a country's calling code with +.
func ValidCallingCode(s string) bool {
	digits, ok := strings.CutPrefix(s, "+")
	return ok && len(digits) >= 1 && len(digits) <= 3 && digits[0] != '0' && allDigits(digits)
}

// ParseTyped is ParseNumber for people of one country: digits alone are a number of
// theirs, with or without the trunk prefix that is dialled inside it (0, or 1 in the
// North American plan; Italy's 0 belongs to the number). callingCode "" takes none.
func ParseTyped(s, callingCode string) (Number, error) {
	digits := stripSeparators(strings.TrimSpace(s))
	if callingCode == "" || digits == "" || !allDigits(digits) || strings.HasPrefix(digits, "00") {
		return ParseNumber(s)
	}
	switch callingCode {
	case "+39":
	case "+1":
		if len(digits) == 11 {
			digits = strings.TrimPrefix(digits, "1")
		}
	default:
		digits = strings.TrimPrefix(digits, "0")
	}
	return ParseNumber(callingCode + digits)
}

// stripSeparators drops the visual separators of RFC 3966 §5.1.1 and spaces.
func stripSeparators(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case ' ', '-', '.', '(', ')', '/', '\u00a0', '\t':
			return -1
		case '\uff0b': // full-width plus of a Chinese keyboard
			return '+'
		}
		if r >= '\uff10' && r <= '\uff19' {
			return r - '\uff10' + '0'
		}
		return r
	}, s)
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// Digits is the whole number with "+".
func (n Number) Digits() string { return string(n) }

// URI is the number on the wire: form "sip" gives "sip:+…@domain;user=phone", anything
// else "tel:+…".
func (n Number) URI(form, domain string) string {
	if form == "sip" {
		return "sip:" + string(n) + "@" + domain + ";user=phone"
	}
	return "tel:" + string(n)
}

// Masked is the number with its middle hidden: "+86138****1234".
func (n Number) Masked() string {
	s := string(n)
	switch {
	case len(s) >= 13:
		return s[:6] + strings.Repeat("*", len(s)-10) + s[len(s)-4:]
	case len(s) >= 8:
		return s[:3] + strings.Repeat("*", len(s)-5) + s[len(s)-2:]
	}
	return strings.Repeat("*", len(s))
}

// String is Masked, so that a number that slips into a text is not given away.
func (n Number) String() string { return n.Masked() }

// Format prints Masked whatever the verb.
func (n Number) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.Masked()) }

// LogValue logs Masked.
func (n Number) LogValue() slog.Value { return slog.StringValue(n.Masked()) }

// everywhere are numbers that a phone treats as emergency in every country (TS 22.101
// §10.1.1), and the commonest others.
var everywhere = []string{"112", "911", "999", "000", "08", "110", "118", "119"}

type country struct {
	code    string
	numbers []string
}

// emergency is by ISO 3166 code.
var emergency = map[string]country{
	"AU": {"61", []string{"000", "106"}},
	"BR": {"55", []string{"190", "192", "193"}},
	"CA": {"1", []string{"911"}},
	"CH": {"41", []string{"117", "118", "144"}},
	"CN": {"86", []string{"110", "119", "120", "122", "999"}},
	"DE": {"49", []string{"110", "112"}},
	"ES": {"34", []string{"091", "092", "061", "080"}},
	"FR": {"33", []string{"15", "17", "18", "114"}},
	"GB": {"44", []string{"999"}},
	"HK": {"852", []string{"999", "992"}},
	"ID": {"62", []string{"110", "113", "118", "119"}},
	"IN": {"91", []string{"100", "101", "102", "108"}},
	"IT": {"39", []string{"113", "115", "118"}},
	"JP": {"81", []string{"110", "118", "119"}},
	"KR": {"82", []string{"112", "113", "119"}},
	"MO": {"853", []string{"999", "110", "112"}},
	"MY": {"60", []string{"999", "994"}},
	"NZ": {"64", []string{"111"}},
	"RU": {"7", []string{"101", "102", "103", "104"}},
	"SG": {"65", []string{"995", "999"}},
	"TH": {"66", []string{"191", "199", "1669"}},
	"TW": {"886", []string{"110", "119"}},
	"US": {"1", []string{"911"}},
	"ZA": {"27", []string{"10111", "10177"}},
}

// Emergency reports whether calling number, as typed or as URI, would reach an emergency
// service: urn:service:sos…, the numbers every phone knows, those of country (ISO 3166
// code; "": every country's we know), also behind a country code ("+86 110", "0086110").
// A bridge must never originate such a call (IMS.md §7 item 6).
func Emergency(number, isoCountry string) bool {
	s := strings.ToLower(strings.TrimSpace(number))
	if strings.HasPrefix(s, "urn:service:sos") {
		return true
	}
	for _, scheme := range []string{"tel:", "sip:", "sips:"} {
		s = strings.TrimPrefix(s, scheme)
	}
	if i := strings.IndexAny(s, ";:@"); i >= 0 {
		s = s[:i]
	}
	if u, err := url.PathUnescape(s); err == nil { // as whoever routes it reads it
		s = u
	}
	s = stripSeparators(s)
	if international, ok := strings.CutPrefix(s, "+"); ok {
		return emergencyAbroad(international)
	}
	if international, ok := strings.CutPrefix(s, "00"); ok && emergencyAbroad(international) {
		return true
	}
	if contains(everywhere, s) {
		return true
	}
	if c, ok := emergency[strings.ToUpper(isoCountry)]; ok {
		return contains(c.numbers, s)
	}
	if isoCountry != "" {
		return false
	}
	for _, c := range emergency {
		if contains(c.numbers, s) {
			return true
		}
	}
	return false
}

func emergencyAbroad(s string) bool {
	for _, c := range emergency {
		if local, ok := strings.CutPrefix(s, c.code); ok && (contains(c.numbers, local) || contains(everywhere[:3], local)) {
			return true
		}
	}
	return contains(everywhere[:3], s)
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}
