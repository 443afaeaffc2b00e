package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	mtls "github.com/mqcluster/mqcluster/tls"
)

// examine goes to the listener as a client and says how far it came.
func (v *visitor) examine(ctx context.Context, password []byte) (all findings) {
	config, err := v.tlsConfig()
	if err != nil {
		all.fail("own files", err.Error(), "correct what is given with --cafile, --cert and --key")
		return all
	}
	ctx, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", v.mqttFlags.address())
	if err != nil {
		v.dialFailed(&all, err)
		return all
	}
	defer func() { _ = raw.Close() }()
	_ = raw.SetDeadline(time.Now().Add(v.timeout))
	all.ok("address", "%s answers at %s", v.host, raw.RemoteAddr())
	if config == nil {
		all.warn("tls", "the connection is not encrypted: passwords and messages can be read on the way", "use a listener with TLS")
		v.sayHello(&all, raw, password, nil)
		return all
	}
	h := v.shake(ctx, &all, raw, config)
	if h != nil && all.count(findingFailure) == 0 {
		v.sayHello(&all, h.conn, password, h)
	}
	return all
}

func (v *visitor) dialFailed(all *findings, err error) {
	d := dialer{flags: &v.mqttFlags}
	var lookup *net.DNSError
	switch {
	case errors.As(err, &lookup):
		all.fail("address", fmt.Sprintf("host %s is not known to this machine's resolver", v.host), "correct the name, or its entry in the DNS")
	case errors.Is(err, syscall.ECONNREFUSED):
		all.fail("address", "nothing listens on "+v.mqttFlags.address(), "check host and port, and that a node, or the balancer, runs there")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		all.fail("address", v.mqttFlags.address()+" does not answer", "a firewall drops packets on the way, or the machine is off")
	default:
		all.fail("address", d.explain(err).Error(), "check the network between here and there")
	}
}

// handshake is what came of one.
type handshake struct {
	conn  *tls.Conn
	asked *tls.CertificateRequestInfo // nil: no client certificate was asked for
	own   *x509.Certificate           // that we have, if any
}

// shake shakes hands and judges the server's certificate itself, so that every fault
// of it is found and not only the first. It returns nil where there is no
// connection.
func (v *visitor) shake(ctx context.Context, all *findings, raw net.Conn, config *tls.Config) *handshake {
	h := &handshake{}
	if len(config.Certificates) > 0 {
		h.own = config.Certificates[0].Leaf
	}
	lax := config.Clone()
	lax.InsecureSkipVerify = true //nolint:gosec // judge looks at the certificate, and no password is sent before it found no fault
	lax.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		h.asked = info
		if len(config.Certificates) > 0 {
			return &config.Certificates[0], nil
		}
		return new(tls.Certificate), nil
	}
	h.conn = tls.Client(raw, lax)
	if err := h.conn.HandshakeContext(ctx); err != nil {
		v.refused(all, "tls", err, h)
		return nil
	}
	state := h.conn.ConnectionState()
	all.ok("tls", "%s, %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite))
	v.judge(all, state.PeerCertificates, config)
	return h
}

// judge looks at the server's certificate: its time, its chain and its names.
func (v *visitor) judge(all *findings, certs []*x509.Certificate, config *tls.Config) {
	leaf, now := certs[0], time.Now()
	clock := fmt.Sprintf("this machine's clock says %s", stamp(now))
	switch {
	case now.After(leaf.NotAfter):
		all.fail("dates", fmt.Sprintf("the server's certificate expired on %s; %s", stamp(leaf.NotAfter), clock), "renew it on the server, or correct this machine's clock if that is wrong")
	case now.Before(leaf.NotBefore):
		all.fail("dates", fmt.Sprintf("the server's certificate is valid only from %s on; %s", stamp(leaf.NotBefore), clock), "correct this machine's clock, which is behind, or the one of whoever issued the certificate")
	default:
		all.ok("dates", "the server's certificate is valid until %s", stamp(leaf.NotAfter))
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	// Its time was judged already.
	options := x509.VerifyOptions{Roots: config.RootCAs, Intermediates: between, CurrentTime: leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)}
	if _, err := leaf.Verify(options); err != nil {
		all.fail("authority", fmt.Sprintf("the server's certificate is of %q, which is not trusted here (%v)", leaf.Issuer.CommonName, err),
			"give the CA that signed it with --cafile (for the cluster's own: mqcluster cert ca), and the server the intermediates, if it has such")
	} else {
		all.ok("authority", "it is of %q, which is trusted", leaf.Issuer.CommonName)
	}
	if err := mtls.CheckName(leaf, config.ServerName); err != nil {
		all.fail("name", err.Error(), "connect by a name that it has, or add this one: server_names of the nodes, or the certificate of the listener")
	} else {
		all.ok("name", "%s is in the certificate", config.ServerName)
	}
}

// refused says why the other side, or crypto/tls here, broke off.
func (v *visitor) refused(all *findings, check string, err error, h *handshake) {
	var plain tls.RecordHeaderError
	found := mtls.Describe(err)
	switch {
	case errors.As(err, &plain):
		all.fail(check, v.mqttFlags.address()+" does not speak TLS: "+found, "check the port; for a listener without TLS use --plaintext")
	case h != nil && h.asked != nil && h.own == nil && isAlert(err):
		all.fail("certificate", "the server demands a client certificate and none was given"+authorities(h.asked), "give one with --cert and --key (mqcluster cert issue makes one)")
	case h != nil && h.asked != nil && isAlert(err):
		all.fail("certificate", fmt.Sprintf("the server refused the client certificate of %q, serial %s, valid until %s: %s", h.own.Subject.CommonName, mtls.Serial(h.own), stamp(h.own.NotAfter), found),
			certificateRemedy(err, h))
	case strings.Contains(found, "version"):
		all.fail(check, found, "update the older side: nothing below TLS 1.2 is accepted, and a listener may demand 1.3")
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		all.fail(check, "the server closed the connection without a word",
			"it may be at its limit of connections, ban this address, wait for a PROXY header that a balancer sends (proxy_from), or the balancer has no node that is ready: its log and /readyz tell")
	default:
		all.fail(check, found, "the log of the node names the cause")
	}
}

func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// authorities names whose certificates the server takes.
func authorities(info *tls.CertificateRequestInfo) string {
	var names []string
	for _, raw := range info.AcceptableCAs {
		if name := authorityName(raw); name != "" {
			names = append(names, fmt.Sprintf("%q", name))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ", of " + strings.Join(names, " or ")
}

// authorityName is the common name of a distinguished name in DER.
func authorityName(raw []byte) string {
	var rdn pkix.RDNSequence
	if _, err := asn1.Unmarshal(raw, &rdn); err != nil {
		return ""
	}
	var name pkix.Name
	name.FillFromRDNSequence(&rdn)
	return name.CommonName
}

// certificateRemedy goes by whether our certificate is of a CA that the server named.
func certificateRemedy(err error, h *handshake) string {
	named := slices.ContainsFunc(h.asked.AcceptableCAs, func(raw []byte) bool { return bytes.Equal(raw, h.own.RawIssuer) })
	if len(h.asked.AcceptableCAs) > 0 && !named {
		return fmt.Sprintf("it was issued by %q, and the server takes certificates%s only: issue one of those", h.own.Issuer.CommonName, authorities(h.asked))
	}
	if now := time.Now(); now.After(h.own.NotAfter) || now.Before(h.own.NotBefore) {
		return "it is not valid now by this machine's clock: renew it"
	}
	if strings.Contains(err.Error(), "bad certificate") {
		return "it is probably revoked, or the server's CRL is out of date: mqcluster cert show SERIAL tells, and the log of the node"
	}
	return "the log of the node names the cause"
}

// sayHello sends CONNECT and reads the answer.
func (v *visitor) sayHello(all *findings, conn net.Conn, password []byte, h *handshake) {
	id := cmp.Or(v.id, "mqcluster-doctor-"+rand.Text()[:10])
	_, written := conn.Write(connectPacket(id, v.user, password))
	answer, err := readPacket(conn) // also after a failure: the alert that says why may wait there
	if err != nil && !isAlert(err) && written != nil {
		err = written
	}
	switch {
	case len(answer) > 0: // it answered, whatever came of the rest
	case err != nil && isAlert(err):
		v.refused(all, "certificate", err, h)
		return
	default:
		all.fail("connect", "the server closed the connection without an answer to CONNECT", "another protocol than MQTT is spoken there, or its log tells: check the port")
		return
	}
	if h != nil && h.asked != nil && h.own != nil {
		all.ok("certificate", "the client certificate of %q is accepted", h.own.Subject.CommonName)
	}
	if answer[0]>>4 != 2 || len(answer) < 4 {
		all.fail("connect", "the answer to CONNECT is not MQTT", "check the port")
		return
	}
	if answer[3] == 0 {
		all.ok("connect", "CONNECT as %s was accepted", cmp.Or(v.user, "nobody, or the certificate's name"))
		_, _ = conn.Write([]byte{0xE0, 2, 0, 0})
		return
	}
	err = reasonError("CONNECT was refused", answer[3], "")
	all.fail("connect", err.Error(), connectRemedy(answer[3], v.user))
}

// connectRemedy says what an operator does about a refusal.
func connectRemedy(code byte, user string) string {
	switch code {
	case 0x86:
		return fmt.Sprintf("mqcluster user list %s shows whether the user exists, mqcluster user passwd sets its password; the log of the node says which of the two it is", user)
	case 0x87:
		return "the listener may want a user name, or a certificate whose name is the user's (identity); a user that exists may lack rights: mqcluster acl explain"
	case 0x8A:
		return "the user is disabled, or the client is banned: mqcluster user list"
	case 0x88:
		return "the node has no lease now: mqcluster doctor there, or another node"
	case 0x01, 0x84:
		return "the broker speaks MQTT 3.1.1 only: it is not a node of a mqcluster"
	}
	return "the log of the node names the cause"
}

// connectPacket is an MQTT 5 CONNECT of a clean session that ends with the
// connection.
func connectPacket(id, user string, password []byte) []byte {
	flags := byte(0x02)
	if user != "" {
		flags |= 0x80
	}
	if password != nil {
		flags |= 0x40
	}
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 5, flags}, 0, 30, 0)
	field := func(text []byte) {
		body = binary.BigEndian.AppendUint16(body, uint16(len(text)))
		body = append(body, text...)
	}
	field([]byte(id))
	if user != "" {
		field([]byte(user))
	}
	if password != nil {
		field(password)
	}
	packet := []byte{0x10}
	for n := len(body); ; {
		b := byte(n % 128)
		if n /= 128; n > 0 {
			packet = append(packet, b|128)
			continue
		}
		return append(append(packet, b), body...)
	}
}

// readPacket reads one short packet; a longer one comes cut.
func readPacket(r io.Reader) ([]byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	size := int(head[1])
	if head[1]&128 != 0 {
		more := make([]byte, 1)
		if _, err := io.ReadFull(r, more); err != nil {
			return head, err
		}
		size = size&127 | int(more[0]&127)<<7
	}
	body := make([]byte, min(size, 16<<10))
	_, err := io.ReadFull(r, body)
	return append(head, body...), err
}
