//go:build linux

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	randv2 "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestNoClearText captures everything that three nodes, a fourth that joins
// later, and their clients say on loopback, and looks for what must be secret:
// topics, payloads, passwords, their hashes, the join token's secret, a client's
// key. A control node with a plaintext listener, in the same capture, shows that
// such bytes would be found. The loopback is that of a network namespace, so that
// nothing that others say is judged, or displaces what should be.
func TestNoClearText(t *testing.T) {
	need(t, "tcpdump")
	t.Parallel() // it waits for a snapshot most of the time
	if !inOwnNetwork(t) {
		return
	}
	control := NewCluster(t, Options{Nodes: 1})
	settings := []string{"--raft.snapshot-interval", "1s", "--raft.snapshot-threshold", "200", "--raft.trailing-logs", "20"}
	tlsOnly := func(n *Node) []string { return append([]string{"--listener", "tls,address=" + n.TLS}, settings...) }

	// The ports must be known before the capture starts, and the capture has to
	// start before the cluster does.
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	capture := startCapture(t, filepath.Join(dir, "lo.pcap"))
	c := newListening(t, 3, tlsOnly)

	marker := func(what string) string { return "MARK" + what + strings.ToUpper(rand.Text()[:16]) }
	topic, payload, secret := "t/"+marker("topic"), marker("payload"), marker("password")
	c.addUser("marked", secret)
	sub := login{c.Nodes[1].TLS, c.ClientTLS, "marked", secret}.must(t, persistent("marked-sub", 3600))
	sub.Sub(rawmqtt.Sub(topic+"/#", 2))
	pub := login{c.Nodes[0].TLS, c.ClientTLS, "marked", secret}.must(t, clean("marked-pub"))
	for qos := range byte(3) {
		for i := range 30 {
			pub.Pub(fmt.Sprintf("%s/%d", topic, i), qos, i%3 == 0, payload)
		}
	}
	sub.Messages(90, patience)
	third := login{c.Nodes[2].TLS, c.ClientTLS, "marked", secret}.must(t, clean("marked-third"))
	third.Sub(rawmqtt.Sub(topic+"/#", 1))
	third.Messages(10, patience)
	sub.Close()
	for i := range 500 {
		pub.Pub(fmt.Sprintf("%s/%d", topic, i%100), 1, true, payload)
	}
	_, _, pair := c.certificate("marked")

	// A node that joins after the log was cut gets a snapshot, with all of it.
	leader := c.Leader()
	await(t, 90*time.Second, func() bool { return strings.Contains(leader.Log(), "snapshot complete") },
		func() string { return "the leader took no snapshot" })
	token := strings.TrimSpace(c.Nodes[2].CLI("token", "create", "--quiet"))
	fourth := c.add()
	if out, err := command("", append([]string{"join", c.Nodes[1].Mesh, "--token", token}, fourth.bare(tlsOnly(fourth)...)...)...); err != nil {
		t.Fatal(err, out)
	}
	fourth.Start()
	fourth.WaitReady(patience)
	late := login{fourth.TLS, c.ClientTLS, "marked", secret}.must(t, clean("marked-late"))
	late.Sub(rawmqtt.Sub(topic+"/#", 1))
	late.Messages(100, patience)
	if !regexp.MustCompile(`(?i)snapshot.*(restor|install)|(restor|install).*snapshot`).MatchString(fourth.Log()) {
		t.Error("the fourth node's log tells of no snapshot that it was sent")
	}
	c.Nodes[1].Stop()
	c.Nodes[1].Restart()
	resumed := login{c.Nodes[2].TLS, c.ClientTLS, "marked", secret}.must(t, persistent("marked-sub", 3600))
	if !resumed.Present {
		t.Error("the session is gone")
	}
	resumed.Messages(500, patience)

	// The control, over the plaintext listener.
	control.addUser("control", "CONTROLPASSWORD1234")
	plain := login{control.Nodes[0].Plain, nil, "control", "CONTROLPASSWORD1234"}.must(t, clean("control"))
	plain.Sub(rawmqtt.Sub("CONTROLTOPIC1234/#", 1))
	for range 20 {
		plain.Pub("CONTROLTOPIC1234/x", 1, false, "CONTROLPAYLOAD1234")
	}
	plain.Messages(20, patience)

	plain.Pub("CONTROLTOPIC1234/x", 1, false, "CONTROLEND1234")
	raw := capture.stop("CONTROLEND1234")
	for _, seen := range []string{"CONTROLPASSWORD1234", "CONTROLTOPIC1234", "CONTROLPAYLOAD1234", "mqc-raft/1", "mqc-join/1", "mqc-forward/1"} {
		if !bytes.Contains(raw, []byte(seen)) {
			t.Errorf("the capture of %d bytes has no %q: it would not have found anything", len(raw), seen)
		}
	}
	for _, n := range c.Nodes {
		for what, address := range map[string]string{"client": n.TLS, "mesh": n.Mesh} {
			if k := packetsOf(raw, address); k < 20 {
				t.Errorf("the capture has %d packets of the %s port of %s", k, what, n.ID)
			}
		}
	}
	secrets := map[string]string{"topic": topic[2:], "payload": payload, "password": secret, "token": strings.Split(token, ".")[2],
		"init's token": strings.Split(c.Token, ".")[2], "user's password hash": "$argon2id$v=19$m=", "client id": "marked-sub"}
	if key, ok := pair.PrivateKey.(*ecdsa.PrivateKey); ok {
		raw, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		secrets["client's key"] = string(raw)
	} else {
		t.Errorf("the key of cert issue is a %T", pair.PrivateKey)
	}
	found, chance := search(raw, secrets)
	for _, f := range found {
		t.Error(f)
	}
	if chance > 1e-6 {
		t.Errorf("one run in %.0f would find something by chance: a secret is too short to be looked for", 1/chance)
	}
	t.Logf("%d bytes captured, %d secrets in none (chance of a false alarm %.0g)", len(raw), len(secrets), chance)
}

// search looks for the secrets, by name, in all their spellings. Chance is how
// often it would find something in as many random bytes, such as TLS makes of
// everything.
func search(raw []byte, secrets map[string]string) (found []string, chance float64) {
	for what, s := range secrets {
		for form, text := range spellings(s) {
			chance += float64(len(raw)) * math.Pow(256, -float64(len(text)))
			if i := bytes.Index(raw, []byte(text)); i >= 0 {
				found = append(found, fmt.Sprintf("the %s can be read in what was captured (%s): %q", what, form, raw[max(0, i-40):min(len(raw), i+60)]))
			}
		}
	}
	return found, chance
}

// spellings are the ways in which text may stand in a stream. Of base64 it is what
// does not depend on what stands before and behind: up to seven characters less
// than the text would have by itself, so that of seven bytes no more than four
// characters are left, which 45 MB of random bytes have in one of a hundred runs.
func spellings(text string) map[string]string {
	all := map[string]string{"as it is": text, "hex": hex.EncodeToString([]byte(text)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(text)))}
	for name, encoding := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64url": base64.URLEncoding} {
		for shift := range 3 { // where in a group of three the text begins
			b := encoding.EncodeToString([]byte(strings.Repeat("x", shift) + text))
			all[fmt.Sprintf("%s, shifted by %d", name, shift)] = b[4 : len(b)-4]
		}
	}
	return all
}

// TestSearch shows that a secret is found however it is spelled and wherever it
// stands, that one that is too short says so, and that random bytes hold none.
func TestSearch(t *testing.T) {
	secrets := map[string]string{"hash": "$argon2id$v=19$m=", "id": "marked-sub", "key": "\xfb\xff\xfe\x00\x01\x02\xfa\xef\xbe\x3e\x3f\xff"}
	noise := make([]byte, 64<<20)
	for i := 0; i < len(noise); i += 8 {
		binary.LittleEndian.PutUint64(noise[i:], randv2.Uint64())
	}
	found, chance := search(noise, secrets)
	if len(found) > 0 || chance > 1e-6 {
		t.Errorf("%d random bytes: %v, chance %g", len(noise), found, chance)
	}
	for what, s := range secrets {
		for before := range 7 {
			for behind := range 7 {
				plain := slices.Concat(noise[:before], []byte(s), noise[100:100+behind])
				for _, stream := range []string{string(plain), hex.EncodeToString(plain), fmt.Sprintf("%X", plain),
					base64.StdEncoding.EncodeToString(plain), base64.URLEncoding.EncodeToString(plain), base64.RawURLEncoding.EncodeToString(plain)} {
					if found, _ := search([]byte(stream), map[string]string{what: s}); len(found) == 0 {
						t.Errorf("the %s is not found in %q", what, stream)
					}
				}
			}
		}
	}
	// What this test once looked for: found by chance in 45,488,190 bytes.
	if _, chance := search(noise[:45488190], map[string]string{"hash": "$argon2"}); chance < 0.01 {
		t.Errorf("a needle of four characters is said to be found by chance in %g of the runs", chance)
	}
}

// packetsOf counts the packets of a pcap whose TCP header, right behind an IPv4
// header of 127.0.0.1, has the port. It reads no more of the format than that.
func packetsOf(raw []byte, address string) (n int) {
	_, text, _ := net.SplitHostPort(address)
	var port uint16
	fmt.Sscan(text, &port)
	local := []byte{127, 0, 0, 1, 127, 0, 0, 1}
	for i := bytes.Index(raw, local); i >= 0; {
		if tcp := raw[i+8:]; len(tcp) > 4 && (uint16(tcp[0])<<8|uint16(tcp[1]) == port || uint16(tcp[2])<<8|uint16(tcp[3]) == port) {
			n++
		}
		next := bytes.Index(raw[i+8:], local)
		if next < 0 {
			break
		}
		i += 8 + next
	}
	return n
}

// capture is a running tcpdump.
type capture struct {
	t    *testing.T
	cmd  *exec.Cmd
	file string
	said *lockedBuffer
	// exited is closed when tcpdump has ended.
	exited chan struct{}
}

// startCapture captures everything on loopback.
func startCapture(t *testing.T, file string) *capture {
	t.Helper()
	c := &capture{t: t, file: file, said: &lockedBuffer{}}
	c.cmd = exec.Command("tcpdump", "-i", "lo", "-s", "0", "-B", "65536", "-n", "-U", "--immediate-mode", "-Z", "root", "-w", file)
	c.cmd.Stderr = c.said
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.exited = make(chan struct{})
	go func() {
		_ = c.cmd.Wait() // the state is in cmd.ProcessState
		close(c.exited)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // it has ended already when all went well
		<-c.exited
	})
	await(t, patience, func() bool {
		select {
		case <-c.exited:
			if os.Getenv("CI") == "" && strings.Contains(c.said.String(), "permission") {
				t.Skipf("tcpdump may not capture (run as root): %s", c.said)
			}
			t.Fatalf("tcpdump ended: %v: %s", c.cmd.ProcessState, c.said)
		default:
		}
		return strings.Contains(c.said.String(), "listening on")
	}, c.said.String)
	return c
}

// stop ends the capture when it has what was said last, and returns it.
func (c *capture) stop(last string) []byte {
	c.t.Helper()
	await(c.t, patience, func() bool {
		raw, err := os.ReadFile(c.file)
		return err == nil && bytes.Contains(raw[max(0, len(raw)-8<<20):], []byte(last))
	}, func() string { return "the capture has no " + last })
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		c.t.Fatal(err)
	}
	select {
	case <-c.exited:
	case <-time.After(patience):
		c.t.Fatal("tcpdump does not end")
	}
	if !regexp.MustCompile(`(?m)^0 packets dropped by kernel`).MatchString(c.said.String()) {
		c.t.Errorf("the capture is not whole: %s", c.said)
	}
	raw, err := os.ReadFile(c.file)
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

// lockedBuffer is a buffer that a process writes to while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
