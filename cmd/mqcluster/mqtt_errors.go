package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

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
		0x8C: "it does not know this authentication method: switch it on with mqcluster setting set auth.scram on",
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
