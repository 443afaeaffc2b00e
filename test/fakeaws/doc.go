// Package fakeaws is a small fake of Amazon's cloud for tests of deploy/terraform: the
// API actions that terraform's own provider and the nodes use, and what they lead to.
// A machine is a systemd of its own on a copy-on-write view of this machine's files,
// which runs the user data it was given; a volume is an image on a loop device that
// outlives machines; an address is one of 127.0.0.0/8; the balancer passes TCP on
// with PROXY v2, asks /readyz, and reaches only what the security groups let it.
//
// It is strict: an action, a parameter or a filter that it does not know fails the
// test (Failures), so that nothing is taken for done that is not. Signatures are
// checked, and what a node may do is decided by the policy of its role.
//
// What of a machine is not real: the kernel, its boot and its devices (no udev; the
// volume's device is made by hand), cloud-init (a unit runs the user data instead),
// the metadata service's address, and the network: all share the loopback, so that
// security groups hold for the balancer alone. Of the host's own units none is
// started. It needs Linux, root, systemd, losetup, mkfs.ext4, curl and openssl.
package fakeaws
