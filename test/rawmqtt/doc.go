// Package rawmqtt is a small MQTT client for tests that hides nothing: it builds
// and parses frames by hand, so that a test can send what no library would send
// and sees every packet that comes back, in order.
//
// It speaks MQTT 3.1 (version 3), 3.1.1 (version 4) and 5. It is not a client
// for applications: nothing happens by itself, neither keep-alive nor
// reconnecting nor, unless AutoAck is set, acknowledging.
package rawmqtt
