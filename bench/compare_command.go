package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func compareCommand() *cobra.Command {
	f := &flags{}
	var targets, suite []string
	var rounds int
	var markdown string
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Run the same scenarios against several brokers in turn, and print ratios",
		Long: `Runs each case against the targets in turn (A B A B …), takes medians, and
compares with the first target. A target is

  name=host:port[,host:port…][,pub=host:port…][,sub=host:port…][,pid=N…]

Cases are named by --suite; without it, the flags describe one.`,
		Example: `  mqcluster bench compare --suite S1,S2,S3 --rounds 3 --markdown table.md \
    --target mosquitto=127.0.0.1:1883,pid=100 --target mqcluster=127.0.0.1:1884,pid=101
  mqcluster bench compare --scenario rate --qos 1 --target a=127.0.0.1:1883 --target b=127.0.0.1:1884`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			own, err := f.config()
			if err != nil {
				return err
			}
			c := Comparison{Rounds: rounds, Access: own, Progress: cmd.ErrOrStderr()}
			for _, text := range targets {
				t, err := ParseTarget(text)
				if err != nil {
					return err
				}
				c.Targets = append(c.Targets, t)
			}
			if len(c.Targets) == 0 {
				return errors.New("nothing to compare: give at least one --target")
			}
			if c.Cases, err = casesByName(suite, own); err != nil {
				return err
			}
			result, err := Compare(cmd.Context(), c)
			return errors.Join(err, showCompared(cmd.OutOrStdout(), &result, f.output, markdown))
		},
		SilenceUsage: true,
	}
	f.register(cmd)
	p := cmd.Flags()
	p.StringArrayVar(&targets, "target", nil, "a broker: name=host:port[,pub=…][,sub=…][,pid=N]; repeatable, the first is what ratios are to")
	p.StringSliceVar(&suite, "suite", nil, "named cases: "+caseNames())
	p.IntVar(&rounds, "rounds", 3, "runs of each case against each target")
	p.StringVar(&markdown, "markdown", "", "also write the table to this file")
	return cmd
}

func showCompared(out io.Writer, c *Compared, form, markdown string) error {
	if markdown != "" {
		if err := os.WriteFile(markdown, []byte(c.Markdown()), 0o644); err != nil {
			return fmt.Errorf("write --markdown: %w", err)
		}
	}
	if form == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(c)
	}
	_, err := io.WriteString(out, c.Markdown())
	return err
}
