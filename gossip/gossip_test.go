package gossip

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
)

func living(g *Gossip) []string {
	var ids []string
	for _, p := range g.Peers() {
		if p.Alive {
			ids = append(ids, p.Node)
		}
	}
	return ids
}

// within waits until ok, in steps, and fails after limit.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond) // the bubble's time
		synctest.Wait()
	}
}

func met(t *testing.T, p *park) (a, b, c *Gossip) {
	t.Helper()
	a, b, c = p.open("a"), p.open("b"), p.open("c")
	within(t, 10*time.Second, "all know each other", func() bool {
		return len(living(a)) == 2 && len(living(b)) == 2 && len(living(c)) == 2
	})
	return a, b, c
}

func TestThreeMeet(t *testing.T) {
	bubble(t, func(t *testing.T, p *park) {
		a, _, _ := met(t, p)
		if diff := cmp.Diff([]string{"b", "c"}, living(a)); diff != "" {
			t.Error(diff)
		}
		if got := p.heard("a"); !slices.Contains(got, "b alive true") || !slices.Contains(got, "c alive true") {
			t.Errorf("a was told %q", got)
		}
	})
}

func TestDigestsArrive(t *testing.T) {
	bubble(t, func(t *testing.T, p *park) {
		a, b, _ := met(t, p)
		want := Digest{Incarnation: 1, Version: 2, Hash: 3, Load: 4, Level: 5, Clients: 6}
		b.SetDigest(want)
		within(t, 5*time.Second, "the digest is known", func() bool {
			return slices.ContainsFunc(a.Peers(), func(q Peer) bool { return q.Digest == want })
		})
		synctest.Wait()
		if got := p.heard("c"); !slices.Contains(got, "b version 2") {
			t.Errorf("c was told %q", got)
		}
	})
}

func TestManyRoutesAreNotInGossip(t *testing.T) {
	bubble(t, func(t *testing.T, p *park) {
		a, b, _ := met(t, p)
		time.Sleep(10 * time.Second)
		idle := p.bytes.Load()
		time.Sleep(10 * time.Second)
		idle = p.bytes.Load() - idle
		before := p.bytes.Load()
		for i := range 10_000 {
			b.SetDigest(Digest{Incarnation: 1, Version: uint64(i + 1), Hash: uint64(i) * 7})
			time.Sleep(time.Millisecond)
		}
		within(t, 5*time.Second, "the last version is known", func() bool {
			return slices.ContainsFunc(a.Peers(), func(q Peer) bool { return q.Digest.Version == 10_000 })
		})
		if cost := p.bytes.Load() - before; cost > 2*idle+200_000 {
			t.Errorf("10,000 changes cost %d bytes, 10 s of quiet %d", cost, idle)
		}
	})
}

func TestDeadNodeIsFoundDead(t *testing.T) {
	bubble(t, func(t *testing.T, p *park) {
		a, b, _ := met(t, p)
		p.isolate(1, "c")
		start := time.Now()
		within(t, 20*time.Second, "a and b have c dead", func() bool {
			return slices.Equal(living(a), []string{"b"}) && slices.Equal(living(b), []string{"a"})
		})
		t.Logf("took %v", time.Since(start))
		synctest.Wait()
		if got := p.heard("a"); !slices.Contains(got, "c alive false") {
			t.Errorf("a was told %q", got)
		}
	})
}

func TestLeaveIsKnownAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, p *park) {
		a, b, c := met(t, p)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		within(t, 2*time.Second, "a and b know that c left", func() bool {
			return len(living(a)) == 1 && len(living(b)) == 1
		})
		if err := c.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
		// And it may come back.
		c = p.open("c")
		within(t, 15*time.Second, "c is back", func() bool {
			return len(living(a)) == 2 && len(living(b)) == 2 && len(living(c)) == 2
		})
	})
}

func TestLongPartitionHeals(t *testing.T) {
	bubble(t, func(t *testing.T, p *park) {
		a, b, c := met(t, p)
		p.isolate(1, "a")
		within(t, 30*time.Second, "the sides have each other dead", func() bool {
			return len(living(a)) == 0 && len(living(b)) == 1 && len(living(c)) == 1
		})
		time.Sleep(10 * time.Minute) // far longer than memberlist remembers
		p.isolate(0, "a")
		within(t, 15*time.Second, "all are together again", func() bool {
			return len(living(a)) == 2 && len(living(b)) == 2 && len(living(c)) == 2
		})
	})
}

func TestHangingPeerDelaysNobody(t *testing.T) {
	bubble(t, func(t *testing.T, p *park) {
		p.hang["c"] = true
		a, b := p.open("a"), p.open("b")
		within(t, 10*time.Second, "a and b meet", func() bool {
			return len(living(a)) == 1 && len(living(b)) == 1
		})
		start := time.Now()
		for range 1000 {
			if _, err := a.net.WriteToAddress([]byte("x"), memberlist.Address{Addr: hostPort("c"), Name: "c"}); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("packets to a hanging peer took %v", d)
		}
		if n := value(t, a.metrics.dropped); n < 500 {
			t.Errorf("%v dropped", n)
		}
	})
}

func TestStrangersAreKeptOut(t *testing.T) {
	bubble(t, func(t *testing.T, p *park) {
		a, _, _ := met(t, p)
		in, out := net.Pipe()
		go a.HandleConn("stranger", in)
		if _, err := out.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a stranger's connection: %v", err)
		}
		g := guard{a.net}
		for _, n := range []*memberlist.Node{
			{Name: "stranger", Addr: addressOf("stranger"), Port: virtualPort},
			{Name: "b", Addr: addressOf("c"), Port: virtualPort},
			{Name: "b", Addr: addressOf("b"), Port: 1},
			{Name: "b", Addr: net.IPv4(10, 0, 0, 1), Port: virtualPort},
		} {
			if g.NotifyAlive(n) == nil {
				t.Errorf("%s at %v:%d is let in", n.Name, n.Addr, n.Port)
			}
		}
		// One that is no member any more.
		p.mu.Lock()
		delete(p.members, "c")
		p.mu.Unlock()
		within(t, 30*time.Second, "a has forgotten c", func() bool {
			return len(a.Peers()) == 1
		})
	})
}

func TestPacketsComeFromTheCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPark(t, "a", "b")
		a := &transport{}
		met, err := newMetrics(nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{Node: "a"}
		cfg.setDefaults()
		a = newTransport(t.Context(), cfg, Deps{Members: func() map[string]string { return p.members }}, met)
		in, out := net.Pipe()
		go a.handle("b", in)
		if _, err := out.Write([]byte{carriesPackets, 0, 2, 'h', 'i'}); err != nil {
			t.Fatal(err)
		}
		got := <-a.packets
		if string(got.Buf) != "hi" || got.From.String() != hostPort("b") {
			t.Errorf("%q from %v", got.Buf, got.From)
		}
		// Nothing at all, for too long.
		in2, out2 := net.Pipe()
		go a.handle("b", in2)
		start := time.Now()
		if _, err := out2.Read(make([]byte, 1)); err != io.EOF || time.Since(start) != cfg.StreamTimeout {
			t.Errorf("a silent connection: %v after %v", err, time.Since(start))
		}
		if err := a.Shutdown(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAddressesAreStable(t *testing.T) {
	// They travel between versions: what is here is for ever.
	if got, want := hostPort("node-1"), "[fdb1:698d:8984:4e5:74ae:5546:a4d2:ba4e]:7883"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestDigestEncoding(t *testing.T) {
	want := Digest{Incarnation: 1, Version: 1 << 60, Hash: ^uint64(0), Load: 7, Level: 8, Clients: 9}
	b := want.encode()
	if len(b) > memberlist.MetaMaxSize {
		t.Fatalf("%d bytes", len(b))
	}
	got, err := decodeDigest(append(b, 1, 2, 3)) // a later version says more
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, b[:len(b)-1], bytes.Repeat([]byte{1}, 513), append([]byte{0}, b[1:]...)} {
		if _, err := decodeDigest(bad); err == nil {
			t.Errorf("%x is taken", bad)
		}
	}
}

func FuzzDigest(f *testing.F) {
	f.Add(Digest{Incarnation: 1, Version: 2}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDigest(b)
		if err == nil && !bytes.Equal(d.encode()[1:], b[1:digestSize]) {
			t.Errorf("%x decodes to %+v", b, d)
		}
	})
}

// FuzzPackets reads what a member may send as packets.
func FuzzPackets(f *testing.F) {
	f.Add(append(binary.BigEndian.AppendUint16(nil, 3), "abc"...))
	f.Add([]byte{0, 0})
	f.Add([]byte{0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		met, err := newMetrics(nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{Node: "a"}
		cfg.setDefaults()
		tr := newTransport(t.Context(), cfg, Deps{Members: func() map[string]string { return map[string]string{"b": ""} }}, met)
		in, out := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			tr.handle("b", in)
		}()
		go func() {
			_, _ = out.Write(append([]byte{carriesPackets}, data...))
			out.Close()
		}()
		for {
			select {
			case p := <-tr.packets:
				if len(p.Buf) == 0 || len(p.Buf) > maxPacket {
					t.Errorf("a packet of %d bytes", len(p.Buf))
				}
				continue
			case <-done:
			}
			break
		}
		if err := tr.Shutdown(); err != nil {
			t.Error(err)
		}
	})
}
