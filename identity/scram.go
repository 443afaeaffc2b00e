package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/scram"

	"github.com/mqcluster/mqcluster/auth"
)

// SCRAM is the name of the method.
const SCRAM = "SCRAM-SHA-256"

const (
	// scramIterations are those of every user, so that they tell nobody apart. RFC
	// 7677 asks for 4,096 at least and advises 15,000 or more; the client pays them.
	scramIterations = 15_000
	scramSalt       = 16 // bytes
	maxScramMessage = 4096
	maxScramKeys    = 512
)

// ScramKeys is what a server keeps of a password. It is neither the password nor
// enough to log in by; a password can be guessed by it.
type ScramKeys struct {
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
}

// DeriveScram makes the keys of a password with a new salt. It takes some
// milliseconds. A password that is no text, or has characters that no client may
// send [RFC 4013], has none: an error.
func DeriveScram(password []byte) (ScramKeys, error) {
	if !utf8.Valid(password) {
		return ScramKeys{}, errors.New("the password is not UTF-8")
	}
	client, err := scram.SHA256.NewClient("", string(password), "")
	if err != nil {
		return ScramKeys{}, fmt.Errorf("the password has characters that SCRAM does not allow: %w", err)
	}
	salt := make([]byte, scramSalt)
	if _, err := rand.Read(salt); err != nil {
		return ScramKeys{}, err
	}
	c, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: scramIterations})
	if err != nil {
		return ScramKeys{}, err
	}
	return ScramKeys{Salt: salt, Iterations: scramIterations, StoredKey: c.StoredKey, ServerKey: c.ServerKey}, nil
}

// String is SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER, the last three in base64.
func (k ScramKeys) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", SCRAM, k.Iterations, b64(k.Salt), b64(k.StoredKey), b64(k.ServerKey))
}

var errScramKeys = errors.New("unusable SCRAM keys")

// ParseScram is the inverse of String.
func ParseScram(text string) (k ScramKeys, err error) {
	rest, ok := strings.CutPrefix(text, SCRAM+"$")
	head, keys, more := strings.Cut(rest, "$")
	number, salt, salted := strings.Cut(head, ":")
	stored, server, two := strings.Cut(keys, ":")
	if !ok || !more || !salted || !two || len(text) > maxScramKeys {
		return k, errScramKeys
	}
	k.Iterations, err = strconv.Atoi(number)
	if err != nil || k.Iterations < 4096 || k.Iterations > 1_000_000 || strconv.Itoa(k.Iterations) != number {
		return ScramKeys{}, errScramKeys
	}
	for _, f := range []struct {
		to          *[]byte
		text        string
		least, most int
	}{{&k.Salt, salt, 8, 64}, {&k.StoredKey, stored, sha256.Size, sha256.Size}, {&k.ServerKey, server, sha256.Size, sha256.Size}} {
		b, err := base64.StdEncoding.Strict().DecodeString(f.text)
		if err != nil || len(b) < f.least || len(b) > f.most || strings.ContainsAny(f.text, "\r\n") {
			return ScramKeys{}, errScramKeys
		}
		*f.to = b
	}
	return k, nil
}

// ScramServer is the server's side of the method.
type ScramServer struct {
	// Keys returns the keys of a user, "" if there are none.
	Keys func(user string) string
	// Mock is secret, the same on all nodes and for ever: what is said to a client
	// whose user has no keys follows from it, so that asking twice tells nothing.
	Mock []byte
}

// Conversation is one run of the method with one client. It is for one goroutine.
type Conversation struct {
	conv  *scram.ServerConversation
	user  string
	known bool
	steps int
}

// Begin starts a run, with a nonce of its own.
func (s ScramServer) Begin() (*Conversation, error) {
	c := &Conversation{}
	server, err := scram.SHA256.NewServer(func(user string) (scram.StoredCredentials, error) {
		keys, known := s.keysOf(user)
		c.user, c.known = user, known
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(keys.Salt), Iters: keys.Iterations},
			StoredKey:  keys.StoredKey, ServerKey: keys.ServerKey,
		}, nil
	})
	if err != nil {
		return nil, err
	}
	c.conv = server.NewConversation()
	return c, nil
}

func (s ScramServer) keysOf(user string) (k ScramKeys, known bool) {
	k, err := ParseScram(s.Keys(user))
	// In any case, so that both take as long.
	mock := ScramKeys{
		Salt: s.mock("salt", user)[:scramSalt], Iterations: scramIterations,
		StoredKey: s.mock("stored", user), ServerKey: s.mock("server", user),
	}
	if err != nil {
		return mock, false
	}
	return k, true
}

func (s ScramServer) mock(what, user string) []byte {
	m := hmac.New(sha256.New, s.Mock)
	m.Write([]byte(what + "\x00" + user))
	return m.Sum(nil)
}

// Next takes what the client sent and returns what it is to be sent. With done the
// client has proved that it is User. An error is an auth.ErrProof, and the end.
func (c *Conversation) Next(data []byte) (reply []byte, done bool, err error) {
	if len(data) == 0 || len(data) > maxScramMessage || !utf8.Valid(data) {
		return nil, false, fmt.Errorf("%w: its SCRAM message has %d bytes, or is no text", auth.ErrProof, len(data))
	}
	if c.steps++; c.steps > 2 {
		return nil, false, fmt.Errorf("%w: it goes on after the end", auth.ErrProof)
	}
	text, err := c.conv.Step(string(data))
	switch {
	case err != nil && c.steps == 2 && !c.known:
		return nil, false, fmt.Errorf("%w: user %q is unknown, or has no keys for SCRAM: set its password again, or let it log in by password once", auth.ErrProof, c.user)
	case err != nil:
		return nil, false, fmt.Errorf("%w: %w", auth.ErrProof, err)
	case c.steps == 1 && c.conv.AuthzID() != "" && c.conv.AuthzID() != c.user:
		return nil, false, fmt.Errorf("%w: user %q wants to be %q", auth.ErrProof, c.user, c.conv.AuthzID())
	case c.steps == 2 && (!c.conv.Valid() || !c.known):
		return nil, false, auth.ErrProof
	}
	return []byte(text), c.steps == 2, nil
}

// User is whom the client says to be; what it proved when Next is done.
func (c *Conversation) User() string { return c.user }

// Known tells whether the user has keys.
func (c *Conversation) Known() bool { return c.known }
