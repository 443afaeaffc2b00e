package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A resource's request is a struct whose fields have tags: path:"name" for a part
// of the path, query:"name" for a parameter behind it, and one field body:"" for
// the JSON body. doc:"…" is what the OpenAPI document says of a field.

// handleResource serves a route whose request is a Q. What changes something is
// audited.
func handleResource[Q, A any](s *Server, m *mux, r route, do func(context.Context, Q) (A, error)) {
	r.in, r.out = reflect.TypeFor[Q](), reflect.TypeFor[A]()
	if r.method != http.MethodGet {
		do = audited(s, r.op, do)
	}
	m.add(r, func(w http.ResponseWriter, req *http.Request) {
		q, err := readRequest[Q](req)
		if err != nil {
			writeError(w, asError(err))
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		answer, err := do(req.Context(), q)
		if err != nil {
			writeError(w, asError(err))
			return
		}
		writeJSON(w, http.StatusOK, answer)
	})
}

// pathOf is what in the path a request is about, for the log.
func pathOf(q any) string {
	v := reflect.ValueOf(q)
	if v.Kind() != reflect.Struct {
		return ""
	}
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("path") != "" {
			return v.Field(i).String()
		}
	}
	return ""
}

// readRequest fills a Q from the path, the query and the body of a request.
func readRequest[Q any](r *http.Request) (q Q, err error) {
	v := reflect.ValueOf(&q).Elem()
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, &Error{Invalid, "the query of the address cannot be read: percent-encode what stands in it"}
	}
	for i := range v.NumField() {
		field, tag := v.Field(i), v.Type().Field(i).Tag
		name := ""
		switch {
		case tag.Get("path") != "":
			name = tag.Get("path")
			err = setField(field, r.PathValue(name))
		case tag.Get("query") != "":
			name = tag.Get("query")
			if query.Has(name) {
				err = setField(field, query.Get(name))
				query.Del(name)
			}
		default:
			if _, is := tag.Lookup("body"); is {
				name = "the body"
				err = readBody(r, field.Addr().Interface())
			}
		}
		if err != nil {
			return q, &Error{Invalid, fmt.Sprintf("%s is not understood: %v", name, err)}
		}
	}
	if len(query) > 0 {
		names := slices.Sorted(maps.Keys(query))
		return q, &Error{Invalid, fmt.Sprintf("the parameter %s is unknown: see /v1/openapi.json", names[0])}
	}
	return q, nil
}

func setField(v reflect.Value, text string) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("it is no number")
		}
		v.SetInt(int64(n))
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("it is neither true nor false")
		}
		v.SetBool(b)
	default:
		return fmt.Errorf("a %s cannot be read", v.Type())
	}
	return nil
}

// readBody reads a JSON body whole and strictly.
func readBody(r *http.Request, into any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAsk+1))
	defer clear(body) // it may hold a secret
	switch {
	case err != nil:
		return errors.New("it is too large, or ended early")
	case len(body) > maxAsk:
		return errors.New("it is too large")
	case len(bytes.TrimSpace(body)) == 0:
		return nil
	}
	return decodeStrict(body, into)
}

// Page is a part of a list.
type Page[T any] struct {
	Items []T `json:"items"`
	// Next is the cursor of the next page; empty: this is the last one.
	Next string `json:"next,omitempty"`
	// Total is how many there are in all, where that is known.
	Total *int `json:"total,omitempty"`
}

// The bounds of a page's length.
const (
	pageDefault = 100
	pageMost    = 1000
)

// pageLimit is the length of a page that was asked for.
func pageLimit(limit int) (int, error) {
	switch {
	case limit == 0:
		return pageDefault, nil
	case limit < 0 || limit > pageMost:
		return 0, &Error{Invalid, fmt.Sprintf("limit is %d: write 1 to %d", limit, pageMost)}
	}
	return limit, nil
}

// paged cuts a page out of a whole list that is sorted by key: what comes after the
// cursor, which is the key of the last item that was given.
func paged[T any](all []T, cursor string, limit int, key func(T) string, keep func(T) bool) (Page[T], error) {
	limit, err := pageLimit(limit)
	if err != nil {
		return Page[T]{}, err
	}
	p := Page[T]{Items: []T{}}
	total := 0
	for _, item := range all {
		if !keep(item) {
			continue
		}
		total++
		switch {
		case cursor != "" && key(item) <= cursor:
		case len(p.Items) < limit:
			p.Items = append(p.Items, item)
		case p.Next == "":
			p.Next = key(p.Items[limit-1])
		}
	}
	p.Total = &total
	return p, nil
}

// listed serves pages of a whole list that is sorted by key; keep chooses what a search
// finds.
func listed[T any](all func(context.Context) ([]T, error), key func(T) string, keep func(item T, search string) bool) func(context.Context, listQuery) (Page[T], error) {
	return func(ctx context.Context, q listQuery) (Page[T], error) {
		items, err := all(ctx)
		if err != nil {
			return Page[T]{}, err
		}
		return paged(items, q.Cursor, q.Limit, key, func(item T) bool { return keep(item, q.Search) })
	}
}

// contains tells whether text has part in it, whatever the case of its letters.
func contains(text, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

// jsonText is v as JSON in one line.
func jsonText(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		text, _ = json.Marshal(problemOf(&Error{Internal, err.Error()})) // strings and a number
	}
	return text
}
