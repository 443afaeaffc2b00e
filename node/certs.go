package node

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// The kinds of certificate in the log.
const (
	kindClient = "client"
	kindNode   = "node"
)

// nodesCA returns the CA that signs nodes' certificates, if this node holds its key.
func (n *Node) nodesCA() (*mtls.CA, error) { return n.heldCA(n.caRecord().Nodes) }

// clientsCA is nodesCA for clients' certificates.
func (n *Node) clientsCA() (*mtls.CA, error) { return n.heldCA(n.caRecord().Clients) }

func (n *Node) heldCA(pin string) (*mtls.CA, error) {
	ca, err := n.keyring.get(pin)
	switch {
	case errors.Is(err, errNoKey):
		return nil, faultf(http.StatusServiceUnavailable, "node %s has not got the cluster's CA key yet: try again in some seconds", n.cfg.Node.ID)
	case err != nil:
		return nil, faultf(http.StatusServiceUnavailable, "node %s cannot open the cluster's CA key: %s", n.cfg.Node.ID, err)
	}
	return ca, nil
}

// caRequest asks for the key of one CA; empty: of the one that there is.
type caRequest struct {
	Pin string `json:"pin,omitempty"`
}

type caAnswer struct {
	Cert []byte `json:"cert"`
	Key  []byte `json:"key"`
}

// serveCA gives a CA key to a voter, and to nobody else.
func (n *Node) serveCA(_ context.Context, peer string, r caRequest) (caAnswer, error) {
	if !n.isVoter(peer) {
		return caAnswer{}, faultf(http.StatusForbidden, "node %s does not vote and gets no CA key", peer)
	}
	ca, err := n.heldCA(r.Pin)
	if err != nil {
		return caAnswer{}, err
	}
	var a caAnswer
	a.Cert, a.Key, err = ca.PEM()
	return a, err
}

type renewRequest struct {
	Names []string `json:"names"`
	CSR   []byte   `json:"csr"`
}

// renew makes a new key and has the leader sign it.
func (n *Node) renew(ctx context.Context) error {
	key, err := mtls.NewNodeKey()
	if err != nil {
		return err
	}
	csr, err := mtls.NewNodeRequest(key)
	if err != nil {
		return err
	}
	req := renewRequest{Names: certificateNames(n.cfg), CSR: csr}
	cert, err := askLeader(ctx, n, pathRenew, req, func(ctx context.Context, r renewRequest) ([]byte, error) {
		return n.serveRenew(ctx, n.cfg.Node.ID, r)
	})
	if err != nil {
		return err
	}
	keyPEM, err := mtls.MarshalKey(key)
	if err != nil {
		return err
	}
	return n.identity.Replace(cert, keyPEM, nil) // the CAs may change meanwhile
}

func (n *Node) serveRenew(ctx context.Context, peer string, r renewRequest) ([]byte, error) {
	ca, err := n.nodesCA()
	if err != nil {
		return nil, err
	}
	return n.signNode(ctx, ca, peer, r.Names, r.CSR)
}

// serveIssue issues a client certificate for an operator at another node.
func (n *Node) serveIssue(ctx context.Context, _ string, r admin.CertRequest) (admin.IssuedCert, error) {
	return n.issue(ctx, r)
}

func (n *Node) issue(ctx context.Context, r admin.CertRequest) (admin.IssuedCert, error) {
	var out admin.IssuedCert
	ca, err := n.clientsCA()
	if err != nil {
		return out, err
	}
	algorithm, err := keyAlgorithm(r.Algorithm)
	if err != nil {
		return out, err
	}
	p := mtls.ClientProfile{Name: r.Name, Lifetime: r.Lifetime, Key: algorithm}
	if len(r.CSR) > 0 {
		out.CertPEM, err = ca.SignClient(r.CSR, p, time.Now())
	} else {
		out.CertPEM, out.KeyPEM, err = ca.IssueClient(p, time.Now())
	}
	if err != nil {
		return out, faultf(http.StatusBadRequest, "%s", err)
	}
	if err := n.noteCert(ctx, out.CertPEM, r.Name, kindClient); err != nil {
		return out, err
	}
	block, _ := pem.Decode(out.CertPEM)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return out, err
	}
	out.Cert = admin.Cert{Serial: mtls.Serial(c), Subject: r.Name, Kind: kindClient, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
	out.CAPEM = n.caRecord().Trusted
	return out, nil
}

func keyAlgorithm(name string) (mtls.KeyAlgorithm, error) {
	switch name {
	case "", admin.AlgorithmECDSA:
		return mtls.ECDSAP256, nil
	case admin.AlgorithmEd25519:
		return mtls.Ed25519, nil
	case admin.AlgorithmRSA, admin.AlgorithmRSA3072:
		return mtls.RSA3072, nil
	case admin.AlgorithmRSA2048:
		return mtls.RSA2048, nil
	case admin.AlgorithmRSA4096:
		return mtls.RSA4096, nil
	}
	return "", faultf(http.StatusBadRequest, "key algorithm %q is not known: choose ecdsa, ed25519, or rsa-2048, rsa-3072 or rsa-4096 for old devices", name)
}

// IssueCert implements admin.Certs.
func (b backend) IssueCert(ctx context.Context, r admin.CertRequest) (admin.IssuedCert, error) {
	out, err := askLeader(ctx, b.n, pathIssue, r, b.n.issue)
	return out, adminError(err)
}

// ListCerts implements admin.Certs.
func (b backend) ListCerts(context.Context) ([]admin.Cert, error) {
	var out []admin.Cert
	for _, c := range b.n.store.Certs() {
		out = append(out, listedCert(c))
	}
	return out, nil
}

func listedCert(c *logpb.Cert) admin.Cert {
	return admin.Cert{
		Serial: c.Serial, Subject: c.Subject, Kind: c.Kind, Revoked: c.Revoked,
		NotBefore: time.Unix(c.NotBefore, 0), NotAfter: time.Unix(c.NotAfter, 0),
	}
}

var errNoSuchCert = errors.New("there is no certificate with this serial number: see mqcluster cert list")

// RevokeCert implements admin.Certs.
func (b backend) RevokeCert(ctx context.Context, serial string) (admin.Change, error) {
	serial = mtls.PlainSerial(serial)
	for _, c := range b.n.store.Certs() {
		if c.Serial == serial {
			return b.change(ctx, &logpb.Item{Kind: &logpb.Item_CertPut{CertPut: &logpb.CertPut{
				Serial: c.Serial, Subject: c.Subject, Kind: c.Kind, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Revoked: true,
			}}})
		}
	}
	return admin.Change{}, &admin.Error{Kind: admin.NotFound, Msg: errNoSuchCert.Error()}
}

// CA implements admin.Certs.
func (b backend) CA(context.Context) ([]byte, error) { return b.n.caRecord().Trusted, nil }
