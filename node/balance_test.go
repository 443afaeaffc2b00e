package node

import (
	"testing"

	"github.com/mqcluster/mqcluster/admin"
)

func TestShare(t *testing.T) {
	for _, tt := range []struct {
		name  string
		nodes []admin.Share
		want  int
	}{
		{"nobody", nil, 0},
		{"all are out", []admin.Share{{Clients: 7, Out: true}}, 0},
		{"even", []admin.Share{{Clients: 30}, {Clients: 30}, {}}, 20},
		{"one more", []admin.Share{{Clients: 31}, {Clients: 30}, {}}, 21},
		{"who is out counts for nothing", []admin.Share{{Clients: 10}, {Clients: 4}, {Clients: 90, Out: true}}, 7},
	} {
		if got := share(tt.nodes); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
