package sip

import (
	"strconv"
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// announceOverload says in the Via of an INVITE that we do RFC 7339's loss algorithm;
// only then may a peer ask for it.
func announceOverload(req *sipgo.Request) {
	if via := req.Via(); !via.Params.Has("oc") {
		via.Params.Add("oc", "")
		via.Params.Add(`oc-algo="loss"`, "") // sipgo would quote the quotes of a value
	}
}

// overloadOf reads what a response asks for in our Via: oc per cent of the new calls left
// out for oc-validity milliseconds, 500 if it does not say (RFC 7339 4.1 to 4.4, 5). ok is
// false where nothing sound is asked for.
func overloadOf(now time.Time, via *sipgo.ViaHeader) (o overload, ok bool) {
	if via == nil || via.Params == nil {
		return o, false
	}
	v, _ := via.Params.Get("oc")
	loss, err := strconv.Atoi(v)
	if err != nil || loss < 0 || loss > 100 {
		return o, false // without a value it is our own announcement, echoed
	}
	if algo, has := via.Params.Get("oc-algo"); has && strings.Trim(algo, `"`) != "loss" {
		return o, false
	}
	valid := 500
	if v, has := via.Params.Get("oc-validity"); has {
		if valid, err = strconv.Atoi(v); err != nil || valid < 0 {
			return o, false
		}
	}
	return overload{loss, now.Add(min(time.Duration(valid)*time.Millisecond, longestSuspension))}, true
}

// heed takes what a peer's response says of its load.
func (a *attachment) heed(t *target, res *sipgo.Response) {
	o, ok := overloadOf(time.Now(), res.Via())
	if !ok {
		return
	}
	a.mu.Lock()
	changed := t.oc.loss != o.loss
	t.oc = o
	a.mu.Unlock()
	if changed {
		a.log.Warn("peer asks for fewer calls", "peer", t.hop, "loss_percent", o.loss)
	}
}
