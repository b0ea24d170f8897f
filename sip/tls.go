package sip

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
)

// TLSOptions are the certificates of an attachment whose transport is tls.
type TLSOptions struct {
	CertFile, KeyFile string // PEM: ours, shown to peers in both directions
	CAFile            string // PEM: who may have signed a peer's; "": the system's
	ServerName        string // what a peer's certificate must name; "": the targets' hosts
	// PeerNames are what the certificates of those may name that connect to us, where CAFile is
	// given; none: ServerName, or the targets' hosts.
	PeerNames []string
}

// tlsConfigs are the two sides of a TLS attachment: 1.2 or newer, peers always verified,
// in both directions where a CA of theirs is named (mutual TLS): that it has signed somebody's
// certificate does not make him the peer, his name must be the peer's.
func (a *attachment) tlsConfigs() (client, server *tls.Config, err error) {
	client = &tls.Config{MinVersion: tls.VersionTLS12}
	o := a.o.TLS
	if !slices.ContainsFunc(a.o.Listens(), func(l Listening) bool { return l.Transport == "tls" }) {
		return client, nil, nil
	}
	roots, err := loadCA(o.CAFile)
	if err != nil {
		return nil, nil, err
	}
	server = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	if o.CAFile != "" {
		server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, roots
	}
	if o.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("tls: %w", err)
		}
		client.Certificates, server.Certificates = []tls.Certificate{cert}, []tls.Certificate{cert}
	} else { // without one nobody can connect to us; we can connect to them
		server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return nil, errors.New("no certificate is configured")
		}
	}
	names := []string{o.ServerName}
	if o.ServerName == "" {
		names = nil
		for _, t := range a.o.Peers {
			host, _ := t.hostPort()
			names = append(names, host)
		}
	}
	// sipgo dials addresses, and one configuration serves all peers: the name is checked
	// here, against those configured, by the same verification that crypto/tls does.
	client.ServerName, client.InsecureSkipVerify = names[0], true
	client.VerifyConnection = func(cs tls.ConnectionState) error { return verifyPeer(cs, roots, names) }
	if o.CAFile != "" {
		accepted := names
		if len(o.PeerNames) > 0 {
			accepted = o.PeerNames
		}
		server.VerifyConnection = func(cs tls.ConnectionState) error { return nameOfPeer(cs, accepted) }
	}
	return client, server, nil
}

// nameOfPeer says whether a certificate that was verified is one of the peers'.
func nameOfPeer(cs tls.ConnectionState, names []string) (err error) {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("peer shows no certificate")
	}
	for _, name := range names {
		if err = cs.PeerCertificates[0].VerifyHostname(name); err == nil {
			return nil
		}
	}
	return err
}

func verifyPeer(cs tls.ConnectionState, roots *x509.CertPool, names []string) (err error) {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("peer shows no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	for _, name := range names {
		if _, err = cs.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between}); err == nil {
			return nil
		}
	}
	return err
}

func loadCA(path string) (*x509.CertPool, error) {
	if path == "" {
		return x509.SystemCertPool()
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls: %s holds no certificate", path)
	}
	return pool, nil
}
