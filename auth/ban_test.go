package auth_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/auth"
)

func TestParseBan(t *testing.T) {
	for _, tt := range []struct{ kind, value, want string }{
		{"address", "192.0.2.7", "192.0.2.7/32"}, {"address", "192.0.2.7/24", "192.0.2.0/24"}, {"address", "::ffff:192.0.2.7", "192.0.2.7/32"},
		{"address", "2001:db8::7/64", "2001:db8::/64"}, {"address", "0.0.0.0/0", "0.0.0.0/0"}, {"user", "dev 1", "dev 1"}, {"client", "a/b", "a/b"},
		{"address", "", ""}, {"address", "fe80::1%eth0", ""}, {"address", "192.0.2.7/33", ""}, {"address", "host.example.org", ""},
		{"user", "", ""}, {"user", strings.Repeat("x", 65535), ""}, {"user", "a\x00b", ""}, {"client", "", ""}, {"client", "a\x00", ""}, {"node", "a", ""},
	} {
		got, err := auth.ParseBan(tt.kind, tt.value)
		if (err == nil) != (tt.want != "") || err == nil && got.Value != tt.want {
			t.Errorf("%s %.40q: %q %v, want %q", tt.kind, tt.value, got.Value, err, tt.want)
		}
	}
}

func TestBans(t *testing.T) {
	one := func(kind, value string) auth.Ban {
		b, err := auth.ParseBan(kind, value)
		if err != nil {
			t.Fatal(err)
		}
		b.Reason = "because"
		return b
	}
	all := []auth.Ban{one("address", "10.0.0.0/8"), one("address", "10.1.0.0/16"), one("address", "2001:db8::/32"), one("user", "u"), one("client", "c")}
	b := auth.NewBans(slices.Values(all))
	home := netip.MustParseAddr("192.0.2.1")
	for _, tt := range []struct {
		address, user, client string
		banned                string
	}{
		{"192.0.2.1", "x", "x", ""}, {"10.2.0.1", "x", "x", "10.0.0.0/8"}, {"10.1.2.3", "x", "x", "10.1.0.0/16"}, {"::ffff:10.2.0.1", "", "", "10.0.0.0/8"},
		{"2001:db8:7::1", "", "", "2001:db8::/32"}, {"2001:db9::1", "", "", ""}, {"192.0.2.1", "u", "x", `user "u"`}, {"192.0.2.1", "x", "c", `client "c"`},
	} {
		err := b.Check(netip.MustParseAddr(tt.address), tt.user, tt.client)
		if (err == nil) != (tt.banned == "") || err != nil && (!errors.Is(err, auth.ErrBanned) || !strings.Contains(err.Error(), tt.banned)) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	less := b.Without("address", "10.0.0.0/8").Without("user", "u")
	if less.Check(netip.MustParseAddr("10.2.0.1"), "u", "x") != nil || less.Check(netip.MustParseAddr("10.1.0.1"), "", "") == nil {
		t.Error("Without takes others away, or nothing")
	}
	if b.Len() != 5 || less.Len() != 3 || b.Check(home, "u", "") == nil {
		t.Error("bans are changed in place")
	}
	none := new(auth.Bans)
	if none.Check(home, "u", "c") != nil || none.With(one("user", "u")).Check(home, "u", "c") == nil || none.Len() != 0 {
		t.Error("the zero value bans, or cannot be added to")
	}
}
