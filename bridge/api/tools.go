package api

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"

	"sparkle/bridge/accounts"
	"sparkle/bridge/cdr"
	"sparkle/bridge/ladder"
	"sparkle/bridge/pcap"
)

// CDRs are the charging records; *cdr.Writer has them.
type CDRs interface {
	Page(want cdr.Filter, limit int) (items []cdr.Record, more bool, err error)
}

func (s strictServer) GetLegTrace(ctx context.Context, q GetLegTraceRequestObject) (GetLegTraceResponseObject, error) {
	full := deref(q.Params.Full)
	if full && !callOf(ctx).principal.Has(accounts.AdminScope) {
		return nil, fail(http.StatusForbidden, "scope_missing", "whole messages have numbers in them: this needs the scope admin")
	}
	format := deref(q.Params.Format)
	if format != "" && format != GetLegTraceParamsFormatJson && format != GetLegTraceParamsFormatText && format != GetLegTraceParamsFormatPcap {
		return nil, fail(http.StatusBadRequest, "parameter_invalid", "format: want json, text or pcap")
	}
	t, err := s.Service.LegTrace(ctx, actor(ctx), q.Leg, full)
	if err != nil {
		return nil, err
	}
	if format == GetLegTraceParamsFormatPcap {
		var b bytes.Buffer
		if err := ladder.WritePcap(&b, t, full); err != nil {
			return nil, err
		}
		return capture(b.Bytes()), nil
	}
	l := ladder.New(t, full)
	if format != GetLegTraceParamsFormatText {
		return GetLegTrace200JSONResponse(l), nil
	}
	var b strings.Builder
	if err := l.WriteText(&b); err != nil {
		return nil, err
	}
	return traceText(b.String()), nil
}

// traceText is a ladder as text, with the charset that the generated code does not say.
type traceText string

func (t traceText) VisitGetLegTraceResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	_, err := w.Write([]byte(t))
	return err
}

// capture is a ladder as a file.
type capture []byte

func (c capture) VisitGetLegTraceResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", pcap.ContentType)
	w.Header().Set("Content-Disposition", `attachment; filename="leg.pcap"`)
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(c)
	return err
}

func (s strictServer) ListCDRs(ctx context.Context, q ListCDRsRequestObject) (ListCDRsResponseObject, error) {
	if s.CDRs == nil {
		return nil, fail(http.StatusNotFound, "cdr_disabled", "this server keeps no charging records: cdr.enabled is false")
	}
	p := q.Params
	limit, cursor, err := page(p.Limit, p.Cursor)
	if err != nil {
		return nil, err
	}
	want := cdr.Filter{From: deref(p.From), To: deref(p.To), Conference: deref(p.Conference), Attachment: deref(p.Attachment),
		Direction: string(deref(p.Direction)), Outcome: deref(p.Outcome)}
	if cursor != "" {
		if want.After, err = strconv.ParseUint(cursor, 10, 64); err != nil {
			return nil, fail(http.StatusBadRequest, "parameter_invalid", "cursor: want a sequence number")
		}
	}
	items, more, err := s.CDRs.Page(want, limit)
	if err != nil {
		return nil, err
	}
	var a ListCDRs200JSONResponse
	a.Body.Items = nonNil(items)
	if more {
		next := strconv.FormatUint(items[len(items)-1].Seq, 10)
		a.Body.NextCursor = &next
		a.Headers.Link = nextLink("/v1/cdrs", limit, next)
	}
	return a, nil
}
