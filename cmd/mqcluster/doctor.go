package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// The states of a finding.
const (
	findingOK      = "ok"
	findingWarning = "warning"
	findingFailure = "failure"
)

// finding is one thing that doctor looked at.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

// findings collects them in the order in which they were looked at.
type findings []finding

func (f *findings) ok(check, format string, args ...any) {
	*f = append(*f, finding{Check: check, State: findingOK, Found: fmt.Sprintf(format, args...)})
}

func (f *findings) warn(check, found, remedy string) {
	*f = append(*f, finding{check, findingWarning, found, remedy})
}

func (f *findings) fail(check, found, remedy string) {
	*f = append(*f, finding{check, findingFailure, found, remedy})
}

// count is how many findings have a state.
func (f findings) count(state string) (n int) {
	for _, one := range f {
		if one.State == state {
			n++
		}
	}
	return n
}

func (a *App) doctorCommand() *cobra.Command {
	var visit visitor
	var strict bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong, and say what to do about it",
		Long: `Looks at this machine, its node and the cluster as an operator would: configuration
and certificates (dates, chain, names against the addresses in use), modes of key
files, limits of open files, clocks of the peers, ports, how fast the disk syncs,
quorum, versions, and rules that nobody can use. Each finding that is not ok comes
with its remedy. It changes nothing.

With --connect it does as a client would in place of that, and says why a handshake
or a CONNECT fails: not TLS at all, protocol version, unknown authority, expired or
not yet valid (or a wrong clock here), a name that the certificate lacks, a client
certificate that is missing or refused, user, password.

The exit code is 1 if there is a failure, with --strict also for a warning.`,
		Example: `  mqcluster doctor --data-dir /var/lib/mqcluster
  mqcluster doctor -o json | jq '.[] | select(.state != "ok")'
  mqcluster doctor --connect mqtt.example.org:8883 --cafile ca.pem --cert dev1.pem \
    --key dev1.key -u dev1 --password-file dev1.password`,
		Args: argCount(0, 0),
	}
	r := a.remoteFlags(cmd)
	visit.flags(cmd)
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with 1 for a warning too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := a.examine(cmd, r, &visit)
		if err != nil {
			return err
		}
		if err := a.printFindings(&r.out, all); err != nil {
			return err
		}
		failures, warnings := all.count(findingFailure), all.count(findingWarning)
		if failures > 0 || strict && warnings > 0 {
			return fmt.Errorf("%d failures and %d warnings were found", failures, warnings)
		}
		return nil
	}
	return cmd
}

// examine does what the flags say.
func (a *App) examine(cmd *cobra.Command, r *remote, visit *visitor) (findings, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), r.timeout)
	defer cancel()
	if visit.address == "" {
		return a.examineNode(ctx, r), nil
	}
	if err := visit.resolve(r.timeout); err != nil {
		return nil, err
	}
	password, err := visit.password(a)
	if err != nil {
		return nil, err
	}
	return visit.examine(ctx, password), nil
}

func (a *App) printFindings(out *output, all findings) error {
	if out.json() {
		return out.value(all)
	}
	for _, f := range all {
		fmt.Fprintf(a.Out, "%-8s %-12s %s\n", f.State, f.Check, printable(f.Found))
		if f.Remedy != "" {
			fmt.Fprintf(a.Out, "%-8s %-12s -> %s\n", "", "", printable(f.Remedy))
		}
	}
	return nil
}

// visitor is a client that doctor sends.
type visitor struct {
	mqttFlags
	address string
}

func (v *visitor) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&v.address, "connect", "", "host:port of a listener to connect to as a client")
	f.StringVarP(&v.user, "username", "u", "", "user name; without --password-file or --cert the password is asked for")
	f.StringVar(&v.passwordFile, "password-file", "", "file whose first line is the password; - is standard input")
	f.VarP(refusedPassword{}, "pw", "P", "")
	_ = f.MarkHidden("pw")
	f.StringVar(&v.caFile, "cafile", "", "PEM file of the CAs to trust (default: the system's)")
	f.StringVar(&v.cert, "cert", "", "PEM file of the client certificate")
	f.StringVar(&v.key, "key", "", "PEM file of its key")
	f.StringVar(&v.serverName, "servername", "", "name to expect in the certificate (default: the host)")
	f.StringVarP(&v.id, "id", "i", "", "client id (default: a random one)")
	f.BoolVar(&v.plaintext, "plaintext", false, "connect without TLS: everything can be read on the way")
}

// resolve takes the address apart.
func (v *visitor) resolve(timeout time.Duration) error {
	host, port, err := net.SplitHostPort(v.address)
	if err != nil {
		host, port = v.address, "8883"
		if v.plaintext {
			port = "1883"
		}
	}
	if v.port, err = strconv.Atoi(port); err != nil || host == "" {
		return usagef("--connect is %q: write host:port", v.address)
	}
	v.host, v.timeout, v.keepAlive = host, min(timeout, 10*time.Second), time.Minute
	return nil
}
