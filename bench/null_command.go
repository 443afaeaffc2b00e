package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func nullCommand() *cobra.Command {
	f := &flags{}
	var listen, secure string
	cmd := &cobra.Command{
		Use:   "null",
		Short: "Measure the load generator itself, against a broker that does nothing",
		Long: `Runs a scenario against a broker in the same process that does nothing, or, with
--listen or --tls-listen, serves as that broker until stopped. --tls-listen takes
its certificate from --cert and --key, and with --cafile wants one of its clients:
it is then a bare TLS server, to compare handshakes with.`,
		Example: `  mqcluster bench null --scenario fanin
  mqcluster bench null --listen 127.0.0.1:1883
  mqcluster bench null --tls-listen 127.0.0.1:8883 --cert server.pem --key server.key --cafile ca.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if listen != "" || secure != "" {
				return serveNull(cmd, f, listen, secure)
			}
			f.addrs = []string{NullAddress}
			c, err := f.config()
			if err != nil {
				return err
			}
			return runAndShow(cmd, c, f.output)
		},
		SilenceUsage: true,
	}
	f.register(cmd)
	cmd.Flags().StringVar(&listen, "listen", "", "serve on this address until stopped, and run nothing")
	cmd.Flags().StringVar(&secure, "tls-listen", "", "serve TLS on this address")
	return cmd
}

// serveNull serves on the addresses that are given until the command is stopped.
func serveNull(cmd *cobra.Command, f *flags, plain, secure string) (err error) {
	var configs []NullConfig
	if plain != "" {
		configs = append(configs, NullConfig{Address: plain})
	}
	if secure != "" {
		if f.cert == "" {
			return errors.New("a TLS server needs a certificate: give --cert and --key as well as --tls-listen")
		}
		c, err := loadTLS(f.cafile, f.cert, f.key)
		if err != nil {
			return err
		}
		if f.cafile != "" {
			c.ClientCAs, c.ClientAuth = c.RootCAs, tls.RequireAndVerifyClientCert
		}
		configs = append(configs, NullConfig{Address: secure, TLS: c})
	}
	for _, c := range configs {
		null, nerr := OpenNull(cmd.Context(), c)
		if nerr != nil {
			return nerr
		}
		defer func() { err = errors.Join(err, null.Close()) }()
		fmt.Fprintf(cmd.OutOrStdout(), "listening on %s, process %d\n", null.Addr(), os.Getpid())
	}
	<-cmd.Context().Done()
	return nil
}
