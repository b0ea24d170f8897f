package lab

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"

	"sparkle/sip/aka"
)

// vectors is the home network's half of a SIM: it makes challenges and follows the
// SIM's sequence number (TS 33.102 §6.3).
type vectors struct {
	m   *aka.Milenage
	amf [2]byte
	sqn uint64
	rnd io.Reader // where RAND comes from
}

// sqnStep leaves the five low bits, the index of the SIM's array, at zero
// (TS 33.102 annex C.1.2).
const sqnStep = 1 << 5

func newVectors(a Auth) (*vectors, error) {
	m, err := aka.New(a.K, a.OPc)
	if err != nil {
		return nil, err
	}
	v := &vectors{m: m, amf: [2]byte{0x80, 0}, sqn: a.SQN, rnd: rand.Reader}
	if a.AMF != nil {
		v.amf = [2]byte(a.AMF)
	}
	return v, nil
}

// next is a new challenge: the nonce and the password that answers it.
func (v *vectors) next() (nonce string, password []byte, err error) {
	var r [16]byte
	if _, err := io.ReadFull(v.rnd, r[:]); err != nil {
		return "", nil, err
	}
	v.sqn = (v.sqn + sqnStep) & aka.SQNMask
	vec := v.m.Vector(r, v.sqn, v.amf)
	return vec.Nonce(), aka.PasswordV1(vec.XRES), nil
}

// resync takes over the SIM's sequence number from an AUTS for the challenge nonce.
func (v *vectors) resync(nonce, auts string) error {
	r, _, err := aka.ParseNonce(nonce)
	if err != nil {
		return err
	}
	b, err := base64.StdEncoding.DecodeString(auts)
	if err != nil {
		return fmt.Errorf("auts: %w", err)
	}
	sqn, err := v.m.Resync(r, b)
	if err != nil {
		return err
	}
	v.sqn = sqn &^ (sqnStep - 1)
	return nil
}

// usim is a handset's SIM.
type usim struct {
	m   *aka.Milenage
	sqn uint64
	res []byte // answer to the last challenge
}

// NewSIM is a SIM with secrets of its own.
func NewSIM() Auth {
	a := Auth{Algorithm: AKAv1, K: make([]byte, 16), OPc: make([]byte, 16)}
	for _, b := range [][]byte{a.K, a.OPc} {
		if _, err := rand.Read(b); err != nil {
			panic("no randomness: " + err.Error()) // crypto/rand never fails on Linux
		}
	}
	n, err := rand.Int(rand.Reader, big.NewInt(1<<20))
	if err != nil {
		panic("no randomness: " + err.Error())
	}
	a.SQN = n.Uint64() * sqnStep
	return a
}

func (h *Handset) newUSIM() error {
	if h.auth.Algorithm != AKAv1 {
		return nil
	}
	m, err := aka.New(h.auth.K, h.auth.OPc)
	if err != nil {
		return err
	}
	h.reg.usim = usim{m: m, sqn: h.auth.SQN}
	return nil
}

// answer checks a challenge as a SIM does and keeps RES.
func (u *usim) answer(nonce string) error {
	r, autn, err := aka.ParseNonce(nonce)
	if err != nil {
		return err
	}
	res, _, err := u.m.Check(r, autn, u.sqn)
	if err != nil {
		return err // our own core is in step, or something is badly wrong
	}
	if res.SQN <= u.sqn {
		return errors.New("challenge repeated")
	}
	u.sqn, u.res = res.SQN, aka.PasswordV1(res.RES)
	return nil
}
