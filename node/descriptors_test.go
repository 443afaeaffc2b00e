package node

import (
	"strings"
	"testing"
)

func TestDescriptorWarning(t *testing.T) {
	config := Config{Limits: LimitsConfig{MaxConnections: 50_000, UnauthenticatedConnections: 1000}}
	if got := config.descriptorWarning(53_000); got != "" {
		t.Error(got)
	}
	if got := config.descriptorWarning(52_999); !strings.Contains(got, "takes 53000 open files and this process may have 52999") {
		t.Error(got)
	}
	config.Limits.MaxConnections = 0
	if got := config.DescriptorWarning(); got != "" {
		t.Error(got)
	}
}
