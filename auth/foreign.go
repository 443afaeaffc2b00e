package auth

import (
	"crypto/pbkdf2"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Foreign tells whether hash is of a form that passwords are brought over in from
// a mosquitto, and that no new hash has.
func Foreign(hash string) bool {
	return strings.HasPrefix(hash, "$6$") || strings.HasPrefix(hash, "$7$")
}

// Bounds of foreign hashes: a million iterations take about half a second.
const (
	maxForeignSalt       = 64
	maxForeignIterations = 1_000_000
)

// sha512Hash is mosquitto's $6$SALT$SUM: SHA-512 of the password with the salt
// after it. It is not crypt(3)'s, which has the same prefix.
type sha512Hash struct{ salt, sum []byte }

func (h sha512Hash) verify(password []byte) bool {
	s := sha512.New()
	s.Write(password)
	s.Write(h.salt)
	return subtle.ConstantTimeCompare(s.Sum(nil), h.sum) == 1
}

// pbkdf2Hash is mosquitto's $7$ITERATIONS$SALT$SUM: PBKDF2 with HMAC-SHA-512.
type pbkdf2Hash struct {
	iterations int
	salt, sum  []byte
}

func (h pbkdf2Hash) verify(password []byte) bool {
	sum, err := pbkdf2.Key(sha512.New, string(password), h.salt, h.iterations, len(h.sum))
	return err == nil && subtle.ConstantTimeCompare(sum, h.sum) == 1
}

// String is the form that it was read from.
func (h sha512Hash) String() string {
	return "$6$" + base64.StdEncoding.EncodeToString(h.salt) + "$" + base64.StdEncoding.EncodeToString(h.sum)
}

// String is the form that it was read from.
func (h pbkdf2Hash) String() string {
	return fmt.Sprintf("$7$%d$%s$%s", h.iterations, base64.StdEncoding.EncodeToString(h.salt), base64.StdEncoding.EncodeToString(h.sum))
}

func parseSHA512(text string) (h sha512Hash, err error) {
	salt, sum, ok := strings.Cut(text, "$")
	if !ok {
		return h, errors.New("$6$ has a salt and a sum")
	}
	h.salt, h.sum, err = foreignParts(salt, sum)
	return h, err
}

func parsePBKDF2(text string) (h pbkdf2Hash, err error) {
	parts := strings.Split(text, "$")
	if len(parts) != 3 {
		return h, errors.New("$7$ has iterations, a salt and a sum")
	}
	h.iterations, err = strconv.Atoi(parts[0])
	if err != nil || h.iterations < 1 || h.iterations > maxForeignIterations || parts[0] != strconv.Itoa(h.iterations) {
		return h, fmt.Errorf("%.20q iterations are out of range: possible are 1 to %d", parts[0], maxForeignIterations)
	}
	h.salt, h.sum, err = foreignParts(parts[1], parts[2])
	return h, err
}

func foreignParts(salt, sum string) (saltBytes, sumBytes []byte, err error) {
	if strings.ContainsAny(salt+sum, "\r\n") {
		return nil, nil, errors.New("there is a line break in it")
	}
	if saltBytes, err = base64.StdEncoding.Strict().DecodeString(salt); err != nil || len(saltBytes) == 0 || len(saltBytes) > maxForeignSalt {
		return nil, nil, fmt.Errorf("the salt is not base64 of 1 to %d bytes", maxForeignSalt)
	}
	if sumBytes, err = base64.StdEncoding.Strict().DecodeString(sum); err != nil || len(sumBytes) != sha512.Size {
		return nil, nil, fmt.Errorf("the sum is not base64 of %d bytes", sha512.Size)
	}
	return saltBytes, sumBytes, nil
}
