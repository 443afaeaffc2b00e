package fsm

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

func apiToken(id string, expires int64) *logpb.Item {
	return &logpb.Item{Kind: &logpb.Item_ApiTokenPut{ApiTokenPut: &logpb.ApiTokenPut{
		Id: id, Hash: []byte("hash"), Name: "anna", Role: "viewer", ExpiresAt: expires,
	}}}
}

// A token is in force from its entry until it is removed or log time passes its end,
// also after the state was read again.
func TestAPITokens(t *testing.T) {
	r := newTape(t)
	if res := r.admin("a", apiToken("x", 0)); res.Err != nil {
		t.Fatal(res.Err)
	}
	if res := r.admin("a", apiToken("x", 0)); !errors.Is(res.Err, ErrRefused) {
		t.Error("the same id again:", res.Err)
	}
	r.admin("b", apiToken("y", r.stamp+1000))
	if got := r.store.APIToken("x"); got == nil || got.Name != "anna" || got.CreatedAt != r.stamp {
		t.Errorf("%+v", got)
	}
	if r.store.APIToken("y") == nil || r.store.APIToken("z") != nil {
		t.Error("y is not in force, or z is")
	}
	r.stamp += 1000
	r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	if r.store.APIToken("y") != nil {
		t.Error("y is in force after its end")
	}
	if n := len(r.store.APITokens()); n != 2 {
		t.Errorf("%d tokens are listed", n)
	}
	again := newTape(t).open(vfs.NewMem())
	again.ApplyBatch(r.logs)
	if diff := cmp.Diff(everything(t, r.store), everything(t, again)); diff != "" {
		t.Error(diff)
	}
	if res := r.admin("a", &logpb.Item{Kind: &logpb.Item_ApiTokenRemove{ApiTokenRemove: &logpb.ApiTokenRemove{Id: "x"}}}); res.Err != nil {
		t.Fatal(res.Err)
	}
	if r.store.APIToken("x") != nil {
		t.Error("x is in force after its removal")
	}
	if res := r.admin("a", &logpb.Item{Kind: &logpb.Item_ApiTokenRemove{ApiTokenRemove: &logpb.ApiTokenRemove{Id: "x"}}}); !errors.Is(res.Err, ErrRefused) {
		t.Error("removed twice:", res.Err)
	}
	for i := range maxAPITokens + 5 {
		r.admin("a", apiToken(fmt.Sprint("t", i), 0))
	}
	if n := len(r.store.APITokens()); n > maxAPITokens {
		t.Errorf("%d tokens", n)
	}
}

// Tokens are of this cluster and not in its backups.
func TestAPITokensAreNotInCopies(t *testing.T) {
	r := newTape(t)
	r.admin("a", apiToken("x", 0))
	c, err := r.store.Copy()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	err = c.Each(func(k, _ []byte) error {
		if k[0] == keyAPIToken {
			t.Errorf("record %q", k)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// An operator's message is as a client's: it reaches queues and is retained.
func TestAdminPublish(t *testing.T) {
	r := newTape(t)
	_, epoch := r.connect("a", &logpb.Claim{Client: "c", Expiry: 100})
	r.subscribe("a", "c", epoch, 1, "a/#")
	res := r.admin("b", &logpb.Item{Kind: &logpb.Item_AdminPublish{AdminPublish: &logpb.AdminPublish{Topic: "a/b", Payload: []byte("x"), Qos: 1, Retain: true}}})
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	n, err := r.store.Waiting("c", 10)
	if n != 1 || err != nil {
		t.Errorf("%d wait, %v", n, err)
	}
	res = r.admin("a", &logpb.Item{Kind: &logpb.Item_AdminPublish{AdminPublish: &logpb.AdminPublish{Topic: "none"}}})
	if res.Err != nil || res.Matched {
		t.Errorf("%+v", res)
	}
	var got []string
	v := r.store.View()
	err = v.Retained("#", nil, v.Pos(), func(_ session.Pos, m *session.Message) bool {
		got = append(got, m.Topic+"="+string(m.Payload)+" by "+m.Publisher)
		return true
	})
	if err != nil || v.Close() != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"a/b=x by "}, got); diff != "" {
		t.Error(diff)
	}
}

func TestWaiting(t *testing.T) {
	r := newTape(t)
	_, epoch := r.connect("a", &logpb.Claim{Client: "c", Expiry: 100})
	r.subscribe("a", "c", epoch, 1, "a/#", "a/+", "b")
	_, p := r.connect("a", &logpb.Claim{Client: "p"})
	for range 5 {
		r.publish("a", "p", p, "a/x", "1", 1) // matches two of its filters
	}
	r.publish("a", "p", p, "b", "1", 1)
	r.publish("a", "p", p, "b", "1", 0)
	for limit, want := range map[int]int{100: 6, 3: 3} {
		if n, err := r.store.Waiting("c", limit); n != want || err != nil {
			t.Errorf("up to %d: %d, %v; want %d", limit, n, err, want)
		}
	}
	if n, err := r.store.Waiting("nobody", 10); n != 0 || err != nil {
		t.Error(n, err)
	}
}

func TestEachSession(t *testing.T) {
	r := newTape(t)
	for _, c := range []string{"b", "a", "c"} {
		_, epoch := r.connect("a", &logpb.Claim{Client: c, User: "u" + c, Expiry: 100, Protocol: 5})
		if c == "c" {
			r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: c, Epoch: epoch}}})
		}
	}
	var got []string
	r.store.EachSession(func(s SessionBrief) bool {
		got = append(got, s.Client+" "+s.User+" "+s.Node)
		return s.Client != "c"
	})
	if diff := cmp.Diff([]string{"a ua a", "b ub a", "c uc "}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRetainedLevels(t *testing.T) {
	r := newTape(t)
	_, p := r.connect("a", &logpb.Claim{Client: "p"})
	for _, topic := range []string{"a", "a/b", "a/b/c", "ab", "a\x02x/y", "x/y/z", "/lead", "a//e", "x/yy"} {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{Client: "p", Epoch: p, Topic: topic, Payload: []byte("v"), Retain: true}}})
	}
	for under, want := range map[string][]string{
		"":     {" below", "a v below", "a\x02x below", "ab v", "x below"},
		"/":    {"lead v"},
		"a/":   {" below", "b v below"},
		"a//":  {"e v"},
		"a/b/": {"c v"},
		"x/":   {"y below", "yy v"},
		"no/":  nil,
	} {
		var got []string
		err := r.store.RetainedLevels(under, func(level string, m *session.Message, below bool) bool {
			text := level
			if m != nil {
				text += " " + string(m.Payload)
			}
			if below {
				text += " below"
			}
			got = append(got, text)
			return true
		})
		if err != nil {
			t.Error(under, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("under %q:\n%s", under, diff)
		}
	}
}
