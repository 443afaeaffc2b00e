package mosquitto

import (
	"fmt"
	"strings"
)

func (p *confParser) listener(value string) (Verdict, string) {
	port, host, _ := strings.Cut(value, " ")
	host = strings.TrimSpace(host)
	n, ok := number(port, 0, 65535)
	if !ok || n == 0 && host == "" {
		return NotSupported, "it has no port, or port 0 without the path of a socket: mosquitto refuses it, correct it"
	}
	l := &Listener{File: p.file, Line: p.line, Port: n, Host: host, MaxConnections: -1}
	p.opened = append(p.opened, l)
	p.current = l
	if n == 0 {
		l.Unix, l.Host = host, ""
		return NotSupported, "clients connect by TCP: let those of the same machine use 127.0.0.1"
	}
	return Taken, "a listener of the suggested mqcluster.yaml"
}

func (p *confParser) port(value string) (Verdict, string) {
	n, ok := number(value, 1, 65535)
	if !ok {
		return badNumber(1, 65535)
	}
	p.standard.Port, p.standard.Line, p.standard.File, p.wanted = n, p.line, p.file, true
	return Taken, "a listener of the suggested mqcluster.yaml"
}

func (p *confParser) bindAddress(value string) (Verdict, string) {
	p.standard.Host, p.wanted = value, true
	if p.standard.Line == 0 {
		p.standard.Line, p.standard.File = p.line, p.file
	}
	return Taken, "the address of a listener"
}

func (p *confParser) bindInterface(string) (Verdict, string) {
	return NotSupported, "a listener is bound to an address: write the interface's into address"
}

func (p *confParser) socketDomain(value string) (Verdict, string) {
	switch {
	case value != "ipv4" && value != "ipv6":
		return NotSupported, "it is neither ipv4 nor ipv6: mosquitto refuses it, correct it"
	case p.current.Host != "":
		return NotNeeded, "the listener's address says it"
	case value == "ipv4":
		p.current.Host = "0.0.0.0"
		return Taken, "the address 0.0.0.0 of the listener"
	}
	return NotSupported, "a listener on [::] takes IPv4 as well: write the machine's IPv6 address into address"
}

func (p *confParser) protocol(value string) (Verdict, string) {
	switch value {
	case "mqtt":
		return NotNeeded, "it is the default"
	case "websockets":
		p.current.WebSocket = true
		return Taken, "kind wss or ws of the listener; its path is /mqtt, where mosquitto takes any"
	}
	return NotSupported, "it is neither mqtt nor websockets: mosquitto refuses it, correct it"
}

func (p *confParser) caFile(value string) (Verdict, string) {
	p.current.CAFile = value
	return Taken, "tls.client_ca_file of the listener"
}

func (p *confParser) certFile(value string) (Verdict, string) {
	p.current.CertFile = value
	return Taken, "tls.cert_file of the listener; with a certificate of each node, or one for the name of the balancer"
}

func (p *confParser) keyFile(value string) (Verdict, string) {
	p.current.KeyFile = value
	return Taken, "tls.key_file of the listener"
}

func (p *confParser) crlFile(value string) (Verdict, string) {
	p.current.CRLFile = value
	return Taken, "tls.crl_file of the listener, with one CRL of each CA; it is read again when it changes"
}

func (p *confParser) tlsVersion(value string) (Verdict, string) {
	switch strings.ToLower(value) {
	case "tlsv1.3":
		p.current.MinTLS = "1.3"
	case "tlsv1.2":
		p.current.MinTLS = "1.2"
	case "tlsv1.1", "tlsv1":
		return NotSupported, "nothing below TLS 1.2 is accepted: update the devices that need it"
	default:
		return NotSupported, "it is no version of TLS: correct it"
	}
	return Taken, "tls.min_version of the listener"
}

func (p *confParser) requireCertificate(value string) (Verdict, string) {
	on, ok := boolean(value)
	if !ok {
		return NotSupported, badBoolean
	}
	p.current.RequireCert = on
	return Taken, "tls.require_client_cert of the listener"
}

func (p *confParser) identityAsUser(value string) (Verdict, string) {
	on, ok := boolean(value)
	if !ok {
		return NotSupported, badBoolean
	}
	p.current.IdentityAsUser = on
	if !on {
		return NotNeeded, "it is the default"
	}
	return Taken, "identity cn of the listener; each name needs a user, which mqcluster user add NAME --no-password makes where the files name none"
}

func (p *confParser) subjectAsUser(value string) (Verdict, string) {
	on, ok := boolean(value)
	switch {
	case !ok:
		return NotSupported, badBoolean
	case !on:
		return NotNeeded, "it is the default"
	}
	p.current.SubjectAsUser = true
	return NotSupported, "a user is not named by a whole subject: the listener is set to identity cn, name the users and rights by the common name"
}

func (p *confParser) engine(string) (Verdict, string) {
	return NotSupported, "keys are read from files: export the key, or end TLS in a proxy that has the module"
}

func (p *confParser) keyForm(value string) (Verdict, string) {
	if value == "pem" {
		return NotNeeded, "it is the default"
	}
	return p.engine(value)
}

// suites are the cipher suites of TLS 1.2 that are accepted, by openssl's name.
var suites = map[string]string{
	"ECDHE-ECDSA-AES128-GCM-SHA256": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
	"ECDHE-ECDSA-AES256-GCM-SHA384": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
	"ECDHE-RSA-AES128-GCM-SHA256":   "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
	"ECDHE-RSA-AES256-GCM-SHA384":   "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
	"ECDHE-ECDSA-CHACHA20-POLY1305": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
	"ECDHE-RSA-CHACHA20-POLY1305":   "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
}

func (p *confParser) ciphers(value string) (Verdict, string) {
	var unknown []string
	p.current.Ciphers = nil
	for _, name := range strings.FieldsFunc(value, func(r rune) bool { return r == ':' || r == ',' || r == ' ' }) {
		switch suite := suites[name]; {
		case suite != "":
			p.current.Ciphers = append(p.current.Ciphers, suite)
		case strings.HasPrefix(name, "!"), strings.HasPrefix(name, "-"), strings.HasPrefix(name, "TLS_"):
			// What it takes away is not to be had, and TLS 1.3 cannot be chosen.
		default:
			unknown = append(unknown, name)
		}
	}
	switch {
	case len(p.current.Ciphers) == 0:
		return NotSupported, "none of them is to be had by name: the listener accepts the six suites of ECDHE with AES-GCM or ChaCha20, write those that are wanted into tls.ciphers"
	case len(unknown) > 0:
		return Taken, fmt.Sprintf("tls.ciphers of the listener, without %.100s, which are weak or unknown", strings.Join(unknown, ":"))
	}
	return Taken, "tls.ciphers of the listener"
}

func (p *confParser) connection(value string) (Verdict, string) {
	p.cfg.Bridges = append(p.cfg.Bridges, Bridge{File: p.file, Line: p.line, Name: value})
	p.bridge = &p.cfg.Bridges[len(p.cfg.Bridges)-1]
	return NotSupported, "there are no bridges here: keep a small mosquitto with this bridge, and let its other side be this cluster"
}

func (p *confParser) bridgeAddress(value string) (Verdict, string) {
	if p.bridge == nil {
		return NotNeeded, "there is no connection line before it: mosquitto refuses it"
	}
	p.bridge.Addresses = append(p.bridge.Addresses, strings.Fields(value)...)
	return NotSupported, fmt.Sprintf("the other side of bridge %s", p.bridge.Name)
}

func (p *confParser) bridgeTopic(value string) (Verdict, string) {
	if p.bridge == nil {
		return NotNeeded, "there is no connection line before it: mosquitto refuses it"
	}
	p.bridge.Topics = append(p.bridge.Topics, value)
	pattern, rest, _ := strings.Cut(value, " ")
	direction, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if direction == "" {
		direction = "out"
	}
	return NotSupported, fmt.Sprintf("bridge %s carries %s %s: the bridge in a mosquitto of its own needs a user with rights to it", p.bridge.Name, pattern, direction)
}
