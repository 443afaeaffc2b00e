//go:build linux

package fakeaws

import (
	"fmt"
	"net/netip"
	"slices"
)

func (c *Cloud) createVpc(q *call) (record, error) {
	q.ignore("InstanceTenancy", "AmazonProvidedIpv6CidrBlock")
	if _, err := prefix(q.get("CidrBlock")); err != nil {
		return nil, err
	}
	id := newID("vpc")
	vpc := c.put("vpc", id, record{"id": id, "vpcId": id, "cidrBlock": q.get("CidrBlock"), "state": "available", "isDefault": false, "ownerId": account,
		"instanceTenancy": "default", "dhcpOptionsId": "dopt-0fake", "tagSet": c.tags(q), "enableDnsSupport": true, "enableDnsHostnames": false, "enableNetworkAddressUsageMetrics": false,
		"cidrBlockAssociationSet": []record{{"associationId": newID("vpc-cidr-assoc"), "cidrBlock": q.get("CidrBlock"), "cidrBlockState": record{"state": "associated"}}}})
	// What comes with a VPC, and goes with it.
	acl, table, group := newID("acl"), newID("rtb"), newID("sg")
	c.put("acl", acl, record{"id": acl, "networkAclId": acl, "vpcId": id, "default": true, "ownerId": account})
	c.put("table", table, record{"id": table, "routeTableId": table, "vpcId": id, "ownerId": account,
		"routeSet":       []record{{"destinationCidrBlock": q.get("CidrBlock"), "gatewayId": "local", "state": "active", "origin": "CreateRouteTable"}},
		"associationSet": []record{{"main": true, "routeTableAssociationId": newID("rtbassoc"), "routeTableId": table, "associationState": record{"state": "associated"}}}})
	c.put("group", group, record{"id": group, "groupId": group, "vpcId": id, "groupName": "default", "groupDescription": "default VPC security group", "ownerId": account})
	return record{"vpc": vpc}, nil
}

func (c *Cloud) describeVpcAttribute(q *call) (record, error) {
	vpc, err := c.thing("vpc", q.get("VpcId"), "InvalidVpcID.NotFound")
	if err != nil {
		return nil, err
	}
	name := q.get("Attribute")
	if _, ok := vpc[name]; !ok {
		c.fail("DescribeVpcAttribute: attribute %s is not known", name)
	}
	return record{"vpcId": vpc["vpcId"], name: record{"value": vpc[name]}}, nil
}

func (c *Cloud) modifyVpcAttribute(q *call) (record, error) {
	vpc, err := c.thing("vpc", q.get("VpcId"), "InvalidVpcID.NotFound")
	if err != nil {
		return nil, err
	}
	for name, key := range map[string]string{"EnableDnsHostnames": "enableDnsHostnames", "EnableDnsSupport": "enableDnsSupport", "EnableNetworkAddressUsageMetrics": "enableNetworkAddressUsageMetrics"} {
		if q.has(name + ".Value") {
			vpc[key] = q.get(name+".Value") == "true"
		}
	}
	return nil, nil
}

func (c *Cloud) deleteVpc(q *call) (record, error) {
	id := q.get("VpcId")
	if _, err := c.thing("vpc", id, "InvalidVpcID.NotFound"); err != nil {
		return nil, err
	}
	for _, kind := range []string{"subnet", "interface"} {
		if len(c.of(kind, "vpcId", id)) > 0 {
			return nil, faultf("DependencyViolation", "vpc %s has a %s", id, kind)
		}
	}
	for _, g := range c.of("group", "vpcId", id) {
		if g["groupName"] != "default" {
			return nil, faultf("DependencyViolation", "vpc %s has group %v", id, g["groupName"])
		}
	}
	for _, kind := range []string{"acl", "table", "group"} {
		for _, r := range c.of(kind, "vpcId", id) {
			delete(c.things[kind], r.text("id"))
		}
	}
	delete(c.things["vpc"], id)
	return nil, nil
}

// of lists the things of a kind whose field has a value.
func (c *Cloud) of(kind, name string, value any) (out []record) {
	for _, r := range c.all(kind) {
		if r[name] == value {
			out = append(out, r)
		}
	}
	return out
}

func (c *Cloud) createSubnet(q *call) (record, error) {
	vpc, err := c.thing("vpc", q.get("VpcId"), "InvalidVpcID.NotFound")
	if err != nil {
		return nil, err
	}
	outer, err := prefix(vpc.text("cidrBlock"))
	if err != nil {
		return nil, err
	}
	own, err := prefix(q.get("CidrBlock"))
	if err != nil {
		return nil, err
	}
	if !outer.Overlaps(own) || own.Bits() < outer.Bits() {
		return nil, faultf("InvalidSubnet.Range", "%s is not within %s", own, outer)
	}
	for _, s := range c.of("subnet", "vpcId", vpc["vpcId"]) {
		if other, err := prefix(s.text("cidrBlock")); err == nil && other.Overlaps(own) {
			return nil, faultf("InvalidSubnet.Conflict", "%s overlaps %s", own, other)
		}
	}
	id := newID("subnet")
	return record{"subnet": c.put("subnet", id, record{"id": id, "subnetId": id, "vpcId": vpc["vpcId"], "cidrBlock": q.get("CidrBlock"), "availabilityZone": q.get("AvailabilityZone"),
		"availabilityZoneId": "euc1-az1", "state": "available", "availableIpAddressCount": 4091, "mapPublicIpOnLaunch": false, "defaultForAz": false, "ownerId": account,
		"assignIpv6AddressOnCreation": false, "enableDns64": false, "ipv6Native": false, "subnetArn": arn("ec2", "subnet/"+id), "tagSet": c.tags(q),
		"privateDnsNameOptionsOnLaunch": record{"hostnameType": "ip-name", "enableResourceNameDnsARecord": false, "enableResourceNameDnsAAAARecord": false}})}, nil
}

func arn(service, name string) string {
	return fmt.Sprintf("arn:aws:%s:%s:%s:%s", service, Region, account, name)
}

func (c *Cloud) modifySubnetAttribute(q *call) (record, error) {
	c.fail("ModifySubnetAttribute: %v", q.values)
	return nil, nil
}

func (c *Cloud) deleteSubnet(q *call) (record, error) {
	id := q.get("SubnetId")
	if _, err := c.thing("subnet", id, "InvalidSubnetID.NotFound"); err != nil {
		return nil, err
	}
	if len(c.of("interface", "subnetId", id)) > 0 {
		return nil, faultf("DependencyViolation", "subnet %s has interfaces", id)
	}
	delete(c.things["subnet"], id)
	return nil, nil
}

func (c *Cloud) createGateway(q *call) (record, error) {
	id := newID("igw")
	return record{"internetGateway": c.put("gateway", id, record{"id": id, "internetGatewayId": id, "ownerId": account, "attachmentSet": []record{}, "tagSet": c.tags(q)})}, nil
}

func (c *Cloud) attachGateway(q *call) (record, error) {
	g, err := c.thing("gateway", q.get("InternetGatewayId"), "InvalidInternetGatewayID.NotFound")
	if err != nil {
		return nil, err
	}
	g["attachmentSet"] = []record{{"vpcId": q.get("VpcId"), "state": "available"}}
	return nil, nil
}

func (c *Cloud) detachGateway(q *call) (record, error) {
	g, err := c.thing("gateway", q.get("InternetGatewayId"), "InvalidInternetGatewayID.NotFound")
	if err != nil {
		return nil, err
	}
	for _, i := range c.of("interface", "vpcId", q.get("VpcId")) {
		if i["association"] != nil {
			return nil, faultf("DependencyViolation", "an interface has a public address")
		}
	}
	g["attachmentSet"] = []record{}
	return nil, nil
}

func (c *Cloud) deleteGateway(q *call) (record, error) {
	id := q.get("InternetGatewayId")
	g, err := c.thing("gateway", id, "InvalidInternetGatewayID.NotFound")
	if err != nil {
		return nil, err
	}
	if len(g.records("attachmentSet")) > 0 {
		return nil, faultf("DependencyViolation", "gateway %s is attached", id)
	}
	delete(c.things["gateway"], id)
	return nil, nil
}

func (c *Cloud) createRouteTable(q *call) (record, error) {
	q.ignore("ClientToken")
	vpc, err := c.thing("vpc", q.get("VpcId"), "InvalidVpcID.NotFound")
	if err != nil {
		return nil, err
	}
	id := newID("rtb")
	return record{"routeTable": c.put("table", id, record{"id": id, "routeTableId": id, "vpcId": vpc["vpcId"], "ownerId": account, "tagSet": c.tags(q), "associationSet": []record{},
		"routeSet": []record{{"destinationCidrBlock": vpc["cidrBlock"], "gatewayId": "local", "state": "active", "origin": "CreateRouteTable"}}})}, nil
}

func (c *Cloud) deleteRouteTable(q *call) (record, error) {
	id := q.get("RouteTableId")
	t, err := c.thing("table", id, "InvalidRouteTableID.NotFound")
	if err != nil {
		return nil, err
	}
	if len(t.records("associationSet")) > 0 {
		return nil, faultf("DependencyViolation", "table %s is associated", id)
	}
	delete(c.things["table"], id)
	return nil, nil
}

func (c *Cloud) createRoute(q *call) (record, error) {
	t, err := c.thing("table", q.get("RouteTableId"), "InvalidRouteTableID.NotFound")
	if err != nil {
		return nil, err
	}
	t["routeSet"] = append(t.records("routeSet"), record{"destinationCidrBlock": q.get("DestinationCidrBlock"), "gatewayId": q.get("GatewayId"), "state": "active", "origin": "CreateRoute"})
	return record{"return": true}, nil
}

func (c *Cloud) deleteRoute(q *call) (record, error) {
	t, err := c.thing("table", q.get("RouteTableId"), "InvalidRouteTableID.NotFound")
	if err != nil {
		return nil, err
	}
	to := q.get("DestinationCidrBlock")
	t["routeSet"] = slices.DeleteFunc(t.records("routeSet"), func(r record) bool { return r["destinationCidrBlock"] == to })
	return nil, nil
}

func (c *Cloud) associateTable(q *call) (record, error) {
	t, err := c.thing("table", q.get("RouteTableId"), "InvalidRouteTableID.NotFound")
	if err != nil {
		return nil, err
	}
	id := newID("rtbassoc")
	t["associationSet"] = append(t.records("associationSet"), record{"main": false, "routeTableAssociationId": id, "routeTableId": t["routeTableId"],
		"subnetId": q.get("SubnetId"), "associationState": record{"state": "associated"}})
	return record{"associationId": id, "associationState": record{"state": "associated"}}, nil
}

func (c *Cloud) disassociateTable(q *call) (record, error) {
	id := q.get("AssociationId")
	for _, t := range c.all("table") {
		t["associationSet"] = slices.DeleteFunc(t.records("associationSet"), func(r record) bool { return r["routeTableAssociationId"] == id })
	}
	return nil, nil
}

func (c *Cloud) createInterface(q *call) (record, error) {
	q.ignore("ClientToken")
	subnet, err := c.thing("subnet", q.get("SubnetId"), "InvalidSubnetID.NotFound")
	if err != nil {
		return nil, err
	}
	groups := []record{}
	for _, id := range q.list("SecurityGroupId") {
		g, err := c.thing("group", id, "InvalidGroup.NotFound")
		if err != nil {
			return nil, err
		}
		groups = append(groups, g.only("groupId", "groupName"))
	}
	if len(groups) == 0 {
		c.fail("CreateNetworkInterface: an interface in the default security group")
	}
	address, err := c.freeAddress(subnet)
	if err != nil {
		return nil, err
	}
	id := newID("eni")
	return record{"networkInterface": c.put("interface", id, record{"id": id, "networkInterfaceId": id, "subnetId": subnet["subnetId"], "vpcId": subnet["vpcId"],
		"availabilityZone": subnet["availabilityZone"], "description": q.get("Description"), "ownerId": account, "requesterManaged": false, "macAddress": "02:00:00:00:00:01",
		"privateIpAddress": address, "privateDnsName": "ip-" + address, "sourceDestCheck": true, "groupSet": groups, "interfaceType": "interface", "status": "available",
		"privateIpAddressesSet": []record{{"privateIpAddress": address, "primary": true}}, "tagSet": c.tags(q)})}, nil
}

// freeAddress is one of the subnet that nobody has; the first four are AWS's own.
func (c *Cloud) freeAddress(subnet record) (string, error) {
	p, err := netip.ParsePrefix(subnet.text("cidrBlock"))
	if err != nil {
		return "", err
	}
	a := p.Masked().Addr().Next().Next().Next().Next()
	for ; p.Contains(a); a = a.Next() {
		if len(c.of("interface", "privateIpAddress", a.String())) == 0 {
			return a.String(), nil
		}
	}
	return "", faultf("InsufficientFreeAddressesInSubnet", "subnet %v is full", subnet["subnetId"])
}

func (c *Cloud) modifyInterface(q *call) (record, error) {
	i, err := c.thing("interface", q.get("NetworkInterfaceId"), "InvalidNetworkInterfaceID.NotFound")
	if err != nil {
		return nil, err
	}
	if q.has("SourceDestCheck.Value") {
		i["sourceDestCheck"] = q.get("SourceDestCheck.Value") == "true"
	}
	if a := q.part("Attachment"); a != nil {
		attachment, ok := i["attachment"].(record)
		if !ok || attachment["attachmentId"] != a.get("AttachmentId") {
			return nil, faultf("InvalidAttachmentID.NotFound", "no such attachment")
		}
		attachment["deleteOnTermination"] = a.get("DeleteOnTermination") == "true"
	}
	return nil, nil
}

// detachInterface: the first interface of a machine goes with the machine and not
// before.
func (c *Cloud) detachInterface(q *call) (record, error) {
	q.ignore("Force")
	id := q.get("AttachmentId")
	for _, i := range c.all("interface") {
		if a, ok := i["attachment"].(record); ok && a["attachmentId"] == id {
			c.fail("DetachNetworkInterface: the first interface of machine %v", a["instanceId"])
			return nil, faultf("OperationNotPermitted", "the first interface cannot be detached")
		}
	}
	return nil, faultf("InvalidAttachmentID.NotFound", "there is no attachment %s", id)
}

func (c *Cloud) deleteInterface(q *call) (record, error) {
	id := q.get("NetworkInterfaceId")
	i, err := c.thing("interface", id, "InvalidNetworkInterfaceID.NotFound")
	if err != nil {
		return nil, err
	}
	if i["attachment"] != nil {
		return nil, faultf("InvalidParameterValue", "interface %s is in use", id)
	}
	delete(c.things["interface"], id)
	return nil, nil
}

func (c *Cloud) allocateAddress(q *call) (record, error) {
	if q.get("Domain") != "vpc" {
		return nil, faultf("InvalidParameterValue", "the domain is not vpc")
	}
	id := newID("eipalloc")
	return c.put("address", id, record{"id": id, "allocationId": id, "domain": "vpc", "publicIp": fmt.Sprintf("192.0.2.%d", len(c.things["address"])+1),
		"networkBorderGroup": Region, "publicIpv4Pool": "amazon", "tagSet": c.tags(q)}), nil
}

func (c *Cloud) associateAddress(q *call) (record, error) {
	q.ignore("AllowReassociation")
	a, err := c.thing("address", q.get("AllocationId"), "InvalidAllocationID.NotFound")
	if err != nil {
		return nil, err
	}
	i, err := c.thing("interface", q.get("NetworkInterfaceId"), "InvalidNetworkInterfaceID.NotFound")
	if err != nil {
		return nil, err
	}
	gateway := false
	for _, g := range c.all("gateway") {
		gateway = gateway || slices.Contains(within("attachmentSet", "vpcId")(g), i.text("vpcId"))
	}
	if !gateway {
		return nil, faultf("Gateway.NotAttached", "network %v is not attached to any internet gateway", i["vpcId"])
	}
	id := newID("eipassoc")
	a["associationId"], a["networkInterfaceId"], a["privateIpAddress"], a["networkInterfaceOwnerId"] = id, i["networkInterfaceId"], i["privateIpAddress"], account
	i["association"] = record{"allocationId": a["allocationId"], "associationId": id, "publicIp": a["publicIp"], "ipOwnerId": account}
	return record{"associationId": id, "return": true}, nil
}

func (c *Cloud) describeAddressAttribute(q *call) (record, error) {
	q.ignore("Attribute", "MaxResults")
	out := []record{}
	for _, id := range q.list("AllocationId") {
		a, err := c.thing("address", id, "InvalidAllocationID.NotFound")
		if err != nil {
			return nil, err
		}
		out = append(out, a.only("publicIp", "allocationId"))
	}
	return record{"addressSet": out}, nil
}

func (c *Cloud) disassociateAddress(q *call) (record, error) {
	id := q.get("AssociationId")
	for _, a := range c.of("address", "associationId", id) {
		for _, name := range []string{"associationId", "networkInterfaceId", "privateIpAddress", "networkInterfaceOwnerId", "instanceId"} {
			delete(a, name)
		}
	}
	for _, i := range c.all("interface") {
		if as, ok := i["association"].(record); ok && as["associationId"] == id {
			delete(i, "association")
		}
	}
	return nil, nil
}

func (c *Cloud) releaseAddress(q *call) (record, error) {
	q.ignore("NetworkBorderGroup")
	id := q.get("AllocationId")
	a, err := c.thing("address", id, "InvalidAllocationID.NotFound")
	if err != nil {
		return nil, err
	}
	if a["associationId"] != nil {
		return nil, faultf("InvalidIPAddress.InUse", "address %s is in use", id)
	}
	delete(c.things["address"], id)
	return nil, nil
}
