package main

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/mosquitto"
)

// importPlan is what an import does, and its report.
type importPlan struct {
	file  string
	files mosquitto.Files
	now   time.Time
	cfg   *mosquitto.Config
	notes []mosquitto.Note

	users    []admin.ImportUser
	acls     []admin.Acl
	retained []admin.ImportMessage
	sessions []admin.ImportSession

	taken    map[string]int
	outcomes []mosquitto.Note
}

// planImport reads everything that the configuration names.
func planImport(file string, files mosquitto.Files, now time.Time) (*importPlan, error) {
	p := &importPlan{file: file, files: files, now: now, taken: map[string]int{}}
	var err error
	if p.cfg, p.notes, err = mosquitto.ParseConfig(file, files); err != nil {
		return nil, err
	}
	if err := p.readRights(); err != nil {
		return nil, err
	}
	if p.cfg.Persistence {
		if err := p.readDatabase(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *importPlan) say(v mosquitto.Verdict, text, why string) {
	p.notes = append(p.notes, mosquitto.Note{File: p.file, Text: text, Verdict: v, Why: why})
}

// named returns the distinct values that listeners have for something, in order.
func (p *importPlan) named(of func(*mosquitto.Security) string) (out []string) {
	for i := range p.cfg.Listeners {
		if name := of(&p.cfg.Listeners[i].Security); name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// byCertificate tells whether some listener takes users from certificates.
func (p *importPlan) byCertificate() bool {
	return slices.ContainsFunc(p.cfg.Listeners, func(l mosquitto.Listener) bool { return l.IdentityAsUser || l.SubjectAsUser })
}

func (p *importPlan) readRights() error {
	passwords := p.named(func(s *mosquitto.Security) string { return s.PasswordFile })
	for _, file := range passwords {
		if err := p.readPasswords(file); err != nil {
			return err
		}
	}
	acls := p.named(func(s *mosquitto.Security) string { return s.ACLFile })
	dynsec := p.named(func(s *mosquitto.Security) string {
		for _, pl := range s.Plugins {
			if file, ok := pl.Dynsec(); ok {
				return file
			}
		}
		return ""
	})
	for _, more := range append(drop(acls, 1), drop(dynsec, 1)...) {
		p.say(mosquitto.NotSupported, more, "listeners have rights of their own: those of the first are taken, write these with mqcluster acl set")
	}
	switch {
	case len(acls) > 0:
		for _, more := range dynsec {
			p.say(mosquitto.NotSupported, more, "there is an acl_file besides: its rules are taken, write these with mqcluster acl set")
		}
		if err := p.readACL(acls[0]); err != nil {
			return err
		}
	case len(dynsec) > 0:
		if err := p.readDynsec(dynsec[0]); err != nil {
			return err
		}
	default:
		p.acls = append(p.acls, admin.Acl{Subject: everyone, Rules: []string{"allow both #", "allow subscribe $SYS/#"}})
		p.say(mosquitto.Taken, "no acl_file", "everybody may do everything, by the rules of *: write narrower ones with mqcluster acl set")
	}
	if len(passwords)+len(dynsec) == 0 && !p.byCertificate() {
		p.say(mosquitto.NotSupported, "no password_file", "mosquitto asks for no password and takes every user name: add users with mqcluster user add, or let clients send none")
	}
	return nil
}

func drop[T any](l []T, n int) []T { return l[min(n, len(l)):] }

func (p *importPlan) readPasswords(file string) error {
	data, err := p.files.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the password file cannot be read: %w", err)
	}
	users, notes, err := mosquitto.ParsePasswords(file, data)
	if err != nil {
		return err
	}
	p.notes = append(p.notes, notes...)
	for _, u := range users {
		p.addUser(admin.ImportUser{Name: u.Name, Hash: u.Hash}, file)
	}
	return nil
}

// addUser adds a user once; the first that has a password counts.
func (p *importPlan) addUser(u admin.ImportUser, file string) {
	i := slices.IndexFunc(p.users, func(o admin.ImportUser) bool { return o.Name == u.Name })
	switch {
	case i < 0:
		p.users = append(p.users, u)
	case u.Hash != "" && p.users[i].Hash != "" && p.users[i].Hash != u.Hash:
		p.say(mosquitto.NotSupported, fmt.Sprintf("user %s of %s", u.Name, file), "an earlier file has the same user with another password, which counts")
	}
}

func (p *importPlan) readDatabase() error {
	data, err := p.files.ReadFile(p.cfg.Database)
	if errors.Is(err, fs.ErrNotExist) {
		p.say(mosquitto.NotNeeded, p.cfg.Database, "there is no database: mosquitto has written none yet")
		return nil
	}
	if err != nil {
		return fmt.Errorf("the database cannot be read: %w", err)
	}
	db, notes, err := mosquitto.ReadDatabase(p.cfg.Database, data)
	if err != nil {
		return err
	}
	p.notes = append(p.notes, notes...)
	p.planRetained(db)
	for _, c := range db.Clients {
		v, why := p.planSession(db, c)
		p.notes = append(p.notes, mosquitto.Note{
			File: p.cfg.Database, Verdict: v, Why: why,
			Text: fmt.Sprintf("session of client %s, %d subscriptions, %d messages", c.ID, len(c.Subscriptions), len(c.Queue)),
		})
	}
	return nil
}

// maxImported is the largest payload that fits into a batch, in bytes.
const maxImported = 8 << 20

func (p *importPlan) planRetained(db *mosquitto.Database) {
	system, expired, huge := 0, 0, 0
	for _, m := range db.Retained {
		out, alive := p.message(m)
		switch {
		case strings.HasPrefix(m.Topic, "$SYS"):
			system++
		case !alive:
			expired++
		case len(m.Payload) > maxImported:
			huge++
		default:
			out.QoS = m.QoS
			p.retained = append(p.retained, out)
		}
	}
	count := func(n int, v mosquitto.Verdict, what, why string) {
		if n > 0 {
			p.notes = append(p.notes, mosquitto.Note{File: p.cfg.Database, Text: fmt.Sprintf("%d retained messages%s", n, what), Verdict: v, Why: why})
		}
	}
	count(len(p.retained), mosquitto.Taken, "", "retained here")
	count(system, mosquitto.NotNeeded, " of $SYS", "the nodes publish their own")
	count(expired, mosquitto.NotNeeded, " that have expired", "nobody would get them")
	count(huge, mosquitto.NotSupported, " of more than 8 MiB", "publish them again, in parts where they have more than 16 MiB")
}

// message converts all but what is of one delivery; it tells whether the message
// has not expired.
func (p *importPlan) message(m *mosquitto.Message) (admin.ImportMessage, bool) {
	out := admin.ImportMessage{Topic: m.Topic, Payload: m.Payload, Properties: m.Properties, Publisher: m.Source}
	if m.Expires.IsZero() {
		return out, true
	}
	left := m.Expires.Sub(p.now)
	seconds := uint32(min(max(math.Ceil(left.Seconds()), 0), math.MaxUint32))
	out.Expiry = &seconds
	return out, left > 0
}

func (p *importPlan) planSession(db *mosquitto.Database, c *mosquitto.Client) (mosquitto.Verdict, string) {
	s := admin.ImportSession{Client: c.ID, User: c.User, Expiry: c.Expiry, Remaining: c.Expiry}
	if !c.Expires.IsZero() {
		left := c.Expires.Sub(p.now)
		if left <= 0 {
			return mosquitto.NotNeeded, "it has expired"
		}
		s.Remaining = uint32(min(math.Ceil(left.Seconds()), math.MaxUint32-1))
		if s.Expiry == math.MaxUint32 {
			s.Expiry = uint32(max(p.cfg.Limits.PersistentExpiration, int(s.Remaining)))
		}
	}
	switch {
	case c.ID == "":
		return mosquitto.NotSupported, "it has no client id: the client subscribes anew"
	case s.Expiry == 0:
		return mosquitto.NotNeeded, "it ends with its connection"
	case len(p.cfg.Bridges) > 0 && strings.HasPrefix(c.ID, "local."):
		return mosquitto.NotNeeded, "it is a bridge's own"
	case db.Version < 6 && len(p.users) > 0:
		return mosquitto.NotSupported, "a database of this version does not say whose it is, and a session is its user's alone: let mosquitto 2.0 run on it until the clients have connected once, or let them subscribe anew"
	}
	for _, sub := range c.Subscriptions {
		s.Subscriptions = append(s.Subscriptions, admin.ImportSubscription{
			Filter: sub.Filter, QoS: sub.QoS, ID: sub.ID, NoLocal: sub.NoLocal, RetainAsPublished: sub.RetainAsPublished,
		})
	}
	var zero, huge int
	for _, q := range c.Queue {
		m, alive := p.message(q.Message)
		if q.QoS == 0 {
			zero++
		}
		if len(m.Payload) > maxImported {
			huge++
			continue
		}
		if q.QoS == 0 || !alive && q.State == mosquitto.Waiting {
			continue
		}
		m.QoS, m.Retain, m.SubscriptionID = q.QoS, q.Retain, q.SubscriptionID
		if q.State != mosquitto.Waiting {
			m.PacketID, m.State = q.PacketID, byte(q.State)
		}
		s.Queue = append(s.Queue, m)
	}
	for _, q := range c.Incoming {
		if m, alive := p.message(q.Message); alive {
			m.QoS, m.PacketID, m.Retain = 2, q.PacketID, q.Message.Retain
			s.Incoming = append(s.Incoming, m)
		}
	}
	s.Total = len(s.Queue)
	p.sessions = append(p.sessions, s)
	if p.byCertificate() && c.User != "" {
		p.addUser(admin.ImportUser{Name: c.User}, p.cfg.Database)
	}
	why := "it waits for its client, as user " + c.User
	if c.User == "" {
		why = "it waits for its client, without a user"
	}
	if c.Unsure {
		why += "; this version of mosquitto writes another client's user for some that have none: if this is one, end the session with mqcluster session end"
	}
	if zero > 0 {
		why += fmt.Sprintf("; %d messages of QoS 0 stay behind", zero)
	}
	if huge > 0 {
		why += fmt.Sprintf("; %d messages of more than 8 MiB stay behind", huge)
	}
	return mosquitto.Taken, why
}

func bytesOf(queue []admin.ImportMessage) (n int) {
	for _, m := range queue {
		n += len(m.Topic) + len(m.Payload) + len(m.Properties) + 128
	}
	return n
}

// parts cuts a long queue, the same way each time.
func parts(s admin.ImportSession) iter.Seq[admin.ImportSession] {
	const partMessages, partBytes = 500, 512 << 10
	return func(yield func(admin.ImportSession) bool) {
		rest := s.Queue
		for from := 0; from == 0 || len(rest) > 0; {
			n, size := 0, 0
			for n < len(rest) && n < partMessages && (n == 0 || size < partBytes) {
				size += bytesOf(rest[n : n+1])
				n++
			}
			part := s
			part.From, part.Queue = from, rest[:n]
			if from > 0 {
				part.Subscriptions, part.Incoming = nil, nil
			}
			if rest = rest[n:]; !yield(part) || n == 0 {
				return
			}
			from += n
		}
	}
}
