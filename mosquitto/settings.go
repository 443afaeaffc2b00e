package mosquitto

import (
	"fmt"
	"strings"
)

const badBoolean = "it is neither true nor false: mosquitto refuses it, correct it"

func badNumber(least, most int) (Verdict, string) {
	return NotSupported, fmt.Sprintf("it is no number from %d to %d: mosquitto refuses it, correct it", least, most)
}

func (p *confParser) perListener(value string) (Verdict, string) {
	on, ok := boolean(value)
	if !ok {
		return NotSupported, badBoolean
	}
	p.cfg.PerListener = on
	if !on {
		return NotNeeded, "users and rights are those of the whole cluster"
	}
	return Taken, "allow_anonymous is each listener's own; users and rights are those of the whole cluster, and those of all listeners are put together"
}

func (p *confParser) allowAnonymous(value string) (Verdict, string) {
	on, ok := boolean(value)
	if !ok {
		return NotSupported, badBoolean
	}
	s := p.security()
	s.AllowAnonymous, s.anonymousSet = on, true
	return Taken, "allow_anonymous of the listeners"
}

func (p *confParser) passwordFile(value string) (Verdict, string) {
	p.security().PasswordFile = value
	return Taken, "its users are taken, see its own lines"
}

func (p *confParser) aclFile(value string) (Verdict, string) {
	p.security().ACLFile = value
	return Taken, "its rules are taken, see its own lines"
}

const noPSK = "there are no pre-shared keys: issue the devices certificates with mqcluster cert issue, or give them passwords over TLS"

func (p *confParser) pskFile(value string) (Verdict, string) {
	p.security().PSKFile = value
	return NotSupported, noPSK
}

func (p *confParser) pskHint(string) (Verdict, string) {
	p.current.PSK = true
	return NotSupported, noPSK
}

func (p *confParser) plugin(value string) (Verdict, string) {
	s := p.security()
	s.Plugins = append(s.Plugins, Plugin{Path: value, Options: map[string]string{}})
	if _, ok := s.Plugins[len(s.Plugins)-1].Dynsec(); ok {
		return Taken, "its clients, groups and roles are taken, see the lines of its file"
	}
	return NotSupported, "modules of mosquitto cannot be loaded: bring its users over with mqcluster user add and its rights with mqcluster acl set"
}

func (p *confParser) pluginOption(name, value string) (Verdict, string) {
	s := p.security()
	if len(s.Plugins) == 0 {
		return NotNeeded, "there is no plugin line before it: mosquitto refuses it"
	}
	last := s.Plugins[len(s.Plugins)-1]
	_, key, _ := strings.Cut(name, "_opt_")
	last.Options[key] = value
	if _, ok := last.Dynsec(); ok && key == "config_file" {
		return Taken, "the file is read, see its own lines"
	}
	return NotSupported, "it belongs to a module that cannot be loaded"
}

func (p *confParser) allowEmptyClientID(value string) (Verdict, string) {
	on, ok := boolean(value)
	switch {
	case !ok:
		return NotSupported, badBoolean
	case on:
		return NotNeeded, "clients may always connect without an id"
	}
	return NotSupported, "clients may connect without an id and get one: nothing to do unless that is to be refused"
}

func (p *confParser) usernameAsClientID(value string) (Verdict, string) {
	on, ok := boolean(value)
	switch {
	case !ok:
		return NotSupported, badBoolean
	case !on:
		return NotNeeded, "it is the default"
	}
	return NotSupported, "a client keeps the id that it sends, and a session belongs to its user, so that nobody else can take it over: let each client send its user name as its id"
}

func (p *confParser) persistence(value string) (Verdict, string) {
	on, ok := boolean(value)
	if !ok {
		return NotSupported, badBoolean
	}
	p.cfg.Persistence = on
	if !on {
		return NotNeeded, "sessions and messages are always kept"
	}
	return Taken, "retained messages, sessions and queues of its database are taken"
}

func (p *confParser) persistenceFile(value string) (Verdict, string) {
	p.database = value
	return Taken, "the database is read from there"
}

func (p *confParser) persistenceLocation(value string) (Verdict, string) {
	p.location = value
	return Taken, "the database is read from there"
}

func (p *confParser) retainAvailable(value string) (Verdict, string) {
	on, ok := boolean(value)
	switch {
	case !ok:
		return NotSupported, badBoolean
	case on:
		return NotNeeded, "it is the default"
	}
	return NotSupported, "retained messages cannot be switched off: nothing to do unless clients must not use them"
}

func (p *confParser) upgradeQoS(value string) (Verdict, string) {
	on, ok := boolean(value)
	switch {
	case !ok:
		return NotSupported, badBoolean
	case !on:
		return NotNeeded, "it is the default"
	}
	return NotSupported, "a message keeps the lower QoS of publisher and subscriber, as MQTT says: let publishers use the QoS that is wanted"
}

func (p *confParser) queueQoS0(value string) (Verdict, string) {
	on, ok := boolean(value)
	switch {
	case !ok:
		return NotSupported, badBoolean
	case !on:
		return NotNeeded, "it is the default"
	}
	p.cfg.Limits.QueueQoS0 = true
	return Taken, "mqcluster setting set queue.qos0 on"
}

func (p *confParser) maxInflight(value string) (Verdict, string) {
	n, ok := number(value, 0, 65535)
	if !ok {
		return badNumber(0, 65535)
	}
	p.cfg.Limits.MaxInflight = n
	if n == 0 {
		return Taken, "limits.max_inflight 65535, the most that MQTT knows"
	}
	return Taken, "limits.max_inflight"
}

func (p *confParser) maxInflightBytes(value string) (Verdict, string) {
	if value == "0" {
		return NotNeeded, "it is the default"
	}
	return NotSupported, "what is in flight is counted in messages: set limits.max_inflight"
}

func (p *confParser) maxKeepAlive(value string) (Verdict, string) {
	n, ok := number(value, 0, 65535)
	if !ok {
		return badNumber(10, 65535)
	}
	if n == 0 || n == 65535 {
		return NotNeeded, "it is no limit"
	}
	p.cfg.Limits.MaxKeepAlive = n
	return Taken, "limits.max_keep_alive"
}

// maxPacket is the largest packet that a node can be set to accept, in bytes.
const maxPacket = 16 << 20

func (p *confParser) maxPacketSize(value string) (Verdict, string) {
	n, ok := number(value, 20, 268435455+5)
	if !ok {
		return badNumber(20, 268435460)
	}
	return p.packetSize(n)
}

func (p *confParser) packetSize(n int) (Verdict, string) {
	if n > maxPacket {
		p.cfg.Limits.MaxPacketSize = maxPacket
		return NotSupported, "packets have 16 MiB at most, which limits.max_packet_size is set to: split larger ones"
	}
	p.cfg.Limits.MaxPacketSize = max(n, p.cfg.Limits.MaxPacketSize)
	return Taken, "limits.max_packet_size"
}

func (p *confParser) messageSizeLimit(value string) (Verdict, string) {
	n, ok := number(value, 0, 268435455)
	if !ok {
		return badNumber(0, 268435455)
	}
	if n == 0 {
		return p.packetSize(maxPacket)
	}
	// A topic and the properties come on top.
	v, why := p.packetSize(n + 64<<10)
	return v, why + ", with 64 KiB on top for topic and properties; a packet beyond it ends the connection"
}

func (p *confParser) maxQueuedBytes(value string) (Verdict, string) {
	n, ok := number(value, 0, 1<<50)
	if !ok {
		return badNumber(0, 1<<50)
	}
	p.cfg.Limits.MaxQueuedBytes = n
	if n == 0 {
		return NotNeeded, "it is no limit; the setting queue.max_bytes is one"
	}
	return Taken, "mqcluster setting set queue.max_bytes; the oldest messages go first, in mosquitto the newest"
}

func (p *confParser) maxQueuedMessages(value string) (Verdict, string) {
	n, ok := number(value, 0, 1<<40)
	if !ok {
		return badNumber(0, 1<<40)
	}
	p.cfg.Limits.MaxQueuedMessages = n
	if n == 0 {
		return NotNeeded, "it is no limit; the setting queue.max_messages is one"
	}
	return Taken, "mqcluster setting set queue.max_messages; the oldest messages go first, in mosquitto the newest"
}

func (p *confParser) persistentExpiration(value string) (Verdict, string) {
	n, ok := duration(value)
	if !ok {
		return NotSupported, "it is no number with h, d, w, m or y: mosquitto refuses it, correct it"
	}
	p.cfg.Limits.PersistentExpiration = n
	return Taken, "limits.persistent_client_expiration"
}

func (p *confParser) maxConnections(value string) (Verdict, string) {
	n, ok := number(value, -1, 1<<31-1)
	if !ok {
		return badNumber(-1, 1<<31-1)
	}
	if n <= 0 {
		return NotNeeded, "it is no limit"
	}
	p.current.MaxConnections = n
	return Taken, "max_connections of the listener, on each node"
}

func (p *confParser) maxQoS(value string) (Verdict, string) {
	if value == "2" {
		return NotNeeded, "it is the default"
	}
	return NotSupported, "every QoS is accepted on every listener: let the clients use the QoS that is wanted"
}

func (p *confParser) logDest(value string) (Verdict, string) {
	dest, _, _ := strings.Cut(value, " ")
	switch dest {
	case "syslog":
		p.cfg.Syslog = true
		return Taken, "log.output syslog"
	case "stdout", "stderr":
		return NotNeeded, "log.output stderr is the default"
	case "file":
		return NotSupported, "a node does not write log files: set log.output to journald or syslog, or redirect standard error"
	case "topic":
		return NotSupported, "the log is not published: read it with journalctl"
	case "none":
		return NotSupported, "the log cannot be switched off: set log.level error"
	case "dlt":
		return NotSupported, "there is no DLT: set log.output to journald or syslog"
	}
	return NotSupported, "it is no destination of mosquitto: correct it"
}

func (p *confParser) logType(value string) (Verdict, string) {
	switch value {
	case "all", "debug":
		p.cfg.Debug = true
		return Taken, "log.level debug"
	case "none":
		return NotSupported, "the log cannot be switched off: set log.level error"
	}
	return NotNeeded, "log.level info has errors, warnings and what an operator needs"
}
