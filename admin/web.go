package admin

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// web is the dashboard, as it stands: what a browser gets was not built from
// anything.
//
//go:embed web
var web embed.FS

// webPolicy lets the dashboard use what comes with it and nothing else.
const webPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// asset is a file of the dashboard.
type asset struct {
	kind, tag   string
	plain, gzip []byte
}

// webHandler serves the dashboard. It holds no secret, so that anybody may load it.
func webHandler() http.Handler {
	assets := loadAssets()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		if name == "" {
			name = "index.html"
		}
		a := assets[name]
		h := w.Header()
		h.Set("Content-Security-Policy", webPolicy)
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "the dashboard is only read", http.StatusMethodNotAllowed)
			return
		case a == nil:
			http.Error(w, "there is no such page: the dashboard is at /", http.StatusNotFound)
			return
		}
		h.Set("Cache-Control", "no-cache") // asked for again, by its tag
		h.Set("ETag", a.tag)
		h.Set("Vary", "Accept-Encoding")
		if r.Header.Get("If-None-Match") == a.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", a.kind)
		text := a.plain
		if a.gzip != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			text = a.gzip
		}
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodGet {
			_, _ = w.Write(text) // the browser is gone if this fails
		}
	})
}

// loadAssets reads the dashboard out of the program.
func loadAssets() map[string]*asset {
	all := map[string]*asset{}
	root, _ := fs.Sub(web, "web") // it is there: the program was built with it
	_ = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		a := &asset{kind: mediaType(name), plain: text, tag: `"` + hex.EncodeToString(sum[:12]) + `"`}
		var small bytes.Buffer
		z, _ := gzip.NewWriterLevel(&small, gzip.BestCompression) // a level that exists
		if _, err := z.Write(text); err == nil && z.Close() == nil && small.Len() < len(text) {
			a.gzip = small.Bytes()
		}
		all[name] = a
		return nil
	})
	return all
}

// mediaType does not ask the machine, which may say anything.
func mediaType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".webmanifest":
		return "application/manifest+json"
	}
	return mime.TypeByExtension(path.Ext(name))
}
