package mtls

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// uriScheme is the scheme of the URI SAN that says what a certificate of a
// cluster CA is for: mqcluster://<cluster>/<kind>/<name>.
const uriScheme = "mqcluster"

// The kinds of certificate that a cluster CA makes, its own included.
const (
	kindCA     = "ca"
	kindNode   = "node"
	kindClient = "client"
	kindServer = "server"
)

// entity is what the mqcluster URI of a certificate says. The zero entity means
// that there is none: the certificate was not made by a cluster CA of ours.
type entity struct {
	cluster, kind, name string
}

func (e entity) uri() *url.URL {
	u := &url.URL{Scheme: uriScheme, Host: e.cluster, Path: "/" + e.kind}
	if e.kind != kindCA {
		u.RawPath = u.Path + "/" + url.PathEscape(e.name)
		u.Path += "/" + e.name
	}
	return u
}

// parseEntity reads a URI of our scheme.
func parseEntity(u *url.URL) (entity, error) {
	bad := failf(ErrWrongKind, "the certificate's URI %q is not one that a cluster CA writes: issue the certificate with mqcluster cert issue", u)
	if u.Scheme != uriScheme || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return entity{}, bad
	}
	e := entity{cluster: u.Host}
	kind, rest, named := strings.Cut(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	e.kind = kind
	name, err := url.PathUnescape(rest)
	if err != nil || strings.Contains(rest, "/") {
		return entity{}, bad
	}
	e.name = name
	switch kind {
	case kindCA:
		if named {
			return entity{}, bad
		}
	case kindNode, kindClient, kindServer:
		if name == "" {
			return entity{}, bad
		}
	default:
		return entity{}, bad
	}
	if checkID("cluster id", e.cluster) != nil {
		return entity{}, bad
	}
	return e, nil
}

// entityOf returns what cert is for. A certificate with two URIs of our scheme,
// or one that cannot be read, is nobody's: guessing here would let one kind
// pass as another.
func entityOf(cert *x509.Certificate) (entity, error) {
	var found entity
	for _, u := range cert.URIs {
		if u.Scheme != uriScheme {
			continue
		}
		e, err := parseEntity(u)
		if err != nil {
			return entity{}, err
		}
		if found != (entity{}) {
			return entity{}, failf(ErrWrongKind, "the certificate names both %s and %s: issue one certificate for each", found.uri(), u)
		}
		found = e
	}
	return found, nil
}

// checkID refuses ids of clusters and nodes that could not stand in a URI, a
// file name and a log line unescaped.
func checkID(what, id string) error {
	ok := len(id) >= 1 && len(id) <= 63
	for i, r := range []byte(id) {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		inner := i > 0 && i < len(id)-1 && (r == '-' || r == '_' || r == '.' && id[i-1] != '.')
		ok = ok && (alnum || inner)
	}
	if !ok {
		return fmt.Errorf("%s %q is not usable: choose 1 to 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends", what, id)
	}
	return nil
}

// maxCommonName is what a certificate's common name may have, in characters
// (RFC 5280 appendix A).
const maxCommonName = 64

// checkUserName refuses names that an MQTT user name or a certificate's common
// name cannot hold.
func checkUserName(name string) error {
	switch {
	case name == "":
		return failf(ErrWrongName, "the certificate has an empty name: give it a user name")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return failf(ErrWrongName, "the name %q holds characters that a user name cannot have: use printable UTF-8", name)
	case utf8.RuneCountInString(name) > maxCommonName:
		return failf(ErrWrongName, "the name %.20q... is longer than the 64 characters that a certificate's name may have: choose a shorter one", name)
	}
	return nil
}

// ParseNames sorts host names and IP addresses, as an operator writes them, into
// the two lists that a certificate has for them, each name once.
func ParseNames(names []string) (dns []string, ips []net.IP, err error) {
	for _, n := range names {
		if ip := net.ParseIP(strings.Trim(n, "[]")); ip != nil {
			if !slices.ContainsFunc(ips, ip.Equal) {
				ips = append(ips, ip)
			}
			continue
		}
		n = strings.ToLower(strings.TrimSuffix(n, "."))
		if err := checkHostName(n); err != nil {
			return nil, nil, err
		}
		if !slices.Contains(dns, n) {
			dns = append(dns, n)
		}
	}
	return dns, ips, nil
}

// checkHostName accepts what clients compare a server's name with: labels of
// letters, digits, '-' and '_', the first one possibly "*".
func checkHostName(name string) error {
	bad := fmt.Errorf("%q is neither a host name nor an IP address: write it without scheme, port and spaces", name)
	if len(name) == 0 || len(name) > 253 {
		return bad
	}
	for i, label := range strings.Split(name, ".") {
		if label == "*" && i == 0 && strings.Contains(name, ".") {
			continue
		}
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return bad
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return bad
			}
		}
	}
	return nil
}

// CheckName tells whether a client that dials name, a host name or an IP
// address, will accept cert for it. The error lists the names it has.
func CheckName(cert *x509.Certificate, name string) error {
	if cert.VerifyHostname(name) == nil {
		return nil
	}
	have := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		have = append(have, ip.String())
	}
	if len(have) == 0 {
		return failf(ErrWrongName, "name %s is not in the certificate, which has no host names at all: issue one with subject alternative names", name)
	}
	return failf(ErrWrongName, "name %s is not among the certificate's names %s: connect by one of these, or issue a certificate that has it", name, strings.Join(have, ", "))
}
