package auth_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/auth"
)

// cheap is the least that Validate lets pass.
var cheap = auth.Params{Memory: auth.MinMemory, Time: 1, Parallelism: 1}

// Of password "password", salt "somesalt", by the reference implementation of
// argon2 (test vector, version 0x13, argon2id, t=2, m=2^8 KiB, p=1).
const reference = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"

func TestHash(t *testing.T) {
	a, err := auth.Hash([]byte("päss"), cheap)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := auth.Hash([]byte("päss"), cheap)
	if a == b || !strings.HasPrefix(a, "$argon2id$v=19$m=1024,t=1,p=1$") {
		t.Fatal(a, b)
	}
	for _, c := range []struct {
		hash, password string
		want           bool
	}{
		{a, "päss", true},
		{a, "pass", false},
		{a, "", false},
		{reference, "password", true},
		{reference, "Password", false},
	} {
		if ok, err := auth.Verify(c.hash, []byte(c.password)); err != nil || ok != c.want {
			t.Errorf("Verify(%q, %q) = %v, %v", c.hash, c.password, ok, err)
		}
	}
	empty, err := auth.Hash(nil, auth.Params{Memory: 2048, Time: 3, Parallelism: 4})
	if ok, verr := auth.Verify(empty, []byte{}); err != nil || verr != nil || !ok {
		t.Fatal(empty, err, verr)
	}
}

func TestHashBounds(t *testing.T) {
	if err := auth.DefaultParams().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []auth.Params{
		{},
		{Memory: 1023, Time: 1, Parallelism: 1},
		{Memory: auth.MaxMemory + 1, Time: 1, Parallelism: 1},
		{Memory: 4096, Time: 0, Parallelism: 1},
		{Memory: 4096, Time: 17, Parallelism: 1},
		{Memory: 4096, Time: 1, Parallelism: 9},
		{Memory: 4096, Time: 1, Parallelism: 0},
		{Memory: auth.MaxMemory, Time: 5, Parallelism: 1},
	} {
		if _, err := auth.Hash([]byte("x"), p); err == nil {
			t.Errorf("%+v passes", p)
		}
	}
}

func TestForgedHashes(t *testing.T) {
	const tail = "$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for hash, why := range map[string]string{
		"":                                       "$FORMAT$",
		"plain":                                  "$FORMAT$",
		"$argon2id":                              "$FORMAT$",
		"$6$salt$sum":                            "the sum is not base64 of 64 bytes",
		"$5$salt$sum":                            `"5" is unknown`,
		"$argon2i$v=19$m=256,t=2,p=1" + tail:     "is unknown",
		"$argon2id$v=16$m=256,t=2,p=1" + tail:    "version",
		"$argon2id$m=256,t=2,p=1" + tail:         "parts",
		"$argon2id$v=19$m=999999,t=2,p=1" + tail: "too much",
		"$argon2id$v=19$m=4294967295,t=2,p=1" + tail:                                      "not a number in range",
		"$argon2id$v=19$m=256,t=999,p=1" + tail:                                           "time",
		"$argon2id$v=19$m=262144,t=16,p=1" + tail:                                         "in all",
		"$argon2id$v=19$m=256,t=0,p=1" + tail:                                             "time",
		"$argon2id$v=19$m=256,t=1,p=0" + tail:                                             "parallelism",
		"$argon2id$v=19$m=256,t=1,p=257" + tail:                                           "parallelism",
		"$argon2id$v=19$m=8,t=1,p=2" + tail:                                               "lanes",
		"$argon2id$v=19$m=+256,t=1,p=1" + tail:                                            "not a number in range",
		"$argon2id$v=19$m=0256,t=1,p=1" + tail:                                            "not a number in range",
		"$argon2id$v=19$t=1,m=256,p=1" + tail:                                             "not written",
		"$argon2id$v=19$m=256,t=1" + tail:                                                 "not written",
		"$argon2id$v=19$m=256,t=1,p=1,x=1" + tail:                                         "not written",
		"$argon2id$v=19$m=256,t=1,p=1$c29tZQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4": "salt has 4 bytes",
		"$argon2id$v=19$m=256,t=1,p=1$c29tZXNhbHQ$nf65":                                   "sum has 3 bytes",
		"$argon2id$v=19$m=256,t=1,p=1$c29tZXNhbHQ=$nf65":                                  "salt is not base64",
		"$argon2id$v=19$m=256,t=1,p=1$c29tZXNhbHQ$" + strings.Repeat("A", 87):             "sum has 65 bytes",
		"$argon2id$v=19$m=256,t=1,p=1$" + strings.Repeat("A", 600) + "$nf65EOgLrQMR":      "longer than",
	} {
		ok, err := auth.Verify(hash, []byte("password"))
		if ok || !errors.Is(err, auth.ErrHash) || !strings.Contains(err.Error(), why) {
			t.Errorf("Verify(%.60q) = %v, %v; want an error with %q", hash, ok, err, why)
		}
		if auth.ValidHash(hash) == nil {
			t.Errorf("ValidHash(%.60q)", hash)
		}
	}
	if err := auth.ValidHash(reference); err != nil {
		t.Error(err)
	}
}

func FuzzHash(f *testing.F) {
	f.Add(reference)
	f.Add("$argon2id$v=19$m=999999,t=2,p=1$c29tZXNhbHQ$nf65")
	f.Add("$6$salt$sum")
	f.Add(pbkdf2Hash)
	f.Add(sha512Hash)
	f.Fuzz(func(t *testing.T, hash string) {
		canonical, err := auth.Reformat(hash)
		if err != nil {
			if !errors.Is(err, auth.ErrHash) {
				t.Fatalf("%q: %v is no ErrHash", hash, err)
			}
			return
		}
		if canonical != hash {
			t.Fatalf("%q is read as %q", hash, canonical)
		}
	})
}
