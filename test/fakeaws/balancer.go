//go:build linux

package fakeaws

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A front is a listener of the balancer: a port that passes TCP on to targets.
type front struct {
	c        *Cloud
	balancer record
	targets  string
	listener net.Listener
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu    sync.Mutex
	next  int
	good  map[string]bool
	run   map[string]int // answers of one kind in a row, by target; bad ones count down
	conns map[string]map[net.Conn]bool
}

// openFront begins to listen and to ask the targets. c.mu is held.
func (c *Cloud) openFront(address string, balancer record, targets string) (*front, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the balancer: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &front{c: c, balancer: balancer, targets: targets, listener: l, cancel: cancel, good: map[string]bool{}, run: map[string]int{}, conns: map[string]map[net.Conn]bool{}}
	f.work.Go(func() { f.ask(ctx) })
	f.work.Go(func() { f.accept(ctx) })
	return f, nil
}

func (f *front) close() {
	f.cancel()
	f.listener.Close()
	f.mu.Lock()
	for target := range f.conns {
		f.drop(target)
	}
	f.mu.Unlock()
}

func (f *front) healthy(target string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.good[target]
}

// drop ends the connections of a target. mu is held.
func (f *front) drop(target string) {
	for conn := range f.conns[target] {
		conn.Close()
	}
}

// A plan is what the cloud says of a target at this moment.
type plan struct {
	address, from     string
	port, health      int
	path              string
	interval, timeout time.Duration
	rise, fall        int
	proxy, ends       bool
	open, openHealth  bool
}

// plans looks up targets, and whether the security groups let the balancer reach them.
func (f *front) plans() (out []plan) {
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.things["targets"][f.targets]
	if g == nil {
		return nil
	}
	attributes, _ := g["attributes"].(record)
	seconds := func(name string) time.Duration { n, _ := g[name].(int); return time.Duration(n) * time.Second }
	groups, _ := f.balancer["SecurityGroups"].([]string)
	for _, t := range g.records("registered") {
		p := plan{address: t.text("Id"), path: g.text("HealthCheckPath"), interval: seconds("HealthCheckIntervalSeconds"), timeout: seconds("HealthCheckTimeoutSeconds"),
			proxy: attributes["proxy_protocol_v2.enabled"] == "true", ends: attributes["target_health_state.unhealthy.connection_termination.enabled"] == "true"}
		p.port, _ = t["Port"].(int)
		p.rise, _ = g["HealthyThresholdCount"].(int)
		p.fall, _ = g["UnhealthyThresholdCount"].(int)
		p.health, _ = strconv.Atoi(g.text("HealthCheckPort"))
		var nodeGroups []string
		for _, i := range c.of("interface", "privateIpAddress", p.address) {
			nodeGroups = within("groupSet", "groupId")(i)
			p.from = f.source(i.text("subnetId"))
		}
		own, err := netip.ParseAddr(p.from)
		target, err2 := netip.ParseAddr(p.address)
		reach := func(port int) bool {
			return err == nil && err2 == nil && c.permits(groups, true, port, target, nodeGroups) && c.permits(nodeGroups, false, port, own, groups)
		}
		p.open, p.openHealth = reach(p.port), reach(p.health)
		out = append(out, p)
	}
	return out
}

// source is the balancer's own address in a subnet: the last but one. c.mu is held.
func (f *front) source(subnet string) string {
	s := f.c.things["subnet"][subnet]
	p, err := netip.ParsePrefix(s.text("cidrBlock"))
	if err != nil {
		return ""
	}
	a := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) + 1<<(32-p.Bits()) - 2
	binary.BigEndian.PutUint32(a[:], n)
	return netip.AddrFrom4(a).String()
}

// ask asks every target, again and again, whether it is ready.
func (f *front) ask(ctx context.Context) {
	for ctx.Err() == nil {
		pause := time.Second
		var asked sync.WaitGroup
		for _, p := range f.plans() {
			pause = p.interval
			asked.Go(func() { f.note(p, p.openHealth && f.ready(ctx, p)) })
		}
		asked.Wait()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (f *front) ready(ctx context.Context, p plan) bool {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: f.dialer(p.from).DialContext}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d%s", p.address, p.health, p.path), nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(r)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (f *front) dialer(from string) *net.Dialer {
	return &net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
}

// note counts answers: it takes some of one kind in a row to change what is thought.
func (f *front) note(p plan, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.run[p.address]
	switch {
	case ok:
		n = max(n, 0) + 1
	default:
		n = min(n, 0) - 1
	}
	f.run[p.address] = n
	switch {
	case n >= p.rise:
		f.good[p.address] = true
	case -n >= p.fall && f.good[p.address]:
		f.good[p.address] = false
		if p.ends {
			f.drop(p.address)
		}
	}
}

// accept passes each connection on.
func (f *front) accept(ctx context.Context) {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.work.Go(func() { f.serve(ctx, conn) })
	}
}

func (f *front) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	p, ok := f.choose()
	if !ok {
		return
	}
	server, err := f.dialer(p.from).DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", p.address, p.port))
	if err != nil {
		return
	}
	defer server.Close()
	f.hold(p.address, server, true)
	defer f.hold(p.address, server, false)
	if p.proxy {
		if _, err := server.Write(proxyHeader(client.RemoteAddr(), client.LocalAddr())); err != nil {
			return
		}
	}
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // ends with either of them
		to.Close()
		from.Close()
	}
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	both.Wait()
}

func (f *front) hold(target string, conn net.Conn, open bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !open {
		delete(f.conns[target], conn)
		return
	}
	if f.conns[target] == nil {
		f.conns[target] = map[net.Conn]bool{}
	}
	f.conns[target][conn] = true
}

// choose takes turns among the targets that are well and may be reached; where none
// is well, among all, as the real one does.
func (f *front) choose() (plan, bool) {
	all := f.plans()
	f.mu.Lock()
	defer f.mu.Unlock()
	open := slices.DeleteFunc(slices.Clone(all), func(p plan) bool { return !p.open })
	good := slices.DeleteFunc(slices.Clone(open), func(p plan) bool { return !f.good[p.address] })
	if len(good) == 0 {
		good = open
	}
	if len(good) == 0 {
		return plan{}, false
	}
	f.next++
	return good[f.next%len(good)], true
}

// proxyHeader is that of version 2 for TCP over IPv4, with an addition as AWS makes
// one (the id of an endpoint).
func proxyHeader(from, to net.Addr) []byte {
	source, _ := netip.ParseAddrPort(from.String())
	target, _ := netip.ParseAddrPort(to.String())
	addition := append([]byte{0xEA, 0, 4, 1}, "vpc"...)
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21, 0x11)
	b = binary.BigEndian.AppendUint16(b, uint16(12+len(addition)))
	s, d := source.Addr().Unmap().As4(), target.Addr().Unmap().As4()
	b = append(append(b, s[:]...), d[:]...)
	b = binary.BigEndian.AppendUint16(b, source.Port())
	b = binary.BigEndian.AppendUint16(b, target.Port())
	return append(b, addition...)
}
