package gossip

import (
	"encoding/binary"
	"errors"

	"github.com/hashicorp/memberlist"
)

// Digest is the little that a node says of itself to everybody.
type Digest struct {
	// Incarnation, Version and Hash are of its route log.
	Incarnation, Version, Hash uint64
	// Load is how busy it is, in thousandths.
	Load uint32
	// Level is the feature level of its binary.
	Level uint32
	// Clients is how many clients are connected to it.
	Clients uint32
}

// digestFormat is the first byte of an encoded digest. A later format appends
// fields; what a node does not know it skips.
const digestFormat = 1

// digestSize is what format 1 takes; memberlist has room for 512 bytes.
const digestSize = 1 + 3*8 + 3*4

var errDigest = errors.New("the digest of a node is malformed")

func (d Digest) encode() []byte {
	b := make([]byte, 0, digestSize)
	b = append(b, digestFormat)
	for _, v := range []uint64{d.Incarnation, d.Version, d.Hash} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	for _, v := range []uint32{d.Load, d.Level, d.Clients} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func decodeDigest(b []byte) (Digest, error) {
	if len(b) < digestSize || len(b) > memberlist.MetaMaxSize || b[0] < digestFormat {
		return Digest{}, errDigest
	}
	b = b[1:]
	u64 := func() uint64 {
		v := binary.BigEndian.Uint64(b)
		b = b[8:]
		return v
	}
	u32 := func() uint32 {
		v := binary.BigEndian.Uint32(b)
		b = b[4:]
		return v
	}
	return Digest{
		Incarnation: u64(), Version: u64(), Hash: u64(),
		Load: u32(), Level: u32(), Clients: u32(),
	}, nil
}

// meta gives memberlist the digest. Nothing else travels by gossip: what is
// large or many goes by streams of its own.
type meta struct{ g *Gossip }

var _ memberlist.Delegate = meta{}

func (m meta) NodeMeta(limit int) []byte {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	b := m.g.digest.encode()
	if len(b) > limit {
		return nil
	}
	return b
}

func (meta) NotifyMsg([]byte)                {}
func (meta) GetBroadcasts(int, int) [][]byte { return nil }
func (meta) LocalState(bool) []byte          { return nil }
func (meta) MergeRemoteState([]byte, bool)   {}
