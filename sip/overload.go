package sip

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// sheddingOf reads what a response asks for in our Via: oc per cent of the new calls left
// out for oc-validity milliseconds, 500 if it does not say (RFC 7339 4.1 to 4.4, 5). ok is
// false where nothing sound is asked for. We do not announce that we do this: sipgo, and so
// half of the small peers there are, loses what follows a quoted parameter of a Via.
func sheddingOf(now time.Time, via *sipgo.ViaHeader) (o shedding, ok bool) {
	if via == nil || via.Params == nil {
		return o, false
	}
	v, _ := via.Params.Get("oc")
	loss, err := strconv.Atoi(v)
	if err != nil || loss < 0 || loss > 100 {
		return o, false // without a value it is our own announcement, echoed
	}
	algo, validity := ocRest(via.Params)
	if algo != "" && algo != "loss" {
		return o, false
	}
	valid := 500
	if v, has := via.Params.Get("oc-validity"); has || validity != "" {
		v = cmp.Or(v, validity)
		if valid, err = strconv.Atoi(v); err != nil || valid < 0 {
			return o, false
		}
	}
	return shedding{loss, now.Add(min(time.Duration(valid)*time.Millisecond, longestSuspension))}, true
}

// ocRest finds the algorithm, and the validity where it stands behind the algorithm's
// quotes: sipgo keeps all of that as one key.
func ocRest(params sipgo.HeaderParams) (algo, validity string) {
	for _, kv := range params {
		rest, ok := strings.CutPrefix(kv.K, "oc-algo")
		if !ok {
			continue
		}
		algo = strings.Trim(kv.V, `"`)
		if _, after, ok := strings.Cut(rest, "oc-validity="); ok {
			validity, _, _ = strings.Cut(after, ";")
		}
	}
	return algo, validity
}

// heed takes what a peer's response says of its load.
func (a *attachment) heed(t *target, res *sipgo.Response) {
	o, ok := sheddingOf(time.Now(), res.Via())
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
