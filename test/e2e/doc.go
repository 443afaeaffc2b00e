// Package e2e runs the real binary: clusters of real processes on 127.0.0.1 that
// joined with a real token, real clients, and faults: killed, stopped and cut-off
// nodes. It knows the broker only by what it prints, answers and sends; of the
// house it imports only other test packages. README.md tells how to run it and
// which bugs it found.
//
// It needs Linux (signals, /proc) and neither root nor a network.
package e2e
