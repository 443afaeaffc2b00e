// Package auth decides who a client is and what it may do: password hashes and
// their verification ([Verifier]), the memory of verified passwords ([Memory]),
// and users, roles and access rules compiled into a [Policy]. It is pure: it has
// no clock but the one it is given, does no I/O and starts no goroutine.
//
// Where users and rules are kept, and how a password reaches this package, is
// the business of its callers.
package auth

import "errors"

// Why a client is refused.
var (
	// ErrNoCredentials: there is nothing that could prove a user.
	ErrNoCredentials = errors.New("the client sent no user name and password: set them in the client, or let the listener take the user from a client certificate")
	// ErrUnknownUser: no such user.
	ErrUnknownUser = errors.New("there is no such user: create it with \"mqcluster user add\"")
	// ErrDisabled: the user exists and may not connect.
	ErrDisabled = errors.New("the user is disabled: an operator has to enable it again")
	// ErrWrongPassword: the password does not match the user's hash, or the user
	// has no password.
	ErrWrongPassword = errors.New("the password is wrong: check it, or set a new one with \"mqcluster user passwd\"")
	// ErrProof: what the client sent proves nothing; wrapped with the reason.
	ErrProof = errors.New("the client did not prove who it is")
	// ErrThrottled: too many logins of this user, or from this address, have failed
	// of late.
	ErrThrottled = errors.New("too many logins failed, of this user or from this address: find out who tries, and wait")
	// ErrMethod: the method of enhanced authentication is not to be had.
	ErrMethod = errors.New("the authentication method is not switched on: see the setting auth.scram")
	// ErrUnavailable: what is needed to judge the client is not there now; wrapped
	// with what.
	ErrUnavailable = errors.New("the credentials cannot be checked now")
	// ErrBusy: too many passwords wait to be verified.
	ErrBusy = errors.New("too many clients are logging in at once: try again in some seconds")
	// ErrHash: a stored hash is malformed or of an unknown format, or its cost is
	// out of bounds; wrapped with the reason.
	ErrHash = errors.New("unusable password hash")
)
