package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// fragment is the part of mqcluster.yaml that says what the mosquitto.conf said.
func (p *importPlan) fragment() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("listeners:")
	for i := range p.cfg.Listeners {
		l := &p.cfg.Listeners[i]
		if l.Unix != "" {
			continue
		}
		secure := l.CertFile != ""
		kind := map[bool]string{true: "tls", false: "tcp"}[secure]
		if l.WebSocket {
			kind = map[bool]string{true: "wss", false: "ws"}[secure]
		}
		host := l.Host
		if host == "" {
			host = map[bool]string{true: "127.0.0.1", false: "0.0.0.0"}[l.Local]
		}
		line("  - kind: %s", kind)
		line("    address: %s", strconv.Quote(net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(l.Port))))
		if !secure {
			line("    allow_plaintext: true # passwords and messages can be read on the way: better tls")
		}
		if l.Security.AllowAnonymous {
			line("    allow_anonymous: true")
		}
		if l.IdentityAsUser || l.SubjectAsUser {
			line("    identity: cn")
		}
		if l.MaxConnections > 0 {
			line("    max_connections: %d", l.MaxConnections)
		}
		if !secure {
			continue
		}
		line("    tls:")
		line("      cert_file: %s", strconv.Quote(l.CertFile))
		line("      key_file: %s", strconv.Quote(l.KeyFile))
		if l.CAFile != "" {
			line("      client_ca_file: %s", strconv.Quote(l.CAFile))
		}
		if l.CAFile != "" && l.CRLFile != "" {
			line("      crl_file: %s", strconv.Quote(l.CRLFile))
		}
		if l.RequireCert {
			line("      require_client_cert: true")
		}
		if l.MinTLS != "" {
			line("      min_version: %s", strconv.Quote(l.MinTLS))
		}
		if len(l.Ciphers) > 0 && l.MinTLS != "1.3" { // whose suites are fixed
			line("      ciphers: [%s]", strings.Join(l.Ciphers, ", "))
		}
	}
	limits := p.cfg.Limits
	var lines []string
	add := func(set bool, format string, n int) {
		if set {
			lines = append(lines, fmt.Sprintf("  "+format, n))
		}
	}
	add(limits.MaxInflight > 0, "max_inflight: %d", limits.MaxInflight)
	add(limits.MaxInflight == 0, "max_inflight: %d", 65535)
	add(limits.MaxKeepAlive > 0, "max_keep_alive: %ds", limits.MaxKeepAlive)
	add(limits.MaxPacketSize > 0, "max_packet_size: %d", limits.MaxPacketSize)
	add(limits.PersistentExpiration > 0, "persistent_client_expiration: %dh", limits.PersistentExpiration/3600)
	if len(lines) > 0 {
		line("limits:\n%s", strings.Join(lines, "\n"))
	}
	if p.cfg.Syslog || p.cfg.Debug {
		line("log:")
		if p.cfg.Syslog {
			line("  output: syslog")
		}
		if p.cfg.Debug {
			line("  level: debug")
		}
	}
	return b.String()
}

// settings are the commands that set what the whole cluster keeps.
func (p *importPlan) settings() (out []string) {
	limits := p.cfg.Limits
	if limits.MaxQueuedMessages > 0 {
		out = append(out, fmt.Sprintf("mqcluster setting set queue.max_messages %d", limits.MaxQueuedMessages))
	}
	if limits.MaxQueuedBytes > 0 {
		out = append(out, fmt.Sprintf("mqcluster setting set queue.max_bytes %d", limits.MaxQueuedBytes))
	}
	if limits.QueueQoS0 {
		out = append(out, "mqcluster setting set queue.qos0 on")
	}
	return out
}
