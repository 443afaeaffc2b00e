package fsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The bytes in testdata are those of a log and of a snapshot that a version
// wrote. They are never changed once the version is released: every later one
// reads them, and comes to the same state. UPDATE_GOLDEN=1 writes those of this
// version.
const goldenVersion = "v4"

func golden(name string) string { return filepath.Join("testdata", goldenVersion, name) }

// TestGoldenLog: the log of this version, and of every one before it, is applied
// as it was then.
func TestGoldenLog(t *testing.T) {
	if os.Getenv("UPDATE_GOLDEN") != "" {
		writeGolden(t)
	}
	dirs, err := filepath.Glob(filepath.Join("testdata", "v*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no versions in testdata: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			logs := readLogs(t, filepath.Join(dir, "log.bin"))
			for _, all := range []bool{true, false} {
				s := newTape(t).open(vfs.NewMem())
				if all {
					s.ApplyBatch(logs)
				} else {
					for _, l := range logs {
						s.Apply(l)
					}
				}
				want := readText(t, filepath.Join(dir, "state.txt"))
				if diff := cmp.Diff(want, everything(t, s)); diff != "" {
					t.Fatalf("the log leads to another state:\n%s", diff)
				}
			}
		})
	}
}

// TestGoldenSnapshot: a snapshot of this version, and of every one before it, is
// restored, and the log goes on from there.
func TestGoldenSnapshot(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join("testdata", "v*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no versions in testdata: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			snap, err := os.ReadFile(filepath.Join(dir, "snapshot.tar"))
			if err != nil {
				t.Fatal(err)
			}
			s := newTape(t).open(vfs.NewMem())
			if err := s.Restore(io.NopCloser(bytes.NewReader(snap))); err != nil {
				t.Fatal(err)
			}
			logs := readLogs(t, filepath.Join(dir, "log.bin"))
			if at := s.AppliedIndex(); at == 0 || at >= logs[len(logs)-1].Index {
				t.Fatalf("the snapshot is at %d", at)
			}
			s.ApplyBatch(logs)
			if diff := cmp.Diff(readText(t, filepath.Join(dir, "state.txt")), everything(t, s)); diff != "" {
				t.Fatalf("snapshot and log lead to another state:\n%s", diff)
			}
		})
	}
}

// TestGoldenLogIsWhole: the log of this version has every command that it knows.
func TestGoldenLogIsWhole(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	note := func(m protoreflect.Message) {
		for i := range m.Descriptor().Oneofs().Len() {
			if f := m.WhichOneof(m.Descriptor().Oneofs().Get(i)); f != nil {
				seen[f.FullName()] = true
			}
		}
	}
	for _, l := range readLogs(t, golden("log.bin")) {
		var e logpb.Entry
		if err := proto.Unmarshal(l.Data, &e); err != nil {
			t.Fatal(err)
		}
		note(e.ProtoReflect())
		for _, it := range e.GetPack().GetItems() {
			note(it.ProtoReflect())
		}
	}
	for _, m := range []proto.Message{&logpb.Entry{}, &logpb.Item{}} {
		fields := m.ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
		for i := range fields.Len() {
			if name := fields.Get(i).FullName(); !seen[name] {
				t.Errorf("%s is not in the log: add it to a new version in testdata", name)
			}
		}
	}
}

// everything is the whole content of a store as text.
func everything(t testing.TB, s *Store) string {
	t.Helper()
	it, err := s.db.Load().db.NewIter(&pebble.IterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	var out strings.Builder
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Fprintf(&out, "%q = %q\n", it.Key(), it.Value())
	}
	return out.String()
}

func readText(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// readLogs reads entries: index and length as 8 bytes each, then the data.
func readLogs(t testing.TB, path string) (logs []*raft.Log) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		index, n := binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:])
		logs = append(logs, &raft.Log{Index: index, Type: raft.LogCommand, Data: data[16 : 16+n]})
		data = data[16+n:]
	}
	return logs
}

func writeGolden(t *testing.T) {
	r := newTape(t)
	goldenLog(r)
	var data []byte
	s := r.open(vfs.NewMem())
	var snap bytes.Buffer
	for _, l := range r.logs {
		data = binary.BigEndian.AppendUint64(data, l.Index)
		data = binary.BigEndian.AppendUint64(data, uint64(len(l.Data)))
		data = append(data, l.Data...)
		s.Apply(l)
		// Late, and with what is kept for a while only.
		if snap.Len() == 0 && len(s.state.formers) == 3 {
			sink := &memSink{}
			p, err := s.Snapshot()
			if err == nil {
				err = p.Persist(sink)
			}
			if err != nil {
				t.Fatal(err)
			}
			p.Release()
			snap = sink.Buffer
		}
	}
	for name, content := range map[string][]byte{
		"log.bin": data, "state.txt": []byte(everything(t, s)), "snapshot.tar": snap.Bytes(),
	} {
		if err := os.MkdirAll(filepath.Dir(golden(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden(name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// goldenZero has messages of QoS 0 wait: for a session that was away before the
// setting, one that comes back, one that is cut off, and one that takes what waits
// in two parts.
func goldenZero(r *tape, pe uint64) {
	epochs := map[string]uint64{}
	for _, id := range []string{"z1", "z2", "z3"} {
		_, epochs[id] = r.connect("a", &logpb.Claim{Client: id, Expiry: 1000, Protocol: 5})
		r.subscribe("a", id, epochs[id], 0, "z/+")
	}
	r.subscribe("a", "z3", epochs["z3"], 1, "z/1")
	r.leave("a", "z1", epochs["z1"])
	r.set("queue.qos0", "on")
	r.leave("a", "z3", epochs["z3"])
	for i := range 4 {
		r.publish("b", "pub2", pe, "z/1", fmt.Sprint("waits ", i), uint32(i%2))
	}
	_, epochs["z3"] = r.connect("a", &logpb.Claim{Client: "z3", Expiry: 1000, Protocol: 5})
	half := uint64(session.At(r.index-2, 0))
	r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "z3", Epoch: epochs["z3"], Cursor: half}}})
	r.publish("b", "pub2", pe, "z/1", "waits too", 0)
	_, epochs["z1"] = r.connect("a", &logpb.Claim{Client: "z1", Expiry: 1000, Protocol: 5})
	r.down("a") // z1 and z2 may have been sent anything
	r.publish("b", "pub2", pe, "z/2", "waits after that", 0)
}

// goldenImport has what comes from another broker: a session with messages in
// every state, of which a client takes the first, rights and a hash that is made
// anew.
func goldenImport(r *tape) {
	admin := func(it *logpb.Item) { r.admin("a", it) }
	foreign, fresh := "$6$AAAA$BBBB", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"
	admin(&logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: "old", Hash: &foreign, Create: true}}})
	for range 2 {
		admin(&logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: "old", Hash: &fresh, Replaces: foreign, Update: true}}})
	}
	admin(&logpb.Item{Kind: &logpb.Item_AclPut{AclPut: &logpb.AclPut{Subject: "anonymous", Rules: []*logpb.Rule{{Allow: true, Action: 4, Filter: "a/#"}, {Allow: true, Action: 8, Filter: "#"}}}}})
	minute := uint32(60)
	put := func(c *logpb.SessionPut) { admin(&logpb.Item{Kind: &logpb.Item_SessionPut{SessionPut: c}}) }
	put(&logpb.SessionPut{
		Client: "m1", User: "old", Expiry: 3600, Remaining: 1800, Protocol: 5,
		Subscriptions: []*logpb.Subscription{{Filter: "m/#", Qos: 2, Id: 3}, {Filter: "zero", Qos: 0}},
		Deposits: []*logpb.Deposit{
			{Topic: "m/1", Payload: []byte("sent"), Qos: 1, PacketId: 4},
			{Topic: "m/2", Payload: []byte("sent twice"), Qos: 2, PacketId: 5, State: 1, Subscription: 3},
			{Topic: "m/3", Payload: []byte("received"), Qos: 2, PacketId: 6, State: 2},
		},
		Incoming: []*logpb.Deposit{{Topic: "x/1", Payload: []byte("half way"), Qos: 2, PacketId: 9, Publisher: "m1"}},
	})
	more := &logpb.SessionPut{Client: "m1", From: 3, Deposits: []*logpb.Deposit{
		{Topic: "m/4", Payload: []byte("waits"), Qos: 1, Properties: []byte{1, 1}, Retain: true, Publisher: "p", Expiry: &minute},
	}}
	put(more)
	put(more) // which comes too late
	put(&logpb.SessionPut{Client: "m2", Expiry: session.Never, Deposits: []*logpb.Deposit{{Topic: "m/5", Qos: 1}}})
	_, e := r.connect("a", &logpb.Claim{Client: "m2", Expiry: session.Never, Protocol: 4})
	admin(&logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: "m2", Epoch: e, Cursor: uint64(session.At(r.index, 0))}}})
	r.connect("a", &logpb.Claim{Client: "m2", Expiry: session.Never, Protocol: 4})
}

// goldenLog writes a log with every command, and every field of those that keep
// something.
func goldenLog(r *tape) []*raft.Log {
	admin := func(it *logpb.Item) { r.admin("a", it) }
	hash, off := "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA", true
	admin(&logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: "dev1", Hash: &hash, Roles: []string{"sensors"}, SetRoles: true, Create: true}}})
	admin(&logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: "dev2", Hash: &hash, Create: true}}})
	admin(&logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{Name: "dev1", Disabled: &off, Update: true}}})
	admin(&logpb.Item{Kind: &logpb.Item_UserRemove{UserRemove: &logpb.UserRemove{Name: "dev2"}}})
	admin(&logpb.Item{Kind: &logpb.Item_AclPut{AclPut: &logpb.AclPut{Subject: "role:sensors", Rules: []*logpb.Rule{{Allow: true, Action: 1, Filter: "s/%c/#"}, {Action: 3, Filter: "#"}}}}})
	for i, id := range []string{"t1", "t2"} {
		admin(&logpb.Item{Kind: &logpb.Item_TokenPut{TokenPut: &logpb.TokenPut{Id: id, Hash: bytes.Repeat([]byte{byte(i)}, 32), ExpiresAt: r.stamp + 3_600_000, Uses: 2}}})
	}
	admin(&logpb.Item{Kind: &logpb.Item_TokenSpend{TokenSpend: &logpb.TokenSpend{Id: "t1", Hash: bytes.Repeat([]byte{0}, 32), KeyHash: bytes.Repeat([]byte{7}, 32), Node: "c"}}})
	admin(&logpb.Item{Kind: &logpb.Item_TokenRevoke{TokenRevoke: &logpb.TokenRevoke{Id: "t2"}}})
	for _, n := range []string{"c", "d"} {
		admin(&logpb.Item{Kind: &logpb.Item_MemberPut{MemberPut: &logpb.MemberPut{Node: n, Store: "store-" + n, Address: "127.0.0.1:7883", Voter: n == "c"}}})
	}
	admin(&logpb.Item{Kind: &logpb.Item_MemberRemove{MemberRemove: &logpb.MemberRemove{Node: "d", Store: "store-d"}}})
	admin(&logpb.Item{Kind: &logpb.Item_CertPut{CertPut: &logpb.CertPut{Serial: "0a1b", Subject: "dev1", Kind: "client", NotBefore: 1, NotAfter: 2, Revoked: true}}})
	r.set("cluster.name", "park")
	r.set("queue.max_messages", "5")
	r.set("queue.max_age", "1h")
	r.set("queue.max_age", "")

	expiry, ttl := uint32(600), uint32(30)
	_, pe := r.connect("b", &logpb.Claim{Client: "pub", User: "dev1", CleanStart: true, Protocol: 4, Address: "192.0.2.1:5000"})
	retain := func(topic, payload string, expiry *uint32) {
		admin2 := &logpb.Publish{Client: "pub", Epoch: pe, Topic: topic, Payload: []byte(payload), Retain: true, Qos: 1, Properties: []byte{1, 1}, Expiry: expiry}
		r.admin("b", &logpb.Item{Kind: &logpb.Item_Publish{Publish: admin2}})
	}
	retain("r/1", "old", nil)
	retain("r/1", "new", nil)
	retain("r/2", "expires", &expiry)
	retain("r/3", "expires soon", &ttl)
	retain("r/4", "cleared", nil)
	retain("r/4", "", nil)
	full := will("wills/s1", 5)
	full.Qos, full.Retain, full.Properties, full.Expiry = 1, true, []byte{1, 0}, &expiry
	_, e1 := r.connect("a", &logpb.Claim{Client: "s1", Expiry: session.Never, Will: full, Protocol: 5, Address: "192.0.2.2:5000"})
	admin(&logpb.Item{Kind: &logpb.Item_Subscribe{Subscribe: &logpb.Subscribe{Client: "s1", Epoch: e1, Subscriptions: []*logpb.Subscription{
		{Filter: "x/+", Qos: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 1, Id: 9}, {Filter: "r/#", Qos: 1}, {Filter: "gone", Qos: 1},
	}}}})
	admin(&logpb.Item{Kind: &logpb.Item_Unsubscribe{Unsubscribe: &logpb.Unsubscribe{Client: "s1", Epoch: e1, Filters: []string{"gone"}}}})
	_, e2 := r.connect("a", &logpb.Claim{Client: "s2", Expiry: 100, Protocol: 5})
	r.subscribe("a", "s2", e2, 1, "$share/g/x/#")
	_, e3 := r.connect("b", &logpb.Claim{Client: "s3", Expiry: 20, Protocol: 5, Will: will("wills/s3", 0)})
	r.subscribe("b", "s3", e3, 1, "$share/g/x/#", "x/1")
	var at []uint64
	for i := range 8 {
		r.publish("b", "pub", pe, "x/1", fmt.Sprint("message ", i), 1+uint32(i%2))
		at = append(at, uint64(session.At(r.index, 0)))
	}
	admin(&logpb.Item{Kind: &logpb.Item_Rel{Rel: &logpb.Rel{Client: "pub", Epoch: pe, PacketId: 1}}})
	mark := func(i int, id, state uint32, m *logpb.Message) {
		p := at[i]
		if m != nil {
			p = uint64(session.Pos(p).OfRetained())
		}
		admin(&logpb.Item{Kind: &logpb.Item_Outbound{Outbound: &logpb.Outbound{Client: "s1", Epoch: e1, Marks: []*logpb.Out{{Pos: p, PacketId: id, State: state, Message: m}}}}})
	}
	mark(1, 1, 1, nil)
	mark(3, 2, 1, nil)
	mark(3, 2, 2, nil)
	mark(5, 3, 1, nil)
	mark(5, 3, 2, nil)
	mark(5, 3, 3, nil)
	mark(0, 4, 1, &logpb.Message{Topic: "r/1", Payload: []byte("new"), Qos: 2, Retain: true})
	at1 := r.store.state.sessions["s1"].find("r/#").replay.At
	admin(&logpb.Item{Kind: &logpb.Item_Progress{Progress: &logpb.Progress{Sessions: []*logpb.SessionProgress{
		{Client: "s1", Epoch: e1, Cursor: at[0], Replayed: []*logpb.Replayed{{Filter: "r/#", At: at1, After: retainedKey("r/1")[1:]}}},
	}}}})
	inc := r.store.Session("s1").Incarnation
	r.trim(&logpb.Trim{Reason: TrimMessages, Sessions: []*logpb.SessionTrim{{Client: "s1", Incarnation: inc, To: at[2]}}, Dropped: 2})
	r.trim(&logpb.Trim{Reason: TrimTotalBytes, All: at[0], Dropped: 1})
	admin(&logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{
		Client: "s1", Epoch: e1, Will: true, Expiry: &expiry, Cursor: at[2], Inflight: []*logpb.Inflight{{Pos: at[4], PacketId: 8}}, Grace: 30,
	}}})
	r.leave("a", "s2", e2)
	r.stamp += 31_000 // the will, r/3
	r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	r.down("b") // s3 has 20 s left
	_, e4 := r.connect("a", &logpb.Claim{Client: "s4", Expiry: 1000, Protocol: 3})
	r.subscribe("a", "s4", e4, 1, "x/2")
	admin(&logpb.Item{Kind: &logpb.Item_SessionEnd{SessionEnd: &logpb.SessionEnd{Client: "s4"}}})
	r.up("b")
	r.stamp += 21_000
	r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	_, pe = r.connect("b", &logpb.Claim{Client: "pub2", User: "dev1", Protocol: 5})
	r.publish("b", "pub2", pe, "x/1", "the last", 1)
	goldenZero(r, pe)
	goldenFormer(r)
	goldenImport(r)
	goldenIdentity(r)
	goldenAPI(r)
	// Last: a member that has not told its level yet takes that of all back.
	r.admin("a", &logpb.Item{Kind: &logpb.Item_MemberPut{MemberPut: &logpb.MemberPut{Node: "serves", Store: "store-s", Address: "s:1", ServingOnly: true}}})
	return r.logs
}

// goldenAPI has tokens of the admin API, of which one is gone, and an operator's
// message.
func goldenAPI(r *tape) {
	for _, id := range []string{"t1", "t2"} {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_ApiTokenPut{ApiTokenPut: &logpb.ApiTokenPut{
			Id: id, Hash: []byte("hash of " + id), Name: "name", Role: "viewer", ExpiresAt: r.stamp + 3_600_000,
		}}})
	}
	r.admin("a", &logpb.Item{Kind: &logpb.Item_ApiTokenRemove{ApiTokenRemove: &logpb.ApiTokenRemove{Id: "t2"}}})
	expiry := uint32(60)
	r.admin("a", &logpb.Item{Kind: &logpb.Item_AdminPublish{AdminPublish: &logpb.AdminPublish{
		Topic: "s/operator", Payload: []byte("p"), Qos: 1, Retain: true, Properties: []byte{1, 1}, Expiry: &expiry,
	}}})
}

// goldenFormer has connections with a will taken over: one of which its node tells
// that it was left, one that it was lost, one of a node that goes down, and one of
// which nobody tells.
func goldenFormer(r *tape) {
	r.up("b")
	r.up("a")
	r.up("c") // all members have a level now
	epochs := map[string]uint64{}
	for i, id := range []string{"f1", "f2", "f3", "f4"} {
		node := []string{"a", "a", "b", "a"}[i]
		_, epochs[id] = r.connect(node, &logpb.Claim{Client: id, Expiry: 1000, Protocol: 5, User: "dev1", Will: will("s/"+id+"/w", 0)})
		r.connect("a", &logpb.Claim{Client: id, Expiry: 1000, Protocol: 5, User: "dev1"})
	}
	for _, id := range []string{"f1", "f2"} {
		r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: id, Epoch: epochs[id], Will: id == "f2"}}})
	}
	r.down("b")
}
