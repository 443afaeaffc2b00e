package node

import (
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/backup"
	"github.com/mqcluster/mqcluster/identity"
)

// Validate returns Problems with everything in c that cannot work, or nil. It
// touches no file; see CheckFiles.
func (c *Config) Validate() error {
	if p := c.problems(); len(p) > 0 {
		return p
	}
	return nil
}

// validator collects problems.
type validator struct{ problems Problems }

func (v *validator) check(ok bool, format string, args ...any) {
	if !ok {
		v.problems = append(v.problems, fmt.Sprintf(format, args...))
	}
}

// oneOf checks that value is among the allowed.
func (v *validator) oneOf(key, value string, allowed ...string) {
	v.check(slices.Contains(allowed, value), "%s is %q: write %s or %s", key, value,
		strings.Join(allowed[:len(allowed)-1], ", "), allowed[len(allowed)-1])
}

// between checks a number.
func (v *validator) between(key string, value, low, high int) {
	v.check(value >= low && value <= high, "%s is %d: write a number from %d to %d", key, value, low, high)
}

// atLeast checks a number that only has a lower bound.
func (v *validator) atLeast(key string, value, low int) {
	v.check(value >= low, "%s is %d: write at least %d", key, value, low)
}

// keepAlive checks what the protocol carries as 16 bits of seconds.
func (v *validator) keepAlive(key string, d time.Duration) {
	v.check(d >= 0 && d <= 65535*time.Second && d%time.Second == 0,
		"%s is %s: write whole seconds, at most 65535s", key, FormatDuration(d))
}

// seconds checks what the log and the protocol carry as 32 bits of seconds.
func (v *validator) seconds(key string, d time.Duration) {
	const most = math.MaxUint32 / 86400
	v.check(d >= 0 && d <= most*24*time.Hour && d%time.Second == 0,
		"%s is %s: write whole seconds, at most %dd", key, FormatDuration(d), most)
}

// address checks host:port. An empty host is every interface.
func (v *validator) address(key, value string) {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		v.check(false, "%s is %q: write host:port, such as 127.0.0.1:8883", key, value)
		return
	}
	_, err = strconv.ParseUint(port, 10, 16)
	v.check(err == nil, "%s is %q: the port must be a number from 0 to 65535", key, value)
}

func (c *Config) problems() Problems {
	v := &validator{}
	v.check(c.DataDir != "", "data_dir is empty: name the directory where the node keeps its data")
	v.check(nodeIDPattern().MatchString(c.Node.ID),
		"node.id is %q: write 1 to 63 lower-case letters, digits and dashes, beginning and ending with a letter or digit", c.Node.ID)
	v.check(len(c.Cluster.Name) <= 63, "cluster.name is longer than 63 bytes: shorten it")
	v.address("mesh.listen", c.Mesh.Listen)
	if c.Mesh.Advertise != "" {
		v.address("mesh.advertise", c.Mesh.Advertise)
		host, _, _ := net.SplitHostPort(c.Mesh.Advertise)
		ip, err := netip.ParseAddr(host)
		v.check(host != "" && (err != nil || !ip.IsUnspecified()),
			"mesh.advertise is %q, which no other node can dial: write this node's own address", c.Mesh.Advertise)
	}
	if c.Health.Listen != "" {
		v.address("health.listen", c.Health.Listen)
	}
	if c.API.Listen != "" {
		v.address("api.listen", c.API.Listen)
	}
	v.check((c.API.CertFile == "") == (c.API.KeyFile == ""), "api has only one of cert_file and key_file: give both or neither")
	v.check(c.API.KeyPassFile == "" || c.API.KeyFile != "", "api.key_pass_file is set without api.key_file: give both")
	v.check(c.API.CertFile == "" || c.API.Listen != "", "api.cert_file is set and api.listen is not: set the address, or remove the file")
	v.check(len(c.Admin.Socket) <= maxSocketPath,
		"admin.socket is longer than the %d bytes that a Unix socket may have (%s): set a shorter path", maxSocketPath, c.Admin.Socket)
	v.oneOf("log.format", c.Log.Format, "json", "text")
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.output", c.Log.Output, "stderr", "syslog", "journald")
	for _, name := range c.ServerNames {
		v.check(name != "" && !strings.ContainsAny(name, ":/ ") || isIP(name),
			"server_names has %q: write DNS names and IP addresses without ports", name)
	}
	c.checkListeners(v)
	c.checkLimits(v)
	c.checkTiming(v)
	return v.problems
}

// maxSocketPath is what sun_path of Linux holds, without its final zero byte.
const maxSocketPath = 107

// nodeIDPattern is what fits a DNS label: the id is a name in certificates.
func nodeIDPattern() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
}

func isIP(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

func (c *Config) checkListeners(v *validator) {
	v.check(len(c.Listeners) > 0, "listeners is empty: clients need at least one")
	names, addresses := map[string]bool{}, map[string]string{}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		key := fmt.Sprintf("listeners[%d]", i)
		v.check(!names[l.Name], "two listeners have the name %s: name them apart", l.Name)
		names[l.Name] = true
		if other, taken := addresses[l.Address]; taken && !strings.HasSuffix(l.Address, ":0") {
			v.check(false, "listeners %s and %s have the same address %s: give each its own port", other, l.Name, l.Address)
		}
		addresses[l.Address] = l.Name
		l.check(v, key)
	}
}

func (l *Listener) check(v *validator, key string) {
	v.oneOf(key+".kind", l.Kind, KindTLS, KindTCP, KindWS, KindWSS)
	v.address(key+".address", l.Address)
	v.oneOf(key+".identity", l.Identity, IdentityNone, IdentityCN, IdentitySAN)
	v.atLeast(key+".max_connections", l.MaxConnections, 0)
	v.atLeast(key+".connect_rate", l.ConnectRate, 0)
	if l.Web() {
		v.check(strings.HasPrefix(l.Path, "/"), "%s.path is %q: begin it with /", key, l.Path)
		for _, origin := range l.AllowedOrigins {
			u, err := url.Parse(origin)
			v.check(origin == "*" || err == nil && u.Scheme != "" && u.Host != "",
				"%s.allowed_origins has %q: write scheme and host, such as https://app.example.org, or *", key, origin)
		}
	} else if l.Kind == KindTLS || l.Kind == KindTCP {
		v.check(l.Path == "", "%s.path is set but %s has no path: remove it or use ws or wss", key, l.Kind)
		v.check(len(l.AllowedOrigins) == 0, "%s.allowed_origins is set but %s has no origins: remove it", key, l.Kind)
	}
	if l.Secure() {
		l.TLS.check(v, key+".tls")
		return
	}
	if l.Kind != KindTCP && l.Kind != KindWS {
		return // an unknown kind was told already
	}
	v.check(l.AllowPlaintext,
		"%s: %s sends passwords and messages in clear text: use tls or wss, or set allow_plaintext: true to do it all the same", key, l.Kind)
	v.check(l.TLS.isZero(), "%s.tls is set but %s has no TLS: use tls or wss, or remove it", key, l.Kind)
	v.check(l.Identity == IdentityNone, "%s.identity is %s but %s sees no certificate: use tls or wss", key, l.Identity, l.Kind)
}

func (t *ListenerTLS) isZero() bool {
	return t.CertFile == "" && t.KeyFile == "" && t.KeyPassFile == "" && t.ClientCAFile == "" && t.CRLFile == "" &&
		!t.RequireClientCert && t.MinVersion == "" && len(t.Ciphers) == 0
}

func (t *ListenerTLS) check(v *validator, key string) {
	v.check((t.CertFile == "") == (t.KeyFile == ""), "%s has only one of cert_file and key_file: give both or neither", key)
	v.check(t.KeyPassFile == "" || t.KeyFile != "", "%s.key_pass_file is set without key_file: give both", key)
	v.check(t.CRLFile == "" || t.ClientCAFile != "", "%s.crl_file is set without client_ca_file: give both; certificates of the cluster's CA are revoked with mqcluster cert revoke", key)
	v.oneOf(key+".min_version", t.MinVersion, "1.2", "1.3")
	v.check(len(t.Ciphers) == 0 || t.MinVersion != "1.3",
		"%s.ciphers is set but min_version is 1.3, whose cipher suites are fixed: remove one of them", key)
	var known []string
	for _, suite := range tls.CipherSuites() {
		if slices.Contains(suite.SupportedVersions, tls.VersionTLS12) {
			known = append(known, suite.Name)
		}
	}
	for _, cipher := range t.Ciphers {
		v.check(slices.Contains(known, cipher), "%s.ciphers has %q, which is no secure suite of TLS 1.2: choose among %s",
			key, cipher, strings.Join(known, " "))
	}
}

func (c *Config) checkLimits(v *validator) {
	l := &c.Limits
	v.check(l.MaxPacketSize >= 1*KiB && l.MaxPacketSize <= 16*MiB, "limits.max_packet_size is %s: write 1KiB to 16MiB", l.MaxPacketSize)
	v.between("limits.receive_maximum", l.ReceiveMaximum, 1, 65535)
	v.between("limits.max_inflight", l.MaxInflight, 1, 65535)
	v.between("limits.topic_alias_maximum", l.TopicAliasMaximum, 0, 65535)
	v.check(l.ClientBuffer >= l.MaxPacketSize, "limits.client_buffer is %s, less than limits.max_packet_size (%s): raise it", l.ClientBuffer, l.MaxPacketSize)
	v.atLeast("limits.max_subscriptions", l.MaxSubscriptions, 1)
	v.atLeast("limits.retained_rate", l.RetainedRate, 0)
	v.atLeast("limits.max_connections", l.MaxConnections, 0)
	v.check(l.Memory == 0 || l.Memory >= 32*MiB, "limits.memory is %s: write at least 32MiB, or 0 for a share of what there is", l.Memory)
	v.atLeast("limits.unauthenticated_connections", l.UnauthenticatedConnections, 1)
	v.keepAlive("limits.max_keep_alive", l.MaxKeepAlive)
	v.seconds("limits.persistent_client_expiration", l.PersistentClientExpiration)
	v.check(l.ConnectTimeout >= 100*time.Millisecond && l.ConnectTimeout <= 10*time.Minute,
		"limits.connect_timeout is %s: write 100ms to 10m", FormatDuration(l.ConnectTimeout))
	v.check(l.StallTimeout >= time.Second, "limits.stall_timeout is %s: write at least 1s", FormatDuration(l.StallTimeout))
	a := &c.Auth
	v.check(a.Argon2Memory >= auth.MinMemory*KiB && a.Argon2Memory <= auth.MaxMemory*KiB, "auth.argon2_memory is %s: write %s to %s", a.Argon2Memory, auth.MinMemory*KiB, auth.MaxMemory*KiB)
	v.between("auth.argon2_time", a.Argon2Time, 1, 100)
	v.between("auth.workers", a.Workers, 0, 1024)
	v.atLeast("limits.message_rate", l.MessageRate, 0)
	v.check(l.ByteRate >= 0 && l.ByteRate <= TiB, "limits.byte_rate is %s: write at most 1TiB, or 0 for no limit", l.ByteRate)
	v.between("limits.topic_levels", l.TopicLevels, 0, 65535)
	a.JWT.check(v)
	c.Abuse.check(v)
	if _, _, err := syslogAddress(c.Audit.Syslog); err != nil {
		v.check(false, "audit.syslog %s", err)
	}
}

func (j *JWTConfig) check(v *validator) {
	v.check(j.JWKSURL == "" || j.JWKSFile == "", "auth.jwt has jwks_url and jwks_file: keep one")
	if !j.on() {
		return
	}
	if j.JWKSURL != "" {
		err := identity.ValidKeysURL(j.JWKSURL)
		v.check(err == nil, "auth.jwt.jwks_url: %v", err)
	}
	v.check(j.CAFile == "" || j.JWKSURL != "", "auth.jwt.ca_file is set without jwks_url: remove it")
	v.check(j.Issuer != "", "auth.jwt.issuer is empty: write what the tokens' iss is, or anybody with such a key could name users")
	v.check(j.Audience != "", "auth.jwt.audience is empty: write what the tokens' aud has, or tokens for other services would be taken")
	v.check(j.Refresh >= time.Second && j.Refresh <= 24*time.Hour, "auth.jwt.refresh is %s: write 1s to 24h", FormatDuration(j.Refresh))
	v.check(j.Leeway >= 0 && j.Leeway <= 5*time.Minute, "auth.jwt.leeway is %s: write at most 5m", FormatDuration(j.Leeway))
	v.check(j.UserClaim != "", "auth.jwt.user_claim is empty: write the claim that names the user, such as sub")
	for _, alg := range j.Algorithms {
		v.oneOf("auth.jwt.algorithms", alg, identity.Algorithms()...)
	}
}

func (a *AbuseConfig) check(v *validator) {
	v.atLeast("abuse.address_failures", a.AddressFailures, 0)
	v.atLeast("abuse.user_failures", a.UserFailures, 0)
	v.atLeast("abuse.scan_limit", a.ScanLimit, 0)
	v.atLeast("abuse.flap_limit", a.FlapLimit, 0)
	v.check(a.Window >= time.Second && a.Window <= 24*time.Hour, "abuse.window is %s: write 1s to 24h", FormatDuration(a.Window))
	v.check(a.BanTime >= time.Second, "abuse.ban_time is %s: write at least 1s", FormatDuration(a.BanTime))
}

func (c *Config) checkTiming(v *validator) {
	r := &c.Raft
	v.check(r.Heartbeat >= 50*time.Millisecond, "raft.heartbeat is %s: write at least 50ms", FormatDuration(r.Heartbeat))
	v.check(r.Election >= r.Heartbeat, "raft.election is %s, less than raft.heartbeat (%s): raise it", FormatDuration(r.Election), FormatDuration(r.Heartbeat))
	v.check(r.Commit >= time.Millisecond && r.Commit < r.Heartbeat, "raft.commit is %s: write at least 1ms and less than raft.heartbeat (%s)",
		FormatDuration(r.Commit), FormatDuration(r.Heartbeat))
	v.check(r.Lease >= 2*r.Heartbeat, "raft.lease is %s: write at least twice raft.heartbeat (%s)", FormatDuration(r.Lease), FormatDuration(r.Heartbeat))
	v.check(r.SnapshotInterval >= 100*time.Millisecond, "raft.snapshot_interval is %s: write at least 100ms", FormatDuration(r.SnapshotInterval))
	v.atLeast("raft.snapshot_threshold", r.SnapshotThreshold, 64)
	v.atLeast("raft.trailing_logs", r.TrailingLogs, 0)
	s := c.Storage
	v.check(s.Low >= 0, "storage.low is %s: write a size, or 0 for the default", s.Low)
	v.check(s.Reserve >= 0, "storage.reserve is %s: write a size, or 0 for the default", s.Reserve)
	v.check(s.Low == 0 || s.Low >= s.Reserve, "storage.low is %s: write at least storage.reserve (%s)", s.Low, s.Reserve)
	v.check(c.Drain.Delay >= 0 && c.Drain.Delay <= 10*time.Minute, "drain.delay is %s: write 0 to 10m", FormatDuration(c.Drain.Delay))
	v.check(c.Drain.IsolatedAfter > 0, "drain.isolated_after is 0: write how long clients may wait on a node without quorum")
	v.seconds("drain.grace", c.Drain.Grace)
	c.checkBackup(v)
}

func (c *Config) checkBackup(v *validator) {
	b := &c.Backup
	v.check(b.Interval >= time.Minute, "backup.interval is %s: write at least 1m", FormatDuration(b.Interval))
	v.atLeast("backup.keep", b.Keep, 1)
	v.check(b.Directory == "" || b.Recipient != "", "backup.directory is set and backup.recipient is not: write for whom backups are encrypted, mqcluster backup keygen makes a key")
	if b.Recipient != "" {
		_, err := backup.Recipient(b.Recipient)
		v.check(err == nil, "backup.recipient %s", err)
	}
}

// warnings tells what works but should be known.
func (c *Config) warnings() []string {
	var warnings []string
	for _, l := range c.Listeners {
		if !l.Secure() {
			warnings = append(warnings, fmt.Sprintf("listener %s on %s is not encrypted: passwords and messages can be read on the way", l.Name, l.Address))
		}
		if l.AllowAnonymous {
			warnings = append(warnings, fmt.Sprintf("listener %s on %s admits clients without a user name", l.Name, l.Address))
		}
	}
	host, _, err := net.SplitHostPort(c.Health.Listen)
	ip, notIP := netip.ParseAddr(host)
	if err == nil && host != "localhost" && (notIP != nil || !ip.IsLoopback()) {
		warnings = append(warnings, fmt.Sprintf("health.listen %s is reachable from other machines: metrics have no password", c.Health.Listen))
	}
	return warnings
}
