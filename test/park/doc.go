// Command park runs what the cluster exists for on one machine: three real nodes
// behind HAProxy, and a park of clients with certificates and passwords of their
// own (sensors that publish, devices that wait for commands, dashboards that watch
// an area each) in several generator processes. It kills the leader, starts it
// again, has a third of the clients reconnect at once, several times, accounts for
// every message from its payload, and prints a verdict for each bar. Its exit code is 1
// where a bar is missed.
//
// Nodes, balancers and generators share the machine's processors, so what a generator
// computes is taken from the nodes and measured as if it were their doing. Those that storm
// are for that reason in processes of their own, which get a processor when nobody else
// wants it, and in the storm always the same one; a generator begins no more handshakes a
// second than it takes for the balancers to have enough of them, and collects no garbage in
// a storm.
//
// It knows the program only by its verbs and its ports, as an operator does.
package main
