package node

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm"
)

// partsOf are parts of which one has a value.
func partsOf(value byte) []byte {
	out := make([]byte, fsm.DigestParts*sumSize)
	out[9*sumSize] = value
	return out
}

func hexOf(text string) string { return hex.EncodeToString([]byte(text)) }

// TestVerificationAccuses: who differs from most is accused; where no majority has it
// alike, all are; who was not compared is neither content nor accused.
func TestVerificationAccuses(t *testing.T) {
	key := "ra\x01b" // a retained message
	// A member that has the record hash to value, 0 without it.
	member := func(node string, value byte) *verified {
		m := &verified{node: node, digestAnswer: digestAnswer{Index: 7, Parts: partsOf(value)}, sums: map[string]string{"sx": hexOf("s")}}
		if value != 0 {
			m.sums[key] = hexOf(string(value))
		}
		return m
	}
	for name, tt := range map[string]struct {
		members []*verified
		same    []bool
		accused []string
		agree   bool
	}{
		"alike":             {[]*verified{member("a", 1), member("b", 1), member("c", 1)}, []bool{true, true, true}, nil, true},
		"one is otherwise":  {[]*verified{member("a", 1), member("b", 2), member("c", 1)}, []bool{true, false, true}, []string{"b"}, false},
		"one lacks it":      {[]*verified{member("a", 1), member("b", 1), member("c", 0)}, []bool{true, true, false}, []string{"c"}, false},
		"one has it alone":  {[]*verified{member("a", 0), member("b", 1), member("c", 0)}, []bool{true, false, true}, []string{"b"}, false},
		"two of two differ": {[]*verified{member("a", 1), member("b", 2)}, []bool{false, false}, []string{"a", "b"}, false},
		"three of three":    {[]*verified{member("a", 1), member("b", 2), member("c", 3)}, []bool{false, false, false}, []string{"a", "b", "c"}, false},
		"one of one":        {[]*verified{member("a", 1)}, []bool{true}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := &verification{members: tt.members}
			most, parts := v.compare()
			if (len(parts) > 0) != (tt.accused != nil) {
				t.Errorf("parts %v differ", parts)
			}
			if tt.accused == nil {
				for _, m := range v.members {
					m.sums = nil // nobody asked
				}
			}
			out := v.report(most, false)
			var same []bool
			for _, n := range out.Nodes {
				same = append(same, n.Same)
			}
			if diff := cmp.Diff(tt.same, same); diff != "" {
				t.Error(diff)
			}
			var accused []string
			for _, d := range out.Differences {
				if d.Kind != "retained message" || d.Name != "a/b" {
					t.Errorf("%+v", d)
				}
				accused = append(accused, d.Nodes...)
			}
			if diff := cmp.Diff(tt.accused, accused); diff != "" {
				t.Error(diff)
			}
			if out.Agree() != tt.agree {
				t.Errorf("agree: %v", out.Agree())
			}
		})
	}
	down := member("c", 1)
	down.err = errors.New("it is down")
	v := &verification{members: []*verified{member("a", 1), member("b", 1), down}}
	most, _ := v.compare()
	out := v.report(most, false)
	if out.Agree() || out.Nodes[2].Error == "" || !out.Nodes[0].Same {
		t.Errorf("with one down: %+v", out)
	}
	if (admin.Verification{}).Agree() {
		t.Error("nobody agrees with nobody")
	}
}
