package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"time"
)

// maxVerified bounds how many chains a verified remembers: some 10 MB.
const maxVerified = 100_000

// verified remembers which certificates led up to the roots of one generation of a
// listener's settings, so that a client that comes back costs no signature. It holds
// what cannot change: time, revocation and what a certificate is for are looked at
// each time. A nil one remembers nothing.
type verified struct {
	mu    sync.Mutex
	spans map[[sha256.Size]byte]span
}

// span is when every certificate of a chain is valid.
type span struct{ from, until time.Time }

// find tells whether what a peer presented was verified before, for a time that now
// is in.
func (v *verified) find(key [sha256.Size]byte, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, ok := v.spans[key]
	return ok && !now.Before(s.from) && !now.After(s.until)
}

// note remembers chains that were verified.
func (v *verified) note(key [sha256.Size]byte, chains [][]*x509.Certificate) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.spans == nil || len(v.spans) >= maxVerified {
		v.spans = map[[sha256.Size]byte]span{}
	}
	var s span
	for i, c := range chains[0] {
		if i == 0 || c.NotBefore.After(s.from) {
			s.from = c.NotBefore
		}
		if i == 0 || c.NotAfter.Before(s.until) {
			s.until = c.NotAfter
		}
	}
	v.spans[key] = s
}

// presented is what verified knows a peer's certificates by.
func presented(certs []*x509.Certificate) [sha256.Size]byte {
	h := sha256.New()
	for _, c := range certs {
		one := sha256.Sum256(c.Raw)
		h.Write(one[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}
