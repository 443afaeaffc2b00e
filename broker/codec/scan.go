package codec

// Scan finds the first packet in buf. n is its whole length, or 0 if more bytes
// are needed; need is then how many bytes buf must have at least, 0 if that is
// not known yet. max is the largest whole packet allowed, in bytes. Scan fails
// as soon as the fixed header is wrong, without waiting for the rest. It takes
// packets of both directions; ScanClient refuses those that only servers send.
//
// The DUP bit of PUBREL, SUBSCRIBE and UNSUBSCRIBE is legal in 3.1 only: it is
// the parsers' to refuse, because Scan does not know the version.
func Scan(buf []byte, max int) (n, need int, err error) { panic("soon") }

// ScanClient is Scan for what a client sends: a packet type that only servers
// send is a protocol error.
func ScanClient(buf []byte, max int) (n, need int, err error) { panic("soon") }
