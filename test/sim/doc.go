// Package sim runs whole clusters in a simulation: five nodes with the real
// consensus, state and broker, in one process under testing/synctest, over a
// network and disks that exist in memory and fail as real ones do.
//
// A schedule is drawn from a seed. It says who connects and publishes, and what
// breaks when. See README.md for what is simulated, what is judged, and what is
// not.
package sim
