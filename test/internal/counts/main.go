// Command counts sums up what go test -json wrote to the files that it is given:
// the output of every test that failed, the names of those that were skipped and
// why, and a closing line "N passed, N failed, N skipped". A test that ran in
// several files counts once, by its worst run. It exits with 1 if anything
// failed, did not build, or if no test ran.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	details := flag.Bool("details", true, "print what failed and what was skipped")
	closing := flag.Bool("closing", true, "print the closing line")
	slowest := flag.Int("slowest", 0, "print how long so many of the slowest tests took")
	flag.Parse()
	s := newSummary()
	for _, path := range flag.Args() {
		if err := s.readFile(path); err != nil {
			fmt.Fprintln(os.Stderr, "counts:", err)
			os.Exit(1)
		}
	}
	if *details {
		s.details(os.Stdout)
	}
	s.slow(os.Stdout, *slowest)
	if *closing {
		fmt.Println(s.closing())
	}
	if err := s.verdict(); err != nil {
		fmt.Fprintln(os.Stderr, "counts:", err)
		os.Exit(1)
	}
}

// event is a line of go test -json; go doc test2json tells the fields.
type event struct {
	Action, Package, Test, Output string
	ImportPath, FailedBuild       string
	Elapsed                       float64 // seconds
}

// outcome of a test, the worst last.
type outcome int

const (
	unknown outcome = iota
	skipped
	passed
	failed
)

// id is a test; a package of its own accord has no test name.
type id struct{ pkg, test string }

// summary is what all files together say.
type summary struct {
	outcomes map[id]outcome
	output   map[id][]string // of what is running, and of what failed or was skipped
	reports  []id            // failed or skipped, in the order of their ends
	builds   map[string][]string
	broken   []string // packages that failed without a failed test
	elapsed  map[id]float64
}

func newSummary() *summary {
	return &summary{outcomes: map[id]outcome{}, output: map[id][]string{}, builds: map[string][]string{}, elapsed: map[id]float64{}}
}

func (s *summary) readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("the report of a run is missing: %w", err)
	}
	defer f.Close()
	if err := s.read(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// read takes one run. A test without an end in it counts as failed: its process
// was ended.
func (s *summary) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	run := &run{summary: s, open: map[id]bool{}, failures: map[string]bool{}}
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "{") {
			continue // what a tool printed beside
		}
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("a line is no event of go test -json: %w", err)
		}
		run.take(e)
	}
	run.end()
	return lines.Err()
}

// run is what is known while one file is read.
type run struct {
	*summary
	open     map[id]bool
	failures map[string]bool // packages with a failed test
}

func (r *run) take(e event) {
	key := id{e.Package, e.Test}
	if e.Test != "" && !strings.Contains(e.Test, "/") {
		r.elapsed[key] = max(r.elapsed[key], e.Elapsed)
	}
	switch e.Action {
	case "build-output":
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
	case "run", "start":
		r.open[key] = true
		r.output[key] = nil
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "pass":
		r.finish(key, passed)
	case "skip":
		r.finish(key, skipped)
	case "fail":
		if e.Test == "" {
			r.abandon(e.Package)
		}
		r.finish(key, failed)
	}
}

// abandon fails the tests of a package that did not end, and the package itself
// if that explains nothing.
func (r *run) abandon(pkg string) {
	for _, key := range r.unfinished() {
		if key.pkg == pkg && key.test != "" {
			r.finish(key, failed)
		}
	}
	if !r.failures[pkg] {
		r.broken = append(r.broken, pkg)
	}
}

// unfinished lists the tests and packages without an end.
func (r *run) unfinished() []id {
	return slices.SortedFunc(maps.Keys(r.open), func(a, b id) int {
		return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test))
	})
}

func (r *run) finish(key id, how outcome) {
	delete(r.open, key)
	if how == failed {
		r.failures[key.pkg] = true
	}
	switch {
	case key.test == "" && how != failed, how == passed:
		delete(r.output, key)
	case how > r.outcomes[key]:
		r.reports = append(r.reports, key)
	}
	if key.test != "" {
		r.outcomes[key] = max(r.outcomes[key], how)
	}
}

// end closes what the file left open.
func (r *run) end() {
	for _, key := range r.unfinished() {
		if key.test == "" {
			r.abandon(key.pkg)
			r.finish(key, failed)
		}
	}
}

// count returns how many tests had the outcome.
func (s *summary) count(how outcome) int {
	n := 0
	for _, o := range s.outcomes {
		if o == how {
			n++
		}
	}
	return n
}

// closing is the line that ends a run. A package that failed by itself, because
// it did not build, say, is one more failure.
func (s *summary) closing() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", s.count(passed), s.count(failed)+len(s.broken), s.count(skipped))
}

func (s *summary) verdict() error {
	if n := s.count(failed) + len(s.broken); n > 0 {
		return fmt.Errorf("%d failed", n)
	}
	if s.count(passed) == 0 {
		return errors.New("no test ran")
	}
	return nil
}

// details prints what failed and was skipped.
func (s *summary) details(w io.Writer) {
	for _, path := range slices.Sorted(maps.Keys(s.builds)) {
		fmt.Fprintf(w, "does not build: %s\n%s", path, strings.Join(s.builds[path], ""))
	}
	for _, key := range s.reports {
		if s.outcomes[key] == skipped {
			fmt.Fprintf(w, "skipped: %s %s: %s\n", key.pkg, key.test, s.reason(key))
		}
	}
	for _, key := range s.reports {
		if s.outcomes[key] != failed && !slices.Contains(s.broken, key.pkg) {
			continue
		}
		fmt.Fprintf(w, "failed: %s %s\n%s", key.pkg, key.test, strings.Join(s.output[key], ""))
	}
}

// slow prints the n tests that took longest, and how long; a test that was parallel
// shared that time with others.
func (s *summary) slow(w io.Writer, n int) {
	all := slices.SortedFunc(maps.Keys(s.elapsed), func(a, b id) int {
		return cmp.Or(cmp.Compare(s.elapsed[b], s.elapsed[a]), cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test))
	})
	for _, key := range all[:min(n, len(all))] {
		fmt.Fprintf(w, "%7.1f s %s %s\n", s.elapsed[key], key.pkg, key.test)
	}
}

// reason is what a skipped test printed, without go test's own lines.
func (s *summary) reason(key id) string {
	var said []string
	for _, line := range s.output[key] {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}
