package bench

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// flags is what the command line says, before it is a Config.
type flags struct {
	Config
	version                   uint8
	cafile, cert, key, name   string
	tls                       bool
	passwordFile              string
	output                    string
	addrs, pubAddrs, subAddrs []string
}

// Command returns the verb bench with its sub-verbs null and compare.
func Command() *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure an MQTT broker: rates, latency, losses, CPU time per message",
		Long: `Measure an MQTT broker.

Every message is accounted for by publisher and number, so what is lost, doubled
or out of order is counted, not estimated. With --pid the CPU time and memory of
the broker's processes on this machine are measured too.

Scenarios:
  fanin      many publishers, one subscriber
  fanout     one publisher, many subscribers
  pairs      many publishers, each with a subscriber of its own
  rate       pairs at a fixed total rate, for latency
  shared     many publishers, one shared subscription
  wildcards  pairs whose subscribers have wildcards, and two that hear all
  connect    a storm of connections (--resume: of resumed TLS sessions)
  idle       memory of idle connections
  offline    queues of absent persistent sessions, and their replay
  broadcast  one message after the other to many absent sessions on one filter
  retained   many retained topics, and their delivery to a late subscriber
  filters    many distinct filters on one node, until the others know them, and their memory`,
		Example: `  mqcluster bench --scenario pairs --qos 1 --addr 127.0.0.1:8883 --cafile ca.crt --cert dev.crt --key dev.key
  mqcluster bench --scenario rate --rate 5000 --qos 1 --pub-addr a:8883 --sub-addr b:8883 --cafile ca.crt -u ada --password-file pw
  mqcluster bench --scenario fanin --addr 127.0.0.1:1883 --pid 4711 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.config()
			if err != nil {
				return err
			}
			return runAndShow(cmd, c, f.output)
		},
		SilenceUsage: true,
	}
	f.register(cmd)
	cmd.AddCommand(nullCommand(), compareCommand())
	return cmd
}

// register adds the flags of a run.
func (f *flags) register(cmd *cobra.Command) {
	p := cmd.Flags()
	p.StringVar(&f.Scenario, "scenario", Pairs, "what to run: "+strings.Join(Scenarios(), ", "))
	p.StringSliceVar(&f.addrs, "addr", nil, `broker addresses, host:port, used in turn; "null" for a broker that does nothing`)
	p.StringSliceVar(&f.pubAddrs, "pub-addr", nil, "addresses for publishers, instead of --addr")
	p.StringSliceVar(&f.subAddrs, "sub-addr", nil, "addresses for subscribers, instead of --addr")
	p.Uint8Var(&f.version, "version", 4, "MQTT version: 3 (3.1), 4 (3.1.1) or 5")
	p.Uint8Var(&f.QoS, "qos", 0, "quality of service: 0, 1 or 2")
	p.IntVar(&f.Size, "size", 0, "bytes of payload, at least 16 (default: the scenario's)")
	p.IntVar(&f.Clients, "clients", 0, "publishers, subscribers, pairs or connections, by scenario (default: the scenario's)")
	p.IntVar(&f.Members, "members", 0, "members of the shared subscription (default 10)")
	p.IntVar(&f.Count, "count", 0, "messages of each publisher, or connections, or filters (default: as many as --duration allows)")
	p.DurationVar(&f.Duration, "duration", 0, "how long to publish (default 5s where no --count is given)")
	p.IntVar(&f.Window, "window", 0, "messages of one publisher under way, or connections at a time; -1: no limit at QoS 0 (default: the scenario's)")
	p.Float64Var(&f.Rate, "rate", 0, "messages per second of all publishers together (scenario rate: default 5000; others: default as fast as --window allows)")
	p.IntVar(&f.Topics, "topics", 0, "topics of each publisher, in turn, for pairs and rate (default 1)")
	p.IntVar(&f.Fillers, "fillers", 0, "wildcard filters that match nothing, in all, for pairs and rate")
	p.IntVar(&f.Batch, "batch", 0, "messages in one write at most (default 64; rate: 1)")
	p.BoolVar(&f.Persistent, "persistent", false, "subscribers have persistent sessions; connect: sessions that are there come back")
	p.BoolVar(&f.Strict, "strict", false, "fail on duplicates, disorder, misrouted messages and refusals as well, at any QoS")
	p.DurationVar(&f.Wait, "wait", 5*time.Second, "give up when nothing has arrived for so long")
	p.IntSliceVar(&f.PIDs, "pid", nil, "broker process on this machine whose CPU time and memory to measure; repeatable")
	f.registerAccess(cmd)
}

// registerAccess adds what it takes to be let in, and the output's form.
func (f *flags) registerAccess(cmd *cobra.Command) {
	p := cmd.Flags()
	p.BoolVar(&f.tls, "tls", false, "use TLS with the system's authorities; --cafile implies TLS")
	p.StringVar(&f.cafile, "cafile", "", "PEM file of the authorities that the broker's certificate must come from")
	p.StringVar(&f.cert, "cert", "", "PEM file of the client certificate")
	p.StringVar(&f.key, "key", "", "PEM file of its key")
	p.StringVar(&f.name, "server-name", "", "name that the broker's certificate must have (default: the host of the address)")
	p.BoolVar(&f.Resume, "resume", false, "resume TLS sessions, for scenario connect")
	p.BoolVar(&f.HandshakeOnly, "handshake-only", false, "end each connection when its TLS handshake is done, for scenario connect")
	p.StringVarP(&f.Username, "username", "u", "", "user name")
	p.StringVar(&f.passwordFile, "password-file", "", "file whose first line is the password; - for standard input")
	p.StringVarP(&f.output, "output", "o", "table", "form of the result: table or json")
}

// config makes a Config of the flags; files are read here.
func (f *flags) config() (Config, error) {
	c := f.Config
	c.Addrs, c.PubAddrs, c.SubAddrs, c.Version = f.addrs, f.pubAddrs, f.subAddrs, f.version
	if f.output != "table" && f.output != "json" {
		return c, fmt.Errorf("the output form %q is neither table nor json", f.output)
	}
	if f.passwordFile != "" {
		if c.Username == "" {
			return c, errors.New("a password needs a user: give --username as well as --password-file")
		}
		password, err := readPassword(f.passwordFile)
		if err != nil {
			return c, err
		}
		c.Password = password
	}
	if !f.tls && f.cafile == "" && (f.cert != "" || f.key != "") {
		return c, errors.New("a client certificate needs TLS: give --cafile or --tls as well")
	}
	if f.tls || f.cafile != "" {
		config, err := loadTLS(f.cafile, f.cert, f.key)
		if err != nil {
			return c, err
		}
		config.ServerName = f.name
		c.TLS = config
	}
	return c, nil
}

func readPassword(path string) (string, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(os.Stdin, 64<<10))
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

func loadTLS(cafile, cert, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if cafile != "" {
		pem, err := os.ReadFile(cafile)
		if err != nil {
			return nil, fmt.Errorf("read --cafile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM form: give the file of the broker's CA", cafile)
		}
	}
	if cert != "" || key != "" {
		if cert == "" || key == "" {
			return nil, errors.New("a client certificate needs both --cert and --key")
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("load the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// runAndShow runs and prints the report, of a failed run as well.
func runAndShow(cmd *cobra.Command, c Config, output string) error {
	report, err := Run(cmd.Context(), c)
	if report.Schema == 0 {
		return err
	}
	if output == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return errors.Join(err, enc.Encode(report))
	}
	_, printed := io.WriteString(cmd.OutOrStdout(), report.Table())
	return errors.Join(err, printed)
}
