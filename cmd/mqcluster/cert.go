package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
	mtls "github.com/mqcluster/mqcluster/tls"
)

func (a *App) certCommand() *cobra.Command {
	cmd := group("cert", "Issue and revoke client certificates",
		"Client certificates come from the cluster's own certificate authority, whose key lies on the voters.",
		"  mqcluster cert issue dev1\n  mqcluster cert ca > ca.pem")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.certIssueCommand(r), a.certListCommand(r), a.certShowCommand(r), a.certRenewCommand(r),
		a.certExportCommand(r), a.certRevokeCommand(r), a.certCACommand(r))
	return cmd
}

// issuing is what cert issue was told.
type issuing struct {
	request  admin.CertRequest
	dir, csr string
	rsa      int
	force    bool
}

func (a *App) certIssueCommand(r *remote) *cobra.Command {
	o := issuing{request: admin.CertRequest{Lifetime: 365 * 24 * time.Hour}}
	cmd := &cobra.Command{
		Use:   "issue NAME",
		Short: "Issue a client certificate",
		Long: `Issues a certificate for the name and writes NAME.pem, NAME.key (mode 0600) and
ca.pem into a directory. The key is kept nowhere else. Files that exist are only
replaced with --force.

With --csr the key stays where it was made: the certificate is for the key of that
request (PKCS#10), and of the request nothing else counts; no NAME.key is written.`,
		Example: `  mqcluster cert issue dev1
  mqcluster cert issue dev1 --lifetime 90d --algorithm ed25519 --dir certs
  mqcluster cert issue old-plc --rsa 2048
  mqcluster cert issue dev1 --csr dev1.csr`,
		Args: argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.request.Name = args[0]
			if err := exclusive(cmd, false, "csr", "rsa", "algorithm"); err != nil {
				return err
			}
			return a.issueCert(cmd, r, &o)
		},
	}
	cmd.Flags().Var(durationFlag(&o.request.Lifetime), "lifetime", "how long it is valid")
	keyFlags(cmd, &o.request, &o.rsa)
	cmd.Flags().StringVar(&o.csr, "csr", "", "file with a certificate request whose key is to be certified")
	cmd.Flags().StringVar(&o.dir, "dir", ".", "directory of the files")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace files that exist")
	return cmd
}

func (a *App) issueCert(cmd *cobra.Command, r *remote, o *issuing) error {
	if err := chooseRSA(&o.request, o.rsa); err != nil {
		return err
	}
	base, err := fileName(o.request.Name)
	if err != nil {
		return err
	}
	files := []string{filepath.Join(o.dir, base+".pem"), filepath.Join(o.dir, base+".key")}
	if o.csr != "" {
		if o.request.CSR, err = mtls.ReadRequest(o.csr); err != nil {
			return err
		}
		files = files[:1]
	}
	// Ask before the cluster issues what could not be written.
	if err := mayWrite(files, o.force); err != nil {
		return err
	}
	return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
		issued, err := c.IssueCert(ctx, o.request)
		if err != nil {
			return err
		}
		defer clear(issued.KeyPEM)
		return a.writeCert(r, issued, files, o.dir)
	})
}

// keyFlags choose the kind of a new key.
func keyFlags(cmd *cobra.Command, request *admin.CertRequest, rsa *int) {
	cmd.Flags().StringVar(&request.Algorithm, "algorithm", admin.AlgorithmECDSA, "ecdsa (P-256), ed25519 or rsa")
	cmd.Flags().IntVar(rsa, "rsa", 0, "an RSA key of so many bits, for old devices: 2048, 3072 or 4096")
}

// chooseRSA takes --rsa over into the request.
func chooseRSA(request *admin.CertRequest, bits int) error {
	switch bits {
	case 0:
	case 2048, 3072, 4096:
		request.Algorithm = fmt.Sprintf("rsa-%d", bits)
	default:
		return usagef("--rsa is %d: write 2048, 3072 or 4096", bits)
	}
	return nil
}

// fileName refuses names that would leave the directory.
func fileName(name string) (string, error) {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\\\x00") || name == "ca" {
		return "", usagef("certificate name %q cannot be a file name: use one without slashes that does not begin with a dot and is not ca", name)
	}
	return name, nil
}

func mayWrite(files []string, force bool) error {
	for _, file := range files {
		if _, err := os.Lstat(file); err == nil && !force {
			return fmt.Errorf("file %s exists: choose another --dir, or --force to replace it", file)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("file %s cannot be written: %w", file, err)
		}
	}
	return nil
}

// writeCert writes a certificate, the CAs and, where files has a place for it, the
// key, and says so.
func (a *App) writeCert(r *remote, issued admin.IssuedCert, files []string, dir string) error {
	ca := filepath.Join(dir, "ca.pem")
	type file struct {
		path string
		text []byte
		mode os.FileMode
	}
	all := []file{{files[0], issued.CertPEM, 0o644}, {ca, issued.CAPEM, 0o644}}
	key := ""
	if len(files) > 1 {
		key = files[1]
		all = append([]file{{key, issued.KeyPEM, 0o600}}, all...)
	}
	for _, f := range all {
		if err := writeAtomic(f.path, f.text, f.mode); err != nil {
			return err
		}
	}
	if r.out.json() {
		return r.out.value(struct {
			admin.Cert
			CertFile string `json:"cert_file"`
			KeyFile  string `json:"key_file,omitempty"`
			CAFile   string `json:"ca_file"`
		}{issued.Cert, files[0], key, ca})
	}
	fmt.Fprintf(a.Out, "certificate  %s\n", files[0])
	if key != "" {
		fmt.Fprintf(a.Out, "key          %s\n", key)
	}
	fmt.Fprintf(a.Out, "ca           %s\nserial       %s\nvalid until  %s\n", ca, issued.Serial, stamp(issued.NotAfter))
	return nil
}

// writeAtomic writes a file that never exists half, nor with a wider mode.
func writeAtomic(path string, text []byte, mode os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".mqcluster-*") // mode 0600
	if err != nil {
		return fmt.Errorf("file %s cannot be written: %w", path, err)
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Chmod(mode)
	}
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return fmt.Errorf("file %s cannot be written: %w", path, err)
	}
	return nil
}

func (a *App) certListCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the certificates that were issued",
		Long:    "Lists the certificates of clients, nodes and listeners that the cluster's authority issued.",
		Example: "  mqcluster cert list -o json",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				certs, err := c.ListCerts(ctx)
				if err != nil {
					return err
				}
				return list(&r.out, certs, "SERIAL KIND SUBJECT STATE NOT-AFTER", func(c admin.Cert) []any {
					return []any{c.Serial, c.Kind, c.Subject, certState(c, time.Now()), stamp(c.NotAfter)}
				})
			})
		},
	}
}

func certState(c admin.Cert, now time.Time) string {
	switch {
	case c.Revoked:
		return "revoked"
	case now.After(c.NotAfter):
		return "expired"
	}
	return "valid"
}

func (a *App) certRevokeCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke SERIAL",
		Short:   "Revoke a certificate and send its clients away",
		Long:    "Revokes a certificate by its serial number, as cert list shows it. Clients that are connected with it are sent away on every node before this returns.",
		Example: "  mqcluster cert revoke 5c1f0a",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				change, err := c.RevokeCert(ctx, args[0])
				if err != nil {
					return err
				}
				return r.changed(change, "certificate "+args[0]+" is revoked")
			})
		},
	}
}

func (a *App) certCACommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "ca",
		Short:   "Print the certificates of the cluster's authority",
		Long:    "Prints in PEM form what clients need to trust the nodes; in a rotation of the CA that is both, the old one and the new one.",
		Example: "  mqcluster cert ca > ca.pem",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				text, err := c.CA(ctx)
				if err != nil {
					return err
				}
				if _, err := a.Out.Write(text); err != nil {
					return fmt.Errorf("the result cannot be printed: %w", err)
				}
				return nil
			})
		},
	}
}
