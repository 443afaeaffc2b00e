package broker

import (
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sampleOf is of how many messages one is timed: a look at the clock costs about as
// much as the rest of what a message costs between a read and a write.
const sampleOf = 128

// stages are how long messages take for the parts of their way through this node.
type stages struct {
	receive, commit, deliver, ack prometheus.Observer
	start                         time.Time
}

func newStages(start time.Time) (stages, *prometheus.HistogramVec) {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "mqcluster_broker_stage_seconds",
		Help: "Time of messages in the parts of their way, of one in 128: receive, from the read to the log or to the receivers' queues; commit, from there until a majority has it on disk and it is applied here; deliver, from the receiver's queue to its socket; ack, from the socket to the receiver's acknowledgement.",
		// 50 microseconds to 13 s; the last hold what a slow client takes.
		Buckets: prometheus.ExponentialBuckets(0.00005, 4, 10),
	}, []string{"stage"})
	return stages{
		receive: vec.WithLabelValues("receive"), commit: vec.WithLabelValues("commit"),
		deliver: vec.WithLabelValues("deliver"), ack: vec.WithLabelValues("ack"), start: start,
	}, vec
}

// mark is the moment for one message in sampleOf, and 0 for the others.
func (s *stages) mark() int64 {
	if rand.Uint32()%sampleOf != 0 {
		return 0
	}
	return s.now()
}

// now is never 0.
func (s *stages) now() int64 { return int64(time.Since(s.start)) | 1 }

// passed observes the time since a mark, if it is one.
func (s *stages) passed(stage prometheus.Observer, mark int64) {
	if mark != 0 {
		stage.Observe(time.Duration(s.now() - mark).Seconds())
	}
}
