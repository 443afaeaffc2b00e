//go:build linux

package fakeaws

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A volume is an image that a loop device is made of while it is attached.
type volume struct {
	id, path, loop string
}

// newVolume makes an empty one; only what is written takes space.
func newVolume(dir, id string, gib int) (*volume, error) {
	v := &volume{id: id, path: filepath.Join(dir, id+".img")}
	f, err := os.Create(v.path)
	if err != nil {
		return nil, fmt.Errorf("make a volume: %w", err)
	}
	return v, errors.Join(f.Truncate(int64(gib)<<30), f.Close())
}

// attach makes the volume's device on a machine, under the name that udev gives it.
func (v *volume) attach(m *machine) error {
	out, err := exec.Command("losetup", "--find", "--show", v.path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("attach a volume: %w: %s", err, out)
	}
	v.loop = strings.TrimSpace(string(out))
	var stat syscall.Stat_t
	if err := syscall.Stat(v.loop, &stat); err != nil {
		return fmt.Errorf("look at %s: %w", v.loop, err)
	}
	pid, err := m.init()
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/%d/root/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_%s", pid, strings.Replace(v.id, "-", "", 1))
	if err := syscall.Mknod(path, syscall.S_IFBLK|0o600, int(stat.Rdev)); err != nil {
		return fmt.Errorf("make the device of a volume: %w", err)
	}
	return nil
}

func (v *volume) detach() error {
	if v.loop == "" {
		return nil
	}
	out, err := exec.Command("losetup", "--detach", v.loop).CombinedOutput()
	if err != nil {
		return fmt.Errorf("detach a volume: %w: %s", err, out)
	}
	v.loop = ""
	return nil
}

func (v *volume) remove() error { return os.Remove(v.path) }

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
