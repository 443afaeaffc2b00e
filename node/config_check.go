package node

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"
)

// CheckFiles returns Problems with every file of the listeners and the API that cannot be
// used at the time now, or nil: missing, unreadable, expired, not matching, a
// key that others may read.
func (c *Config) CheckFiles(now time.Time) error {
	var problems Problems
	for i := range c.Listeners {
		l := &c.Listeners[i]
		for _, err := range l.TLS.checkFiles(now) {
			problems = append(problems, fmt.Sprintf("listener %s: %v", l.Name, err))
		}
	}
	api := ListenerTLS{CertFile: c.API.CertFile, KeyFile: c.API.KeyFile, KeyPassFile: c.API.KeyPassFile}
	for _, err := range api.checkFiles(now) {
		problems = append(problems, fmt.Sprintf("api: %v", err))
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

func (t *ListenerTLS) checkFiles(now time.Time) []error {
	var errs []error
	if t.ClientCAFile != "" {
		if text, err := readPEM(t.ClientCAFile); err != nil {
			errs = append(errs, err)
		} else if !x509.NewCertPool().AppendCertsFromPEM(text) {
			errs = append(errs, fmt.Errorf("client_ca_file %s holds no certificate: give a PEM file of CAs", t.ClientCAFile))
		}
	}
	if t.CRLFile != "" {
		if _, err := readPEM(t.CRLFile); err != nil {
			errs = append(errs, err)
		}
	}
	if t.KeyPassFile != "" {
		if err := checkSecret(t.KeyPassFile); err != nil {
			errs = append(errs, err)
		}
	}
	if t.CertFile == "" || t.KeyFile == "" {
		return errs
	}
	chain, certErr := readPEM(t.CertFile)
	key, keyErr := readPEM(t.KeyFile)
	if err := errors.Join(certErr, keyErr); err != nil {
		for _, one := range []error{certErr, keyErr} {
			if one != nil {
				errs = append(errs, one)
			}
		}
		return errs
	}
	if err := checkSecret(t.KeyFile); err != nil {
		errs = append(errs, err)
	}
	leaf, err := parseLeaf(t.CertFile, chain)
	if err != nil {
		return append(errs, err)
	}
	if now.After(leaf.NotAfter) {
		errs = append(errs, fmt.Errorf("certificate %s expired on %s: renew it", t.CertFile, leaf.NotAfter.UTC().Format(time.DateTime)))
	}
	if now.Before(leaf.NotBefore) {
		errs = append(errs, fmt.Errorf("certificate %s is valid only from %s on: check this machine's clock", t.CertFile, leaf.NotBefore.UTC().Format(time.DateTime)))
	}
	if t.KeyPassFile != "" {
		return errs // whether a sealed key matches shows when it is opened
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		errs = append(errs, fmt.Errorf("key_file %s does not fit cert_file %s (%w): give the key that the certificate was made for", t.KeyFile, t.CertFile, err))
	}
	return errs
}

func readPEM(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("file %s does not exist: correct the path", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("file %s is not readable by this user: change its owner or mode", path)
	case err != nil:
		return nil, fmt.Errorf("file %s cannot be read: %w", path, err)
	}
	return text, nil
}

func parseLeaf(path string, text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("cert_file %s does not begin with a certificate: give the PEM chain, the server's own certificate first", path)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cert_file %s is damaged: %w", path, err)
	}
	return leaf, nil
}

// checkSecret refuses a file that its group or others may read.
func checkSecret(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("file %s cannot be read: %w", path, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("file %s is readable by others (mode %04o): run chmod 600 %s", path, mode, path)
	}
	return nil
}

// CheckMesh tells whether other nodes can be told how to reach this one.
func (c *Config) CheckMesh() error {
	if c.Mesh.Advertise == "" {
		return fmt.Errorf("the address by which other nodes reach this one does not follow from mesh.listen %s: set mesh.advertise to this machine's address and the mesh port", c.Mesh.Listen)
	}
	return nil
}

// AdvertiseAddress returns the address by which other nodes reach the mesh port
// that listens at bound: mesh.advertise, or the host of bound, or, where that is
// every interface, the address of the default route. It sends nothing.
func (c *Config) AdvertiseAddress(bound net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil {
		return "", fmt.Errorf("mesh address %s is not host:port: %w", bound, err)
	}
	if c.Mesh.Advertise != "" {
		wantHost, wantPort, err := net.SplitHostPort(c.Mesh.Advertise)
		if err != nil {
			return "", fmt.Errorf("mesh.advertise %s is not host:port: %w", c.Mesh.Advertise, err)
		}
		if wantPort == "0" {
			wantPort = port
		}
		return net.JoinHostPort(wantHost, wantPort), nil
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return net.JoinHostPort(host, port), nil
	}
	// A UDP socket chooses its source address by the routes without a packet; the
	// target is reserved for documentation (RFC 5737).
	conn, err := net.Dial("udp4", "192.0.2.1:9")
	if err != nil {
		return "", errors.New("this machine has no default route to tell its address by: set mesh.advertise to the address that the other nodes reach")
	}
	defer conn.Close()
	return net.JoinHostPort(conn.LocalAddr().(*net.UDPAddr).IP.String(), port), nil
}
