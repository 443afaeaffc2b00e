package fsm

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// Snapshot implements raft.FSM. Pebble's checkpoint leaves out the memtable
// when there is no write-ahead log, so it is flushed first; raft truncates its
// log only behind what this returns.
func (s *Store) Snapshot() (raft.FSMSnapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gen := s.db.Load()
	// The checkpoint shares the state's files; the archive of it does not.
	if !s.deps.Room(gen.db.Metrics().DiskSpaceUsage()) {
		return nil, fmt.Errorf("take a snapshot: %w", ErrNoRoom)
	}
	if err := flush(gen.db); err != nil {
		return nil, fmt.Errorf("flush the state: %w", err)
	}
	dir := filepath.Join(s.cfg.Dir, fmt.Sprintf("snapshot-%d", s.state.applied))
	if err := s.cfg.FS.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("remove an older snapshot: %w", err)
	}
	if err := gen.db.Checkpoint(dir); err != nil {
		return nil, fmt.Errorf("checkpoint the state: %w", err)
	}
	return &snapshot{fs: s.cfg.FS, dir: dir, warn: func(err error) {
		s.deps.Logger.Warn("remove a snapshot", "err", err)
	}}, nil
}

// snapshot is a checkpoint directory. It goes over the wire as a tar archive.
type snapshot struct {
	fs   vfs.FS
	dir  string
	warn func(error)
}

// Persist implements raft.FSMSnapshot.
func (p *snapshot) Persist(sink raft.SnapshotSink) error {
	w := bufio.NewWriterSize(sink, 256<<10)
	t := tar.NewWriter(w)
	err := p.write(t)
	err = errors.Join(err, t.Close())
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

func (p *snapshot) write(t *tar.Writer) error {
	names, err := p.fs.List(p.dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := p.writeFile(t, n); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	return nil
}

func (p *snapshot) writeFile(t *tar.Writer, name string) error {
	f, err := p.fs.Open(filepath.Join(p.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return nil
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Size: info.Size(), Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

// Release implements raft.FSMSnapshot.
func (p *snapshot) Release() {
	if err := p.fs.RemoveAll(p.dir); err != nil {
		p.warn(err)
	}
}

// Restore implements raft.FSM: the new state is built aside and synced before it
// takes the place of the old one, which stays until its last view is closed.
func (s *Store) Restore(r io.ReadCloser) error {
	defer r.Close()
	name, err := s.nextGeneration()
	if err != nil {
		return err
	}
	if err := s.unpack(r, name); err != nil {
		return errors.Join(fmt.Errorf("unpack the snapshot: %w", err), s.cfg.FS.RemoveAll(filepath.Join(s.cfg.Dir, name)))
	}
	gen, st, err := s.openGeneration(name)
	if err != nil {
		return errors.Join(err, s.cfg.FS.RemoveAll(filepath.Join(s.cfg.Dir, name)))
	}
	if err := s.setCurrent(name); err != nil {
		return errors.Join(err, gen.db.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.db.Load()
	s.install(gen, st)
	old.done = func(g *generation) {
		s.closeGeneration(g)
		if err := s.cfg.FS.RemoveAll(filepath.Join(s.cfg.Dir, g.name)); err != nil {
			s.deps.Logger.Warn("remove the state before the snapshot", "err", err)
		}
	}
	old.release()
	s.deps.Observe([]Event{{Kind: EventRestored}, {Kind: EventPolicy}, {Kind: EventMembers}})
	return nil
}

// nextGeneration is a name that nothing on the disk has: CURRENT may name a
// generation that was not taken up, because the process went on with the old one
// after an error.
func (s *Store) nextGeneration() (string, error) {
	names, err := s.cfg.FS.List(s.cfg.Dir)
	if err != nil {
		return "", fmt.Errorf("list the state directory: %w", err)
	}
	next := 0
	for _, name := range names {
		if n, ok := generationNumber(name); ok {
			next = max(next, n+1)
		}
	}
	return generationName(next), nil
}

// unpack is durable on return.
func (s *Store) unpack(r io.Reader, name string) error {
	fs, dir := s.cfg.FS, filepath.Join(s.cfg.Dir, name)
	if err := fs.RemoveAll(dir); err != nil {
		return err
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	end := &trailer{r: bufio.NewReaderSize(r, 256<<10)}
	t := tar.NewReader(end)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			if end.zeros < tarTrailer {
				return fmt.Errorf("its end is missing: %w", io.ErrUnexpectedEOF)
			}
			break
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || strings.ContainsAny(h.Name, `/\`) || h.Name == ".." {
			return fmt.Errorf("it holds %q, which is no file of a state", h.Name)
		}
		if !s.deps.Room(uint64(h.Size)) {
			return ErrNoRoom
		}
		if err := s.unpackFile(t, filepath.Join(dir, h.Name)); err != nil {
			return err
		}
	}
	return errors.Join(syncDir(s.cfg.FS, dir), syncDir(s.cfg.FS, s.cfg.Dir))
}

// trailer counts the zeros that were read last: an archive ends with two blocks of
// them, and the tar reader takes one that is cut off between two files for whole.
type trailer struct {
	r     io.Reader
	zeros int
}

const tarTrailer = 1024

// Read implements io.Reader.
func (t *trailer) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	rest := len(bytes.TrimRight(p[:n], "\x00"))
	if rest > 0 {
		t.zeros = 0
	}
	t.zeros += n - rest
	return n, err
}

func (s *Store) unpackFile(r io.Reader, path string) error {
	f, err := s.cfg.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}
