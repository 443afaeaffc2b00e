package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
)

// ServerOptions are what a mesh server has beside its protocols.
type ServerOptions struct {
	// JoinProto is the one ALPN protocol that needs no certificate, because its
	// clients come to get one. Empty: there is none.
	JoinProto string
}

// MeshServer returns the settings of the mesh port: TLS 1.3 for the ALPN
// protocols, of which the caller reads the chosen one from the connection. Every
// client must present a certificate of a node of this cluster, except for the
// join protocol, for which none is asked. No protocol in common, or none
// offered, fails the handshake. A changed identity applies to the next one.
//
// Under TLS 1.3 the client's handshake is over before the server has seen its
// certificate: a refused client learns of it at its first read.
func (i *Identity) MeshServer(opts ServerOptions, protos ...string) *tls.Config {
	if opts.JoinProto != "" {
		// Nothing that runs without a certificate may be chosen beside what does not.
		protos = slices.DeleteFunc(slices.Clone(protos), func(p string) bool { return p == opts.JoinProto })
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			offered := func(proto string) bool { return slices.Contains(hello.SupportedProtos, proto) }
			switch {
			case len(hello.SupportedProtos) == 0:
				return nil, failf(ErrProtocol, "the other side offers no mesh protocol: only nodes of the cluster may connect here")
			case !slices.ContainsFunc(protos, offered) && opts.JoinProto != "" && offered(opts.JoinProto):
				return i.joinServer(opts.JoinProto), nil
			}
			// With nothing in common crypto/tls answers no_application_protocol.
			return i.meshServer(protos), nil
		},
	}
}

func (i *Identity) meshServer(protos []string) *tls.Config {
	c := i.current.Load()
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protos,
		Certificates:           []tls.Certificate{c.pair},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              c.roots,
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := i.verifyPeer(state, protos, x509.ExtKeyUsageClientAuth)
			return err
		},
	}
}

func (i *Identity) joinServer(proto string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{proto},
		Certificates:           []tls.Certificate{i.current.Load().chain},
		ClientAuth:             tls.NoClientCert,
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != proto {
				return failf(ErrProtocol, "the other side does not speak %s", proto)
			}
			return nil
		},
	}
}

// MeshClient returns the settings to dial the node peerID with, offering the
// ALPN protocols. The handshake fails unless the other side is exactly that node
// of this cluster and chooses one of the protocols. They may be used for many
// dials; a changed identity applies to the next one.
func (i *Identity) MeshClient(peerID string, protos ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		// A client has no GetConfigForClient: roots written here would be those of
		// an identity that may be replaced by the time of the handshake. So
		// verifyPeer verifies the chain, and the node id in place of a host name.
		InsecureSkipVerify:     true, //nolint:gosec // see above
		SessionTicketsDisabled: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &i.current.Load().pair, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := i.verifyPeer(state, protos, x509.ExtKeyUsageServerAuth)
			if err == nil && id != peerID {
				err = failf(ErrWrongPeer, "node %s answers where node %s was expected: correct the address of node %s", id, peerID, peerID)
			}
			return err
		},
	}
}

// verifyPeer does all that one side checks of the other, and returns its node id.
func (i *Identity) verifyPeer(state tls.ConnectionState, protos []string, usage x509.ExtKeyUsage) (string, error) {
	if !slices.Contains(protos, state.NegotiatedProtocol) {
		return "", failf(ErrProtocol, "the other side has no mesh protocol in common with us: run the same version on all nodes")
	}
	if len(state.PeerCertificates) > 0 {
		// Before any name in the certificate is believed, or even logged.
		if _, err := verifyChain(state.PeerCertificates, i.current.Load().roots, usage); err != nil {
			return "", err
		}
	}
	id, err := PeerNode(state, i.clusterID)
	if err != nil {
		return "", err
	}
	if f := i.allowed.Load(); f != nil && *f != nil {
		if err := (*f)(id, Serial(state.PeerCertificates[0])); err != nil {
			return "", &fault{ErrRevoked, err, err.Error()}
		}
	}
	return id, nil
}
