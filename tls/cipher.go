package mtls

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// parseVersion reads a minimum TLS version; empty is 1.2.
func parseVersion(s string) (uint16, error) {
	switch s {
	case "", "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("TLS version %s cannot be the minimum: use 1.2 or 1.3", s)
}

// strongCiphers are the suites of TLS 1.2 with forward secrecy and authenticated
// encryption. Go would also take CBC with SHA-1; who has devices that know nothing
// better names it.
func strongCiphers() (ids []uint16) {
	for _, s := range tls.CipherSuites() {
		aead := strings.Contains(s.Name, "_GCM_") || strings.Contains(s.Name, "CHACHA20")
		if aead && strings.Contains(s.Name, "ECDHE") && slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// parseCiphers reads IANA names of TLS 1.2 cipher suites. The suites of TLS 1.3
// cannot be chosen and insecure ones are not to be had.
func parseCiphers(names []string) ([]uint16, error) {
	var good []*tls.CipherSuite
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
			good = append(good, s)
		}
	}
	var ids []uint16
	for _, name := range names {
		i := slices.IndexFunc(good, func(s *tls.CipherSuite) bool { return s.Name == name })
		if i < 0 {
			return nil, cipherError(name, good)
		}
		ids = append(ids, good[i].ID)
	}
	return ids, nil
}

func cipherError(name string, good []*tls.CipherSuite) error {
	named := func(s *tls.CipherSuite) bool { return s.Name == name }
	nearest := slices.MinFunc(good, func(a, b *tls.CipherSuite) int {
		return distance(cipherKey(name), cipherKey(a.Name)) - distance(cipherKey(name), cipherKey(b.Name))
	}).Name
	switch {
	case slices.ContainsFunc(tls.CipherSuites(), named):
		return fmt.Errorf("cipher %s is of TLS 1.3, whose ciphers are always on: leave it out", name)
	case slices.ContainsFunc(tls.InsecureCipherSuites(), named):
		return fmt.Errorf("cipher %s is insecure: use %s", name, nearest)
	}
	return fmt.Errorf("unknown cipher %s, nearest is %s: write IANA names", name, nearest)
}

// cipherKey is what an IANA name and openssl's name of one suite have in common.
func cipherKey(name string) string {
	name = strings.ToUpper(name)
	for _, noise := range []string{"TLS_", "_WITH_", "-", "_"} {
		name = strings.ReplaceAll(name, noise, "")
	}
	return name
}

// distance is the Levenshtein distance of two ASCII strings.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
