//go:build linux

package e2e

import (
	"os"
	"strings"
	"time"
)

// token makes a join token.
func (x *chaos) token() string {
	return strings.TrimSpace(x.Leader().CLI("token", "create", "--quiet"))
}

// wipe deletes what a node that does not run has on its disk.
func (x *chaos) wipe(n *Node) {
	if err := os.RemoveAll(n.Dir); err != nil {
		x.t.Fatal(err)
	}
}

// member waits until the cluster counts a node among its members, or not.
func (x *chaos) member(n *Node, want bool) {
	is := !want
	await(x.t, patience, func() bool {
		s, err := x.Leader().Status()
		if err != nil {
			return false
		}
		is = false
		for _, m := range s.Members {
			is = is || m.Node == n.ID
		}
		return is == want
	}, func() string { return n.ID + " is, or is not, a member, unlike what it should be" })
}

// leave takes a node out of the cluster and deletes its data.
func (x *chaos) leave(n *Node) {
	x.run.Drain(n.TLS)
	var err error
	await(x.t, patience, func() bool {
		// On a busy machine there may be no leader for a moment: told to try again.
		_, err = n.TryCLI("", "leave")
		return err == nil
	}, func() string { return err.Error() })
	n.AwaitExit(patience)
	x.member(n, false)
	x.wipe(n)
}

// join has an empty node join.
func (x *chaos) join(n *Node) {
	if err := x.Join(n, x.token()); err != nil {
		x.t.Fatal(err)
	}
	x.start(n)
	n.WaitReady(patience)
	x.member(n, true)
}

func (x *chaos) leaveAndJoin(f fault) {
	n := x.anyone(f)
	x.begin(n)
	x.leave(n)
	x.last(f)
	x.join(n)
}

// fourth has a spare node join and leave.
func (x *chaos) fourth(f fault) {
	for _, n := range x.Nodes {
		if !n.Running() {
			x.begin(n)
			x.join(n)
			x.last(f)
			x.leave(n)
			return
		}
	}
	x.t.Fatal("there is no spare node")
}

// replace kills a node, deletes its disk and gives its place to an empty one of
// the same name.
func (x *chaos) replace(f fault) {
	// First, because a change waits for every node that may hold a lease.
	n, token := x.anyone(f), x.token()
	x.begin(n)
	x.run.KillNode(n)
	x.wipe(n)
	at := x.others(n)[0]
	args := append([]string{"join", at.Advertise, "--token", token, "--replace", n.ID}, n.flags(x.options.Flags)...)
	var err error
	took := await(x.t, patience, func() bool {
		// Refused while the dead one may hold a lease.
		_, err = command("", args...)
		return err == nil
	}, func() string { return err.Error() })
	x.say("admitted after %v", took.Round(100*time.Millisecond))
	x.start(n)
	n.WaitReady(patience)
	x.member(n, true)
}
