package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Set by the linker (-X main.version=… -X main.commit=…); the only package
// variables, because the linker knows no other way.
var version, commit string

// Build is what this binary was made from.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	// Level is the newest feature level that this binary understands.
	Level uint32 `json:"feature_level"`
}

// readBuild returns what the linker set, or else what the Go tool recorded.
func readBuild() Build {
	build := Build{Version: version, Commit: commit, Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build
	}
	build.Version = cmp.Or(build.Version, info.Main.Version)
	dirty := ""
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			build.Commit = cmp.Or(build.Commit, setting.Value)
		case "vcs.modified":
			if setting.Value == "true" && commit == "" {
				dirty = "+changes"
			}
		}
	}
	build.Commit += dirty
	return build
}

func (a *App) versionCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Prints the version, the commit, the Go release and the feature level of this binary.",
		Example: "  mqcluster version -o json",
		Args:    argCount(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if out.json() {
				return out.value(a.Build)
			}
			fmt.Fprintf(a.Out, "mqcluster %s\ncommit        %s\ngo            %s\nfeature level %d\n",
				cmp.Or(a.Build.Version, "(devel)"), cmp.Or(a.Build.Commit, "unknown"), a.Build.Go, a.Build.Level)
			return nil
		},
	}
	out.flag(a, cmd)
	return cmd
}
