package mtls

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestIdentityOpenReplace(t *testing.T) {
	ca := newCA(t, testCluster)
	dir := t.TempDir()
	first := issueNode(t, ca, NodeProfile{ID: "n1"}, time.Now())
	i := must(CreateIdentity(dir, testCluster, first))
	if info := must(os.Stat(filepath.Join(dir, fileNodeKey))); info.Mode().Perm() != 0o600 {
		t.Errorf("node.key has mode %v", info.Mode())
	}
	if i.ID() != "n1" || i.ClusterID() != testCluster || i.Pin() != PinOf(ca.Certificate()) {
		t.Errorf("%s %s %s", i.ID(), i.ClusterID(), i.Pin())
	}

	second := issueNode(t, ca, NodeProfile{ID: "n1", Lifetime: time.Hour}, time.Now())
	if err := i.Replace(second.Cert, second.Key, nil); err != nil {
		t.Fatal(err)
	}
	if time.Until(i.NotAfter()) > time.Hour {
		t.Error("the old certificate is still in use")
	}
	again := must(OpenIdentity(dir, testCluster))
	if !again.Leaf().Equal(i.Leaf()) {
		t.Error("another certificate is on disk")
	}
}

func TestIdentityRefuses(t *testing.T) {
	ca, other := newCA(t, testCluster), newCA(t, testCluster)
	now := time.Now()
	good := issueNode(t, ca, NodeProfile{ID: "n1"}, now)
	foreign := issueNode(t, other, NodeProfile{ID: "n1"}, now)
	second := issueNode(t, ca, NodeProfile{ID: "n2"}, now)
	expired := issueNode(t, ca, NodeProfile{ID: "n1", Lifetime: time.Hour}, now.Add(-2*time.Hour))
	early := issueNode(t, ca, NodeProfile{ID: "n1"}, now.Add(time.Hour))
	clientCert, clientKey, err := ca.IssueClient(ClientProfile{Name: "n1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		m    Material
		kind error
		says string
	}{
		"key of another":    {Material{good.Cert, second.Key, nil}, ErrKeyMismatch, "does not belong"},
		"other CA":          {Material{foreign.Cert, foreign.Key, nil}, ErrUntrusted, "unknown authority"},
		"other node":        {second, ErrWrongPeer, "node n2"},
		"expired":           {expired, ErrExpired, "certificate expired since"},
		"not yet valid":     {early, ErrNotYetValid, "certificate valid only from"},
		"client":            {Material{clientCert, clientKey, nil}, ErrWrongKind, "client certificate"},
		"bundle without CA": {Material{nil, nil, good.Cert}, ErrUntrusted, "not a CA of cluster park"},
		"other cluster's":   {Material{nil, nil, append(bytes.Clone(good.CA), newCA(t, "quarry").CertPEM()...)}, ErrUntrusted, "not a CA of cluster park"},
		"no PEM":            {Material{[]byte("x"), nil, nil}, ErrNoCertificate, "no PEM certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			i := must(CreateIdentity(dir, testCluster, good))
			wantErr(t, i.Replace(c.m.Cert, c.m.Key, c.m.CA), c.kind, c.says)
			if again := must(OpenIdentity(dir, testCluster)); !again.Leaf().Equal(i.Leaf()) {
				t.Error("something was replaced")
			}
		})
	}
	dir := t.TempDir()
	must(CreateIdentity(dir, testCluster, good))
	if err := os.Chmod(filepath.Join(dir, fileNodeKey), 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = OpenIdentity(dir, testCluster)
	wantErr(t, err, ErrExposedKey)
	_, err = OpenIdentity(t.TempDir(), testCluster)
	wantErr(t, err, os.ErrNotExist)
}

// A crash may stop Replace after any of its steps; what is then on disk must
// open, as the old identity or as the new one.
func TestReplaceSurvivesACrash(t *testing.T) {
	oldCA, newCA := newCA(t, testCluster), newCA(t, testCluster)
	before := issueNode(t, oldCA, NodeProfile{ID: "n1"}, time.Now())
	after := issueNode(t, newCA, NodeProfile{ID: "n1"}, time.Now()) // not even a CA in common
	names := []string{fileCA, fileNode, fileNodeKey}
	data := func(m Material) [][]byte { return [][]byte{m.CA, m.Cert, m.Key} }
	for written := range 4 {
		for renamed := range 4 {
			if renamed > 0 && written < 3 {
				continue // renaming begins when all are written
			}
			dir := t.TempDir()
			for n, name := range names {
				content := data(before)[n]
				if n < renamed {
					content = data(after)[n]
				} else if n < written {
					if err := WritePrivate(filepath.Join(dir, name+nextSuffix), data(after)[n]); err != nil {
						t.Fatal(err)
					}
				}
				if err := WritePrivate(filepath.Join(dir, name), content); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				i, err := OpenIdentity(dir, testCluster)
				if err != nil {
					t.Fatalf("%d written, %d renamed: %v", written, renamed, err)
				}
				want := before
				if renamed > 0 {
					want = after
				}
				if !i.Leaf().Equal(parseOne(t, want.Cert)) {
					t.Errorf("%d written, %d renamed: not the expected one", written, renamed)
				}
			}
			if left := must(filepath.Glob(filepath.Join(dir, "*"+nextSuffix))); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		}
	}
}

func TestRenewExpired(t *testing.T) {
	ca := newCA(t, testCluster)
	dir := t.TempDir()
	now := time.Now()
	m := issueNode(t, ca, NodeProfile{ID: "n1", DNSNames: []string{"a.example"}, Lifetime: time.Hour}, now.Add(-48*time.Hour))
	if err := m.save(dir); err != nil {
		t.Fatal(err)
	}
	_, err := OpenIdentity(dir, testCluster)
	wantErr(t, err, ErrExpired)
	i := must(RenewExpired(dir, ca, 0, now))
	if i.ID() != "n1" || CheckName(i.Leaf(), "a.example") != nil || i.NotAfter().Before(now) {
		t.Errorf("renewed to %s until %s", i.ID(), i.NotAfter())
	}
	_, err = RenewExpired(dir, newCA(t, "quarry"), 0, now)
	wantErr(t, err, ErrUntrusted)
}

func TestIdentityConcurrently(t *testing.T) {
	ca := newCA(t, testCluster)
	a, b := newIdentity(t, ca, "n1"), newIdentity(t, ca, "n2")
	server, client := a.MeshServer(ServerOptions{}, "raft"), b.MeshClient("n1", "raft")
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 10 {
			m := issueNode(t, ca, NodeProfile{ID: "n1"}, time.Now())
			if err := a.Replace(m.Cert, m.Key, nil); err != nil {
				t.Error(err)
			}
		}
	})
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if s, c := shake(server, client); s.err != nil || c.err != nil {
					t.Errorf("server %v, client %v", s.err, c.err)
				}
			}
		})
	}
	wg.Wait()
}
