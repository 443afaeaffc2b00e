package auth

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
)

// Verifier verifies passwords, a bounded number at a time, on the goroutines of
// its callers. It is safe for concurrent use and has nothing to close.
type Verifier struct {
	memory  *Memory                   // nil: nothing is remembered
	renew   Renew                     // nil: foreign hashes stay
	slots   chan struct{}             // one per verification under way
	pending chan struct{}             // one per verification under way or waiting
	dummy   atomic.Pointer[argonHash] // its Params are those of new hashes

	hashed, remembered atomic.Uint64
}

// Checks returns how many passwords were verified by computing their hash, and how
// many were known to be right without.
func (v *Verifier) Checks() (hashed, remembered uint64) {
	return v.hashed.Load(), v.remembered.Load()
}

// Renew is asked when a password was verified by a hash of a foreign form. To
// have it replaced it returns a func, which is then called with a new hash of the
// password; nil says no, for one that is being replaced already. Neither may
// block.
type Renew func(user, old string) func(hash string)

// Option is a further setting of NewVerifier.
type Option func(*Verifier)

// WithMemory lets the Verifier ask m first and tell it what it found out.
func WithMemory(m *Memory) Option { return func(v *Verifier) { v.memory = m } }

// WithRenew lets the Verifier replace hashes of foreign forms by r, at the cost of
// one more hash in that login.
func WithRenew(r Renew) Option { return func(v *Verifier) { v.renew = r } }

// NewVerifier returns a Verifier that computes up to workers hashes at once, at
// least one, and lets up to queue more callers wait.
func NewVerifier(workers, queue int, opts ...Option) *Verifier {
	workers, queue = max(workers, 1), max(queue, 0)
	v := &Verifier{slots: make(chan struct{}, workers), pending: make(chan struct{}, workers+queue)}
	v.setDummy(DefaultParams())
	for _, o := range opts {
		o(v)
	}
	return v
}

// SetCost tells the Verifier what new hashes cost, so that an unknown user takes
// as long as a known one does.
func (v *Verifier) SetCost(p Params) error {
	if err := p.Validate(); err != nil {
		return err
	}
	v.setDummy(p)
	return nil
}

func (v *Verifier) setDummy(p Params) {
	h := &argonHash{Params: p, salt: make([]byte, saltLen), sum: make([]byte, sumLen)}
	_, _ = rand.Read(h.salt) // never fails; the salt is of no secret
	_, _ = rand.Read(h.sum)
	v.dummy.Store(h)
}

// Verify tells whether password is the user's. version is User.Version and ties
// what is remembered to this credential. An empty hash, for a user that does not
// exist or has no password, takes the time of a hash and is false. Verify blocks
// for a place in the pool, until ctx ends at the latest, and for the hash; with
// the queue full it returns ErrBusy at once. Further errors are ErrHash and that
// of ctx.
func (v *Verifier) Verify(ctx context.Context, user string, version uint64, hash string, password []byte) (bool, error) {
	if hash != "" && v.memory != nil && v.memory.Known(user, version, password) {
		v.remembered.Add(1)
		return true, nil
	}
	var h passwordHash = v.dummy.Load()
	if hash != "" {
		var err error
		if h, err = parseHash(hash); err != nil {
			return false, fmt.Errorf("user %q: %w", user, err)
		}
	}
	select {
	case v.pending <- struct{}{}:
		defer func() { <-v.pending }()
	default:
		return false, ErrBusy
	}
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if err := ctx.Err(); err != nil {
		return false, context.Cause(ctx) // both were ready
	}
	// Many clients of one user that come at once cost one hash.
	if hash != "" && v.memory != nil && v.memory.Known(user, version, password) {
		v.remembered.Add(1)
		return true, nil
	}
	v.hashed.Add(1)
	ok := h.verify(password) && hash != ""
	if Foreign(hash) {
		v.foreign(user, hash, password, ok)
	}
	if ok && v.memory != nil {
		v.memory.Remember(user, version, password)
	}
	return ok, nil
}

// foreign does what follows a foreign hash: it makes a new one of the right
// password, or takes the time of one, so that how long a refusal takes does not
// tell that there is such a user.
func (v *Verifier) foreign(user, hash string, password []byte, ok bool) {
	dummy := v.dummy.Load()
	if !ok {
		dummy.verify(password)
		return
	}
	if v.renew == nil {
		return
	}
	if replace := v.renew(user, hash); replace != nil {
		// Without a new hash the old one goes on working.
		if fresh, err := Hash(password, dummy.Params); err == nil {
			replace(fresh)
		}
	}
}

// Authenticate tells whether the password proves the user under p: nil if it
// does, otherwise ErrNoCredentials, ErrUnknownUser, ErrWrongPassword, ErrDisabled
// (only to who has the password) or an error of Verify, on which it blocks.
func (v *Verifier) Authenticate(ctx context.Context, p *Policy, user string, password []byte) error {
	if user == "" || len(password) == 0 {
		return ErrNoCredentials
	}
	u, known := p.User(user)
	ok, err := v.Verify(ctx, user, u.Version, u.Hash, password)
	switch {
	case err != nil:
		return err
	case !known:
		return ErrUnknownUser
	case !ok:
		return ErrWrongPassword
	case u.Disabled:
		return ErrDisabled
	}
	return nil
}
