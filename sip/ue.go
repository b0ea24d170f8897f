package sip

import (
	"context"
	"errors"

	sipgo "github.com/emiago/sipgo/sip"
)

// registrar is what an attachment needs of its registration.
type registrar interface {
	Run(ctx context.Context) error
	Authorize(req *sipgo.Request, challenge *sipgo.Response) error
	Changed() <-chan struct{}
	identity() (uri string, serviceRoute []string)
	report(*AttachmentState)
}

func newRegistrar(*attachment) (registrar, error) {
	return nil, errors.New("ue mode: no registration client")
}

// register keeps the attachment registered until ctx ends, and de-registers then.
func (a *attachment) register(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.reg.Run(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("registration ended", "err", err)
		}
	}()
	for {
		select {
		case <-a.reg.Changed():
			a.update(a.reg.report)
		case <-done:
			a.update(a.reg.report)
			return
		}
	}
}

// send is how REGISTER leaves: to the current P-CSCF; one that does not answer makes
// the next one current.
func (a *attachment) sendRegister(ctx context.Context, req *sipgo.Request) (*sipgo.Response, error) {
	// The de-registration is sent after ctx of the attachment's watch has ended.
	res, err := a.exchange(ctx, req, a.target())
	if err != nil && ctx.Err() == nil {
		a.current.Store((a.current.Load() + 1) % int32(len(a.targets)))
	}
	return res, err
}
