package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// journal is two files of fixed size that are written in turns, from the beginning
// to the end and then over again. A record is on disk after one write of whole new
// pages whose place in the file does not change: no list of blocks or length has to
// be written with it, and no page that holds an older record.
//
// A record: "MQJ1", checksum of what follows, id of the journal, generation of the
// file, number within it, length, count of entries, entries. Each use of a file has
// a generation of its own, so that what an earlier use left behind is not read.
type journal struct {
	files  [2]*os.File
	size   int64
	id     uint64
	active int
	at     int64  // where the next record goes
	gen    uint64 // of the active file
	seq    uint64 // of the next record
	last   [2]uint64
	buf    []byte
}

const (
	journalMagic = "MQJ1"
	journalHead  = 40
	journalPage  = 4096
	// journalEntry is index, term, type, time and length of an entry.
	journalEntry = 8 + 8 + 1 + 8 + 4
)

func journalPath(dir string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("journal-%d", n))
}

// makeJournal makes both files, of zeros: blocks that were never written would have
// to be noted in the file system when they are. It is durable on return.
func makeJournal(dir string, size int64) error {
	for n := range 2 {
		f, err := os.OpenFile(journalPath(dir, n), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("make the journal: %w", err)
		}
		_, err = f.Write(make([]byte, size))
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("make the journal: %w", err)
		}
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// openJournal opens the files for writing, with a write of them durable when it
// returns. Nothing may be appended before reset.
func openJournal(dir string, id uint64) (*journal, error) {
	j := &journal{id: id}
	for n := range j.files {
		f, err := os.OpenFile(journalPath(dir, n), os.O_RDWR|dsync, 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the journal: %w", err), j.close())
		}
		j.files[n] = f
		info, err := f.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the journal: %w", err), j.close())
		}
		j.size = info.Size()
	}
	return j, nil
}

func (j *journal) close() error {
	var errs []error
	for _, f := range j.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// recordSize is what entries take in a file.
func recordSize(logs []*raft.Log) int64 {
	n := journalHead
	for _, l := range logs {
		n += journalEntry + len(l.Data)
	}
	return int64(n+journalPage-1) / journalPage * journalPage
}

// fits tells whether entries have room in the active file.
func (j *journal) fits(logs []*raft.Log) bool { return j.at+recordSize(logs) <= j.size }

// append writes entries as one record. They are on disk when it returns nil.
func (j *journal) append(logs []*raft.Log) error {
	if err := j.write(j.active, j.at, j.gen, j.seq, logs); err != nil {
		return err
	}
	j.at += recordSize(logs)
	j.seq++
	if len(logs) > 0 {
		j.last[j.active] = logs[len(logs)-1].Index
	}
	return nil
}

// turn goes on with the other file, whose entries the caller has elsewhere.
func (j *journal) turn() {
	j.active = 1 - j.active
	j.gen++
	j.at, j.seq, j.last[j.active] = 0, 0, 0
}

// reset forgets every record, durably. A crash between its two writes leaves
// records that are elsewhere already. It begins with the file that is not active,
// so that a first record which was cut short is never newer than all others.
func (j *journal) reset() error {
	for range 2 {
		j.turn()
		if err := j.append(nil); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) write(file int, at int64, gen, seq uint64, logs []*raft.Log) error {
	b := append(j.buf[:0], journalMagic...)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, j.id)
	b = binary.BigEndian.AppendUint64(b, gen)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(logs)))
	for _, l := range logs {
		b = binary.BigEndian.AppendUint64(b, l.Index)
		b = binary.BigEndian.AppendUint64(b, l.Term)
		b = append(b, byte(l.Type))
		b = binary.BigEndian.AppendUint64(b, nanos(l.AppendedAt))
		b = binary.BigEndian.AppendUint32(b, uint32(len(l.Data)))
		b = append(b, l.Data...)
	}
	binary.BigEndian.PutUint32(b[32:], uint32(len(b)))
	binary.BigEndian.PutUint32(b[4:], castagnoli(b[8:]))
	b = append(b, make([]byte, int(recordSize(logs))-len(b))...)
	if j.buf = b; cap(b) > 1<<20 {
		j.buf = nil
	}
	if _, err := j.files[file].WriteAt(b, at); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

func nanos(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

// journalRecord is a record as it was read.
type journalRecord struct {
	id, gen, seq uint64
	logs         []*raft.Log
	size         int64
}

// parseRecord returns the record at the beginning of b, false where there is none.
func parseRecord(b []byte) (r journalRecord, ok bool) {
	if len(b) < journalHead || string(b[:4]) != journalMagic {
		return r, false
	}
	length := int64(binary.BigEndian.Uint32(b[32:]))
	if length < journalHead || length > int64(len(b)) || binary.BigEndian.Uint32(b[4:]) != castagnoli(b[8:length]) {
		return r, false
	}
	r.id, r.gen, r.seq = binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint64(b[24:])
	r.size = (length + journalPage - 1) / journalPage * journalPage
	count := binary.BigEndian.Uint32(b[36:])
	for b = b[journalHead:length]; count > 0; count-- {
		if len(b) < journalEntry {
			return r, false
		}
		l := &raft.Log{
			Index: binary.BigEndian.Uint64(b), Term: binary.BigEndian.Uint64(b[8:]), Type: raft.LogType(b[16]),
		}
		if at := int64(binary.BigEndian.Uint64(b[17:])); at != 0 {
			l.AppendedAt = time.Unix(0, at)
		}
		n := binary.BigEndian.Uint32(b[25:])
		if b = b[journalEntry:]; int64(n) > int64(len(b)) {
			return r, false
		}
		l.Data, b = bytes.Clone(b[:n]), b[n:]
		r.logs = append(r.logs, l)
	}
	return r, len(b) == 0
}

// readJournal returns the entries of the records in dir, in the order in which they
// were written, and the highest generation. Many of them may be elsewhere already.
// The last record may have been cut short by a crash; one that was and has others
// behind it is damage.
func readJournal(dir string, id uint64) (logs []*raft.Log, gen uint64, err error) {
	var chains [2]chain
	for n := range chains {
		b, err := os.ReadFile(journalPath(dir, n))
		if err != nil {
			return nil, 0, fmt.Errorf("%w (read the journal: %w)", ErrDamaged, err)
		}
		if chains[n], err = readChain(b, id); err != nil {
			return nil, 0, err
		}
	}
	for n, c := range chains {
		if c.stray > c.gen && c.stray > chains[1-n].gen {
			return nil, 0, fmt.Errorf("%w (the first record of journal-%d has a wrong checksum)", ErrDamaged, n)
		}
	}
	first, second := chains[0], chains[1]
	if first.gen > second.gen {
		first, second = second, first
	}
	return append(first.logs, second.logs...), max(second.gen, first.stray, second.stray), nil
}

// chain is what a file of the journal holds of its latest use.
type chain struct {
	gen  uint64 // 0: no records
	logs []*raft.Log
	// stray is the highest generation of records that do not belong to the chain:
	// of earlier uses, unless the first record is damaged.
	stray uint64
}

func readChain(b []byte, id uint64) (c chain, err error) {
	at, seq := int64(0), uint64(0)
	for at < int64(len(b)) {
		r, ok := parseRecord(b[at:])
		if !ok || r.id != id || r.seq != seq || seq > 0 && r.gen != c.gen {
			break
		}
		c.gen, c.logs = r.gen, append(c.logs, r.logs...)
		at += r.size
		seq++
	}
	for ; at < int64(len(b)); at += journalPage {
		r, ok := parseRecord(b[at:])
		if !ok || r.id != id {
			continue
		}
		if r.gen == c.gen && r.seq >= seq {
			return c, fmt.Errorf("%w (a record of the journal has a wrong checksum)", ErrDamaged)
		}
		c.stray = max(c.stray, r.gen)
	}
	return c, nil
}

// hasJournal tells whether there are files of a journal that was written to.
func hasJournal(dir string) (bool, error) {
	for n := range 2 {
		f, err := os.Open(journalPath(dir, n))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("open the journal: %w", err)
		}
		magic := make([]byte, len(journalMagic))
		_, err = io.ReadFull(f, magic)
		if err := f.Close(); err != nil {
			return false, fmt.Errorf("close the journal: %w", err)
		}
		if err == nil && string(magic) == journalMagic {
			return true, nil
		}
	}
	return false, nil
}
