package dialog

import (
	"time"

	"github.com/emiago/sipgo/sip"
)

// Other usages of the dialog (RFC 5057): subscriptions, made by REFER or SUBSCRIBE. The
// machine carries their requests and answers; what they mean is its owner's. They
// outlive the call: after BYE the dialog goes on for them until Use says there are none.

// other is a request of the peer that waits for Tell.
type other struct {
	id    uint64
	tx    any
	req   *sip.Request
	until time.Time
}

// maxOthers bounds what a peer can have waiting.
const maxOthers = 16

func (c *Call) onOther(in Request) {
	if len(c.others) >= maxOthers {
		c.respond(in.Tx, in.Req, 480)
		return
	}
	c.otherID++
	c.others = append(c.others, other{c.otherID, in.Tx, in.Req, c.now.Add(c.o.Reply)})
	c.armOthers()
	c.emit(Other{ID: c.otherID, Req: in.Req})
}

func (c *Call) armOthers() {
	c.stop(timerOther)
	if len(c.others) > 0 {
		c.at[timerOther] = c.others[0].until // the oldest: all wait equally long
	}
}

func (c *Call) onTell(t Tell) {
	for i, o := range c.others {
		if o.id != t.ID {
			continue
		}
		c.others = append(c.others[:i:i], c.others[i+1:]...)
		c.armOthers()
		if t.Status < 200 || t.Status > 699 {
			t.Status = 500
		}
		res := c.response(o.req, t.Status)
		for _, h := range t.Headers {
			add(res, h.Name, h.Value)
		}
		if t.Status < 300 && len(res.GetHeaders("Contact")) == 0 {
			add(res, "Contact", c.o.Contact)
		}
		res.SetBody(nil)
		c.do(Respond{Tx: o.tx, Res: res})
		return
	}
}

// otherLate answers what nobody has told us about in time.
func (c *Call) otherLate() {
	for len(c.others) > 0 && !c.others[0].until.After(c.now) {
		c.respond(c.others[0].tx, c.others[0].req, 480)
		c.others = c.others[1:]
	}
	c.armOthers()
}

func (c *Call) onAsk(a Ask) {
	f := c.winner
	if f == nil || c.ended && c.usages == 0 {
		c.emit(Asked{ID: a.ID})
		return
	}
	f.localSeq++
	req := c.inDialog(f, a.Method, f.localSeq)
	add(req, "Contact", c.o.Contact)
	for _, h := range a.Headers {
		add(req, h.Name, h.Value)
	}
	if len(a.Body) > 0 {
		ct := sip.ContentTypeHeader(a.ContentType)
		req.AppendHeader(&ct)
		req.SetBody(a.Body)
	} else {
		req.SetBody(nil)
	}
	c.asks[f.localSeq] = a.ID
	c.send(req, 0)
}

// asked reports the end of a request of ours, if it was one of another usage. res is nil where
// nobody answered.
func (c *Call) asked(seq uint32, res *sip.Response) {
	id, ok := c.asks[seq]
	if !ok || res != nil && res.StatusCode < 200 {
		return
	}
	delete(c.asks, seq)
	e := Asked{ID: id}
	if res != nil {
		e.Status = res.StatusCode
		e.RetryAfter, _ = seconds(value(res, "Retry-After"))
	}
	c.emit(e)
}
