// Package api is the HTTP API, /v1: it decodes, posts a command to the bridge and
// encodes the answer. It has no state and no rules. openapi.yaml is the contract.
package api

import (
	"context"

	"sparkle/bridge"
	"sparkle/sip"
)

// Service is what the API needs of the bridge. Errors that concern the caller are
// *bridge.Error; any other is an internal error.
type Service interface {
	CreateConference(context.Context, bridge.Actor, bridge.ConferenceSpec) (bridge.Conference, error)
	Conferences(ctx context.Context, a bridge.Actor, limit int, cursor string) (items []bridge.Conference, next string, err error)
	Conference(ctx context.Context, a bridge.Actor, id string) (bridge.Conference, error)
	UpdateConference(ctx context.Context, a bridge.Actor, id string, p bridge.ConferencePatch) (bridge.Conference, error)
	DeleteConference(ctx context.Context, a bridge.Actor, id string) error

	AddMembers(ctx context.Context, a bridge.Actor, conference string, m []bridge.MemberSpec) ([]bridge.MemberResult, error)
	Members(ctx context.Context, a bridge.Actor, conference string) ([]bridge.Member, error)
	Member(ctx context.Context, a bridge.Actor, conference, member string) (bridge.Member, error)
	UpdateMember(ctx context.Context, a bridge.Actor, conference, member string, p bridge.MemberPatch) (bridge.Member, error)
	RemoveMember(ctx context.Context, a bridge.Actor, conference, member string) error

	Call(ctx context.Context, a bridge.Actor, conference string, r bridge.CallRequest) ([]bridge.CallResult, error)
	// SetLegMedia: "video" or "audio".
	SetLegMedia(ctx context.Context, a bridge.Actor, conference, member, media string) (bridge.Leg, error)
	HangupMember(ctx context.Context, a bridge.Actor, conference, member string) error
	HangupAll(ctx context.Context, a bridge.Actor, conference string) error
	SetWhisper(ctx context.Context, a bridge.Actor, conference string, w bridge.WhisperSpec) error
	EndWhisper(ctx context.Context, a bridge.Actor, conference string) error
	Preview(ctx context.Context, a bridge.Actor, conference string) (bridge.Preview, error)
	Legs(ctx context.Context, a bridge.Actor, conference, member string, limit int, cursor string) (items []bridge.Leg, next string, err error)
	// LegTrace is of a live leg or one that ended not long ago.
	CaptureMedia(ctx context.Context, a bridge.Actor, leg string, payload bool, f func([]bridge.MediaPacket)) (lost uint64, err error)
	LegTrace(ctx context.Context, a bridge.Actor, leg string, full bool) (bridge.LegTrace, error)

	Attachments(context.Context) []sip.AttachmentState
	RegisterAttachment(ctx context.Context, a bridge.Actor, name string) error
	// Subscribe: conference "" is all that the actor may see; after "" starts with a snapshot.
	Subscribe(ctx context.Context, a bridge.Actor, conference, after string) (*bridge.Subscription, error)
	// Ready says what keeps the server from placing calls; empty when nothing does.
	Ready(context.Context) map[string]string
}
