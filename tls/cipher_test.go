package mtls

import (
	"crypto/tls"
	"slices"
	"testing"
)

func TestParseCiphers(t *testing.T) {
	ids, err := parseCiphers([]string{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"})
	if err != nil || !slices.Equal(ids, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}) {
		t.Errorf("%v, %v", ids, err)
	}
	for name, says := range map[string]string{
		"ECDHE-RSA-AES128-GCM-SHA256":            "unknown cipher ECDHE-RSA-AES128-GCM-SHA256, nearest is TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
		"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA38": "nearest is TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
		"TLS_AES_128_GCM_SHA256":                 "of TLS 1.3",
		"TLS_RSA_WITH_RC4_128_SHA":               "insecure: use",
		"":                                       "unknown cipher",
	} {
		_, err := parseCiphers([]string{name})
		wantErr(t, err, nil, says)
	}
}
