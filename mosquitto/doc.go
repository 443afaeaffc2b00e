// Package mosquitto reads the files of an Eclipse Mosquitto broker: its
// configuration (mosquitto.conf of 1.x and 2.0), password and ACL files, the
// dynamic-security plugin's JSON and the persistence database. It is pure: it
// knows nothing of this broker, changes no file and opens only those that it is
// handed. What becomes of what it read is the business of its callers.
//
// The formats are those that the manual pages of Mosquitto 2.0.11 describe; what
// they leave open (the database, the order in which rules count) was found by
// running that version.
package mosquitto
