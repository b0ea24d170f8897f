package aka

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
)

// Errors of Check and Resync.
var (
	ErrMAC  = errors.New("aka: wrong MAC: not from the home network, or a wrong key")
	ErrSync = errors.New("aka: sequence number out of range")
)

// window is how far a sequence number may be ahead: Δ = 2^28 of TS 33.102 annex C.2.1,
// over the five index bits. What is further would lock the SIM out if it were believed.
const window = 1 << (28 + 5)

// SQNMask is the 48 bits of a sequence number.
const SQNMask = 1<<48 - 1

// Vector is one authentication vector of the home network.
type Vector struct {
	RAND [16]byte
	AUTN [16]byte // SQN⊕AK, AMF, MAC
	XRES [8]byte
	CK   [16]byte
	IK   [16]byte
}

// Vector makes the challenge for sqn (48 bits).
func (m *Milenage) Vector(rand [16]byte, sqn uint64, amf [2]byte) Vector {
	v := Vector{RAND: rand}
	var ak [6]byte
	v.XRES, v.CK, v.IK, ak = m.F2345(rand)
	mac, _ := m.F1(rand, sqn, amf)
	s := xor6(sqnBytes(sqn), ak)
	copy(v.AUTN[0:], s[:])
	copy(v.AUTN[6:], amf[:])
	copy(v.AUTN[8:], mac[:])
	return v
}

// Nonce is the digest nonce of the vector (RFC 3310 §3.2).
func (v Vector) Nonce() string {
	return base64.StdEncoding.EncodeToString(append(v.RAND[:], v.AUTN[:]...))
}

// ParseNonce takes RAND and AUTN out of a digest nonce; server data behind them is
// the server's.
func ParseNonce(nonce string) (rand, autn [16]byte, err error) {
	b, err := base64.StdEncoding.DecodeString(nonce)
	if err != nil || len(b) < 32 {
		return rand, autn, errors.New("aka: nonce is not base64 of RAND and AUTN")
	}
	return [16]byte(b), [16]byte(b[16:]), nil
}

// Response is what a SIM answers a good challenge with.
type Response struct {
	RES [8]byte
	CK  [16]byte
	IK  [16]byte
	SQN uint64 // the network's: to be kept as the new SQN_MS before RES is sent
}

// Check is the SIM's side (TS 33.102 §6.3.3): sqnMS is the highest sequence number
// accepted so far. ErrMAC: the challenge is not genuine. ErrSync: it is, but too old or
// too far ahead; auts is then what the network needs to catch up.
func (m *Milenage) Check(rand, autn [16]byte, sqnMS uint64) (r Response, auts [14]byte, err error) {
	res, ck, ik, ak := m.F2345(rand)
	sqn := sqnValue(xor6([6]byte(autn[:6]), ak))
	mac, _ := m.F1(rand, sqn, [2]byte(autn[6:8]))
	if subtle.ConstantTimeCompare(mac[:], autn[8:]) != 1 {
		return r, auts, ErrMAC
	}
	if sqn <= sqnMS || sqn-sqnMS > window {
		return r, m.AUTS(rand, sqnMS), fmt.Errorf("%w: %#x after %#x", ErrSync, sqn, sqnMS)
	}
	return Response{RES: res, CK: ck, IK: ik, SQN: sqn}, auts, nil
}

// AUTS tells the network our sequence number; its AMF is zero (TS 33.102 §6.3.3).
func (m *Milenage) AUTS(rand [16]byte, sqnMS uint64) (auts [14]byte) {
	s := xor6(sqnBytes(sqnMS), m.F5Star(rand))
	_, mac := m.F1(rand, sqnMS, [2]byte{})
	copy(auts[:], s[:])
	copy(auts[6:], mac[:])
	return auts
}

// Resync is the network's side: the SIM's sequence number out of an AUTS for the
// challenge rand.
func (m *Milenage) Resync(rand [16]byte, auts []byte) (sqnMS uint64, err error) {
	if len(auts) != 14 {
		return 0, fmt.Errorf("aka: AUTS of %d bytes, not 14", len(auts))
	}
	sqnMS = sqnValue(xor6([6]byte(auts[:6]), m.F5Star(rand)))
	_, mac := m.F1(rand, sqnMS, [2]byte{})
	if subtle.ConstantTimeCompare(mac[:], auts[6:]) != 1 {
		return 0, ErrMAC
	}
	return sqnMS, nil
}

// PasswordV1 is the digest password of AKAv1-MD5 (RFC 3310 §3.3): the bare bytes of RES.
func PasswordV1(res [8]byte) []byte { return res[:] }

// PasswordV2 is the digest password of AKAv2-MD5 (RFC 4169 §3).
func PasswordV2(res [8]byte, ik, ck [16]byte) []byte {
	key := append(append(append([]byte{}, res[:]...), ik[:]...), ck[:]...)
	h := hmac.New(md5.New, key)
	h.Write([]byte("http-digest-akav2-password"))
	return []byte(base64.StdEncoding.EncodeToString(h.Sum(nil)))
}
