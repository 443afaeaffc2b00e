// Package mtls makes, keeps and checks the certificates of a cluster, and turns
// them into TLS settings: of the mesh, of a join, and of client listeners. All
// settings can be replaced at run time and apply from the next handshake on.
//
// It opens no sockets, starts no goroutines and knows nothing of MQTT, of the
// replicated log or of who may do what: revocation and membership come in as
// callbacks. What a certificate of the cluster CA is for stands in its one
// mqcluster:// URI; a certificate of one kind is never accepted as another.
package mtls

import (
	"errors"
	"fmt"
	"time"
)

// What can be wrong with a certificate, a key or a token. The errors that the
// package returns say it in a sentence of their own and match one of these.
var (
	ErrExpired       = errors.New("certificate expired")
	ErrNotYetValid   = errors.New("certificate not yet valid")
	ErrRevoked       = errors.New("certificate revoked")
	ErrNoCertificate = errors.New("no certificate")
	ErrUntrusted     = errors.New("certificate of an unknown authority")
	ErrWrongKind     = errors.New("certificate of another kind")
	ErrWrongPeer     = errors.New("certificate of another node")
	ErrWrongName     = errors.New("name not in certificate")
	ErrPin           = errors.New("cluster CA is not the one of the token")
	ErrExposedKey    = errors.New("key readable by others")
	ErrKeyMismatch   = errors.New("key does not belong to the certificate")
	ErrProtocol      = errors.New("no mesh protocol in common")
	ErrBadToken      = errors.New("malformed join token")
)

// fault is an error whose text is a whole sentence and whose kind is one of the
// sentinels, so that neither spoils the other.
type fault struct {
	kind  error
	cause error
	text  string
}

func (f *fault) Error() string { return f.text }

func (f *fault) Unwrap() []error {
	if f.cause == nil {
		return []error{f.kind}
	}
	return []error{f.kind, f.cause}
}

func failf(kind error, format string, args ...any) error {
	return &fault{kind: kind, text: fmt.Sprintf(format, args...)}
}

// stamp writes a time the way all messages of the package do.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }
