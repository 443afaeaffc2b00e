// Package admin is how operators and balancers talk to a node: a JSON API on a
// Unix socket, which the CLI uses through Client, and an HTTP listener with
// /livez, /readyz and /metrics. It decides nothing itself: what an operation
// does is the business of the Backend that package node injects.
//
// Who may open the socket (mode 0600) may do everything; there is no other
// authentication and no network listener for changes.
package admin
