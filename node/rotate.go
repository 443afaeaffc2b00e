package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// A rotation of the cluster's CA has three stages, and the log says which:
//
//  1. overlap: every node trusts the old CA and the new one. Nodes, and so their
//     listeners, still have certificates of the old one, because clients trust no
//     other yet; clients' certificates are issued by the new one. The operator hands
//     out both CAs, and renews clients' certificates.
//  2. switching: nodes get certificates of the new one, by themselves.
//  3. settled: the old one is trusted no longer, and its key is removed.
//
// mqcluster ca rotate leads to the first stage, ca retire through the second to the
// third. Certificates stand in the log; keys never do.

// settingCA is the record of the CAs in the log.
const settingCA = "cluster.ca"

// caRecord is its value.
type caRecord struct {
	Trusted []byte `json:"trusted"` // PEM, the oldest first
	Nodes   string `json:"nodes"`   // pin of the CA that signs nodes' certificates
	Clients string `json:"clients"` // and of the one that signs clients'
	// Abandon: nodes that do not answer hold the last stage up no longer.
	Abandon bool `json:"abandon,omitempty"`
}

func newCARecord(ca *mtls.CA) caRecord {
	return caRecord{Trusted: ca.CertPEM(), Nodes: ca.Pin(), Clients: ca.Pin()}
}

func (r caRecord) item() *logpb.Item {
	text, err := json.Marshal(r)
	if err != nil {
		return nil // not reached: strings and bytes
	}
	return &logpb.Item{Kind: &logpb.Item_SettingPut{SettingPut: &logpb.SettingPut{Key: settingCA, Value: string(text)}}}
}

// stage of the rotation.
func (r caRecord) stage() string {
	switch {
	case len(r.pins()) < 2:
		return admin.CASettled
	case r.Nodes == r.Clients:
		return admin.CASwitching
	}
	return admin.CAOverlap
}

// pins of the CAs that are trusted.
func (r caRecord) pins() []string {
	certs, err := mtls.ParseCertificates("the record of the CAs", r.Trusted)
	if err != nil {
		return nil
	}
	var out []string
	for _, c := range certs {
		out = append(out, mtls.PinOf(c))
	}
	return out
}

// only is the record with one of its CAs alone.
func (r caRecord) only(pin string) (caRecord, error) {
	certs, err := mtls.ParseCertificates("the record of the CAs", r.Trusted)
	if err != nil {
		return r, err
	}
	for _, c := range certs {
		if mtls.PinOf(c) == pin {
			return caRecord{Trusted: mtls.MarshalCertificates(c), Nodes: pin, Clients: pin}, nil
		}
	}
	return r, errors.New("the record of the CAs lacks the one that signs")
}

// caRecord returns what the log says; a cluster that an older version made says
// nothing, and has one CA.
func (n *Node) caRecord() caRecord {
	var r caRecord
	if text, ok := n.store.Setting(settingCA); ok && json.Unmarshal([]byte(text), &r) == nil && len(r.Trusted) > 0 {
		return r
	}
	pin := n.identity.Pin()
	return caRecord{Trusted: n.identity.Material().CA, Nodes: pin, Clients: pin}
}

// followCA brings this node in line with the record: whom it trusts, who signed its
// certificate, and which keys it holds.
func (n *Node) followCA(ctx context.Context) {
	r := n.caRecord()
	if !samePEM(r.Trusted, n.identity.Material().CA) {
		if err := n.identity.Replace(nil, nil, r.Trusted); err != nil {
			n.log.Warn("the CAs that the cluster trusts now were not taken over; tried again", "err", err)
			return
		}
		n.log.Info("the CAs that this node trusts have changed", "authorities", len(n.identity.CAs()))
		n.caChanged.Store(true)
		n.policyChanged()
	}
	if n.identity.Pin() != r.Nodes {
		if err := n.renew(ctx); err != nil {
			n.log.Debug("the node's certificate of the new CA was not issued; tried again", "err", err)
			return
		}
		n.log.Info("the node has a certificate of the new CA", "until", n.identity.NotAfter())
	}
	if err := n.keyring.keep(r.pins()); err != nil {
		n.log.Warn("the key of a CA that was retired is still here", "err", err)
	}
}

// trustRequest asks a node how it stands to the CAs; Fetch has a voter get the key
// of one from the leader first.
type trustRequest struct {
	Fetch string `json:"fetch,omitempty"`
}

type trustAnswer struct {
	Trusted []string  `json:"trusted"` // pins
	Signer  string    `json:"signer"`  // of its certificate
	Until   time.Time `json:"until"`
	Held    []string  `json:"held"` // pins of the keys that it has
	Sealed  bool      `json:"sealed"`
}

func (n *Node) serveTrust(ctx context.Context, peer string, r trustRequest) (trustAnswer, error) {
	if leader, ok := n.consensus.Leader(); r.Fetch != "" && (!ok || leader != peer) {
		return trustAnswer{}, faultf(http.StatusForbidden, "node %s does not lead, and gives no CA key", peer)
	}
	if r.Fetch != "" && n.isVoter(n.cfg.Node.ID) {
		if err := n.fetchKey(ctx, r.Fetch); err != nil {
			return trustAnswer{}, err
		}
	}
	return n.trust(), nil
}

func (n *Node) trust() trustAnswer {
	a := trustAnswer{Signer: n.identity.Pin(), Until: n.identity.NotAfter(), Held: n.keyring.pins(), Sealed: n.keyring.sealed()}
	for _, ca := range n.identity.CAs() {
		a.Trusted = append(a.Trusted, mtls.PinOf(ca))
	}
	return a
}

// standing is what a member answered, or why it did not.
type standing struct {
	node  string
	voter bool
	trustAnswer
	err error
}

// askTrust asks every member at once.
func (n *Node) askTrust(ctx context.Context, fetch string) []standing {
	limit := askTimeout
	if fetch != "" {
		limit = everywhereIn // it seals the key, which takes a while by design
	}
	members := n.store.Members()
	out := make([]standing, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		out[i] = standing{node: m.Node, voter: m.Voter}
		if m.Node == n.cfg.Node.ID {
			out[i].trustAnswer = n.trust()
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			out[i].err = n.call(ctx, m.Node, pathTrust, trustRequest{Fetch: fetch}, &out[i].trustAnswer)
		})
	}
	wg.Wait()
	return out
}

// silentOnes says in one sentence which members hold a rotation up, nil for none.
func silentOnes(all []standing) error {
	for _, s := range all {
		f, answered := errors.AsType[*fault](s.err)
		switch {
		case s.err == nil:
		case answered && f.status == http.StatusNotFound:
			return faultf(http.StatusConflict, "node %s runs a version that knows no rotation of the CA: update it first", s.node)
		case answered:
			return faultf(http.StatusConflict, "node %s cannot take part (%s): correct that first", s.node, f.text)
		default:
			return faultf(http.StatusConflict, "node %s does not answer, and would know only a CA that is gone: bring it back, remove it with mqcluster leave %s, or go on without it with --force", s.node, s.node)
		}
	}
	return nil
}

func (n *Node) serveRotate(ctx context.Context, _ string, r admin.CARequest) (admin.CAResult, error) {
	return n.rotate(ctx, r)
}

// rotate makes a new CA and has every node trust it beside the old one. Where a
// rotation is under way already it changes nothing.
func (n *Node) rotate(ctx context.Context, r admin.CARequest) (admin.CAResult, error) {
	n.rotateMu.Lock()
	defer n.rotateMu.Unlock()
	rec := n.caRecord()
	if rec.stage() != admin.CASettled {
		return admin.CAResult{Change: admin.Change{NotApplied: []string{}}, Already: true, Stage: rec.stage()}, nil
	}
	if err := silentOnes(n.askTrust(ctx, "")); err != nil && !r.Force {
		return admin.CAResult{}, err
	}
	next, err := mtls.NewCA(n.identity.ClusterID(), time.Now())
	if err != nil {
		return admin.CAResult{}, err
	}
	if err := n.keyring.save(next); err != nil {
		return admin.CAResult{}, err
	}
	// The voters have the key before anything needs it: who leads next must sign.
	if err := withoutKey(n.askTrust(ctx, next.Pin()), next.Pin(), r.Force); err != nil {
		return admin.CAResult{}, err
	}
	rec.Trusted = append(rec.Trusted, next.CertPEM()...)
	rec.Clients, rec.Abandon = next.Pin(), false
	out, err := n.moveTo(ctx, rec, func(a trustAnswer) bool { return slices.Contains(a.Trusted, next.Pin()) })
	if err == nil {
		n.log.Info("the cluster has a second CA: both are trusted until mqcluster ca retire", "authority", next.Certificate().Subject.CommonName)
	}
	return out, err
}

// withoutKey says that too few voters have the key of a CA, nil if they have.
func withoutKey(all []standing, pin string, force bool) error {
	voters, have := 0, 0
	var lacks string
	for _, s := range all {
		if !s.voter {
			continue
		}
		voters++
		if slices.Contains(s.Held, pin) {
			have++
		} else {
			lacks = s.node
		}
	}
	if have == voters || force && have > voters/2 {
		return nil
	}
	return faultf(http.StatusServiceUnavailable, "voter %s did not take the key of the new CA: look into its log, and run this again", lacks)
}

// moveTo proposes a record and waits until every member has done what it says.
func (n *Node) moveTo(ctx context.Context, rec caRecord, done func(trustAnswer) bool) (admin.CAResult, error) {
	res, err := n.proposeResult(ctx, rec.item())
	if err != nil {
		return admin.CAResult{}, err
	}
	n.followCA(ctx)
	out := admin.CAResult{Change: admin.Change{Index: res.Pos.Index()}, Stage: rec.stage()}
	out.NotApplied = n.awaitTrust(ctx, done)
	return out, nil
}

// followEvery is how often a change of the CAs is looked for, and waited for.
const followEvery = time.Second

// awaitTrust waits until every member's answer is done, and names those that were
// not in time.
func (n *Node) awaitTrust(ctx context.Context, done func(trustAnswer) bool) []string {
	ctx, cancel := context.WithTimeout(ctx, everywhereIn)
	defer cancel()
	for {
		missing := []string{}
		for _, s := range n.askTrust(ctx, "") {
			if s.err != nil || !done(s.trustAnswer) {
				missing = append(missing, s.node)
			}
		}
		if len(missing) == 0 {
			return missing
		}
		select {
		case <-ctx.Done():
			return missing
		case <-time.After(followEvery / 5):
		}
	}
}

func (n *Node) serveRetire(ctx context.Context, _ string, r admin.CARequest) (admin.CAResult, error) {
	return n.retire(ctx, r)
}

// retire has nodes take certificates of the new CA, and then trusts the old one no
// longer.
func (n *Node) retire(ctx context.Context, r admin.CARequest) (admin.CAResult, error) {
	n.rotateMu.Lock()
	rec := n.caRecord()
	if rec.stage() == admin.CASettled {
		n.rotateMu.Unlock()
		return admin.CAResult{Change: admin.Change{NotApplied: []string{}}, Already: true, Stage: admin.CASettled}, nil
	}
	err := n.beginSwitch(ctx, rec, r)
	n.rotateMu.Unlock()
	if err != nil {
		return admin.CAResult{}, err
	}
	next := n.caRecord().Clients
	missing := n.awaitTrust(ctx, func(a trustAnswer) bool { return a.Signer == next })
	if err := n.endSwitch(ctx); err != nil {
		return admin.CAResult{}, err
	}
	out := admin.CAResult{Stage: n.caRecord().stage()}
	out.Index, out.NotApplied = n.store.AppliedIndex(), missing
	if out.Stage == admin.CASettled {
		out.NotApplied = n.awaitTrust(ctx, func(a trustAnswer) bool { return len(a.Trusted) == 1 && a.Trusted[0] == next })
	}
	return out, nil
}

// beginSwitch checks what retiring the old CA would break, and proposes the second
// stage. rotateMu is held.
func (n *Node) beginSwitch(ctx context.Context, rec caRecord, r admin.CARequest) error {
	if !r.Force {
		if err := silentOnes(n.askTrust(ctx, "")); err != nil {
			return err
		}
		if old := n.clientsOfOldCA(rec); len(old) > 0 {
			return faultf(http.StatusConflict, "%d client certificates of the CA that is to go are valid (the first is of %q): renew them with mqcluster cert renew, revoke them, or end them all with --force", len(old), old[0].Subject)
		}
	}
	if rec.Nodes == rec.Clients && (rec.Abandon || !r.Force) {
		return nil // it has begun
	}
	rec.Nodes, rec.Abandon = rec.Clients, r.Force
	if err := n.propose(ctx, rec.item()); err != nil {
		return err
	}
	n.followCA(ctx)
	return nil
}

// endSwitch proposes the last stage when every member has its new certificate. The
// leader calls it as a chore.
func (n *Node) endSwitch(ctx context.Context) error {
	n.rotateMu.Lock()
	defer n.rotateMu.Unlock()
	rec := n.caRecord()
	if rec.stage() != admin.CASwitching {
		return nil
	}
	for _, s := range n.askTrust(ctx, "") {
		if s.err != nil && rec.Abandon {
			n.log.Warn("a node that does not answer is left behind by the rotation of the CA: it has to join again", "member", s.node)
			continue
		}
		if s.err != nil || s.Signer != rec.Nodes {
			return nil
		}
	}
	rec, err := rec.only(rec.Nodes)
	if err != nil {
		return err
	}
	if err := n.propose(ctx, rec.item()); err != nil {
		return err
	}
	n.log.Info("the old CA is trusted no longer")
	n.followCA(ctx)
	return nil
}

// clientsOfOldCA are the client certificates in force that were issued before the new
// CA was made, of who has none that was issued after that.
func (n *Node) clientsOfOldCA(rec caRecord) (out []*logpb.Cert) {
	certs, err := mtls.ParseCertificates("the record of the CAs", rec.Trusted)
	if err != nil {
		return nil
	}
	var since int64
	for _, c := range certs {
		if mtls.PinOf(c) == rec.Clients {
			since = c.NotBefore.Unix()
		}
	}
	now := time.Now().Unix()
	renewed := map[string]bool{}
	for _, c := range n.store.Certs() {
		switch {
		case c.Kind != kindClient || c.Revoked || c.NotAfter <= now:
		case c.NotBefore > since:
			renewed[c.Subject] = true
		default:
			out = append(out, c)
		}
	}
	return slices.DeleteFunc(out, func(c *logpb.Cert) bool { return renewed[c.Subject] })
}

// driveCA is the leader's part of a rotation that a command has not seen through.
func (n *Node) driveCA(ctx context.Context) {
	if !n.consensus.IsLeader() || n.caRecord().stage() != admin.CASwitching {
		return
	}
	if err := n.endSwitch(ctx); err != nil {
		n.log.Debug("the rotation of the CA is not at its end yet", "err", err)
	}
}

// CAStatus implements admin.Authority.
func (b backend) CAStatus(ctx context.Context) (admin.CAStatus, error) {
	n := b.n
	rec := n.caRecord()
	out := admin.CAStatus{Stage: rec.stage(), OldClients: []admin.Cert{}}
	certs, err := mtls.ParseCertificates("the record of the CAs", rec.Trusted)
	if err != nil {
		return out, fmt.Errorf("read the record of the CAs: %w", err)
	}
	for _, c := range certs {
		pin, s := mtls.PinOf(c), mtls.Summarize(c)
		out.CAs = append(out.CAs, admin.CAInfo{
			Subject: c.Subject.CommonName, Pin: pin, SHA256: s.SHA256, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
			SignsNodes: pin == rec.Nodes, SignsClients: pin == rec.Clients,
		})
	}
	for _, s := range n.askTrust(ctx, "") {
		node := admin.CANode{Node: s.node, Trusted: s.Trusted, Signer: s.Signer, Holds: s.Held, Sealed: s.Sealed, NotAfter: s.Until}
		if s.err != nil {
			node.Error = s.err.Error()
		}
		out.Nodes = append(out.Nodes, node)
	}
	if out.Stage != admin.CASettled {
		for _, c := range n.clientsOfOldCA(rec) {
			out.OldClients = append(out.OldClients, listedCert(c))
		}
	}
	return out, nil
}

// RotateCA implements admin.Authority.
func (b backend) RotateCA(ctx context.Context, r admin.CARequest) (admin.CAResult, error) {
	out, err := askLeader(ctx, b.n, pathRotate, r, b.n.rotate)
	return out, adminError(err)
}

// RetireCA implements admin.Authority.
func (b backend) RetireCA(ctx context.Context, r admin.CARequest) (admin.CAResult, error) {
	out, err := askLeader(ctx, b.n, pathRetire, r, b.n.retire)
	return out, adminError(err)
}
