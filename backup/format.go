package backup

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/mqcluster/mqcluster/fsm"
)

// Format is the version of the stream that this program writes. It reads this one.
const Format = 1

// magic begins a stream.
const magic = "mqcluster backup\n"

// The kinds of frames.
const (
	frameHeader  = 1
	frameRecords = 2
	frameCA      = 3
	frameEnd     = 4
)

// A frame of records is closed at chunkSize, unless one record is larger; frameMax
// is more than any record has.
const (
	chunkSize = 64 << 10
	frameMax  = 64 << 20
)

// Header is what the file is of.
type Header struct {
	Format      int    `json:"format"`
	ClusterID   string `json:"cluster_id"`
	ClusterName string `json:"cluster_name"`
	// Node made it, with a program of Version that knew feature level Level.
	Node    string `json:"node"`
	Version string `json:"version"`
	Level   uint32 `json:"feature_level"`
	// Index is the log index of the state, LogTime the cluster's clock then, Taken
	// the time of day.
	Index   uint64    `json:"index"`
	LogTime time.Time `json:"log_time"`
	Taken   time.Time `json:"taken"`
	Nodes   []string  `json:"nodes"`
}

// CA is a certificate authority with its key, as PEM.
type CA struct {
	Cert []byte `json:"cert"`
	Key  []byte `json:"key"`
}

// ErrDamaged: what the stream holds is no backup, or not a whole one.
var ErrDamaged = errors.New("the backup is damaged or not whole: use another one")

// Writer writes a stream.
type Writer struct {
	w        io.Writer
	chunk    []byte
	contents fsm.Contents
}

// NewWriter begins a stream with its header. Nothing is flushed or closed by a
// Writer.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	h.Format = Format
	out := &Writer{w: w}
	if _, err := io.WriteString(w, magic); err != nil {
		return nil, err
	}
	return out, out.writeJSON(frameHeader, h)
}

// Put adds a record and keeps neither k nor v.
func (w *Writer) Put(k, v []byte) error {
	if err := w.contents.Count(k, v); err != nil {
		return err
	}
	if len(w.chunk) > 0 && len(w.chunk)+len(k)+len(v)+2*binary.MaxVarintLen32 > chunkSize {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.chunk = binary.AppendUvarint(w.chunk, uint64(len(k)))
	w.chunk = binary.AppendUvarint(w.chunk, uint64(len(v)))
	w.chunk = append(append(w.chunk, k...), v...)
	return nil
}

// PutCA adds the authority.
func (w *Writer) PutCA(ca CA) error {
	if err := w.flush(); err != nil {
		return err
	}
	return w.writeJSON(frameCA, ca)
}

// End ends the stream and returns what it holds.
func (w *Writer) End() (fsm.Contents, error) {
	if err := w.flush(); err != nil {
		return w.contents, err
	}
	return w.contents, w.writeJSON(frameEnd, w.contents)
}

func (w *Writer) flush() error {
	if len(w.chunk) == 0 {
		return nil
	}
	err := w.frame(frameRecords, w.chunk)
	w.chunk = w.chunk[:0]
	return err
}

func (w *Writer) writeJSON(kind byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.frame(kind, text)
}

func (w *Writer) frame(kind byte, body []byte) error {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)))
	if _, err := w.w.Write(head); err != nil {
		return err
	}
	_, err := w.w.Write(body)
	return err
}

// Whole is what a stream held that was read to its end.
type Whole struct {
	Header
	Contents fsm.Contents `json:"contents"`
	// CA is nil where the stream has none.
	CA *CA `json:"-"`
}

// Read reads a stream to its end and gives each record to put, if that is not nil;
// put keeps neither k nor v. What put was given counts only when Read returns
// without an error: the end may be missing. It wraps ErrDamaged where the stream is
// not one.
func Read(r io.Reader, put func(k, v []byte) error) (*Whole, error) {
	in := reader{r: r, put: put}
	if err := in.begin(); err != nil {
		return nil, err
	}
	for !in.ended {
		if err := in.frame(); err != nil {
			return nil, err
		}
	}
	// The end of the file is authenticated too, and is only now read.
	if n, err := io.ReadFull(r, make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return nil, in.broken("it goes on behind its end", err)
	}
	return &in.whole, nil
}

type reader struct {
	r     io.Reader
	put   func(k, v []byte) error
	whole Whole
	last  []byte
	body  bytes.Buffer
	ended bool
}

// broken is an error of the stream; err may be nil or io.EOF.
func (r *reader) broken(what string, err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w (%s)", ErrDamaged, what)
	}
	return fmt.Errorf("%w (%s: %w)", ErrDamaged, what, err)
}

func (r *reader) begin() error {
	text := make([]byte, len(magic))
	if _, err := io.ReadFull(r.r, text); err != nil {
		return r.broken("its beginning is missing", err)
	}
	if string(text) != magic {
		return r.broken("it is no backup of mqcluster", nil)
	}
	kind, body, err := r.next()
	if err != nil {
		return err
	}
	if kind != frameHeader || json.Unmarshal(body, &r.whole.Header) != nil {
		return r.broken("its header cannot be read", nil)
	}
	if f := r.whole.Format; f != Format {
		return fmt.Errorf("the backup has format %d and this version reads format %d: use the version that made it (%s), or a newer one", f, Format, r.whole.Version)
	}
	if r.whole.Level > fsm.Level {
		return fmt.Errorf("the backup is of feature level %d and this version knows %d: use the version that made it (%s), or a newer one", r.whole.Level, fsm.Level, r.whole.Version)
	}
	return nil
}

// next reads a frame; its body counts until the next call.
func (r *reader) next() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return 0, nil, r.broken("its end is missing", err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > frameMax {
		return 0, nil, r.broken("a frame is too long", nil)
	}
	// Memory is taken as the bytes come, not as they were announced.
	r.body.Reset()
	if _, err := io.CopyN(&r.body, r.r, int64(n)); err != nil {
		return 0, nil, r.broken("its end is missing", err)
	}
	return head[0], r.body.Bytes(), nil
}

func (r *reader) frame() error {
	kind, body, err := r.next()
	if err != nil {
		return err
	}
	switch kind {
	case frameRecords:
		return r.records(body)
	case frameCA:
		ca := new(CA)
		if json.Unmarshal(body, ca) != nil || r.whole.CA != nil {
			return r.broken("its CA cannot be read", nil)
		}
		r.whole.CA = ca
	case frameEnd:
		var told fsm.Contents
		if json.Unmarshal(body, &told) != nil || told != r.whole.Contents {
			return r.broken("it does not hold what its end says", nil)
		}
		r.ended = true
	default:
		return r.broken(fmt.Sprintf("a frame is of kind %d", kind), nil)
	}
	return nil
}

func (r *reader) records(body []byte) error {
	for len(body) > 0 {
		kl, n := binary.Uvarint(body)
		vl, m := binary.Uvarint(body[max(n, 0):])
		if n <= 0 || m <= 0 || kl > frameMax || vl > frameMax || uint64(len(body)-n-m) < kl+vl {
			return r.broken("a record is cut short", nil)
		}
		body = body[n+m:]
		k, v := body[:kl], body[kl:kl+vl]
		body = body[kl+vl:]
		if bytes.Compare(k, r.last) <= 0 {
			return r.broken("its records are out of order", nil)
		}
		r.last = append(r.last[:0], k...)
		if err := r.whole.Contents.Count(k, v); err != nil {
			return err
		}
		if r.put == nil {
			continue
		}
		if err := r.put(k, v); err != nil {
			return err
		}
	}
	return nil
}
