//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// park is a CA with everything that guides on a secured broker have openssl make:
// an RSA 4096 key under AES-256 with a passphrase, server certificates with
// subjectAltName, client certificates.
type park struct {
	t   *testing.T
	dir string
}

// openssl runs it in the directory.
func (p *park) openssl(args ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", args...)
	cmd.Dir = p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("openssl %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (p *park) path(name string) string { return filepath.Join(p.dir, name) }

func (p *park) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func newPark(t *testing.T, name string) *park {
	t.Helper()
	p := &park{t, t.TempDir()}
	p.write("ca.pass", "the passphrase of the CA\n")
	p.openssl("genrsa", "-aes256", "-passout", "file:ca.pass", "-out", "ca.key", "4096")
	p.openssl("req", "-new", "-x509", "-days", "30", "-sha256", "-key", "ca.key", "-passin", "file:ca.pass",
		"-subj", "/O=Park/CN="+name, "-out", "ca.crt")
	p.write("index.txt", "")
	p.write("serial", "1000\n")
	p.write("crlnumber", "01\n")
	p.write("ca.cnf", `[ca]
default_ca = park
[park]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
unique_subject = no
[any]
commonName = supplied
`)
	return p
}

// server makes a certificate for the names, and its key under a passphrase in
// NAME.pass.
func (p *park) server(name, alg, san string) {
	p.write(name+".pass", "the passphrase of "+name+"\n")
	p.write(name+".ext", "subjectAltName="+san+"\n")
	if alg == "rsa" {
		p.openssl("genrsa", "-aes256", "-passout", "file:"+name+".pass", "-out", name+".key", "2048")
	} else {
		p.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256", "-pass", "file:"+name+".pass", "-out", name+".key")
	}
	p.openssl("req", "-new", "-key", name+".key", "-passin", "file:"+name+".pass", "-subj", "/CN=broker", "-out", name+".csr")
	p.openssl("x509", "-req", "-in", name+".csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-passin", "file:ca.pass", "-CAcreateserial",
		"-days", "30", "-sha256", "-extfile", name+".ext", "-out", name+".crt")
}

// client makes a client's key and certificate; more is for openssl ca.
func (p *park) client(name, cn string, more ...string) {
	p.openssl("genrsa", "-out", name+".key", "2048")
	p.openssl("req", "-new", "-key", name+".key", "-subj", "/CN="+cn, "-out", name+".csr")
	p.openssl(append([]string{"ca", "-batch", "-notext", "-config", "ca.cnf", "-passin", "file:ca.pass", "-in", name + ".csr", "-out", name + ".crt"}, more...)...)
}

// revoke writes the CRL anew, with the certificates of the names.
func (p *park) revoke(names ...string) {
	for _, name := range names {
		p.openssl("ca", "-config", "ca.cnf", "-passin", "file:ca.pass", "-revoke", name+".crt")
	}
	p.openssl("ca", "-gencrl", "-config", "ca.cnf", "-passin", "file:ca.pass", "-out", "new.crl")
	if err := os.Rename(p.path("new.crl"), p.path("ca.crl")); err != nil {
		p.t.Fatal(err)
	}
}

// pair loads a client's certificate.
func (p *park) pair(name string) tls.Certificate {
	p.t.Helper()
	pair, err := tls.LoadX509KeyPair(p.path(name+".crt"), p.path(name+".key"))
	if err != nil {
		p.t.Fatal(err)
	}
	return pair
}

// roots trusts the CA.
func (p *park) roots() *x509.CertPool {
	p.t.Helper()
	text, err := os.ReadFile(p.path("ca.crt"))
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(text) {
		p.t.Fatalf("the CA's certificate: %v", err)
	}
	return pool
}

// listener is a listener of the park in the one-line form.
func (p *park) listener(server, address, more string) []string {
	return []string{"--listener", fmt.Sprintf("tls,address=%s,cert_file=%s,key_file=%s,key_pass_file=%s,client_ca_file=%s,crl_file=%s%s",
		address, p.path(server+".crt"), p.path(server+".key"), p.path(server+".pass"), p.path("ca.crt"), p.path("ca.crl"), more)}
}

// tls12 has openssl, and what is built on it, go no higher than TLS 1.2: mosquitto's
// --tls-version is a lower bound.
func tls12(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "openssl.cnf")
	text := "openssl_conf = d\n[d]\nssl_conf = s\n[s]\nsystem_default = x\n[x]\nMaxProtocol = TLSv1.2\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "OPENSSL_CONF=" + file
}

// runWith runs a program with more in its environment.
func runWith(t *testing.T, env, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// balancer puts HAProxy, which passes TCP on, before addresses of the nodes, and
// waits until a client with the configuration reaches one.
func balancer(t *testing.T, c *Cluster, balance string, config *tls.Config, of func(*Node) string) (front string) {
	t.Helper()
	return haproxy(t, c, "  balance "+balance+"\n", "", config, of)
}

// haproxy runs HAProxy before addresses of the nodes, with options of its section and
// of its servers, until the test ends, and waits until a client with the configuration
// reaches one.
func haproxy(t *testing.T, c *Cluster, section, server string, config *tls.Config, of func(*Node) string) (front string) {
	t.Helper()
	front = freeAddress(t)
	text := "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n" +
		"listen mqtt\n  bind " + front + "\n" + section + "  option httpchk GET /readyz\n" +
		"  default-server check inter 300ms fall 2 rise 1 " + server + " on-marked-down shutdown-sessions\n"
	for _, n := range c.Nodes {
		_, port, _ := net.SplitHostPort(n.Health)
		text += fmt.Sprintf("  server %s %s port %s addr 127.0.0.1\n", n.ID, of(n), port)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("haproxy", "-db", "-f", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said lockedBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("haproxy: %s", said.String())
		}
	})
	await(t, patience, func() bool {
		conn, err := tls.Dial("tcp", front, config)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, said.String)
	return front
}

// TestGuide does what guides on a secured Mosquitto teach: openssl makes the CA and
// all certificates, and Debian's clients work with TLS 1.2 against every node and
// through a balancer. Who must not get in is refused by the proper alert or code, and
// the node's log and doctor say why.
func TestGuide(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "haproxy")
	t.Parallel()
	p := newPark(t, "Park CA")
	foreign := newPark(t, "Foreign CA")
	p.server("rsa", "rsa", "IP:127.0.0.1,DNS:localhost")
	p.server("ec", "ec", "IP:127.0.0.1")
	p.server("other", "rsa", "DNS:broker.park.example")
	p.client("device", "device")
	p.client("revoked", "device")
	p.client("expired", "device", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z")
	foreign.client("device", "device")
	p.revoke("revoked")
	other, cluster := map[*Node]string{}, map[*Node]string{}
	c := newListening(t, 3, func(n *Node) []string {
		other[n], cluster[n] = freeAddress(t), freeAddress(t)
		flags := p.listener("rsa", n.TLS, ",require_client_cert=true,ciphers=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")
		flags = append(flags, p.listener("ec", n.Plain, ",require_client_cert=true,ciphers=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")...)
		flags = append(flags, p.listener("other", other[n], "")...)
		return append(flags, "--listener", "tls,require_client_cert=true,address="+cluster[n])
	})
	const secret = `pa$$w0rd $HOME $1`
	c.addUser("plc", secret)
	env := tls12(t)
	welcome := &tls.Config{RootCAs: p.roots(), Certificates: []tls.Certificate{p.pair("device")}}
	at := map[string]string{
		"rsa through the balancer": balancer(t, c, "roundrobin", welcome, func(n *Node) string { return n.TLS }),
		"ec through the balancer":  balancer(t, c, "roundrobin", welcome, func(n *Node) string { return n.Plain }),
	}
	for _, n := range c.Nodes {
		at["rsa at "+n.ID], at["ec at "+n.ID] = n.TLS, n.Plain
	}
	for name, address := range at {
		t.Run(name, func(t *testing.T) {
			suite := map[bool]string{true: "ECDHE-RSA-AES256-GCM-SHA384", false: "ECDHE-ECDSA-AES256-GCM-SHA384"}[strings.HasPrefix(name, "rsa")]
			out, _ := runWith(t, "LC_ALL=C", "openssl", "s_client", "-connect", address, "-tls1_2", "-CAfile", p.path("ca.crt"),
				"-cert", p.path("device.crt"), "-key", p.path("device.key"), "-verify_return_error")
			if !strings.Contains(out, suite) || !strings.Contains(out, "Verify return code: 0") {
				t.Errorf("openssl s_client: no %s:\n%s", suite, out)
			}
			host, port, _ := net.SplitHostPort(address)
			args := []string{"-h", host, "-p", port, "-t", "guide/" + strings.ReplaceAll(name, " ", "-"), "-q", "1", "--tls-version", "tlsv1.2",
				"--cafile", p.path("ca.crt"), "--cert", p.path("device.crt"), "--key", p.path("device.key"), "--ciphers", suite, "-u", "plc", "-P", secret}
			if out, err := runWith(t, env, "mosquitto_pub", append(args, "-r", "-m", "there and back")...); err != nil {
				t.Fatalf("mosquitto_pub: %v: %s", err, out)
			}
			if out, err := runWith(t, env, "mosquitto_sub", append(args, "-C", "1", "-W", "10")...); err != nil || !strings.Contains(out, "there and back") {
				t.Errorf("mosquitto_sub: %v: %s", err, out)
			}
		})
	}
	t.Run("refused", func(t *testing.T) { c.guideRefusals(t, p, foreign, secret, other, cluster) })
}

// refusal is somebody who must not get in.
type refusal struct {
	name       string
	address    string
	cert, key  string // files, "" for none
	ca         string // file that the client trusts
	user, pass string
	// alert is what the node tells the client in TLS 1.2 and 1.3; code is the
	// CONNACK's in MQTT 3.1.1 and 5.
	alert12, alert13 string
	code3, code5     byte
	log, doctor      string // what each has to say; log "" where the client refuses
}

func (c *Cluster) guideRefusals(t *testing.T, p, foreign *park, secret string, other, cluster map[*Node]string) {
	n := c.Nodes[1]
	certFile, keyFile, pair := c.certificate("plc")
	n.CLI("cert", "revoke", fmt.Sprintf("%x", pair.Leaf.SerialNumber))
	ca, clusterCA := p.path("ca.crt"), filepath.Join(filepath.Dir(certFile), "ca.pem")
	device, deviceKey := p.path("device.crt"), p.path("device.key")
	for _, tt := range []refusal{
		{"no certificate", n.TLS, "", "", ca, "plc", secret, "handshake failure", "certificate required", 0, 0, "client sent no certificate", "demands a client certificate"},
		{"a foreign CA", n.TLS, foreign.path("device.crt"), foreign.path("device.key"), ca, "plc", secret,
			"unknown certificate authority", "unknown certificate authority", 0, 0, `from unknown authority`, `issued by "Foreign CA", and the server takes certificates, of "Park CA" only`},
		{"expired", n.TLS, p.path("expired.crt"), p.path("expired.key"), ca, "plc", secret,
			"expired certificate", "expired certificate", 0, 0, "certificate expired since 2020-02-01", "expired on 2020-02-01"},
		{"revoked by CRL", n.TLS, p.path("revoked.crt"), p.path("revoked.key"), ca, "plc", secret,
			"bad certificate", "bad certificate", 0, 0, "was revoked by its CA", "probably revoked"},
		{"revoked by cert revoke", cluster[n], certFile, keyFile, clusterCA, "plc", secret,
			"bad certificate", "bad certificate", 0, 0, "was revoked: issue a new one", "probably revoked"},
		{"a server of another name", other[n], device, deviceKey, ca, "plc", secret, "", "", 0, 0, "", "name 127.0.0.1 is not among the certificate's names broker.park.example"},
		{"a server of another CA", cluster[n], device, deviceKey, ca, "plc", secret, "", "", 0, 0, "", "which is not trusted here"},
		{"wrong password", n.TLS, device, deviceKey, ca, "plc", "wrong", "", "", 4, 0x86, "the password is wrong", "user name or password is wrong"},
		{"unknown user", n.TLS, device, deviceKey, ca, "nobody", secret, "", "", 4, 0x86, "there is no such user", "user name or password is wrong"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.byCode(t)
			host, port, _ := net.SplitHostPort(tt.address)
			args := []string{"-h", host, "-p", port, "-t", "guide/refused", "-m", "x", "-q", "1", "--cafile", tt.ca, "-u", tt.user, "-P", tt.pass}
			if tt.cert != "" {
				args = append(args, "--cert", tt.cert, "--key", tt.key)
			}
			if out, err := runWith(t, tls12(t), "mosquitto_pub", args...); err == nil {
				t.Errorf("mosquitto_pub got in: %s", out)
			} else {
				t.Logf("mosquitto_pub: %s", strings.TrimSpace(out))
			}
			if tt.log != "" {
				await(t, patience, func() bool { return strings.Contains(n.Log(), tt.log) },
					func() string { return "the log does not say " + tt.log + ":\n" + n.tail(20) })
			}
			doctor := []string{"doctor", "--connect", tt.address, "--cafile", tt.ca, "-u", tt.user, "--password-file", "-"}
			if tt.cert != "" {
				doctor = append(doctor, "--cert", tt.cert, "--key", tt.key)
			}
			out, err := command(tt.pass+"\n", doctor...)
			if err == nil || !strings.Contains(out+err.Error(), tt.doctor) {
				t.Errorf("doctor does not say %q: %v\n%s", tt.doctor, err, out)
			}
		})
	}
	out, err := command(secret+"\n", "doctor", "--connect", n.TLS, "--cafile", ca, "--cert", device, "--key", deviceKey, "-u", "plc", "--password-file", "-")
	if err != nil || !strings.Contains(out, "CONNECT as plc was accepted") {
		t.Errorf("doctor of who may come in: %v\n%s", err, out)
	}
}

// byCode tries with a client of the test, which sees alerts and codes.
func (r refusal) byCode(t *testing.T) {
	t.Helper()
	pool := x509.NewCertPool()
	if text, err := os.ReadFile(r.ca); err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatalf("%s: %v", r.ca, err)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{RootCAs: pool, MinVersion: version, MaxVersion: version}
		if r.cert != "" {
			pair, err := tls.LoadX509KeyPair(r.cert, r.key)
			if err != nil {
				t.Fatal(err)
			}
			// Also what the server did not ask for.
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		alert := map[uint16]string{tls.VersionTLS12: r.alert12, tls.VersionTLS13: r.alert13}[version]
		for mqtt, code := range map[byte]byte{4: r.code3, 5: r.code5} {
			o := clean("refused")
			o.Version, o.Properties = mqtt, nil
			_, ack, err := login{r.address, config, r.user, r.pass}.connect(t, o)
			switch {
			case code != 0:
				if err != nil || ack.Reason != code {
					t.Errorf("%s, MQTT %d: %v %v, want CONNACK 0x%02x", tls.VersionName(version), mqtt, ack, err, code)
				}
			case err == nil:
				t.Errorf("%s, MQTT %d: got %v", tls.VersionName(version), mqtt, ack)
			case alert != "" && !strings.Contains(err.Error(), alert):
				t.Errorf("%s, MQTT %d: %v, want the alert %q", tls.VersionName(version), mqtt, err, alert)
			}
		}
	}
}
