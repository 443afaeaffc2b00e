package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Tracer tells the way of messages through the cluster, live.
type Tracer interface {
	// Trace calls emit with the steps of the messages that r is about, on all nodes,
	// as they are told, until ctx ends or emit returns an error. Steps of one node
	// come in their order.
	Trace(ctx context.Context, r TraceRequest, emit func([]TraceStep) error) error
}

// TraceRequest says which messages are traced: those that Client publishes or
// receives, and those whose topic matches Filter; with both, those that fit both.
type TraceRequest struct {
	Client string `json:"client,omitempty"`
	Filter string `json:"filter,omitempty"`
}

// TraceStep is one step of a message on one node.
type TraceStep struct {
	At   time.Time `json:"at"` // by the node's clock
	Node string    `json:"node"`
	// Step is accepted, committed, forwarded, arrived, queued, waits, delivered,
	// acknowledged or dropped; "note" is not of a message: Why says what.
	Step      string `json:"step"`
	Client    string `json:"client,omitempty"` // whom the step is about
	Publisher string `json:"publisher,omitempty"`
	Topic     string `json:"topic,omitempty"`
	QoS       byte   `json:"qos"`
	// Index and Item are the message's place in the log; 0 for one that is not there.
	Index    uint64 `json:"index,omitempty"`
	Item     int    `json:"item,omitempty"`
	PacketID uint16 `json:"packet_id,omitempty"`
	Why      string `json:"why,omitempty"`
}

const opTrace = "trace"

// serveTrace answers with one JSON value a line, for as long as the client listens.
func (s *Server) serveTrace(t Tracer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, ok := requestOf[TraceRequest](w, r, opTrace)
		if !ok {
			return
		}
		out := &stream{w: w, control: http.NewResponseController(w)}
		_ = out.control.SetReadDeadline(time.Time{}) // a connection that has none needs none taken away
		s.log.Info("an operator traces messages", "client", q.Client, "filter", q.Filter, "actor", actorOf(r.Context()))
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		// A server that closes does not wait for those who look on.
		defer context.AfterFunc(s.watching, cancel)()
		err := t.Trace(ctx, q, func(steps []TraceStep) error {
			if !still(ctx) {
				return errTokenEnded
			}
			var lines bytes.Buffer
			encoder := json.NewEncoder(&lines)
			for _, step := range steps {
				if err := encoder.Encode(step); err != nil {
					return err
				}
			}
			if _, err := out.Write(lines.Bytes()); err != nil {
				return err
			}
			return out.control.Flush()
		})
		if err != nil && !out.begun {
			writeError(w, asError(err))
		}
	}
}

// Trace is Tracer.Trace of the node. It returns nil when ctx ends.
func (c *Client) Trace(ctx context.Context, r TraceRequest, emit func(TraceStep) error) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	post, err := c.request(ctx, http.MethodPost, opTrace, body)
	if err != nil {
		return err
	}
	response, err := c.http.Do(post)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return c.explain(ctx, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
		refused := &Error{}
		if err != nil || json.Unmarshal(text, refused) != nil || refused.Msg == "" {
			return fmt.Errorf("what listens on %s is no node (%s): check --data-dir", c.socket, response.Status)
		}
		return refused
	}
	for lines := json.NewDecoder(response.Body); ; {
		var step TraceStep
		err := lines.Decode(&step)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF):
			return errors.New("the node ended the trace: look into its log")
		case err != nil:
			return c.explain(ctx, err)
		}
		if err := emit(step); err != nil {
			return err
		}
	}
}
