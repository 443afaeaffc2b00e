package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/node"
)

// examineCluster judges what status says.
func (f *findings) examineCluster(s admin.Status) {
	if !s.Quorum {
		f.fail("quorum", "no majority of the voters is up, or nobody leads: nothing is accepted", "bring voters back; if they are lost for good, mqcluster recover on the best survivor")
	} else {
		f.ok("quorum", "node %s leads", s.Leader)
	}
	if !s.Ready() {
		f.fail("ready", "this node does not serve: "+strings.Join(s.Reasons, "; "), "wait while it catches up; a drain is ended with mqcluster drain --off")
	} else {
		f.ok("ready", "this node serves")
	}
	versions, levels, voters := map[string]bool{}, map[uint32]bool{}, 0
	for _, m := range s.Members {
		versions[m.Version], levels[m.Level] = true, true
		if m.Role != admin.RoleNonVoter {
			voters++
		}
		if !m.Up {
			f.fail("members", "node "+m.Node+" does not answer", "start it; if it is gone for good, mqcluster leave "+m.Node+", or join --replace on the new machine")
		}
		if m.Up && m.Disk != "" && m.Disk != "ok" {
			f.fail("disk", "the disk of node "+m.Node+" is "+m.Disk, "make room on it: durable publishes are refused where the cluster needs it")
		}
	}
	if voters < 3 {
		f.warn("members", fmt.Sprintf("%d of %d nodes vote: none may fail", voters, len(s.Members)), "join nodes until there are three")
	} else {
		f.ok("members", "%d nodes, %d of which vote", len(s.Members), voters)
	}
	if len(versions) > 1 || len(levels) > 1 {
		f.warn("versions", "the nodes run different versions", "finish the upgrade: mqcluster status shows who runs what")
	} else {
		f.ok("versions", "all nodes run %s", s.Version)
	}
}

// examinePorts dials what should answer.
func (f *findings) examinePorts(ctx context.Context, config *node.Loaded, s admin.Status) {
	bad, n := 0, 0
	dial := func(what, address, remedy string) {
		n++
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			bad++
			f.fail("ports", fmt.Sprintf("%s at %s does not answer: %v", what, address, err), remedy)
			return
		}
		_ = conn.Close()
	}
	for _, l := range config.Listeners {
		dial("listener "+l.Name, local(l.Address), "restart the node, if the listener is newer than it")
	}
	if config.Health.Listen != "" {
		dial("health", local(config.Health.Listen), "restart the node, if health.listen was changed since it started")
	}
	for _, m := range s.Members {
		if m.Node != s.Node {
			dial("the mesh port of node "+m.Node, m.Address, "open it in the firewalls between the nodes, start the node, or correct its mesh.advertise")
		}
	}
	if bad == 0 {
		f.ok("ports", "%d ports answer", n)
	}
}

// local is where this machine reaches a port that may listen on all its interfaces.
func local(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// examineCheckup judges what the node says of itself.
func (f *findings) examineCheckup(ctx context.Context, c *admin.Client) {
	k, err := c.Checkup(ctx)
	if err != nil {
		f.fail("node", "the node does not tell of itself: "+err.Error(), "run the mqcluster of its version")
		return
	}
	switch {
	case k.FilesWanted > k.FilesLimit:
		f.warn("files", fmt.Sprintf("the node may have %d open files, and limits.max_connections takes %d", k.FilesLimit, k.FilesWanted), "raise LimitNOFILE of the unit (ulimit -n), or lower limits.max_connections")
	case k.FilesOpen > k.FilesLimit/5*4:
		f.fail("files", fmt.Sprintf("the node has %d of %d open files", k.FilesOpen, k.FilesLimit), "raise LimitNOFILE of the unit (ulimit -n)")
	case k.FilesLimit < 4096:
		f.warn("files", fmt.Sprintf("the node may have %d open files: each client takes one", k.FilesLimit), "raise LimitNOFILE of the unit (ulimit -n)")
	default:
		f.ok("files", "%d of %d are open", k.FilesOpen, k.FilesLimit)
	}
	for _, p := range k.Clocks {
		ahead := max(p.Ahead.Abs()-p.Uncertain, 0)
		found := fmt.Sprintf("the clock of node %s is %v off this one's", p.Node, p.Ahead.Round(time.Millisecond))
		switch {
		case p.Error != "":
			f.warn("clock", "node "+p.Node+" did not tell its clock: "+p.Error, "look whether it is up")
		case ahead > clockFailure:
			f.fail("clock", found, "run a time service on both machines: certificates and tokens are judged by the clock")
		case ahead > clockWarning:
			f.warn("clock", found, "run a time service on both machines")
		default:
			f.ok("clock", "%s", found)
		}
	}
	for _, l := range k.Listeners {
		switch {
		case l.Problem != "":
			f.fail("listener", "the files of listener "+l.Name+" are not used, the ones before still are: "+l.Problem, "correct them; they are read again by themselves")
		case time.Until(l.NotAfter) < soon:
			f.warn("listener", fmt.Sprintf("the certificate of listener %s ends on %s", l.Name, stamp(l.NotAfter)), "renew it in its file, which is read again by itself; the node's own is renewed by the cluster")
		default:
			f.ok("listener", "%s has a certificate until %s", l.Name, stamp(l.NotAfter))
		}
	}
}

// examineCAs looks at a rotation under way, and at who holds the CA's key.
func (f *findings) examineCAs(ctx context.Context, c *admin.Client) {
	s, err := c.CAStatus(ctx)
	if err != nil {
		f.warn("ca", "how the nodes stand to the CA is not known: "+err.Error(), "try again when there is a leader")
		return
	}
	if s.Stage != admin.CASettled {
		f.warn("ca", fmt.Sprintf("a rotation of the CA is at stage %s, and %d client certificates are of the old one", s.Stage, len(s.OldClients)), "renew those, then run mqcluster ca retire: see mqcluster ca status")
	}
	holders := 0
	for _, n := range s.Nodes {
		if len(n.Holds) > 0 {
			holders++
		}
	}
	if holders == 0 {
		f.fail("ca", "no node that answers holds the CA's key: no certificate can be issued or renewed", "bring a voter back, or restore the key from a backup with it")
	}
	certs, err := c.ListCerts(ctx)
	if err != nil {
		return
	}
	ending := 0
	now := time.Now()
	for _, one := range certs {
		if one.Kind == "client" && !one.Revoked && now.Before(one.NotAfter) && one.NotAfter.Sub(now) < soon && !renewed(certs, one) {
			ending++
		}
	}
	if ending > 0 {
		f.warn("clients", fmt.Sprintf("%d client certificates end within %d days", ending, int(soon.Hours()/24)), "renew them with mqcluster cert renew; mqcluster cert list shows them")
	}
}

// renewed tells whether the same subject has a newer certificate.
func renewed(all []admin.Cert, c admin.Cert) bool {
	return slices.ContainsFunc(all, func(o admin.Cert) bool {
		return o.Subject == c.Subject && o.Kind == c.Kind && !o.Revoked && o.NotAfter.After(c.NotAfter)
	})
}

// examineRights looks for rules that nobody can use.
func (f *findings) examineRights(ctx context.Context, c *admin.Client, config *node.Loaded) {
	users, err := c.ListUsers(ctx, "")
	if err != nil {
		f.warn("rights", "users were not read: "+err.Error(), "try again")
		return
	}
	acls, err := c.ListAcls(ctx, "")
	if err != nil {
		f.warn("rights", "rules were not read: "+err.Error(), "try again")
		return
	}
	open := slices.ContainsFunc(config.Listeners, func(l node.Listener) bool { return l.AllowAnonymous })
	useless := 0
	for _, acl := range acls {
		if why := nobodyUses(acl.Subject, users, open); why != "" {
			useless++
			f.warn("rights", why, "remove the rules with mqcluster acl set "+quoted(acl.Subject)+" and no rule behind it, or correct the name")
		}
	}
	if useless == 0 {
		f.ok("rights", "%d users, rules of %d subjects, each of which somebody can use", len(users), len(acls))
	}
}

// nobodyUses says why rules of a subject apply to nobody, "" if they do to somebody.
func nobodyUses(subject string, users []admin.User, anonymous bool) string {
	kind, name, named := strings.Cut(subject, ":")
	switch {
	case subject == "anonymous" && !anonymous:
		return "there are rules of anonymous, and no listener of this node admits clients without a user name"
	case named && kind == "user" && !slices.ContainsFunc(users, func(u admin.User) bool { return u.Name == name }):
		return fmt.Sprintf("there are rules of user %q, who does not exist", name)
	case named && kind == "role" && !slices.ContainsFunc(users, func(u admin.User) bool { return slices.Contains(u.Roles, name) }):
		return fmt.Sprintf("there are rules of role %q, which no user has", name)
	}
	return ""
}
