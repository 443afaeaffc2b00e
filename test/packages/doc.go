// Package packages holds tests of what make deb and make image make: the Debian
// package in a scratch Debian whose own systemd runs it, and the image unpacked. It
// knows the program only by what it prints and does; make check-packages runs it.
//
// It needs Linux, root, Debian's mmdebstrap and a mirror that apt knows.
package packages
