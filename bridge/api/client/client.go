// Package client talks to the HTTP API from Go: for the command line, the demo and
// tests. Every method maps to one operation of openapi.yaml.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/api"
	"sparkle/bridge/cdr"
	"sparkle/bridge/ladder"
)

// maxAnswer bounds an answer that is read whole.
const maxAnswer = 64 << 20

// Client is safe for concurrent use once it has logged in or has a key.
type Client struct {
	base *url.URL
	http *http.Client
	key  string
	// cookie of the session; set by Login
	cookie *http.Cookie
}

// New makes a client of the server at base ("http://127.0.0.1:8080"). key is an API
// key, or "" to Login.
func New(base, key string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("server address %q: want http://host:port", base)
	}
	// No overall timeout: event streams last. Calls are bounded by their contexts.
	return &Client{base: u, key: key, http: &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: 90 * time.Second, MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a key goes nowhere else
	}}, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is a problem that the server answered with.
type Error struct{ api.Problem }

func (e *Error) Error() string {
	s := fmt.Sprintf("%d %s", e.Status, e.Code)
	if e.Detail != nil {
		s += ": " + *e.Detail
	}
	return s
}

// Code is the problem's code, or "" if err is none of the server's.
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Login begins a session that the client then uses.
func (c *Client) Login(ctx context.Context, account, password string) (api.Session, error) {
	var s api.Session
	res, err := c.do(ctx, "POST", "/v1/sessions", api.Login{Account: account, Password: password}, &s)
	if err != nil {
		return s, err
	}
	for _, k := range res.Cookies() {
		if k.Name == api.CookieName {
			c.cookie = &http.Cookie{Name: k.Name, Value: k.Value}
			return s, nil
		}
	}
	return s, errors.New("login: the server set no session cookie")
}

// Logout ends the session.
func (c *Client) Logout(ctx context.Context) error {
	return c.call(ctx, "DELETE", "/v1/sessions", nil, nil)
}

// WhoAmI is the caller as the server sees it.
func (c *Client) WhoAmI(ctx context.Context) (s api.Session, err error) {
	return s, c.call(ctx, "GET", "/v1/sessions", nil, &s)
}

// CreateConference makes a conference.
func (c *Client) CreateConference(ctx context.Context, name string, kind bridge.ConferenceType) (x bridge.Conference, err error) {
	return x, c.call(ctx, "POST", "/v1/conferences", api.NewConference{Name: name, Type: kind}, &x)
}

// Conference is one conference.
func (c *Client) Conference(ctx context.Context, id string) (x bridge.Conference, err error) {
	return x, c.call(ctx, "GET", conf(id), nil, &x)
}

// Conferences are all that the caller may see, page by page.
func (c *Client) Conferences(ctx context.Context) ([]bridge.Conference, error) {
	return pages[bridge.Conference](ctx, c, "/v1/conferences")
}

// RenameConference changes the name.
func (c *Client) RenameConference(ctx context.Context, id, name string) (x bridge.Conference, err error) {
	return x, c.call(ctx, "PATCH", conf(id), api.ConferencePatch{Name: &name}, &x)
}

// UpdateConference changes what a conference is called by and whom it lets in; nil fields
// stay.
func (c *Client) UpdateConference(ctx context.Context, id string, p api.ConferencePatch) (x bridge.Conference, err error) {
	return x, c.call(ctx, "PATCH", conf(id), p, &x)
}

// DeleteConference ends a conference and forgets its roster.
func (c *Client) DeleteConference(ctx context.Context, id string) error {
	return c.call(ctx, "DELETE", conf(id), nil, nil)
}

// AddMember invites one.
func (c *Client) AddMember(ctx context.Context, conference string, m bridge.MemberSpec) (x bridge.Member, err error) {
	return x, c.call(ctx, "POST", conf(conference)+"/members", newMember(m), &x)
}

// AddMembers invites many, at most 500; each row has its own result.
func (c *Client) AddMembers(ctx context.Context, conference string, m []bridge.MemberSpec) ([]api.MemberResult, error) {
	rows := make([]api.NewMember, len(m))
	for i := range m {
		rows[i] = newMember(m[i])
	}
	var out api.MemberResults
	err := c.call(ctx, "POST", conf(conference)+"/members", rows, &out)
	return out.Results, err
}

// Members is the roster.
func (c *Client) Members(ctx context.Context, conference string) ([]bridge.Member, error) {
	var out struct{ Items []bridge.Member }
	err := c.call(ctx, "GET", conf(conference)+"/members", nil, &out)
	return out.Items, err
}

// Member is one row of the roster.
func (c *Client) Member(ctx context.Context, conference, id string) (x bridge.Member, err error) {
	return x, c.call(ctx, "GET", member(conference, id), nil, &x)
}

// UpdateMember says how a member should be; nil fields stay.
func (c *Client) UpdateMember(ctx context.Context, conference, id string, p api.MemberPatch) (x bridge.Member, err error) {
	return x, c.call(ctx, "PATCH", member(conference, id), p, &x)
}

// RemoveMember takes a member off the roster; hangs up first.
func (c *Client) RemoveMember(ctx context.Context, conference, id string) error {
	return c.call(ctx, "DELETE", member(conference, id), nil, nil)
}

// Call calls members. Each target has its own result; if none could be called because
// no attachment is up, the error's code is attachment_down.
func (c *Client) Call(ctx context.Context, conference string, r bridge.CallRequest) ([]api.CallResult, error) {
	var body api.NewCalls
	var targets any = r.Targets
	if r.Targets == "" {
		targets = r.Members
	}
	raw, err := json.Marshal(targets)
	if err != nil {
		return nil, fmt.Errorf("targets: %w", err)
	}
	body.Targets = raw
	if r.Media != "" {
		m := api.NewCallsMedia(r.Media)
		body.Media = &m
	}
	if r.RingTimeout != 0 {
		s := int(r.RingTimeout / time.Second)
		body.RingTimeoutS = &s
	}
	body.AnswerConfirm = r.AnswerConfirm
	var out struct{ Results []api.CallResult }
	err = c.call(ctx, "POST", conf(conference)+"/calls", body, &out)
	return out.Results, err
}

// Hangup ends a member's leg; the row stays.
func (c *Client) Hangup(ctx context.Context, conference, id string) error {
	return c.call(ctx, "DELETE", member(conference, id)+"/leg", nil, nil)
}

// AskForVideo asks a member who is in by voice for video.
func (c *Client) AskForVideo(ctx context.Context, conference, id string) (x bridge.Leg, err error) {
	return x, c.call(ctx, "PATCH", member(conference, id)+"/leg", api.LegPatch{Media: api.LegPatchMediaVideo}, &x)
}

// HangupAll ends all legs.
func (c *Client) HangupAll(ctx context.Context, conference string) error {
	return c.call(ctx, "POST", conf(conference)+"/hangup", nil, nil)
}

// SetWhisper lets one be heard by some only.
func (c *Client) SetWhisper(ctx context.Context, conference string, w bridge.WhisperSpec) error {
	return c.call(ctx, "PUT", conf(conference)+"/whisper", w, nil)
}

// EndWhisper ends it.
func (c *Client) EndWhisper(ctx context.Context, conference string) error {
	return c.call(ctx, "DELETE", conf(conference)+"/whisper", nil, nil)
}

// Legs are all call attempts with a member, newest first.
func (c *Client) Legs(ctx context.Context, conference, id string) ([]bridge.Leg, error) {
	return pages[bridge.Leg](ctx, c, member(conference, id)+"/legs")
}

// Preview is the picture that the phones see, as JPEG.
func (c *Client) Preview(ctx context.Context, conference string) ([]byte, error) {
	res, err := c.send(ctx, "GET", conf(conference)+"/preview.jpg", nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(io.LimitReader(res.Body, maxAnswer))
}

// Attachments are the connections to carriers.
func (c *Client) Attachments(ctx context.Context) ([]api.Attachment, error) {
	var out struct{ Items []api.Attachment }
	err := c.call(ctx, "GET", "/v1/attachments", nil, &out)
	return out.Items, err
}

// Register has an attachment register again at once; the scope admin is needed.
func (c *Client) Register(ctx context.Context, attachment string) error {
	return c.call(ctx, "POST", "/v1/attachments/"+url.PathEscape(attachment)+"/register", nil, nil)
}

// Trace are the SIP messages of a leg; full has them whole, with numbers.
func (c *Client) Trace(ctx context.Context, leg string, full bool) (x ladder.Ladder, err error) {
	return x, c.call(ctx, "GET", fmt.Sprintf("/v1/legs/%s/trace?full=%v", url.PathEscape(leg), full), nil, &x)
}

// Pcap are the SIP messages of a leg as a capture file.
func (c *Client) Pcap(ctx context.Context, leg string, full bool) ([]byte, error) {
	res, err := c.send(ctx, "GET", fmt.Sprintf("/v1/legs/%s/trace?format=pcap&full=%v", url.PathEscape(leg), full), nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(io.LimitReader(res.Body, maxAnswer))
}

// Capture writes a capture file of a live leg's packets, which grows for so long.
func (c *Client) Capture(ctx context.Context, leg string, d time.Duration, payload bool, w io.Writer) error {
	path := fmt.Sprintf("/v1/legs/%s/pcap?seconds=%d&payload=%v", url.PathEscape(leg), int(d/time.Second), payload)
	res, err := c.send(ctx, "GET", path, nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(w, res.Body)
	return err
}

// CDRs are up to 200 charging records after a sequence number.
func (c *Client) CDRs(ctx context.Context, after uint64) ([]cdr.Record, error) {
	var out struct{ Items []cdr.Record }
	err := c.call(ctx, "GET", fmt.Sprintf("/v1/cdrs?limit=200&cursor=%d", after), nil, &out)
	return out.Items, err
}

// Ready is nil when calls can be placed; else the error says what keeps them.
func (c *Client) Ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, "GET", c.base.JoinPath("/readyz").String(), nil)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var h struct{ Checks map[string]string }
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&h); err != nil {
		return fmt.Errorf("readyz: %s: %w", res.Status, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %v", h.Checks)
	}
	return nil
}

func conf(id string) string     { return "/v1/conferences/" + url.PathEscape(id) }
func member(c, m string) string { return conf(c) + "/members/" + url.PathEscape(m) }
func str(s string) *string      { return &s }
func newMember(m bridge.MemberSpec) api.NewMember {
	n := api.NewMember{Number: m.Number}
	if m.Name != "" {
		n.Name = str(m.Name)
	}
	if m.Role != "" {
		n.Role = str(m.Role)
	}
	return n
}

// pages reads a list to its end.
func pages[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	var all []T
	for cursor := ""; ; {
		q := url.Values{"limit": {"200"}}
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		var page struct {
			Items []T
			Next  string `json:"next_cursor"`
		}
		if err := c.call(ctx, "GET", path+"?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" || page.Next == cursor {
			return all, nil
		}
		cursor = page.Next
	}
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	_, err := c.do(ctx, method, path, in, out)
	return err
}

// do sends in as JSON and reads the answer into out; either may be nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) (*http.Response, error) {
	res, err := c.send(ctx, method, path, in, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
		return res, err
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(out); err != nil {
		return nil, fmt.Errorf("%s %s: decode the answer: %w", method, path, err)
	}
	return res, nil
}

// send returns an answer below 300, with its body open; others as *Error.
func (c *Client) send(ctx context.Context, method, path string, in any, header http.Header) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base.String(), "/")+path, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	} else if c.cookie != nil {
		req.AddCookie(c.cookie)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	e := &Error{api.Problem{Status: res.StatusCode, Title: res.Status}}
	if t, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); t == "application/problem+json" {
		if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&e.Problem); err != nil {
			return nil, fmt.Errorf("%s %s: %s: decode the problem: %w", method, path, res.Status, err)
		}
	} else {
		e.Code, e.Detail = "http_"+strconv.Itoa(res.StatusCode), str(res.Status)
	}
	return nil, e
}
