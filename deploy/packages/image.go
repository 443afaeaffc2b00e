package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// imageUser owns the data in the image and runs the program. It is no user of any
// host by name, and not 0.
const imageUser = 65532

// The media types of the OCI image specification.
const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// A descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type imageConfig struct {
	Created time.Time `json:"created"`
	platform
	Config struct {
		User         string              `json:"User"`
		Env          []string            `json:"Env"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Entrypoint   []string            `json:"Entrypoint"`
		Cmd          []string            `json:"Cmd"`
		Volumes      map[string]struct{} `json:"Volumes"`
		WorkingDir   string              `json:"WorkingDir"`
		Labels       map[string]string   `json:"Labels"`
		StopSignal   string              `json:"StopSignal"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// image makes an archive of an OCI image layout that docker load reads, too: the
// program, the roots that public servers' certificates are judged by, the terms, and
// nothing else. It needs no daemon.
func image(b *build, roots []byte) ([]byte, error) {
	layer, err := b.layer(roots)
	if err != nil {
		return nil, err
	}
	compressed, err := gzipped(layer)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(b.imageConfig(digest(layer)))
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": describe(typeConfig, config),
		"layers": []descriptor{describe(typeLayer, compressed)},
	})
	if err != nil {
		return nil, err
	}
	top := describe(typeManifest, manifest)
	top.Platform = &platform{b.arch, "linux"}
	top.Annotations = map[string]string{"org.opencontainers.image.ref.name": b.tag()}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{top}})
	if err != nil {
		return nil, err
	}
	// What docker load looks for where it does not know the layout.
	older, err := json.Marshal([]map[string]any{{
		"Config": blob(config), "RepoTags": []string{"mqcluster:" + b.tag()}, "Layers": []string{blob(compressed)},
	}})
	if err != nil {
		return nil, err
	}
	files := []file{
		{Path: "oci-layout", Mode: 0o644, Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{Path: "index.json", Mode: 0o644, Data: index},
		{Path: "manifest.json", Mode: 0o644, Data: older},
	}
	for _, data := range [][]byte{manifest, config, compressed} {
		files = append(files, file{Path: blob(data), Mode: 0o644, Data: data})
	}
	return tarball(files, "", b.when)
}

// layer is the image's only one, not compressed.
func (b *build) layer(roots []byte) ([]byte, error) {
	program, err := b.static()
	if err != nil {
		return nil, err
	}
	if err := checkRoots(roots); err != nil {
		return nil, err
	}
	copyright, err := b.copyright()
	if err != nil {
		return nil, err
	}
	return tarball([]file{
		{Path: "usr/bin/mqcluster", Mode: 0o755, Data: program},
		{Path: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Data: roots},
		{Path: "usr/share/doc/mqcluster/copyright", Mode: 0o644, Data: copyright},
		// A new volume takes its owner from here; the second is for what containers
		// hand to each other, as a join token.
		{Path: "var/lib/mqcluster/", Mode: 0o700, Owner: imageUser},
		{Path: "run/mqcluster/", Mode: 0o700, Owner: imageUser},
	}, "", b.when)
}

// checkRoots wants certificates, and only those.
func checkRoots(roots []byte) error {
	n := 0
	for rest := roots; ; n++ {
		block, more := pem.Decode(rest)
		if block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			return errors.Join(errors.New("the roots hold something else than certificates"), err)
		}
		rest = more
	}
	if n < 50 {
		return fmt.Errorf("the roots are only %d certificates: that is no bundle of public authorities", n)
	}
	return nil
}

func (b *build) imageConfig(layer string) imageConfig {
	c := imageConfig{Created: b.when, platform: platform{b.arch, "linux"}}
	c.Config.User = fmt.Sprintf("%d:%d", imageUser, imageUser)
	c.Config.ExposedPorts = map[string]struct{}{"8883/tcp": {}, "7883/tcp": {}, "9883/tcp": {}}
	c.Config.Env = []string{"PATH=/usr/bin"}
	c.Config.Entrypoint = []string{"/usr/bin/mqcluster"}
	c.Config.Cmd = []string{"run"}
	c.Config.Volumes = map[string]struct{}{"/var/lib/mqcluster": {}}
	c.Config.WorkingDir = "/var/lib/mqcluster"
	c.Config.StopSignal = "SIGTERM"
	c.Config.Labels = map[string]string{
		"org.opencontainers.image.title":       "mqcluster",
		"org.opencontainers.image.description": "A highly available MQTT broker",
		"org.opencontainers.image.source":      "https://github.com/mqcluster/mqcluster",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     b.version,
		"org.opencontainers.image.created":     b.when.Format(time.RFC3339),
	}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{layer}
	return c
}

// tag is the version as an image may be called.
func (b *build) tag() string {
	return strings.NewReplacer("+", "-", "~", "-").Replace(strings.TrimPrefix(b.version, "v"))
}

func describe(mediaType string, data []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digest(data), Size: len(data)}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// blob is where data lies in a layout.
func blob(data []byte) string { return "blobs/" + strings.Replace(digest(data), ":", "/", 1) }
