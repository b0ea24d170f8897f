package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/accounts"
)

// strictServer implements the generated interface: decode, ask the service, encode.
type strictServer struct{ *server }

func (s strictServer) CreateSession(ctx context.Context, q CreateSessionRequestObject) (CreateSessionResponseObject, error) {
	c := callOf(ctx)
	token, p, err := s.Accounts.Login(ctx, q.Body.Account, q.Body.Password, c.remote)
	if err != nil {
		return nil, err
	}
	cookie := sessionCookie(c.secure, token).String()
	return CreateSession201JSONResponse{Body: sessionOf(&p), Headers: CreateSession201ResponseHeaders{SetCookie: &cookie}}, nil
}

func (s strictServer) GetSession(ctx context.Context, _ GetSessionRequestObject) (GetSessionResponseObject, error) {
	return GetSession200JSONResponse(sessionOf(callOf(ctx).principal)), nil
}

// loggedOut is the 204 that takes the cookie back.
type loggedOut struct{ secure bool }

func (l loggedOut) VisitDeleteSessionResponse(w http.ResponseWriter) error {
	http.SetCookie(w, sessionCookie(l.secure, ""))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s strictServer) DeleteSession(ctx context.Context, _ DeleteSessionRequestObject) (DeleteSessionResponseObject, error) {
	c := callOf(ctx)
	if c.principal.Via == "session" {
		if err := s.Accounts.Logout(ctx, c.token); err != nil {
			return nil, err
		}
	}
	return loggedOut{c.secure}, nil
}

func (s strictServer) CreateConference(ctx context.Context, q CreateConferenceRequestObject) (CreateConferenceResponseObject, error) {
	c, err := s.Service.CreateConference(ctx, actor(ctx), bridge.ConferenceSpec{Name: q.Body.Name, Type: q.Body.Type,
		PIN: deref(q.Body.Pin), Alias: deref(q.Body.Alias), JoinPolicy: deref(q.Body.JoinPolicy), WhoMayRefer: deref(q.Body.WhoMayRefer), AnswerConfirm: deref(q.Body.AnswerConfirm), Rejoin: deref(q.Body.Rejoin), Layout: deref(q.Body.Layout)})
	if err != nil {
		return nil, err
	}
	at := "/v1/conferences/" + c.ID
	return CreateConference201JSONResponse{Body: c, Headers: CreateConference201ResponseHeaders{Location: &at}}, nil
}

func (s strictServer) ListConferences(ctx context.Context, q ListConferencesRequestObject) (ListConferencesResponseObject, error) {
	limit, cursor, err := page(q.Params.Limit, q.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := s.Service.Conferences(ctx, actor(ctx), limit, cursor)
	if err != nil {
		return nil, err
	}
	var a ListConferences200JSONResponse
	a.Body.Items = nonNil(items)
	a.Headers.Link = nextLink("/v1/conferences", limit, next)
	if next != "" {
		a.Body.NextCursor = &next
	}
	return a, nil
}

func (s strictServer) GetConference(ctx context.Context, q GetConferenceRequestObject) (GetConferenceResponseObject, error) {
	c, err := s.Service.Conference(ctx, actor(ctx), q.C)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode conference: %w", err)
	}
	tag := etag(b)
	if matches(q.Params.IfNoneMatch, tag) {
		return notModified{tag}, nil
	}
	return GetConference200JSONResponse{Body: c, Headers: GetConference200ResponseHeaders{ETag: &tag}}, nil
}

func (s strictServer) UpdateConference(ctx context.Context, q UpdateConferenceRequestObject) (UpdateConferenceResponseObject, error) {
	c, err := s.Service.UpdateConference(ctx, actor(ctx), q.C, bridge.ConferencePatch{Name: q.Body.Name,
		PIN: q.Body.Pin, Alias: q.Body.Alias, JoinPolicy: q.Body.JoinPolicy, WhoMayRefer: q.Body.WhoMayRefer, AnswerConfirm: q.Body.AnswerConfirm, Rejoin: q.Body.Rejoin, Layout: q.Body.Layout})
	if err != nil {
		return nil, err
	}
	return UpdateConference200JSONResponse(c), nil
}

func (s strictServer) DeleteConference(ctx context.Context, q DeleteConferenceRequestObject) (DeleteConferenceResponseObject, error) {
	if err := s.Service.DeleteConference(ctx, actor(ctx), q.C); err != nil {
		return nil, err
	}
	return DeleteConference204Response{}, nil
}

func (s strictServer) AddMembers(ctx context.Context, q AddMembersRequestObject) (AddMembersResponseObject, error) {
	raw := bytes.TrimSpace(*q.Body)
	var rows []NewMember
	one := raw[0] == '{' // the schema has let through an object or an array
	if one {
		rows = make([]NewMember, 1)
		if err := json.Unmarshal(raw, &rows[0]); err != nil {
			return nil, malformed(err)
		}
	} else if err := json.Unmarshal(raw, &rows); err != nil {
		return nil, malformed(err)
	}
	specs := make([]bridge.MemberSpec, len(rows))
	for i, m := range rows {
		specs[i] = bridge.MemberSpec{Number: m.Number, Name: deref(m.Name), Role: deref(m.Role)}
	}
	results, err := s.Service.AddMembers(ctx, actor(ctx), q.C, specs)
	if err != nil {
		return nil, err
	}
	if len(results) != len(specs) {
		return nil, fmt.Errorf("%d members gave %d results", len(specs), len(results))
	}
	if one {
		if results[0].Err != nil {
			return nil, results[0].Err
		}
		b, err := json.Marshal(results[0].Member)
		return AddMembers201JSONResponse(b), err
	}
	out := MemberResults{Results: make([]MemberResult, len(results))}
	for i, r := range results {
		if r.Err != nil {
			out.Results[i] = MemberResult{Status: statusOf(r.Err), Error: rowError(r.Err)}
		} else {
			out.Results[i] = MemberResult{Status: http.StatusCreated, Member: r.Member}
		}
	}
	b, err := json.Marshal(out)
	return AddMembers201JSONResponse(b), err
}

func (s strictServer) ListMembers(ctx context.Context, q ListMembersRequestObject) (ListMembersResponseObject, error) {
	items, err := s.Service.Members(ctx, actor(ctx), q.C)
	if err != nil {
		return nil, err
	}
	return ListMembers200JSONResponse{Items: nonNil(items)}, nil
}

func (s strictServer) GetMember(ctx context.Context, q GetMemberRequestObject) (GetMemberResponseObject, error) {
	m, err := s.Service.Member(ctx, actor(ctx), q.C, q.M)
	if err != nil {
		return nil, err
	}
	return GetMember200JSONResponse(m), nil
}

func (s strictServer) UpdateMember(ctx context.Context, q UpdateMemberRequestObject) (UpdateMemberResponseObject, error) {
	m, err := s.Service.UpdateMember(ctx, actor(ctx), q.C, q.M, bridge.MemberPatch{
		Name: q.Body.Name, Role: q.Body.Role, Muted: q.Body.Muted, VideoMuted: q.Body.VideoMuted,
		Deaf: q.Body.Deaf, Held: q.Body.Held,
	})
	if err != nil {
		return nil, err
	}
	return UpdateMember200JSONResponse(m), nil
}

func (s strictServer) DeleteMember(ctx context.Context, q DeleteMemberRequestObject) (DeleteMemberResponseObject, error) {
	if err := s.Service.RemoveMember(ctx, actor(ctx), q.C, q.M); err != nil {
		return nil, err
	}
	return DeleteMember204Response{}, nil
}

func (s strictServer) Call(ctx context.Context, q CallRequestObject) (CallResponseObject, error) {
	r := bridge.CallRequest{
		Media:         string(deref(q.Body.Media)),
		RingTimeout:   time.Duration(deref(q.Body.RingTimeoutS)) * time.Second,
		AnswerConfirm: q.Body.AnswerConfirm,
	}
	into := any(&r.Members)
	if raw := bytes.TrimSpace(q.Body.Targets); len(raw) > 0 && raw[0] == '"' {
		into = &r.Targets
	}
	if err := json.Unmarshal(q.Body.Targets, into); err != nil {
		return nil, malformed(err)
	}
	results, err := s.Service.Call(ctx, actor(ctx), q.C, r)
	if err != nil {
		return nil, err
	}
	out := Call202JSONResponse{Results: make([]CallResult, len(results))}
	for i, c := range results {
		out.Results[i] = CallResult{Member: c.Member, Leg: c.Leg}
		if c.Err != nil {
			out.Results[i].Leg, out.Results[i].Error = nil, rowError(c.Err)
		}
	}
	return out, nil
}

func (s strictServer) SetLegMedia(ctx context.Context, q SetLegMediaRequestObject) (SetLegMediaResponseObject, error) {
	leg, err := s.Service.SetLegMedia(ctx, actor(ctx), q.C, q.M, string(q.Body.Media))
	if err != nil {
		return nil, err
	}
	return SetLegMedia202JSONResponse(leg), nil
}

func (s strictServer) HangupMember(ctx context.Context, q HangupMemberRequestObject) (HangupMemberResponseObject, error) {
	if err := s.Service.HangupMember(ctx, actor(ctx), q.C, q.M); err != nil {
		return nil, err
	}
	return HangupMember204Response{}, nil
}

func (s strictServer) HangupAll(ctx context.Context, q HangupAllRequestObject) (HangupAllResponseObject, error) {
	if err := s.Service.HangupAll(ctx, actor(ctx), q.C); err != nil {
		return nil, err
	}
	return HangupAll204Response{}, nil
}

func (s strictServer) SetWhisper(ctx context.Context, q SetWhisperRequestObject) (SetWhisperResponseObject, error) {
	if err := s.Service.SetWhisper(ctx, actor(ctx), q.C, *q.Body); err != nil {
		return nil, err
	}
	return SetWhisper200JSONResponse(*q.Body), nil
}

func (s strictServer) EndWhisper(ctx context.Context, q EndWhisperRequestObject) (EndWhisperResponseObject, error) {
	if err := s.Service.EndWhisper(ctx, actor(ctx), q.C); err != nil {
		return nil, err
	}
	return EndWhisper204Response{}, nil
}

// picture is the preview with the time it was made at.
type picture struct {
	bridge.Preview
	tag string
}

func (p picture) VisitGetPreviewResponse(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", "image/jpeg")
	h.Set("Content-Length", fmt.Sprint(len(p.JPEG)))
	h.Set("ETag", p.tag)
	if !p.At.IsZero() {
		h.Set("Last-Modified", p.At.UTC().Format(http.TimeFormat))
	}
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(p.JPEG)
	return err
}

func (s strictServer) GetPreview(ctx context.Context, q GetPreviewRequestObject) (GetPreviewResponseObject, error) {
	p, err := s.Service.Preview(ctx, actor(ctx), q.C)
	if err != nil {
		return nil, err
	}
	tag := etag(p.JPEG)
	if matches(q.Params.IfNoneMatch, tag) {
		return notModified{tag}, nil
	}
	return picture{p, tag}, nil
}

func (s strictServer) ListLegs(ctx context.Context, q ListLegsRequestObject) (ListLegsResponseObject, error) {
	limit, cursor, err := page(q.Params.Limit, q.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, next, err := s.Service.Legs(ctx, actor(ctx), q.C, q.M, limit, cursor)
	if err != nil {
		return nil, err
	}
	var a ListLegs200JSONResponse
	a.Body.Items = nonNil(items)
	a.Headers.Link = nextLink("/v1/conferences/"+q.C+"/members/"+q.M+"/legs", limit, next)
	if next != "" {
		a.Body.NextCursor = &next
	}
	return a, nil
}

func (s strictServer) ListAttachments(ctx context.Context, _ ListAttachmentsRequestObject) (ListAttachmentsResponseObject, error) {
	out := ListAttachments200JSONResponse{Items: []Attachment{}}
	for _, a := range s.Service.Attachments(ctx) {
		out.Items = append(out.Items, bridge.ViewAttachment(a))
	}
	return out, nil
}

func (s strictServer) RegisterAttachment(ctx context.Context, q RegisterAttachmentRequestObject) (RegisterAttachmentResponseObject, error) {
	if err := s.Service.RegisterAttachment(ctx, actor(ctx), q.Name); err != nil {
		return nil, err
	}
	return RegisterAttachment202Response{}, nil
}

// notModified is 304 with its tag.
type notModified struct{ tag string }

func (n notModified) write(w http.ResponseWriter) error {
	w.Header().Set("ETag", n.tag)
	w.WriteHeader(http.StatusNotModified)
	return nil
}

func (n notModified) VisitGetConferenceResponse(w http.ResponseWriter) error { return n.write(w) }
func (n notModified) VisitGetPreviewResponse(w http.ResponseWriter) error    { return n.write(w) }

func etag(b []byte) string {
	sum := sha256.Sum256(b)
	return fmt.Sprintf(`"%x"`, sum[:12])
}

// matches is If-None-Match (RFC 9110 §13.1.2).
func matches(header *string, tag string) bool {
	for t := range strings.SplitSeq(deref(header), ",") {
		if t = strings.TrimSpace(t); t == "*" || strings.TrimPrefix(t, "W/") == tag {
			return true
		}
	}
	return false
}

// page checks what the generated code has only parsed.
func page(limit *int, cursor *string) (int, string, error) {
	n, c := 50, deref(cursor)
	if limit != nil {
		n = *limit
	}
	if n < 1 || n > 200 {
		return 0, "", fail(http.StatusBadRequest, "parameter_invalid", "limit: want 1 to 200")
	}
	if len(c) > 256 {
		return 0, "", fail(http.StatusBadRequest, "parameter_invalid", "cursor: want at most 256 characters")
	}
	return n, c, nil
}

func rowError(e *bridge.Error) *Problem {
	b := problemOf(e).body(nil)
	return &b
}

// malformed: a body that the schema let through and the decoder does not take, such
// as a number beyond its range.
func malformed(err error) error {
	return fail(http.StatusUnprocessableEntity, "request_invalid", err.Error())
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

var _ Accounts = (*accounts.Accounts)(nil)
