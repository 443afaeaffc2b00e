package bench

import (
	"context"
	"fmt"
)

// fillers is how many filters that match nothing each wildcard subscriber has,
// so that a broker's matching has something to search.
const fillers = 20

// layout makes the publishers and subscribers of the scenario.
func (r *run) layout() {
	c := &r.cfg
	base := "b/" + r.name
	r.readSize = 64 << 10
	switch c.Scenario {
	case FanIn:
		r.addSubscriber(0, c.Clients, nil, base+"/in")
		for range c.Clients {
			r.addPublisher(base+"/in", 1)
		}
	case FanOut:
		for range c.Clients {
			r.addSubscriber(0, 1, nil, base+"/out")
		}
		r.addPublisher(base+"/out", c.Clients)
	case Shared:
		g := &group{flows: make([]flow, c.Clients)}
		r.groups = append(r.groups, g)
		for range c.Members {
			r.addSubscriber(0, c.Clients, g, "$share/bench/"+base+"/in")
		}
		for range c.Clients {
			r.addPublisher(base+"/in", 1)
		}
	case Wildcards:
		r.addSubscriber(0, c.Clients, nil, base+"/+/v")
		r.addSubscriber(0, c.Clients, nil, base+"/#")
		for i := range c.Clients {
			filters := []string{fmt.Sprintf("%s/%d/#", base, i)}
			for k := range fillers {
				filters = append(filters, fmt.Sprintf("%s/+/x%d/%d/#", base, k, i))
			}
			r.addSubscriber(i, 1, nil, filters...)
			r.addPublisher(fmt.Sprintf("%s/%d/v", base, i), 3)
		}
	case Broadcast:
		for range c.Clients {
			r.addSubscriber(0, 1, nil, base+"/all")
		}
		r.addPublisher(base+"/all", c.Clients)
	case Retained:
		r.addSubscriber(0, c.Clients, nil, base+"/#")
		for i := range c.Clients {
			r.addPublisher(fmt.Sprintf("%s/%d/%s", base, i, topicDigits), 1)
		}
	default: // Pairs, Rate, Offline
		for i := range c.Clients {
			r.addPair(base, i)
		}
	}
	switch {
	case len(r.subs) > 1000:
		r.readSize = 4 << 10
	case len(r.subs) > 64:
		r.readSize = 16 << 10
	}
}

// addPair adds publisher i and the subscriber of its topics.
func (r *run) addPair(base string, i int) {
	c := &r.cfg
	topic := fmt.Sprintf("%s/%d", base, i)
	filters := []string{topic}
	if c.Topics > 1 {
		filters = filters[:0]
		for k := range c.Topics {
			filters = append(filters, fmt.Sprintf("%s/%08d", topic, k))
		}
	}
	if c.Fillers > 0 {
		filters = append(filters[:0], topic+"/#")
		for k := i; k < c.Fillers; k += c.Clients {
			filters = append(filters, filler(base, k))
		}
	}
	r.addSubscriber(i, 1, nil, filters...)
	if c.Topics > 1 {
		topic += "/" + topicDigits
	}
	r.addPublisher(topic, 1)
}

// filler is wildcard filter k of a kind that matches no topic of a pair, though
// more than its beginning does.
func filler(base string, k int) string {
	switch k % 4 {
	case 0:
		return fmt.Sprintf("%s/+/x%d/#", base, k)
	case 1:
		return fmt.Sprintf("%s/+/+/x%d", base, k)
	case 2:
		return fmt.Sprintf("+/+/+/x%d/#", k)
	}
	return fmt.Sprintf("%s/%d/+/x%d", base, k/4, k)
}

// addSubscriber adds one that hears publishers first to first+n-1.
func (r *run) addSubscriber(first, n int, g *group, filters ...string) {
	c, i := &r.cfg, len(r.subs)
	s := &subscriber{run: r, id: fmt.Sprintf("b%s-s%d", r.name, i), addr: c.SubAddrs[i%len(c.SubAddrs)], filters: filters,
		tally: tally{first: uint32(first), flows: make([]flow, n), group: g}}
	if c.QoS == 0 && c.Window > 0 && !c.paced() {
		s.credits = make([]int64, n)
	}
	r.subs = append(r.subs, s)
}

func (r *run) addPublisher(topic string, receivers int) {
	c, i := &r.cfg, len(r.pubs)
	r.pubs = append(r.pubs, &publisher{run: r, n: uint32(i), id: fmt.Sprintf("b%s-p%d", r.name, i), topic: topic,
		addr: c.PubAddrs[i%len(c.PubAddrs)], receivers: receivers})
}

// pace sends at the fixed rate, the publishers in turn, each message by itself.
// Where it falls behind it sends at once; how far behind it was is in the lag.
func (r *run) pace(ctx context.Context) error {
	defer r.endPacing()
	c := &r.cfg
	interval := 1e9 / c.Rate
	sleep := newSleeper()
	defer sleep.close()
	for k := 0; ; k++ {
		due := int64(float64(k) * interval)
		if c.Count > 0 && k >= c.Count*len(r.pubs) || c.Duration > 0 && due >= int64(c.Duration) {
			return nil
		}
		if wait := due - r.now(); wait > 0 {
			sleep.sleep(wait)
		}
		if ctx.Err() != nil || r.stopped.Load() {
			return nil
		}
		if err := r.pubs[k%len(r.pubs)].sendDue(due); err != nil {
			return err
		}
	}
}

// endPacing tells the publishers that no message follows.
func (r *run) endPacing() {
	for _, p := range r.pubs {
		if p.acked != nil {
			p.acked.close()
		} else {
			close(p.done)
		}
	}
}

// sendDue sends one message of a paced run.
func (p *publisher) sendDue(due int64) error {
	if p.acked != nil {
		if err := p.acked.pace(due); err != nil {
			return p.lost(err)
		}
		return nil
	}
	now := p.run.now()
	p.lag.add(now - due)
	p.frames.set(0, 0, p.sent.Load(), now)
	if _, err := p.link.Write(p.frames.buf[:p.frames.size]); err != nil {
		return p.lost(err)
	}
	p.sent.Add(1)
	return nil
}
