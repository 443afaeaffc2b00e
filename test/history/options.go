package history

import "time"

// Options say what a run had to achieve. What is 0 is not demanded, or has its
// default.
type Options struct {
	// MinAcked is how many publishes of QoS 1 and 2 must have been acknowledged.
	MinAcked int
	// MinOwed is how many deliveries must have been owed and judged.
	MinOwed int
	// MinShare is how much of what the publishers were to send outside the windows
	// of faults must have been acknowledged, whether it could be sent or not.
	MinShare float64
	// MaxSilence is the longest time without any acknowledgement between the
	// first and the last one of the run, outside the windows of faults.
	MaxSilence time.Duration
	// FaultGrace is how long a window lasts beyond its FaultEnd; 0 means 5 s.
	FaultGrace time.Duration
	// QoS0 demands messages of QoS 0 as well: the mesh was whole all the time.
	QoS0 bool
	// Settled, if not 0, is how long after the receiver's acknowledgement a QoS 1
	// message must not come again, not even with DUP after a reconnect, if nothing
	// was wrong for so long. It must be longer than the broker takes to write
	// acknowledgements down.
	Settled time.Duration
	// TakeoverGrace is how long a connection may live on after another one with
	// its client id was acknowledged; 0 means a second. FaultTakeover is the same
	// where anything was wrong with any node meanwhile, so that the loser's may not
	// have heard of it; 0 means TakeoverGrace.
	TakeoverGrace, FaultTakeover time.Duration
	// DrainGrace is how long wills of drained clients wait; 0 means 60 s.
	DrainGrace time.Duration
	// WillLate is how much later than due a will may be fired if anything was wrong
	// meanwhile; else it is a few seconds. One that was due less than that before
	// Drained need not have come. 0 means 20 s.
	WillLate time.Duration
	// ExpiryMargin is how much longer than asked for a session may live; 0 means 2 s.
	ExpiryMargin time.Duration
	// JudgeTime bounds the search for an order of one register's reads and writes;
	// what it does not decide counts as broken. 0 means 10 s.
	JudgeTime time.Duration
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		value *time.Duration
		to    time.Duration
	}{
		{&o.FaultGrace, 5 * time.Second}, {&o.TakeoverGrace, time.Second}, {&o.DrainGrace, time.Minute},
		{&o.WillLate, 20 * time.Second}, {&o.ExpiryMargin, 2 * time.Second}, {&o.JudgeTime, 10 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.to
		}
	}
	if o.FaultTakeover == 0 {
		o.FaultTakeover = o.TakeoverGrace
	}
	return o
}
