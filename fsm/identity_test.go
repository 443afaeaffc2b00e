package fsm

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/fsm/logpb"
)

func by(actor string) *logpb.By {
	return &logpb.By{Actor: actor, Node: "a", Operation: "acl/set", Subject: "x"}
}

func (r *tape) ban(kind, value string, life int64) error {
	return r.admin("a", &logpb.Item{Kind: &logpb.Item_BanPut{BanPut: &logpb.BanPut{Kind: kind, Value: value, Lifetime: life, Reason: "test"}}}).Err
}

// same fails if a store that reads the state back has another one.
func (r *tape) same() {
	r.t.Helper()
	want := everything(r.t, r.store)
	again := r.open(vfs.NewMem())
	again.ApplyBatch(r.logs)
	if diff := cmp.Diff(want, everything(r.t, again)); diff != "" {
		r.t.Fatalf("in one batch the log leads to another state:\n%s", diff)
	}
	st, err := load(r.store.db.Load().db, "a")
	if err != nil {
		r.t.Fatal(err)
	}
	if diff := cmp.Diff(
		[]any{len(r.store.state.bans), r.store.state.banDue, r.store.state.audit, r.store.state.version(), len(r.store.state.versions), r.store.state.secrets, r.store.Bans().Len(), r.store.Reached()},
		[]any{len(st.bans), st.banDue, st.audit, st.version(), len(st.versions), st.secrets, st.table.bans.Len(), st.table.reached},
	); diff != "" {
		r.t.Fatalf("read back, the state is another one:\n%s", diff)
	}
}

func TestBans(t *testing.T) {
	r := newTape(t)
	banned := func(a string) bool {
		_, ok := r.store.Bans().Address(netip.MustParseAddr(a))
		return ok
	}
	for _, b := range [][2]string{{"address", "192.0.2.0/24"}, {"address", "2001:db8::/64"}, {"user", "dev1"}, {"client", "c1"}} {
		if err := r.ban(b[0], b[1], 10_000); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.ban("address", "198.51.100.1/32", 0); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][2]string{{"address", "192.0.2.1/24"}, {"address", "x"}, {"user", ""}, {"client", "a\x00b"}, {"planet", "x"}} {
		if err := r.ban(b[0], b[1], 0); !errors.Is(err, ErrRefused) {
			t.Errorf("%v: %v", b, err)
		}
	}
	if !banned("192.0.2.200") || !banned("2001:db8::1") || !banned("198.51.100.1") || banned("192.0.3.1") || banned("2001:db8:1::1") {
		t.Error("addresses are banned otherwise")
	}
	r.same()
	if due, ok := r.store.Due(); !ok || due != r.stamp+10_000 {
		t.Errorf("due at %d, %v", due, ok)
	}
	r.stamp += 9_999
	r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	if r.store.Bans().Len() != 5 {
		t.Errorf("%d bans before the time", r.store.Bans().Len())
	}
	r.stamp++
	r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	if r.store.Bans().Len() != 1 || !banned("198.51.100.1") {
		t.Errorf("%d bans after the time", r.store.Bans().Len())
	}
	if _, ok := r.store.Due(); ok {
		t.Error("something is due")
	}
	if res := r.admin("a", &logpb.Item{Kind: &logpb.Item_BanRemove{BanRemove: &logpb.BanRemove{Kind: "address", Value: "198.51.100.1/32"}}}); res.Err != nil {
		t.Error(res.Err)
	}
	if banned("198.51.100.1") {
		t.Error("it is banned still")
	}
	r.same()
}

// TestAutomaticBans leave room for an operator's, and do not change them.
func TestAutomaticBans(t *testing.T) {
	r := newTape(t)
	if err := r.ban("client", "c", 0); err != nil {
		t.Fatal(err)
	}
	auto := func(value string) error {
		return r.admin("a", &logpb.Item{Kind: &logpb.Item_BanPut{BanPut: &logpb.BanPut{Kind: "client", Value: value, Lifetime: 1, Automatic: true}}}).Err
	}
	if err := auto("c"); err != nil || r.store.ListBans()[0].Automatic || r.store.ListBans()[0].ExpiresAt != 0 {
		t.Errorf("an operator's ban is %v now: %v", r.store.ListBans()[0], err)
	}
	items := []*logpb.Item{}
	for i := range maxAutomatic {
		items = append(items, &logpb.Item{Kind: &logpb.Item_BanPut{BanPut: &logpb.BanPut{Kind: "client", Value: fmt.Sprint(i), Lifetime: 1e9, Automatic: true}}})
		if len(items) == 500 || i == maxAutomatic-1 {
			r.apply(r.pack("a", items...))
			items = nil
		}
	}
	if n := r.store.Bans().Len(); n != maxAutomatic {
		t.Errorf("%d bans", n)
	}
	if err := auto("one more"); !errors.Is(err, ErrRefused) {
		t.Errorf("one more by a node: %v", err)
	}
	if err := r.ban("client", "by the operator", 0); err != nil {
		t.Errorf("one more by the operator: %v", err)
	}
}

func TestAudit(t *testing.T) {
	r := newTape(t)
	put := func(name string, create bool) {
		r.admin("a", &logpb.Item{
			Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: name, Create: create}},
			By:   &logpb.By{Actor: "uid 0 (root)", Node: "a", Operation: "user/add", Subject: name, Detail: "password"},
		})
	}
	put("dev1", true)
	put("dev1", true)
	r.admin("a", &logpb.Item{Kind: &logpb.Item_AuditPut{AuditPut: &logpb.AuditPut{By: by("uid 7"), Outcome: "because"}}})
	r.admin("a", &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: "nobody asked"}}})
	var got []string
	read := func(most int) {
		got = nil
		if err := r.store.Audit(func(a *logpb.Audit) bool {
			got = append(got, fmt.Sprintf("%s %s %s: %s", a.By.Actor, a.By.Operation, a.By.Subject, a.Outcome))
			return len(got) < most
		}); err != nil {
			t.Fatal(err)
		}
	}
	read(100)
	want := []string{"uid 7 acl/set x: because", `uid 0 (root) user/add dev1: user "dev1" exists already`, "uid 0 (root) user/add dev1: "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	r.same()
	items := []*logpb.Item{}
	for i := range maxAudit + 10 {
		items = append(items, &logpb.Item{Kind: &logpb.Item_AuditPut{AuditPut: &logpb.AuditPut{By: by(fmt.Sprint("n", i))}}})
		if len(items) == 1000 || i == maxAudit+9 {
			r.apply(r.pack("a", items...))
			items = nil
		}
	}
	read(maxAudit * 2)
	if len(got) != maxAudit || got[0] != fmt.Sprintf("n%d acl/set x: ", maxAudit+9) || got[maxAudit-1] != "n10 acl/set x: " {
		t.Errorf("%d records from %s to %s", len(got), got[0], got[len(got)-1])
	}
	r.same()
}

func TestAclVersions(t *testing.T) {
	r := newTape(t) // sets * once
	set := func(actor, subject string, filters ...string) error {
		p := &logpb.AclPut{Subject: subject}
		for _, f := range filters {
			p.Rules = append(p.Rules, &logpb.Rule{Allow: true, Action: 1, Filter: f})
		}
		return r.admin("a", &logpb.Item{Kind: &logpb.Item_AclPut{AclPut: p}, By: by(actor)}).Err
	}
	before := r.store.state.version()
	for i, filters := range [][]string{{"a"}, {"a", "b"}, {"a", "b"}, {}} {
		if err := set("root", "user:u", filters...); err != nil {
			t.Fatal(i, err)
		}
	}
	if n := r.store.state.version() - before; n != 3 {
		t.Errorf("four changes, of which one changed nothing, made %d versions", n)
	}
	acls, current := r.store.VersionedACLs()
	if len(acls) != 1 {
		t.Errorf("there are ACLs %v", acls)
	}
	replace := &logpb.AclReplace{Version: current, Acls: []*logpb.AclPut{
		{Subject: "user:u", Rules: []*logpb.Rule{{Allow: true, Action: 1, Filter: "a"}}}, {Subject: "*"},
	}}
	if res := r.admin("a", &logpb.Item{Kind: &logpb.Item_AclReplace{AclReplace: replace}, By: by("root")}); res.Err != nil {
		t.Fatal(res.Err)
	}
	if !r.store.Policy().Rights("u", "c").MayPublish("a") || r.store.Policy().Rights("other", "c").MayPublish("a") {
		t.Error("the rules were not replaced")
	}
	if res := r.admin("a", &logpb.Item{Kind: &logpb.Item_AclReplace{AclReplace: replace}}); !errors.Is(res.Err, ErrRefused) {
		t.Errorf("a replacement of what is not there any more: %v", res.Err)
	}
	last := r.store.Versions()[len(r.store.Versions())-1]
	if last.Version != current+1 || last.Actor != "root" || len(last.Changes) != 2 {
		t.Errorf("the newest version is %v", last)
	}
	r.same()
	for i := range maxVersions + 5 {
		if err := set("root", "user:u", fmt.Sprint("f", i)); err != nil {
			t.Fatal(err)
		}
	}
	if v := r.store.Versions(); len(v) != maxVersions || v[0].Version != r.store.state.version()-maxVersions+1 {
		t.Errorf("%d versions are kept", len(v))
	}
	r.same()
	// Large ones: as many as there is room for, the newest always.
	big := &logpb.AclPut{Subject: "user:big"}
	for i := range 50_000 {
		big.Rules = append(big.Rules, &logpb.Rule{Allow: true, Action: 1, Filter: fmt.Sprintf("a/topic/that/is/not/short/%d/and/so/on/and/so/on/and/so/on/and/on", i)})
	}
	r.admin("a", &logpb.Item{Kind: &logpb.Item_AclPut{AclPut: big}})
	r.admin("a", &logpb.Item{Kind: &logpb.Item_AclPut{AclPut: &logpb.AclPut{Subject: "user:big"}}})
	if n := len(r.store.Versions()); n != 1 {
		t.Errorf("%d versions of 5 MB are kept", n)
	}
	r.same()
}

// TestLevelIsReached: while a member is of an older level there are neither records
// of the audit nor versions, which it would not keep. From when all know them on, one
// that joins and has not told its level yet changes nothing.
func TestLevelIsReached(t *testing.T) {
	r := &tape{t: t, fs: vfs.NewMem(), stamp: 1_000_000, level: LevelIdentity - 1, packs: map[string]uint64{}, inc: map[string]uint64{}}
	r.store = r.open(r.fs)
	r.up("a")
	r.admin("a", &logpb.Item{Kind: &logpb.Item_MemberPut{MemberPut: &logpb.MemberPut{Node: "b", Store: "store-b"}}})
	r.up("b")
	kept := func(records int, version uint64) {
		t.Helper()
		r.admin("a", &logpb.Item{Kind: &logpb.Item_AclPut{AclPut: &logpb.AclPut{Subject: "user:x", Rules: []*logpb.Rule{{Allow: true, Action: 1, Filter: fmt.Sprint(r.index)}}}}, By: by("root")})
		if r.store.state.version() != version || len(r.store.state.audit) != records {
			t.Errorf("version %d, %d records, want %d and %d", r.store.state.version(), len(r.store.state.audit), version, records)
		}
	}
	r.level = LevelIdentity
	r.up("a")
	kept(0, 0)
	if r.store.Reached() != 0 {
		t.Errorf("level %d is reached", r.store.Reached())
	}
	r.up("b")
	kept(1, 1)
	r.admin("a", &logpb.Item{Kind: &logpb.Item_MemberPut{MemberPut: &logpb.MemberPut{Node: "c", Store: "store-c"}}})
	kept(2, 2)
	if r.store.Reached() != LevelIdentity {
		t.Errorf("level %d is reached", r.store.Reached())
	}
	r.same()
}

func TestSecretIsTheFirst(t *testing.T) {
	r := newTape(t)
	for _, v := range []string{"one", "two"} {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_SecretPut{SecretPut: &logpb.SecretPut{Name: "s", Value: []byte(v)}}})
	}
	if got := string(r.store.Secret("s")); got != "one" {
		t.Errorf("the secret is %q", got)
	}
	if r.store.Secret("other") != nil {
		t.Error("there is another secret")
	}
	r.same()
}

// TestScramGoesWithThePassword: keys of a former password are worth nothing.
func TestScramGoesWithThePassword(t *testing.T) {
	r := newTape(t)
	put := func(p *logpb.UserPut) {
		p.Name = "u"
		r.admin("a", &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: p}})
	}
	is := func(hash, scram string) {
		t.Helper()
		u, _ := r.store.Policy().User("u")
		if u.Hash != hash || u.Scram != scram {
			t.Errorf("hash %q, keys %q, want %q, %q", u.Hash, u.Scram, hash, scram)
		}
	}
	h1, h2 := "$one", "$two"
	put(&logpb.UserPut{Hash: &h1, Scram: "k1"})
	is("$one", "k1")
	put(&logpb.UserPut{Hash: &h1}) // the same again, as an import does
	is("$one", "k1")
	put(&logpb.UserPut{Hash: &h2})
	is("$two", "")
	put(&logpb.UserPut{Hash: &h2, Replaces: h2, Scram: "k2"}) // after a login
	is("$two", "k2")
	put(&logpb.UserPut{Hash: &h1, Replaces: h1, Scram: "k1"}) // somebody was first
	is("$two", "k2")
	r.same()
}

// TestWillOfBearer: the will of a client whose rights come from its certificate or
// its token fires by them, also when a node is lost.
func TestWillOfBearer(t *testing.T) {
	r := newTape(t)
	r.admin("a", &logpb.Item{Kind: &logpb.Item_AclPut{AclPut: &logpb.AclPut{Subject: "*", Rules: []*logpb.Rule{{Allow: true, Action: 1, Filter: "of/%{cert.ou}/w"}}}}})
	fired := func(node, id, topic string, b *logpb.Bearer) bool {
		w := will(topic, 0)
		w.Bearer = b
		_, epoch := r.connect(node, &logpb.Claim{Client: id, CleanStart: true, Protocol: 5, Will: w})
		r.events = nil
		r.apply(r.pack(node, &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: id, Epoch: epoch, Will: true}}}))
		for _, e := range r.events {
			if e.Kind == EventMessage && e.Message.Topic == topic {
				return true
			}
		}
		return false
	}
	token := &logpb.Bearer{Rules: []*logpb.Rule{{Allow: true, Action: 1, Filter: "t/w"}}}
	for _, tt := range []struct {
		topic string
		b     *logpb.Bearer
		want  bool
	}{
		{"of/hall/w", &logpb.Bearer{Ou: "hall"}, true}, {"of/hall/w", nil, false}, {"of/hall/w", &logpb.Bearer{Ou: "other"}, false},
		{"t/w", token, true}, {"t/w", nil, false},
	} {
		if got := fired("a", "c", tt.topic, tt.b); got != tt.want {
			t.Errorf("the will to %s of %v fired: %v", tt.topic, tt.b, got)
		}
	}
}
