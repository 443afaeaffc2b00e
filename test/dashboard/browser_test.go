//go:build linux

package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is one page of a headless Chromium, and what it has loaded.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	bytes    float64
	requests []string
	errors   []string
}

// openBrowser starts Chromium. It trusts the node whatever its certificate: that of a
// test is of a CA that no browser knows.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Fatal("there is no Chromium: install Debian's package chromium")
	}
	alloc, stop := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("no-sandbox", os.Getuid() == 0),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(time.Minute))...)
	// It is of no interest what of the protocol the library does not know.
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(func() { cancel(); stop() })
	b := &browser{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, b.note)
	// Without a deadline of its own: the browser ends with the context that started it.
	if err := chromedp.Run(ctx, network.Enable(), runtime.Enable()); err != nil {
		t.Fatal(err)
	}
	b.size(1440, 900, false)
	return b
}

func (b *browser) note(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := ev.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *network.EventLoadingFinished:
		b.bytes += e.EncodedDataLength
	case *runtime.EventExceptionThrown:
		b.errors = append(b.errors, e.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError {
			b.errors = append(b.errors, fmt.Sprint("console: ", len(e.Args)))
		}
	}
}

// run does something in the page, within patience.
func (b *browser) run(what string, actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		b.shot("failed")
		b.t.Fatalf("%s: %v\nthe page says:\n%s", what, err, b.words())
	}
}

// words is the text of the page.
func (b *browser) words() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	var text string
	_ = chromedp.Run(ctx, chromedp.Evaluate(`document.body ? document.body.innerText.slice(0, 2000) : ''`, &text))
	return text
}

// eval returns what an expression of JavaScript is.
func eval[T any](b *browser, expression string) (out T) {
	b.t.Helper()
	b.run(expression, chromedp.Evaluate(expression, &out, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return out
}

// until waits until an expression is true, and tells how long that took.
func (b *browser) until(what, expression string) time.Duration {
	b.t.Helper()
	start := time.Now()
	b.run(what, chromedp.Poll(`Boolean(`+expression+`)`, nil, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(patience)))
	return time.Since(start)
}

// says is an expression that is true when the text of an element has words in it.
func says(selector, words string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(%q)].some(e => e.innerText.includes(%q))`, selector, words)
}

func (b *browser) size(width, height int64, phone bool) {
	b.t.Helper()
	b.run("size", emulation.SetDeviceMetricsOverride(width, height, 1, phone))
}

// dark chooses what the machine is said to prefer.
func (b *browser) dark(on bool) {
	b.t.Helper()
	value := "light"
	if on {
		value = "dark"
	}
	b.run("colours", emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}}))
}

// press clicks on what may move meanwhile.
func (b *browser) press(selector string) {
	b.t.Helper()
	b.run("press "+selector, chromedp.Evaluate(fmt.Sprintf("document.querySelector(%q).click()", selector), nil))
}

// goTo shows a page of the dashboard.
func (b *browser) goTo(name string) {
	b.t.Helper()
	b.run("go to "+name, chromedp.Evaluate(fmt.Sprintf("location.hash = '#/%s'", name), nil))
}

// shot keeps a picture, if SCREENSHOTS names a folder.
func (b *browser) shot(name string) {
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	var png []byte
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	err := chromedp.Run(ctx, chromedp.ActionFunc(func(ctx context.Context) (err error) {
		png, err = page.CaptureScreenshot().WithFormat(page.CaptureScreenshotFormatPng).Do(ctx)
		return err
	}))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Logf("no picture %s: %v", name, err)
	}
}

// pose lets time pass for a picture, if there are to be any.
func (b *browser) pose(d time.Duration) {
	if os.Getenv("SCREENSHOTS") != "" {
		time.Sleep(d)
	}
}

// axe is the library that finds what people with a screen reader, a keyboard or weak
// eyes cannot use.
const (
	axeVersion = "4.10.3"
	// axeIntegrity is of the package's tarball, as npm writes it.
	axeIntegrity = "sha512-Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJYLkuIoYZvGfTs/PbZhideTcEg=="
)

// loadAxe fetches axe-core with npm, which compares its checksum.
func loadAxe(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("npm is not here, so that axe-core cannot be had: accessibility was not checked")
	}
	dir := t.TempDir()
	cmd := exec.Command("npm", "pack", "--json", "--silent", "axe-core@"+axeVersion)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("npm cannot fetch axe-core (%v): accessibility was not checked", err)
	}
	var packed []struct{ Filename, Integrity string }
	if err := json.Unmarshal(out, &packed); err != nil || len(packed) != 1 {
		t.Fatalf("npm pack said %s", out)
	}
	if packed[0].Integrity != axeIntegrity {
		t.Fatalf("axe-core has the checksum %s, want %s", packed[0].Integrity, axeIntegrity)
	}
	cmd = exec.Command("tar", "-xzf", packed[0].Filename, "package/axe.min.js")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "package", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// violation is what axe found.
type violation struct {
	ID     string `json:"id"`
	Impact string `json:"impact"`
	Help   string `json:"help"`
	Nodes  []struct {
		HTML    string   `json:"html"`
		Target  []string `json:"target"`
		Summary string   `json:"failureSummary"`
	} `json:"nodes"`
}

// serious are the violations on the page that count.
func (b *browser) serious(axe string) (found []string) {
	b.t.Helper()
	b.run("axe", chromedp.Evaluate(axe+";0", nil))
	for _, v := range eval[[]violation](b, `axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)`) {
		if v.Impact != "serious" && v.Impact != "critical" {
			b.t.Logf("axe, %s: %s", v.Impact, v.Help)
			continue
		}
		for _, n := range v.Nodes[:min(3, len(v.Nodes))] {
			found = append(found, fmt.Sprintf("%s (%s): %s\n  %s\n  %s", v.ID, v.Impact, v.Help, n.HTML, strings.ReplaceAll(n.Summary, "\n", " ")))
		}
	}
	return found
}

var tokenPattern = regexp.MustCompile(`MQA1\.\S+`)
