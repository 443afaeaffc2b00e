package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestThrottle(t *testing.T) {
	now := time.Unix(1000, 0)
	th := NewThrottle(ThrottleConfig{PerAddress: 10, PerUser: 5, Window: time.Minute, Now: func() time.Time { return now }})
	home, evil, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	allowed := func(a netip.Addr, user string, want bool) {
		t.Helper()
		if err := th.Allow(a, user); (err == nil) != want || err != nil && !errors.Is(err, ErrThrottled) {
			t.Errorf("Allow(%v, %q) = %v, want allowed %v", a, user, err, want)
		}
	}
	th.Succeeded(home, "dev1")
	for range 5 {
		allowed(evil, "dev1", true)
		th.Failed(evil, "dev1")
	}
	allowed(evil, "dev1", false)
	allowed(other, "dev1", false) // the user is guessed at, from wherever
	allowed(home, "dev1", true)   // but not where it has logged in
	allowed(evil, "dev2", true)
	for range 5 {
		th.Failed(evil, "dev2")
	}
	allowed(evil, "dev3", false) // the address has had its ten
	allowed(home, "dev3", true)
	now = now.Add(13 * time.Second)
	allowed(evil, "dev1", true) // a fifth of the window, one more guess
	th.Failed(evil, "dev1")
	allowed(evil, "dev1", false)

	// Guesses at home count there.
	for range 5 {
		allowed(home, "dev1", true)
		th.Failed(home, "dev1")
	}
	allowed(home, "dev1", false)
	now = now.Add(2 * time.Minute)
	allowed(home, "dev1", true)
	allowed(evil, "dev1", true)
}

func TestThrottleIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	th := NewThrottle(ThrottleConfig{PerAddress: 2, PerUser: 2, Now: func() time.Time { return now }})
	long := string(make([]byte, 65535))
	for i := range 3 * maxTallies {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		th.Failed(a, fmt.Sprint("user", i))
		th.Succeeded(a, fmt.Sprint("user", i))
		th.Failed(a, long)
	}
	for name, n := range map[string]int{"addresses": th.addresses.Len(), "users": th.users.Len(), "known": th.known.Len(), "pairs": th.pairs.Len()} {
		if n > maxTallies {
			t.Errorf("%d %s are remembered", n, name)
		}
	}
	for key := range th.users.counts {
		if len(key) > maxName+1 {
			t.Fatalf("a name of %d bytes is remembered", len(key))
		}
	}
}

func TestThrottleOff(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	a := netip.MustParseAddr("192.0.2.1")
	for range 1000 {
		th.Failed(a, "u")
	}
	if err := th.Allow(a, "u"); err != nil {
		t.Errorf("without limits: %v", err)
	}
}
