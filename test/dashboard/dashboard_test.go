//go:build linux

package dashboard

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// clientCount is how many clients are connected.
func clientCount(t *testing.T) int {
	t.Helper()
	text := os.Getenv("DASHBOARD_CLIENTS")
	if text == "" {
		return 300
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 30 {
		t.Fatalf("DASHBOARD_CLIENTS is %q: write a number from 30", text)
	}
	return n
}

func TestDashboard(t *testing.T) {
	c := startCluster(t)
	c.waitLevel()
	first := c.nodes[0]
	c.cli(first, "acl", "set", "*", "deny publish plant/secret/#", "allow both #")
	c.run("correct horse\n", "user", "add", "anna", "--stdin", "--data-dir", first.dir)
	c.cli(first, "acl", "set", "user:anna", "allow subscribe plant/#", "deny both #")
	c.cli(first, "cert", "issue", "anna", "--dir", t.TempDir())
	token := tokenPattern.FindString(c.cli(first, "api-token", "create", "--name", "duty", "--role", "admin"))
	count := clientCount(t)
	devices := c.devices(count)
	for i, d := range devices[:20] {
		if err := d.subscribe(fmt.Sprintf("plant/%d/#", i)); err != nil {
			t.Fatal(err)
		}
		if err := d.publish(fmt.Sprintf("plant/%d/state", i), fmt.Sprintf(`{"on":true,"line":%d}`, i), true); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { // what a plant says all day
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			i := n % 20
			_ = devices[i+n%3].publish(fmt.Sprintf("plant/%d/temperature", i), fmt.Sprintf("%.1f", 20+float64(n%50)/10), false)
		}
	}()
	t.Cleanup(func() { close(stop); <-done })

	b := openBrowser(t)
	t.Run("login", func(t *testing.T) { b.t = t; testLogin(b, first, token) })
	if t.Failed() {
		return
	}
	t.Run("first view", func(t *testing.T) { b.t = t; testFirstView(b, first, count) })
	t.Run("find", func(t *testing.T) { b.t = t; testFind(b, count) })
	t.Run("tail", func(t *testing.T) { b.t = t; testTail(b, devices[1]) })
	t.Run("topics", func(t *testing.T) { b.t = t; testTopics(b) })
	t.Run("many topics", func(t *testing.T) { b.t = t; testManyTopics(b, devices[:20]) })
	t.Run("explain", func(t *testing.T) { b.t = t; testExplain(b) })
	t.Run("ban", func(t *testing.T) { b.t = t; testBan(b, count) })
	t.Run("look", func(t *testing.T) { b.t = t; testLook(b) })
	t.Run("axe", func(t *testing.T) { b.t = t; testAxe(b) })
	t.Run("drain", func(t *testing.T) { b.t = t; testDrain(b) })
	t.Run("kill", func(t *testing.T) { b.t = t; testKill(b, c) })
	t.Run("log out", func(t *testing.T) { b.t = t; testLogOut(b) })
	for _, e := range b.errors {
		t.Errorf("the page failed: %s", e)
	}
}

func testLogin(b *browser, n *node, token string) {
	b.run("open", chromedp.Navigate("https://"+n.web+"/"), chromedp.WaitVisible("#token"))
	b.shot("login")
	b.run("a wrong token", chromedp.SendKeys("#token", "MQA1.abc.def\r"))
	b.until("the refusal", says(".fail", "not known"))
	b.run("the right one", chromedp.Evaluate(`document.querySelector('#token').value = ''`, nil), chromedp.SendKeys("#token", token+"\r"))
	b.until("the overview", `document.querySelector('.facts dd')`)
}

func testFirstView(b *browser, n *node, clients int) {
	b.until("three nodes", `document.querySelectorAll('tbody tr').length === 3`)
	b.mu.Lock()
	b.bytes, b.requests = 0, nil
	b.mu.Unlock()
	b.run("reload, as if for the first time", network.SetCacheDisabled(true), chromedp.Reload())
	b.until("the figures", says(".facts", fmt.Sprint(grouped(clients))))
	shown := eval[float64](b, `performance.now()`)
	b.mu.Lock()
	loaded, requests := b.bytes, b.requests
	b.mu.Unlock()
	b.t.Logf("first view: %.0f bytes in %d requests; the figures were there %.0f ms after the navigation began", loaded, len(requests), shown)
	if loaded > 300<<10 {
		b.t.Errorf("the first view took %.0f bytes", loaded)
	}
	for _, r := range requests {
		if !strings.HasPrefix(r, "https://"+n.web+"/") && !strings.HasPrefix(r, "data:") {
			b.t.Errorf("a request to somebody else: %s", r)
		}
	}
	if shown > 1000 {
		b.t.Errorf("the first view took %.0f ms", shown)
	}
	b.run("with a cache again", network.SetCacheDisabled(false))
	b.until("health", says(".health", "Healthy"))
	b.until("calm", says(".alarms", "No alarms"))
	b.until("rates", `[...document.querySelectorAll('[data-cell=in]')].some(e => Number(e.textContent) > 0)`)
	b.pose(10 * time.Second)
	b.shot("overview")
}

func grouped(n int) string {
	s := strconv.Itoa(n)
	if len(s) > 3 {
		s = s[:len(s)-3] + "," + s[len(s)-3:]
	}
	return s
}

func testFind(b *browser, count int) {
	b.goTo("clients")
	b.until("all clients", says(".total", "of "+grouped(count)+" clients"))
	b.shot("clients")
	want := fmt.Sprintf("dev-%05d", count-3)
	b.run("search", chromedp.SendKeys("input[type=search]", want[3:]))
	took := b.until("the client", says("tbody th", want)+` && document.querySelectorAll('tbody tr').length === 1`)
	b.t.Logf("one of %d was found in %v", count, took.Round(time.Millisecond))
	b.run("open it", chromedp.Click("tbody th button"))
	b.until("its session", says("dialog", "Subscriptions in the log"))
	b.shot("client")
	b.run("close it", chromedp.Click("dialog button[type=button]"))
	b.run("disconnect it", chromedp.Click("tbody td.do button"), chromedp.WaitVisible("dialog .danger"))
	b.shot("disconnect")
	b.run("yes", chromedp.Click("dialog .danger"))
	b.until("that it went", says(".toast", "was disconnected from"))
	b.until("nobody", says(".empty", "Nothing matches"))
	b.until("the event", says(".events", want))
}

func testTail(b *browser, d *device) {
	b.goTo("tail")
	b.run("filter", chromedp.WaitVisible("#filter"), chromedp.SendKeys("#filter", "plant/+/temperature\r"))
	b.until("messages", `document.querySelectorAll('.messages li').length > 20`)
	b.shot("tail")
	b.goTo("tail?filter=order/%2B/new")
	b.until("watching", says(".total", "0 messages"))
	for i := range 3 {
		if err := d.publish(fmt.Sprintf("order/%d/new", i), "number "+strconv.Itoa(i), false); err != nil {
			b.t.Fatal(err)
		}
	}
	b.until("the messages of another node", says(".messages", "number 2"))
}

func testTopics(b *browser) {
	b.goTo("topics")
	b.until("plant", says(".tree .name", "plant"))
	b.run("open it", chromedp.Click(`.level[data-topic="plant"] .fold`))
	b.until("below", `document.querySelector('.level[data-topic="plant/7"] .fold')`)
	b.run("open it", chromedp.Click(`.level[data-topic="plant/7"] .fold`))
	b.until("a retained value", says(".level", `"line":7`))
	b.until("a rate", says(`.level[data-topic="plant"]`, "/s"))
	b.run("choose it", chromedp.Click(`.level[data-topic="plant/7/state"] .name`))
	b.until("its message", says("aside pre", `"line": 7`))
	b.shot("topics")
}

// testManyTopics has 10,000 topics retain something, opens the levels of 2,000 of
// them, and sees that the page stays smooth while it looks again.
func testManyTopics(b *browser, devices []*device) {
	const groups, each, opened = 100, 100, 20
	for i := range groups * each {
		if err := devices[i%len(devices)].publish(fmt.Sprintf("wide/%03d/%03d", i/each, i%each), strconv.Itoa(i), true); err != nil {
			b.t.Fatal(err)
		}
	}
	b.goTo("topics")
	b.until("wide", `document.querySelector('.level[data-topic="wide"] .fold')`)
	b.press(`.level[data-topic="wide"] .fold`)
	b.until("all groups", fmt.Sprintf(`document.querySelectorAll('.level[data-topic^="wide/"]').length === %d`, groups))
	b.run("watch how long the page is busy", chromedp.Evaluate(`
		window.busy = [];
		new PerformanceObserver(l => busy.push(...l.getEntries().map(e => e.duration))).observe({ type: 'longtask' });
		window.frames = [];
		(function frame(last) { requestAnimationFrame(now => { if (last) frames.push(now - last); frame(now); }); })(0);`, nil))
	for i := range opened {
		b.press(fmt.Sprintf(`.level[data-topic="wide/%03d"] .fold`, i*3))
		b.until("what is below it", fmt.Sprintf(`document.querySelectorAll('.level[data-topic^="wide/%03d/"]').length === %d`, i*3, each))
	}
	b.run("from now on", chromedp.Evaluate(`performance.clearResourceTimings(); performance.setResourceTimingBufferSize(5000)`, nil))
	b.until("that it looked again, twice", `performance.getEntriesByType('resource').filter(e => e.name.includes('under=wide%2F&')).length >= 3`)
	b.shot("many-topics")
	longest := eval[float64](b, `Math.max(0, ...busy)`)
	tasks := eval[int](b, `busy.length`)
	frame := eval[float64](b, `frames.sort((a, b) => a - b)[Math.floor(frames.length * 0.99)]`)
	rows := eval[int](b, `document.querySelectorAll('.level').length`)
	b.t.Logf("%d topics, %d rows: %d tasks of more than 50 ms, the longest %.0f ms; p99 of a frame %.0f ms", groups*each, rows, tasks, longest, frame)
	if longest > 250 {
		b.t.Errorf("the page was busy for %.0f ms", longest)
	}
}

func testExplain(b *browser) {
	b.goTo("access?tab=explain")
	b.run("ask", chromedp.WaitVisible("#x-user"), chromedp.SendKeys("#x-user", "anna"), chromedp.SendKeys("#x-topic", "plant/1/state\r"))
	b.until("the answer", says(".verdict", "Denied")+` && `+says(".answer", "deny both #"))
	b.shot("explain")
	b.run("ask about subscribe", chromedp.SetValue("#x-action", "subscribe"), chromedp.Click(".ask button"))
	b.until("the answer", says(".verdict", "Allowed")+` && `+says(".answer", "allow subscribe plant/#"))
}

// testBan bans a client from the list, lifts it again, and finds both in the audit.
func testBan(b *browser, count int) {
	who := fmt.Sprintf("dev-%05d", count-5)
	b.goTo("clients?q=" + who)
	b.until("the client", says("tbody th", who)+` && document.querySelectorAll('tbody tr').length === 1`)
	b.press("tbody td.do button:last-child")
	b.run("why", chromedp.WaitVisible("#ban-reason"), chromedp.SendKeys("#ban-reason", "it shouts"))
	b.shot("ban")
	b.run("yes", chromedp.Click("dialog .danger"))
	b.until("that it is banned", says(".toast", who+" is banned"))
	b.until("that it is gone", says(".empty", "Nothing matches"))
	b.goTo("bans")
	b.until("the ban", says("tbody tr", who)+` && `+says("tbody tr", "it shouts"))
	b.shot("bans")
	b.press("tbody td.do button")
	b.run("lift it", chromedp.WaitVisible("dialog .danger"), chromedp.Click("dialog .danger"))
	b.until("nobody", says(".empty", "Nobody is banned"))
	b.goTo("audit?operation=ban")
	b.until("both", `document.querySelectorAll('tbody tr').length === 2 && `+says("tbody tr", "client "+who)+` && `+says("tbody tr", "token duty"))
	b.goTo("audit?q=" + who)
	b.until("by whom it was", `document.querySelectorAll('tbody tr').length >= 2`)
}

// looks are pages that are only looked at.
var looks = []string{"overview", "clients", "sessions", "topics", "tail?filter=plant/%23", "routes", "access", "access?tab=rules", "access?tab=tokens", "bans", "certificates", "audit"}

// testLook sees that every page shows something, and keeps pictures of them.
func testLook(b *browser) {
	look := func(suffix string) {
		for _, name := range looks {
			b.goTo(name)
			b.until(name, `document.querySelector('main h1') && !document.querySelector('main .wait:not(.events .wait)') && !document.querySelector('main .empty.bad')`)
			b.pose(300 * time.Millisecond)
			b.shot(strings.NewReplacer("?tab=", "-", "?filter=plant/%23", "").Replace(name) + suffix)
			if wide := eval[bool](b, `document.documentElement.scrollWidth > document.documentElement.clientWidth + 1`); wide {
				b.t.Errorf("%s%s is wider than the window", name, suffix)
			}
		}
	}
	look("-light")
	b.dark(true)
	look("-dark")
	b.size(390, 844, true)
	look("-phone-dark")
	b.dark(false)
	look("-phone")
	b.size(1440, 900, false)
	b.goTo("clients?q=nobody-has-this-name")
	b.until("nothing", says(".empty", "Nothing matches"))
	b.shot("empty")
	b.goTo("overview")
	// By keyboard alone: the first stop leads past the frame.
	b.run("tab", chromedp.Evaluate(`document.activeElement.blur(); scrollTo(0,0)`, nil), chromedp.KeyEvent("\t", chromedp.KeyModifiers(input.ModifierNone)))
	if eval[bool](b, `getComputedStyle(document.activeElement).outlineStyle === 'none' && document.activeElement !== document.body`) {
		b.t.Error("the focus cannot be seen")
	}
	b.goTo("clients")
	b.until("clients", `document.querySelector('input[type=search]')`)
	b.run("slash", chromedp.KeyEvent("/"))
	if got := eval[string](b, `document.activeElement.type`); got != "search" {
		b.t.Errorf("the slash leads to %q", got)
	}
}

func testAxe(b *browser) {
	axe := loadAxe(b.t)
	for _, dark := range []bool{false, true} {
		b.dark(dark)
		for _, name := range looks {
			b.goTo(name)
			b.until(name, `document.querySelector('main h1') && !document.querySelector('main .wait:not(.events .wait)')`)
			for _, v := range b.serious(axe) {
				b.t.Errorf("%s, dark %t: %s", name, dark, v)
			}
		}
	}
	b.dark(false)
}

func testDrain(b *browser) {
	b.goTo("overview")
	b.until("the nodes", `document.querySelector('tr[data-node=n2] td.do button')`)
	b.press("tr[data-node=n2] td.do button")
	b.run("the dialog", chromedp.WaitVisible("dialog"))
	b.until("what it will do", says("dialog", "sent away within")+` && `+says("dialog", "n1")+` && `+says("dialog", "n3"))
	b.shot("drain")
	b.run("yes", chromedp.SendKeys("#drain-rate", "500"), chromedp.Click("dialog button[type=submit]"))
	b.until("that it drains", says(`tr[data-node=n2]`, "drain"))
	b.until("that all have gone", says(`tr[data-node=n2]`, "drained")+` && document.querySelector('[data-cell=clients][data-node=n2]').textContent === '0'`)
	b.shot("drained")
	b.press("tr[data-node=n2] td.do button")
	b.until("that it serves", says(`tr[data-node=n2]`, "ready"))
}

func testKill(b *browser, c *cluster) {
	b.goTo("overview")
	b.until("no alarm", says(".alarms", "No alarms"))
	c.nodes[2].kill()
	took := b.until("the alarm", says(".alarms .critical", "Node n3 does not answer")+` && `+says(".health", "critical"))
	b.t.Logf("the alarm came %v after the kill", took.Round(time.Millisecond))
	if took > 6*time.Second {
		b.t.Errorf("the alarm took %v", took)
	}
	b.shot("killed")
	b.dark(true)
	b.pose(300 * time.Millisecond)
	b.shot("killed-dark")
	b.dark(false)
	c.start(c.nodes[2])
	b.until("all well again", says(".alarms", "No alarms"))
}

func testLogOut(b *browser) {
	b.run("log out", chromedp.Click(".me button:last-child"), chromedp.WaitVisible("#token"))
	if got := eval[int](b, `fetch('/v1/overview').then(r => r.status)`); got != 401 {
		b.t.Errorf("after logging out: %d", got)
	}
}
