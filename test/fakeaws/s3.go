//go:build linux

package fakeaws

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A bucket keeps every version of what was put into it.
type bucket struct {
	name    string
	config  map[string][]byte // by the name of the sub-resource
	objects []object
}

type object struct {
	key, version string
	content      []byte
}

// What a bucket says of a sub-resource that nobody has set: an error, or a document.
var (
	unset = map[string]string{
		"policy": "NoSuchBucketPolicy", "cors": "NoSuchCORSConfiguration", "website": "NoSuchWebsiteConfiguration", "lifecycle": "NoSuchLifecycleConfiguration",
		"replication": "ReplicationConfigurationNotFoundError", "encryption": "ServerSideEncryptionConfigurationNotFoundError",
		"object-lock": "ObjectLockConfigurationNotFoundError", "tagging": "NoSuchTagSet", "publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
	}
	initial = map[string]string{
		"versioning": "<VersioningConfiguration/>", "accelerate": "<AccelerateConfiguration/>", "logging": "<BucketLoggingStatus/>",
		"requestPayment": "<RequestPaymentConfiguration><Payer>BucketOwner</Payer></RequestPaymentConfiguration>",
		"location":       "<LocationConstraint>" + Region + "</LocationConstraint>",
		"acl":            "<AccessControlPolicy><Owner><ID>owner</ID></Owner><AccessControlList></AccessControlList></AccessControlPolicy>",
	}
	// What is read only, or never set by the module, is not here.
	settable = []string{"policy", "lifecycle", "encryption", "tagging", "publicAccessBlock", "versioning"}
)

// serveS3 answers S3 with the bucket in the path. mu is held.
func (c *Cloud) serveS3(w http.ResponseWriter, r *http.Request, body []byte, role string) {
	name, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	sub := ""
	for q := range r.URL.Query() {
		if _, ok := unset[q]; ok || initial[q] != "" || q == "versions" || q == "delete" {
			sub = q
		}
	}
	what := fmt.Sprintf("%s %s", r.Method, map[bool]string{true: "object", false: "bucket?" + sub}[key != ""])
	c.actions["s3:"+what]++
	var err error
	if role != "" {
		action, on := "s3:ListBucket", "arn:aws:s3:::"+name
		if key != "" {
			action, on = map[string]string{http.MethodPut: "s3:PutObject", http.MethodGet: "s3:GetObject", http.MethodHead: "s3:GetObject", http.MethodDelete: "s3:DeleteObject"}[r.Method], on+"/"+key
		}
		err = c.authorize(role, action, on, nil)
	}
	var out []byte
	if err == nil {
		out, err = c.s3(w, r, body, name, key, sub)
	}
	if err != nil {
		var f *fault
		if !errors.As(err, &f) {
			f = faultf("InternalError", "%v", err)
			c.fail("s3: %s: %v", what, err)
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(f.status)
		if r.Method != http.MethodHead {
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>", f.code)
			_ = xml.EscapeText(w, []byte(f.message)) // who has gone asks again
			fmt.Fprint(w, "</Message></Error>")
		}
		return
	}
	switch {
	case len(out) > 0:
		_, _ = w.Write(out)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (c *Cloud) s3(w http.ResponseWriter, r *http.Request, body []byte, name, key, sub string) ([]byte, error) {
	b := c.buckets[name]
	if b == nil && (r.Method != http.MethodPut || key != "" || sub != "") {
		return nil, &fault{http.StatusNotFound, "NoSuchBucket", "there is no bucket " + name}
	}
	switch {
	case key != "" && r.Method == http.MethodPut:
		return nil, c.putObject(w, b, key, body)
	case key != "":
		return nil, &fault{http.StatusNotImplemented, "NotImplemented", r.Method + " of an object"}
	case sub == "versions":
		return b.versions(), nil
	case sub == "delete" && r.Method == http.MethodPost:
		return b.deleteObjects(body)
	case sub != "":
		return c.subResource(w, r, b, body, sub)
	case r.Method == http.MethodPut:
		if b != nil {
			return nil, &fault{http.StatusConflict, "BucketAlreadyOwnedByYou", "there is a bucket " + name}
		}
		c.buckets[name] = &bucket{name: name, config: map[string][]byte{}}
		w.Header().Set("Location", "/"+name)
		return nil, nil
	case r.Method == http.MethodHead:
		w.Header().Set("X-Amz-Bucket-Region", Region)
		return nil, nil
	case r.Method == http.MethodDelete:
		if len(b.objects) > 0 {
			return nil, &fault{http.StatusConflict, "BucketNotEmpty", "the bucket has objects"}
		}
		delete(c.buckets, name)
		return nil, nil
	}
	return nil, fmt.Errorf("%s %s is not known", r.Method, r.URL)
}

// subResource reads, sets or takes away one of the bucket's settings.
func (c *Cloud) subResource(w http.ResponseWriter, r *http.Request, b *bucket, body []byte, sub string) ([]byte, error) {
	if sub == "lifecycle" {
		w.Header().Set("X-Amz-Transition-Default-Minimum-Object-Size", "all_storage_classes_128K")
	}
	switch r.Method {
	case http.MethodGet:
		if text, ok := b.config[sub]; ok {
			return text, nil
		}
		if text := initial[sub]; text != "" {
			return []byte(text), nil
		}
		return nil, &fault{http.StatusNotFound, unset[sub], "it is not set"}
	case http.MethodPut:
		if slices.Contains(settable, sub) {
			b.config[sub] = body
			return nil, nil
		}
	case http.MethodDelete:
		if slices.Contains(settable, sub) {
			delete(b.config, sub)
			return nil, nil
		}
	}
	return nil, fmt.Errorf("%s %s is not known", r.Method, r.URL)
}

// putObject demands of the bucket what the module promises of it.
func (c *Cloud) putObject(w http.ResponseWriter, b *bucket, key string, body []byte) error {
	for sub, part := range map[string]string{"versioning": "<Status>Enabled</Status>", "encryption": "<SSEAlgorithm>", "publicAccessBlock": "<RestrictPublicBuckets>true</RestrictPublicBuckets>", "policy": "aws:SecureTransport"} {
		if !bytes.Contains(b.config[sub], []byte(part)) {
			c.fail("s3: %s is put into a bucket whose %s has no %s", key, sub, part)
		}
	}
	o := object{key: key, version: newID("v"), content: body}
	b.objects = append(b.objects, o)
	w.Header().Set("X-Amz-Version-Id", o.version)
	return nil
}

func (b *bucket) versions() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "<ListVersionsResult><Name>%s</Name><IsTruncated>false</IsTruncated>", b.name)
	for _, o := range b.objects {
		fmt.Fprintf(&out, "<Version><Key>%s</Key><VersionId>%s</VersionId><IsLatest>true</IsLatest><LastModified>%s</LastModified><Size>%d</Size></Version>", o.key, o.version, time.Now().UTC().Format(time.RFC3339), len(o.content))
	}
	out.WriteString("</ListVersionsResult>")
	return out.Bytes()
}

func (b *bucket) deleteObjects(body []byte) ([]byte, error) {
	var q struct {
		Object []struct {
			Key       string
			VersionId string
		}
	}
	if err := xml.Unmarshal(body, &q); err != nil {
		return nil, fmt.Errorf("read what is to be deleted: %w", err)
	}
	for _, d := range q.Object {
		b.objects = slices.DeleteFunc(b.objects, func(o object) bool { return o.key == d.Key && o.version == d.VersionId })
	}
	return []byte("<DeleteResult/>"), nil
}

// Objects lists what is in a bucket: content by key, of the newest version.
func (c *Cloud) Objects(name string) map[string][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string][]byte{}
	if b := c.buckets[name]; b != nil {
		for _, o := range b.objects {
			out[o.key] = o.content
		}
	}
	return out
}
