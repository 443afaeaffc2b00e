// Package bench is a load generator for MQTT brokers that counts exactly: every
// message carries its publisher, number and time of sending, so that what was
// lost, doubled or out of order is known and not estimated, and it reads what
// the broker's processes spent from /proc, so that brokers can be compared by
// CPU time per delivered message, which drifts less than rates do.
//
// It knows nothing of the broker that it measures and imports nothing of this
// house. It is not a conformance test: it trusts what a broker sends to be well
// formed, and a client that has lost its connection does not come back; only new
// connections that a broker has no room for are tried again.
package bench
