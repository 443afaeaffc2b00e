package fakeaws

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A signature is what a request says of who sent it, by version 4.
type signature struct {
	key, date, region, service string
	signed                     []string
	sum                        string
}

// parseSignature reads the Authorization header.
func parseSignature(header string) (signature, error) {
	var s signature
	rest, ok := strings.CutPrefix(header, "AWS4-HMAC-SHA256 ")
	if !ok {
		return s, fmt.Errorf("the request is not signed by version 4: %q", header)
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			scope := strings.Split(value, "/")
			if len(scope) != 5 || scope[4] != "aws4_request" {
				return s, fmt.Errorf("the scope %q is none", value)
			}
			s.key, s.date, s.region, s.service = scope[0], scope[1], scope[2], scope[3]
		case "SignedHeaders":
			s.signed = strings.Split(value, ";")
		case "Signature":
			s.sum = value
		}
	}
	if s.key == "" || len(s.signed) == 0 || s.sum == "" {
		return s, errors.New("the signature has no credential, headers or sum")
	}
	return s, nil
}

// check recomputes the signature of a request with the secret.
func (s signature) check(r *http.Request, body []byte, secret string) error {
	if !slices.Contains(s.signed, "host") {
		return errors.New("the host is not signed")
	}
	if r.Header.Get("X-Amz-Security-Token") != "" && !slices.Contains(s.signed, "x-amz-security-token") {
		return errors.New("the session token is not signed")
	}
	payload := r.Header.Get("X-Amz-Content-Sha256")
	switch sum := hexSum(body); {
	case payload == "" && s.service == "s3":
		return errors.New("the header x-amz-content-sha256 is missing")
	case payload == "":
		payload = sum
	case payload != sum && payload != "UNSIGNED-PAYLOAD" && !strings.HasPrefix(payload, "STREAMING-"):
		return errors.New("the body is another than the signed one")
	}
	path := r.URL.EscapedPath()
	if s.service != "s3" {
		path = strings.ReplaceAll(url.PathEscape(path), "%2F", "/")
	}
	var canonical strings.Builder
	fmt.Fprintf(&canonical, "%s\n%s\n%s\n", r.Method, path, strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20"))
	for _, name := range s.signed {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		}
		fmt.Fprintf(&canonical, "%s:%s\n", name, strings.Join(strings.Fields(value), " "))
	}
	fmt.Fprintf(&canonical, "\n%s\n%s", strings.Join(s.signed, ";"), payload)
	date := r.Header.Get("X-Amz-Date")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", date, strings.Join([]string{s.date, s.region, s.service, "aws4_request"}, "/"), hexSum([]byte(canonical.String()))}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.date, s.region, s.service, "aws4_request", text} {
		key = mac(key, part)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(key)), []byte(s.sum)) {
		return fmt.Errorf("the signature is wrong; signed was to be:\n%s", canonical.String())
	}
	return nil
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
