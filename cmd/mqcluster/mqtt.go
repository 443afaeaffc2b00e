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
	"math"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/spf13/cobra"
)

// mqttFlags say how pub and sub reach a broker; the letters are Mosquitto's.
type mqttFlags struct {
	host, id, user     string
	passwordFile       string
	authMethod         string
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
	f.StringVar(&m.authMethod, "auth-method", "", "prove the password by "+methodScram+" in the place of sending it (setting auth.scram)")
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
	case m.authMethod != "" && m.authMethod != methodScram:
		return nil, usagef("authentication method %q is not known: write %s", m.authMethod, methodScram)
	case m.authMethod != "" && m.user == "":
		return nil, usagef("%s needs a user name: add -u NAME", methodScram)
	case m.passwordFile != "" && m.user == "":
		return nil, usagef("a password needs a user name: add -u NAME")
	case m.passwordFile != "":
		return given.readGiven(a)
	case m.user == "" || m.cert != "" && m.authMethod == "":
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
	if m.keepAlive < 0 || m.keepAlive > math.MaxUint16*time.Second || m.keepAlive%time.Second != 0 {
		return nil, usagef("--keepalive %s: write whole seconds, 0s to %ds", m.keepAlive, math.MaxUint16)
	}
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
	present bool // the session was there
	conn    *watchedConn
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
	c := &connection{conn: &watchedConn{Conn: raw, ended: make(chan struct{})}}
	config := paho.ClientConfig{
		ClientID: d.id, Conn: c.conn, Session: options.state, PacketTimeout: d.flags.timeout,
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
	packet := d.packet(options)
	var login *scramLogin
	if d.flags.authMethod != "" {
		if login, err = d.prove(packet); err != nil {
			_ = raw.Close()
			return nil, err
		}
		config.AuthHandler = login
	}
	c.Client = paho.NewClient(config)
	ack, err := c.Connect(ctx, packet)
	if err == nil && login != nil {
		err = login.judge(ack)
	}
	if err != nil {
		_ = raw.Close()
		if ack != nil && ack.ReasonCode >= 0x80 {
			reason := ""
			if ack.Properties != nil {
				reason = ack.Properties.ReasonString
			}
			return nil, reasonError("the broker refused the connection", ack.ReasonCode, reason)
		}
		if errors.Is(err, errImpostor) {
			return nil, err
		}
		return nil, d.explain(err)
	}
	c.present = ack.SessionPresent
	return c, nil
}

// prove takes the password out of a CONNECT and begins to prove it.
func (d *dialer) prove(packet *paho.Connect) (*scramLogin, error) {
	login, err := newScramLogin(d.flags.user, d.password)
	if err != nil {
		return nil, err
	}
	packet.Password, packet.PasswordFlag = nil, false
	packet.Properties.AuthMethod = methodScram
	packet.Properties.AuthData, err = login.first()
	return login, err
}

func (d *dialer) packet(options sessionOptions) *paho.Connect {
	expiry := uint32(min(options.expiry/time.Second, 1<<32-1))
	return &paho.Connect{
		ClientID: d.id, CleanStart: options.clean, KeepAlive: uint16(d.flags.keepAlive / time.Second),
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

// scanLines reads lines of up to 16 MiB.
func scanLines(a *App) *bufio.Scanner {
	scanner := bufio.NewScanner(a.In)
	scanner.Buffer(make([]byte, 64<<10), 16<<20)
	return scanner
}
