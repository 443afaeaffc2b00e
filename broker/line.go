package broker

// line is what has a packet id and is not written yet: QoS 2 messages that wait
// for their marks, and whatever comes behind them, because a session receives in
// the order of the log whatever the QoS.
type line struct {
	q     fifo[standing]
	first uint64 // number of the first in q
}

// standing is one message of a line. One that waits for its mark is not ready; one
// that was given up meanwhile is gone.
type standing struct {
	message
	ready, gone bool
}

// push appends m and returns its number.
func (l *line) push(m *message, ready bool) uint64 {
	l.q.push(standing{message: *m, ready: ready})
	return l.first + uint64(l.q.len()) - 1
}

// at returns the message with a number that was not popped.
func (l *line) at(n uint64) *standing { return l.q.at(int(n - l.first)) }

// ready tells whether there is something to pop.
func (l *line) ready() bool { return l.q.len() > 0 && l.q.at(0).ready }

func (l *line) pop() standing {
	l.first++
	return l.q.pop()
}

// dropLine forgets the line. Those of QoS 1 that no connection has sent are in
// flight no longer: the next one sends them for the first time.
func (o *outgoing) dropLine() {
	for i := range o.line.q.len() {
		if m := o.line.q.at(i); m.qos == 1 && !m.dup {
			delete(o.flights, m.id)
		}
	}
	o.line = line{}
	o.marking = nil
}
