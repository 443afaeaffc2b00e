package auth_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mqcluster/mqcluster/auth"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustHash(t *testing.T, password string) string {
	t.Helper()
	h, err := auth.Hash([]byte(password), cheap)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestVerifierRemembers(t *testing.T) {
	var shared []auth.Entry
	m := auth.NewMemory(auth.MemoryConfig{OnRemember: func(e auth.Entry) { shared = append(shared, e) }})
	m.SetKey(1, []byte(strings.Repeat("k", 32)))
	v := auth.NewVerifier(1, 0, auth.WithMemory(m))
	hash := mustHash(t, "secret")
	verify := func(version uint64, password string) (bool, error) {
		return v.Verify(t.Context(), "u", version, hash, []byte(password))
	}
	if ok, err := verify(7, "wrong"); ok || err != nil || len(shared) != 0 {
		t.Fatal(ok, err, shared)
	}
	if ok, err := verify(7, "secret"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if len(shared) != 1 || shared[0].KeyID != 1 || shared[0].User != "u" || shared[0].Version != 7 {
		t.Fatal(shared)
	}
	release := v.Hold()
	defer release()
	// Now the pool is full: only what is remembered passes.
	if ok, err := verify(7, "secret"); !ok || err != nil {
		t.Fatal("not remembered:", ok, err)
	}
	if _, err := verify(7, "wrong"); !errors.Is(err, auth.ErrBusy) {
		t.Fatal(err)
	}
	if _, err := verify(8, "secret"); !errors.Is(err, auth.ErrBusy) {
		t.Fatal("remembered past a change of the password:", err)
	}
	if ok, err := v.Verify(t.Context(), "u", 7, "", []byte("secret")); ok || !errors.Is(err, auth.ErrBusy) {
		t.Fatal("a user without a hash was remembered:", ok, err)
	}
}

// Many clients of one user that wait for the pool cost one verification.
func TestVerifierAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := auth.NewMemory(auth.MemoryConfig{})
		m.SetKey(1, []byte(strings.Repeat("k", 32)))
		v := auth.NewVerifier(1, 1, auth.WithMemory(m))
		hash := mustHash(t, "other")
		release := v.Hold()
		var ok bool
		var err error
		var wg sync.WaitGroup
		wg.Go(func() { ok, err = v.Verify(t.Context(), "u", 1, hash, []byte("secret")) })
		synctest.Wait()
		m.Remember("u", 1, []byte("secret")) // what another one found out, whatever the hash says
		release()
		wg.Wait()
		if !ok || err != nil {
			t.Error("the hash was computed:", ok, err)
		}
	})
}

func TestVerifierQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := auth.NewVerifier(1, 2)
		hash := mustHash(t, "secret")
		release := v.Hold()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var waited, cancelled error
		var ok bool
		wg.Go(func() { ok, waited = v.Verify(t.Context(), "u", 1, hash, []byte("secret")) })
		wg.Go(func() { _, cancelled = v.Verify(ctx, "u", 1, hash, []byte("secret")) })
		synctest.Wait()
		if _, err := v.Verify(t.Context(), "u", 1, hash, []byte("secret")); !errors.Is(err, auth.ErrBusy) {
			t.Error("the queue has no end:", err)
		}
		cancel()
		synctest.Wait()
		if v.Pending() != 2 {
			t.Error("a cancelled caller keeps its place:", v.Pending())
		}
		release()
		wg.Wait()
		if !ok || waited != nil || !errors.Is(cancelled, context.Canceled) || v.Pending() != 0 {
			t.Error(ok, waited, cancelled, v.Pending())
		}
	})
}

func TestVerifierDummy(t *testing.T) {
	v := auth.NewVerifier(1, 0)
	if !strings.Contains(v.Dummy(), "$m=19456,t=2,p=1$") {
		t.Fatal(v.Dummy())
	}
	if err := v.SetCost(auth.Params{}); err == nil {
		t.Fatal("a cost of nothing is accepted")
	}
	if err := v.SetCost(cheap); err != nil || !strings.Contains(v.Dummy(), "$m=1024,t=1,p=1$") {
		t.Fatal(err, v.Dummy())
	}
	if ok, err := v.Verify(t.Context(), "u", 0, "", []byte("x")); ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := v.Verify(t.Context(), "u", 0, "$6$x$y", []byte("x")); ok || !errors.Is(err, auth.ErrHash) {
		t.Fatal(ok, err)
	}
}

func TestAuthenticate(t *testing.T) {
	v := auth.NewVerifier(1, 0)
	if err := v.SetCost(cheap); err != nil {
		t.Fatal(err)
	}
	p := auth.NewPolicy(1, slices.Values([]auth.User{
		{Name: "ann", Hash: mustHash(t, "secret")},
		{Name: "bob", Hash: mustHash(t, "secret"), Disabled: true},
		{Name: "cert"},
	}), nil)
	for _, c := range []struct {
		user, password string
		want           error
	}{
		{"ann", "secret", nil},
		{"ann", "Secret", auth.ErrWrongPassword},
		{"ann", "", auth.ErrNoCredentials},
		{"", "secret", auth.ErrNoCredentials},
		{"bob", "secret", auth.ErrDisabled},
		{"bob", "wrong", auth.ErrWrongPassword},
		{"cert", "secret", auth.ErrWrongPassword},
		{"eve", "secret", auth.ErrUnknownUser},
	} {
		if err := v.Authenticate(t.Context(), p, c.user, []byte(c.password)); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s with %q: %v, want %v", c.user, c.password, err, c.want)
		}
	}
	release := v.Hold()
	defer release()
	if err := v.Authenticate(t.Context(), p, "ann", []byte("secret")); !errors.Is(err, auth.ErrBusy) {
		t.Error(err)
	}
}

type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func TestMemory(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	m := auth.NewMemory(auth.MemoryConfig{TTL: time.Minute, Limit: 3, Now: c.Now})
	pw := []byte("secret")
	known := func(user string, version uint64) bool { return m.Known(user, version, pw) }
	m.Remember("a", 1, pw)
	if m.Len() != 0 || known("a", 1) {
		t.Fatal("remembers without a key")
	}
	m.SetKey(1, []byte("key one"))
	m.Remember("a", 1, pw)
	if !known("a", 1) || known("a", 2) || known("b", 1) || m.Known("a", 1, []byte("Secret")) {
		t.Fatal("one entry")
	}
	for _, u := range []string{"b", "c"} {
		m.Remember(u, 1, pw)
	}
	known("a", 1) // used: b is the oldest now
	m.Remember("d", 1, pw)
	if m.Len() != 3 || known("b", 1) || !known("a", 1) || !known("d", 1) {
		t.Fatal("the least recently used does not go first")
	}
	m.Forget("a")
	if known("a", 1) {
		t.Fatal("not forgotten")
	}
	c.now = c.now.Add(59 * time.Second)
	if !known("d", 1) {
		t.Fatal("too early")
	}
	c.now = c.now.Add(time.Second)
	if known("d", 1) || len(m.Export()) != 0 {
		t.Fatal("outlives its time")
	}
}

func TestMemoryKeys(t *testing.T) {
	m := auth.NewMemory(auth.MemoryConfig{})
	pw := []byte("secret")
	key := func(id uint32) { m.SetKey(id, fmt.Appendf(nil, "key %d", id)) }
	key(5)
	m.Remember("a", 1, pw)
	key(7)
	m.Remember("b", 1, pw)
	key(4) // too old: ignored
	if !m.Known("a", 1, pw) || !m.Known("b", 1, pw) {
		t.Fatal("the key before does not count")
	}
	key(6) // between: takes the place of 5
	if m.Known("a", 1, pw) || !m.Known("b", 1, pw) || m.Len() != 1 {
		t.Fatal("an old key still counts")
	}
	m.SetKey(7, []byte("another"))
	if m.Known("b", 1, pw) {
		t.Fatal("a replaced key still counts")
	}
}

func TestMemoryPeers(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	pw := []byte("secret")
	b := auth.NewMemory(auth.MemoryConfig{TTL: time.Minute, Now: c.Now})
	a := auth.NewMemory(auth.MemoryConfig{TTL: time.Minute, Now: c.Now, OnRemember: b.Learn})
	for _, m := range []*auth.Memory{a, b} {
		m.SetKey(1, []byte("shared"))
	}
	a.Remember("u", 1, pw)
	if !b.Known("u", 1, pw) {
		t.Fatal("a peer does not know")
	}
	// Passing entries round does not keep them alive.
	c.now = c.now.Add(50 * time.Second)
	b.Merge(slices.Values(a.Export()))
	a.Merge(slices.Values(b.Export()))
	c.now = c.now.Add(10 * time.Second)
	if a.Known("u", 1, pw) || b.Known("u", 1, pw) {
		t.Fatal("alive for ever")
	}
	// A false entry neither passes nor replaces a true one; a true one found out
	// here replaces it.
	a.Remember("u", 2, pw)
	b.Learn(auth.Entry{KeyID: 1, User: "u", Version: 2})
	b.Learn(auth.Entry{KeyID: 1, User: "u", Version: 1})
	if !b.Known("u", 2, pw) || b.Known("u", 2, nil) {
		t.Fatal("a false entry took the place")
	}
	b.Learn(auth.Entry{KeyID: 1, User: "v", Version: 9})
	b.Remember("v", 2, pw)
	if !b.Known("v", 2, pw) {
		t.Fatal("a false entry stays")
	}
	b.Learn(auth.Entry{KeyID: 2, User: "w"})
	b.Learn(auth.Entry{KeyID: 1, User: ""})
	if b.Len() != 2 {
		t.Fatal("keeps entries that can be of no use")
	}
}

// Memory never says yes to what was not remembered as exactly that.
func TestMemoryAgainstModel(t *testing.T) {
	type fact struct {
		user, password string
		version        uint64
	}
	rapid.Check(t, func(t *rapid.T) {
		m := auth.NewMemory(auth.MemoryConfig{Limit: rapid.IntRange(1, 6).Draw(t, "limit")})
		m.SetKey(1, []byte("k"))
		facts := map[fact]bool{}
		genFact := rapid.Custom(func(t *rapid.T) fact {
			return fact{
				rapid.SampledFrom([]string{"a", "aa", "b"}).Draw(t, "user"),
				rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "password"),
				rapid.Uint64Range(0, 2).Draw(t, "version"),
			}
		})
		for range 30 {
			f := genFact.Draw(t, "fact")
			switch rapid.IntRange(0, 4).Draw(t, "op") {
			case 0:
				m.Remember(f.user, f.version, []byte(f.password))
				facts[f] = true
				if !m.Known(f.user, f.version, []byte(f.password)) {
					t.Fatalf("%v was just remembered", f)
				}
			case 1:
				m.Forget(f.user)
				maps.DeleteFunc(facts, func(g fact, _ bool) bool { return g.user == f.user })
			default:
				if m.Known(f.user, f.version, []byte(f.password)) && !facts[f] {
					t.Fatalf("%v was never remembered", f)
				}
			}
		}
	})
}
