package ims

import "testing"

func TestParseTyped(t *testing.T) {
	for _, tt := range []struct{ typed, code, want string }{
		{"138 0013 8000", "+86", "+8613800138000"},
		{"010-6552 9988", "+86", "+861065529988"},
		{"１３８００１３８０００", "+86", "+8613800138000"}, // full-width digits
		{"+1 555 0100 123", "+86", "+15550100123"},
		{"0044 20 7946 0000", "+86", "+442079460000"},
		{"(555) 010-0123", "+1", "+15550100123"},
		{"1-555-010-0123", "+1", "+15550100123"},
		{"06 1234 5678", "+39", "+390612345678"},
		{"13800138000", "", ""},
		{"12", "+86", ""},
		{"0", "+86", ""},
		{"Alice", "+86", ""},
		{"", "+86", ""},
		{"138001380001380013800", "+86", ""},
	} {
		got, err := ParseTyped(tt.typed, tt.code)
		if string(got) != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("ParseTyped(%q, %q) = %v", tt.typed, tt.code, err)
		}
	}
	for code, want := range map[string]bool{"+86": true, "+1": true, "+852": true, "86": false, "+": false, "+0": false, "+8610": false, "+x": false} {
		if ValidCallingCode(code) != want {
			t.Errorf("ValidCallingCode(%q) is not %v", code, want)
		}
	}
}
