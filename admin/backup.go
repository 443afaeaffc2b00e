package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Backups give the state away.
type Backups interface {
	// Backup writes the state, as one stream, to w. What it wrote before an error
	// is no backup.
	Backup(ctx context.Context, r BackupRequest, w io.Writer) error
}

// BackupRequest says what goes into a backup.
type BackupRequest struct {
	// CAKey adds the private key of the cluster's CA.
	CAKey bool `json:"ca_key,omitempty"`
	// Stale takes what this node has, also where no leader can say whether that is
	// all.
	Stale bool `json:"stale,omitempty"`
}

const opBackup = "backup"

// trailerError says, behind a stream, why it ended early.
const trailerError = "Mqcluster-Error"

// streamStall is how long the reader of a stream may take nothing: what is read of
// the state for it stays on the disk.
const streamStall = time.Minute

// serveBackup answers with the stream itself and not with JSON.
func (s *Server) serveBackup(b Backups) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, ok := requestOf[BackupRequest](w, r, opBackup)
		if !ok {
			return
		}
		out := &stream{w: w, control: http.NewResponseController(w)}
		// The server's own deadline is for requests that are answered at once.
		_ = out.control.SetReadDeadline(time.Time{}) // a connection that has none needs none taken away
		start := time.Now()
		ctx, a := asked(r.Context(), opBackup, q)
		err := b.Backup(ctx, q, out)
		if s.auditor != nil {
			s.auditor.Audited(ctx, a, err)
		}
		switch {
		case err == nil:
			s.log.Info("a backup was made for an operator", "bytes", out.n, "took", time.Since(start).Round(time.Millisecond), "ca_key", q.CAKey)
		case !out.begun:
			s.log.Warn("a backup for an operator was not made", "err", err)
			writeError(w, asError(err))
		default:
			s.log.Warn("a backup for an operator was not finished", "bytes", out.n, "err", err)
			text, _ := json.Marshal(asError(err)) // two strings
			w.Header().Set(http.TrailerPrefix+trailerError, string(text))
		}
	}
}

// stream begins the answer with its first bytes.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
	n       int64
}

func (s *stream) Write(p []byte) (int, error) {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/octet-stream")
		s.w.Header().Set("Cache-Control", "no-store")
		s.w.WriteHeader(http.StatusOK)
		// A short answer would get a length and no trailer, which may be needed.
		if err := s.control.Flush(); err != nil {
			return 0, err
		}
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(streamStall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := s.w.Write(p)
	s.n += int64(n)
	return n, err
}

// Backup is Backups.Backup of the node. The whole stream has come if it returns no
// error.
func (c *Client) Backup(ctx context.Context, r BackupRequest, w io.Writer) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	post, err := c.request(ctx, http.MethodPost, opBackup, body)
	if err != nil {
		return err
	}
	response, err := c.http.Do(post)
	if err != nil {
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
	from := &source{r: response.Body}
	if _, err := io.Copy(w, from); err != nil {
		if from.err != nil {
			return c.explain(ctx, err)
		}
		return err // of w: the caller knows it
	}
	if text := response.Trailer.Get(trailerError); text != "" {
		early := &Error{}
		if json.Unmarshal([]byte(text), early) != nil {
			return fmt.Errorf("the node ended the backup early: look into its log")
		}
		return early
	}
	return nil
}

// source tells an error of the node from one of where the stream goes.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
