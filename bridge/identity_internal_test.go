package bridge

import "testing"

func TestParty(t *testing.T) {
	for uri, want := range map[string]string{
		"tel:+8613800138000":                           "+8613800138000",
		"tel:+86-138-0013-8000;verstat=No":             "+8613800138000",
		"sip:+8613800138000;verstat=No@h;user=phone":   "+8613800138000",
		"sip:%2B8613800138000@h":                       "+8613800138000",
		"sip:alice@Example.net:5070;transport=tcp?a=b": "alice@example.net",
		"SIPS:alice:secret@example.net":                "alice@example.net",
		"sip:%61lice@example.net":                      "alice@example.net",
		"sip:Alice@example.net":                        "Alice@example.net",
		"sip:2001@h":                                   "2001@h",
		"tel:2001;phone-context=PBX.example":           "2001@pbx.example",
		"tel:2001;phone-context=+8610":                 "2001@+8610",
		"tel:2001":                                     "",
		"sip:example.net":                              "",
		"sip:anonymous@anonymous.invalid":              "",
		"sip:anonymous@Anonymous.Invalid":              "",
		"urn:service:sos":                              "",
		"":                                             "",
	} {
		if got := party(uri); got != want {
			t.Errorf("party(%q) = %q, want %q", uri, got, want)
		}
	}
}
