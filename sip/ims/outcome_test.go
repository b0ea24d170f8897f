package ims

import (
	"slices"
	"strings"
	"testing"
	"time"
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
		retry   string // IMS.md §6's column, as it stands when what goes by itself has been tried
	}{
		{"486", ringing(486), Busy, "busy", RetryLater},
		{"486 video", video(remote(486)), Busy, "busy", RetryLater},
		{"600", ringing(600), Declined, "declined", RetryNo},
		{"603", ringing(603), Declined, "declined", RetryNo},
		{"603 video", video(ringing(603)), Declined, "declined", RetryNo},
		{"603 Network Blocked", Final{Status: 603, Phrase: "Network Blocked", Q850: 21, By: "remote"}, Blocked, "blocked_as_unwanted", RetryFix},
		{"607", remote(607), Blocked, "blocked_as_unwanted", RetryFix},
		{"608", remote(608), Blocked, "blocked_as_unwanted", RetryFix},
		{"480", remote(480), Unreachable, "not_reachable", RetryLater},
		{"480 rang", ringing(480), NoAnswer, "no_answer", RetryLater},
		{"480 Q.850 20", Final{Status: 480, Q850: 20, By: "remote"}, Unreachable, "not_reachable", RetryLater},
		{"480 Q.850 18 rang", Final{Status: 480, Q850: 18, WasRinging: true, By: "remote"}, NoAnswer, "no_answer", RetryLater},
		{"480 Q.850 17", Final{Status: 480, Q850: 17, By: "remote"}, Busy, "busy", RetryLater},
		{"480 Q.850 21", Final{Status: 480, Q850: 21, By: "remote"}, Declined, "declined", RetryNo},
		{"480 Q.850 31", Final{Status: 480, Q850: 31, By: "remote"}, Unreachable, "not_reachable", RetryLater},
		{"487 ring timer", Final{Status: 487, By: "timeout", Why: "ring_timeout", WasRinging: true}, NoAnswer, "no_answer", RetryLater},
		{"487 unsolicited", Final{Status: 487, Q850: 19, By: "remote", WasRinging: true}, NoAnswer, "no_answer", RetryLater},
		{"487 cancelled", Final{Status: 487, By: "local", Why: "cancelled", WasRinging: true}, Cancelled, "cancelled", RetryNo},
		{"408", remote(408), Unreachable, "network_timeout", RetryLater},
		{"408 rang", ringing(408), NoAnswer, "no_answer", RetryLater},
		{"504", remote(504), Unreachable, "network_timeout", RetryLater},
		{"no response", Final{By: "network", Why: "no_response"}, NetworkError, "no_response", RetryLater},
		{"no response, unnamed", Final{By: "network"}, NetworkError, "no_response", RetryLater},
		{"transport", Final{By: "network", Why: "transport"}, NetworkError, "transport", RetryLater},
		{"setup timer", Final{By: "timeout", Why: "setup_timeout"}, Unreachable, "setup_timeout", RetryLater},
		{"timer, unnamed", Final{By: "timeout", WasRinging: true}, NoAnswer, "no_answer", RetryLater},
		{"404", remote(404), NotFound, "number_unknown", RetryFix},
		{"404 Q.850 1", Final{Status: 404, Q850: 1, By: "remote"}, NotFound, "number_unknown", RetryFix},
		{"604", remote(604), NotFound, "number_unknown", RetryNo},
		{"410", remote(410), NotFound, "number_changed", RetryFix},
		{"Q.850 22", Final{Status: 404, Q850: 22, By: "remote"}, NotFound, "number_changed", RetryFix},
		{"484", remote(484), NotFound, "number_invalid", RetryFix},
		{"485", remote(485), NotFound, "number_invalid", RetryFix},
		{"416", remote(416), NotFound, "number_invalid", RetryFix},
		{"414", remote(414), NotFound, "number_invalid", RetryFix},
		{"302", remote(302), Unreachable, "redirected", RetryNo},
		{"301", remote(301), Unreachable, "redirected", RetryNo},
		{"305", remote(305), Unreachable, "redirected", RetryNo},
		{"380", video(remote(380)), NotAllowed, "ps_not_allowed", RetryAudio},
		{"380 emergency", video(Final{Status: 380, Phrase: "Emergency", By: "remote"}), NotAllowed, "emergency", RetryNo},
		{"380 emergency in its body", video(Final{Status: 380, Phrase: "Alternative Service", AltService: "emergency", By: "remote"}), NotAllowed, "emergency", RetryNo},
		{"400", video(remote(400)), NetworkError, "protocol_error", RetryFix},
		{"413", remote(413), NetworkError, "protocol_error", RetryFix},
		{"513", remote(513), NetworkError, "protocol_error", RetryFix},
		{"482", remote(482), NetworkError, "loop", RetryFix},
		{"483", remote(483), NetworkError, "loop", RetryFix},
		{"401", remote(401), NotAllowed, "auth_failed", RetryFix},
		{"407", remote(407), NotAllowed, "auth_failed", RetryFix},
		{"402", remote(402), NotAllowed, "forbidden", RetryNo},
		{"403", video(remote(403)), NotAllowed, "forbidden", RetryNo},
		{"403 video", video(Final{Status: 403, Phrase: "Video not subscribed", By: "remote"}), NotAllowed, "not_subscribed", RetryAudio},
		{"403 STIR", Final{Status: 403, Phrase: "Stale identity", By: "remote"}, NotAllowed, "identity_rejected", RetryFix},
		{"405", remote(405), NetworkError, "method_unsupported", RetryFix},
		{"501", remote(501), NetworkError, "method_unsupported", RetryFix},
		{"406", video(remote(406)), MediaIncompatible, "media_incompatible", RetryAudio},
		{"415", video(remote(415)), MediaIncompatible, "media_incompatible", RetryAudio},
		{"488", video(remote(488)), MediaIncompatible, "media_incompatible", RetryAudio},
		{"488 rang", video(ringing(488)), MediaIncompatible, "media_incompatible", RetryAudio},
		{"488 second", remote(488), MediaIncompatible, "media_incompatible", RetryNo},
		{"606", video(remote(606)), MediaIncompatible, "media_incompatible", RetryAudio},
		{"488 Warning 304", video(Final{Status: 488, Warning: `304 h "x"`, By: "remote"}), MediaIncompatible, "media_incompatible", RetryAudio},
		{"488 Warning 301", video(Final{Status: 488, Warning: `301 h "x"`, By: "remote"}), MediaIncompatible, "address_family", RetryFix},
		{"488 Warnings 399 and 301", video(Final{Status: 488, Warning: `399 h "x, y", 301 h "z"`, By: "remote"}), MediaIncompatible, "address_family", RetryFix},
		{"503 Warnings 399 and 304", video(Final{Status: 503, Warning: `399 h "x", 304 h "z"`, By: "remote"}), NetworkError, "network_overload", RetryAudio},
		{"420", remote(420), NetworkError, "extension_mismatch", RetryFix},
		{"421", remote(421), NetworkError, "extension_mismatch", RetryFix},
		{"494", remote(494), NetworkError, "agreement_refused", RetryLater},
		{"422", remote(422), NetworkError, "interval_refused", RetryFix},
		{"423", remote(423), NetworkError, "interval_refused", RetryFix},
		{"433", remote(433), NotAllowed, "anonymous_rejected", RetryFix},
		{"428", remote(428), NotAllowed, "identity_rejected", RetryFix},
		{"436", remote(436), NotAllowed, "identity_rejected", RetryFix},
		{"437", remote(437), NotAllowed, "identity_rejected", RetryFix},
		{"438", remote(438), NotAllowed, "identity_rejected", RetryFix},
		{"440", remote(440), NetworkError, "protocol_error", RetryFix},
		{"469", remote(469), NetworkError, "protocol_error", RetryFix},
		{"470", remote(470), NetworkError, "protocol_error", RetryFix},
		{"481", remote(481), NetworkError, "dialog_lost", RetryLater},
		{"491", remote(491), NetworkError, "glare", RetryLater},
		{"499", video(remote(499)), Unreachable, "not_reachable", RetryAudio},
		{"500", remote(500), NetworkError, "network_failure", RetryLater},
		{"502 Q.850 38", Final{Status: 502, Q850: 38, By: "remote"}, NetworkError, "network_failure", RetryLater},
		{"503", video(remote(503)), NetworkError, "network_overload", RetryLater},
		{"503 Q.850 34", Final{Status: 503, Q850: 34, By: "remote"}, NetworkError, "network_overload", RetryLater},
		{"503 video", video(Final{Status: 503, ReasonText: "video service", By: "remote"}), NetworkError, "network_overload", RetryAudio},
		{"580", video(remote(580)), NetworkError, "qos_failed", RetryAudio},
		{"580 voice", remote(580), NetworkError, "qos_failed", RetryLater},
		{"480 behind which there was a 486", Final{Status: 480, SIPCause: 486, By: "remote"}, Busy, "busy", RetryLater},
		{"500 behind which there was a 603", Final{Status: 500, SIPCause: 603, By: "remote"}, Declined, "declined", RetryNo},
		{"Q.850 before SIP", Final{Status: 480, Q850: 1, SIPCause: 486, By: "remote"}, NotFound, "number_unknown", RetryFix},
		{"480 SIP 200", Final{Status: 480, SIPCause: 200, By: "remote"}, Unreachable, "not_reachable", RetryLater},
		{"480 and a cause nobody knows", Final{Status: 480, SIPCause: 399, By: "remote"}, Unreachable, "not_reachable", RetryLater},
		{"480 bearer lost", Final{Status: 480, ReleaseCause: 3, By: "remote"}, NetworkError, "network_failure", RetryLater},
		{"486 its user ended", Final{Status: 486, ReleaseCause: 1, By: "remote"}, Busy, "busy", RetryLater},
		{"488 whatever is behind", video(Final{Status: 488, SIPCause: 486, By: "remote"}), MediaIncompatible, "media_incompatible", RetryAudio},
		{"unknown 4xx", remote(477), NetworkError, "protocol_error", RetryFix},
		{"unknown 5xx", remote(599), NetworkError, "network_failure", RetryLater},
		{"unknown 6xx", remote(699), Declined, "declined", RetryNo},
		{"no SDP", Final{Status: 200, By: "local", Why: "no_sdp"}, MediaIncompatible, "media_incompatible", RetryNo},
		{"nonsense SDP", Final{Status: 200, By: "local", Why: "bad_sdp", Connected: true}, MediaIncompatible, "media_incompatible", RetryNo},
		{"no line free", Final{By: "network", Why: "no_line"}, NetworkError, "no_line", RetryLater},
		{"shed", Final{By: "network", Why: "overload"}, NetworkError, "network_overload", RetryLater},
		{"attachment down", Final{By: "local", Why: "attachment_down"}, NetworkError, "attachment_down", RetryLater},
		{"policy", Final{By: "local", Why: "blocked_by_policy"}, Blocked, "blocked_by_policy", RetryFix},
		{"preconditions", Final{By: "timeout", Why: "precondition_timeout"}, NetworkError, "qos_failed", RetryLater},
		{"nothing at all", Final{}, NetworkError, "network_failure", RetryLater},

		{"BYE", bye(Final{}), Left, "left", RetryNo},
		{"BYE after video", video(bye(Final{})), Left, "left", RetryNo},
		{"BYE Q.850 16", bye(Final{Q850: 16}), Left, "left", RetryNo},
		{"BYE user ends", bye(Final{ReleaseCause: 1}), Left, "left", RetryNo},
		{"BYE RTP timeout", bye(Final{ReleaseCause: 2}), Dropped, "connection_lost", RetryLater},
		{"BYE bearer loss", bye(Final{ReleaseCause: 3}), Dropped, "connection_lost", RetryLater},
		{"BYE SIP 503", bye(Final{SIPCause: 503}), Dropped, "connection_lost", RetryLater},
		{"BYE Q.850 38", bye(Final{Q850: 38}), Dropped, "connection_lost", RetryLater},
		{"BYE merge", bye(Final{ReasonText: "N-way conference"}), Left, "moved_to_own_conference", RetryNo},
		{"BYE early", bye(Final{Why: "ended_early"}), Left, "ended_early", RetryLater},
		{"media timeout", Final{Connected: true, By: "local", Why: "media_timeout"}, Dropped, "media_timeout", RetryLater},
		{"media lost", Final{Connected: true, By: "local", Why: "media_lost"}, Dropped, "connection_lost", RetryLater},
		{"media gone", Final{Connected: true, By: "local", Why: "media_down"}, Dropped, "connection_lost", RetryLater},
		{"longest call", Final{Connected: true, By: "timeout", Why: "max_duration"}, HungUp, "max_duration", RetryNo},
		{"session expired", Final{Connected: true, By: "timeout"}, Dropped, "session_expired", RetryLater},
		{"dialog lost", Final{Connected: true, By: "network"}, Dropped, "connection_lost", RetryLater},
		{"we hang up", Final{Connected: true, By: "local", Why: "hung_up"}, HungUp, "hung_up", RetryNo},
		{"removed", Final{Connected: true, By: "local", Why: "removed"}, HungUp, "removed", RetryNo},
		{"removed by another", Final{Connected: true, By: "local", Why: "removed_by_participant"}, HungUp, "removed_by_participant", RetryNo},
		{"server stopped", Final{Connected: true, By: "local", Why: "shutdown"}, HungUp, "shutdown", RetryLater},
		{"room closed", Final{Connected: true, By: "local", Why: "room_closed"}, HungUp, "room_closed", RetryNo},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Classify(tt.f)
			if v.Outcome != tt.outcome || v.Detail != tt.detail || v.Retry.How != tt.retry {
				t.Errorf("%+v: %s/%s retry %v, want %s/%s retry %v", tt.f, v.Outcome, v.Detail, v.Retry.How, tt.outcome, tt.detail, tt.retry)
			}
		})
	}
}

// Retry-After says when, where later is worth it at all.
func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		status int
		want   Retry
	}{
		{503, Retry{RetryLater, 90 * time.Second}},
		{480, Retry{RetryLater, 90 * time.Second}},
		{486, Retry{RetryLater, 90 * time.Second}},
		{603, Retry{RetryNo, 0}},
		{404, Retry{RetryFix, 0}},
		{488, Retry{RetryAudio, 0}},
	} {
		f := Final{Status: tt.status, By: "remote", FirstHadVideo: true, RetryAfter: 90 * time.Second}
		if got := Classify(f).Retry; got != tt.want {
			t.Errorf("%d: %+v, want %+v", tt.status, got, tt.want)
		}
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
						connected && v.Retry.How == RetryAudio || !slices.Contains([]string{RetryNo, RetryAudio, RetryLater, RetryFix}, v.Retry.How) {
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
