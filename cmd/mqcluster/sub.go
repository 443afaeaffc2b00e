package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
	"github.com/spf13/cobra"
)

// How long sub waits between attempts to connect again.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	ackWait    = time.Second
)

// subscriber is one run of sub.
type subscriber struct {
	app     *App
	out     output
	connect mqttFlags
	topics  []string
	qos     int
	count   int
	wait    time.Duration
	clean   bool
	keep    bool // -c
	expiry  time.Duration
	verbose bool

	mu       sync.Mutex
	printed  int
	owed     int64 // acknowledgements of this connection
	failed   error
	complete chan struct{} // closed when count messages are printed
	release  chan struct{} // closed when the connection is gone
}

func (a *App) subCommand() *cobra.Command {
	s := &subscriber{app: a}
	cmd := &cobra.Command{
		Use:   "sub -t FILTER",
		Short: "Subscribe and print messages",
		Long: `Subscribes at any MQTT 5 broker, over TLS, and prints the payloads. When the
connection is lost it connects again. With -i and -c the session stays when sub
ends, for as long as -x says, and the messages queued meanwhile come when it
starts again.`,
		Example: `  mqcluster sub -h mqtt.example.org --cafile ca.pem -u dev1 -t 'sensors/#' -v
  mqcluster sub --cafile ca.pem -u dev1 --password-file secret -t n -q 1 -i reader -c -C 100
  mqcluster sub --cafile ca.pem --cert dev1.pem --key dev1.key -t '$share/g/jobs' -q 1 -o json`,
		Args: argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context()) },
	}
	s.connect.flags(cmd)
	s.out.flag(a, cmd)
	cmd.PersistentFlags().Lookup("output").Usage = "table prints payloads, json one object per line"
	f := cmd.Flags()
	f.StringArrayVarP(&s.topics, "topic", "t", nil, "topic filter (repeatable)")
	f.IntVarP(&s.qos, "qos", "q", 0, "highest quality of service: 0, 1 or 2")
	f.IntVarP(&s.count, "count", "C", 0, "end after so many messages")
	f.VarP(waitValue{&s.wait}, "wait", "W", "end after this time; a plain number is seconds")
	f.BoolVar(&s.clean, "clean", true, "begin a new session")
	f.BoolVarP(&s.keep, "disable-clean-session", "c", false, "go on with the session of -i and keep it (the same as --clean=false)")
	s.expiry = 24 * time.Hour
	f.VarP(durationFlag(&s.expiry), "session-expiry", "x", "how long the session is kept with -c")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "print the topic before the payload")
	return cmd
}

// waitValue is a duration that may be a plain number of seconds, as Mosquitto's
// -W is.
type waitValue struct{ d *time.Duration }

// String returns the value.
func (v waitValue) String() string {
	if v.d == nil || *v.d == 0 {
		return ""
	}
	return v.d.String()
}

// Type names the value in the help.
func (v waitValue) Type() string { return "duration" }

// Set reads a duration or seconds.
func (v waitValue) Set(text string) error {
	d, err := durationFlag(v.d).parse(text)
	if err != nil {
		d, err = durationFlag(v.d).parse(text + "s")
	}
	*v.d = d
	return err
}

func (s *subscriber) run(ctx context.Context) error {
	if len(s.topics) == 0 {
		return usagef("a topic filter is missing: give one with -t")
	}
	if s.qos < 0 || s.qos > 2 {
		return usagef("QoS %d does not exist: write 0, 1 or 2", s.qos)
	}
	keep := s.keep || !s.clean
	if keep && s.connect.id == "" {
		return usagef("a session that is to be kept needs a client id: add -i NAME")
	}
	dialer, err := s.connect.dialer(s.app)
	if err != nil {
		return err
	}
	defer clear(dialer.password)
	if s.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.wait, errWaited)
		defer cancel()
	}
	options := sessionOptions{clean: !keep, state: state.NewInMemory(), receive: s.receive}
	if keep {
		options.expiry = s.expiry
	}
	s.complete = make(chan struct{})
	err = s.follow(ctx, dialer, options)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failed != nil:
		return s.failed
	case !errors.Is(err, errWaited):
		return err
	case s.printed < s.count:
		return fmt.Errorf("only %d of %d messages came within %s", s.printed, s.count, s.wait)
	}
	return nil
}

// errWaited ends a run by -W.
var errWaited = errors.New("the time of -W is over")

// follow connects, and connects again when the connection is lost, until ctx or
// the count ends it. Its error is nil on an orderly end.
func (s *subscriber) follow(ctx context.Context, d *dialer, options sessionOptions) error {
	pause := firstPause
	for first := true; ; first = false {
		err := s.once(ctx, d, options, first)
		switch {
		case errors.Is(context.Cause(ctx), errWaited):
			return errWaited
		case ctx.Err() != nil:
			return nil
		case err == nil:
			return nil
		}
		var lost lostError
		if first && !errors.As(err, &lost) {
			return err // what does not work at first will not by itself
		}
		if final(err) {
			return err
		}
		if errors.As(err, &lost) {
			pause = firstPause
		}
		fmt.Fprintf(s.app.Err, "mqcluster: %v; connecting again\n", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// lostError is the end of a connection that worked.
type lostError struct{ error }

// Unwrap returns what ended it.
func (e lostError) Unwrap() error { return e.error }

// once runs one connection to its end. It returns nil when sub is complete.
func (s *subscriber) once(ctx context.Context, d *dialer, options sessionOptions, first bool) error {
	s.mu.Lock()
	s.release = make(chan struct{})
	s.owed = 0
	release := s.release
	s.mu.Unlock()
	// A message beyond the count waits for the release in its handler, and the
	// library ends only after its handlers.
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	c, err := d.connect(ctx, options)
	if err != nil {
		return err
	}
	end := func() {
		s.settle(c)
		c.disconnect(free)
	}
	if first || !c.present {
		if err := s.subscribe(ctx, c); err != nil {
			end()
			return err
		}
	}
	select {
	case <-s.complete:
		end()
		return nil
	case <-ctx.Done():
		end()
		return ctx.Err()
	case <-c.Done():
		return lostError{c.lost()}
	}
}

func (s *subscriber) subscribe(ctx context.Context, c *connection) error {
	request := &paho.Subscribe{}
	for _, topic := range s.topics {
		request.Subscriptions = append(request.Subscriptions, paho.SubscribeOptions{Topic: topic, QoS: byte(s.qos)})
	}
	ctx, cancel := context.WithTimeout(ctx, s.connect.timeout)
	defer cancel()
	response, err := c.Subscribe(ctx, request)
	if response != nil {
		for i, code := range response.Reasons {
			if code >= 0x80 && i < len(s.topics) {
				return reasonError("the broker refused to subscribe to "+printable(s.topics[i]), code, "")
			}
		}
	}
	if err != nil {
		if cause := c.cause.Load(); cause != nil {
			return lostError{*cause} // before its SUBACK
		}
		return fmt.Errorf("the broker did not acknowledge the subscription: %w", err)
	}
	return nil
}

// settle waits, not for long, until what was printed is acknowledged: it would
// come again otherwise.
func (s *subscriber) settle(c *connection) {
	s.mu.Lock()
	owed := s.owed
	s.mu.Unlock()
	deadline := time.Now().Add(ackWait)
	for c.conn.acked.Load() < owed && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
}

// receive prints one message. The library acknowledges it when this returns: a
// message beyond the count waits for the end of the connection, so that it stays
// in the session.
func (s *subscriber) receive(p *paho.Publish) {
	s.mu.Lock()
	if s.count > 0 && s.printed >= s.count || s.failed != nil {
		release := s.release
		s.mu.Unlock()
		<-release
		return
	}
	defer s.mu.Unlock()
	if err := s.print(p); err != nil {
		s.failed = fmt.Errorf("the message cannot be printed: %w", err)
		close(s.complete)
		return
	}
	s.printed++
	if p.QoS > 0 {
		s.owed++
	}
	if s.printed == s.count {
		close(s.complete)
	}
}

func (s *subscriber) print(p *paho.Publish) error {
	if !s.out.json() {
		line := make([]byte, 0, len(p.Topic)+len(p.Payload)+2)
		if s.verbose {
			line = append(append(line, p.Topic...), ' ')
		}
		_, err := s.app.Out.Write(append(append(line, p.Payload...), '\n'))
		return err
	}
	message := struct {
		Topic   string `json:"topic"`
		QoS     byte   `json:"qos"`
		Retain  bool   `json:"retain"`
		Dup     bool   `json:"dup"`
		Payload string `json:"payload"`
		// Base64 tells that the payload is no text and was encoded.
		Base64 bool `json:"base64,omitempty"`
	}{p.Topic, p.QoS, p.Retain, p.Duplicate(), string(p.Payload), false}
	if !utf8.Valid(p.Payload) {
		message.Payload, message.Base64 = base64.StdEncoding.EncodeToString(p.Payload), true
	}
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = s.app.Out.Write(append(text, '\n'))
	return err
}
