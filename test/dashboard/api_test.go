//go:build linux

package dashboard

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// apiClient speaks to the API as a program does.
type apiClient struct {
	t     *testing.T
	token string
	http  *http.Client
}

// api returns a client that trusts the cluster's CA and shows a certificate, if one is
// given.
func (c *cluster) api(token string, certs ...tls.Certificate) *apiClient {
	c.t.Helper()
	pem, err := os.ReadFile(filepath.Join(c.nodes[0].dir, "tls", "ca.crt"))
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		c.t.Fatal("the CA file has no certificate")
	}
	return &apiClient{t: c.t, token: token, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs},
	}}}
}

// do makes a request; an error is one of the connection.
func (a *apiClient) do(n *node, method, path, body string) (status int, answer map[string]any, err error) {
	a.t.Helper()
	r, err := http.NewRequest(method, "https://"+n.web+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	response, err := a.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, nil, err
	}
	_ = json.Unmarshal(text, &answer) // a list stays nil
	return response.StatusCode, answer, nil
}

// want makes a request that has to have a status.
func (a *apiClient) want(status int, n *node, method, path, body string) map[string]any {
	a.t.Helper()
	got, answer, err := a.do(n, method, path, body)
	if err != nil || got != status {
		a.t.Errorf("%s %s at %s: %d %v %v, want %d", method, path, n.id, got, answer, err, status)
	}
	return answer
}

// TestAPI uses the API of one node for what another did.
func TestAPI(t *testing.T) {
	c := startCluster(t)
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	c.cli(n1, "acl", "set", "*", "allow both #")
	c.waitLevel()
	token := func(name, role string) (text, id string) {
		t.Helper()
		var made struct{ ID, Token string }
		if err := json.Unmarshal([]byte(c.cli(n1, "api-token", "create", "--name", name, "--role", role, "-o", "json")), &made); err != nil {
			t.Fatal(err)
		}
		return made.Token, made.ID
	}
	viewerToken, viewerID := token("v", "viewer")
	operatorToken, _ := token("o", "operator")
	viewer, operator := c.api(viewerToken), c.api(operatorToken)

	t.Run("verbs from afar", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(viewerToken+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		remote := []string{"--api", "https://" + n2.web, "--token-file", file, "--ca-file", filepath.Join(n1.dir, "tls", "ca.crt")}
		if out := c.run("", append([]string{"status"}, remote...)...); !strings.Contains(out, "node     n2,") {
			t.Errorf("status:\n%s", out)
		}
		out, err := exec.Command(c.bin, append([]string{"user", "add", "x", "--no-password"}, remote...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "role viewer and this needs admin") {
			t.Errorf("a viewer added a user: %v %s", err, out)
		}
	})
	t.Run("publish", func(t *testing.T) {
		viewer.want(403, n1, "POST", "publish", `{"topic":"a/b","text":"x"}`)
		operator.want(200, n3, "PUT", "retained/plant%2F%2Fa", `{"text":"21.5","qos":1}`)
		got := viewer.want(200, n1, "GET", "retained/plant%2F%2Fa", "")
		if got["payload"] != "MjEuNQ==" || got["qos"] != 1.0 {
			t.Errorf("%v", got)
		}
		again := operator.want(200, n3, "PUT", "retained/plant%2F%2Fa", `{"text":"21.5","qos":1}`)
		if again["index"] != 0.0 {
			t.Errorf("the same again: %v", again)
		}
		operator.want(200, n2, "DELETE", "retained/plant%2F%2Fa", "")
		viewer.want(404, n2, "GET", "retained/plant%2F%2Fa", "")
		operator.want(400, n1, "POST", "publish", `{"topic":"$SYS/x","text":"x"}`)
		operator.want(400, n1, "POST", "publish", `{"topic":"a/+","text":"x"}`)
		operator.want(400, n1, "POST", "publish", `{"topic":"a","text":"`+strings.Repeat("x", 2<<20)+`"}`)
	})
	t.Run("watch", func(t *testing.T) {
		// The stream is at one node, the client and the message at others.
		seen := make(chan string, 64)
		for _, path := range []string{"watch/clients", "watch/messages?filter=order%2F%23"} {
			r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+n1.web+"/v1/"+path, nil)
			r.Header.Set("Authorization", "Bearer "+viewerToken)
			response, err := viewer.http.Do(r)
			if err != nil || response.StatusCode != 200 {
				t.Fatal(response, err)
			}
			t.Cleanup(func() { _ = response.Body.Close() })
			lines := bufio.NewScanner(response.Body)
			lines.Scan() // the first comment: the stream has begun
			go func() {
				for lines.Scan() {
					if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
						seen <- data
					}
				}
			}()
		}
		expect := func(parts ...string) {
			t.Helper()
			for deadline := time.After(patience); ; {
				select {
				case data := <-seen:
					ok := true
					for _, p := range parts {
						ok = ok && strings.Contains(data, p)
					}
					if ok {
						return
					}
				case <-deadline:
					t.Fatalf("no event with %q came", parts)
				}
			}
		}
		d, err := connect(n2.plain, "walker", true)
		if err != nil {
			t.Fatal(err)
		}
		expect(`"client":"walker"`, `"kind":"connected"`, `"node":"n2"`)
		for _, n := range []string{"1", "2"} {
			if err := d.publish("order/"+n, "x", n == "2"); err != nil {
				t.Fatal(err)
			}
			expect(`"topic":"order/` + n + `"`)
		}
		list := operator.want(200, n3, "GET", "clients?q=walk", "")
		items, _ := list["items"].([]any)
		if len(items) != 1 || items[0].(map[string]any)["node"] != "n2" || items[0].(map[string]any)["known"] != true {
			t.Errorf("%v", list)
		}
		if got := operator.want(200, n3, "DELETE", "clients/walker", ""); got["node"] != "n2" {
			t.Errorf("%v", got)
		}
		expect(`"client":"walker"`, `"kind":"disconnected"`, "operator")
	})
	t.Run("pages", func(t *testing.T) { testPages(t, c, viewer) })
	t.Run("certificate", func(t *testing.T) {
		dir := t.TempDir()
		c.cli(n1, "cert", "issue", "anna", "--dir", dir)
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "anna.pem"), filepath.Join(dir, "anna.key"))
		if err != nil {
			t.Fatal(err)
		}
		anna := c.api("", pair)
		anna.want(401, n2, "GET", "overview", "")
		c.cli(n1, "user", "add", "anna", "--no-password")
		anna.want(403, n2, "GET", "overview", "")
		c.cli(n1, "user", "roles", "anna", "api-operator")
		anna.want(200, n2, "GET", "overview", "")
		anna.want(403, n2, "PUT", "users/x", "{}")
		c.cli(n1, "user", "disable", "anna")
		anna.want(401, n2, "GET", "overview", "")
		c.cli(n1, "user", "enable", "anna")
		c.cli(n1, "cert", "revoke", fmt.Sprintf("%x", pair.Leaf.SerialNumber))
		if status, _, err := anna.do(n2, "GET", "overview", ""); err == nil && status == 200 {
			t.Error("a revoked certificate is let in")
		}
	})
	t.Run("removed", func(t *testing.T) {
		viewer.want(200, n2, "GET", "overview", "")
		c.cli(n1, "api-token", "rm", viewerID)
		viewer.want(401, n2, "GET", "overview", "")
		viewer.want(401, n3, "GET", "overview", "")
	})
	for _, n := range c.nodes {
		log, err := os.ReadFile(n.dir + ".log")
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{viewerToken, operatorToken} {
			if bytes.Contains(log, []byte(secret[len(secret)-30:])) {
				t.Errorf("a token is in the log of %s", n.id)
			}
		}
	}
}

// testPages reads a list in pages while clients come and go: who was there all the time
// is in it once.
func testPages(t *testing.T, c *cluster, viewer *apiClient) {
	all := c.devices(90)
	seen := map[string]int{}
	cursor := ""
	for page := 0; ; page++ {
		answer := viewer.want(200, c.nodes[page%3], "GET", "clients?q=dev-&limit=20&cursor="+cursor, "")
		items, _ := answer["items"].([]any)
		for _, i := range items {
			seen[i.(map[string]any)["client"].(string)]++
		}
		_ = all[89-page].conn.Close()
		if cursor, _ = answer["next"].(string); cursor == "" {
			break
		}
	}
	for i := range 80 {
		if id := fmt.Sprintf("dev-%05d", i); seen[id] != 1 {
			t.Errorf("%s was listed %d times", id, seen[id])
		}
	}
}

// waitLevel waits until every node has told its feature level, without which no token
// is made.
func (c *cluster) waitLevel() {
	c.t.Helper()
	await(c.t, "three members", func() bool {
		var s struct {
			Members []struct{ Up bool }
		}
		if err := json.Unmarshal([]byte(c.cli(c.nodes[0], "status", "-o", "json")), &s); err != nil {
			c.t.Fatal(err)
		}
		up := 0
		for _, m := range s.Members {
			if m.Up {
				up++
			}
		}
		return up == 3
	})
}
