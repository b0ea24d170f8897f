// Package cdr keeps charging records: one for every leg that has ended, in or out,
// connected or not. They are lines of JSON in files that a mediation system collects;
// a file that is still written ends in .part.
package cdr

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"sparkle/bridge"
)

// Record is one charging record. Its fields are those that TS 32.260 names for an MRFC
// or AS record, as far as we have them. Times are UTC with milliseconds; bytes are those
// of RTP with its header; rx is what came from the phone. A key that does not apply is
// not there in JSON and empty in CSV.
type Record struct {
	Seq           uint64 `json:"seq"` // 1, 2, 3 … without a gap over all files
	Version       int    `json:"v"`
	Leg           string `json:"leg_id"`
	Conference    string `json:"conference_id"`
	Member        string `json:"member_id,omitempty"`
	Attachment    string `json:"attachment"`
	Direction     string `json:"direction"` // outbound | inbound
	Calling       string `json:"calling"`
	Called        string `json:"called"`
	CallID        string `json:"call_id,omitempty"` // of the last INVITE; none: it never left
	ICID          string `json:"icid,omitempty"`
	OrigIOI       string `json:"orig_ioi,omitempty"`
	TermIOI       string `json:"term_ioi,omitempty"`
	AccessNetwork string `json:"access_network,omitempty"` // P-Access-Network-Info of the phone
	Start         Time   `json:"start"`
	Ring          Time   `json:"ring,omitzero"`
	Answer        Time   `json:"answer,omitzero"`
	End           Time   `json:"end"`
	// Duration is from answer to end, seconds to the millisecond; 0 if it never connected.
	Duration  float64 `json:"duration_s"`
	Outcome   string  `json:"outcome"`          // busy, no_answer … left, hung_up, dropped
	Reason    string  `json:"reason,omitempty"` // finer than the outcome: number_changed, ended_early, removed …
	SIPStatus int     `json:"sip_status,omitempty"`
	SIPReason string  `json:"sip_reason,omitempty"`
	Q850      int     `json:"q850,omitempty"`
	// ReasonHeader is Reason as it came (RFC 3326).
	ReasonHeader string `json:"reason_header,omitempty"`
	// Attempts are the leg's INVITEs of ours up to this record. Each has an icid of its own and a
	// record: Superseded is that of one which another followed, by voice only or with the number
	// in another form.
	Attempts   int  `json:"attempts,omitempty"`
	Superseded bool `json:"superseded,omitempty"`

	Audio          string `json:"audio,omitempty"` // codec
	AudioMode      string `json:"audio_mode,omitempty"`
	Video          string `json:"video,omitempty"`
	WhyNoVideo     string `json:"why_no_video,omitempty"`
	AudioRxPackets uint64 `json:"audio_rx_packets"`
	AudioRxBytes   uint64 `json:"audio_rx_bytes"`
	AudioTxPackets uint64 `json:"audio_tx_packets"`
	AudioTxBytes   uint64 `json:"audio_tx_bytes"`
	VideoRxPackets uint64 `json:"video_rx_packets"`
	VideoRxBytes   uint64 `json:"video_rx_bytes"`
	VideoTxPackets uint64 `json:"video_tx_packets"`
	VideoTxBytes   uint64 `json:"video_tx_bytes"`
	// Recovered: written after a restart from the database, so that packets and the
	// access network may be missing. Of a call that a crash took End is when the server was last
	// known to live, at most 3 s before it died.
	Recovered bool `json:"recovered,omitempty"`
	// CallingUnverified: no trusted network says who called; Calling is what his From says.
	CallingUnverified bool `json:"calling_unverified,omitempty"`
}

const version = 1

// Time is written as UTC with milliseconds: 2026-11-25T18:07:00.123Z.
type Time struct{ time.Time }

const layout = "2006-01-02T15:04:05.000Z"

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

func (t Time) String() string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(layout)
}

func timeOf(t *time.Time) Time {
	if t == nil {
		return Time{}
	}
	return Time{*t}
}

// recordOf makes the record of an ended leg, without sequence number.
func (o Options) recordOf(r bridge.LegRecord) Record {
	l := r.Leg
	c := Record{
		Version: version, Leg: l.ID, Conference: l.Conference, Member: l.Member, Attachment: l.Attachment, Direction: l.Direction,
		Calling: cmp.Or(r.Calling, o.Identities[l.Attachment]), Called: r.Number,
		CallID: l.CallID, ICID: l.ICID, AccessNetwork: r.AccessNetwork,
		Start: Time{l.StartedAt}, Ring: timeOf(l.RingingAt), Answer: timeOf(l.ConnectedAt), End: timeOf(l.EndedAt),
		Outcome: string(l.Outcome), Reason: l.Reason, Attempts: l.Attempts, Superseded: r.Superseded, Recovered: r.Recovered,
		CallingUnverified: l.Unverified,
	}
	if l.Direction == "inbound" {
		c.Calling, c.Called = c.Called, cmp.Or(r.Dialled, c.Calling)
	}
	if o.Masked {
		c.Calling, c.Called = bridge.MaskNumbers(c.Calling), bridge.MaskNumbers(c.Called)
	}
	if l.Charging != nil {
		c.OrigIOI, c.TermIOI = l.Charging.OrigIOI, l.Charging.TermIOI
	}
	if c.Duration = l.DurationS; c.Duration == 0 && l.ConnectedAt != nil && l.EndedAt != nil {
		c.Duration = float64(max(l.EndedAt.Sub(*l.ConnectedAt), 0).Milliseconds()) / 1000
	}
	if l.SIP != nil {
		c.SIPStatus, c.SIPReason, c.Q850, c.ReasonHeader = l.SIP.Status, l.SIP.Reason, l.SIP.Q850, l.SIP.Header
	}
	if a := l.Media.Audio; a != nil {
		c.Audio, c.AudioMode = a.Codec, a.Mode
	}
	if v := l.Media.Video; v != nil {
		c.Video = v.Codec
	}
	if w := l.Media.WhyNoVideo; w != nil {
		c.WhyNoVideo = *w
	}
	if u := l.Usage; u != nil {
		c.AudioRxPackets, c.AudioRxBytes, c.AudioTxPackets, c.AudioTxBytes = u.Audio.RxPackets, u.Audio.RxBytes, u.Audio.TxPackets, u.Audio.TxBytes
		c.VideoRxPackets, c.VideoRxBytes, c.VideoTxPackets, c.VideoTxBytes = u.Video.RxPackets, u.Video.RxBytes, u.Video.TxPackets, u.Video.TxBytes
	}
	return c
}

// sip is how the network ended it, nil if it said nothing.
func (c Record) sip() *bridge.SIPResult {
	if c.SIPStatus == 0 && c.Q850 == 0 && c.ReasonHeader == "" {
		return nil
	}
	return &bridge.SIPResult{Status: c.SIPStatus, Reason: c.SIPReason, Q850: c.Q850, Header: c.ReasonHeader}
}

// Columns are the keys of a record in their order: the header of the CSV.
func Columns() []string {
	var names []string
	for f := range reflect.TypeFor[Record]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// row is a record as CSV: what JSON leaves out is empty.
func (c Record) row() []string {
	var row []string
	for f, v := range reflect.ValueOf(c).Fields() {
		omit := strings.Contains(f.Tag.Get("json"), "omit")
		switch x := v.Interface().(type) {
		case string:
			row = append(row, harmless(x))
		case Time:
			row = append(row, x.String())
		default:
			if omit && v.IsZero() {
				row = append(row, "")
			} else if d, ok := x.(float64); ok {
				row = append(row, strconv.FormatFloat(d, 'f', 3, 64))
			} else {
				row = append(row, fmt.Sprint(x))
			}
		}
	}
	return row
}

// harmless keeps a spreadsheet from taking a text of the network's for a formula. A +
// before digits is a number's.
func harmless(s string) string {
	if s == "" || !strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return s
	}
	if s[0] == '+' && strings.Trim(s[1:], "0123456789*") == "" {
		return s
	}
	return "'" + s
}

// Encoder writes records as "jsonl" or "csv".
type Encoder struct {
	json *json.Encoder
	csv  *csv.Writer
}

// NewEncoder begins an output; that of CSV begins with the header.
func NewEncoder(w io.Writer, format string) (*Encoder, error) {
	switch format {
	case "jsonl":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return &Encoder{json: e}, nil
	case "csv":
		e := csv.NewWriter(w)
		return &Encoder{csv: e}, e.Write(Columns())
	}
	return nil, fmt.Errorf("%q is not a format: jsonl or csv", format)
}

// Encode writes one record.
func (e *Encoder) Encode(r Record) error {
	if e.csv != nil {
		return e.csv.Write(r.row())
	}
	return e.json.Encode(r)
}

// Flush writes what is still held back.
func (e *Encoder) Flush() error {
	if e.csv == nil {
		return nil
	}
	e.csv.Flush()
	return e.csv.Error()
}
