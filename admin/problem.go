package admin

import (
	"encoding/json"
	"net/http"
)

// Problem is an error as the API tells it (RFC 9457). Detail is one sentence with
// cause and remedy. Kind and Error are what the mqcluster program reads.
type Problem struct {
	Type   string `json:"type"` // urn:mqcluster:problem:KIND
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Kind   Kind   `json:"kind"`
	Error  string `json:"error"`
}

// problemOf makes a problem of an error.
func problemOf(err *Error) Problem {
	status := err.Kind.status()
	return Problem{
		Type: "urn:mqcluster:problem:" + string(err.Kind), Title: http.StatusText(status), Status: status,
		Detail: err.Msg, Kind: err.Kind, Error: err.Msg,
	}
}

func writeError(w http.ResponseWriter, err *Error) {
	p := problemOf(err)
	text, bad := json.Marshal(p)
	if bad != nil { // of strings and a number
		http.Error(w, bad.Error(), http.StatusInternalServerError)
		return
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="mqcluster"`)
	}
	writeBody(w, "application/problem+json", p.Status, text)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeBody(w, "application/json", status, text)
}

func writeBody(w http.ResponseWriter, kind string, status int, text []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The client is gone if this fails, and nobody else to tell.
	_, _ = w.Write(append(text, '\n'))
}
