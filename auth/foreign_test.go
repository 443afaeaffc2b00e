package auth_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/auth"
)

// As mosquitto_passwd of 2.0.11 wrote them, of "p$1" and "p2".
const (
	pbkdf2Hash = "$7$101$RDmMuBkKQY507qWr$H+hnM69vHGvsl48QXEuQR0IQTjVFDyrIaeBF9ocJs2YMegqP4H/YsMU8DmDNBukgG/lKYPUL14zhTvwNbS7PMw=="
	sha512Hash = "$6$Bpqlu/yzRoOHDuZP$r52jxiNfrf9iJO/vPxTcW/ehpVb3j98S+y08SxUDZZFKuf0QxHiFE7LZCFdDVC+IinP7N09aFb2Gkm+mR3vimA=="
)

func TestForeignHashes(t *testing.T) {
	for _, c := range []struct {
		hash, password string
		want           bool
	}{
		{pbkdf2Hash, "p$1", true},
		{pbkdf2Hash, "p$2", false},
		{pbkdf2Hash, "", false},
		{sha512Hash, "p2", true},
		{sha512Hash, "p", false},
	} {
		if ok, err := auth.Verify(c.hash, []byte(c.password)); ok != c.want || err != nil {
			t.Errorf("Verify(%.10s, %q) = %v, %v", c.hash, c.password, ok, err)
		}
	}
	for _, hash := range []string{
		"$6$", "$6$x", "$6$$" + sha512Hash[20:], "$6$Bpqlu/yz$AAAA", "$7$101$RDmM", "$7$0$" + pbkdf2Hash[7:],
		"$7$1000001$" + pbkdf2Hash[7:], "$7$-1$" + pbkdf2Hash[7:], strings.Replace(sha512Hash, "r52j", "r5\n2", 1),
		// crypt(3) of the same prefix.
		"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO/O817G3uBnIFNjnQJuesI68OTLiBFdcbYEdFCoEOfaS35inz1",
	} {
		if err := auth.ValidHash(hash); !errors.Is(err, auth.ErrHash) {
			t.Errorf("%.30s: %v", hash, err)
		}
	}
}

// TestRenew: the right password makes a foreign hash a new one, once; the wrong
// one and other hashes do not.
func TestRenew(t *testing.T) {
	var renewed []string
	pending := false
	v := auth.NewVerifier(1, 1, auth.WithRenew(func(user, old string) func(string) {
		if pending {
			return nil
		}
		pending = true
		return func(hash string) { renewed = append(renewed, user+" "+hash) }
	}))
	if err := v.SetCost(cheap); err != nil {
		t.Fatal(err)
	}
	try := func(hash, password string, want bool) {
		t.Helper()
		if ok, err := v.Verify(context.Background(), "ann", 1, hash, []byte(password)); ok != want || err != nil {
			t.Fatal(ok, err)
		}
	}
	argon, err := auth.Hash([]byte("p2"), cheap)
	if err != nil {
		t.Fatal(err)
	}
	try(sha512Hash, "wrong", false)
	try(argon, "p2", true)
	if len(renewed) > 0 {
		t.Fatal(renewed)
	}
	try(sha512Hash, "p2", true)
	try(sha512Hash, "p2", true)
	if len(renewed) != 1 || !strings.HasPrefix(renewed[0], "ann $argon2id$") {
		t.Fatal(renewed)
	}
	try(strings.TrimPrefix(renewed[0], "ann "), "p2", true)
}
