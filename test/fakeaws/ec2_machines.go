//go:build linux

package fakeaws

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"
)

func (c *Cloud) createVolume(q *call) (record, error) {
	q.ignore("ClientToken")
	if q.get("Encrypted") != "true" {
		c.fail("CreateVolume: a volume that is not encrypted")
	}
	if q.get("VolumeType") != "gp3" {
		c.fail("CreateVolume: a volume of type %q, not gp3", q.get("VolumeType"))
	}
	if !slices.Contains(zones, strings.TrimPrefix(q.get("AvailabilityZone"), Region)) {
		return nil, faultf("InvalidParameterValue", "there is no zone %s", q.get("AvailabilityZone"))
	}
	id := newID("vol")
	v, err := newVolume(c.cfg.Dir, id, q.number("Size"))
	if err != nil {
		return nil, err
	}
	c.volumes[id] = v
	return c.put("volume", id, record{"id": id, "volumeId": id, "size": q.number("Size"), "availabilityZone": q.get("AvailabilityZone"), "volumeType": "gp3", "status": "available",
		"iops": q.number("Iops"), "throughput": q.number("Throughput"), "encrypted": true, "kmsKeyId": q.or("KmsKeyId", arn("kms", "key/aws-ebs")), "multiAttachEnabled": false,
		"createTime": time.Now(), "attachmentSet": []record{}, "tagSet": c.tags(q)}), nil
}

func (c *Cloud) deleteVolume(q *call) (record, error) {
	id := q.get("VolumeId")
	v, err := c.thing("volume", id, "InvalidVolume.NotFound")
	if err != nil {
		return nil, err
	}
	if len(v.records("attachmentSet")) > 0 {
		return nil, faultf("VolumeInUse", "volume %s is attached", id)
	}
	if err := c.volumes[id].remove(); err != nil {
		return nil, err
	}
	delete(c.volumes, id)
	delete(c.things["volume"], id)
	return nil, nil
}

func (c *Cloud) attachVolume(q *call) (record, error) {
	v, err := c.thing("volume", q.get("VolumeId"), "InvalidVolume.NotFound")
	if err != nil {
		return nil, err
	}
	i, err := c.thing("machine", q.get("InstanceId"), "InvalidInstanceID.NotFound")
	if err != nil {
		return nil, err
	}
	switch place, _ := i["placement"].(record); {
	case len(v.records("attachmentSet")) > 0:
		return nil, faultf("VolumeInUse", "volume %v is attached", v["volumeId"])
	case place["availabilityZone"] != v["availabilityZone"]:
		return nil, faultf("InvalidVolume.ZoneMismatch", "volume and machine are in different zones")
	case i.text("state") != "running" && i.text("state") != "stopped":
		return nil, faultf("IncorrectState", "machine %v is %s", i["instanceId"], i["state"])
	}
	id := v.text("volumeId")
	if err := c.volumes[id].attach(c.machines[i.text("instanceId")]); err != nil {
		return nil, err
	}
	a := record{"volumeId": id, "instanceId": i["instanceId"], "device": q.get("Device"), "status": "attached", "attachTime": time.Now(), "deleteOnTermination": false}
	v["attachmentSet"], v["status"] = []record{a}, "in-use"
	return a, nil
}

func (c *Cloud) detachVolume(q *call) (record, error) {
	q.ignore("Force", "Device")
	v, err := c.thing("volume", q.get("VolumeId"), "InvalidVolume.NotFound")
	if err != nil {
		return nil, err
	}
	if len(v.records("attachmentSet")) == 0 {
		return nil, faultf("IncorrectState", "volume %v is not attached", v["volumeId"])
	}
	if m := c.machines[q.get("InstanceId")]; m != nil && m.runs() {
		c.fail("DetachVolume: the machine %s, whose volume goes, still runs", q.get("InstanceId"))
	}
	return c.release(v), nil
}

// release detaches a volume.
func (c *Cloud) release(v record) record {
	var last record
	for _, a := range v.records("attachmentSet") {
		last = a.with(record{"status": "detached"})
	}
	if err := c.volumes[v.text("volumeId")].detach(); err != nil {
		c.fail("detach %v: %v", v["volumeId"], err)
	}
	v["attachmentSet"], v["status"] = []record{}, "available"
	return last
}

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

// runInstances starts a machine on an interface that there is. What the module
// promises of every machine is demanded here.
func (c *Cloud) runInstances(q *call) (record, error) {
	q.ignore("ClientToken", "MinCount", "MaxCount", "EbsOptimized", "DisableApiTermination", "Monitoring", "PrivateDnsNameOptions", "HibernationOptions")
	nics := q.forms("NetworkInterface")
	if len(nics) != 1 || nics[0].get("DeviceIndex") != "0" {
		c.fail("RunInstances: a machine without exactly one interface that there is: %v", q.values)
		return nil, faultf("InvalidParameterValue", "one interface is needed")
	}
	nics[0].ignore("DeleteOnTermination", "NetworkCardIndex")
	nic, err := c.thing("interface", nics[0].get("NetworkInterfaceId"), "InvalidNetworkInterfaceID.NotFound")
	if err != nil {
		return nil, err
	}
	if nic["attachment"] != nil {
		return nil, faultf("InvalidNetworkInterface.InUse", "interface %v is in use", nic["networkInterfaceId"])
	}
	if nics[0].get("DeleteOnTermination") == "true" {
		c.fail("RunInstances: the interface goes with the machine")
	}
	meta, profile, place := q.part("MetadataOptions"), q.part("IamInstanceProfile"), q.part("Placement")
	if meta == nil || meta.get("HttpTokens") != "required" || meta.get("HttpPutResponseHopLimit") != "1" || meta.get("HttpEndpoint") != "enabled" {
		c.fail("RunInstances: the metadata service is not version 2 with hop limit 1: %v", q.values)
	} else {
		meta.ignore("InstanceMetadataTags", "HttpProtocolIpv6")
	}
	if profile == nil || place == nil {
		c.fail("RunInstances: no profile or no placement: %v", q.values)
		return nil, faultf("InvalidParameterValue", "no profile or no placement")
	}
	p, err := c.thing("profile", profile.get("Name"), "InvalidParameterValue")
	if err != nil {
		return nil, err
	}
	if _, err := c.thing("placement", place.get("GroupName"), "InvalidPlacementGroup.Unknown"); err != nil {
		return nil, err
	}
	for _, b := range q.forms("BlockDeviceMapping") {
		if e := b.part("Ebs"); e == nil || e.get("Encrypted") != "true" {
			c.fail("RunInstances: a disk that is not encrypted")
		} else {
			e.ignore("VolumeType", "DeleteOnTermination")
		}
		b.ignore("DeviceName")
	}
	userData, err := base64.StdEncoding.DecodeString(q.get("UserData"))
	if err != nil || len(userData) == 0 || len(userData) > 16384 {
		return nil, faultf("InvalidUserData.Malformed", "user data of %d bytes: %v", len(userData), err)
	}
	id := newID("i")
	i := c.put("machine", id, record{"id": id, "instanceId": id, "state": "running", "imageId": q.get("ImageId"), "instanceType": q.get("InstanceType"), "keyName": q.get("KeyName"),
		"placement":          record{"availabilityZone": nic["availabilityZone"], "groupName": place.get("GroupName"), "tenancy": "default"},
		"iamInstanceProfile": record{"arn": p["Arn"], "id": p["InstanceProfileId"]}, "nic": nic["networkInterfaceId"], "userData": q.get("UserData"), "launchTime": time.Now(), "tagSet": c.tags(q)})
	place.ignore("AvailabilityZone", "Tenancy")
	nic["status"] = "in-use"
	nic["attachment"] = record{"attachmentId": newID("eni-attach"), "instanceId": id, "instanceOwnerId": account, "deviceIndex": 0, "networkCardIndex": 0, "deleteOnTermination": false, "status": "attached", "attachTime": time.Now()}
	m, err := c.startMachine(machineConfig{id: id, address: nic.text("privateIpAddress"), role: p.text("role"), userData: userData, name: nameTag(i)})
	if err != nil {
		return nil, err
	}
	c.machines[id] = m
	// The machine's own disk, which goes with it.
	disk := newID("vol")
	c.put("volume", disk, record{"id": disk, "volumeId": disk, "size": 8, "availabilityZone": nic["availabilityZone"], "volumeType": "gp3", "status": "in-use", "iops": 3000, "throughput": 125,
		"encrypted": true, "kmsKeyId": arn("kms", "key/aws-ebs"), "createTime": time.Now(),
		"attachmentSet": []record{{"volumeId": disk, "instanceId": id, "device": "/dev/xvda", "status": "attached", "attachTime": time.Now(), "deleteOnTermination": true}}})
	return c.instance(i).reservation(), nil
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

// A Machine is a machine as tests see it.
type Machine struct {
	ID, Name, Address, State, Zone, Group, UserData string
}

// Machines lists those that are not terminated, by their names.
func (c *Cloud) Machines() (out []Machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.all("machine") {
		if i.text("state") == "terminated" {
			continue
		}
		place, _ := i["placement"].(record)
		text, _ := base64.StdEncoding.DecodeString(i.text("userData"))
		out = append(out, Machine{ID: i.text("instanceId"), Name: nameTag(i), State: i.text("state"), Zone: place.text("availabilityZone"), Group: place.text("groupName"),
			Address: c.machines[i.text("instanceId")].address, UserData: string(text)})
	}
	slices.SortFunc(out, func(a, b Machine) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Run runs a command on the machine at an address, its own or its public one, as root,
// and returns what it printed. It blocks until the command has ended.
func (c *Cloud) Run(address string, command ...string) (string, error) {
	c.mu.Lock()
	for _, a := range c.of("address", "publicIp", address) {
		address = a.text("privateIpAddress")
	}
	var found *machine
	for _, m := range c.machines {
		if m.address == address && m.runs() {
			found = m
		}
	}
	c.mu.Unlock()
	if found == nil {
		return "", fmt.Errorf("no machine runs at %s", address)
	}
	return found.run(command...)
}

// Kill is the sudden end of a machine, as by a broken power supply.
func (c *Cloud) Kill(id string) {
	c.mu.Lock()
	m := c.machines[id]
	c.mu.Unlock()
	m.kill()
}
