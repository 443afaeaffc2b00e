package broker

import (
	"fmt"
	"testing"
)

// A matcher finds what it was asked for of late, is bounded, and forgets what was
// not used while as many others were.
func TestMatcherKeepsWhatIsUsed(t *testing.T) {
	k := matcher{limit: 8}
	kept := k.lookup([]byte("kept"))
	for i := range 1000 {
		topic := fmt.Sprint("t/", i)
		m := k.lookupString(topic)
		if m.topic != topic || k.lookup([]byte(topic)) != m {
			t.Fatalf("%q is %q", topic, m.topic)
		}
		if i%4 == 0 && k.lookup([]byte("kept")) != kept {
			t.Fatalf("after %d others what was used all the time is forgotten", i)
		}
		if n := len(k.young) + len(k.old); n > 16 {
			t.Fatalf("%d topics are kept", n)
		}
	}
	before := k.lookupString("t/1")
	for i := range 20 {
		k.lookupString(fmt.Sprint("u/", i))
	}
	if k.lookupString("t/1") == before {
		t.Error("what was not used is kept")
	}
}
