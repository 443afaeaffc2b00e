package auth

import "fmt"

// Reformat parses hash and writes it again.
func Reformat(hash string) (string, error) {
	h, err := parseHash(hash)
	return fmt.Sprint(h), err
}

// Dummy is the hash that unknown users are verified against.
func (v *Verifier) Dummy() string { return v.dummy.Load().String() }

// Hold takes a place in the pool, as a verification under way does.
func (v *Verifier) Hold() (release func()) {
	v.pending <- struct{}{}
	v.slots <- struct{}{}
	return func() { <-v.slots; <-v.pending }
}

// Pending is how many verify or wait.
func (v *Verifier) Pending() int { return len(v.pending) }
