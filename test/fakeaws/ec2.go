//go:build linux

package fakeaws

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ec2Actions are those that are known.
func (c *Cloud) ec2Actions() map[string]func(*call) (record, error) {
	return map[string]func(*call) (record, error){
		"DescribeAvailabilityZones": c.describeZones, "DescribeImages": c.describeImages,
		"DescribeInstanceTypes": c.describeInstanceTypes, "CreateTags": c.createTags, "DescribeTags": c.describeTags,
		"GetInstanceUefiData": func(q *call) (record, error) { return record{"instanceId": q.get("InstanceId")}, nil },
		"DeleteTags":          c.deleteTags,

		"CreateVpc": c.createVpc, "DescribeVpcs": c.describe("vpc", "vpcSet", "VpcId", "InvalidVpcID.NotFound", vpcFilters),
		"DescribeVpcAttribute": c.describeVpcAttribute, "ModifyVpcAttribute": c.modifyVpcAttribute, "DeleteVpc": c.deleteVpc,
		"DescribeNetworkAcls": c.describe("acl", "networkAclSet", "NetworkAclId", "InvalidNetworkAclID.NotFound", vpcFilters),
		"CreateSubnet":        c.createSubnet, "ModifySubnetAttribute": c.modifySubnetAttribute,
		"DescribeSubnets": c.describe("subnet", "subnetSet", "SubnetId", "InvalidSubnetID.NotFound", vpcFilters), "DeleteSubnet": c.deleteSubnet,
		"CreateInternetGateway": c.createGateway, "AttachInternetGateway": c.attachGateway, "DetachInternetGateway": c.detachGateway,
		"DescribeInternetGateways": c.describe("gateway", "internetGatewaySet", "InternetGatewayId", "InvalidInternetGatewayID.NotFound", gatewayFilters),
		"DeleteInternetGateway":    c.deleteGateway,
		"CreateRouteTable":         c.createRouteTable, "DeleteRouteTable": c.deleteRouteTable,
		"DescribeRouteTables": c.describe("table", "routeTableSet", "RouteTableId", "InvalidRouteTableID.NotFound", tableFilters),
		"CreateRoute":         c.createRoute, "DeleteRoute": c.deleteRoute,
		"AssociateRouteTable": c.associateTable, "DisassociateRouteTable": c.disassociateTable,

		"CreateSecurityGroup": c.createGroup, "DeleteSecurityGroup": c.deleteGroup,
		"DescribeSecurityGroups":        c.describe("group", "securityGroupInfo", "GroupId", "InvalidGroup.NotFound", groupFilters),
		"DescribeSecurityGroupRules":    c.describe("rule", "securityGroupRuleSet", "SecurityGroupRuleId", "InvalidSecurityGroupRuleId.NotFound", ruleFilters),
		"AuthorizeSecurityGroupIngress": c.authorizeGroup(false), "AuthorizeSecurityGroupEgress": c.authorizeGroup(true),
		"RevokeSecurityGroupIngress": c.revokeGroup, "RevokeSecurityGroupEgress": c.revokeGroup,

		"CreateNetworkInterface": c.createInterface, "DeleteNetworkInterface": c.deleteInterface,
		"DescribeNetworkInterfaces":       c.describe("interface", "networkInterfaceSet", "NetworkInterfaceId", "InvalidNetworkInterfaceID.NotFound", interfaceFilters),
		"ModifyNetworkInterfaceAttribute": c.modifyInterface, "DetachNetworkInterface": c.detachInterface,
		"AllocateAddress": c.allocateAddress, "AssociateAddress": c.associateAddress,
		"DescribeAddresses":          c.describe("address", "addressesSet", "AllocationId", "InvalidAllocationID.NotFound", addressFilters),
		"DescribeAddressesAttribute": c.describeAddressAttribute,
		"DisassociateAddress":        c.disassociateAddress, "ReleaseAddress": c.releaseAddress,

		"CreateVolume": c.createVolume, "DeleteVolume": c.deleteVolume,
		"DescribeVolumes": c.describe("volume", "volumeSet", "VolumeId", "InvalidVolume.NotFound", volumeFilters),
		"AttachVolume":    c.attachVolume, "DetachVolume": c.detachVolume,
		"CreatePlacementGroup": c.createPlacement, "DescribePlacementGroups": c.describePlacements, "DeletePlacementGroup": c.deletePlacement,
		"RunInstances": c.runInstances, "DescribeInstances": c.describeInstances, "DescribeInstanceAttribute": c.describeInstanceAttribute,
		"StopInstances": c.stopInstances, "TerminateInstances": c.terminateInstances, "ModifyInstanceAttribute": c.modifyInstanceAttribute,
	}
}

// A filter gives the values of a record that a filter of a name is about.
type filters map[string]func(record) []string

func field(name string) func(record) []string {
	return func(r record) []string { return []string{fmt.Sprint(r[name])} }
}

// within is a field of the records of a list.
func within(list, name string) func(record) []string {
	return func(r record) (out []string) {
		for _, one := range r.records(list) {
			out = append(out, fmt.Sprint(one[name]))
		}
		return out
	}
}

// inside is a field of a record of a record.
func inside(part, name string) func(record) []string {
	return func(r record) []string {
		p, _ := r[part].(record)
		return []string{fmt.Sprint(p[name])}
	}
}

var (
	vpcFilters       = filters{"vpc-id": field("vpcId"), "default": field("default"), "state": field("state")}
	gatewayFilters   = filters{"attachment.vpc-id": within("attachmentSet", "vpcId"), "internet-gateway-id": field("internetGatewayId")}
	tableFilters     = filters{"vpc-id": field("vpcId"), "association.main": within("associationSet", "main"), "association.route-table-association-id": within("associationSet", "routeTableAssociationId"), "association.subnet-id": within("associationSet", "subnetId")}
	groupFilters     = filters{"vpc-id": field("vpcId"), "group-name": field("groupName")}
	ruleFilters      = filters{"group-id": field("groupId"), "security-group-rule-id": field("securityGroupRuleId")}
	interfaceFilters = filters{"attachment.instance-id": inside("attachment", "instanceId"), "group-id": within("groupSet", "groupId"), "description": field("description"),
		"vpc-id": field("vpcId"), "subnet-id": field("subnetId"), "attachment.instance-owner-id": inside("attachment", "instanceOwnerId"), "attachment.attachment-id": inside("attachment", "attachmentId")}
	addressFilters = filters{"allocation-id": field("allocationId"), "association-id": field("associationId")}
	volumeFilters  = filters{"attachment.instance-id": within("attachmentSet", "instanceId"), "attachment.device": within("attachmentSet", "device"), "status": field("status")}
)

// describe is an action that lists things of a kind, by their names or by filters.
func (c *Cloud) describe(kind, set, param, missing string, known filters) func(*call) (record, error) {
	return func(q *call) (record, error) {
		q.ignore("MaxResults", "NextToken", "DryRun")
		wanted := q.list(param)
		c.matches(q, record{}, known) // a filter that is not known is to be noted, whatever there is
		for _, id := range wanted {
			if _, err := c.thing(kind, id, missing); err != nil {
				return nil, err
			}
		}
		out := []record{}
		for _, r := range c.all(kind) {
			id := fmt.Sprint(r["id"])
			if (len(wanted) == 0 || slices.Contains(wanted, id)) && c.matches(q, r, known) {
				out = append(out, c.shown(kind, r))
			}
		}
		return record{set: out}, nil
	}
}

// matches tells whether a record passes all filters of a request.
func (c *Cloud) matches(q *call, r record, known filters) bool {
	ok := true
	for _, f := range q.forms("Filter") {
		name, wanted := f.get("Name"), f.list("Value")
		value := known[name]
		switch {
		case strings.HasPrefix(name, "tag:"):
			value = func(r record) (out []string) {
				for _, t := range r.records("tagSet") {
					if t["key"] == strings.TrimPrefix(name, "tag:") {
						out = append(out, t.text("value"))
					}
				}
				return out
			}
		case value == nil:
			c.fail("%s: filter %s is not known", q.action, name)
			return false
		}
		ok = ok && slices.ContainsFunc(value(r), func(v string) bool { return slices.Contains(wanted, v) })
	}
	return ok
}

// shown is what is answered of a thing: what is made up from others is added.
func (c *Cloud) shown(kind string, r record) record {
	if kind != "group" {
		return r
	}
	in, out := []record{}, []record{}
	for _, rule := range c.all("rule") {
		if rule["groupId"] != r["groupId"] {
			continue
		}
		p := record{"ipProtocol": rule["ipProtocol"], "fromPort": rule["fromPort"], "toPort": rule["toPort"]}
		if cidr := rule.text("cidrIpv4"); cidr != "" {
			p["ipRanges"] = []record{{"cidrIp": cidr, "description": rule["description"]}}
		} else if ref, ok := rule["referencedGroupInfo"].(record); ok {
			p["groups"] = []record{{"groupId": ref["groupId"], "userId": account, "description": rule["description"]}}
		}
		if rule["isEgress"] == true {
			out = append(out, p)
		} else {
			in = append(in, p)
		}
	}
	return r.with(record{"ipPermissions": in, "ipPermissionsEgress": out})
}

// tags reads the tags that a thing of a kind is to be made with.
func (c *Cloud) tags(q *call) []record {
	out := []record{}
	for _, spec := range q.forms("TagSpecification") {
		spec.get("ResourceType")
		out = append(out, tagsOf(spec.forms("Tag"), "key", "value")...)
	}
	return out
}

// describeTags looks for a tag that no machine of ours has.
func (c *Cloud) describeTags(q *call) (record, error) {
	for _, f := range q.forms("Filter") {
		if name, values := f.get("Name"), f.list("Value"); name != "resource-id" && !slices.Equal(values, []string{"aws:ec2launchtemplate:id"}) {
			c.fail("DescribeTags: filter %s with %v is not known", name, values)
		}
	}
	return record{"tagSet": []record{}}, nil
}

// zones of the region.
var zones = []string{"a", "b", "c"}

func (c *Cloud) describeZones(q *call) (record, error) {
	var out []record
	for i, z := range zones {
		r := record{"zoneName": Region + z, "zoneId": fmt.Sprintf("euc1-az%d", i+1), "regionName": Region, "zoneState": "available",
			"optInStatus": "opt-in-not-required", "groupName": Region, "networkBorderGroup": Region, "zoneType": "availability-zone"}
		if c.matches(q, r, filters{"state": field("zoneState"), "opt-in-status": field("optInStatus")}) {
			out = append(out, r)
		}
	}
	return record{"availabilityZoneInfo": out}, nil
}

// Images: two of them, so that a change of the newest can be tried.
var images = []record{
	{"imageId": "ami-0debian0older0000", "name": "debian-12-arm64-20260101-1", "creationDate": "2026-01-01T00:00:00.000Z"},
	{"imageId": "ami-0debian0newer0000", "name": "debian-12-arm64-20260601-1", "creationDate": "2026-06-01T00:00:00.000Z"},
}

func (c *Cloud) describeImages(q *call) (record, error) {
	q.ignore("IncludeDeprecated", "MaxResults")
	owners, ids := q.list("Owner"), q.list("ImageId")
	if len(ids) == 0 && !slices.Equal(owners, []string{"136693071363"}) {
		c.fail("DescribeImages: the owner is %v, not the Debian project", owners)
	}
	for _, f := range q.forms("Filter") {
		if f.get("Name") != "name" || !slices.Equal(f.list("Value"), []string{"debian-12-arm64-*"}) {
			c.fail("DescribeImages: another filter than the name debian-12-arm64-*: %v", q.values)
		}
	}
	out := []record{}
	for _, i := range images {
		if len(ids) == 0 || slices.Contains(ids, i.text("imageId")) {
			out = append(out, i.with(record{"imageState": "available", "architecture": "arm64", "rootDeviceName": "/dev/xvda", "rootDeviceType": "ebs",
				"imageOwnerId": "136693071363", "isPublic": true, "virtualizationType": "hvm", "imageType": "machine", "hypervisor": "xen",
				"blockDeviceMapping": []record{{"deviceName": "/dev/xvda", "ebs": record{"volumeSize": 8, "volumeType": "gp3", "deleteOnTermination": true, "encrypted": false}}}}))
		}
	}
	return record{"imagesSet": out}, nil
}

func (c *Cloud) describeInstanceTypes(q *call) (record, error) {
	q.ignore("MaxResults")
	out := []record{}
	for _, t := range q.list("InstanceType") {
		out = append(out, record{"instanceType": t, "currentGeneration": true, "burstablePerformanceSupported": false,
			"vCpuInfo": record{"defaultVCpus": 2, "defaultCores": 2, "defaultThreadsPerCore": 1}, "memoryInfo": record{"sizeInMiB": 8192}})
	}
	return record{"instanceTypeSet": out}, nil
}

// findAny finds a thing by its id, of whatever kind.
func (c *Cloud) findAny(id string) record {
	for _, all := range c.things {
		if r, ok := all[id]; ok {
			return r
		}
	}
	return nil
}

func (c *Cloud) createTags(q *call) (record, error) {
	for _, id := range q.list("ResourceId") {
		r := c.findAny(id)
		if r == nil {
			return nil, faultf("InvalidID", "there is no %s", id)
		}
		tags := r.records("tagSet")
		for _, t := range tagsOf(q.forms("Tag"), "key", "value") {
			tags = slices.DeleteFunc(tags, func(o record) bool { return o["key"] == t["key"] })
			tags = append(tags, t)
		}
		r["tagSet"] = tags
	}
	return nil, nil
}

func (c *Cloud) deleteTags(q *call) (record, error) {
	for _, id := range q.list("ResourceId") {
		if r := c.findAny(id); r != nil {
			for _, t := range q.forms("Tag") {
				key := t.get("Key")
				t.ignore("Value")
				r["tagSet"] = slices.DeleteFunc(r.records("tagSet"), func(o record) bool { return o["key"] == key })
			}
		}
	}
	return nil, nil
}

// prefix parses a network.
func prefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, faultf("InvalidParameterValue", "%q is no network", text)
	}
	return p, nil
}
