package node

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// table reads seats: "a* b c- d? e!" is a leader that votes, two voters of which
// one is down, a non-voter that has caught up and one that is behind; "f_" is a
// non-voter that is down, "g." one that serves only.
func table(text string) (out []seat) {
	for i, word := range strings.Fields(text) {
		s := seat{node: word[:1], joined: int64(i), voter: true, up: true}
		switch word[1:] {
		case "*":
			s.leader = true
		case "-":
			s.up = false
		case "?":
			s.voter = false
		case "!":
			s.voter, s.behind = false, caughtUp+1
		case "_":
			s.voter, s.up = false, false
		case ".":
			s.voter, s.never = false, true
		}
		out = append(out, s)
	}
	return out
}

func TestWhoVotesNext(t *testing.T) {
	for _, tt := range []struct {
		seats   string
		most    int // 0: 5
		promote string
		demote  string
	}{
		{seats: "a*"},
		{seats: "a* b?"},                    // two members: one votes
		{seats: "a* b? c?", promote: "b c"}, // 1 -> 3, in one go
		{seats: "a* b? c!"},                 // not before both have caught up
		{seats: "a* b? c_"},
		{seats: "a* b c? ", promote: "c"}, // the second half of a change, or a replaced voter
		{seats: "a* b c!"},
		{seats: "a* b c d?"}, // four members: three vote
		{seats: "a* b c d? e?", promote: "d e"},
		{seats: "a* b c d? e_"},
		{seats: "a* b c d e?", promote: "e"},
		{seats: "a* b c d e f? g?"},                   // five at most
		{seats: "a* b? c? d? e?", promote: "b c d e"}, // 1 -> 5
		{seats: "a* b? c? d? e!", promote: "b c"},
		{seats: "a* b? c? d! e_", promote: "b c"},
		{seats: "a* b c d", demote: "d"},  // one of five has left: the newest goes
		{seats: "a* b- c d", demote: "b"}, // the one that is down
		{seats: "a b c d*", demote: "c"},  // never the leader
		{seats: "a* b", demote: "b"},
		{seats: "a b*", demote: "a"},
		{seats: "a* b-", demote: "b"},
		{seats: "a* b c d? e?", most: 3}, // they serve
		{seats: "a* b? c? d? e?", most: 3, promote: "b c"},
		{seats: "a* b d? e?", most: 3, promote: "d"}, // a voter was removed
		{seats: "a* b c- d? e?", most: 3},            // not because one is down
		{seats: "a* b c d e", most: 3, demote: "e"},  // there were five
		{seats: "a* b- c d e", most: 3, demote: "b"},
		{seats: "a* b c d", most: 3, demote: "d"},
		{seats: "a* b. c."}, // one may vote
		{seats: "a* b. c? d?", promote: "c d"},
		{seats: "a* b c d. e."},            // three may
		{seats: "a* b d. e.", demote: "b"}, // and then two
		{seats: "a* b c d. e? f?", promote: "e f"},
	} {
		seats, most := table(tt.seats), tt.most
		if most == 0 {
			most = defaultVoters
		}
		if d := cmp.Diff(strings.Fields(tt.promote), toPromote(seats, most), cmp.Transformer("words", func(s []string) string { return strings.Join(s, " ") })); d != "" {
			t.Errorf("%s: promote %s", tt.seats, d)
		}
		if got := toDemote(seats, most); got != tt.demote {
			t.Errorf("%s: demote %q, want %q", tt.seats, got, tt.demote)
		}
	}
}

func TestDemotesTheOneFurthestBehind(t *testing.T) {
	seats := table("a* b c d")
	seats[1].behind = 5000
	if got := toDemote(seats, 5); got != "b" {
		t.Errorf("demotes %q", got)
	}
}

func TestMayRemove(t *testing.T) {
	for _, tt := range []struct{ seats, node, refusal string }{
		{"a* b c", "c", ""},
		{"a* b c-", "c", ""},
		{"a* b c-", "b", "c is down"}, // two would vote, one of them down
		{"a* b- c d e", "e", ""},
		{"a* b- c- d e", "e", "b, c is down"},
		{"a* b", "b", ""},
		{"a* b-", "b", ""},
		{"a*", "a", "the only one that votes"},
		{"a* b?", "b", ""},
	} {
		err := mayRemove(table(tt.seats), tt.node)
		if tt.refusal == "" && err != nil || tt.refusal != "" && (err == nil || !strings.Contains(err.Error(), tt.refusal)) {
			t.Errorf("%s without %s: %v, want %q", tt.seats, tt.node, err, tt.refusal)
		}
		if f, ok := errors.AsType[*fault](err); err != nil && (!ok || f.status != http.StatusConflict) {
			t.Errorf("%s without %s: %v is no conflict", tt.seats, tt.node, err)
		}
	}
}

func TestMostVoters(t *testing.T) {
	for setting, want := range map[string]int{"": 5, "3": 3, "5": 5, "4": 5, "x": 5, "-1": 5} {
		if got := mostVoters(setting); got != want {
			t.Errorf("%q: %d, want %d", setting, got, want)
		}
	}
}

func TestRoles(t *testing.T) {
	m := func(voter, servingOnly bool) *logpb.Member {
		return &logpb.Member{Node: "a", Voter: voter, ServingOnly: servingOnly}
	}
	for _, tt := range []struct {
		m      *logpb.Member
		leader string
		open   int
		want   string
	}{
		{m(true, false), "a", 0, admin.RoleLeader},
		{m(true, false), "b", 0, admin.RoleVoter},
		{m(false, false), "b", 2, admin.RoleNonVoter},
		{m(false, false), "b", 0, admin.RoleServing},
		{m(false, false), "b", -1, admin.RoleServing},
		{m(false, true), "b", 2, admin.RoleServing},
	} {
		if got := roleOf(tt.m, tt.leader, tt.open); got != tt.want {
			t.Errorf("%v, led by %s, %d votes open: %s, want %s", tt.m, tt.leader, tt.open, got, tt.want)
		}
	}
}

// Whatever joins, leaves, dies and returns: the voters keep a majority that is up
// through every change, a laggard never becomes one, and when nobody is down or
// behind their number is odd and right.
func TestVotersSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seats, most := table("a*"), rapid.SampledFrom([]int{3, 5}).Draw(t, "most")
		next := 1
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"join", "leave", "down", "up", "behind", "most"}).Draw(t, "what") {
			case "most":
				most = rapid.SampledFrom([]int{3, 5}).Draw(t, "most")
			case "join":
				if len(seats) < 8 {
					seats = append(seats, seat{
						node: fmt.Sprint(next), joined: int64(next), never: rapid.Bool().Draw(t, "never"),
						behind: rapid.SampledFrom([]uint64{0, caughtUp + 1}).Draw(t, "behind"), up: true,
					})
					next++
				}
			case "leave":
				i := rapid.IntRange(0, len(seats)-1).Draw(t, "who")
				s := seats[i]
				if !s.leader && (!s.voter || mayRemove(seats, s.node) == nil) {
					seats = without(seats, s.node)
				}
			case "down", "up", "behind":
				i := rapid.IntRange(0, len(seats)-1).Draw(t, "who")
				up := rapid.Bool().Draw(t, "up")
				was := seats[i]
				if !was.leader {
					seats[i].up, seats[i].behind = up, map[bool]uint64{true: 0, false: caughtUp + 1}[up]
				}
				if !quorate(seats) {
					seats[i] = was // an outage; nothing is decided then
				}
			}
			settle(t, seats, most)
		}
		for i := range seats {
			seats[i].up, seats[i].behind = true, 0
		}
		settle(t, seats, most)
		if got, want := count(seats, votes), voters(count(seats, mayVote), most); got != want {
			t.Fatalf("%d vote and not %d: %+v", got, want, seats)
		}
	})
}

// settle carries decisions out until there are none.
func settle(t *rapid.T, seats []seat, most int) {
	at := func(node string) *seat {
		return &seats[slices.IndexFunc(seats, func(s seat) bool { return s.node == node })]
	}
	for range 20 {
		promote, demote := toPromote(seats, most), toDemote(seats, most)
		if len(promote) == 0 && demote == "" {
			return
		}
		for _, node := range promote {
			s := at(node)
			if !s.up || s.behind > caughtUp || s.voter || s.never {
				t.Fatalf("%s is promoted: %+v", node, *s)
			}
			s.voter = true
			if !quorate(seats) {
				t.Fatalf("no majority while %s is promoted: %+v", node, seats)
			}
		}
		if len(promote) > 0 && count(seats, votes)%2 == 0 {
			t.Fatalf("an even number votes after a promotion: %+v", seats)
		}
		if demote != "" {
			if at(demote).leader {
				t.Fatal("the leader is demoted")
			}
			at(demote).voter = false
			if !quorate(seats) {
				t.Fatalf("no majority after %s was demoted: %+v", demote, seats)
			}
		}
	}
	t.Fatalf("it never settles: %+v", seats)
}
