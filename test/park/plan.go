package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"time"
)

// plan says who there is and what they do. Every process computes the same from it.
type plan struct {
	Clients int
	Workers int
	// ReadingEvery and StateEvery are of one sensor, CommandEvery of one device.
	ReadingEvery, StateEvery, CommandEvery time.Duration
	// Secret is what passwords are derived from, so that no process needs a list.
	Secret []byte
}

// watchers is how many dashboards watch each area. One of them has a persistent
// session, which is owed every message of its area.
const watchers = 4

// commanders are clients beside the park's: they send the commands.
const commanders = 4

// stormShare is how many clients there are for each that takes part in the storm.
const stormShare = 3

// role is what a client does.
type role byte

const (
	sensor role = iota
	device
	dashboard
	commander
)

var roleNames = [...]string{"sensor", "device", "dashboard", "commander"}

func (r role) String() string { return roleNames[r] }

func (p *plan) sensors() int    { return p.Clients * 10 / 15 }
func (p *plan) dashboards() int { return p.Clients / 15 }
func (p *plan) devices() int    { return p.Clients - p.sensors() - p.dashboards() }
func (p *plan) areas() int      { return max(1, p.dashboards()/watchers) }

// all is how many clients there are with the commanders. Their numbers are 0 to
// all-1: sensors, devices, dashboards, commanders.
func (p *plan) all() int { return p.Clients + commanders }

// place returns the role of client n and its number among those of the role.
func (p *plan) place(n int) (role, int) {
	for r, count := range []int{p.sensors(), p.devices(), p.dashboards()} {
		if n < count {
			return role(r), n
		}
		n -= count
	}
	return commander, n
}

// number is the inverse of place.
func (p *plan) number(r role, k int) int {
	for i, count := range []int{p.sensors(), p.devices(), p.dashboards()} {
		if role(i) < r {
			k += count
		}
	}
	return k
}

// name is the user name and the client id.
func (p *plan) name(n int) string {
	r, k := p.place(n)
	return fmt.Sprintf("%s%05d", r, k)
}

func (p *plan) password(name string) string {
	mac := hmac.New(sha256.New, p.Secret)
	mac.Write([]byte(name))
	return base32.StdEncoding.EncodeToString(mac.Sum(nil)[:15])
}

// storms tells whether client n takes part in the storm. Commanders do not.
func (p *plan) storms(n int) bool { return n < p.Clients && n%stormShare == 0 }

// stormers is how many do.
func (p *plan) stormers() int { return (p.Clients + stormShare - 1) / stormShare }

// stormy is how many generators, the first ones, have who storms and nobody else; 0: there
// are too few.
func (p *plan) stormy() int {
	if p.Workers == 1 {
		return 0
	}
	return max(1, p.Workers/stormShare)
}

// worker is the generator process that has client n. Those that storm are in others than
// those that are measured meanwhile: in one process their handshakes would stand before
// everything else in its queue, and what is measured would be that.
func (p *plan) worker(n int) int {
	stormy := p.stormy()
	switch {
	case stormy == 0:
		return n % p.Workers
	case p.storms(n):
		return n / stormShare % stormy
	}
	return stormy + n/stormShare%(p.Workers-stormy)
}

// persistent tells whether client n has a session that outlives its connection.
func (p *plan) persistent(n int) bool {
	r, k := p.place(n)
	return r == device || r == dashboard && k < p.areas()
}

// stream names one publisher's numbered messages of one kind: twice the number of
// the sensor, or of the device that is commanded, and 1 more for states.
type stream uint32

func readings(n int) stream { return stream(2 * n) }
func states(n int) stream   { return stream(2*n + 1) }
func commands(n int) stream { return stream(2 * n) }

// topic is where the messages of a stream go.
func (p *plan) topic(s stream) string {
	n := int(s / 2)
	r, k := p.place(n)
	switch {
	case r == device:
		return "command/" + p.name(n)
	case s%2 == 1:
		return fmt.Sprintf("park/area%d/%s/state", k%p.areas(), p.name(n))
	}
	return fmt.Sprintf("park/area%d/%s/reading", k%p.areas(), p.name(n))
}

// filters are what client n subscribes to.
func (p *plan) filters(n int) []string {
	switch r, k := p.place(n); r {
	case device:
		return []string{p.topic(commands(n))}
	case dashboard:
		area := fmt.Sprintf("park/area%d/+/", k%p.areas())
		return []string{area + "reading", area + "state"}
	}
	return nil
}

// publishes are the streams of client n.
func (p *plan) publishes(n int) (out []stream) {
	switch r, k := p.place(n); r {
	case sensor:
		return []stream{readings(n), states(n)}
	case commander:
		for d := k; d < p.devices(); d += commanders {
			out = append(out, commands(p.number(device, d)))
		}
	}
	return out
}

// owed are the streams that client n subscribes to.
func (p *plan) owed(n int) (out []stream) {
	switch r, k := p.place(n); r {
	case device:
		return []stream{commands(n)}
	case dashboard:
		for s := k % p.areas(); s < p.sensors(); s += p.areas() {
			out = append(out, readings(s), states(s))
		}
	}
	return out
}

// every is the time between two messages of a stream.
func (p *plan) every(s stream) time.Duration {
	switch r, _ := p.place(int(s / 2)); {
	case r == device:
		return p.CommandEvery
	case s%2 == 1:
		return p.StateEvery
	}
	return p.ReadingEvery
}

// rules are the access rules of the roles.
var rules = map[role][]string{
	sensor:    {"allow publish park/+/%u/+"},
	device:    {"allow subscribe command/%u"},
	dashboard: {"allow subscribe park/#"},
	commander: {"allow publish command/#"},
}

// payloadSize is what every message has, in bytes; the header takes the first 16.
const payloadSize = 64

// header is what a payload says about its message.
type header struct {
	stream stream
	seq    uint32 // from 1
	sent   int64  // when it was first sent, in Unix nanoseconds
}

func (h header) payload() []byte {
	b := make([]byte, payloadSize)
	binary.BigEndian.PutUint32(b, uint32(h.stream))
	binary.BigEndian.PutUint32(b[4:], h.seq)
	binary.BigEndian.PutUint64(b[8:], uint64(h.sent))
	return b
}

func parseHeader(b []byte) (header, bool) {
	if len(b) != payloadSize {
		return header{}, false
	}
	h := header{stream: stream(binary.BigEndian.Uint32(b)), seq: binary.BigEndian.Uint32(b[4:]), sent: int64(binary.BigEndian.Uint64(b[8:]))}
	return h, h.seq > 0
}
