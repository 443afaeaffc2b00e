package broker

// fifo is a queue that reuses its memory and gives it back when it is empty
// after having been large.
type fifo[T any] struct {
	items []T
	head  int
}

// keepCap is the capacity that an empty fifo may keep.
const keepCap = 64

func (q *fifo[T]) len() int { return len(q.items) - q.head }

func (q *fifo[T]) push(v T) { q.items = append(q.items, v) }

func (q *fifo[T]) at(i int) *T { return &q.items[q.head+i] }

func (q *fifo[T]) pop() T {
	var zero T
	v := q.items[q.head]
	q.items[q.head] = zero
	q.head++
	switch {
	case q.head == len(q.items):
		q.reset()
	case q.head >= 1024 && q.head*2 >= len(q.items):
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return v
}

func (q *fifo[T]) reset() {
	if cap(q.items) > keepCap {
		q.items = nil
	}
	q.items, q.head = q.items[:0], 0
}

// moveTo appends all of q to dst.
func (q *fifo[T]) moveTo(dst *fifo[T]) {
	dst.items = append(dst.items, q.items[q.head:]...)
	*q = fifo[T]{}
}
