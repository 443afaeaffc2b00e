package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// A file is an entry of a package. Its path has no leading slash; one that ends with
// a slash is a directory. Owner is root or the number that Owner says.
type file struct {
	Path  string
	Mode  fs.FileMode
	Owner int // user and group
	Data  []byte
}

func (f file) dir() bool { return strings.HasSuffix(f.Path, "/") }

// withParents adds the directories above the files, and sorts: a directory comes
// before what is in it.
func withParents(files []file) []file {
	all := slices.Clone(files)
	there := map[string]bool{}
	for _, f := range files {
		there[f.Path] = true
	}
	for _, f := range files {
		for dir := path.Dir(strings.TrimSuffix(f.Path, "/")); dir != "."; dir = path.Dir(dir) {
			if !there[dir+"/"] {
				there[dir+"/"] = true
				all = append(all, file{Path: dir + "/", Mode: 0o755})
			}
		}
	}
	slices.SortFunc(all, func(a, b file) int { return strings.Compare(a.Path, b.Path) })
	return all
}

// tarball writes the files and the directories above them. Equal files give equal
// bytes: nothing of the machine or the hour gets in. prefix stands before every path.
func tarball(files []file, prefix string, when time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if prefix != "" {
		files = append([]file{{Path: "/", Mode: 0o755}}, withParents(files)...)
	} else {
		files = withParents(files)
	}
	for _, f := range files {
		header := &tar.Header{
			Name: prefix + strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode.Perm()), Size: int64(len(f.Data)), ModTime: when,
			Uid: f.Owner, Gid: f.Owner, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
		}
		if f.dir() {
			header.Typeflag = tar.TypeDir
		}
		if f.Owner == 0 {
			header.Uname, header.Gname = "root", "root"
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("write %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("end the archive: %w", err)
	}
	return out.Bytes(), nil
}

// gzipped compresses, without a name or a time in the header.
func gzipped(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return out.Bytes(), nil
}
