package digest

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"
)

// ServerOptions are the user that a Server knows and what it asks of him.
type ServerOptions struct {
	Realm, Username, Password string
	Algorithms                []string // of Servable
}

// Servable are the algorithms that a Server can ask for, strongest first.
func Servable() []string { return []string{SHA512256, SHA256, MD5} }

// Server asks for the proof of one user and checks it (RFC 3261 §22.1, RFC 7616, RFC 8760). It
// is safe for concurrent use.
//
// It remembers nothing of a challenge: a nonce proves by itself that it was made here, for that
// address. What it remembers is which nonce counts were used with which nonce, and only those of
// right proofs, so that who does not know the password cannot fill it:
//
//	nonce = generation, salt, MAC of both and the asked address
//	time    |--- generation 1 ---|--- generation 2 ---|--- generation 3 ---
//	uses         [1]                 [1] [2]              [2] [3]
//
// A nonce is good in its generation and the next one; with the uses of a generation that are
// forgotten its nonces are stale, so none can be used twice, and memory has a bound.
type Server struct {
	realm, username string
	password        []byte
	algorithms      []string // strongest first
	key             [32]byte // of this process: no nonce outlives it

	mu       sync.Mutex
	number   uint32    // of the generation now
	since    time.Time // when it began
	now, old map[nonceMAC]window
}

const (
	// generation is how long nonces are given out before the uses of those before the last ones
	// are forgotten: a nonce is good for so long at least, and for twice as long at most.
	generation = 150 * time.Second
	// maxUsed bounds the nonces of a generation whose uses are remembered. It ends at half of that,
	// to leave room for those that are given out and not used yet.
	maxUsed = 1 << 16
	// maxProofs bounds the credentials of one request that are looked at.
	maxProofs = 8
)

// nonceMAC names a nonce.
type nonceMAC [16]byte

// NewServer begins the first generation at now.
func NewServer(o ServerOptions, now time.Time) *Server {
	s := &Server{realm: o.Realm, username: o.Username, password: []byte(o.Password), since: now, now: map[nonceMAC]window{}}
	for _, a := range Servable() {
		if slices.Contains(o.Algorithms, a) {
			s.algorithms = append(s.algorithms, a)
		}
	}
	_, _ = rand.Read(s.key[:]) // it never fails, says its documentation
	return s
}

// turn begins the generation that it is time for. s.mu is held.
func (s *Server) turn(now time.Time) {
	age := now.Sub(s.since)
	if age < generation && len(s.now) < maxUsed/2 {
		return
	}
	s.number++
	if s.old = s.now; age >= 2*generation { // nobody came for long: its nonces are too old too
		s.old = nil
	}
	s.since, s.now = now, map[nonceMAC]window{}
}

// Challenges are what to ask of peer, the strongest first (RFC 8760 §2.4). request tells one
// request from every other, and is the same when it is sent again: so is the answer to it then,
// as long as the generation lasts.
func (s *Server) Challenges(now time.Time, peer, request string, stale bool) []Challenge {
	s.mu.Lock()
	s.turn(now)
	nonce := s.nonce(s.number, s.mac(0, request), peer)
	s.mu.Unlock()
	var cs []Challenge
	for _, a := range s.algorithms {
		cs = append(cs, Challenge{Realm: s.realm, Nonce: nonce, Algorithm: a, QOP: []string{"auth"}, Stale: stale})
	}
	return cs
}

const (
	saltLen  = 8
	headLen  = 4 + saltLen
	nonceLen = headLen + len(nonceMAC{})
)

func (s *Server) nonce(number uint32, salt []byte, peer string) string {
	head := append(binary.BigEndian.AppendUint32(nil, number), salt[:saltLen]...)
	return hex.EncodeToString(append(head, s.mac(1, string(head)+peer)[:len(nonceMAC{})]...))
}

// mac is the MAC of one of the two things that the key is for.
func (s *Server) mac(what byte, text string) []byte {
	h := hmac.New(sha256.New, s.key[:])
	h.Write([]byte{what})
	h.Write([]byte(text))
	return h.Sum(nil)
}

// Result is what became of the credentials in a request.
type Result int

// The results, from the least to what says most: of several credentials the best counts.
const (
	Missing   Result = iota // none for our realm that prove anything
	Malformed               // some that cannot be read
	Wrong                   // another user, password or algorithm
	Elsewhere               // right, but for another Request-URI
	Stale                   // right, but the nonce is not good, or not any more
	Right                   // and then to be used: Use
)

// Proof is a right one.
type Proof struct {
	number uint32
	mac    nonceMAC
	nc     uint32
	whole  bool // it has no nonce count
}

// Check looks at the Authorization values of a request that peer sent. same says whether the URI
// that a proof is about is what the request asks for: proxies change Request-URIs (RFC 7616 §3.4.6).
func (s *Server) Check(now time.Time, peer string, values []string, r Request, same func(uri string) bool) (best Result, proof Proof) {
	for _, v := range values[:min(len(values), maxProofs)] {
		res, p := s.check(now, peer, v, r, same)
		if res == Right {
			return res, p
		}
		best = max(best, res)
	}
	return best, Proof{}
}

func (s *Server) check(now time.Time, peer, value string, r Request, same func(uri string) bool) (Result, Proof) {
	if name, _, _ := strings.Cut(strings.TrimLeft(value, " \t"), " "); !strings.EqualFold(name, "Digest") {
		return Missing, Proof{} // of another kind, for somebody else
	}
	a, err := ParseAuthorization(value)
	switch {
	case err != nil:
		return Malformed, Proof{}
	case a.Realm != s.realm:
		return Missing, Proof{}
	case a.Nonce == "" && a.Response == "": // names the user only, as Empty does
		return Missing, Proof{}
	}
	// Whoever the user is the digest is made: how long it takes says nothing of him.
	right := a.Verify(s.password, r.Method, r.Body)
	known := subtle.ConstantTimeCompare([]byte(a.Username), []byte(s.username)) == 1
	if !right || !known || !s.asked(a) {
		return Wrong, Proof{}
	}
	if !same(a.URI) {
		return Elsewhere, Proof{}
	}
	p, ok := s.read(a.Nonce, peer)
	p.nc, p.whole = a.NC, a.QOP == ""
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn(now); !ok || s.uses(p.number) == nil {
		return Stale, p
	}
	return Right, p
}

// asked says whether a proof is of a kind that was asked for. RFC 3261 §22.4 has a server take
// one without qop, as clients of RFC 2069 make it; they have MD5 only.
func (s *Server) asked(a Authorization) bool {
	alg := a.Algorithm
	if alg == "" {
		alg = MD5
	}
	if a.QOP == "" {
		return alg == MD5 && slices.Contains(s.algorithms, alg)
	}
	return a.QOP == "auth" && a.CNonce != "" && slices.Contains(s.algorithms, alg)
}

// read takes a nonce apart; ok says that it was made here for that peer.
func (s *Server) read(nonce, peer string) (p Proof, ok bool) {
	b, err := hex.DecodeString(nonce)
	if err != nil || len(b) != nonceLen {
		return p, false
	}
	p.number, p.mac = binary.BigEndian.Uint32(b), nonceMAC(b[headLen:])
	return p, hmac.Equal(s.mac(1, string(b[:headLen])+peer)[:len(p.mac)], p.mac[:])
}

// uses are those of a generation's nonces; nil if they are forgotten. s.mu is held.
func (s *Server) uses(number uint32) map[nonceMAC]window {
	switch number {
	case s.number:
		return s.now
	case s.number - 1:
		return s.old
	}
	return nil
}

// Use takes the nonce count of a right proof. It reports false if that was used before, which
// makes the request a replay (RFC 7616 §3.4), or if it cannot be known any more: either way the
// nonce is stale. A proof without a count uses its nonce up.
func (s *Server) Use(p Proof) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	uses := s.uses(p.number)
	w, known := uses[p.mac]
	if uses == nil || !known && len(uses) >= maxUsed {
		return false
	}
	ok := p.whole && !known
	if p.whole {
		w = window{^uint32(0), ^uint64(0)}
	} else {
		ok = w.take(p.nc)
	}
	uses[p.mac] = w
	return ok
}

// window is which nonce counts were used: requests may overtake each other by 64.
type window struct {
	top  uint32 // the highest
	used uint64 // bit i is top-i; 0: none at all
}

func (w *window) take(nc uint32) bool {
	switch {
	case w.used == 0:
		w.top, w.used = nc, 1
	case nc > w.top:
		w.used = w.used<<(nc-w.top) | 1
		w.top = nc
	case w.top-nc >= 64 || w.used>>(w.top-nc)&1 == 1:
		return false
	default:
		w.used |= 1 << (w.top - nc)
	}
	return true
}
