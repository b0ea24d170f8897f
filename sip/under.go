package sip

import (
	"strings"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// lookEvery is how often the connection under a transaction that waits is looked for, lookSoon
// when it may be gone: in the beginning, as one that was being closed takes what is written to
// it without an error, and once it was missed.
const lookEvery, lookSoon = 100 * time.Millisecond, 20 * time.Millisecond

// connWatch tells that the connection under a client transaction has gone. sipgo can end
// transactions with their connection (WithTransactionLayerTerminateOnConnClose), but not safely:
// of one that is being made it runs a state machine that is not there yet, in a goroutine of its
// own, and one that is made between that and its forgetting of the connection waits for timer B.
type connWatch struct {
	look   <-chan time.Time // when to ask gone; nil: over UDP, or never again
	ticker *time.Ticker
	pool   *sipgo.ConnectionPool
	conn   sipgo.Connection
	addrs  [2]string // it is in the pool by both, or by one if another connection took the other
	missed bool
}

func (a *attachment) watchConn(req *sipgo.Request, tx *sipgo.ClientTx) *connWatch {
	w := &connWatch{pool: a.streams(req), conn: tx.Connection()}
	if w.pool != nil {
		w.addrs = [2]string{req.Destination(), w.conn.LocalAddr().String()}
		w.ticker = time.NewTicker(lookSoon)
		w.look = w.ticker.C
	}
	return w
}

func (w *connWatch) stop() {
	if w.ticker != nil {
		w.ticker.Stop()
		w.look = nil
	}
}

// gone is true the second time that sipgo has forgotten the connection: what had come over it is
// read by then.
func (w *connWatch) gone() bool {
	for _, addr := range w.addrs {
		if c := w.pool.Get(addr); c != nil {
			_, _ = c.TryClose() // gives back what Get took
			if c == w.conn {
				w.ticker.Reset(lookEvery)
				return false
			}
		}
	}
	if w.missed {
		return true
	}
	w.missed = true
	w.ticker.Reset(lookSoon)
	return false
}

// streams is the pool of the connections that req goes by; nil: by UDP.
func (a *attachment) streams(req *sipgo.Request) *sipgo.ConnectionPool {
	if transport := strings.ToLower(req.Transport()); transport != "udp" {
		return a.stack.TransportLayer().Pool(transport)
	}
	return nil
}
