package sim

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// show writes out what the log says of the words in SIM_SHOW, for whoever looks
// for the cause of a failure.
func (t *trace) show() string {
	words := strings.Fields(os.Getenv("SIM_SHOW"))
	if len(words) == 0 {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var indexes []uint64
	for i := range t.entries {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	var b strings.Builder
	for _, i := range indexes {
		a := t.entries[i]
		if a.kind != raft.LogCommand {
			continue
		}
		var e logpb.Entry
		if err := proto.Unmarshal(a.data, &e); err != nil {
			fmt.Fprintf(&b, "%d: %v\n", i, err)
			continue
		}
		lines := []string{fmt.Sprint(e.GetNodeUp(), e.GetNodeDown(), e.GetTick())}
		if p := e.GetPack(); p != nil {
			lines = nil
			for n, it := range p.Items {
				lines = append(lines, fmt.Sprintf("%s pack %d item %d: %v", p.Node, p.Number, n, it))
			}
		}
		for _, l := range lines {
			if slices.ContainsFunc(words, func(w string) bool { return w == "*" || strings.Contains(l, w) }) {
				fmt.Fprintf(&b, "%d (term %d, stamp %d): %s\n", i, a.term, e.Stamp, l)
			}
		}
	}
	return b.String()
}
