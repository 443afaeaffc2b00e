package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/node"
	mtls "github.com/mqcluster/mqcluster/tls"
)

// When doctor speaks up.
const (
	soon         = 14 * 24 * time.Hour  // a certificate that is renewed by hand ends
	soonCA       = 365 * 24 * time.Hour // a CA ends
	slowSync     = 20 * time.Millisecond
	hangingSync  = 200 * time.Millisecond
	clockWarning = 2 * time.Second
	clockFailure = time.Minute
)

// examineNode looks at the machine, the node and the cluster. What needs the node to
// run comes last, and is left out where it does not.
func (a *App) examineNode(ctx context.Context, r *remote) (all findings) {
	config, err := r.load()
	if err != nil {
		all.fail("config", err.Error(), "correct the configuration; mqcluster config check tells when it is right")
		return all
	}
	all.examineConfig(config)
	if _, err := os.Stat(filepath.Join(config.DataDir, "node.json")); err != nil {
		all.fail("node", "the data directory "+config.DataDir+" holds no node that this user can see", "give its directory with --data-dir, run this as the user of the service, or make a node with mqcluster init or join")
		return all
	}
	all.examineSecrets(config)
	all.examineIdentity(config)
	all.examineDisk(config.DataDir)
	c := admin.NewClient(config.Admin.Socket)
	status, err := c.Status(ctx)
	if err != nil {
		all.fail("node", "the node does not answer: "+err.Error(), "start it (mqcluster run, or systemctl start mqcluster); its log says why it ended")
		return all
	}
	all.examineCluster(status)
	all.examinePorts(ctx, config, status)
	all.examineCheckup(ctx, c)
	all.examineCAs(ctx, c)
	all.examineRights(ctx, c, config)
	return all
}

func (f *findings) examineConfig(config *node.Loaded) {
	for _, w := range config.Warnings {
		f.warn("config", w, "mqcluster config keys explains the key; leave it where it is meant to be so")
	}
	if err := config.CheckFiles(time.Now()); err != nil {
		var problems node.Problems
		if !errors.As(err, &problems) {
			problems = node.Problems{err.Error()}
		}
		for _, p := range problems {
			f.fail("config", p, "correct the file or the key that names it")
		}
		return
	}
	f.ok("config", "%s", config.DataDir)
}

// examineSecrets looks at who may read what only the node should.
func (f *findings) examineSecrets(config *node.Loaded) {
	exposed := 0
	for _, name := range []string{"", "tls/node.key", "ca/ca.key", "ca-next/ca.key"} {
		path := filepath.Join(config.DataDir, name)
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if info.Mode().Perm()&0o077 != 0 {
			exposed++
			f.fail("secrets", fmt.Sprintf("%s can be read by others (mode %04o)", path, info.Mode().Perm()), "run chmod go= "+quoted(path))
		}
	}
	if exposed == 0 {
		f.ok("secrets", "keys are readable by their owner only")
	}
	sealed, err := mtls.Sealed(filepath.Join(config.DataDir, "ca"))
	switch {
	case errors.Is(err, fs.ErrNotExist): // not a voter
	case err != nil:
		f.fail("ca key", err.Error(), "run this as the user of the node")
	case !sealed:
		f.warn("ca key", "the key of the cluster's CA is not encrypted on this disk, only the file's mode protects it", "set ca.pass_file to a file on another disk, or give the service a systemd credential ca.passphrase, and restart the node")
	default:
		f.ok("ca key", "the key of the cluster's CA is sealed on this disk")
	}
}

// examineIdentity looks at the node's certificate: its dates, its chain, and whether
// it has the names by which it is dialled.
func (f *findings) examineIdentity(config *node.Loaded) {
	dir := filepath.Join(config.DataDir, "tls")
	certs, err := mtls.ReadCertificates(filepath.Join(dir, "node.crt"))
	var cas []*x509.Certificate
	if err == nil {
		cas, err = mtls.ReadCertificates(filepath.Join(dir, "ca.crt"))
	}
	if err != nil {
		f.fail("certificate", err.Error(), "restore the files from a backup of this machine, or join the node again")
		return
	}
	own, now := certs[0], time.Now()
	switch due := mtls.RenewAt(own); {
	case now.After(own.NotAfter) || now.Before(own.NotBefore):
		f.fail("certificate", fmt.Sprintf("the node's certificate is valid from %s to %s, and this machine's clock says %s", stamp(own.NotBefore), stamp(own.NotAfter), stamp(now)),
			"correct the clock if it is wrong; else start a voter, which renews its own, or join the node again")
	case now.Sub(due) > own.NotAfter.Sub(own.NotBefore)/10:
		f.warn("certificate", fmt.Sprintf("the node's certificate was to be renewed on %s and ends on %s", stamp(due), stamp(own.NotAfter)), "the cluster needs a leader that holds the CA's key for it: see mqcluster ca status and the node's log")
	default:
		f.ok("certificate", "the node's certificate is valid until %s and is renewed by itself", stamp(own.NotAfter))
	}
	if !slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return own.CheckSignatureFrom(ca) == nil }) {
		f.fail("chain", "no CA in tls/ca.crt signed the node's certificate", "restore both from one backup of this machine, or join the node again")
	} else {
		f.ok("chain", "the cluster's CA signed it")
	}
	for _, ca := range cas {
		if now.After(ca.NotAfter.Add(-soonCA)) {
			f.warn("ca", fmt.Sprintf("the cluster's CA ends on %s", stamp(ca.NotAfter)), "replace it in good time: mqcluster ca rotate")
		}
	}
	f.examineNames(config, own)
}

// examineNames compares the addresses in use with what the certificates say.
func (f *findings) examineNames(config *node.Loaded, own *x509.Certificate) {
	missing := 0
	check := func(cert *x509.Certificate, name, remedy string) {
		if err := mtls.CheckName(cert, name); err != nil {
			missing++
			f.warn("names", err.Error(), remedy)
		}
	}
	later := "it comes in with the next renewal of the node's certificate after a restart with this configuration"
	for _, l := range config.Listeners {
		host, _, err := net.SplitHostPort(l.Address)
		if ip := net.ParseIP(host); err != nil || !l.Secure() || host == "" || ip != nil && ip.IsUnspecified() {
			continue
		}
		if l.TLS.CertFile == "" {
			check(own, host, later)
			continue
		}
		if certs, err := mtls.ReadCertificates(l.TLS.CertFile); err == nil {
			check(certs[0], host, "issue the certificate of listener "+l.Name+" with that name; it matters only if clients dial the node, and not a balancer")
		}
	}
	for _, name := range config.ServerNames {
		check(own, name, later)
	}
	if missing == 0 {
		f.ok("names", "certificates have the addresses of the listeners and server_names")
	}
}

// syncs is how many times the disk is asked to sync.
const syncs = 20

// examineDisk measures how long a small write takes to be on disk.
func (f *findings) examineDisk(dir string) {
	took, err := syncTime(dir)
	switch {
	case err != nil:
		f.fail("disk", err.Error(), "make room, or let this user write to the data directory")
	case took > hangingSync:
		f.fail("disk", fmt.Sprintf("a synced write takes %v (median of %d)", took, syncs), "every acknowledged message waits for that: use a disk of its own, an SSD with power-loss protection, no network file system")
	case took > slowSync:
		f.warn("disk", fmt.Sprintf("a synced write takes %v (median of %d)", took, syncs), "every acknowledged message waits for that: a faster disk makes it shorter")
	default:
		f.ok("disk", "a synced write takes %v (median of %d)", took, syncs)
	}
}

func syncTime(dir string) (time.Duration, error) {
	file, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, fmt.Errorf("the data directory cannot be written: %w", err)
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}()
	block := make([]byte, 4096)
	var all []time.Duration
	for range syncs {
		start := time.Now()
		if _, err := file.Write(block); err != nil {
			return 0, fmt.Errorf("the data directory cannot be written: %w", err)
		}
		if err := file.Sync(); err != nil {
			return 0, fmt.Errorf("the data directory cannot be synced: %w", err)
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	return all[len(all)/2].Round(10 * time.Microsecond), nil
}
