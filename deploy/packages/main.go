// Command packages makes a Debian package or an OCI image of the program, byte for
// byte the same from the same program, without root and without a daemon. It is no
// part of the program.
//
//	packages -program bin/mqcluster -version v1.2.3 -out dist deb
//	packages -program bin/mqcluster -version v1.2.3 -roots bin/roots.pem -out dist image
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

func main() {
	path, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

// run makes what the arguments ask for and returns where it is.
func run(args []string) (string, error) {
	flags := flag.NewFlagSet("packages", flag.ContinueOnError)
	b := &build{ctx: context.Background()}
	flags.StringVar(&b.source, "source", ".", "root of the repository")
	flags.StringVar(&b.program, "program", "bin/mqcluster", "the program to pack")
	flags.StringVar(&b.host, "host", "", "the same program for this machine, where that is another (default: the program)")
	flags.StringVar(&b.version, "version", "devel", "its version")
	flags.StringVar(&b.arch, "arch", runtime.GOARCH, "its architecture: amd64 or arm64")
	epoch := flags.Int64("epoch", 0, "time of everything in the package, in seconds since 1970")
	rootsFile := flags.String("roots", "", "image: file with the certificates of public authorities")
	out := flags.String("out", "dist", "folder for the package")
	if err := flags.Parse(args); err != nil {
		return "", err
	}
	b.when = time.Unix(*epoch, 0).UTC()
	if b.host == "" {
		b.host = b.program
	}
	var name string
	var data []byte
	var err error
	switch flags.Arg(0) {
	case "deb":
		name = fmt.Sprintf("mqcluster_%s.deb", b.arch)
		data, err = deb(b)
	case "image":
		roots, readErr := os.ReadFile(*rootsFile)
		if readErr != nil {
			return "", fmt.Errorf("read the roots: %w", readErr)
		}
		name = fmt.Sprintf("mqcluster_%s.oci.tar", b.arch)
		data, err = image(b, roots)
	default:
		return "", fmt.Errorf("%q is nothing that can be made: say deb or image", flags.Arg(0))
	}
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return "", fmt.Errorf("make the folder: %w", err)
	}
	path := filepath.Join(*out, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return "", fmt.Errorf("write the package: %w", err)
	}
	return path, nil
}
