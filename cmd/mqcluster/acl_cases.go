package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/mqcluster/mqcluster/admin"
)

// aclCase is one expectation of acl test, as its file has it.
type aclCase struct {
	Subject  string      `yaml:"subject"`
	Client   string      `yaml:"client"`
	Action   string      `yaml:"action"`
	Topic    string      `yaml:"topic"`
	Expected string      `yaml:"expected"`
	Cert     aclCaseCert `yaml:"cert"`
	Roles    []string    `yaml:"roles"`
}

type aclCaseCert struct {
	CN  string `yaml:"cn"`
	O   string `yaml:"o"`
	OU  string `yaml:"ou"`
	DNS string `yaml:"san.dns"`
}

func (a *App) aclTestCommand(r *remote) *cobra.Command {
	var rules string
	cmd := &cobra.Command{
		Use:   "test FILE",
		Short: "Check what clients may do against a table of expectations",
		Long: `Checks the rules in force, or with --rules those that are to be set, against a table
of what clients should be allowed and denied, and fails if one case comes out
otherwise. It changes nothing. The file is a YAML list:

  - {subject: user:dev1, client: dev1, action: publish, topic: plant/dev1/t, expected: allow}
  - {subject: user:dev1, client: dev1, action: subscribe, topic: 'plant/#', expected: deny}
  - {subject: anonymous, action: publish, topic: plant/x, expected: deny}
  - {subject: user:gw, action: publish, topic: plant/hall7/t, cert: {ou: hall7}, expected: allow}

where cert has cn, o, ou and san.dns, and roles those that a token brings. The file of
--rules maps subjects to lists of rules, which stand in the place of what those
subjects have; all others keep theirs:

  role:sensors: ['allow publish plant/%c/#']
  user:old: []`,
		Example: "  mqcluster acl test expectations.yaml\n  mqcluster acl test expectations.yaml --rules new-rules.yaml -o json",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var test admin.AclTest
			cases, err := a.readCases(args[0])
			if err != nil {
				return err
			}
			if test.Cases = cases; rules != "" {
				if test.Rules, err = a.readRuleSets(rules); err != nil {
					return err
				}
			}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				results, err := c.TestAcl(ctx, test)
				if err != nil {
					return err
				}
				return r.aclTested(test.Cases, results)
			})
		},
	}
	cmd.Flags().StringVar(&rules, "rules", "", "YAML file of rules to try in the place of those in force; - is standard input")
	return cmd
}

// aclTested prints the outcome, and is an error if a case failed.
func (r *remote) aclTested(cases []admin.AclCase, results []admin.AclCaseResult) error {
	type line struct {
		Case   int  `json:"case"`
		Passed bool `json:"passed"`
		admin.AclCase
		Reason string `json:"reason"`
	}
	var lines []line
	failed := 0
	for i, result := range results {
		if !result.Passed {
			failed++
		}
		if !result.Passed || r.out.json() {
			lines = append(lines, line{i + 1, result.Passed, cases[i], result.Reason})
		}
	}
	switch {
	case r.out.json():
		if err := list(&r.out, lines, "", nil); err != nil {
			return err
		}
	default:
		for _, l := range lines {
			fmt.Fprintf(r.out.app.Out, "case %d failed: %q as %q should be %s to %s %q; it is %s\n",
				l.Case, l.User, l.Client, map[bool]string{true: "allowed", false: "denied"}[l.Allowed], l.Action, l.Topic, printable(l.Reason))
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d cases failed", failed, len(results))
	}
	if !r.out.json() {
		fmt.Fprintf(r.out.app.Out, "%d cases passed\n", len(results))
	}
	return nil
}

// readYAML reads one document, whose unknown keys are errors.
func (a *App) readYAML(path string, into any) error {
	in := a.In
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("the file cannot be read: %w", err)
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, 16<<20))
	if err != nil {
		return fmt.Errorf("the file cannot be read: %w", err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s is not what is expected: %w", path, err)
	}
	return nil
}

func (a *App) readCases(path string) ([]admin.AclCase, error) {
	var cases []aclCase
	if err := a.readYAML(path, &cases); err != nil {
		return nil, err
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("%s has no cases: see mqcluster acl test --help", path)
	}
	out := make([]admin.AclCase, 0, len(cases))
	for i, c := range cases {
		user, named := strings.CutPrefix(c.Subject, "user:")
		if !named && c.Subject != "anonymous" {
			return nil, fmt.Errorf("case %d: subject %q is neither user:NAME nor anonymous", i+1, c.Subject)
		}
		if !named {
			user = ""
		}
		if c.Expected != "allow" && c.Expected != "deny" {
			return nil, fmt.Errorf("case %d: expected is %q: write allow or deny", i+1, c.Expected)
		}
		out = append(out, admin.AclCase{
			AclQuestion: admin.AclQuestion{User: user, Client: c.Client, Action: c.Action, Topic: c.Topic, Cert: admin.AclCert(c.Cert), Roles: c.Roles},
			Allowed:     c.Expected == "allow",
		})
	}
	return out, nil
}

func (a *App) readRuleSets(path string) (out []admin.Acl, err error) {
	sets := map[string][]string{}
	if err := a.readYAML(path, &sets); err != nil {
		return nil, err
	}
	for _, subject := range slices.Sorted(maps.Keys(sets)) {
		out = append(out, admin.Acl{Subject: subject, Rules: sets[subject]})
	}
	return out, nil
}

// certNames reads what rules may use of the first certificate in a file.
func certNames(path string) (admin.AclCert, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return admin.AclCert{}, fmt.Errorf("the certificate cannot be read: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return admin.AclCert{}, fmt.Errorf("%s has no certificate in PEM", path)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return admin.AclCert{}, fmt.Errorf("the certificate in %s is damaged: %w", path, err)
	}
	first := func(all []string) string { return strings.Join(all[:min(1, len(all))], "") }
	return admin.AclCert{
		CN: c.Subject.CommonName, O: first(c.Subject.Organization), OU: first(c.Subject.OrganizationalUnit), DNS: first(c.DNSNames),
	}, nil
}
