package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/spf13/cobra"
)

// mqttFlags say how pub and sub reach a broker; the letters are Mosquitto's.
type mqttFlags struct {
	host, id, user     string
	passwordFile       string
	caFile, cert, key  string
	serverName         string
	port               int
	plaintext          bool
	timeout, keepAlive time.Duration
}

func (m *mqttFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	// -h is the host, as in Mosquitto's tools, so the help has no letter.
	f.Bool("help", false, "help for "+cmd.Name())
	f.StringVarP(&m.host, "host", "h", "localhost", "host of the broker")
	f.IntVarP(&m.port, "port", "p", 0, "port of the broker (default 8883, with --plaintext 1883)")
	f.StringVarP(&m.id, "id", "i", "", "client id (default: a random one)")
	f.StringVarP(&m.user, "username", "u", "", "user name; without --password-file or --cert the password is asked for")
	f.StringVar(&m.passwordFile, "password-file", "", "file whose first line is the password; - is standard input")
	f.VarP(refusedPassword{}, "pw", "P", "")
	_ = f.MarkHidden("pw")
	f.StringVar(&m.caFile, "cafile", "", "PEM file of the CAs to trust (default: the system's)")
	f.StringVar(&m.cert, "cert", "", "PEM file of the client certificate")
	f.StringVar(&m.key, "key", "", "PEM file of its key")
	f.StringVar(&m.serverName, "servername", "", "name to expect in the broker's certificate (default: the host)")
	f.BoolVar(&m.plaintext, "plaintext", false, "connect without TLS: everything can be read on the way")
	f.DurationVar(&m.timeout, "timeout", 10*time.Second, "time to wait for the broker")
	f.DurationVarP(&m.keepAlive, "keepalive", "k", time.Minute, "keep alive")
	for _, name := range []string{"cafile", "cert", "key"} {
		_ = cmd.MarkFlagFilename(name, "pem", "crt", "key")
	}
}

// address is host:port with the default port.
func (m *mqttFlags) address() string {
	port := m.port
	if port == 0 {
		port = 8883
		if m.plaintext {
			port = 1883
		}
	}
	return net.JoinHostPort(m.host, strconv.Itoa(port))
}

// password returns what goes with the user name; nil is none.
func (m *mqttFlags) password(a *App) ([]byte, error) {
	given := passwordFlags{file: m.passwordFile}
	switch {
	case m.passwordFile != "" && m.user == "":
		return nil, usagef("a password needs a user name: add -u NAME")
	case m.passwordFile != "":
		return given.readGiven(a)
	case m.user == "" || m.cert != "":
		return nil, nil
	}
	return a.prompt("Password of " + m.user + ": ")
}

// tlsConfig loads the files; nil is plaintext.
func (m *mqttFlags) tlsConfig() (*tls.Config, error) {
	if m.plaintext {
		if m.cert != "" || m.caFile != "" {
			return nil, usagef("--plaintext excludes --cafile and --cert: drop one of them")
		}
		return nil, nil
	}
	if (m.cert == "") != (m.key == "") {
		return nil, usagef("--cert and --key belong together: give both")
	}
	config := &tls.Config{ServerName: cmp.Or(m.serverName, m.host), MinVersion: tls.VersionTLS12}
	if m.caFile != "" {
		text, err := os.ReadFile(m.caFile)
		if err != nil {
			return nil, fmt.Errorf("the CA file cannot be read: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("file %s holds no certificate: get the cluster's with mqcluster cert ca", m.caFile)
		}
	}
	if m.cert != "" {
		if info, err := os.Stat(m.key); err == nil && info.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("key file %s is readable by others (mode %04o): run chmod 600 %s", m.key, info.Mode().Perm(), m.key)
		}
		pair, err := tls.LoadX509KeyPair(m.cert, m.key)
		if err != nil {
			return nil, fmt.Errorf("the client certificate cannot be used: %w", err)
		}
		if pair.Leaf != nil && time.Now().After(pair.Leaf.NotAfter) {
			return nil, fmt.Errorf("certificate %s expired on %s: issue a new one with mqcluster cert issue", m.cert, stamp(pair.Leaf.NotAfter))
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// dialer opens MQTT connections that share what the flags said.
type dialer struct {
	flags    *mqttFlags
	tls      *tls.Config
	password []byte
	id       string
}

func (m *mqttFlags) dialer(a *App) (*dialer, error) {
	config, err := m.tlsConfig()
	if err != nil {
		return nil, err
	}
	password, err := m.password(a)
	if err != nil {
		return nil, err
	}
	return &dialer{flags: m, tls: config, password: password, id: cmp.Or(m.id, "mqcluster-"+rand.Text()[:12])}, nil
}

// connection is one MQTT connection and what is known of its end.
type connection struct {
	*paho.Client
	present bool        // the session was there
	acks    *ackCounter // of messages that the broker sent
	cause   atomic.Pointer[error]
}

// sessionOptions are what sub wants beyond a plain connection.
type sessionOptions struct {
	clean   bool
	expiry  time.Duration
	state   session.SessionManager // keeps packet ids over connections
	receive func(*paho.Publish)
}

// connect dials, shakes hands and sends CONNECT.
func (d *dialer) connect(ctx context.Context, options sessionOptions) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, d.flags.timeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.flags.address())
	if err != nil {
		return nil, d.explain(err)
	}
	if d.tls != nil {
		secured := tls.Client(raw, d.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, d.explain(err)
		}
		raw = secured
	}
	c := &connection{acks: &ackCounter{Conn: raw}}
	config := paho.ClientConfig{
		ClientID: d.id, Conn: packets.NewThreadSafeConn(c.acks), Session: options.state, PacketTimeout: d.flags.timeout,
		OnClientError: func(err error) { c.because(d.explain(err)) },
		OnServerDisconnect: func(p *paho.Disconnect) {
			reason := ""
			if p.Properties != nil {
				reason = p.Properties.ReasonString
			}
			c.because(reasonError("the broker ended the connection", p.ReasonCode, reason))
		},
	}
	if options.receive != nil {
		config.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			options.receive(p.Packet)
			return true, nil
		}}
	}
	c.Client = paho.NewClient(config)
	ack, err := c.Connect(ctx, d.packet(options))
	if err != nil {
		_ = raw.Close()
		if ack != nil && ack.ReasonCode >= 0x80 {
			reason := ""
			if ack.Properties != nil {
				reason = ack.Properties.ReasonString
			}
			return nil, reasonError("the broker refused the connection", ack.ReasonCode, reason)
		}
		return nil, d.explain(err)
	}
	c.present = ack.SessionPresent
	return c, nil
}

func (d *dialer) packet(options sessionOptions) *paho.Connect {
	expiry := uint32(min(options.expiry/time.Second, 1<<32-1))
	return &paho.Connect{
		ClientID: d.id, CleanStart: options.clean, KeepAlive: uint16(min(d.flags.keepAlive/time.Second, 65535)),
		Username: d.flags.user, UsernameFlag: d.flags.user != "", Password: d.password, PasswordFlag: d.password != nil,
		Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry},
	}
}

// because keeps the first reason of the end.
func (c *connection) because(err error) { c.cause.CompareAndSwap(nil, &err) }

// lost returns why the connection ended.
func (c *connection) lost() error {
	if err := c.cause.Load(); err != nil {
		return *err
	}
	return errors.New("the connection was lost: the broker or the way to it went down")
}

// disconnect says goodbye and waits for the end.
func (c *connection) disconnect() {
	_ = c.Disconnect(&paho.Disconnect{})
	<-c.Done()
}

// ackCounter counts the PUBACK and PUBREC packets that were written, so that sub
// does not say goodbye before the last message is acknowledged. The library
// writes each fixed header by a Write of its own.
type ackCounter struct {
	net.Conn
	written atomic.Int64
}

// Write passes p on.
func (c *ackCounter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if kind := p[0]; len(p) == 2 && (kind == 0x40 || kind == 0x50) {
		c.written.Add(1)
	}
	return n, err
}

// brokerError is a refusal by the broker.
type brokerError struct {
	code byte
	text string
}

// Error returns the sentence.
func (e *brokerError) Error() string { return e.text }

// final tells whether connecting again would be wrong: another connection took
// over, or the broker does not want this client.
func final(err error) bool {
	var refused *brokerError
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.code {
	case 0x86, 0x87, 0x8A, 0x8E, 0x98:
		return true
	}
	return false
}

// reasonError says what an MQTT 5 reason code means for the user.
func reasonError(what string, code byte, reason string) error {
	meaning, known := map[byte]string{
		0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error",
		0x84: "it does not speak MQTT 5",
		0x85: "the client id is not acceptable: choose another with -i",
		0x86: "user name or password is wrong: check -u and --password-file",
		0x87: "not authorized: check the user's ACL with mqcluster acl explain, and that the listener takes this kind of login",
		0x88: "it is not available now: try another node",
		0x89: "it is busy: try again later",
		0x8A: "this client is banned",
		0x8B: "it is shutting down: connect again, to another node",
		0x8D: "no packet came within the keep alive",
		0x8E: "another connection took over this client id: give each client its own with -i",
		0x8F: "the topic filter is not valid",
		0x90: "the topic is not valid",
		0x91: "the packet id is in use",
		0x93: "more messages were in flight than it allows",
		0x95: "the packet is larger than it allows: see limits.max_packet_size",
		0x96: "messages came too fast",
		0x97: "a quota is exceeded",
		0x98: "an operator ended it",
		0x99: "the payload is not of the format it claims",
		0x9A: "it keeps no retained messages",
		0x9B: "it does not support this QoS",
		0x9C: "use another server", 0x9D: "the server has moved",
		0x9E: "it has no shared subscriptions",
		0x9F: "connections come too fast: try again later",
		0xA0: "the connection lasted as long as it may",
		0xA1: "it has no subscription identifiers",
		0xA2: "it has no wildcard subscriptions",
	}[code]
	if !known {
		meaning = fmt.Sprintf("reason code 0x%02X", code)
	}
	if reason != "" {
		meaning += " (" + printable(reason) + ")"
	}
	return &brokerError{code, what + ": " + meaning}
}

// explain says what a failure of the network or of TLS means for the user.
func (d *dialer) explain(err error) error {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		alert     tls.AlertError
		record    tls.RecordHeaderError
		lookup    *net.DNSError
	)
	address := d.flags.address()
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("the certificate of %s is of an authority that is not trusted: give the cluster's with --cafile (mqcluster cert ca prints it)", address)
	case errors.As(err, &name):
		names := append([]string(nil), name.Certificate.DNSNames...)
		for _, ip := range name.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Errorf("name %s is not among the certificate's names (%s): connect by one of them, or add it to server_names of the nodes",
			d.tls.ServerName, strings.Join(names, ", "))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("the certificate of %s is not valid now (%s to %s): renew it, or check the clocks",
			address, stamp(invalid.Cert.NotBefore), stamp(invalid.Cert.NotAfter))
	case errors.As(err, &alert) || strings.Contains(err.Error(), "remote error: tls:"):
		return fmt.Errorf("%s refused the TLS connection (%w): check --cert and --key, which the listener may require", address, err)
	case errors.As(err, &record):
		return fmt.Errorf("%s does not speak TLS: check the port, or use --plaintext for a listener without", address)
	case errors.As(err, &lookup):
		return fmt.Errorf("host %s is not known: check -h", d.flags.host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens on %s: check -h and -p, and that the node runs", address)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s did not answer in time: check the network, or raise --timeout", address)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted: %w", err)
	}
	return fmt.Errorf("the connection to %s failed: %w", address, err)
}

// scanLines reads lines of up to 16 MiB.
func scanLines(a *App) *bufio.Scanner {
	scanner := bufio.NewScanner(a.In)
	scanner.Buffer(make([]byte, 64<<10), 16<<20)
	return scanner
}
