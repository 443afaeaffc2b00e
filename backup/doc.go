// Package backup is the file that the state of a cluster is kept in: its format,
// its encryption, and how it comes to lie under its name.
//
// A file is an age file (age-encryption.org/v1): every 64 KiB of it are
// authenticated, and so is its end. Inside is a stream of frames, a kind and a
// length before each: a header, records of the state in the order of their keys,
// perhaps the key of the cluster's CA, and an end that counts them. Where it says a
// format that this version does not know it is refused.
//
// Not here: what a record is and how a state is made of them (package fsm), when a
// backup is made and what a restored cluster is (package node).
package backup
