package main

import (
	"bytes"
	"crypto/md5" // dpkg's list of checksums is of this kind; it protects nothing
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"
)

// debControl is the package's control file (deb-control(5)).
const debControl = `Package: mqcluster
Version: %s
Architecture: %s
Maintainer: %s
Installed-Size: %d
Depends: systemd | systemd-standalone-sysusers | systemd-sysusers
Section: net
Priority: optional
Homepage: https://github.com/mqcluster/mqcluster
Description: highly available MQTT broker
 A broker for MQTT 3.1, 3.1.1 and 5: three or more equal nodes, each of which
 serves every client. A QoS 1 or 2 message is acknowledged when a majority of the
 nodes has it on disk, so any one of them may die.
`

// maintainer has no address: there is none to write to.
const maintainer = "The mqcluster authors <packages@mqcluster.invalid>"

// deb makes a Debian package (deb(5)) of what is built.
func deb(b *build) ([]byte, error) {
	version, err := debianVersion(b.version)
	if err != nil {
		return nil, err
	}
	files, err := b.installed()
	if err != nil {
		return nil, err
	}
	docs, err := b.debDocs(version)
	if err != nil {
		return nil, err
	}
	files = append(files, docs...)
	control, err := b.debControlFiles(version, files)
	if err != nil {
		return nil, err
	}
	var members []file
	for _, part := range []struct {
		name  string
		files []file
	}{{"control.tar.gz", control}, {"data.tar.gz", files}} {
		archive, err := tarball(part.files, "./", b.when)
		if err != nil {
			return nil, err
		}
		if archive, err = gzipped(archive); err != nil {
			return nil, err
		}
		members = append(members, file{Path: part.name, Data: archive})
	}
	return ar(append([]file{{Path: "debian-binary", Data: []byte("2.0\n")}}, members...), b.when), nil
}

// debControlFiles are what dpkg reads and runs.
func (b *build) debControlFiles(version string, files []file) ([]file, error) {
	var sums, conffiles strings.Builder
	size := 0
	for _, f := range withParents(files) {
		size += (len(f.Data) + 1023) / 1024
		switch {
		case f.dir():
			size++
		case strings.HasPrefix(f.Path, "etc/"):
			fmt.Fprintf(&conffiles, "/%s\n", f.Path)
		default:
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.Data), f.Path)
		}
	}
	control := []file{
		{Path: "control", Mode: 0o644, Data: fmt.Appendf(nil, debControl, version, b.arch, maintainer, size)},
		{Path: "conffiles", Mode: 0o644, Data: []byte(conffiles.String())},
		{Path: "md5sums", Mode: 0o644, Data: []byte(sums.String())},
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		text, err := b.read("deploy/packages/debian/" + script)
		if err != nil {
			return nil, err
		}
		control = append(control, file{Path: script, Mode: 0o755, Data: text})
	}
	return control, nil
}

// debDocs are what Debian wants to find in a package's own folder of documents.
func (b *build) debDocs(version string) ([]file, error) {
	changes, err := b.read("CHANGELOG.md")
	if err != nil {
		return nil, err
	}
	entry := fmt.Sprintf("mqcluster (%s) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n",
		version, maintainer, b.when.Format(time.RFC1123Z))
	copyright, err := b.copyright()
	if err != nil {
		return nil, err
	}
	docs := []file{{Path: "usr/share/doc/mqcluster/copyright", Mode: 0o644, Data: copyright}}
	for name, text := range map[string][]byte{"changelog.gz": changes, "changelog.Debian.gz": []byte(entry)} {
		if text, err = gzipped(text); err != nil {
			return nil, err
		}
		docs = append(docs, file{Path: path.Join("usr/share/doc/mqcluster", name), Mode: 0o644, Data: text})
	}
	return docs, nil
}

// described matches what git describe says of a commit behind a tag.
var described = regexp.MustCompile(`-([0-9]+)-g([0-9a-f]+)`)

// debianVersion writes a version of ours so that Debian sorts it as it is meant: a
// pre-release before its release, a commit behind it. What has no number is older
// than all that have.
func debianVersion(version string) (string, error) {
	v := strings.TrimPrefix(version, "v")
	v, dirty := strings.CutSuffix(v, "-dirty")
	v = described.ReplaceAllString(v, "+$1.g$2")
	v = strings.ReplaceAll(v, "-", "~")
	if v == "" || v[0] < '0' || v[0] > '9' {
		v = "0~" + v
	}
	if dirty {
		v += "+dirty"
	}
	if !regexp.MustCompile(`^[0-9][A-Za-z0-9.+~]*$`).MatchString(v) {
		return "", fmt.Errorf("version %q cannot be one of Debian's: use letters, digits, dots, + and -", version)
	}
	return v + "-1", nil
}

// ar writes the archive that holds a package's parts.
func ar(files []file, when time.Time) []byte {
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	for _, f := range files {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", f.Path, when.Unix(), 0, 0, 0o100644, len(f.Data))
		out.Write(f.Data)
		if len(f.Data)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}
