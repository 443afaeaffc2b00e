// Package identity proves who a client is by other means than the password in its
// CONNECT: SCRAM-SHA-256 by enhanced authentication [RFC 5802, RFC 7677], and JSON
// web tokens of somebody else whose keys are known [RFC 7519]. It knows no users:
// its callers say what they keep of one, and judge whether the one that it proved
// may connect.
package identity

import "errors"

// ErrNoKeys: the issuer's keys could not be read yet.
var ErrNoKeys = errors.New("the keys of the tokens' issuer could not be read: check auth.jwt.jwks_url or auth.jwt.jwks_file")
