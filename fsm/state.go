package fsm

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// state is what apply works on: everything but messages, postings and retained
// messages, which stay in Pebble. All of it can be read back from Pebble.
type state struct {
	node       string // this node
	applied    uint64
	stamp      int64
	lastFilter uint64

	sessions  map[string]*sess
	formers   map[formerKey]*logpb.Former
	filters   map[string]*filter // plain ones, by text
	groups    map[string]*group  // shared ones, by text
	members   map[string]*member
	users     map[string]*logpb.User
	acls      map[string]*logpb.Acl
	tokens    map[string]*logpb.Token
	apiTokens map[string]*logpb.ApiToken
	certs     map[string]*logpb.Cert
	settings  map[string]string
	bans      map[string]*logpb.Ban // by key without its first byte
	banDue    int64                 // log time at which the first of them ends, 0: none does
	versions  []*logpb.AclVersion   // the oldest first
	audit     []session.Pos         // of the records that are kept, the oldest first
	secrets   map[string][]byte
	limits    Limits // what settings say
	level     uint32 // the least feature level of all members
	// reached is the highest that level has been, from LevelIdentity on: a member that
	// joins later, and has not told its own yet, does not take it back.
	reached uint32

	topics routing.Topics[matching] // of late

	timers timers
	// expiry is at or before the earliest log time at which a retained message
	// expires, 0 if none does.
	expiry int64
	stored *stored
	policy *auth.Policy
	table  *table
}

// topicPlaces are those of the topics that a state remembers the matches of: of 196,608
// topics, which take about 45 MB, with what the observer keeps beside them.
const topicPlaces = 1 << 18

// matching is what a topic matched, in two versions of the tries. With the text of a
// topic that is not long it fills two lines of a processor's cache.
type matching struct {
	plainAt, sharedAt uint64
	one               [1]*filter
	more              *[]*filter  // instead of one
	shared            *[][]*group // nil: there is none
	aside             any         // see Event.Aside
	valid             bool        // the topic is UTF-8
}

// match returns what matches t now. Neither slice is to be changed.
func (st *state) match(t *routing.Topic[matching]) (plain []*filter, shared [][]*group) {
	m, topic := &t.Value, t.Name
	if t := st.table.plain.Load(); m.plainAt != t.Version() {
		m.plainAt, m.one, m.more = t.Version(), [1]*filter{}, nil
		if all := t.Match(m.one[:0], topic); len(all) > 1 {
			m.more = &all
		}
	}
	if t := st.table.shared.Load(); m.sharedAt != t.Version() {
		m.sharedAt, m.shared = t.Version(), nil
		if all := t.Match(nil, topic); len(all) > 0 {
			m.shared = &all
		}
	}
	if m.shared != nil {
		shared = *m.shared
	}
	switch {
	case m.more != nil:
		plain = *m.more
	case m.one[0] != nil:
		plain = m.one[:]
	}
	return plain, shared
}

// table is what goroutines other than the applying one read of the state.
type table struct {
	plain    *routing.Trie[*filter]
	shared   *routing.Trie[[]*group] // by inner filter; slices never changed in place
	sessions *sync.Map               // client -> *sess
	members  []*logpb.Member
	level    uint32    // as in state
	certs    *sync.Map // serial -> *logpb.Cert
	bans     *auth.Bans
	reached  uint32
	secrets  map[string][]byte // never changed in place
	api      *sync.Map         // id -> *logpb.ApiToken
	limits   Limits
	stored   *stored
}

func newState(node string) *state {
	count := new(stored)
	return &state{
		node:      node,
		sessions:  map[string]*sess{},
		formers:   map[formerKey]*logpb.Former{},
		filters:   map[string]*filter{},
		groups:    map[string]*group{},
		members:   map[string]*member{},
		users:     map[string]*logpb.User{},
		acls:      map[string]*logpb.Acl{},
		tokens:    map[string]*logpb.Token{},
		apiTokens: map[string]*logpb.ApiToken{},
		certs:     map[string]*logpb.Cert{},
		settings:  map[string]string{},
		bans:      map[string]*logpb.Ban{},
		secrets:   map[string][]byte{},
		limits:    DefaultLimits(),
		stored:    count,
		topics:    routing.Topics[matching]{Places: topicPlaces},
		table: &table{
			plain:    routing.NewTrie[*filter](),
			shared:   routing.NewTrie[[]*group](),
			sessions: new(sync.Map),
			certs:    new(sync.Map),
			bans:     new(auth.Bans),
			api:      new(sync.Map),
			limits:   DefaultLimits(),
			stored:   count,
		},
	}
}

// member is a node of the cluster.
type member struct {
	rec      *logpb.Member
	nextPack uint64
}

// owner is the connection that has a session.
type owner struct {
	node        string
	incarnation uint64
	epoch       uint64 // of the session, as of the claim
}

// sess is a session, connected or not.
type sess struct {
	client string
	// incarnation is that of rec, for other goroutines.
	incarnation uint64
	rec         *logpb.Session        // without subscriptions and cursor
	cursor      atomic.Uint64         // session.Pos; written by the applying goroutine
	owner       atomic.Pointer[owner] // nil: not connected
	// subs is in order of filter text and never changed in place.
	subs     atomic.Pointer[[]*sub]
	outs     map[session.Pos]*logpb.Out
	received map[uint16]struct{}
	mark     mark // the Trimmer's own
}

func (s *sess) at() session.Pos { return session.Pos(s.cursor.Load()) }

func (s *sess) list() []*sub {
	if p := s.subs.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *sess) find(filter string) *sub {
	l := s.list()
	if i, ok := searchSub(l, filter); ok {
		return l[i]
	}
	return nil
}

// put adds or replaces a subscription.
func (s *sess) put(n *sub) {
	l := s.list()
	i, ok := searchSub(l, n.Filter)
	l = slices.Clone(l)
	if ok {
		l[i] = n
	} else {
		l = slices.Insert(l, i, n)
	}
	s.subs.Store(&l)
}

func (s *sess) drop(filter string) {
	l := s.list()
	if i, ok := searchSub(l, filter); ok {
		l = slices.Delete(slices.Clone(l), i, i+1)
		s.subs.Store(&l)
	}
}

func searchSub(l []*sub, filter string) (int, bool) {
	return slices.BinarySearchFunc(l, filter, func(s *sub, f string) int {
		switch {
		case s.Filter < f:
			return -1
		case s.Filter > f:
			return 1
		}
		return 0
	})
}

// sub is a subscription in the log. It is never changed in place.
type sub struct {
	session.Subscription
	filter *filter
	since  session.Pos
	replay *logpb.Replay // nil: no retained messages are owed; never changed in place
	zero   bool          // of QoS 0, and messages wait for it all the same
}

// filter is what postings are kept for: a distinct plain filter, or one
// member's part of a shared one.
type filter struct {
	id    uint64
	text  string // without $share and group
	group *group // nil for a plain filter
	subs  map[*sess]*sub
	// queueing counts the subscriptions with QoS 1 or 2.
	queueing int
	zeros    int // subscriptions of QoS 0 that messages wait for
	// away counts the subscriptions of sessions that messages of QoS 0 wait for.
	away atomic.Int64
	last atomic.Uint64 // position of the newest posting
	// posted and bytes are the running number and byte sum of the newest posting.
	posted, bytes atomic.Uint64
	// Of the collector: the postings up to low are dead, those up to swept are
	// deleted, and those up to spilled are not all among the messages of late.
	low, swept, spilled session.Pos
	// Of the collector, under its lock: the filter is noted as touched; the newest
	// posting that it missed, 0 for none.
	dirty  bool
	missed session.Pos
}

func (f *filter) add(s *sess, n *sub) {
	f.remove(s)
	f.subs[s] = n
	f.count(n, 1)
}

func (f *filter) remove(s *sess) {
	if old := f.subs[s]; old != nil {
		delete(f.subs, s)
		f.count(old, -1)
	}
}

func (f *filter) count(n *sub, by int) {
	switch {
	case n.QoS > 0:
		f.queueing += by
	case n.zero:
		f.zeros += by
	}
}

// group is a shared subscription: $share/name/filter.
type group struct {
	text  string // whole
	inner string
	// members is in the order of filter ids and never changed in place.
	members atomic.Pointer[[]groupMember]
}

type groupMember struct {
	sess *sess
	sub  *sub
}

func (g *group) list() []groupMember {
	if p := g.members.Load(); p != nil {
		return *p
	}
	return nil
}

func (g *group) put(s *sess, n *sub) {
	l := slices.Clone(g.list())
	if i := slices.IndexFunc(l, func(m groupMember) bool { return m.sess == s }); i >= 0 {
		l[i].sub = n
	} else {
		l = append(l, groupMember{s, n})
		slices.SortFunc(l, func(a, b groupMember) int { return cmp.Compare(a.sub.filter.id, b.sub.filter.id) })
	}
	g.members.Store(&l)
}

func (g *group) remove(s *sess) {
	l := slices.DeleteFunc(slices.Clone(g.list()), func(m groupMember) bool { return m.sess == s })
	g.members.Store(&l)
}

// attach puts a subscription, new or changed, in all the places where it is
// looked up. Its filter must have been chosen.
func (st *state) attach(s *sess, n *sub) {
	s.put(n)
	n.filter.add(s, n)
	if g := n.filter.group; g != nil {
		if len(g.list()) == 0 {
			st.groups[g.text] = g
			at, _ := st.table.shared.Load().Get(g.inner)
			st.table.shared.Set(g.inner, append(slices.Clone(at), g))
		}
		g.put(s, n)
		return
	}
	if st.filters[n.filter.text] == nil {
		st.filters[n.filter.text] = n.filter
		st.table.plain.Set(n.filter.text, n.filter)
	}
}

// detach is attach undone; the filter goes with its last subscription.
func (st *state) detach(s *sess, n *sub) {
	s.drop(n.Filter)
	n.filter.remove(s)
	if g := n.filter.group; g != nil {
		g.remove(s)
		if len(g.list()) == 0 {
			delete(st.groups, g.text)
			st.dropGroup(g)
		}
		return
	}
	if len(n.filter.subs) == 0 {
		delete(st.filters, n.filter.text)
		st.table.plain.Delete(n.filter.text)
	}
}

func (st *state) dropGroup(g *group) {
	at, _ := st.table.shared.Load().Get(g.inner)
	at = slices.DeleteFunc(slices.Clone(at), func(o *group) bool { return o == g })
	if len(at) == 0 {
		st.table.shared.Delete(g.inner)
		return
	}
	st.table.shared.Set(g.inner, at)
}

func (st *state) addSession(s *sess) {
	st.sessions[s.rec.Client] = s
	st.table.sessions.Store(s.rec.Client, s)
}

// setMembers publishes the member list; the records in it are never changed.
func (st *state) setMembers() {
	t := *st.table
	t.members = nil
	st.level = 0
	for i, name := range slices.Sorted(maps.Keys(st.members)) {
		rec := st.members[name].rec
		t.members = append(t.members, rec)
		if i == 0 || rec.Level < st.level {
			st.level = rec.Level
		}
	}
	t.level = st.level
	st.table = &t
}

// fresh returns the filter for a subscription text, made anew with id if there
// is none: per text for plain filters, per member for shared ones.
func (st *state) fresh(text string, id uint64) *filter {
	_, inner, shared := routing.SplitShared(text)
	if !shared {
		if f := st.filters[text]; f != nil {
			return f
		}
		return &filter{id: id, text: text, subs: map[*sess]*sub{}}
	}
	g := st.groups[text]
	if g == nil {
		g = &group{text: text, inner: inner}
	}
	return &filter{id: id, text: inner, group: g, subs: map[*sess]*sub{}}
}
