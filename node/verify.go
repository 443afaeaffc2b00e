package node

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm"
)

// A verification goes in rounds of calls that each end soon, so that a dead node
// costs a few seconds and not the whole.
const (
	pathVerifyBegin = "/v1/verify/begin"
	pathVerifyPoll  = "/v1/verify/poll"
	pathVerifySums  = "/v1/verify/sums"
	pathVerifyEnd   = "/v1/verify/end"
)

// Bounds of a verification.
const (
	// cutPatience is how long a node may take to come to the entry.
	cutPatience = 30 * time.Second
	// maxDiffers bounds the parts whose records are compared one by one, maxSums the
	// records in them, about.
	maxDiffers = 64
	maxSums    = 20_000
)

// Verify implements admin.Verifier.
func (b backend) Verify(ctx context.Context) (admin.Verification, error) {
	v := verification{n: b.n, name: randomID()}
	defer v.end()
	out, err := v.run(ctx)
	return out, adminError(err)
}

// serveVerify registers the calls of verifications.
func (n *Node) serveVerify(control *http.ServeMux) {
	serve(control, pathVerifyBegin, func(ctx context.Context, _ string, r verifyRequest) (none, error) { return n.verifyBegin(ctx, r) })
	serve(control, pathVerifyPoll, func(ctx context.Context, _ string, r verifyRequest) (digestAnswer, error) {
		return n.verifyPoll(ctx, r)
	})
	serve(control, pathVerifySums, func(ctx context.Context, _ string, r verifyRequest) (none, error) { return n.verifySums(ctx, r) })
	serve(control, pathVerifyEnd, func(ctx context.Context, _ string, r verifyRequest) (none, error) { return n.verifyEnd(ctx, r) })
}

// verification asks all members for one comparison.
type verification struct {
	n       *Node
	name    string
	members []*verified
}

// verified is a member of it.
type verified struct {
	node string
	digestAnswer
	sums map[string]string // by key
	err  error
}

// each runs f for every member that has not failed, at once, and keeps its error.
func (v *verification) each(f func(m *verified) error) {
	var all sync.WaitGroup
	for _, m := range v.members {
		if m.err == nil {
			all.Go(func() { m.err = f(m) })
		}
	}
	all.Wait()
}

func (v *verification) run(ctx context.Context) (admin.Verification, error) {
	for _, m := range v.n.store.Members() {
		v.members = append(v.members, &verified{node: m.Node})
	}
	v.each(func(m *verified) error {
		return callMember(ctx, v.n, m.node, pathVerifyBegin, verifyRequest{Name: v.name}, &none{}, v.n.verifyBegin)
	})
	if _, err := v.n.proposeResult(ctx, fsm.CutItem(v.name)); err != nil {
		return admin.Verification{}, err
	}
	v.each(func(m *verified) error { return v.poll(ctx, m) })
	if err := ctx.Err(); err != nil {
		return admin.Verification{}, err
	}
	most, parts := v.compare()
	more := false
	if len(parts) > 0 {
		var records uint64
		for _, m := range v.members {
			records = max(records, m.Records)
		}
		fit := int(min(maxDiffers, max(1, maxSums*fsm.DigestParts/max(records, 1))))
		more = len(parts) > fit
		parts = parts[:min(len(parts), fit)]
		v.each(func(m *verified) error {
			if err := callMember(ctx, v.n, m.node, pathVerifySums, verifyRequest{Name: v.name, Parts: parts}, &none{}, v.n.verifySums); err != nil {
				return err
			}
			return v.poll(ctx, m)
		})
	}
	return v.report(most, more), ctx.Err()
}

// poll waits until the member has what it was asked for.
func (v *verification) poll(ctx context.Context, m *verified) error {
	for {
		var a digestAnswer
		if err := callMember(ctx, v.n, m.node, pathVerifyPoll, verifyRequest{Name: v.name}, &a, v.n.verifyPoll); err != nil {
			return err
		}
		switch {
		case a.Error != "":
			return errors.New(a.Error)
		case a.Sums != nil:
			m.sums = map[string]string{}
			for _, s := range a.Sums {
				m.sums[string(s.Key)] = hex.EncodeToString(s.Sum)
			}
			return nil
		case a.Done && len(a.Parts) != fsm.DigestParts*sumSize:
			return faultf(http.StatusInternalServerError, "node %s hashes its state otherwise: update every node, and verify again", m.node)
		case a.Done:
			m.digestAnswer = a
			return nil
		}
	}
}

// end lets the members go, those that failed as well.
func (v *verification) end() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.n.ctx), controlTimeout)
	defer cancel()
	for _, m := range v.members {
		m.err = nil
	}
	v.each(func(m *verified) error {
		// One that does not answer ends by itself.
		return callMember(ctx, v.n, m.node, pathVerifyEnd, verifyRequest{Name: v.name}, &none{}, v.n.verifyEnd)
	})
}

// compare finds the digest that most members have, and the parts in which any
// differs from another.
func (v *verification) compare() (most []string, differ []int) {
	most = make([]string, fsm.DigestParts)
	for p := range fsm.DigestParts {
		votes := map[string]int{}
		n := 0
		for _, m := range v.members {
			if m.err == nil {
				votes[string(m.part(p))]++
				n++
			}
		}
		most[p] = majority(votes, n)
		if len(votes) > 1 {
			differ = append(differ, p)
		}
	}
	return most, differ
}

// majority is what more than half of n voted for, "" for nothing.
func majority(votes map[string]int, n int) string {
	for what, k := range votes {
		if k > n/2 {
			return what
		}
	}
	return ""
}

// sumSize is the bytes of a part's sum.
const sumSize = len(fsm.Sum{})

func (m *verified) part(p int) []byte { return m.Parts[p*sumSize : (p+1)*sumSize] }

func (v *verification) report(most []string, more bool) admin.Verification {
	out := admin.Verification{Nodes: []admin.VerifiedNode{}, Differences: v.differences(), More: more}
	for _, m := range v.members {
		r := admin.VerifiedNode{Node: m.node}
		if m.err != nil {
			r.Error = m.err.Error()
		} else {
			r.Records, r.Bytes, r.Seconds, r.Faults, r.Same = m.Records, m.Bytes, m.Seconds, m.Faults, true
			out.Index = m.Index
			for p := range fsm.DigestParts {
				r.Same = r.Same && string(m.part(p)) == most[p]
			}
		}
		out.Nodes = append(out.Nodes, r)
	}
	return out
}

// differences are the records of the parts that were looked at.
func (v *verification) differences() []admin.Difference {
	keys := map[string]bool{}
	var asked []*verified
	for _, m := range v.members {
		if m.err == nil && m.sums != nil {
			asked = append(asked, m)
		}
		for k := range m.sums {
			keys[k] = true
		}
	}
	out := []admin.Difference{}
	for k := range keys {
		d := admin.Difference{Key: []byte(k), Sums: map[string]string{}}
		d.Kind, d.Name = fsm.DescribeKey(d.Key)
		votes := map[string]int{}
		for _, m := range asked {
			votes["="+m.sums[k]]++
			if s := m.sums[k]; s != "" {
				d.Sums[m.node] = s
			}
		}
		if len(votes) < 2 {
			continue
		}
		most := majority(votes, len(asked))
		for _, m := range asked {
			if "="+m.sums[k] != most {
				d.Nodes = append(d.Nodes, m.node)
			}
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b admin.Difference) int { return slices.Compare(a.Key, b.Key) })
	return out
}
