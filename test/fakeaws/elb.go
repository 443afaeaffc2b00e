//go:build linux

package fakeaws

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// elbActions are those of version 2 that are known, as far as a network load balancer
// goes.
func (c *Cloud) elbActions() map[string]func(*call) (record, error) {
	return map[string]func(*call) (record, error){
		"CreateLoadBalancer": c.createBalancer, "DescribeLoadBalancers": c.listELB("balancer", "LoadBalancers", "LoadBalancerArn", "LoadBalancerArns", "LoadBalancerName", "LoadBalancerNotFound"),
		"DescribeLoadBalancerAttributes": c.attributesOf("balancer", "LoadBalancerArn"), "ModifyLoadBalancerAttributes": c.modifyAttributes("balancer", "LoadBalancerArn"),
		"DescribeCapacityReservation": func(q *call) (record, error) {
			q.get("LoadBalancerArn")
			return record{"DecreaseRequestsRemaining": 0}, nil
		},
		"DeleteLoadBalancer": c.deleteBalancer,
		"CreateTargetGroup":  c.createTargetGroup, "DescribeTargetGroups": c.listELB("targets", "TargetGroups", "TargetGroupArn", "TargetGroupArns", "TargetGroupName", "TargetGroupNotFound"),
		"DescribeTargetGroupAttributes": c.attributesOf("targets", "TargetGroupArn"), "ModifyTargetGroupAttributes": c.modifyAttributes("targets", "TargetGroupArn"),
		"ModifyTargetGroup": c.modifyTargetGroup, "DeleteTargetGroup": c.deleteTargetGroup,
		"RegisterTargets": c.registerTargets, "DeregisterTargets": c.deregisterTargets, "DescribeTargetHealth": c.targetHealth,
		"CreateListener": c.createListener, "DescribeListeners": c.listELB("listener", "Listeners", "ListenerArn", "ListenerArns", "", "ListenerNotFound"),
		"DescribeListenerAttributes": c.attributesOf("listener", "ListenerArn"), "ModifyListenerAttributes": c.modifyAttributes("listener", "ListenerArn"),
		"DeleteListener": c.deleteListener, "DescribeTags": c.elbTags, "AddTags": c.addELBTags,
	}
}

// listELB lists things of a kind by their ARNs or names.
func (c *Cloud) listELB(kind, set, key, param, name, missing string) func(*call) (record, error) {
	return func(q *call) (record, error) {
		q.ignore("PageSize", "Marker")
		arns, names, out := q.list(param+".member"), q.list("Names.member"), []record{}
		for _, arn := range arns {
			if _, err := c.thing(kind, arn, missing); err != nil {
				return nil, err
			}
		}
		for _, r := range c.all(kind) {
			if len(arns) > 0 && !slices.Contains(arns, r.text(key)) || len(names) > 0 && !slices.Contains(names, r.text(name)) {
				continue
			}
			shown := r.with(nil)
			for _, hidden := range []string{"attributes", "tags", "registered", "id"} {
				delete(shown, hidden)
			}
			out = append(out, shown)
		}
		if len(names) > 0 && len(out) == 0 {
			return nil, faultf(missing, "there is none called %v", names)
		}
		return record{set: out}, nil
	}
}

func attributeList(m record) []record {
	out := []record{}
	for key, value := range m {
		out = append(out, record{"Key": key, "Value": value})
	}
	slices.SortFunc(out, func(a, b record) int { return strings.Compare(a.text("Key"), b.text("Key")) })
	return out
}

func (c *Cloud) attributesOf(kind, param string) func(*call) (record, error) {
	return func(q *call) (record, error) {
		r, err := c.thing(kind, q.get(param), kind+"NotFound")
		if err != nil {
			return nil, err
		}
		attributes, _ := r["attributes"].(record)
		return record{"Attributes": attributeList(attributes)}, nil
	}
}

// modifyAttributes changes attributes that a thing has, and no other.
func (c *Cloud) modifyAttributes(kind, param string) func(*call) (record, error) {
	return func(q *call) (record, error) {
		r, err := c.thing(kind, q.get(param), kind+"NotFound")
		if err != nil {
			return nil, err
		}
		attributes, _ := r["attributes"].(record)
		for _, a := range q.forms("Attributes.member") {
			key := a.get("Key")
			if _, ok := attributes[key]; !ok {
				c.fail("%s: attribute %s is not known", q.action, key)
			}
			attributes[key] = a.get("Value")
		}
		return record{"Attributes": attributeList(attributes)}, nil
	}
}

func (c *Cloud) createBalancer(q *call) (record, error) {
	if q.get("Type") != "network" {
		c.fail("CreateLoadBalancer: the type is %q", q.get("Type"))
	}
	q.ignore("IpAddressType")
	groups, zones, vpc := q.list("SecurityGroups.member"), []record{}, ""
	subnets := q.list("Subnets.member")
	for _, s := range q.forms("SubnetMappings.member") {
		subnets = append(subnets, s.get("SubnetId"))
	}
	for _, id := range subnets {
		s, err := c.thing("subnet", id, "SubnetNotFound")
		if err != nil {
			return nil, err
		}
		zones, vpc = append(zones, record{"ZoneName": s["availabilityZone"], "SubnetId": id, "LoadBalancerAddresses": []record{}}), s.text("vpcId")
	}
	if len(groups) == 0 || len(zones) < 3 {
		c.fail("CreateLoadBalancer: %d security groups, %d zones", len(groups), len(zones))
	}
	name := q.get("Name")
	arn := arn("elasticloadbalancing", "loadbalancer/net/"+name+"/"+newID("x")[3:])
	b := c.put("balancer", arn, record{"id": arn, "LoadBalancerArn": arn, "LoadBalancerName": name, "DNSName": name + "-0fake.elb." + Region + ".amazonaws.com", "CanonicalHostedZoneId": "Z3F0SRJ5LGBH90",
		"CreatedTime": time.Now(), "Scheme": q.or("Scheme", "internet-facing"), "VpcId": vpc, "State": record{"Code": "active"}, "Type": "network", "AvailabilityZones": zones, "SecurityGroups": groups,
		"IpAddressType": "ipv4", "tags": tagsOf(q.forms("Tags.member"), "Key", "Value"), "attributes": record{"deletion_protection.enabled": "false", "load_balancing.cross_zone.enabled": "false",
			"access_logs.s3.enabled": "false", "access_logs.s3.bucket": "", "access_logs.s3.prefix": "", "dns_record.client_routing_policy": "any_availability_zone", "zonal_shift.config.enabled": "false"}})
	shown := b.with(nil)
	delete(shown, "tags")
	delete(shown, "attributes")
	return record{"LoadBalancers": []record{shown}}, nil
}

func (c *Cloud) deleteBalancer(q *call) (record, error) {
	arn := q.get("LoadBalancerArn")
	if len(c.of("listener", "LoadBalancerArn", arn)) > 0 {
		return nil, faultf("ResourceInUse", "it has listeners")
	}
	delete(c.things["balancer"], arn)
	return nil, nil
}

func (c *Cloud) createTargetGroup(q *call) (record, error) {
	if q.get("TargetType") != "ip" || q.get("Protocol") != "TCP" {
		c.fail("CreateTargetGroup: %s %s, not TCP to addresses", q.get("Protocol"), q.get("TargetType"))
	}
	q.ignore("IpAddressType")
	name := q.get("Name")
	arn := arn("elasticloadbalancing", "targetgroup/"+name+"/"+newID("x")[3:])
	g := record{"id": arn, "TargetGroupArn": arn, "TargetGroupName": name, "Protocol": "TCP", "Port": q.number("Port"), "VpcId": q.get("VpcId"), "TargetType": "ip", "IpAddressType": "ipv4", "LoadBalancerArns": []string{}}
	c.healthCheck(q, g)
	g["attributes"] = record{"proxy_protocol_v2.enabled": "false", "preserve_client_ip.enabled": "false", "deregistration_delay.timeout_seconds": "300", "deregistration_delay.connection_termination.enabled": "false",
		"stickiness.enabled": "false", "stickiness.type": "source_ip", "load_balancing.cross_zone.enabled": "use_load_balancer_configuration", "target_health_state.unhealthy.connection_termination.enabled": "true",
		"target_health_state.unhealthy.draining_interval_seconds": "0", "target_group_health.dns_failover.minimum_healthy_targets.count": "1", "target_group_health.dns_failover.minimum_healthy_targets.percentage": "off",
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": "1", "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off"}
	g["tags"] = tagsOf(q.forms("Tags.member"), "Key", "Value")
	g["registered"] = []record{}
	c.put("targets", arn, g)
	return record{"TargetGroups": []record{g.only("TargetGroupArn", "TargetGroupName", "Protocol", "Port", "VpcId", "TargetType")}}, nil
}

// healthCheck reads how targets are asked, which has its bounds.
func (c *Cloud) healthCheck(q *call, g record) {
	for _, name := range []string{"HealthCheckProtocol", "HealthCheckPort", "HealthCheckPath"} {
		g[name] = q.get(name)
	}
	g["HealthCheckEnabled"] = q.or("HealthCheckEnabled", "true")
	for _, b := range []struct {
		name      string
		low, high int
	}{{"HealthCheckIntervalSeconds", 5, 300}, {"HealthCheckTimeoutSeconds", 2, 120}, {"HealthyThresholdCount", 2, 10}, {"UnhealthyThresholdCount", 2, 10}} {
		n := q.number(b.name)
		if n < b.low || n > b.high {
			c.fail("%s: %s is %d, not within %d and %d", q.action, b.name, n, b.low, b.high)
		}
		g[b.name] = n
	}
	g["Matcher"] = record{"HttpCode": q.get("Matcher.HttpCode")}
}

func (c *Cloud) modifyTargetGroup(q *call) (record, error) {
	g, err := c.thing("targets", q.get("TargetGroupArn"), "TargetGroupNotFound")
	if err != nil {
		return nil, err
	}
	c.healthCheck(q, g)
	return record{"TargetGroups": []record{g.only("TargetGroupArn")}}, nil
}

func (c *Cloud) deleteTargetGroup(q *call) (record, error) {
	delete(c.things["targets"], q.get("TargetGroupArn"))
	return nil, nil
}

func (c *Cloud) registerTargets(q *call) (record, error) {
	g, err := c.thing("targets", q.get("TargetGroupArn"), "TargetGroupNotFound")
	if err != nil {
		return nil, err
	}
	for _, t := range q.forms("Targets.member") {
		if _, err := netip.ParseAddr(t.get("Id")); err != nil {
			return nil, faultf("InvalidTarget", "%q is no address", t.get("Id"))
		}
		g["registered"] = append(g.records("registered"), record{"Id": t.get("Id"), "Port": t.number("Port")})
	}
	return nil, nil
}

func (c *Cloud) deregisterTargets(q *call) (record, error) {
	g, err := c.thing("targets", q.get("TargetGroupArn"), "TargetGroupNotFound")
	if err != nil {
		return nil, err
	}
	for _, t := range q.forms("Targets.member") {
		id := t.get("Id")
		t.ignore("Port")
		g["registered"] = slices.DeleteFunc(g.records("registered"), func(r record) bool { return r["Id"] == id })
	}
	return nil, nil
}

func (c *Cloud) targetHealth(q *call) (record, error) {
	g, err := c.thing("targets", q.get("TargetGroupArn"), "TargetGroupNotFound")
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, t := range q.forms("Targets.member") {
		wanted[t.get("Id")] = true
		t.ignore("Port", "AvailabilityZone")
	}
	out := []record{}
	for _, t := range g.records("registered") {
		if len(wanted) > 0 && !wanted[t.text("Id")] {
			continue
		}
		state := "unhealthy"
		for _, f := range c.fronts {
			if f.targets == g.text("TargetGroupArn") && f.healthy(t.text("Id")) {
				state = "healthy"
			}
		}
		out = append(out, record{"Target": t, "HealthCheckPort": g["HealthCheckPort"], "TargetHealth": record{"State": state}})
	}
	if len(wanted) > 0 && len(out) == 0 {
		return nil, faultf("InvalidTarget", "it is not registered")
	}
	return record{"TargetHealthDescriptions": out}, nil
}

func (c *Cloud) createListener(q *call) (record, error) {
	b, err := c.thing("balancer", q.get("LoadBalancerArn"), "LoadBalancerNotFound")
	if err != nil {
		return nil, err
	}
	if q.get("Protocol") != "TCP" {
		c.fail("CreateListener: the protocol is %q: TLS is to pass through", q.get("Protocol"))
	}
	targets := ""
	for _, a := range q.forms("DefaultActions.member") {
		if a.get("Type") != "forward" {
			c.fail("CreateListener: the action is %q", a.get("Type"))
		}
		targets = a.get("TargetGroupArn")
		a.ignore("Order")
	}
	g, err := c.thing("targets", targets, "TargetGroupNotFound")
	if err != nil {
		return nil, err
	}
	g["LoadBalancerArns"] = []string{b.text("LoadBalancerArn")}
	arn := strings.Replace(b.text("LoadBalancerArn"), ":loadbalancer/", ":listener/", 1) + "/" + newID("x")[3:]
	l := c.put("listener", arn, record{"id": arn, "ListenerArn": arn, "LoadBalancerArn": b["LoadBalancerArn"], "Port": q.number("Port"), "Protocol": "TCP",
		"DefaultActions": []record{{"Type": "forward", "TargetGroupArn": targets, "Order": 1, "ForwardConfig": record{"TargetGroups": []record{{"TargetGroupArn": targets}}}}},
		"tags":           tagsOf(q.forms("Tags.member"), "Key", "Value"), "attributes": record{"tcp.idle_timeout.seconds": "350"}})
	f, err := c.openFront(fmt.Sprintf("%s:%d", c.cfg.Balancer, q.number("Port")), b, targets)
	if err != nil {
		return nil, err
	}
	c.fronts[arn] = f
	return record{"Listeners": []record{l.only("ListenerArn", "LoadBalancerArn", "Port", "Protocol", "DefaultActions")}}, nil
}

func (c *Cloud) deleteListener(q *call) (record, error) {
	arn := q.get("ListenerArn")
	if f := c.fronts[arn]; f != nil {
		f.close()
		delete(c.fronts, arn)
	}
	delete(c.things["listener"], arn)
	return nil, nil
}

func (c *Cloud) elbTags(q *call) (record, error) {
	out := []record{}
	for _, arn := range q.list("ResourceArns.member") {
		r := c.findAny(arn)
		if r == nil {
			return nil, faultf("LoadBalancerNotFound", "there is no %s", arn)
		}
		out = append(out, record{"ResourceArn": arn, "Tags": r.records("tags")})
	}
	return record{"TagDescriptions": out}, nil
}

func (c *Cloud) addELBTags(q *call) (record, error) {
	for _, arn := range q.list("ResourceArns.member") {
		if r := c.findAny(arn); r != nil {
			r["tags"] = append(r.records("tags"), tagsOf(q.forms("Tags.member"), "Key", "Value")...)
		}
	}
	return nil, nil
}

// Attributes are those of the balancer, its listeners and targets, all together.
func (c *Cloud) Attributes() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]string{}
	for _, kind := range []string{"targets", "listener", "balancer"} {
		for _, r := range c.all(kind) {
			attributes, _ := r["attributes"].(record)
			for key, value := range attributes {
				out[key] = fmt.Sprint(value)
			}
		}
	}
	return out
}
