package fsm

import "github.com/mqcluster/mqcluster/fsm/logpb"

// goldenIdentity has bans of which one ends, versions of the ACLs, a secret, limits
// and keys of a user, a will of a client with a token, and the audit of it all.
func goldenIdentity(r *tape) {
	admin := func(it *logpb.Item) {
		it.By = &logpb.By{Actor: "uid 0 (root)", Node: "a", Operation: "op", Subject: "subject", Detail: "detail"}
		r.admin("a", it)
	}
	ban := func(kind, value string, life int64, automatic bool) {
		admin(&logpb.Item{Kind: &logpb.Item_BanPut{BanPut: &logpb.BanPut{Kind: kind, Value: value, Lifetime: life, Reason: "because", Automatic: automatic}}})
	}
	ban("address", "192.0.2.0/24", 0, false)
	ban("address", "192.0.2.0/24", 1000, true) // which an operator's stays
	ban("client", "c", 5000, true)
	ban("user", "u", 3_600_000, false)
	ban("planet", "x", 0, false) // refused
	admin(&logpb.Item{Kind: &logpb.Item_BanRemove{BanRemove: &logpb.BanRemove{Kind: "user", Value: "u"}}})
	r.stamp += 6000
	r.apply(&logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
	for _, v := range []string{"first", "second"} {
		admin(&logpb.Item{Kind: &logpb.Item_SecretPut{SecretPut: &logpb.SecretPut{Name: "scram.mock", Value: []byte(v)}}})
	}
	hash := "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"
	admin(&logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{
		Name: "limited", Hash: &hash, Scram: "SCRAM-SHA-256$15000:AA==$AA==:AA==", SetQuota: true,
		Quota: &logpb.Quota{MessageRate: 1, ByteRate: 2, Connections: 3, Subscriptions: 4, PacketSize: 5, Inflight: 6, TopicLevels: 7},
	}}})
	rule := &logpb.Rule{Allow: true, Action: 1, Filter: "of/%{cert.ou}/#"}
	admin(&logpb.Item{Kind: &logpb.Item_AclPut{AclPut: &logpb.AclPut{Subject: "user:limited", Rules: []*logpb.Rule{rule}}}})
	replace := &logpb.AclReplace{Version: r.store.state.version(), Acls: []*logpb.AclPut{{Subject: "user:limited"}, {Subject: "role:new", Rules: []*logpb.Rule{rule}}}}
	for range 2 { // the second time is too late
		admin(&logpb.Item{Kind: &logpb.Item_AclReplace{AclReplace: replace}})
	}
	admin(&logpb.Item{Kind: &logpb.Item_AuditPut{AuditPut: &logpb.AuditPut{By: &logpb.By{Actor: "token t1", Operation: "join"}, Outcome: "no"}}})
	w := will("of/hall/w", 600)
	w.Bearer = &logpb.Bearer{Cn: "cn", O: "o", Ou: "hall", Dns: "dns", Roles: []string{"new"}, Rules: []*logpb.Rule{rule}}
	r.connect("a", &logpb.Claim{Client: "bearer", Expiry: 1000, Protocol: 5, User: "limited", Will: w})
	r.set("auth.scram", "on")
}
