package auth

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// The kinds of a Ban.
const (
	BanAddress = "address"
	BanUser    = "user"
	BanClient  = "client"
)

// ErrBanned: an operator, or a node that saw abuse, keeps the client out; wrapped
// with the ban.
var ErrBanned = errors.New("banned")

// Ban keeps somebody out of the cluster.
type Ban struct {
	Kind string
	// Value is a user name, a client id, or a network as CIDR, whose bits behind the
	// prefix are 0.
	Value  string
	Reason string
}

// maxClient is the longest client id, in bytes.
const maxClient = 65535

// ParseBan returns the ban of what an operator wrote: an address is one network,
// written as CIDR or alone.
func ParseBan(kind, value string) (Ban, error) {
	b := Ban{Kind: kind, Value: value}
	if kind == BanAddress {
		p, err := parseNetwork(value)
		if err != nil {
			return b, err
		}
		b.Value = p.String()
	}
	return b, b.Validate()
}

func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return p, fmt.Errorf("address %.60q is neither an address nor a network: write for example 192.0.2.7 or 2001:db8::/64", text)
	}
	return p.Masked(), nil
}

// Validate tells whether b is one that the cluster can keep.
func (b Ban) Validate() error {
	switch b.Kind {
	case BanAddress:
		p, err := parseNetwork(b.Value)
		if err == nil && p.String() != b.Value {
			err = fmt.Errorf("address %.60q is not written as a network: write %s", b.Value, p)
		}
		return err
	case BanUser:
		return ValidUser(b.Value)
	case BanClient:
		if b.Value == "" || len(b.Value) > maxClient || !utf8.ValidString(b.Value) || strings.Contains(b.Value, "\x00") {
			return fmt.Errorf("client id %.40q is none: write 1 to %d bytes of UTF-8", b.Value, maxClient)
		}
		return nil
	}
	return fmt.Errorf("%.20q cannot be banned: write %s, %s or %s", b.Kind, BanAddress, BanUser, BanClient)
}

// Bans are all bans in force. They are immutable and safe for concurrent use; a
// changed one copies what is of its kind. The zero value has none.
type Bans struct {
	networks map[netip.Prefix]Ban
	lengths  []int // of the prefixes in networks, each once
	users    map[string]Ban
	clients  map[string]Ban
}

// NewBans returns those bans. Of those that are not valid none counts.
func NewBans(all iter.Seq[Ban]) *Bans {
	b := &Bans{networks: map[netip.Prefix]Ban{}, users: map[string]Ban{}, clients: map[string]Ban{}}
	for one := range all {
		b.put(one)
	}
	b.measure()
	return b
}

func (b *Bans) put(one Ban) {
	switch one.Kind {
	case BanAddress:
		if p, err := parseNetwork(one.Value); err == nil {
			b.networks[p] = one
		}
	case BanUser:
		b.users[one.Value] = one
	case BanClient:
		b.clients[one.Value] = one
	}
}

func (b *Bans) measure() {
	b.lengths = b.lengths[:0:0]
	for p := range b.networks {
		if !slices.Contains(b.lengths, p.Bits()) {
			b.lengths = append(b.lengths, p.Bits())
		}
	}
	slices.SortFunc(b.lengths, func(x, y int) int { return y - x }) // the smallest network is told of
}

// clone copies what is of a kind.
func (b *Bans) clone(kind string) *Bans {
	next := *b
	copied := func(m map[string]Ban) map[string]Ban {
		if m == nil {
			return map[string]Ban{}
		}
		return maps.Clone(m)
	}
	switch kind {
	case BanAddress:
		if next.networks = maps.Clone(b.networks); next.networks == nil {
			next.networks = map[netip.Prefix]Ban{}
		}
	case BanUser:
		next.users = copied(b.users)
	case BanClient:
		next.clients = copied(b.clients)
	}
	return &next
}

// With returns the bans with one more, or another in its place.
func (b *Bans) With(one Ban) *Bans {
	next := b.clone(one.Kind)
	next.put(one)
	next.measure()
	return next
}

// Without returns the bans without one.
func (b *Bans) Without(kind, value string) *Bans {
	next := b.clone(kind)
	switch kind {
	case BanAddress:
		if p, err := parseNetwork(value); err == nil {
			delete(next.networks, p)
		}
	case BanUser:
		delete(next.users, value)
	case BanClient:
		delete(next.clients, value)
	}
	next.measure()
	return next
}

// Len is how many there are.
func (b *Bans) Len() int { return len(b.networks) + len(b.users) + len(b.clients) }

// Address returns the ban of a network that a is in.
func (b *Bans) Address(a netip.Addr) (Ban, bool) {
	a = a.Unmap().WithZone("")
	for _, n := range b.lengths {
		if n > a.BitLen() {
			continue
		}
		if p, err := a.Prefix(n); err == nil {
			if one, ok := b.networks[p]; ok {
				return one, true
			}
		}
	}
	return Ban{}, false
}

// User returns the ban of a user; the name "" has none.
func (b *Bans) User(name string) (Ban, bool) {
	one, ok := b.users[name]
	return one, ok
}

// Client returns the ban of a client id.
func (b *Bans) Client(id string) (Ban, bool) {
	one, ok := b.clients[id]
	return one, ok
}

// Check returns ErrBanned if any of the three is banned; a may be the zero value.
func (b *Bans) Check(a netip.Addr, user, client string) error {
	if b.Len() == 0 {
		return nil
	}
	one, ok := b.User(user)
	if !ok {
		one, ok = b.Client(client)
	}
	if !ok && a.IsValid() {
		one, ok = b.Address(a)
	}
	if !ok {
		return nil
	}
	why := ""
	if one.Reason != "" {
		why = " (" + one.Reason + ")"
	}
	return fmt.Errorf("%w: %s %q%s: see mqcluster ban list", ErrBanned, one.Kind, one.Value, why)
}

// Shorten cuts text to at most n bytes, between two characters, and says so.
func Shorten(text string, n int) string {
	const mark = "…"
	if len(text) <= n {
		return text
	}
	cut := max(n-len(mark), 0)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + mark
}
