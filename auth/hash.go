package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Params are the cost of an argon2id hash [RFC 9106].
type Params struct {
	Memory      uint32 // KiB
	Time        uint32 // passes over the memory
	Parallelism uint8  // lanes
}

// Bounds of the cost, for hashes that are made and for hashes that are read, so
// that a forged one can take neither memory nor time.
const (
	MinMemory      = 1024       // KiB, of hashes that are made
	MaxMemory      = 256 * 1024 // KiB
	MaxTime        = 16
	MaxParallelism = 8
	maxWork        = 1024 * 1024 // KiB times passes: about a second

	saltLen, sumLen       = 16, 32
	minSaltLen, minSumLen = 8, 16
	maxSaltLen, maxSumLen = 64, 64
	maxHashText           = 512
)

// DefaultParams are 19 MiB, 2 passes, 1 lane: about 30 ms of a core.
func DefaultParams() Params { return Params{Memory: 19456, Time: 2, Parallelism: 1} }

// Validate tells whether p is within the bounds for new hashes.
func (p Params) Validate() error {
	if p.Memory < MinMemory {
		return fmt.Errorf("password hash memory %d KiB is too little: take at least %d", p.Memory, MinMemory)
	}
	return p.bounded()
}

func (p Params) bounded() error {
	switch {
	case p.Memory > MaxMemory:
		return fmt.Errorf("password hash memory %d KiB is too much: take at most %d", p.Memory, MaxMemory)
	case p.Time < 1 || p.Time > MaxTime:
		return fmt.Errorf("password hash time %d is out of range: take 1 to %d passes", p.Time, MaxTime)
	case p.Parallelism < 1 || p.Parallelism > MaxParallelism:
		return fmt.Errorf("password hash parallelism %d is out of range: take 1 to %d lanes", p.Parallelism, MaxParallelism)
	case p.Memory < 8*uint32(p.Parallelism):
		return fmt.Errorf("password hash memory %d KiB is too little for %d lanes: take at least %d", p.Memory, p.Parallelism, 8*uint32(p.Parallelism))
	case uint64(p.Memory)*uint64(p.Time) > maxWork:
		return fmt.Errorf("password hash memory %d KiB times %d passes is too much: take at most %d in all", p.Memory, p.Time, maxWork)
	}
	return nil
}

// Hash returns the argon2id hash of password with a new salt, as a PHC string.
// It takes p.Memory of memory and blocks for as long as the hash takes.
func Hash(password []byte, p Params) (string, error) {
	if err := p.Validate(); err != nil {
		return "", err
	}
	h := argonHash{Params: p, salt: make([]byte, saltLen)}
	if _, err := rand.Read(h.salt); err != nil {
		return "", fmt.Errorf("password salt: %w", err)
	}
	h.sum = h.derive(password, sumLen)
	return h.String(), nil
}

// Verify tells whether password is the one that hash was made of. It takes the
// memory and time that the hash asks for, within bounds. An error is an ErrHash
// and says nothing about the password.
func Verify(hash string, password []byte) (bool, error) {
	h, err := parseHash(hash)
	if err != nil {
		return false, err
	}
	return h.verify(password), nil
}

// ValidHash tells whether Verify can use hash.
func ValidHash(hash string) error {
	_, err := parseHash(hash)
	return err
}

// passwordHash is a parsed hash of any format.
type passwordHash interface {
	// verify compares in constant time.
	verify(password []byte) bool
}

// parseHash is where further formats go: their prefix chooses their parser.
func parseHash(hash string) (passwordHash, error) {
	if len(hash) > maxHashText {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrHash, maxHashText)
	}
	rest, ok := strings.CutPrefix(hash, "$")
	format, rest, more := strings.Cut(rest, "$")
	if !ok || !more {
		return nil, fmt.Errorf("%w: it does not begin with $FORMAT$", ErrHash)
	}
	var h passwordHash
	var err error
	switch format {
	case "argon2id":
		h, err = parseArgon(rest)
	case "6":
		h, err = parseSHA512(rest)
	case "7":
		h, err = parsePBKDF2(rest)
	default:
		return nil, fmt.Errorf("%w: format %.20q is unknown, possible are argon2id, 6 and 7", ErrHash, format)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHash, err)
	}
	return h, nil
}

type argonHash struct {
	Params
	salt, sum []byte
}

func (h argonHash) derive(password []byte, n int) []byte {
	return argon2.IDKey(password, h.salt, h.Time, h.Memory, h.Parallelism, uint32(n))
}

func (h argonHash) verify(password []byte) bool {
	return subtle.ConstantTimeCompare(h.derive(password, len(h.sum)), h.sum) == 1
}

// String is the PHC form.
func (h argonHash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.Memory, h.Time, h.Parallelism,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.sum))
}

// parseArgon reads what follows "$argon2id$".
func parseArgon(text string) (h argonHash, err error) {
	parts := strings.Split(text, "$")
	if len(parts) != 4 {
		return h, fmt.Errorf("argon2id has v=, m=,t=,p=, a salt and a sum, this has %d parts", len(parts))
	}
	if want := fmt.Sprintf("v=%d", argon2.Version); parts[0] != want {
		return h, fmt.Errorf("version %.20q is unknown, possible is %s", parts[0], want)
	}
	if h.Params, err = parseParams(parts[1]); err != nil {
		return h, err
	}
	if h.salt, err = decode("salt", parts[2], minSaltLen, maxSaltLen); err != nil {
		return h, err
	}
	h.sum, err = decode("sum", parts[3], minSumLen, maxSumLen)
	return h, err
}

func parseParams(text string) (p Params, err error) {
	fields := strings.Split(text, ",")
	if len(fields) != 3 {
		return p, fmt.Errorf("cost %.40q is not written m=,t=,p=", text)
	}
	var values [3]uint64
	for i, name := range []string{"m=", "t=", "p="} {
		digits, ok := strings.CutPrefix(fields[i], name)
		if !ok {
			return p, fmt.Errorf("cost %.40q is not written m=,t=,p=", text)
		}
		// Bounded to 8 bits less than 32, so that no conversion below wraps.
		if values[i], err = strconv.ParseUint(digits, 10, 24); err != nil || digits != strconv.FormatUint(values[i], 10) {
			return p, fmt.Errorf("cost %s%.20q is not a number in range", name, digits)
		}
	}
	if values[2] > MaxParallelism {
		return p, fmt.Errorf("password hash parallelism %d is out of range: take 1 to %d lanes", values[2], MaxParallelism)
	}
	p = Params{Memory: uint32(values[0]), Time: uint32(values[1]), Parallelism: uint8(values[2])}
	return p, p.bounded()
}

func decode(what, text string, least, most int) ([]byte, error) {
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("the %s is not base64 without padding", what)
	}
	if len(b) < least || len(b) > most {
		return nil, fmt.Errorf("the %s has %d bytes, possible are %d to %d", what, len(b), least, most)
	}
	return b, nil
}
