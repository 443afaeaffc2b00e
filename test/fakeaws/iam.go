//go:build linux

package fakeaws

import (
	"encoding/json"
	"net/url"
	"slices"
	"time"
)

// A role is what a machine acts as.
type role struct {
	record
	tags     []record
	policies map[string]string
}

// iamActions are those that are known.
func (c *Cloud) iamActions() map[string]func(*call) (record, error) {
	return map[string]func(*call) (record, error){
		"CreateRole": c.createRole, "GetRole": c.getRole, "DeleteRole": c.deleteRole, "ListRoleTags": c.getRole,
		"ListRolePolicies": c.listRolePolicies, "ListAttachedRolePolicies": func(q *call) (record, error) {
			q.ignore("RoleName", "Marker", "MaxItems", "PathPrefix")
			return record{"AttachedPolicies": []record{}, "IsTruncated": false}, nil
		},
		"ListInstanceProfilesForRole": c.profilesForRole,
		"PutRolePolicy":               c.putRolePolicy, "GetRolePolicy": c.getRolePolicy, "DeleteRolePolicy": c.deleteRolePolicy,
		"CreateInstanceProfile": c.createProfile, "GetInstanceProfile": c.getProfile, "DeleteInstanceProfile": c.deleteProfile,
		"AddRoleToInstanceProfile": c.addRoleToProfile, "RemoveRoleFromInstanceProfile": c.removeRoleFromProfile,
	}
}

func (c *Cloud) roleNamed(q *call) (*role, error) {
	if r := c.roles[q.get("RoleName")]; r != nil {
		return r, nil
	}
	return nil, &fault{404, "NoSuchEntity", "there is no role " + q.get("RoleName")}
}

func (c *Cloud) createRole(q *call) (record, error) {
	name := q.get("RoleName")
	q.ignore("MaxSessionDuration", "Path")
	c.roles[name] = &role{policies: map[string]string{}, tags: tagsOf(q.forms("Tags.member"), "Key", "Value"), record: record{"RoleName": name, "RoleId": "AROAFAKE", "Path": "/", "Arn": "arn:aws:iam::" + account + ":role/" + name,
		"CreateDate": time.Now(), "Description": q.get("Description"), "MaxSessionDuration": 3600, "AssumeRolePolicyDocument": url.QueryEscape(q.get("AssumeRolePolicyDocument"))}}
	return c.getRole(q)
}

func (c *Cloud) getRole(q *call) (record, error) {
	r, err := c.roleNamed(q)
	if err != nil {
		return nil, err
	}
	return record{"Role": r.with(record{"Tags": r.tags})}, nil
}

func (c *Cloud) deleteRole(q *call) (record, error) {
	r, err := c.roleNamed(q)
	if err != nil {
		return nil, err
	}
	if len(r.policies) > 0 || len(c.of("profile", "role", r.text("RoleName"))) > 0 {
		return nil, &fault{409, "DeleteConflict", "the role is in use"}
	}
	delete(c.roles, r.text("RoleName"))
	return nil, nil
}

func (c *Cloud) listRolePolicies(q *call) (record, error) {
	q.ignore("Marker", "MaxItems")
	r, err := c.roleNamed(q)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for name := range r.policies {
		names = append(names, name)
	}
	slices.Sort(names)
	return record{"PolicyNames": names, "IsTruncated": false}, nil
}

func (c *Cloud) profilesForRole(q *call) (record, error) {
	q.ignore("Marker", "MaxItems")
	out := []record{}
	for _, p := range c.of("profile", "role", q.get("RoleName")) {
		out = append(out, c.profile(p))
	}
	return record{"InstanceProfiles": out, "IsTruncated": false}, nil
}

func (c *Cloud) putRolePolicy(q *call) (record, error) {
	r, err := c.roleNamed(q)
	if err != nil {
		return nil, err
	}
	text := q.get("PolicyDocument")
	if err := json.Unmarshal([]byte(text), &policy{}); err != nil {
		return nil, faultf("MalformedPolicyDocument", "%v", err)
	}
	r.policies[q.get("PolicyName")] = text
	return nil, nil
}

func (c *Cloud) getRolePolicy(q *call) (record, error) {
	r, err := c.roleNamed(q)
	if err != nil {
		return nil, err
	}
	name := q.get("PolicyName")
	text, ok := r.policies[name]
	if !ok {
		return nil, &fault{404, "NoSuchEntity", "there is no policy " + name}
	}
	return record{"RoleName": r.text("RoleName"), "PolicyName": name, "PolicyDocument": url.QueryEscape(text)}, nil
}

func (c *Cloud) deleteRolePolicy(q *call) (record, error) {
	r, err := c.roleNamed(q)
	if err != nil {
		return nil, err
	}
	delete(r.policies, q.get("PolicyName"))
	return nil, nil
}

func (c *Cloud) createProfile(q *call) (record, error) {
	q.ignore("Path")
	name := q.get("InstanceProfileName")
	p := c.put("profile", name, record{"id": name, "InstanceProfileName": name, "InstanceProfileId": "AIPAFAKE", "Path": "/", "Arn": "arn:aws:iam::" + account + ":instance-profile/" + name,
		"CreateDate": time.Now(), "Tags": tagsOf(q.forms("Tags.member"), "Key", "Value")})
	return record{"InstanceProfile": c.profile(p)}, nil
}

// profile is how one is shown.
func (c *Cloud) profile(p record) record {
	roles := []record{}
	if r := c.roles[p.text("role")]; r != nil {
		roles = append(roles, r.record)
	}
	return p.only("InstanceProfileName", "InstanceProfileId", "Path", "Arn", "CreateDate", "Tags").with(record{"Roles": roles})
}

func (c *Cloud) profileNamed(q *call) (record, error) {
	p, ok := c.things["profile"][q.get("InstanceProfileName")]
	if !ok {
		return nil, &fault{404, "NoSuchEntity", "there is no profile " + q.get("InstanceProfileName")}
	}
	return p, nil
}

func (c *Cloud) getProfile(q *call) (record, error) {
	p, err := c.profileNamed(q)
	if err != nil {
		return nil, err
	}
	return record{"InstanceProfile": c.profile(p)}, nil
}

func (c *Cloud) addRoleToProfile(q *call) (record, error) {
	p, err := c.profileNamed(q)
	if err != nil {
		return nil, err
	}
	p["role"] = q.get("RoleName")
	return nil, nil
}

func (c *Cloud) removeRoleFromProfile(q *call) (record, error) {
	q.get("RoleName")
	p, err := c.profileNamed(q)
	if err != nil {
		return nil, err
	}
	delete(p, "role")
	return nil, nil
}

func (c *Cloud) deleteProfile(q *call) (record, error) {
	p, err := c.profileNamed(q)
	if err != nil {
		return nil, err
	}
	if p["role"] != nil {
		return nil, &fault{409, "DeleteConflict", "the profile has a role"}
	}
	delete(c.things["profile"], p.text("id"))
	return nil, nil
}
