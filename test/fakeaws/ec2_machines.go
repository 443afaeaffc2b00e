//go:build linux

package fakeaws

import (
	"encoding/base64"
	"slices"
	"time"
)

func (c *Cloud) createPlacement(q *call) (record, error) {
	name := q.get("GroupName")
	if q.get("Strategy") != "spread" {
		c.fail("CreatePlacementGroup: the strategy is %q", q.get("Strategy"))
	}
	q.ignore("SpreadLevel")
	return record{"placementGroup": c.put("placement", name, record{"id": name, "groupName": name, "groupId": newID("pg"), "strategy": "spread", "spreadLevel": "rack", "state": "available",
		"groupArn": arn("ec2", "placement-group/"+name), "tagSet": c.tags(q)})}, nil
}

func (c *Cloud) describePlacements(q *call) (record, error) {
	out := []record{}
	for _, name := range q.list("GroupName") {
		p, err := c.thing("placement", name, "InvalidPlacementGroup.Unknown")
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return record{"placementGroupSet": out}, nil
}

func (c *Cloud) deletePlacement(q *call) (record, error) {
	name := q.get("GroupName")
	for _, i := range c.all("machine") {
		if place, _ := i["placement"].(record); place["groupName"] == name && i.text("state") != "terminated" {
			return nil, faultf("InvalidPlacementGroup.InUse", "group %s has machines", name)
		}
	}
	delete(c.things["placement"], name)
	return nil, nil
}

// runInstances starts a machine on an interface that there is.
func (c *Cloud) runInstances(q *call) (record, error) {
	q.ignore("ClientToken", "MinCount", "MaxCount", "EbsOptimized", "DisableApiTermination", "Monitoring", "PrivateDnsNameOptions", "HibernationOptions")
	nic, err := c.interfaceOf(q)
	if err != nil {
		return nil, err
	}
	profile, group, err := c.surroundings(q)
	if err != nil {
		return nil, err
	}
	c.demandSafety(q)
	userData, err := base64.StdEncoding.DecodeString(q.get("UserData"))
	if err != nil || len(userData) == 0 || len(userData) > 16384 {
		return nil, faultf("InvalidUserData.Malformed", "user data of %d bytes: %v", len(userData), err)
	}
	id := newID("i")
	i := record{"id": id, "instanceId": id, "state": "running", "imageId": q.get("ImageId"), "instanceType": q.get("InstanceType"), "keyName": q.get("KeyName"),
		"placement":          record{"availabilityZone": nic["availabilityZone"], "groupName": group, "tenancy": "default"},
		"iamInstanceProfile": record{"arn": profile["Arn"], "id": profile["InstanceProfileId"]}, "nic": nic["networkInterfaceId"], "userData": q.get("UserData"), "launchTime": time.Now(), "tagSet": c.tags(q)}
	m, err := c.startMachine(machineConfig{id: id, address: nic.text("privateIpAddress"), role: profile.text("role"), userData: userData})
	if m != nil {
		c.machines[id] = m
	}
	if err != nil {
		return nil, err
	}
	c.put("machine", id, i)
	nic["status"] = "in-use"
	nic["attachment"] = record{"attachmentId": newID("eni-attach"), "instanceId": id, "instanceOwnerId": account, "deviceIndex": 0, "networkCardIndex": 0, "deleteOnTermination": false, "status": "attached", "attachTime": time.Now()}
	// The machine's own disk, which goes with it.
	disk := newID("vol")
	c.put("volume", disk, record{"id": disk, "volumeId": disk, "size": 8, "availabilityZone": nic["availabilityZone"], "volumeType": "gp3", "status": "in-use", "iops": 3000, "throughput": 125,
		"encrypted": true, "kmsKeyId": arn("kms", "key/aws-ebs"), "createTime": time.Now(),
		"attachmentSet": []record{{"volumeId": disk, "instanceId": id, "device": "/dev/xvda", "status": "attached", "attachTime": time.Now(), "deleteOnTermination": true}}})
	return c.instance(i).reservation(), nil
}

// interfaceOf is the one that the machine is to have: it is there already, free, and
// stays when the machine goes.
func (c *Cloud) interfaceOf(q *call) (record, error) {
	all := q.forms("NetworkInterface")
	if len(all) != 1 || all[0].get("DeviceIndex") != "0" {
		c.fail("RunInstances: a machine without exactly one interface that there is: %v", q.values)
		return nil, faultf("InvalidParameterValue", "one interface is needed")
	}
	if all[0].get("DeleteOnTermination") == "true" {
		c.fail("RunInstances: the interface goes with the machine")
	}
	all[0].ignore("NetworkCardIndex")
	nic, err := c.thing("interface", all[0].get("NetworkInterfaceId"), "InvalidNetworkInterfaceID.NotFound")
	if err == nil && nic["attachment"] != nil {
		err = faultf("InvalidNetworkInterface.InUse", "interface %v is in use", nic["networkInterfaceId"])
	}
	return nic, err
}

// surroundings are the machine's profile and its placement group.
func (c *Cloud) surroundings(q *call) (profile record, group string, err error) {
	p, place := q.part("IamInstanceProfile"), q.part("Placement")
	if p == nil || place == nil {
		c.fail("RunInstances: no profile or no placement: %v", q.values)
		return nil, "", faultf("InvalidParameterValue", "no profile or no placement")
	}
	place.ignore("AvailabilityZone", "Tenancy")
	if profile, err = c.thing("profile", p.get("Name"), "InvalidParameterValue"); err != nil {
		return nil, "", err
	}
	_, err = c.thing("placement", place.get("GroupName"), "InvalidPlacementGroup.Unknown")
	return profile, place.get("GroupName"), err
}

// demandSafety notes where a machine has not what the module promises of each.
func (c *Cloud) demandSafety(q *call) {
	meta := q.part("MetadataOptions")
	if meta == nil || meta.get("HttpTokens") != "required" || meta.get("HttpPutResponseHopLimit") != "1" || meta.get("HttpEndpoint") != "enabled" {
		c.fail("RunInstances: the metadata service is not version 2 with hop limit 1: %v", q.values)
	} else {
		meta.ignore("InstanceMetadataTags", "HttpProtocolIpv6")
	}
	for _, b := range q.forms("BlockDeviceMapping") {
		if e := b.part("Ebs"); e == nil || e.get("Encrypted") != "true" {
			c.fail("RunInstances: a disk that is not encrypted")
		} else {
			e.ignore("VolumeType", "DeleteOnTermination")
		}
		b.ignore("DeviceName")
	}
}

func nameTag(r record) string {
	for _, t := range r.records("tagSet") {
		if t["key"] == "Name" {
			return t.text("value")
		}
	}
	return ""
}

// reservation is the answer that has one machine in it.
func (r record) reservation() record {
	return record{"reservationId": "r-0fake", "ownerId": account, "instancesSet": []record{r}}
}

var stateCodes = map[string]int{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

func stateOf(name string) record { return record{"code": stateCodes[name], "name": name} }

// instance is how a machine is shown.
func (c *Cloud) instance(i record) record {
	nic := c.things["interface"][i.text("nic")]
	out := i.only("instanceId", "imageId", "instanceType", "keyName", "placement", "iamInstanceProfile", "launchTime", "tagSet").with(record{
		"instanceState": stateOf(i.text("state")), "amiLaunchIndex": 0, "architecture": "arm64", "hypervisor": "xen", "virtualizationType": "hvm", "ebsOptimized": false, "sourceDestCheck": true,
		"rootDeviceName": "/dev/xvda", "rootDeviceType": "ebs", "monitoring": record{"state": "disabled"},
		"metadataOptions": record{"state": "applied", "httpTokens": "required", "httpPutResponseHopLimit": 1, "httpEndpoint": "enabled", "httpProtocolIpv6": "disabled", "instanceMetadataTags": "disabled"},
		"cpuOptions":      record{"coreCount": 2, "threadsPerCore": 1},
	})
	if i.text("state") == "terminated" || nic == nil {
		return out
	}
	at, _ := nic["attachment"].(record)
	out["networkInterfaceSet"] = []record{nic.only("networkInterfaceId", "subnetId", "vpcId", "description", "ownerId", "status", "privateIpAddress", "privateIpAddressesSet", "groupSet", "sourceDestCheck", "association").with(record{"attachment": at})}
	out["subnetId"], out["vpcId"], out["privateIpAddress"], out["privateDnsName"], out["groupSet"] = nic["subnetId"], nic["vpcId"], nic["privateIpAddress"], nic["privateDnsName"], nic["groupSet"]
	if as, ok := nic["association"].(record); ok {
		out["ipAddress"] = as["publicIp"]
	}
	disks := []record{}
	for _, v := range c.all("volume") {
		for _, a := range v.records("attachmentSet") {
			if a["instanceId"] == i["instanceId"] {
				disks = append(disks, record{"deviceName": a["device"], "ebs": a.only("volumeId", "status", "attachTime", "deleteOnTermination")})
			}
		}
	}
	out["blockDeviceMapping"] = disks
	return out
}

func (c *Cloud) describeInstances(q *call) (record, error) {
	q.ignore("MaxResults", "NextToken")
	out, wanted := []record{}, q.list("InstanceId")
	for _, id := range wanted {
		if _, err := c.thing("machine", id, "InvalidInstanceID.NotFound"); err != nil {
			return nil, err
		}
	}
	for _, i := range c.all("machine") {
		shown := c.instance(i)
		if (len(wanted) == 0 || slices.Contains(wanted, i.text("instanceId"))) && c.matches(q, shown, filters{"instance-id": field("instanceId"), "instance-state-name": inside("instanceState", "name")}) {
			out = append(out, shown.reservation())
		}
	}
	return record{"reservationSet": out}, nil
}

func (c *Cloud) describeInstanceAttribute(q *call) (record, error) {
	i, err := c.thing("machine", q.get("InstanceId"), "InvalidInstanceID.NotFound")
	if err != nil {
		return nil, err
	}
	out := record{"instanceId": i["instanceId"]}
	switch name := q.get("Attribute"); name {
	case "disableApiTermination", "disableApiStop":
		out[name] = record{"value": false}
	case "instanceInitiatedShutdownBehavior":
		out[name] = record{"value": "stop"}
	case "userData":
		out[name] = record{"value": i["userData"]}
	default:
		c.fail("DescribeInstanceAttribute: attribute %s is not known", name)
	}
	return out, nil
}

func (c *Cloud) modifyInstanceAttribute(q *call) (record, error) {
	for _, name := range []string{"DisableApiStop.Value", "DisableApiTermination.Value"} {
		if q.get(name) == "true" {
			c.fail("ModifyInstanceAttribute: %s is not known", name)
		}
	}
	q.get("InstanceId")
	return nil, nil
}

// stopInstances shuts machines down in good order; that takes its time.
func (c *Cloud) stopInstances(q *call) (record, error) {
	q.ignore("Force", "SkipOsShutdown")
	return c.end(q, "stopping", "stopped")
}

func (c *Cloud) terminateInstances(q *call) (record, error) {
	q.ignore("SkipOsShutdown", "Force")
	return c.end(q, "shutting-down", "terminated")
}

func (c *Cloud) end(q *call, on, after string) (record, error) {
	out := []record{}
	for _, id := range q.list("InstanceId") {
		i, err := c.thing("machine", id, "InvalidInstanceID.NotFound")
		if err != nil {
			return nil, err
		}
		before := i.text("state")
		if before != after && before != "terminated" {
			i["state"] = on
			m := c.machines[id]
			c.served.Go(func() {
				m.shutDown()
				c.mu.Lock()
				defer c.mu.Unlock()
				c.ended(i, after)
			})
		}
		out = append(out, record{"instanceId": id, "previousState": stateOf(before), "currentState": stateOf(i.text("state"))})
	}
	return record{"instancesSet": out}, nil
}

// ended notes what a machine that has ended leaves. mu is held.
func (c *Cloud) ended(i record, state string) {
	i["state"] = state
	if state != "terminated" {
		return
	}
	for _, v := range c.all("volume") {
		switch {
		case !slices.Contains(within("attachmentSet", "instanceId")(v), i.text("instanceId")):
		case c.volumes[v.text("volumeId")] == nil:
			delete(c.things["volume"], v.text("volumeId"))
		default:
			c.release(v)
		}
	}
	if nic := c.things["interface"][i.text("nic")]; nic != nil {
		delete(nic, "attachment")
		nic["status"] = "available"
	}
	c.machines[i.text("instanceId")].remove()
}
