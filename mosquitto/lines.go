package mosquitto

import (
	"bytes"
	"fmt"
	"iter"
)

// Bounds of text files.
const (
	maxFile = 256 << 20 // bytes
	maxLine = 64 << 10  // bytes
)

// lines yields the lines of a text file by number, without their ends.
func lines(data []byte) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for n := 1; len(data) > 0; n++ {
			line, rest, _ := bytes.Cut(data, []byte{'\n'})
			data = rest
			if !yield(n, string(bytes.TrimSuffix(line, []byte{'\r'}))) {
				return
			}
		}
	}
}

// bounded refuses a file that is none of mosquitto's.
func bounded(file string, data []byte) error {
	if len(data) > maxFile {
		return fmt.Errorf("%s has %d bytes: that is more than a file of mosquitto can be, name the right one", file, len(data))
	}
	return nil
}
