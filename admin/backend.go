package admin

import (
	"context"
	"errors"
	"time"
)

// Backend is the node as the admin API uses it. Every method may block until ctx
// ends; an error is an *Error where the operator can do something about it, and
// its text is one sentence with cause and remedy. An interface that is nil makes
// its operations answer Unavailable.
type Backend struct {
	Cluster  Cluster
	Tokens   Tokens
	Users    Users
	Acls     Acls
	Certs    Certs
	Sessions Sessions
	Settings Settings
	Clock    Clock
	Backups  Backups
	Balance  Balance
	Importer Importer
	History  AclHistory
	Bans     Bans
	Auditor  Auditor
	Verifier Verifier
	Retained Retained
	Repair   SessionRepair
	Tracer   Tracer
	Topper   Topper

	Observer  Observer
	Clients   Clients
	Messages  Messages
	APITokens APITokens

	Authority Authority
	Doctor    Doctor
}

// Cluster tells of the members and lets them go.
type Cluster interface {
	Status(ctx context.Context) (Status, error)
	// Leave removes a member from the cluster; this node drains first.
	Leave(ctx context.Context, r LeaveRequest) (Change, error)
	// Drain sends this node's clients away and refuses new ones until it is
	// called with Off.
	Drain(ctx context.Context, r DrainRequest) (DrainResult, error)
}

// Tokens are what a new node joins with.
type Tokens interface {
	CreateToken(ctx context.Context, r TokenRequest) (Token, error)
	ListTokens(ctx context.Context) ([]TokenInfo, error)
	RevokeToken(ctx context.Context, id string) (Change, error)
}

// Users are the people and devices with a password.
type Users interface {
	AddUser(ctx context.Context, r UserAdd) (Change, error)
	SetUser(ctx context.Context, r UserSet) (Change, error)
	RemoveUser(ctx context.Context, name string) (Change, error)
	// ImportUsers adds or changes up to MaxImport users at once. Where one of
	// them is not valid, none is changed; where the cluster fails on the way, some
	// may be, and the same import again finishes it.
	ImportUsers(ctx context.Context, r UserImport) (UserImportResult, error)
	// ListUsers returns the users sorted by name; with a name only that one, or
	// a NotFound error.
	ListUsers(ctx context.Context, name string) ([]User, error)
}

// Acls say who may publish and subscribe to what.
type Acls interface {
	// SetAcl replaces the rules of a subject; no rules removes it.
	SetAcl(ctx context.Context, r Acl) (Change, error)
	// ListAcls returns the rules of the subject, or of all if it is empty.
	ListAcls(ctx context.Context, subject string) ([]Acl, error)
	ExplainAcl(ctx context.Context, q AclQuestion) (AclAnswer, error)
}

// Certs are the certificates of the cluster CA.
type Certs interface {
	IssueCert(ctx context.Context, r CertRequest) (IssuedCert, error)
	ListCerts(ctx context.Context) ([]Cert, error)
	// RevokeCert ends a certificate by its serial number, connected clients
	// included.
	RevokeCert(ctx context.Context, serial string) (Change, error)
	// CA returns the PEM of the CAs that are trusted now.
	CA(ctx context.Context) ([]byte, error)
}

// Sessions are the clients' sessions in the log.
type Sessions interface {
	// ListSessions returns at most r.Limit sessions sorted by client id.
	ListSessions(ctx context.Context, r SessionRequest) ([]Session, error)
	// EndSession removes a session and closes its connection.
	EndSession(ctx context.Context, client string) (Change, error)
}

// Settings are what the whole cluster is set to, kept in its log.
type Settings interface {
	// ListSettings returns the settings by key; with a key only that one, or a
	// NotFound error.
	ListSettings(ctx context.Context, key string) ([]Setting, error)
	SetSetting(ctx context.Context, r SettingChange) (Change, error)
}

// Health is what the probes ask. Its methods must not block.
type Health interface {
	// Live returns why the process should be restarted, or nil.
	Live() error
	Ready() Readiness
}

// Readiness tells whether a balancer should send clients here.
type Readiness struct {
	Lease    bool     `json:"lease"`     // the leader's lease is held
	CaughtUp bool     `json:"caught_up"` // apply is near the end of the log
	Serving  bool     `json:"serving"`   // listeners are open and not draining
	Draining bool     `json:"draining"`
	Reasons  []string `json:"reasons,omitempty"`
}

// Ready tells whether all holds.
func (r Readiness) Ready() bool { return r.Lease && r.CaughtUp && r.Serving }

// Change is the outcome of a change.
type Change struct {
	// Index is the log index of the change; 0 if it was so already.
	Index uint64 `json:"index"`
	// NotApplied names the leaseholders that had not applied the change when
	// the call returned; they will, or lose their lease.
	NotApplied []string `json:"not_applied"`
}

// Status is the cluster as one node sees it.
type Status struct {
	ClusterID    string `json:"cluster_id"`
	ClusterName  string `json:"cluster_name"`
	Node         string `json:"node"`
	Version      string `json:"version"`
	Leader       string `json:"leader"` // empty if unknown
	Quorum       bool   `json:"quorum"`
	Readiness    `json:"readiness"`
	Draining     bool     `json:"draining"`
	DrainPhase   string   `json:"drain_phase,omitempty"`
	Term         uint64   `json:"term"`
	LastIndex    uint64   `json:"last_index"`
	CommitIndex  uint64   `json:"commit_index"`
	AppliedIndex uint64   `json:"applied_index"`
	Level        uint32   `json:"feature_level"`
	Refusing     bool     `json:"refusing_publishes"` // because disks are nearly full
	Members      []Member `json:"members"`
}

// The phases of a drain, in their order.
const (
	DrainLead    = "lead"    // another node is to lead
	DrainNotice  = "notice"  // not ready, and serving: balancers have drain.delay to notice
	DrainSend    = "send"    // clients are sent away
	DrainDrained = "drained" // they have gone, or their time is over
)

// The roles of a Member. One that serves has no vote and needs none: as many vote as
// should, or it never votes. A non-voter gets its vote when it has caught up.
const (
	RoleLeader   = "leader"
	RoleVoter    = "voter"
	RoleServing  = "serving"
	RoleNonVoter = "non-voter"
)

// Votes tells whether the member's vote counts.
func (m *Member) Votes() bool { return m.Role == RoleLeader || m.Role == RoleVoter }

// Member is one node of the cluster.
type Member struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	Role    string `json:"role"`
	// ServingOnly: it never votes.
	ServingOnly bool `json:"serving_only,omitempty"`
	Up          bool `json:"up"`
	// Lease is how much of its lease is left as the leader knows it, in
	// milliseconds; -1 if this node cannot tell.
	Lease   int64  `json:"lease_ms"`
	Applied uint64 `json:"applied_index"`
	Clients int    `json:"clients"`
	Version string `json:"version"`
	// Level is the feature level of its program.
	Level uint32 `json:"feature_level"`
	// Disk is "ok", "low" or "full"; empty if the member does not answer.
	Disk string `json:"disk,omitempty"`
}

// LeaveRequest names the member that is to leave; empty: this node. Force
// removes a member that is up. Compromised does so too, because somebody else may
// have what it knows: the CA is rotated, and the keys that the nodes share are made
// anew.
type LeaveRequest struct {
	Node        string `json:"node"`
	Force       bool   `json:"force"`
	Compromised bool   `json:"compromised,omitempty"`
	// Who asked for it at which node, as that node tells the leader.
	Actor string `json:"actor,omitempty"`
	Via   string `json:"via,omitempty"`
}

// DrainRequest asks for a drain, or ends it. Timeout (0: the configured one) is for
// sending the clients away: the lead moves, and balancers have their time to notice,
// before it.
type DrainRequest struct {
	Timeout time.Duration `json:"timeout_ns"`
	Off     bool          `json:"off"`
	// Rate is how many clients are sent away a second; 0: spread over the time. With
	// it Timeout counts from when the last one was sent.
	Rate int `json:"rate,omitempty"`
	// Stop ends the node's process afterwards, if no client is left.
	Stop bool `json:"stop,omitempty"`
}

// DrainResult counts the clients.
type DrainResult struct {
	Sent int `json:"sent"` // told to go
	Left int `json:"left"` // still connected
	// Leader is who leads afterwards, empty if nobody is known to.
	Leader  string `json:"leader"`
	Stopped bool   `json:"stopped,omitempty"` // the process ends
}

// TokenRequest asks for a join token. Zero means the default of 1 use and an
// hour.
type TokenRequest struct {
	Uses int           `json:"uses"`
	TTL  time.Duration `json:"ttl_ns"`
}

// Token is a new token: the only time that its secret is shown.
type Token struct {
	TokenInfo
	Token       string `json:"token"`
	JoinCommand string `json:"join_command"`
	Change
}

// TokenInfo is a token without its secret.
type TokenInfo struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	Uses      int       `json:"uses"` // allowed in all
	Used      int       `json:"used"`
}

// UserAdd is a new user. Without a password it can only prove itself by a
// certificate.
type UserAdd struct {
	Name     string   `json:"name"`
	Password []byte   `json:"password,omitempty"`
	Roles    []string `json:"roles,omitempty"`
}

// UserSet changes what is not nil of a user.
type UserSet struct {
	Name     string    `json:"name"`
	Password []byte    `json:"password,omitempty"`
	Disabled *bool     `json:"disabled,omitempty"`
	Roles    *[]string `json:"roles,omitempty"`
	Quota    *Quota    `json:"limits,omitempty"`
}

// Quota is what the clients of a user may use, beside what every client may; 0 is no
// limit of the user's own. The rates and the connections are of all its clients on a
// node, the others of each.
type Quota struct {
	MessageRate   int `json:"message_rate,omitempty"` // a second
	ByteRate      int `json:"byte_rate,omitempty"`    // a second
	Connections   int `json:"connections,omitempty"`
	Subscriptions int `json:"subscriptions,omitempty"`
	PacketSize    int `json:"packet_size,omitempty"` // bytes; from the next CONNECT on
	Inflight      int `json:"inflight,omitempty"`    // from the next CONNECT on
	TopicLevels   int `json:"topic_levels,omitempty"`
}

// MaxImport is how many users one UserImport takes.
const MaxImport = 1000

// UserImport is users to add, or to change where they exist. Roles, if not nil,
// become those of each of them.
type UserImport struct {
	Users []UserEntry `json:"users"`
	Roles *[]string   `json:"roles,omitempty"`
}

// UserEntry is one user of a UserImport, with a password or the hash of one.
type UserEntry struct {
	Name     string `json:"name"`
	Password []byte `json:"password,omitempty"`
	Hash     string `json:"hash,omitempty"`
}

// UserImportResult counts the users. Those that had this password and these roles
// already are unchanged, and their clients stay.
type UserImportResult struct {
	Change
	Added     int `json:"added"`
	Changed   int `json:"changed"`
	Unchanged int `json:"unchanged"`
}

// User is a user without the password's hash.
type User struct {
	Name        string   `json:"name"`
	Disabled    bool     `json:"disabled"`
	HasPassword bool     `json:"has_password"`
	Scram       bool     `json:"scram"` // it may log in by SCRAM-SHA-256, if that is on
	Roles       []string `json:"roles"`
	Quota       Quota    `json:"limits,omitzero"`
}

// Acl is the rules of one subject: "user:NAME", "role:NAME" or "*". A rule is
// text such as "allow publish sensors/%c/#".
type Acl struct {
	Subject string   `json:"subject"`
	Rules   []string `json:"rules"`
}

// AclQuestion asks whether a user may do something.
type AclQuestion struct {
	User   string `json:"user"`
	Client string `json:"client"`
	Action string `json:"action"` // publish or subscribe
	Topic  string `json:"topic"`  // a filter for subscribe
	// What else rights depend on: names in a certificate, and the roles that a token
	// brings.
	Cert  AclCert  `json:"cert,omitzero"`
	Roles []string `json:"roles,omitempty"`
}

// AclAnswer is the outcome and the rule that decided; Rule and Subject are
// empty where none matched.
type AclAnswer struct {
	Allowed bool   `json:"allowed"`
	Subject string `json:"subject"`
	Rule    string `json:"rule"`
	Reason  string `json:"reason"`
}

// The algorithms of a CertRequest.
const (
	AlgorithmECDSA   = "ecdsa"
	AlgorithmEd25519 = "ed25519"
	AlgorithmRSA     = "rsa" // of 3072 bits
	AlgorithmRSA2048 = "rsa-2048"
	AlgorithmRSA3072 = "rsa-3072"
	AlgorithmRSA4096 = "rsa-4096"
)

// CertRequest asks for a client certificate. Zero means the default of a year
// and ECDSA P-256. With CSR, a certificate request in DER, the certificate is for
// its key, and the Algorithm is not looked at.
type CertRequest struct {
	Name      string        `json:"name"`
	Lifetime  time.Duration `json:"lifetime_ns"`
	Algorithm string        `json:"algorithm"`
	CSR       []byte        `json:"csr,omitempty"`
}

// IssuedCert is a new certificate with its key, which is kept nowhere else; with a
// CSR there is none.
type IssuedCert struct {
	Cert
	CertPEM []byte `json:"cert_pem"`
	KeyPEM  []byte `json:"key_pem"`
	CAPEM   []byte `json:"ca_pem"`
}

// Cert is a certificate that the cluster CA issued.
type Cert struct {
	Serial    string    `json:"serial"` // hex
	Subject   string    `json:"subject"`
	Kind      string    `json:"kind"` // client, node or listener
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Revoked   bool      `json:"revoked"`
}

// SessionRequest asks for sessions whose client id begins with Prefix. Limit 0
// is 1000.
type SessionRequest struct {
	Prefix string `json:"prefix"`
	Limit  int    `json:"limit"`
}

// Session is a client's session.
type Session struct {
	Client        string `json:"client"`
	User          string `json:"user"`
	Node          string `json:"node"` // of its connection, empty if it has none
	Address       string `json:"address"`
	Protocol      int    `json:"protocol"`
	Subscriptions int    `json:"subscriptions"`
	Expiry        uint32 `json:"expiry_s"`
}

// Setting is a setting of the cluster.
type Setting struct {
	Key     string `json:"key"`
	Value   string `json:"value"` // in force
	Default string `json:"default"`
	Changed bool   `json:"changed"` // it was set, if to its default
	Help    string `json:"help"`
}

// SettingChange sets a setting, or takes it back to its default.
type SettingChange struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
	Unset bool   `json:"unset,omitempty"`
}

// Kind is what an Error means.
type Kind string

// The kinds of Error.
const (
	NotFound    Kind = "not_found"
	Conflict    Kind = "conflict"    // it exists, or its state forbids it
	Invalid     Kind = "invalid"     // the request makes no sense
	Unavailable Kind = "unavailable" // no quorum, no lease: try again
	Denied      Kind = "denied"
	// Unauthenticated: it is not known who asks. TooMany: ask more slowly.
	Unauthenticated Kind = "unauthenticated"
	TooMany         Kind = "too_many"
	Internal        Kind = "internal"
)

// Error is an error for the operator: one sentence with cause and remedy.
type Error struct {
	Kind Kind   `json:"kind"`
	Msg  string `json:"error"`
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Msg }

// Is makes errors.Is tell an error by its kind.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Kind == NotFound
	case ErrConflict:
		return e.Kind == Conflict
	case ErrUnavailable:
		return e.Kind == Unavailable
	}
	return false
}

// What callers of Client tell apart.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("conflict")
	ErrUnavailable = errors.New("unavailable")
	// ErrNoNode: nothing listens on the socket.
	ErrNoNode = errors.New("no node answers on the admin socket")
)
