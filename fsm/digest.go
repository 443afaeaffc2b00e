package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// DigestParts is in how many parts a Digest divides the keys.
const DigestParts = 1 << 14

// Sum is a hash of records: the first half of SHA-256 of each, combined so that
// their order does not matter.
type Sum [16]byte

func (s *Sum) add(o Sum) {
	for i := range s {
		s[i] ^= o[i]
	}
}

// String is the sum in hex.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// Digest is what the state of one log index hashes to. Two nodes with the same
// index have the same, whatever each has collected of what is dead.
type Digest struct {
	Index          uint64
	Records, Bytes uint64 // that were hashed
	// Parts are the sums of the records by DigestPart of their keys.
	Parts []Sum
	// Faults are where this state contradicts itself; at most maxFaults.
	Faults []string
}

const maxFaults = 20

// DigestPart is the part that a key belongs to.
func DigestPart(k []byte) int {
	h := uint64(14695981039346656037) // FNV-1a
	for _, b := range k {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return int(mix(h) % DigestParts)
}

func sumOf(k, v []byte) (s Sum) {
	h := sha256.New()
	var size [4]byte
	binary.BigEndian.PutUint32(size[:], uint32(len(k)))
	// A hash does not fail.
	_, _ = h.Write(size[:])
	_, _ = h.Write(k)
	_, _ = h.Write(v)
	var whole [sha256.Size]byte
	copy(s[:], h.Sum(whole[:0]))
	return s
}

// Digest reads the whole state, and blocks until then. step is called before each
// record; an error of it ends the reading. It is where the caller gives way to others.
func (c *Copy) Digest(step func() error) (*Digest, error) {
	d := &Digest{Index: c.Applied, Parts: make([]Sum, DigestParts)}
	faults, err := c.compared(step, func(k, v []byte) error {
		d.Records++
		d.Bytes += uint64(len(k) + len(v))
		d.Parts[DigestPart(k)].add(sumOf(k, v))
		return nil
	})
	d.Faults = faults
	return d, err
}

// Sums calls f with the key and the sum of every record in one of the parts, in the
// order of the keys. f must not keep k; step is as in Digest.
func (c *Copy) Sums(step func() error, parts []int, f func(k []byte, s Sum) error) error {
	in := make([]bool, DigestParts)
	for _, p := range parts {
		if p >= 0 && p < DigestParts {
			in[p] = true
		}
	}
	_, err := c.compared(step, func(k, v []byte) error {
		if !in[DigestPart(k)] {
			return nil
		}
		return f(k, sumOf(k, v))
	})
	return err
}
