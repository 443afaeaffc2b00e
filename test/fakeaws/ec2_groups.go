//go:build linux

package fakeaws

import (
	"fmt"
	"net/netip"
	"slices"
)

func (c *Cloud) createGroup(q *call) (record, error) {
	vpc, err := c.thing("vpc", q.get("VpcId"), "InvalidVpcID.NotFound")
	if err != nil {
		return nil, err
	}
	if q.get("GroupName") == "" || q.get("GroupDescription") == "" {
		return nil, faultf("MissingParameter", "a group has a name and a description")
	}
	for _, g := range c.of("group", "vpcId", vpc["vpcId"]) {
		if g["groupName"] == q.get("GroupName") {
			return nil, faultf("InvalidGroup.Duplicate", "there is a group %v", g["groupName"])
		}
	}
	id := newID("sg")
	tags := c.tags(q)
	c.put("group", id, record{"id": id, "groupId": id, "vpcId": vpc["vpcId"], "groupName": q.get("GroupName"), "groupDescription": q.get("GroupDescription"),
		"ownerId": account, "securityGroupArn": arn("ec2", "security-group/"+id), "tagSet": tags})
	c.addRule(id, record{"ipProtocol": "-1", "fromPort": -1, "toPort": -1, "cidrIpv4": "0.0.0.0/0", "isEgress": true})
	return record{"groupId": id, "tagSet": tags, "securityGroupArn": arn("ec2", "security-group/"+id), "return": true}, nil
}

func (c *Cloud) addRule(group string, rule record) record {
	id := newID("sgr")
	return c.put("rule", id, rule.with(record{"id": id, "securityGroupRuleId": id, "securityGroupRuleArn": arn("ec2", "security-group-rule/"+id), "groupId": group, "groupOwnerId": account}))
}

// authorizeGroup adds rules. A rule names either a network or a group.
func (c *Cloud) authorizeGroup(egress bool) func(*call) (record, error) {
	return func(q *call) (record, error) {
		group, err := c.thing("group", q.get("GroupId"), "InvalidGroup.NotFound")
		if err != nil {
			return nil, err
		}
		tags, out := c.tags(q), []record{}
		for _, p := range q.forms("IpPermissions") {
			rule := record{"ipProtocol": p.get("IpProtocol"), "fromPort": -1, "toPort": -1, "isEgress": egress, "tagSet": tags}
			if rule["ipProtocol"] != "-1" {
				rule["fromPort"], rule["toPort"] = p.number("FromPort"), p.number("ToPort")
			}
			for _, r := range p.forms("IpRanges") {
				if _, err := prefix(r.get("CidrIp")); err != nil {
					return nil, err
				}
				out = append(out, c.addRule(group.text("groupId"), rule.with(record{"cidrIpv4": r.get("CidrIp"), "description": r.get("Description")})))
			}
			for _, r := range p.forms("Groups") {
				if _, err := c.thing("group", r.get("GroupId"), "InvalidGroup.NotFound"); err != nil {
					return nil, err
				}
				r.ignore("UserId")
				out = append(out, c.addRule(group.text("groupId"), rule.with(record{"referencedGroupInfo": record{"groupId": r.get("GroupId"), "userId": account}, "description": r.get("Description")})))
			}
		}
		if len(out) == 0 {
			return nil, faultf("MissingParameter", "a rule names neither network nor group")
		}
		return record{"return": true, "securityGroupRuleSet": out}, nil
	}
}

// revokeGroup takes rules away: by their ids, or all that are as described.
func (c *Cloud) revokeGroup(q *call) (record, error) {
	group := q.get("GroupId")
	for _, id := range q.list("SecurityGroupRuleId") {
		delete(c.things["rule"], id)
	}
	for _, p := range q.forms("IpPermissions") {
		p.ignore("FromPort", "ToPort", "Ipv6Ranges", "PrefixListIds", "Groups")
		protocol := p.get("IpProtocol")
		for _, r := range p.forms("IpRanges") {
			cidr := r.get("CidrIp")
			for _, rule := range c.of("rule", "groupId", group) {
				if rule["ipProtocol"] == protocol && rule["cidrIpv4"] == cidr && rule["isEgress"] == (q.action == "RevokeSecurityGroupEgress") {
					delete(c.things["rule"], rule.text("id"))
				}
			}
		}
	}
	return nil, nil
}

func (c *Cloud) deleteGroup(q *call) (record, error) {
	id := q.get("GroupId")
	if _, err := c.thing("group", id, "InvalidGroup.NotFound"); err != nil {
		return nil, err
	}
	for _, i := range c.all("interface") {
		if slices.Contains(within("groupSet", "groupId")(i), id) {
			return nil, faultf("DependencyViolation", "group %s has an interface", id)
		}
	}
	for _, lb := range c.all("balancer") {
		if groups, _ := lb["SecurityGroups"].([]string); slices.Contains(groups, id) {
			return nil, faultf("DependencyViolation", "group %s has a balancer", id)
		}
	}
	for _, r := range c.all("rule") {
		ref, _ := r["referencedGroupInfo"].(record)
		if r["groupId"] != id && ref["groupId"] == id {
			return nil, faultf("DependencyViolation", "group %s is named by a rule of %v", id, r["groupId"])
		}
	}
	for _, r := range c.of("rule", "groupId", id) {
		delete(c.things["rule"], r.text("id"))
	}
	delete(c.things["group"], id)
	return nil, nil
}

// permits tells whether the rules of some groups let a port of TCP in (or out, to)
// a peer, which has an address and groups.
func (c *Cloud) permits(groups []string, egress bool, port int, peer netip.Addr, peerGroups []string) bool {
	for _, r := range c.all("rule") {
		if !slices.Contains(groups, r.text("groupId")) || r["isEgress"] != egress {
			continue
		}
		from, _ := r["fromPort"].(int)
		to, _ := r["toPort"].(int)
		if r["ipProtocol"] != "-1" && (r["ipProtocol"] != "tcp" || port < from || port > to) {
			continue
		}
		if ref, ok := r["referencedGroupInfo"].(record); ok && slices.Contains(peerGroups, ref.text("groupId")) {
			return true
		}
		if p, err := netip.ParsePrefix(r.text("cidrIpv4")); err == nil && p.Contains(peer) {
			return true
		}
	}
	return false
}

// Accesses lists the rules of the security group of a name: direction, protocol, first
// and last port, and the network or group at the other end.
func (c *Cloud) Accesses(name string) (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.of("group", "groupName", name) {
		for _, r := range c.of("rule", "groupId", g["groupId"]) {
			peer, direction := r.text("cidrIpv4"), "in"
			if ref, ok := r["referencedGroupInfo"].(record); ok {
				peer = c.things["group"][ref.text("groupId")].text("groupName")
			}
			if r["isEgress"] == true {
				direction = "out"
			}
			out = append(out, fmt.Sprintf("%s %v %v-%v %s", direction, r["ipProtocol"], r["fromPort"], r["toPort"], peer))
		}
	}
	slices.Sort(out)
	return out
}
