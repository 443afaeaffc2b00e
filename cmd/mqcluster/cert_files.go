package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
	mtls "github.com/mqcluster/mqcluster/tls"
)

func (a *App) certShowCommand(r *remote) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "show [NAME|SERIAL]",
		Short: "Show certificates of a name, a serial number or a file",
		Long: `Shows the certificates that the cluster issued for a name or under a serial number,
the newest first, or with --file what a PEM file has in it, whoever issued that; for
a file no node has to run.`,
		Example: `  mqcluster cert show dev1
  mqcluster cert show --file dev1.pem -o json`,
		Args: argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (file == "") == (len(args) == 0) {
				return usagef("give a name, a serial number or --file FILE: see %s --help", cmd.CommandPath())
			}
			if file != "" {
				return a.showFile(r, file)
			}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				all, err := c.ListCerts(ctx)
				if err != nil {
					return err
				}
				found := certsOf(all, args[0])
				if len(found) == 0 {
					return fmt.Errorf("no certificate was issued for %s or under that serial number: see mqcluster cert list", printable(args[0]))
				}
				return list(&r.out, found, "SERIAL KIND SUBJECT STATE NOT-BEFORE NOT-AFTER", func(c admin.Cert) []any {
					return []any{c.Serial, c.Kind, c.Subject, certState(c, time.Now()), stamp(c.NotBefore), stamp(c.NotAfter)}
				})
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "PEM file to read in place of asking the cluster")
	return cmd
}

// certsOf are those of a subject or a serial number, the newest first.
func certsOf(all []admin.Cert, what string) (out []admin.Cert) {
	serial := mtls.PlainSerial(what)
	for _, c := range all {
		if c.Subject == what || mtls.PlainSerial(c.Serial) == serial {
			out = append(out, c)
		}
	}
	newestFirst(out)
	return out
}

func (a *App) showFile(r *remote, file string) error {
	certs, err := mtls.ReadCertificates(file)
	if err != nil {
		return err
	}
	all := make([]mtls.Summary, len(certs))
	for i, c := range certs {
		all[i] = mtls.Summarize(c)
	}
	if r.out.json() {
		return r.out.value(all)
	}
	for i, s := range all {
		if i > 0 {
			fmt.Fprintln(a.Out)
		}
		kind := s.Kind
		if kind == "" {
			kind = "not of a cluster's CA"
		}
		for _, f := range [][2]string{
			{"subject", s.Subject}, {"issuer", s.Issuer}, {"kind", kind}, {"serial", s.Serial}, {"key", s.Key},
			{"valid from", stamp(s.NotBefore)}, {"valid until", stamp(s.NotAfter)},
			{"names", strings.Join(append(s.DNSNames, s.Addresses...), ", ")}, {"for", strings.Join(s.Usages, ", ")}, {"sha256", s.SHA256},
		} {
			if f[1] != "" {
				fmt.Fprintf(a.Out, "%-12s %s\n", f[0], printable(f[1]))
			}
		}
	}
	return nil
}

// renewal is what cert renew was told.
type renewal struct {
	request   admin.CertRequest
	rsa       int
	dir       string
	force     bool
	newKey    bool
	revokeOld bool
}

func (a *App) certRenewCommand(r *remote) *cobra.Command {
	o := renewal{request: admin.CertRequest{Lifetime: 365 * 24 * time.Hour}}
	cmd := &cobra.Command{
		Use:   "renew NAME",
		Short: "Renew a client certificate before it expires",
		Long: `Issues a new certificate for the key of NAME.key in a directory and replaces NAME.pem
and ca.pem there. It does nothing while more than a third of the certificate's life
is left and the CA that signed it is not being retired, so that it may run every
day; --force renews all the same.

The old certificate goes on being accepted until it expires, unless --revoke-old
ends it, and whoever is connected with it. --new-key makes a new key as well.`,
		Example: `  mqcluster cert renew dev1 --dir certs
  mqcluster cert renew dev1 --force --new-key --revoke-old`,
		Args: argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.request.Name = args[0]
			if err := chooseRSA(&o.request, o.rsa); err != nil {
				return err
			}
			if !o.newKey && (o.rsa != 0 || cmd.Flags().Changed("algorithm")) {
				return usagef("--rsa and --algorithm choose a new key: add --new-key")
			}
			return a.renewCert(cmd, r, &o)
		},
	}
	cmd.Flags().Var(durationFlag(&o.request.Lifetime), "lifetime", "how long the new one is valid")
	keyFlags(cmd, &o.request, &o.rsa)
	cmd.Flags().StringVar(&o.dir, "dir", ".", "directory of the files")
	cmd.Flags().BoolVar(&o.force, "force", false, "renew although it is not due")
	cmd.Flags().BoolVar(&o.newKey, "new-key", false, "make a new key")
	cmd.Flags().BoolVar(&o.revokeOld, "revoke-old", false, "revoke the old certificate")
	return cmd
}

func (a *App) renewCert(cmd *cobra.Command, r *remote, o *renewal) error {
	base, err := fileName(o.request.Name)
	if err != nil {
		return err
	}
	files := []string{filepath.Join(o.dir, base+".pem"), filepath.Join(o.dir, base+".key")}
	certs, err := mtls.ReadCertificates(files[0])
	if err != nil {
		return err
	}
	old := certs[0]
	if s := mtls.Summarize(old); s.Kind != "client" || s.Name != o.request.Name {
		return fmt.Errorf("file %s is not the certificate of client %s that a cluster issued: issue one with mqcluster cert issue", files[0], printable(o.request.Name))
	}
	if !o.newKey {
		if o.request.CSR, err = mtls.RequestFor(files[1]); err != nil {
			return err
		}
		files = files[:1]
	}
	return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
		due, err := renewDue(ctx, c, old, o.force)
		if err != nil {
			return err
		}
		if !due {
			return a.notDue(r, old, files[0])
		}
		issued, err := c.IssueCert(ctx, o.request)
		if err != nil {
			return err
		}
		defer clear(issued.KeyPEM)
		if err := a.writeCert(r, issued, files, o.dir); err != nil || !o.revokeOld {
			return err
		}
		change, err := c.RevokeCert(ctx, mtls.Serial(old))
		if err != nil {
			return fmt.Errorf("the new certificate is written, and the old one is not revoked: %w", err)
		}
		return notApplied(change)
	})
}

// notDue says that nothing was done.
func (a *App) notDue(r *remote, cert *x509.Certificate, file string) error {
	if r.out.json() {
		return r.out.value(admin.Cert{
			Serial: mtls.Serial(cert), Subject: mtls.Summarize(cert).Name, Kind: "client", NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		})
	}
	fmt.Fprintf(a.Out, "%s is valid until %s: not due yet\n", file, stamp(cert.NotAfter))
	return nil
}

// renewDue tells whether a certificate is in the last third of its life, revoked, or
// not of the CA that issues clients' certificates now.
func renewDue(ctx context.Context, c *admin.Client, cert *x509.Certificate, force bool) (bool, error) {
	if force || time.Until(cert.NotAfter) < cert.NotAfter.Sub(cert.NotBefore)/3 {
		return true, nil
	}
	status, err := c.CAStatus(ctx)
	if err != nil {
		return false, err
	}
	text, err := c.CA(ctx)
	if err != nil {
		return false, err
	}
	cas, err := mtls.ParseCertificates("the cluster's CA", text)
	if err != nil {
		return false, err
	}
	for _, info := range status.CAs {
		for _, ca := range cas {
			if info.SignsClients && mtls.PinOf(ca) == info.Pin && cert.CheckSignatureFrom(ca) == nil {
				return false, nil
			}
		}
	}
	return true, nil
}

// export is what cert export was told.
type export struct {
	name             string
	dir, out, format string
	force, legacy    bool
	password         passwordFlags
}

func (a *App) certExportCommand(r *remote) *cobra.Command {
	var o export
	cmd := &cobra.Command{
		Use:   "export NAME",
		Short: "Put a certificate, its key and the CA into one file",
		Long: `Puts NAME.pem, NAME.key and ca.pem of a directory, as cert issue wrote them, into
one file, for devices and browsers that take no other: PKCS#12 (NAME.p12), which a
password opens, or PEM (NAME.bundle.pem). Both have mode 0600. No node has to run.

--legacy writes the 3DES of old PKCS#12 files, which some devices cannot do without
and which protects the key little.`,
		Example: `  mqcluster cert export dev1 --password-file p12.password
  mqcluster cert export dev1 --format pem --out /etc/device/identity.pem`,
		Args: argCount(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			o.name = args[0]
			if err := a.exportCert(&o); err != nil {
				return err
			}
			if r.out.json() {
				return r.out.value(map[string]string{"file": o.out, "format": o.format})
			}
			fmt.Fprintln(a.Out, o.out)
			return nil
		},
	}
	cmd.Flags().StringVar(&o.format, "format", "p12", "p12 or pem")
	cmd.Flags().StringVar(&o.dir, "dir", ".", "directory of the files")
	cmd.Flags().StringVar(&o.out, "out", "", "file to write (default: NAME.p12 or NAME.bundle.pem in the directory)")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace a file that exists")
	cmd.Flags().BoolVar(&o.legacy, "legacy", false, "PKCS#12 as devices before 2018 read it")
	o.password.flags(cmd)
	return cmd
}

func (a *App) exportCert(o *export) error {
	base, err := fileName(o.name)
	if err != nil {
		return err
	}
	suffix, known := map[string]string{"p12": ".p12", "pem": ".bundle.pem"}[o.format]
	if !known {
		return usagef("--format is %q: write p12 or pem", o.format)
	}
	if o.out == "" {
		o.out = filepath.Join(o.dir, base+suffix)
	}
	if err := mayWrite([]string{o.out}, o.force); err != nil {
		return err
	}
	b, err := readBundle(o.dir, base)
	if err != nil {
		return err
	}
	defer clear(b.Key)
	if o.format == "pem" {
		return writeAtomic(o.out, slices.Concat(b.Key, b.Cert, b.CA), 0o600)
	}
	secret, err := o.password.readNew(a)
	if err != nil {
		return err
	}
	text, err := b.PKCS12(string(secret), o.legacy)
	if err != nil {
		return err
	}
	return writeAtomic(o.out, text, 0o600)
}

// readBundle reads what cert issue wrote.
func readBundle(dir, base string) (b mtls.Bundle, err error) {
	for _, f := range []struct {
		name string
		dst  *[]byte
	}{{base + ".pem", &b.Cert}, {base + ".key", &b.Key}, {"ca.pem", &b.CA}} {
		path := filepath.Join(dir, f.name)
		if *f.dst, err = os.ReadFile(path); errors.Is(err, os.ErrNotExist) {
			return b, fmt.Errorf("file %s does not exist: give the directory that mqcluster cert issue wrote to with --dir", path)
		}
		if err != nil {
			return b, fmt.Errorf("file %s cannot be read: %w", path, err)
		}
	}
	return b, nil
}
