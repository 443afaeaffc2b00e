package history

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// UserDriverConfig says whom a UserDriver changes.
type UserDriverConfig struct {
	// Endpoint is where it logs in, at one address after the other; its Username
	// and Password do not count.
	Endpoint
	Name string  // of the history, and part of every password
	User string  // nobody else may change or have it
	Rate float64 // changes per second; 0 means 1
	// Run carries out a verb of the program at some node, such as "user passwd NAME
	// --stdin". After an error nobody knows what it did.
	Run func(ctx context.Context, stdin string, args ...string) error
}

// UserDriver changes one user again and again, and logs in with its right and its
// former password after each change that was done.
type UserDriver struct {
	driver
	rec     *Recorder
	cfg     UserDriverConfig
	changes atomic.Int64

	seq     int
	logins  int
	secrets []string // oldest first
}

// StartUserDriver starts a goroutine that changes the user until Stop or the end
// of ctx. The user must not be there yet.
func StartUserDriver(ctx context.Context, rec *Recorder, cfg UserDriverConfig) *UserDriver {
	if cfg.Rate == 0 {
		cfg.Rate = 1
	}
	u := &UserDriver{rec: rec, cfg: cfg}
	u.driver = drive(ctx, cfg.Name, u.run)
	return u
}

// Changes is how many changes were done so far.
func (u *UserDriver) Changes() int { return int(u.changes.Load()) }

func (u *UserDriver) run(ctx context.Context) {
	verbs := []string{"add", "passwd", "disable", "enable", "passwd", "rm"}
	c := newClient(u.rec, u.cfg.Endpoint, u.cfg.Name, "", 0)
	for i := 0; ctx.Err() == nil; pause(ctx, c.every(u.cfg.Rate)) {
		if !u.change(ctx, verbs[i]) {
			i = retry(verbs, i)
			continue
		}
		u.changes.Add(1)
		i = (i + 1) % len(verbs)
		for range 3 {
			if ctx.Err() == nil {
				u.login(ctx, c)
			}
		}
	}
}

// retry is what to try after a verb whose outcome is not known: the same once
// more, but to add and to change the password in turn where the user may be there
// or not.
func retry(verbs []string, i int) int {
	switch verbs[i] {
	case "add":
		return 1
	case "passwd", "rm":
		return 0
	}
	return i
}

// change carries out one verb and tells whether it was done.
func (u *UserDriver) change(ctx context.Context, verb string) bool {
	args, stdin, secret := []string{"user", verb, u.cfg.User}, "", ""
	u.seq++
	if verb == "add" || verb == "passwd" {
		secret = fmt.Sprintf("%s-secret-%d", u.cfg.Name, u.seq)
		u.secrets = append(u.secrets, secret)
		args, stdin = append(args, "--stdin"), secret+"\n"
	}
	e := Event{Kind: UserAsked, History: u.cfg.Name, User: u.cfg.User, Note: verb, Secret: secret, Seq: u.seq}
	u.rec.Add(e)
	err := u.cfg.Run(ctx, stdin, args...)
	e.Kind = UserDone
	if err != nil {
		e.Reason, e.Note = 0xff, verb+": "+err.Error()
	}
	u.rec.Add(e)
	return err == nil
}

// login connects with the newest password, and every third time with the one
// before it.
func (u *UserDriver) login(ctx context.Context, c *client) {
	u.logins++
	n := len(u.secrets) - 1
	if u.logins%3 == 0 {
		n = max(0, n-1)
	}
	u.seq++
	node := u.cfg.Addresses[u.logins%len(u.cfg.Addresses)]
	e := Event{Kind: LoginAsked, History: u.cfg.Name, User: u.cfg.User, Secret: u.secrets[n], Seq: u.seq, Node: node}
	ctx, cancel := context.WithTimeout(ctx, c.at.Timeout)
	defer cancel()
	raw, err := c.at.dial(ctx, node)
	if err != nil {
		return
	}
	defer raw.Close()
	raw.Timeout = c.at.Timeout
	u.rec.Add(e)
	ack, err := raw.Connect(rawmqtt.Connect{ClientID: c.id + "-login", CleanStart: true, KeepAlive: 30, Username: &u.cfg.User, Password: &u.secrets[n]})
	if err != nil {
		return
	}
	e.Kind, e.Reason = LoginDone, ack.Reason
	u.rec.Add(e)
	if ack.Reason == 0 {
		_ = raw.Disconnect(0) // an error changes nothing
	}
}
