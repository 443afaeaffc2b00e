// Package routing matches MQTT topics against topic filters: one by one
// ([Match], [Covers]), many filters for one topic ([Trie], and [Topics] to
// remember it) and one filter over many stored topics ([TopicScan]). It is pure: no clock, no I/O,
// no goroutine, standard library only. Who subscribes, and what a match means,
// is the business of its callers.
//
// Filters given to Match, Covers, Trie and TopicScan are inner ones: a caller
// takes "$share/group/" off with [SplitShared] first.
package routing
