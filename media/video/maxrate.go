package video

import (
	"encoding/binary"
	"math/bits"

	"github.com/pion/rtcp"
)

// Feedback message types of RTPFB (RFC 5104 §4.2).
const (
	fmtTMMBR = 3
	fmtTMMBN = 4
)

// maxRate is an entry of a TMMBR or TMMBN (RFC 5104 §4.2.1.1): at most bps bit/s, with
// overhead octets of headers for each packet counted in.
type maxRate struct {
	ssrc     uint32 // TMMBR: whose stream; TMMBN: who asked
	bps      uint64
	overhead uint16 // octets, 9 bits
}

// parseMaxRates reads a TMMBR or TMMBN: its kind, who sent it and its entries. False: it is
// neither, or cut off.
func parseMaxRates(b []byte) (kind uint8, sender uint32, entries []maxRate, ok bool) {
	if len(b) < 12 || b[1] != uint8(rtcp.TypeTransportSpecificFeedback) || len(b)%8 != 4 {
		return 0, 0, nil, false
	}
	if kind = b[0] & 0x1f; kind != fmtTMMBR && kind != fmtTMMBN {
		return 0, 0, nil, false
	}
	for e := b[12:]; len(e) >= 8; e = e[8:] {
		word := binary.BigEndian.Uint32(e[4:])
		exp, mantissa := word>>26, uint64(word>>9&0x1ffff)
		bps := mantissa << exp
		if bps>>exp != mantissa { // 17 bits moved out of 64: no limit that anybody means
			bps = 1<<63 - 1
		}
		entries = append(entries, maxRate{binary.BigEndian.Uint32(e), bps, uint16(word & 0x1ff)})
	}
	return kind, binary.BigEndian.Uint32(b[4:]), entries, true
}

// putMaxRates writes a TMMBR or TMMBN. The header's media source is 0 in both: the entries
// name theirs.
func putMaxRates(kind uint8, sender uint32, entries ...maxRate) rtcp.Packet {
	b := make([]byte, 12+8*len(entries))
	b[0], b[1] = 0x80|kind, uint8(rtcp.TypeTransportSpecificFeedback)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)/4-1))
	binary.BigEndian.PutUint32(b[4:], sender)
	for i, e := range entries {
		exp := max(0, bits.Len64(e.bps)-17)
		binary.BigEndian.PutUint32(b[12+8*i:], e.ssrc)
		binary.BigEndian.PutUint32(b[16+8*i:], uint32(exp)<<26|uint32(e.bps>>exp)<<9|uint32(min(e.overhead, 0x1ff)))
	}
	raw := rtcp.RawPacket(b)
	return &raw
}

// payloadOf is how much of a rate is left for pictures of fps a second when the headers of
// their packets are paid.
func (m maxRate) payloadOf(fps int) int {
	total := int(min(m.bps, 1<<40))
	packets := max(fps, total/8/1000) // a second
	return max(0, total-packets*int(m.overhead)*8)
}
