package ims

import (
	"strings"
	"testing"
	"unicode"
)

// Every row of IMS.md §6.
func TestClassify(t *testing.T) {
	video := func(f Final) Final { f.FirstHadVideo = true; return f }
	remote := func(status int) Final { return Final{Status: status, By: "remote"} }
	ringing := func(status int) Final { return Final{Status: status, By: "remote", WasRinging: true} }
	bye := func(f Final) Final { f.Connected, f.By = true, "remote"; return f }
	for _, tt := range []struct {
		name    string
		f       Final
		outcome string
		detail  string
		retry   bool
	}{
		{"486", ringing(486), Busy, "busy", false},
		{"486 video", video(remote(486)), Busy, "busy", false},
		{"600", ringing(600), Declined, "declined", false},
		{"603", ringing(603), Declined, "declined", false},
		{"603 video", video(ringing(603)), Declined, "declined", false},
		{"603 Network Blocked", Final{Status: 603, Phrase: "Network Blocked", Q850: 21, By: "remote"}, Blocked, "blocked_as_unwanted", false},
		{"607", remote(607), Blocked, "blocked_as_unwanted", false},
		{"608", remote(608), Blocked, "blocked_as_unwanted", false},
		{"480", remote(480), Unreachable, "not_reachable", false},
		{"480 rang", ringing(480), NoAnswer, "no_answer", false},
		{"480 Q.850 20", Final{Status: 480, Q850: 20, By: "remote"}, Unreachable, "not_reachable", false},
		{"480 Q.850 18 rang", Final{Status: 480, Q850: 18, WasRinging: true, By: "remote"}, NoAnswer, "no_answer", false},
		{"480 Q.850 17", Final{Status: 480, Q850: 17, By: "remote"}, Busy, "busy", false},
		{"480 Q.850 21", Final{Status: 480, Q850: 21, By: "remote"}, Declined, "declined", false},
		{"480 Q.850 31", Final{Status: 480, Q850: 31, By: "remote"}, Unreachable, "not_reachable", false},
		{"487 ring timer", Final{Status: 487, By: "timeout", Why: "ring_timeout", WasRinging: true}, NoAnswer, "no_answer", false},
		{"487 unsolicited", Final{Status: 487, Q850: 19, By: "remote", WasRinging: true}, NoAnswer, "no_answer", false},
		{"487 cancelled", Final{Status: 487, By: "local", Why: "cancelled", WasRinging: true}, Cancelled, "cancelled", false},
		{"408", remote(408), Unreachable, "network_timeout", false},
		{"408 rang", ringing(408), NoAnswer, "no_answer", false},
		{"504", remote(504), Unreachable, "network_timeout", false},
		{"no response", Final{By: "network", Why: "no_response"}, NetworkError, "no_response", false},
		{"no response, unnamed", Final{By: "network"}, NetworkError, "no_response", false},
		{"transport", Final{By: "network", Why: "transport"}, NetworkError, "transport", false},
		{"setup timer", Final{By: "timeout", Why: "setup_timeout"}, Unreachable, "setup_timeout", false},
		{"timer, unnamed", Final{By: "timeout", WasRinging: true}, NoAnswer, "no_answer", false},
		{"404", remote(404), NotFound, "number_unknown", false},
		{"404 Q.850 1", Final{Status: 404, Q850: 1, By: "remote"}, NotFound, "number_unknown", false},
		{"604", remote(604), NotFound, "number_unknown", false},
		{"410", remote(410), NotFound, "number_changed", false},
		{"Q.850 22", Final{Status: 404, Q850: 22, By: "remote"}, NotFound, "number_changed", false},
		{"484", remote(484), NotFound, "number_invalid", false},
		{"485", remote(485), NotFound, "number_invalid", false},
		{"416", remote(416), NotFound, "number_invalid", false},
		{"414", remote(414), NotFound, "number_invalid", false},
		{"302", remote(302), Unreachable, "redirected", false},
		{"305", remote(305), Unreachable, "redirected", false},
		{"380", video(remote(380)), NotAllowed, "ps_not_allowed", true},
		{"380 emergency", video(Final{Status: 380, Phrase: "Emergency", By: "remote"}), NotAllowed, "emergency", false},
		{"380 emergency in its body", video(Final{Status: 380, Phrase: "Alternative Service", AltService: "emergency", By: "remote"}), NotAllowed, "emergency", false},
		{"400", video(remote(400)), NetworkError, "protocol_error", false},
		{"413", remote(413), NetworkError, "protocol_error", false},
		{"513", remote(513), NetworkError, "protocol_error", false},
		{"482", remote(482), NetworkError, "loop", false},
		{"483", remote(483), NetworkError, "loop", false},
		{"401", remote(401), NotAllowed, "auth_failed", false},
		{"407", remote(407), NotAllowed, "auth_failed", false},
		{"402", remote(402), NotAllowed, "forbidden", false},
		{"403", video(remote(403)), NotAllowed, "forbidden", false},
		{"403 video", video(Final{Status: 403, Phrase: "Video not subscribed", By: "remote"}), NotAllowed, "not_subscribed", true},
		{"403 STIR", Final{Status: 403, Phrase: "Stale identity", By: "remote"}, NotAllowed, "identity_rejected", false},
		{"405", remote(405), NetworkError, "method_unsupported", false},
		{"501", remote(501), NetworkError, "method_unsupported", false},
		{"406", video(remote(406)), MediaIncompatible, "media_incompatible", true},
		{"415", video(remote(415)), MediaIncompatible, "media_incompatible", true},
		{"488", video(remote(488)), MediaIncompatible, "media_incompatible", true},
		{"488 rang", video(ringing(488)), MediaIncompatible, "media_incompatible", true},
		{"488 second", remote(488), MediaIncompatible, "media_incompatible", false},
		{"606", video(remote(606)), MediaIncompatible, "media_incompatible", true},
		{"488 Warning 304", video(Final{Status: 488, Warning: `304 h "x"`, By: "remote"}), MediaIncompatible, "media_incompatible", true},
		{"488 Warning 301", video(Final{Status: 488, Warning: `301 h "x"`, By: "remote"}), MediaIncompatible, "address_family", false},
		{"420", remote(420), NetworkError, "extension_mismatch", false},
		{"421", remote(421), NetworkError, "extension_mismatch", false},
		{"494", remote(494), NetworkError, "extension_mismatch", false},
		{"422", remote(422), NetworkError, "interval_refused", false},
		{"423", remote(423), NetworkError, "interval_refused", false},
		{"433", remote(433), NotAllowed, "anonymous_rejected", false},
		{"428", remote(428), NotAllowed, "identity_rejected", false},
		{"438", remote(438), NotAllowed, "identity_rejected", false},
		{"440", remote(440), NetworkError, "protocol_error", false},
		{"481", remote(481), NetworkError, "dialog_lost", false},
		{"491", remote(491), NetworkError, "glare", false},
		{"499", video(remote(499)), Unreachable, "not_reachable", true},
		{"500", remote(500), NetworkError, "network_failure", false},
		{"502 Q.850 38", Final{Status: 502, Q850: 38, By: "remote"}, NetworkError, "network_failure", false},
		{"503", video(remote(503)), NetworkError, "network_overload", false},
		{"503 Q.850 34", Final{Status: 503, Q850: 34, By: "remote"}, NetworkError, "network_overload", false},
		{"503 video", video(Final{Status: 503, ReasonText: "video service", By: "remote"}), NetworkError, "network_overload", true},
		{"580", video(remote(580)), NetworkError, "qos_failed", true},
		{"580 voice", remote(580), NetworkError, "qos_failed", false},
		{"unknown 4xx", remote(477), NetworkError, "protocol_error", false},
		{"unknown 5xx", remote(599), NetworkError, "network_failure", false},
		{"unknown 6xx", remote(699), Declined, "declined", false},
		{"no SDP", Final{Status: 200, By: "local", Why: "no_sdp"}, MediaIncompatible, "media_incompatible", false},
		{"nonsense SDP", Final{Status: 200, By: "local", Why: "bad_sdp", Connected: true}, MediaIncompatible, "media_incompatible", false},
		{"no line free", Final{By: "network", Why: "no_line"}, NetworkError, "no_line", false},
		{"shed", Final{By: "network", Why: "overload"}, NetworkError, "network_overload", false},
		{"attachment down", Final{By: "local", Why: "attachment_down"}, NetworkError, "attachment_down", false},
		{"policy", Final{By: "local", Why: "blocked_by_policy"}, Blocked, "blocked_by_policy", false},
		{"preconditions", Final{By: "timeout", Why: "precondition_timeout"}, NetworkError, "qos_failed", false},
		{"nothing at all", Final{}, NetworkError, "network_failure", false},

		{"BYE", bye(Final{}), Left, "left", false},
		{"BYE after video", video(bye(Final{})), Left, "left", false},
		{"BYE Q.850 16", bye(Final{Q850: 16}), Left, "left", false},
		{"BYE user ends", bye(Final{ReleaseCause: 1}), Left, "left", false},
		{"BYE RTP timeout", bye(Final{ReleaseCause: 2}), Dropped, "connection_lost", false},
		{"BYE bearer loss", bye(Final{ReleaseCause: 3}), Dropped, "connection_lost", false},
		{"BYE SIP 503", bye(Final{SIPCause: 503}), Dropped, "connection_lost", false},
		{"BYE Q.850 38", bye(Final{Q850: 38}), Dropped, "connection_lost", false},
		{"BYE merge", bye(Final{ReasonText: "N-way conference"}), Left, "moved_to_own_conference", false},
		{"BYE early", bye(Final{Why: "ended_early"}), Left, "ended_early", false},
		{"media timeout", Final{Connected: true, By: "local", Why: "media_timeout"}, Dropped, "media_timeout", false},
		{"dead leg", Final{Connected: true, By: "local", Why: "leg_dead"}, Dropped, "media_timeout", false},
		{"media lost", Final{Connected: true, By: "local", Why: "media_lost"}, Dropped, "connection_lost", false},
		{"media gone", Final{Connected: true, By: "local", Why: "media_down"}, Dropped, "connection_lost", false},
		{"longest call", Final{Connected: true, By: "timeout", Why: "max_duration"}, HungUp, "max_duration", false},
		{"session expired", Final{Connected: true, By: "timeout"}, Dropped, "session_expired", false},
		{"dialog lost", Final{Connected: true, By: "network"}, Dropped, "connection_lost", false},
		{"we hang up", Final{Connected: true, By: "local", Why: "hung_up"}, HungUp, "hung_up", false},
		{"removed", Final{Connected: true, By: "local", Why: "removed"}, HungUp, "removed", false},
		{"room closed", Final{Connected: true, By: "local", Why: "room_closed"}, HungUp, "room_closed", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Classify(tt.f)
			if v.Outcome != tt.outcome || v.Detail != tt.detail || v.RetryAudioOnly != tt.retry {
				t.Errorf("%+v: %s/%s retry %v, want %s/%s retry %v", tt.f, v.Outcome, v.Detail, v.RetryAudioOnly, tt.outcome, tt.detail, tt.retry)
			}
		})
	}
}

// Whatever comes, there is a word of DESIGN §3 for the right half of a call's life, and
// a sentence in both languages.
func TestClassifyIsTotal(t *testing.T) {
	never := map[string]bool{Busy: true, NoAnswer: true, Declined: true, Unreachable: true, NotFound: true, NotAllowed: true,
		Blocked: true, MediaIncompatible: true, Cancelled: true, NetworkError: true}
	after := map[string]bool{Left: true, HungUp: true, Dropped: true, MediaIncompatible: true}
	for status := range 700 {
		for q850 := range 128 {
			for _, by := range []string{"remote", "local", "timeout", "network", ""} {
				for _, connected := range []bool{false, true} {
					v := Classify(Final{Status: status, Q850: q850, By: by, Connected: connected, FirstHadVideo: true})
					if connected && !after[v.Outcome] || !connected && !never[v.Outcome] || v.TextZh == "" || v.TextEn == "" ||
						connected && v.RetryAudioOnly {
						t.Fatalf("%d/%d %s connected=%v: %+v", status, q850, by, connected, v)
					}
				}
			}
		}
	}
}

// Sentences are plain: whole in English, Chinese in Chinese, no codes.
func TestTexts(t *testing.T) {
	for detail, d := range details {
		if !strings.HasSuffix(d.en, ".") || !unicode.IsUpper(rune(d.en[0])) || strings.ContainsAny(d.en, "0123456789_") {
			t.Errorf("%s: %q", detail, d.en)
		}
		if !strings.ContainsFunc(d.zh, func(r rune) bool { return unicode.Is(unicode.Han, r) }) {
			t.Errorf("%s: %q", detail, d.zh)
		}
	}
}
