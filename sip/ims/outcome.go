package ims

import (
	"strings"
	"time"
)

// Final is how a call ended, as the signalling says it. It is what sip.Ended carries,
// plus whether the INVITE had offered video.
type Final struct {
	Status        int // of the final response, 0: none
	Phrase        string
	Q850          int    // Reason: Q.850
	SIPCause      int    // Reason: SIP
	ReleaseCause  int    // Reason: RELEASE_CAUSE
	Warning       string // all values of Warning as they came, joined by ", "
	ReasonText    string
	AltService    string // type of a 380's alternative service, "emergency" …
	WasRinging    bool
	Connected     bool
	By            string        // "remote", "local", "timeout", "network" (sip.By)
	Why           string        // our own reason (sip.Ended.Why)
	FirstHadVideo bool          // this attempt offered video and none was without yet
	RetryAfter    time.Duration // of the final response, 0: not said
}

// Verdict is what that means. Outcome is one of DESIGN §3's words, Detail the finer
// reason of IMS.md §6, Retry what that says of another call.
type Verdict struct {
	Outcome string
	Detail  string
	Retry   Retry
	TextZh  string
	TextEn  string
}

// Retry says whether another call to the same number is worth it, and which.
type Retry struct {
	How   string
	After time.Duration // of RetryLater: not before; 0: nobody has said when
}

// The words of Retry.How. What the network can be asked by itself, the next target or an
// adjusted INVITE, has been tried by then.
const (
	RetryNo    = "no"
	RetryAudio = "audio" // at once, without video
	RetryLater = "later"
	RetryFix   = "fix" // after somebody has changed something: the number, the configuration, the contract
)

// RetryOf is the hint for an outcome of which nothing finer is known.
func RetryOf(outcome string) string {
	switch outcome {
	case Busy, NoAnswer, Unreachable, NetworkError, Dropped:
		return RetryLater
	case NotFound, Blocked:
		return RetryFix
	}
	return RetryNo
}

// The outcome words of DESIGN §3.
const (
	Busy              = "busy"
	NoAnswer          = "no_answer"
	Declined          = "declined"
	Unreachable       = "unreachable"
	NotFound          = "not_found"
	NotAllowed        = "not_allowed"
	Blocked           = "blocked"
	MediaIncompatible = "media_incompatible"
	Cancelled         = "cancelled"
	NetworkError      = "network_error"
	Left              = "left"
	HungUp            = "hung_up"
	Dropped           = "dropped"
)

// Classify is the one place where an end of a call becomes a word and a sentence. Own
// reasons come first, then Reason: Q.850, then the status (IMS.md §6).
func Classify(f Final) Verdict {
	var detail string
	if f.Connected {
		detail = connectedDetail(f)
	} else {
		detail = failedDetail(f)
	}
	d := details[detail]
	v := Verdict{Outcome: d.outcome, Detail: detail, Retry: Retry{How: d.retry}, TextZh: d.zh, TextEn: d.en}
	switch {
	case !f.Connected && f.FirstHadVideo && f.By == "remote" && retryable(f, detail):
		v.Retry.How = RetryAudio
	case d.retry == RetryLater:
		v.Retry.After = f.RetryAfter
	case f.Status == 604: // nowhere, says the callee's own network: there is no other form of it to try
		v.Retry.How = RetryNo
	}
	return v
}

// connectedDetail: who ended a call that had been answered, and was it wanted.
func connectedDetail(f Final) string {
	switch f.Why {
	case "removed", "removed_by_participant", "room_closed", "shutdown", "session_expired", "max_duration", "media_timeout":
		return f.Why
	case "no_sdp", "bad_sdp", "no_common_codec", "media_incompatible":
		return "media_incompatible"
	case "dialog_lost", "transport", "connection_lost", "media_down", "media_lost", "attachment_down", "internal":
		return "connection_lost"
	}
	switch f.By {
	case "local":
		return "hung_up"
	case "timeout":
		return "session_expired"
	case "network":
		return "connection_lost"
	}
	text := strings.ToLower(f.ReasonText)
	switch {
	case strings.Contains(text, "conference") || strings.Contains(text, "n-way"):
		return "moved_to_own_conference"
	case f.Q850 == 38 || f.Q850 == 41,
		f.ReleaseCause >= 2 && f.ReleaseCause <= 6,
		f.SIPCause == 503 || f.SIPCause == 408 || f.SIPCause == 500,
		f.Status == 481 || f.Status == 408:
		return "connection_lost"
	case f.Why == "ended_early":
		return "ended_early"
	}
	return "left"
}

func failedDetail(f Final) string {
	if d := ownReason(f); d != "" {
		return d
	}
	text := strings.ToLower(f.Phrase + " " + f.ReasonText)
	switch f.Status { // these mean the same whatever the cause beside them
	case 607, 608:
		return "blocked_as_unwanted"
	case 603:
		if strings.Contains(text, "network blocked") {
			return "blocked_as_unwanted"
		}
	case 406, 415, 488, 606:
		if hasWarning(f.Warning, 301) {
			return "address_family"
		}
		return "media_incompatible"
	case 580:
		return "qos_failed"
	}
	if d := q850Detail(f); d != "" {
		return d
	}
	if d := reasonDetail(f, text); d != "" {
		return d
	}
	if d := statusDetail(f, text); d != "" {
		return d
	}
	switch {
	case f.Status >= 600:
		return "declined"
	case f.Status >= 500 || f.Status == 0:
		return "network_failure"
	case f.Status >= 400:
		return "protocol_error"
	case f.Status >= 300:
		return "redirected"
	}
	return "network_failure"
}

// ownReason: what we decided or found ourselves.
func ownReason(f Final) string {
	switch f.Why {
	case "ring_timeout":
		return "no_answer"
	case "setup_timeout", "no_response", "transport", "attachment_down", "no_line", "blocked_by_policy":
		return f.Why
	case "dial_not_allowed", "emergency":
		return "blocked_by_policy"
	case "no_sdp", "bad_sdp", "no_common_codec", "media_incompatible":
		return "media_incompatible"
	case "precondition_timeout":
		return "qos_failed"
	case "media_down":
		return "media_down"
	case "auth_failed":
		return "auth_failed"
	case "overload": // the peer asked for fewer calls (RFC 7339)
		return "network_overload"
	}
	switch f.By {
	case "local":
		return "cancelled"
	case "timeout":
		if f.WasRinging {
			return "no_answer"
		}
		return "setup_timeout"
	case "network":
		if f.Status == 0 {
			return "no_response"
		}
	}
	return ""
}

// q850Detail is ITU-T Q.850 as far as it says more than the status does.
func q850Detail(f Final) string {
	switch f.Q850 {
	case 1, 3:
		return "number_unknown"
	case 17:
		return "busy"
	case 18:
		if f.WasRinging {
			return "no_answer"
		}
		return "not_reachable"
	case 19:
		return "no_answer"
	case 20:
		if f.WasRinging {
			return "no_answer"
		}
		return "not_reachable"
	case 21:
		return "declined"
	case 22:
		return "number_changed"
	case 28:
		return "number_invalid"
	case 27, 38, 41:
		return "network_failure"
	case 34, 42:
		return "network_overload"
	case 88:
		return "media_incompatible"
	}
	return ""
}

// reasonDetail is Reason: SIP, the answer behind the one that came (a proxy's own 480 or 500,
// say), and RELEASE_CAUSE, as far as they say why a call was not set up.
func reasonDetail(f Final, text string) string {
	if f.SIPCause >= 300 && f.SIPCause < 700 && f.SIPCause != f.Status {
		behind := f
		behind.Status = f.SIPCause
		return statusDetail(behind, text)
	}
	switch f.ReleaseCause {
	case 2, 3, 4, 5, 6: // media, bearer or signalling timed out on the phone
		return "network_failure"
	}
	return ""
}

func statusDetail(f Final, text string) string {
	switch f.Status {
	case 301, 302, 305:
		return "redirected"
	case 380:
		if f.AltService == "emergency" || strings.Contains(text, "emergency") {
			return "emergency"
		}
		return "ps_not_allowed"
	case 400, 413, 513, 440, 469, 470:
		return "protocol_error"
	case 482, 483:
		return "loop"
	case 401, 407:
		return "auth_failed"
	case 402, 403:
		if strings.Contains(text, "stir") || strings.Contains(text, "identity") || strings.Contains(text, "attestation") {
			return "identity_rejected"
		}
		if strings.Contains(text, "subscri") || strings.Contains(strings.ToLower(f.Warning), "subscri") {
			return "not_subscribed"
		}
		return "forbidden"
	case 404, 604:
		return "number_unknown"
	case 405, 501:
		return "method_unsupported"
	case 408, 504:
		if f.WasRinging {
			return "no_answer"
		}
		return "network_timeout"
	case 410:
		return "number_changed"
	case 414, 416, 484, 485:
		return "number_invalid"
	case 420, 421:
		return "extension_mismatch"
	case 494:
		return "agreement_refused"
	case 422, 423:
		return "interval_refused"
	case 428, 436, 437, 438:
		return "identity_rejected"
	case 433:
		return "anonymous_rejected"
	case 480:
		if f.WasRinging {
			return "no_answer"
		}
		return "not_reachable"
	case 481:
		return "dialog_lost"
	case 486:
		return "busy"
	case 487:
		return "no_answer"
	case 491:
		return "glare"
	case 499:
		return "not_reachable"
	case 500, 502:
		return "network_failure"
	case 503:
		return "network_overload"
	case 600, 603:
		return "declined"
	}
	return ""
}

// retryable: IMS.md §3 rows 9, 10, 12, 13 and §6's "A once".
func retryable(f Final, detail string) bool {
	switch f.Status {
	case 406, 415, 488, 606:
		return detail == "media_incompatible"
	case 580:
		return true
	case 380:
		return detail == "ps_not_allowed"
	case 499:
		return true
	case 402, 403, 503:
		return videoHint(f)
	}
	return false
}

// videoHint: a refusal whose words point to the video and not to the caller.
func videoHint(f Final) bool {
	text := strings.ToLower(f.Phrase + " " + f.ReasonText + " " + f.Warning)
	for _, w := range []string{"video", "media type", "vilte", "vt "} {
		if strings.Contains(text, w) {
			return true
		}
	}
	return hasWarning(f.Warning, 304) || hasWarning(f.Warning, 305) || hasWarning(f.Warning, 370)
}

func hasWarning(v string, code int) bool {
	for _, w := range ParseWarnings([]string{v}) {
		if w.Code == code {
			return true
		}
	}
	return false
}
