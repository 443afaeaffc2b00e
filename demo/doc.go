// Package demo shows a cluster at work on one machine: real node processes,
// joined with a real token over real mutual TLS, a balancer before them, devices
// that publish and subscribe through it, and a leader that is killed meanwhile.
// It counts every message and says what was lost.
//
// It is a user of the program, not a part of it: it runs the verbs of its own
// binary, asks the nodes by their admin sockets and their metrics, and speaks
// MQTT as any client does.
package demo
