package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// verifyChain verifies what a peer presented, leaf first, up to roots, for one
// purpose and as of now.
func verifyChain(certs []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	chains, err := certs[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   time.Now(),
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return nil, explain(err)
	}
	return chains, nil
}

// subjectOf is what messages call a certificate.
func subjectOf(cert *x509.Certificate) string {
	if cert.Subject.CommonName != "" {
		return fmt.Sprintf("%q", cert.Subject.CommonName)
	}
	return "serial " + Serial(cert)
}

// explain turns an error of x509 into a sentence with a remedy; errors of this
// package and unknown ones come back as they are.
func explain(err error) error {
	var known *fault
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &invalid):
		return explainInvalid(invalid)
	case errors.As(err, &unknown):
		who, issuer := "the certificate", "an unknown one"
		if unknown.Cert != nil {
			who = "the certificate of " + subjectOf(unknown.Cert)
			issuer = fmt.Sprintf("%q", unknown.Cert.Issuer.CommonName)
		}
		return &fault{ErrUntrusted, err, fmt.Sprintf("%s is from unknown authority %s: issue one with a CA that is trusted here", who, issuer)}
	}
	return err
}

func explainInvalid(e x509.CertificateInvalidError) error {
	if e.Cert == nil {
		return e
	}
	who := "the certificate of " + subjectOf(e.Cert)
	switch e.Reason {
	case x509.Expired:
		if err := checkTime(e.Cert, subjectOf(e.Cert), time.Now()); err != nil {
			return err
		}
	case x509.IncompatibleUsage:
		return &fault{ErrWrongKind, e, who + " is not meant for this use: issue one with the right extended key usage (client or server authentication)"}
	case x509.NotAuthorizedToSign, x509.TooManyIntermediates:
		return &fault{ErrUntrusted, e, who + " was signed by something that is not a CA: issue one with the CA itself"}
	}
	return e
}

// Describe says for a log, in one sentence, why a TLS handshake failed or, under
// TLS 1.3, why the first read after it did. It never returns the empty string
// for an error.
func Describe(err error) string {
	var known *fault
	var plain tls.RecordHeaderError
	var op *net.OpError
	var bad *tls.CertificateVerificationError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &known):
		return known.text
	case errors.As(err, &plain):
		return describePlain(plain)
	case errors.As(err, &op) && op.Op == "remote error":
		return describeAlert(op.Err)
	case errors.As(err, &bad):
		return explain(bad.Err).Error()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "the other side did not finish the TLS handshake in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the other side closed the connection during the TLS handshake (a health check of a balancer does that)"
	}
	return describeText(explain(err).Error())
}

// describePlain tells what speaks without TLS on a TLS port.
func describePlain(e tls.RecordHeaderError) string {
	h := string(e.RecordHeader[:])
	switch {
	case h[0] == 0x10:
		return "plain text on a TLS port: the client speaks MQTT without TLS, switch TLS on in it"
	case strings.HasPrefix(h, "PROXY"), strings.HasPrefix(h, "\r\n\r\n\x00"):
		return "plain text on a TLS port: a PROXY protocol header came, allow the balancer's address as its source"
	case strings.HasPrefix(h, "GET "), strings.HasPrefix(h, "HEAD "), strings.HasPrefix(h, "POST "):
		return "plain text on a TLS port: the client speaks HTTP without TLS, use wss:// or https://"
	case strings.HasPrefix(h, "HTTP/"):
		return "the other side answers HTTP in plain text: its port is not a TLS port"
	}
	return "plain text on a TLS port: the other side does not speak TLS"
}

// describeAlert translates an alert of the other side. crypto/tls does not
// export the type for TCP, only its text.
func describeAlert(alert error) string {
	text := strings.TrimPrefix(alert.Error(), "tls: ")
	for _, a := range []struct{ alert, meaning string }{
		{"bad certificate", "the other side refused our certificate"},
		{"unsupported certificate", "the other side cannot use our kind of certificate"},
		{"revoked certificate", "the other side says that our certificate was revoked"},
		{"expired certificate", "the other side says that our certificate expired"},
		{"unknown certificate authority", "the other side does not trust our certificate's authority: give it the CA"},
		{"unknown certificate", "the other side refused our certificate"},
		{"certificate required", "the other side demands a certificate and we sent none"},
		{"protocol version not supported", "the other side has no TLS protocol version in common with us"},
		{"no application protocol", "the other side has no mesh protocol in common with us"},
		{"handshake failure", "the other side found no cipher or key type in common with us"},
		{"internal error", "the other side broke off the handshake: its log says why"},
	} {
		if text == a.alert {
			return a.meaning
		}
	}
	return "the other side broke off the TLS handshake: " + text
}

// describeText translates the errors of crypto/tls that have only a text. It is
// for people; no code decides by it.
func describeText(text string) string {
	for _, t := range []struct{ part, meaning string }{
		{"client didn't provide a certificate", "client sent no certificate, or has none of a CA that is trusted here"},
		{"offered only unsupported versions", "no TLS protocol version in common: the other side is too old, let it use TLS 1.2 or 1.3"},
		{"server selected unsupported protocol version", "no TLS protocol version in common with the server"},
		{"no cipher suite supported by both", "no cipher in common with the other side"},
		{"unsupported application protocols", "no application protocol in common with the other side"},
		{"invalid signature by the", "the other side does not hold the key of its certificate"},
	} {
		if strings.Contains(text, t.part) {
			return t.meaning
		}
	}
	return strings.TrimPrefix(text, "tls: ")
}
