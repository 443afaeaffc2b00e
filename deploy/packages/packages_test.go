package main

import (
	"bytes"
	"encoding/pem"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDebianVersion(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3":                  "1.2.3-1",
		"v1.2.3-rc.1":             "1.2.3~rc.1-1",
		"v1.2.3-5-gabc1234":       "1.2.3+5.gabc1234-1",
		"v1.2.3-5-gabc1234-dirty": "1.2.3+5.gabc1234+dirty-1",
		"devel":                   "0~devel-1",
	} {
		if got, err := debianVersion(version); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", version, got, err, want)
		}
	}
	if got, err := debianVersion("v1 2"); err == nil {
		t.Errorf("a version with a blank became %s", got)
	}
}

// Parents come first, and the order in which files were found does not matter.
func TestTarballIsTheSameAgain(t *testing.T) {
	a := file{Path: "usr/bin/a", Mode: 0o755, Data: []byte("a")}
	b := file{Path: "etc/b/", Mode: 0o700, Owner: 7}
	one, err := tarball([]file{a, b}, "./", time.Unix(5, 0))
	if err != nil {
		t.Fatal(err)
	}
	two, err := tarball([]file{b, a}, "./", time.Unix(5, 0))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("two orders give two archives")
	}
	var paths []string
	for _, f := range withParents([]file{a, b}) {
		paths = append(paths, f.Path)
	}
	if diff := cmp.Diff([]string{"etc/", "etc/b/", "usr/", "usr/bin/", "usr/bin/a"}, paths); diff != "" {
		t.Error(diff)
	}
}

func TestAr(t *testing.T) {
	got := string(ar([]file{{Path: "debian-binary", Data: []byte("2.0\n")}, {Path: "odd", Data: []byte("1")}}, time.Unix(5, 0)))
	want := "!<arch>\n" +
		"debian-binary   5           0     0     100644  4         `\n2.0\n" +
		"odd             5           0     0     100644  1         `\n1\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A program that needs a C library, or is of another machine, is not packed.
func TestStatic(t *testing.T) {
	self, err := os.Executable() // built without cgo, as the program is
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	static, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkStatic(static, "riscv64"); err == nil {
		t.Error("an architecture that there are no packages for")
	}
	if err := checkStatic([]byte("#!/bin/sh\n"), "amd64"); err == nil {
		t.Error("a script is a program")
	}
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Skip(err)
	}
	for arch := range machines {
		if err := checkStatic(shell, arch); err == nil {
			t.Errorf("/bin/sh, which needs a C library, passes for %s", arch)
		}
	}
}

func TestRoots(t *testing.T) {
	junk := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")})
	for name, roots := range map[string][]byte{"none": nil, "junk": junk} {
		if err := checkRoots(roots); err == nil || strings.Contains(err.Error(), "\n\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
