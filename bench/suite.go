package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Case is a run of a comparison under the name it has in docs/benchmarks.md.
type Case struct {
	Name string
	Config
	// Base names the target that ratios are to, where it is among them; otherwise
	// they are to the first.
	Base string
	// Mutual is over TLS with a client certificate; targets without are left out.
	Mutual bool
	// Fresh starts the target anew before each run, where it can be.
	Fresh bool
	// Rounds, if not 0, is how many runs at most are worth their time.
	Rounds int
	// Own, if set, takes the place of Run.
	Own func(context.Context, Target, Config) (Report, error)
}

// durable makes a case with persistent sessions on another node than the publishers.
func durable(name string, c Config) Case {
	c.Size, c.Persistent, c.Strict = 64, true, true
	if c.QoS == 0 {
		c.QoS = 1
	}
	return Case{Name: name, Config: c}
}

// returning makes a case of devices that come back to their persistent sessions
// over resumed TLS. They offer X25519, as devices do.
func returning(name string, c Config) Case {
	c.Scenario, c.Resume, c.Curves = Connects, true, []tls.CurveID{tls.X25519}
	return durable(name, c)
}

// Suite returns the named cases.
func Suite() []Case {
	return []Case{
		{Name: "S1", Config: Config{Scenario: FanIn, Clients: 50, Size: 16}},
		{Name: "S1L", Config: Config{Scenario: FanIn, Clients: 50, Size: 256}},
		{Name: "S2", Config: Config{Scenario: FanOut, Clients: 500, Size: 64}},
		{Name: "S3", Config: Config{Scenario: Pairs, Clients: 100, QoS: 1, Window: 100, Size: 64}},
		{Name: "S4", Config: Config{Scenario: Pairs, Clients: 100, QoS: 2, Window: 100, Size: 64}},
		{Name: "S8", Config: Config{Scenario: Rate, Clients: 100, QoS: 1, Rate: 5000, Size: 64}},
		{Name: "S8L", Config: Config{Scenario: Rate, Clients: 100, QoS: 1, Rate: 1000, Size: 64}},
		durable("R1", Config{Scenario: Pairs, Clients: 1, Window: 100}),
		durable("R3", Config{Scenario: Pairs, Clients: 100, Window: 100}),
		durable("R4", Config{Scenario: Pairs, Clients: 100, QoS: 2, Window: 100}),
		durable("R8", Config{Scenario: Rate, Clients: 100, Rate: 5000}),
		durable("R8L", Config{Scenario: Rate, Clients: 100, Rate: 10, Count: 2}),
		durable("R10k", Config{Scenario: Broadcast, Clients: 10_000, Count: 30}),
		durable("replay", Config{Scenario: Offline, Clients: 100, Count: 5000}),
		returning("connect", Config{Clients: 5000, Count: 10_000, Window: 64}),
		// Older devices: a TLS 1.2 session resumes without a key exchange.
		returning("connect12", Config{Clients: 5000, Count: 10_000, Window: 64, MaxTLS: tls.VersionTLS12}),
		// Everybody at once, as after a balancer's restart.
		returning("storm", Config{Clients: 5000, Count: 5000, Window: 5000}),
		{Name: "handshake", Base: "null", Mutual: true,
			Config: Config{Scenario: Connects, Count: 2000, Window: 16, HandshakeOnly: true, Curves: []tls.CurveID{tls.X25519}}},
		{Name: "plain", Base: "null", Config: Config{Scenario: Connects, Count: 2000, Window: 16}},
		{Name: "idle", Fresh: true, Rounds: 1, Config: Config{Scenario: Idle, Clients: 8000, Window: 64}},
		{Name: "idleTLS", Mutual: true, Fresh: true, Rounds: 1,
			Config: Config{Scenario: Idle, Clients: 8000, Window: 64, Curves: []tls.CurveID{tls.X25519}}},
		// Distinct filters on one node, and how soon the others know them.
		{Name: "filters", Fresh: true, Config: Config{Scenario: Filters, Clients: 100, Count: 100_000}},
		{Name: "subscriptions", Fresh: true, Rounds: 1, Config: Config{Scenario: Filters, Clients: 1000, Count: 1_000_000, Wait: 20 * time.Second}},
		wildcost("wildcost", Config{}),
		wildcost("wildcost1", Config{QoS: 1}),
		growth("growth", Config{}),
		growth("growth1", Config{QoS: 1}),
		{Name: "shared", Config: Config{Scenario: Shared, Clients: 50, Members: 10, QoS: 1, Version: 5, Size: 64}},
		{Name: "wildcards", Config: Config{Scenario: Wildcards, Clients: 50, QoS: 0, Size: 64}},
		{Name: "offline", Config: Config{Scenario: Offline, Clients: 10, Count: 2000, QoS: 1, Size: 64}},
		{Name: "retained", Config: Config{Scenario: Retained, Clients: 10, Count: 2000, QoS: 1, Size: 64}},
	}
}

// casesByName returns the named cases of the suite, and own as the case "own" if
// no name is given.
func casesByName(names []string, own Config) ([]Case, error) {
	if len(names) == 0 {
		return []Case{{Name: cmp.Or(own.Scenario, Pairs), Config: own}}, nil
	}
	var cases []Case
	for _, name := range names {
		suite := Suite()
		i := slices.IndexFunc(suite, func(k Case) bool { return k.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no case %q: use some of %s", name, caseNames())
		}
		cases = append(cases, suite[i])
	}
	return cases, nil
}

// caseNames lists the cases of the suite.
func caseNames() string {
	var names []string
	for _, k := range Suite() {
		names = append(names, k.Name)
	}
	return strings.Join(names, ", ")
}

// Cases returns the named cases of the suite, each publishing for the duration.
func Cases(names []string, each time.Duration) ([]Case, error) {
	cases, err := casesByName(names, Config{})
	for i := range cases {
		if cases[i].Count == 0 {
			cases[i].Duration = each
		}
	}
	return cases, err
}
