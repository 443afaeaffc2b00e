package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/mqcluster/mqcluster/mesh"
)

// The control protocol is HTTP with JSON over the mesh, so that the peer is who
// its certificate says. The join protocol is the one call that a machine without
// a certificate may make.
const (
	pathJoin     = "/v1/join"
	pathLeave    = "/v1/leave"
	pathCA       = "/v1/ca"
	pathRenew    = "/v1/renew"
	pathNode     = "/v1/node"
	pathRemember = "/v1/remember"
	pathRecall   = "/v1/recall"
	pathSecrets  = "/v1/secrets"
	pathApplied  = "/v1/applied"
	pathIssue    = "/v1/issue"
	pathClock    = "/v1/clock"
	pathShed     = "/v1/shed"
	pathTrust    = "/v1/trust"
	pathRotate   = "/v1/rotate"
	pathRetire   = "/v1/retire"
	pathEnforced = "/v1/enforced"
	pathDrain    = "/v1/drain"
	pathRates    = "/v1/rates"
	pathClients  = "/v1/clients"
	pathKick     = "/v1/kick"
	pathComings  = "/v1/comings"
	pathTopics   = "/v1/topics"
)

// controlTimeout bounds one call.
const controlTimeout = 10 * time.Second

func (n *Node) openControl(context.Context) error {
	control := http.NewServeMux()
	serve(control, pathJoin, n.serveJoin)
	serve(control, pathLeave, n.serveLeave)
	serve(control, pathCA, n.serveCA)
	serve(control, pathRenew, n.serveRenew)
	serve(control, pathNode, n.serveNode)
	serve(control, pathRemember, n.serveRemember)
	serve(control, pathRecall, n.serveRecall)
	serve(control, pathSecrets, n.serveSecrets)
	serve(control, pathApplied, n.serveApplied)
	serve(control, pathIssue, n.serveIssue)
	serve(control, pathClock, n.serveClock)
	serve(control, pathShed, n.serveShed)
	serve(control, pathTrust, n.serveTrust)
	serve(control, pathRotate, n.serveRotate)
	serve(control, pathRetire, n.serveRetire)
	serve(control, pathEnforced, n.serveEnforced)
	serve(control, pathKick, n.serveKick)
	n.serveVerify(control)
	n.serveTrace(control)
	n.serveTop(control)
	serve(control, pathDrain, n.serveDrain)
	serve(control, pathRates, n.serveRates)
	serve(control, pathClients, n.serveClients)
	serve(control, pathComings, n.serveComings)
	serve(control, pathTopics, n.serveTopics)
	n.mesh.ServeHTTP(mesh.ProtoControl, control)

	join := http.NewServeMux()
	serve(join, pathJoin, n.serveJoin)
	n.mesh.ServeHTTP(mesh.ProtoJoin, join)
	return nil
}

// fault is an error with the HTTP status that says its kind.
type fault struct {
	status int
	text   string
}

func (f *fault) Error() string { return f.text }

func faultf(status int, format string, args ...any) error {
	return &fault{status, fmt.Sprintf(format, args...)}
}

// errNoLeader: there is nobody to ask.
var errNoLeader = &fault{http.StatusServiceUnavailable, "the cluster has no leader at the moment: check with mqcluster status that a majority of the voters runs, then try again"}

// serve registers a call. peer is "" on the join protocol.
func serve[In, Out any](mux *http.ServeMux, path string, f func(ctx context.Context, peer string, in In) (Out, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in In
		dec := json.NewDecoder(r.Body)
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			answer(w, http.StatusBadRequest, map[string]string{"error": "the request cannot be read: " + err.Error()})
			return
		}
		out, err := f(r.Context(), mesh.PeerFrom(r.Context()), in)
		if err != nil {
			status := http.StatusInternalServerError
			if ft, ok := errors.AsType[*fault](err); ok {
				status = ft.status
			}
			answer(w, status, map[string]string{"error": err.Error()})
			return
		}
		answer(w, http.StatusOK, out)
	})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the connection is gone: nobody to tell
}

// post makes a call; an error that the other side gave comes back as a *fault.
func post(ctx context.Context, c *http.Client, url string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(data, &e) != nil || e.Error == "" {
			e.Error = "the node answered " + resp.Status
		}
		return &fault{resp.StatusCode, e.Error}
	}
	return json.Unmarshal(data, out)
}

// call asks a member.
func (n *Node) call(ctx context.Context, peer, path string, in, out any) error {
	err := post(ctx, n.mesh.HTTPClient(peer, mesh.ProtoControl), "http://"+peer+path, in, out)
	if _, ok := errors.AsType[*fault](err); err != nil && !ok {
		return fmt.Errorf("ask node %s: %w", peer, err)
	}
	return err
}

// callMember asks a member that is up, or runs here if that is this node.
func callMember[In, Out any](ctx context.Context, n *Node, member, path string, in In, out *Out, here func(context.Context, In) (Out, error)) (err error) {
	if member == n.cfg.Node.ID {
		*out, err = here(ctx, in)
		return err
	}
	if m := n.member(member); m == nil || m.Incarnation == 0 {
		return faultf(http.StatusServiceUnavailable, "node %s is down: start it and try again", member)
	}
	return n.call(ctx, member, path, in, out)
}

// askLeader runs f here if this node leads and asks the leader otherwise.
func askLeader[In, Out any](ctx context.Context, n *Node, path string, in In, f func(ctx context.Context, in In) (Out, error)) (Out, error) {
	if n.consensus.IsLeader() {
		return f(ctx, in)
	}
	var out Out
	leader, ok := n.consensus.Leader()
	if !ok || leader == n.cfg.Node.ID {
		return out, errNoLeader
	}
	return out, n.call(ctx, leader, path, in, &out)
}

// none is the body of a call that needs none.
type none struct{}
