//go:build linux

package e2e

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fault is something bad that befalls the cluster at its time. Which node it
// hits is said by role, because who leads then is not known before.
type fault struct {
	at    time.Duration // since the first may come; later if the one before lasts on
	kind  *faultKind
	lasts time.Duration
	pick  int // which of several nodes or directions
}

// faultKind is one kind of fault. do makes it, shows that it took effect and
// repairs it; that all is well again after it is seen to by who calls.
type faultKind struct {
	name        string
	least, most time.Duration // of how long it lasts
	do          func(x *chaos, f fault)
	needs       ability
}

// ability is what a kind of fault takes beside the usual cluster.
type ability byte

const (
	needDisks ability = 1 << iota
	needWall
	needReserve // the program watches how full its disk is
)

// plan is the faults of one run; the same seed, duration and kinds make the same
// one.
type plan struct {
	seed     uint64
	duration time.Duration
	faults   []fault
}

// gap is the least time between two faults, beside what recovery takes: there
// the cluster has to work.
const gap = 3 * time.Second

// hands is how many successive seeds share a pack of kinds: a plan of 90 s has a
// quarter of them at least.
const hands = 4

// newPlan deals the kinds like cards: none comes again before all have come. Four
// successive seeds begin with a quarter of one shuffled pack each, so that few plans
// have all kinds.
func newPlan(seed uint64, duration time.Duration, kinds []*faultKind) plan {
	random := randomOf("plan", seed)
	p := plan{seed: seed, duration: duration}
	deck := shuffled(kinds, randomOf("pack", seed/hands))
	hand := int(seed%hands) * len(deck) / hands
	deck = append(deck[hand:], deck[:hand]...)
	for at := gap; ; {
		if len(deck) == 0 {
			deck = shuffled(kinds, random)
		}
		k := deck[0]
		deck = deck[1:]
		f := fault{at: at, kind: k, pick: random.IntN(60)}
		f.lasts = k.least + time.Duration(random.Int64N(int64(k.most-k.least)+1)).Truncate(100*time.Millisecond)
		if at+f.lasts > duration {
			return p
		}
		p.faults = append(p.faults, f)
		at += f.lasts + gap + time.Duration(random.Int64N(int64(3*time.Second))).Truncate(100*time.Millisecond)
	}
}

// randomOf is not PCG, whose first numbers are alike for seeds that are.
func randomOf(what string, seed uint64) *rand.Rand {
	return rand.New(rand.NewChaCha8(sha256.Sum256(binary.BigEndian.AppendUint64([]byte(what), seed))))
}

func shuffled(kinds []*faultKind, random *rand.Rand) []*faultKind {
	deck := slices.Clone(kinds)
	random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	return deck
}

func (f fault) String() string {
	s := fmt.Sprintf("%6.1f s  %s", f.at.Seconds(), f.kind.name)
	if f.kind.most > 0 {
		s += fmt.Sprintf(", %.1f s", f.lasts.Seconds())
	}
	return fmt.Sprintf("%s (pick %d)", s, f.pick)
}

func (p plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "E2E_SEED=%d CHAOS_DURATION=%v: %d faults\n", p.seed, p.duration, len(p.faults))
	for _, f := range p.faults {
		fmt.Fprintf(&b, "  %v\n", f)
	}
	return b.String()
}

// faultKinds are all there are. A lease lasts 5 s.
func faultKinds() []*faultKind {
	const ms = time.Millisecond
	return []*faultKind{
		{"kill -9 of a follower", 200 * ms, 4000 * ms, func(x *chaos, f fault) { x.kill(f, x.follower(f)) }, 0},
		{"kill -9 of the leader", 200 * ms, 4000 * ms, func(x *chaos, f fault) { x.kill(f, x.Leader()) }, 0},
		{"kill -9 of two", 200 * ms, 8000 * ms, func(x *chaos, f fault) { x.kill(f, x.pair(f)...) }, 0},
		{"kill -9 of all", 200 * ms, 2000 * ms, func(x *chaos, f fault) { x.kill(f, x.Running()...) }, 0},
		{"kill -9 thrice in a row", 3000 * ms, 5000 * ms, (*chaos).killAgain, 0},
		{"SIGSTOP of a follower, shorter than a lease", 500 * ms, 3500 * ms, func(x *chaos, f fault) { x.pause(f, x.follower(f)) }, 0},
		{"SIGSTOP of the leader, shorter than a lease", 500 * ms, 3500 * ms, func(x *chaos, f fault) { x.pause(f, x.Leader()) }, 0},
		{"SIGSTOP of a follower, longer than a lease", 6500 * ms, 9000 * ms, func(x *chaos, f fault) { x.pause(f, x.follower(f)) }, 0},
		{"SIGSTOP of the leader, longer than a lease", 6500 * ms, 9000 * ms, func(x *chaos, f fault) { x.pause(f, x.Leader()) }, 0},
		{"isolation of a follower", 1000 * ms, 9000 * ms, func(x *chaos, f fault) { x.isolate(f, x.follower(f)) }, 0},
		{"isolation of the leader", 1000 * ms, 9000 * ms, func(x *chaos, f fault) { x.isolate(f, x.Leader()) }, 0},
		{"isolation of all from all", 1000 * ms, 7000 * ms, func(x *chaos, f fault) { x.isolate(f, x.Running()...) }, 0},
		{"one-way partition: a node hears nothing", 1000 * ms, 9000 * ms, func(x *chaos, f fault) { x.oneWay(f, true) }, 0},
		{"one-way partition: a node is not heard", 1000 * ms, 9000 * ms, func(x *chaos, f fault) { x.oneWay(f, false) }, 0},
		{"one-way link", 1000 * ms, 9000 * ms, (*chaos).oneLink, 0},
		{"bridge: the leader and a follower do not see each other", 1000 * ms, 9000 * ms, func(x *chaos, f fault) { x.bridge(f, x.pair(f)...) }, 0},
		{"bridge: two followers do not see each other", 1000 * ms, 9000 * ms, func(x *chaos, f fault) { x.bridge(f, x.Followers()...) }, 0},
		{"slow disk", 3000 * ms, 6000 * ms, (*chaos).slowDisk, needDisks},
		{"hung disk, shorter than its deadline", 2000 * ms, 7000 * ms, (*chaos).hungDisk, needDisks},
		{"hung disk, longer than its deadline", 12000 * ms, 14000 * ms, (*chaos).hungDisk, needDisks},
		{"full disk", 3000 * ms, 9000 * ms, (*chaos).fullDisk, needDisks | needReserve},
		{"disk full to the last byte", 2000 * ms, 5000 * ms, (*chaos).crammedDisk, needDisks},
		{"replaced disk", 0, 0, (*chaos).replace, 0},
		{"clock of a node steps", 4000 * ms, 8000 * ms, func(x *chaos, f fault) { x.stepClocks(f, x.Running()[f.pick%3]) }, needWall},
		{"clocks of all step", 4000 * ms, 8000 * ms, func(x *chaos, f fault) { x.stepClocks(f, x.Running()...) }, needWall},
		{"orderly stop of a node", 500 * ms, 4000 * ms, (*chaos).stop, 0},
		{"rolling restart", 0, 0, (*chaos).rolling, 0},
		{"a node leaves and joins again", 500 * ms, 4000 * ms, (*chaos).leaveAndJoin, 0},
		{"a fourth node joins and leaves", 2000 * ms, 5000 * ms, (*chaos).fourth, 0},
		{"kill -9 of a follower while another hangs", 1000 * ms, 4000 * ms, (*chaos).killWhileHung, 0},
	}
}

// chaosSeed is E2E_SEED, or one that is new every time.
func chaosSeed(t *testing.T) uint64 {
	t.Helper()
	s := os.Getenv("E2E_SEED")
	if s == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("E2E_SEED: %v", err)
	}
	return seed
}

// chaosSetting reads a variable that a run may be given.
func chaosSetting[T any](t *testing.T, name string, preset T, parse func(string) (T, error)) T {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return preset
	}
	v, err := parse(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// enough is how often every kind of fault has to come in twenty plans of 90 s.
const enough = 3

// TestChaosPlans shows that a seed makes the same plan again, that any twenty plans
// of 90 s in a row have every kind of fault several times, and that none outlasts
// its time.
func TestChaosPlans(t *testing.T) {
	kinds := faultKinds()
	var all []map[string]int
	for seed := range uint64(200) {
		p := newPlan(seed, 90*time.Second, kinds)
		count := map[string]int{}
		all = append(all, count)
		if again := newPlan(seed, 90*time.Second, kinds); p.String() != again.String() {
			t.Errorf("one seed makes two plans:\n%v%v", p, again)
		}
		for _, f := range p.faults {
			count[f.kind.name]++
			if f.at+f.lasts > p.duration || f.lasts < f.kind.least || f.lasts > f.kind.most {
				t.Errorf("seed %d: %v", seed, f)
			}
		}
		if seed == 0 {
			t.Logf("%v", p)
		}
	}
	for first := range len(all) - 20 {
		for _, k := range kinds {
			sum := 0
			for _, count := range all[first : first+20] {
				sum += count[k.name]
			}
			if sum < enough {
				t.Errorf("%q comes %d times in the twenty plans from %d", k.name, sum, first)
			}
		}
	}
}
