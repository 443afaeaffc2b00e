//go:build linux

package packages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unpacked is an archive: entries by name, and their headers.
type unpacked map[string]entry

type entry struct {
	header *tar.Header
	data   []byte
}

func untar(t *testing.T, r io.Reader) unpacked {
	t.Helper()
	all := unpacked{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = entry{h, data}
	}
}

// blob returns the one with the digest, which it must have.
func (u unpacked) blob(t *testing.T, digest string) []byte {
	t.Helper()
	e, ok := u["blobs/"+strings.Replace(digest, ":", "/", 1)]
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(e.data)); !ok || got != digest {
		t.Fatalf("blob %s is there: %v, and its digest is %s", digest, ok, got)
	}
	return e.data
}

type pointer struct {
	Digest string
	Size   int
}

// TestImage unpacks the image: one program, the roots and the terms, nothing to log in
// with or to run but that, and no root. Then it runs the program where nothing else is.
func TestImage(t *testing.T) {
	need(t)
	file, err := os.Open(dist(t, "mqcluster_"+runtime.GOARCH+".oci.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	archive := untar(t, file)
	layer, config := layerAndConfig(t, archive)
	if got := config.User; got == "" || strings.HasPrefix(got, "0") || strings.HasPrefix(got, "root") {
		t.Errorf("it runs as %q", got)
	}
	if diff := cmp.Diff([]string{"/usr/bin/mqcluster"}, config.Entrypoint); diff != "" {
		t.Error(diff)
	}
	for _, label := range []string{"title", "version", "licenses", "source"} {
		if config.Labels["org.opencontainers.image."+label] == "" {
			t.Errorf("it has no label %s", label)
		}
	}
	var executables, files []string
	for name, e := range layer {
		if e.header.Typeflag == tar.TypeDir {
			continue
		}
		files = append(files, name)
		if e.header.Mode&0o111 != 0 {
			executables = append(executables, name)
		}
		if e.header.Mode&0o7022 != 0 || e.header.Typeflag != tar.TypeReg {
			t.Errorf("%s: type %c, mode %o", name, e.header.Typeflag, e.header.Mode)
		}
	}
	if diff := cmp.Diff([]string{"usr/bin/mqcluster"}, executables); diff != "" {
		t.Errorf("executables: %s", diff)
	}
	if len(files) != 3 || len(layer["usr/share/doc/mqcluster/copyright"].data) == 0 {
		t.Errorf("it holds %v", files)
	}
	if pool := x509.NewCertPool(); !pool.AppendCertsFromPEM(layer["etc/ssl/certs/ca-certificates.crt"].data) {
		t.Error("it has no roots")
	}
	if h := layer["var/lib/mqcluster/"].header; h == nil || fmt.Sprintf("%d:%d", h.Uid, h.Gid) != config.User || h.Mode != 0o700 {
		t.Errorf("the data directory: %+v", h)
	}
	runAlone(t, layer)
}

type containerConfig struct {
	User       string
	Entrypoint []string
	Labels     map[string]string
}

// layerAndConfig follows the layout from its index, and what docker load reads.
func layerAndConfig(t *testing.T, archive unpacked) (unpacked, containerConfig) {
	t.Helper()
	var index struct{ Manifests []pointer }
	read(t, archive["index.json"].data, &index)
	if len(index.Manifests) != 1 || archive["oci-layout"].data == nil {
		t.Fatalf("index.json: %+v", index)
	}
	var manifest struct {
		Config pointer
		Layers []pointer
	}
	read(t, archive.blob(t, index.Manifests[0].Digest), &manifest)
	var config struct {
		OS, Architecture string
		Config           containerConfig
		RootFS           struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	read(t, archive.blob(t, manifest.Config.Digest), &config)
	packed := archive.blob(t, manifest.Layers[0].Digest)
	if len(manifest.Layers) != 1 || manifest.Layers[0].Size != len(packed) || config.OS != "linux" || config.Architecture == "" {
		t.Errorf("%+v %+v", manifest, config)
	}
	var older []struct {
		Config           string
		RepoTags, Layers []string
	}
	read(t, archive["manifest.json"].data, &older)
	name := func(p pointer) string { return "blobs/" + strings.Replace(p.Digest, ":", "/", 1) }
	if len(older) != 1 || older[0].Config != name(manifest.Config) || !cmp.Equal(older[0].Layers, []string{name(manifest.Layers[0])}) || len(older[0].RepoTags) != 1 {
		t.Errorf("manifest.json: %+v", older)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(plain)); !cmp.Equal(config.RootFS.DiffIDs, []string{got}) {
		t.Errorf("diff_ids %v, the layer is %s", config.RootFS.DiffIDs, got)
	}
	return untar(t, bytes.NewReader(plain)), config.Config
}

func read(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %q", err, data)
	}
}

// runAlone runs the program in a root that has only what the image has, as the user of
// the image. No C library of any age is there.
func runAlone(t *testing.T, layer unpacked) {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, e := range layer {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if e.header.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, e.data, os.FileMode(e.header.Mode)); err != nil {
			t.Fatal(err)
		}
	}
	data := layer["var/lib/mqcluster/"].header
	if err := os.Chown(filepath.Join(root, "var/lib/mqcluster"), data.Uid, data.Gid); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"version"},
		{"init", "--node", "a", "--mesh.advertise", "127.0.0.1:7883", "--token-out", "/var/lib/mqcluster/token"},
		{"config", "check"},
	} {
		cmd := exec.Command("/usr/bin/mqcluster", args...)
		cmd.Dir, cmd.Env = "/", []string{}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uint32(data.Uid), Gid: uint32(data.Gid)}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
}
