package node

import (
	"net/netip"
	"time"
)

// Config is all that an operator can set. The yaml tags are the only names a
// setting has: the flag is the dotted path with dashes (--mesh.listen,
// --limits.max-packet-size), the variable the path in capitals
// (MQCLUSTER_MESH_LISTEN). Load fills it, Validate judges it.
type Config struct {
	DataDir     string        `yaml:"data_dir" kind:"path" help:"directory of everything this node keeps"`
	Node        NodeConfig    `yaml:"node"`
	Cluster     ClusterConfig `yaml:"cluster"`
	Mesh        MeshConfig    `yaml:"mesh"`
	Listeners   []Listener    `yaml:"listeners" help:"a client listener: kind,key=value,... (repeatable)"`
	ServerNames []string      `yaml:"server_names" help:"more DNS names and IP addresses for this node's certificate, such as the balancer's"`
	Health      HealthConfig  `yaml:"health"`
	Admin       AdminConfig   `yaml:"admin"`
	API         APIConfig     `yaml:"api"`
	Log         LogConfig     `yaml:"log"`
	Limits      LimitsConfig  `yaml:"limits"`
	Auth        AuthConfig    `yaml:"auth"`
	CA          CAConfig      `yaml:"ca"`
	Abuse       AbuseConfig   `yaml:"abuse"`
	Audit       AuditConfig   `yaml:"audit"`
	Raft        RaftConfig    `yaml:"raft"`
	Storage     StorageConfig `yaml:"storage"`
	Drain       DrainConfig   `yaml:"drain"`
	Backup      BackupConfig  `yaml:"backup"`
}

// NodeConfig names this node.
type NodeConfig struct {
	ID string `yaml:"id" help:"name of this node in the cluster (default: the host's name)"`
}

// ClusterConfig names the cluster.
type ClusterConfig struct {
	Name string `yaml:"name" help:"name of the cluster, written into its CA by init"`
}

// MeshConfig is the port between the nodes.
type MeshConfig struct {
	Listen    string `yaml:"listen" help:"address of the mesh port"`
	Advertise string `yaml:"advertise" help:"address by which the other nodes reach the mesh port (default: the address of the default route)"`
}

// HealthConfig is the HTTP listener of /livez, /readyz and /metrics.
type HealthConfig struct {
	Listen string `yaml:"listen" help:"address of /livez, /readyz and /metrics; empty: none"`
}

// AdminConfig is the socket that the CLI talks to.
type AdminConfig struct {
	Socket string `yaml:"socket" kind:"path" help:"Unix socket of the admin API (default: admin.sock in the data directory)"`
}

// APIConfig is the admin API on the network, with the dashboard.
type APIConfig struct {
	Listen      string `yaml:"listen" help:"address of the admin API and the dashboard, with TLS and tokens; empty: none, only the Unix socket"`
	CertFile    string `yaml:"cert_file" kind:"path" help:"PEM chain of api.listen (default: the node's own certificate)"`
	KeyFile     string `yaml:"key_file" kind:"path" help:"PEM key of api.cert_file"`
	KeyPassFile string `yaml:"key_pass_file" kind:"path" help:"file with the pass phrase of api.key_file"`
}

// LogConfig is how the node logs.
type LogConfig struct {
	Format string `yaml:"format" help:"json or text"`
	Level  string `yaml:"level" help:"debug, info, warn or error"`
	Output string `yaml:"output" help:"stderr, syslog or journald"`
}

// LimitsConfig bounds what clients may use. Where 0 means no limit, the help
// says so; every other limit is at least 1.
type LimitsConfig struct {
	MaxPacketSize              Size          `yaml:"max_packet_size" help:"largest packet from a client, 16MiB at most"`
	ReceiveMaximum             int           `yaml:"receive_maximum" help:"QoS 1 and 2 messages that a client may have unacknowledged towards the node"`
	MaxInflight                int           `yaml:"max_inflight" help:"QoS 1 and 2 messages that the node has unacknowledged towards one client"`
	TopicAliasMaximum          int           `yaml:"topic_alias_maximum" help:"topic aliases of one connection; 0: none"`
	ClientBuffer               Size          `yaml:"client_buffer" help:"messages held in memory for one slow client"`
	MaxSubscriptions           int           `yaml:"max_subscriptions" help:"subscriptions of one session"`
	MessageRate                int           `yaml:"message_rate" help:"messages a second that are read of one client, which waits when it sends more; 0: no limit"`
	ByteRate                   Size          `yaml:"byte_rate" help:"bytes of messages a second, likewise; 0: no limit"`
	TopicLevels                int           `yaml:"topic_levels" help:"levels of topics and filters; 0: no limit"`
	RetainedRate               int           `yaml:"retained_rate" help:"retained messages a second that are read for the subscriptions of one client; 0: no limit"`
	MaxConnections             int           `yaml:"max_connections" help:"clients of this node; 0: as many as memory allows"`
	Memory                     Size          `yaml:"memory" help:"memory of the process, near which new clients are refused; 0: three quarters of the machine's or the container's"`
	MaxKeepAlive               time.Duration `yaml:"max_keep_alive" help:"keep alive of clients that ask for a longer one or for none; 0: their choice"`
	PersistentClientExpiration time.Duration `yaml:"persistent_client_expiration" help:"longest life of a session without a connection; 0: as the client asks"`
	UnauthenticatedConnections int           `yaml:"unauthenticated_connections" help:"connections that have not authenticated yet, in all"`
	ConnectTimeout             time.Duration `yaml:"connect_timeout" help:"time from the connection to a complete CONNECT"`
	StallTimeout               time.Duration `yaml:"stall_timeout" help:"how long a client may leave its socket full"`
}

// AuthConfig is the cost of passwords, and what else proves who a client is.
type AuthConfig struct {
	RevealDenials bool      `yaml:"reveal_denials" help:"answer a subscription that is not allowed with 0x87 Not authorized instead of 0x80 Unspecified error"`
	Argon2Memory  Size      `yaml:"argon2_memory" help:"memory of one password hash"`
	Argon2Time    int       `yaml:"argon2_time" help:"passes of one password hash"`
	Workers       int       `yaml:"workers" help:"password checks at a time; 0: half the cores, at least one"`
	JWT           JWTConfig `yaml:"jwt"`
}

// JWTConfig is a second source of users: whoever sends a JSON web token of an issuer
// in the place of a password is the user that it names.
type JWTConfig struct {
	JWKSURL    string        `yaml:"jwks_url" help:"URL of the issuer's keys (JSON web key set), https or on this machine; empty: none"`
	JWKSFile   string        `yaml:"jwks_file" kind:"path" help:"file with the issuer's keys, in the place of jwks_url"`
	CAFile     string        `yaml:"ca_file" kind:"path" help:"PEM of the CAs of jwks_url's server (default: the system's)"`
	Refresh    time.Duration `yaml:"refresh" help:"how often the keys are read again; of an unknown key they are sooner"`
	Issuer     string        `yaml:"issuer" help:"what a token's iss must be"`
	Audience   string        `yaml:"audience" help:"what a token's aud must have"`
	Algorithms []string      `yaml:"algorithms" help:"signatures that count: RS256, ES256, EdDSA (default: all three)"`
	Leeway     time.Duration `yaml:"leeway" help:"by how much the issuer's clock may differ"`
	UserClaim  string        `yaml:"user_claim" help:"claim that is the user's name"`
	RulesClaim string        `yaml:"rules_claim" help:"claim with a list of rules, as mqcluster acl has them; empty: none"`
	RolesClaim string        `yaml:"roles_claim" help:"claim with a list of roles; empty: none"`
}

// AbuseConfig bounds what clients may do wrong. Behind a balancer it needs PROXY
// headers (proxy_from) to tell clients apart.
type AbuseConfig struct {
	AddressFailures int           `yaml:"address_failures" help:"logins from one address (IPv6: /64) that may fail within the window; then only users who have logged in there before are looked at; 0: any number"`
	UserFailures    int           `yaml:"user_failures" help:"logins of one user that may fail within the window; then it is let in only where it has logged in before; 0: any number"`
	Window          time.Duration `yaml:"window" help:"time within which all of that is forgotten"`
	ScanLimit       int           `yaml:"scan_limit" help:"failed handshakes, logins and broken packets within the window for which an address is banned from which nobody got in for an hour; 0: never"`
	FlapLimit       int           `yaml:"flap_limit" help:"connections of one client id within the window for which it is banned; 0: never"`
	BanTime         time.Duration `yaml:"ban_time" help:"how long such a ban lasts, on all nodes"`
}

// AuditConfig is where the audit goes beside the log of the cluster.
type AuditConfig struct {
	Syslog string `yaml:"syslog" help:"where this node sends what it was asked to change, in RFC 5424: local, unix:PATH, udp:HOST:PORT or tcp:HOST:PORT; empty: nowhere"`
}

// CAConfig is how a voter keeps the key of the cluster's CA.
type CAConfig struct {
	PassFile string `yaml:"pass_file" kind:"path" help:"file whose first line is the passphrase that seals the CA's key on this node's disk; empty: the systemd credential ca.passphrase where there is one, else the key is not encrypted and only its file's mode protects it"`
}

// RaftConfig is the timing of the log.
type RaftConfig struct {
	Heartbeat         time.Duration `yaml:"heartbeat" help:"silence of the leader after which a voter becomes a candidate"`
	Election          time.Duration `yaml:"election" help:"time a candidate waits for votes"`
	Commit            time.Duration `yaml:"commit" help:"longest time a quiet leader keeps a commit to itself"`
	Lease             time.Duration `yaml:"lease" help:"how long a node may serve on the leader's last word"`
	SnapshotInterval  time.Duration `yaml:"snapshot_interval" help:"how often it is looked at whether a snapshot is due"`
	SnapshotThreshold int           `yaml:"snapshot_threshold" help:"entries after which a snapshot is taken"`
	TrailingLogs      int           `yaml:"trailing_logs" help:"entries kept behind a snapshot for slow followers"`
}

// StorageConfig is how much of its volume the node leaves free.
type StorageConfig struct {
	Low     Size `yaml:"low" help:"free space below which the node does not lead, and durable publishes are refused where the cluster needs its disk; 0: 1GiB or 5% of the volume, whichever is more; half of the volume at most"`
	Reserve Size `yaml:"reserve" help:"free space below which the node stores no more and serves nobody; 0: 256MiB; a quarter of the volume at most"`
}

// DrainConfig is how a node lets go of its clients.
type DrainConfig struct {
	Delay         time.Duration `yaml:"delay" help:"time between /readyz turning red and the first client that is sent away, for balancers to notice; 0: none"`
	Timeout       time.Duration `yaml:"timeout" help:"time to send the clients away on shutdown"`
	IsolatedAfter time.Duration `yaml:"isolated_after" help:"time without a lease after which the clients are sent away"`
	Grace         time.Duration `yaml:"grace" help:"how long wills and sessions of drained clients wait at least"`
	Reference     string        `yaml:"reference" help:"server reference told to MQTT 5 clients that are sent away"`
}

// BackupConfig has this node make backups by itself.
type BackupConfig struct {
	Directory string        `yaml:"directory" kind:"path" help:"directory into which this node makes backups; empty: none"`
	Recipient string        `yaml:"recipient" help:"age recipient (age1...) for whom they are encrypted, as mqcluster backup keygen prints it"`
	Interval  time.Duration `yaml:"interval" help:"time between two backups"`
	Keep      int           `yaml:"keep" help:"backups of this node that are kept; older ones are removed after a new one is whole"`
}

// The kinds of Listener.
const (
	KindTLS = "tls"
	KindTCP = "tcp"
	KindWS  = "ws"
	KindWSS = "wss"
)

// Where a listener takes the user name from.
const (
	IdentityNone = "none" // the CONNECT packet
	IdentityCN   = "cn"   // the certificate's common name
	IdentitySAN  = "san"  // the certificate's first subject alternative name
)

// Listener is one port for clients.
type Listener struct {
	Name           string         `yaml:"name" help:"name in logs and metrics (default: kind-port)"`
	Kind           string         `yaml:"kind" help:"tls, tcp, ws or wss"`
	Address        string         `yaml:"address" help:"host:port"`
	AllowPlaintext bool           `yaml:"allow_plaintext" help:"needed for tcp and ws: passwords and messages can be read on the way"`
	TLS            ListenerTLS    `yaml:"tls"`
	Identity       string         `yaml:"identity" help:"user name from the client certificate: none, cn or san"`
	AllowAnonymous bool           `yaml:"allow_anonymous" help:"admit clients without a user name"`
	ProxyFrom      []netip.Prefix `yaml:"proxy_from" help:"sources that must send a PROXY protocol header, as CIDR"`
	MaxConnections int            `yaml:"max_connections" help:"0: no limit of its own"`
	ConnectRate    int            `yaml:"connect_rate" help:"new connections per second; 0: no limit"`
	Path           string         `yaml:"path" help:"path of ws and wss (default /mqtt)"`
	AllowedOrigins []string       `yaml:"allowed_origins" help:"origins of ws and wss besides the own host; * is any"`
}

// ListenerTLS is the TLS side of a tls or wss listener. Without CertFile the
// listener serves the node's own certificate, without ClientCAFile it trusts
// clients of the cluster CA.
type ListenerTLS struct {
	CertFile          string   `yaml:"cert_file" kind:"path" help:"PEM chain (default: the node's own certificate)"`
	KeyFile           string   `yaml:"key_file" kind:"path" help:"PEM key of cert_file"`
	KeyPassFile       string   `yaml:"key_pass_file" kind:"path" help:"file with the pass phrase of key_file"`
	ClientCAFile      string   `yaml:"client_ca_file" kind:"path" help:"PEM of the CAs of client certificates (default: the cluster CA)"`
	CRLFile           string   `yaml:"crl_file" kind:"path" help:"PEM of the CRLs of client_ca_file, one of each CA"`
	RequireClientCert bool     `yaml:"require_client_cert" help:"refuse clients without a certificate"`
	MinVersion        string   `yaml:"min_version" help:"1.2 or 1.3 (default 1.2)"`
	Ciphers           []string `yaml:"ciphers" help:"TLS 1.2 cipher suites by their IANA names (default: ECDHE with AES-GCM or ChaCha20-Poly1305)"`
}

// Secure tells whether the listener speaks TLS.
func (l *Listener) Secure() bool { return l.Kind == KindTLS || l.Kind == KindWSS }

// Web tells whether the listener speaks WebSocket.
func (l *Listener) Web() bool { return l.Kind == KindWS || l.Kind == KindWSS }

// Defaults returns the configuration of a node whose operator wrote nothing.
// node.id and admin.socket are empty: Load derives them.
func Defaults() Config {
	return Config{
		DataDir:   "/var/lib/mqcluster",
		Cluster:   ClusterConfig{Name: "mqcluster"},
		Mesh:      MeshConfig{Listen: "0.0.0.0:7883"},
		Listeners: []Listener{{Kind: KindTLS, Address: "0.0.0.0:8883"}},
		Health:    HealthConfig{Listen: "127.0.0.1:9883"},
		Log:       LogConfig{Format: "text", Level: "info", Output: "stderr"},
		Limits: LimitsConfig{
			MaxPacketSize:              1 * MiB,
			ReceiveMaximum:             1024,
			MaxInflight:                1024,
			TopicAliasMaximum:          64,
			ClientBuffer:               4 * MiB,
			MaxSubscriptions:           1000,
			RetainedRate:               10_000,
			UnauthenticatedConnections: 1000,
			ConnectTimeout:             10 * time.Second,
			StallTimeout:               30 * time.Second,
		},
		Auth: AuthConfig{
			Argon2Memory: 19 * MiB, Argon2Time: 2,
			JWT: JWTConfig{Refresh: 5 * time.Minute, Leeway: 30 * time.Second, UserClaim: "sub"},
		},
		Abuse: AbuseConfig{AddressFailures: 100, UserFailures: 20, Window: time.Minute, ScanLimit: 300, BanTime: 10 * time.Minute},
		Raft: RaftConfig{
			Heartbeat:         500 * time.Millisecond,
			Election:          500 * time.Millisecond,
			Commit:            time.Millisecond,
			Lease:             5 * time.Second,
			SnapshotInterval:  30 * time.Second,
			SnapshotThreshold: 100_000,
			TrailingLogs:      50_000,
		},
		Drain:  DrainConfig{Delay: 5 * time.Second, Timeout: 10 * time.Second, IsolatedAfter: 10 * time.Second, Grace: time.Minute},
		Backup: BackupConfig{Interval: 24 * time.Hour, Keep: 7},
	}
}
