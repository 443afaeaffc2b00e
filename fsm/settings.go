package fsm

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// Limits bound what the log keeps for sessions. They are settings of the
// cluster; the leader enforces them, by commands in the log, within about a
// second and with some slack: a queue over its limit gives up a little more than
// it has to, so that it is not over it again at once.
type Limits struct {
	// MaxMessages and MaxBytes are of one session's queue. A message that matches
	// several filters of a session counts once for each.
	MaxMessages, MaxBytes uint64
	// MaxAge of a queued message; 0 means none.
	MaxAge time.Duration
	// TotalMessages and TotalBytes are of what a node stores for all sessions,
	// each message once.
	TotalMessages, TotalBytes uint64
	// QueueQoS0 lets messages of QoS 0 wait for sessions that are away.
	QueueQoS0 bool
	// Scram lets clients log in by SCRAM-SHA-256, and has what that needs kept of
	// passwords. It bounds nothing.
	Scram bool
}

// DefaultLimits are those of a cluster without settings.
func DefaultLimits() Limits {
	l, err := limitsOf(nil)
	if err != nil {
		panic(err) // a default in the table below is wrong: every test says so
	}
	return l
}

// SettingKey is a setting that the cluster knows.
type SettingKey struct {
	Key, Default, Help string
	// Level is the feature level that every member needs before it is set.
	Level uint32
	// put reads a value into the limits.
	put func(*Limits, string) error
}

// SettingVoters is the setting of how many nodes vote at most. It is the leader's
// business (package node) and means nothing to the state.
const SettingVoters = "cluster.voters"

// SettingKeys returns the settings, by key.
func SettingKeys() []SettingKey {
	return []SettingKey{
		{"auth.scram", "off", "whether clients may log in by SCRAM-SHA-256, on or off; with on a second hash of each password is kept, which is quicker to guess by than argon2id, should the state be stolen", LevelIdentity, func(l *Limits, v string) error {
			l.Scram = v == "on"
			if v != "on" && v != "off" {
				return errors.New("is neither on nor off")
			}
			return nil
		}},
		{"clock.after_outage", "hold", "whether the time of an outage of all nodes counts for what expires: hold, it does not, or follow", 1, func(_ *Limits, v string) error {
			if v != "hold" && v != "follow" {
				return errors.New("is neither hold nor follow")
			}
			return nil
		}},
		{SettingVoters, "5", "how many nodes vote at most, 3 or 5; further ones serve without a vote", LevelServing, func(_ *Limits, v string) error {
			if v != "3" && v != "5" {
				return errors.New("is neither 3 nor 5: an even number of voters bears no more failures than one less")
			}
			return nil
		}},
		{"queue.max_age", "0", "age at which queued messages are given up, such as 168h; 0 means never", 1, func(l *Limits, v string) error { return parseAge(&l.MaxAge, v) }},
		{"queue.max_bytes", "1GiB", "bytes that may wait for one session; the oldest go first", 1, func(l *Limits, v string) error { return parseSize(&l.MaxBytes, v) }},
		{"queue.max_messages", "1000000", "messages that may wait for one session; the oldest go first", 1, func(l *Limits, v string) error { return parseCount(&l.MaxMessages, v) }},
		{"queue.qos0", "off", "whether messages of QoS 0 wait for sessions whose client is away, on or off; with on they go through the log", levelZero, func(l *Limits, v string) error {
			l.QueueQoS0 = v == "on"
			if v != "on" && v != "off" {
				return errors.New("is neither on nor off")
			}
			return nil
		}},
		{"queue.total_bytes", "32GiB", "bytes that a node stores for all sessions; the oldest go first", 1, func(l *Limits, v string) error { return parseSize(&l.TotalBytes, v) }},
		{"queue.total_messages", "50000000", "messages that a node stores for all sessions; the oldest go first", 1, func(l *Limits, v string) error { return parseCount(&l.TotalMessages, v) }},
	}
}

// CheckSetting says in one sentence what is wrong with a setting, or nil.
func CheckSetting(key, value string) error {
	var keys []string
	for _, k := range SettingKeys() {
		if k.Key == key {
			if err := k.put(new(Limits), value); err != nil {
				return fmt.Errorf("%s: %q %w", key, value, err)
			}
			return nil
		}
		keys = append(keys, k.Key)
	}
	return fmt.Errorf("there is no setting %q: the settings are %s", key, strings.Join(keys, ", "))
}

// limitsOf reads the limits out of settings. A value that this version cannot
// read, which an older or newer one may have let in, is as if it were not there;
// the first of them is told as an error beside limits that hold.
func limitsOf(settings map[string]string) (Limits, error) {
	var l Limits
	var first error
	for _, k := range SettingKeys() {
		v, ok := settings[k.Key]
		if !ok {
			v = k.Default
		}
		err := k.put(&l, v)
		if err == nil {
			continue
		}
		if first == nil {
			first = fmt.Errorf("%s: %q %w", k.Key, v, err)
		}
		if ok {
			_ = k.put(&l, k.Default) // the defaults are right
		}
	}
	return l, first
}

func parseCount(to *uint64, v string) error {
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil || n == 0 {
		return errors.New("is not a number of messages: write a whole number from 1")
	}
	*to = n
	return nil
}

func parseSize(to *uint64, v string) error {
	digits, unit := v, uint64(1)
	for i, suffix := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if d, ok := strings.CutSuffix(v, suffix); ok {
			digits, unit = strings.TrimSpace(d), 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || n > math.MaxInt64/unit {
		return errors.New("is not a size: write a whole number and a unit, such as 64KiB or 1GiB")
	}
	*to = n * unit
	return nil
}

func parseAge(to *time.Duration, v string) error {
	if v == "0" {
		*to = 0
		return nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < time.Second {
		return errors.New("is not an age: write 0 for none, or a duration of at least 1s, such as 90m or 168h")
	}
	*to = d
	return nil
}

// putSetting changes a setting; an empty value is the default again.
func (a *applier) putSetting(c *logpb.SettingPut) {
	was := a.limits.QueueQoS0
	if c.Value == "" {
		delete(a.settings, c.Key)
		a.del(appendString(keySetting, c.Key))
	} else {
		a.settings[c.Key] = c.Value
		a.set(appendString(keySetting, c.Key), []byte(c.Value))
	}
	a.setLimits()
	switch on := a.limits.QueueQoS0; {
	case on && !was:
		a.queueZero()
	case was && !on:
		a.dropZero()
	}
}

// setLimits publishes what the settings say.
func (st *state) setLimits() {
	st.limits, _ = limitsOf(st.settings) // what cannot be read counts as its default
	t := *st.table
	t.limits = st.limits
	st.table = &t
}

// Limits returns the limits in force. It does not block.
func (s *Store) Limits() Limits { return s.table.Load().limits }

// Settings returns the settings that are not at their default.
func (s *Store) Settings() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.state.settings)
}
