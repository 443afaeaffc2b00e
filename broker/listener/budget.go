package listener

// Budget bounds all connections that have not authenticated, of all listeners
// of a node together.
type Budget struct{}

// NewBudget returns a Budget of maxConns connections and maxBytes bytes that
// they may have sent in all.
func NewBudget(maxConns int, maxBytes int64) *Budget { panic("soon") }
