// Package aka is authentication and key agreement as a SIM and a home network do it:
// Milenage (TS 35.206), the AUTN check and resynchronisation (TS 33.102 §6.3), and the
// digest passwords made of it (RFC 3310, RFC 4169). Both sides are here: the UA is the
// SIM, a test core the network.
package aka

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"fmt"
)

// Milenage is one subscriber's key. It is safe for concurrent use.
type Milenage struct {
	block cipher.Block
	opc   [16]byte
}

// New makes a Milenage of K and OPc, 16 bytes each.
func New(k, opc []byte) (*Milenage, error) {
	if len(k) != 16 || len(opc) != 16 {
		return nil, fmt.Errorf("aka: K and OPc are 16 bytes, not %d and %d", len(k), len(opc))
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("aka: %w", err)
	}
	m := &Milenage{block: block}
	copy(m.opc[:], opc)
	return m, nil
}

// NewHex makes a Milenage of hex K and either opc or, if that is empty, op.
func NewHex(k, op, opc string) (*Milenage, error) {
	key, err := hexKey("K", k)
	if err != nil {
		return nil, err
	}
	if opc != "" {
		b, err := hexKey("OPc", opc)
		if err != nil {
			return nil, err
		}
		return New(key, b)
	}
	b, err := hexKey("OP", op)
	if err != nil {
		return nil, err
	}
	c, err := OPc(key, b)
	if err != nil {
		return nil, err
	}
	return New(key, c[:])
}

// hexKey does not repeat the text in its error: it may be a key.
func hexKey(name, s string) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 16 {
		return nil, fmt.Errorf("aka: %s is not 32 hex digits", name)
	}
	return b, nil
}

// OPc derives the subscriber's OPc from the operator's OP (TS 35.206 §4.1).
func OPc(k, op []byte) ([16]byte, error) {
	var c [16]byte
	if len(k) != 16 || len(op) != 16 {
		return c, fmt.Errorf("aka: K and OP are 16 bytes, not %d and %d", len(k), len(op))
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return c, fmt.Errorf("aka: %w", err)
	}
	block.Encrypt(c[:], op)
	return xor(c, [16]byte(op)), nil
}

func xor(a, b [16]byte) [16]byte {
	for i := range a {
		a[i] ^= b[i]
	}
	return a
}

func (m *Milenage) encrypt(in [16]byte) (out [16]byte) {
	m.block.Encrypt(out[:], in[:])
	return out
}

// rot rotates towards the most significant bit by bytes: all r of TS 35.206 §4.1 are
// multiples of eight.
func rot(a [16]byte, n int) (out [16]byte) {
	for i := range a {
		out[i] = a[(i+n)%16]
	}
	return out
}

// out computes OUTn: E[rot(TEMP ^ OPc, r) ^ c] ^ OPc.
func (m *Milenage) out(rand [16]byte, r int, c byte) [16]byte {
	temp := m.encrypt(xor(rand, m.opc))
	in := rot(xor(temp, m.opc), r)
	in[15] ^= c
	return xor(m.encrypt(in), m.opc)
}

// F1 is f1 and f1*: the network's and the resynchronisation's MAC. sqn has 48 bits.
func (m *Milenage) F1(rand [16]byte, sqn uint64, amf [2]byte) (macA, macS [8]byte) {
	var in [16]byte
	s := sqnBytes(sqn)
	copy(in[0:], s[:])
	copy(in[6:], amf[:])
	copy(in[8:], in[:8])
	temp := m.encrypt(xor(rand, m.opc))
	out := xor(m.encrypt(xor(temp, rot(xor(in, m.opc), 8))), m.opc)
	return [8]byte(out[:8]), [8]byte(out[8:])
}

// F2345 is f2, f3, f4 and f5: RES, CK, IK and the anonymity key.
func (m *Milenage) F2345(rand [16]byte) (res [8]byte, ck, ik [16]byte, ak [6]byte) {
	o := m.out(rand, 0, 1)
	return [8]byte(o[8:]), m.out(rand, 4, 2), m.out(rand, 8, 4), [6]byte(o[:6])
}

// F5Star is f5*: the anonymity key of resynchronisation.
func (m *Milenage) F5Star(rand [16]byte) [6]byte {
	o := m.out(rand, 12, 8)
	return [6]byte(o[:6])
}

func sqnBytes(sqn uint64) [6]byte {
	return [6]byte{byte(sqn >> 40), byte(sqn >> 32), byte(sqn >> 24), byte(sqn >> 16), byte(sqn >> 8), byte(sqn)}
}

func sqnValue(b [6]byte) (sqn uint64) {
	for _, v := range b {
		sqn = sqn<<8 | uint64(v)
	}
	return sqn
}

func xor6(a, b [6]byte) [6]byte {
	for i := range a {
		a[i] ^= b[i]
	}
	return a
}
