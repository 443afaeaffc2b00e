package mtls

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
)

// revocations are the CRLs of an operator's CAs. A nil one revokes nothing.
type revocations struct {
	source string
	lists  []revocationList
}

type revocationList struct {
	issuer  *x509.Certificate
	next    time.Time // zero: the list does not say
	serials map[string]bool
}

// parseCRLs reads the CRLs in data, each of which one of the CAs must have
// signed.
func parseCRLs(source string, data []byte, cas []*x509.Certificate, now time.Time) (*revocations, error) {
	r := &revocations{source: source}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != pemCRL {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a CRL in %s cannot be read (%w): make one of version 2 with openssl ca -gencrl", source, err)
		}
		issuer := signer(list, cas)
		if issuer == nil {
			return nil, failf(ErrUntrusted, "a CRL in %s is of %q, which is not one of the client CAs: remove it or add the CA", source, list.Issuer.CommonName)
		}
		one := revocationList{issuer: issuer, next: list.NextUpdate, serials: make(map[string]bool, len(list.RevokedCertificateEntries))}
		for _, e := range list.RevokedCertificateEntries {
			one.serials[e.SerialNumber.Text(16)] = true
		}
		if err := one.current(source, now); err != nil {
			return nil, err
		}
		r.lists = append(r.lists, one)
	}
	if len(r.lists) == 0 {
		return nil, fmt.Errorf("file %s has no PEM CRL: name a file with a BEGIN X509 CRL line", source)
	}
	return r, nil
}

func signer(list *x509.RevocationList, cas []*x509.Certificate) *x509.Certificate {
	for _, ca := range cas {
		if bytes.Equal(ca.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(ca) == nil {
			return ca
		}
	}
	return nil
}

// current fails closed: behind an outdated list anything may have been revoked.
func (l *revocationList) current(source string, now time.Time) error {
	if !l.next.IsZero() && now.After(l.next) {
		return failf(ErrExpired, "the CRL of %q in %s is out of date since %s: fetch the newest one", l.issuer.Subject.CommonName, source, stamp(l.next))
	}
	return nil
}

// check passes a certificate if one of its verified chains holds nothing that
// was revoked, the root aside.
func (r *revocations) check(chains [][]*x509.Certificate, now time.Time) error {
	if r == nil {
		return nil
	}
	err := failf(ErrUntrusted, "the certificate has no chain to check for revocation")
	for _, chain := range chains {
		if err = r.checkChain(chain, now); err == nil {
			return nil
		}
	}
	return err
}

func (r *revocations) checkChain(chain []*x509.Certificate, now time.Time) error {
	for i, cert := range chain[:len(chain)-1] {
		found := false
		for _, l := range r.lists {
			if !bytes.Equal(l.issuer.RawSubject, chain[i+1].RawSubject) || !samePublic(l.issuer.PublicKey, chain[i+1].PublicKey) {
				continue
			}
			found = true
			if err := l.current(r.source, now); err != nil {
				return err
			}
			if l.serials[Serial(cert)] {
				return failf(ErrRevoked, "the certificate of %s (serial %s) was revoked by its CA: issue a new one", subjectOf(cert), Serial(cert))
			}
		}
		if !found {
			return failf(ErrRevoked, "there is no CRL of %q in %s, so the certificate of %s cannot be checked: add that CA's CRL", chain[i+1].Subject.CommonName, r.source, subjectOf(cert))
		}
	}
	return nil
}
