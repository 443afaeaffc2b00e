//go:build linux

package fakeaws

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
)

// A parameter of the parameter store.
type parameter struct {
	Name, Type, Value, Description, KeyID string
	Version                               int
	Changed                               time.Time
	Tags                                  []ssmTag
}

type ssmTag struct{ Key, Value string }

// ssmRequest has the fields of all actions that are known.
type ssmRequest struct {
	Name, Type, Value, Description, KeyId, Tier, DataType, AllowedPattern string
	Overwrite, WithDecryption                                             bool
	Tags                                                                  []ssmTag
	Names                                                                 []string
	ResourceType, ResourceId                                              string
	MaxResults                                                            int
	NextToken                                                             string
	ParameterFilters                                                      []struct {
		Key, Option string
		Values      []string
	}
}

// serveSSM answers the parameter store. mu is held.
func (c *Cloud) serveSSM(w http.ResponseWriter, r *http.Request, body []byte, role string) {
	action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSSM.")
	c.actions["ssm:"+action]++
	var q ssmRequest
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		c.fail("ssm: %s: %v: %s", action, err, body)
	}
	if r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		c.fail("ssm: %s: the content type is %q", action, r.Header.Get("Content-Type"))
	}
	var out any
	var err error
	if role != "" {
		err = c.authorize(role, "ssm:"+action, parameterARN(q.Name), nil)
	}
	if err == nil {
		out, err = c.ssm(action, q)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err != nil {
		var f *fault
		if !errors.As(err, &f) {
			f = faultf("InternalServerError", "%v", err)
		}
		w.WriteHeader(f.status)
		out = map[string]string{"__type": f.code, "message": f.message}
	}
	_ = json.NewEncoder(w).Encode(out) // who has gone asks again
}

func parameterARN(name string) string { return arn("ssm", "parameter"+name) }

func (c *Cloud) ssm(action string, q ssmRequest) (any, error) {
	if action == "DescribeParameters" {
		return c.describeParameters(q), nil
	}
	name := q.Name
	if q.ResourceId != "" {
		name = q.ResourceId
	}
	p := c.params[name]
	if p == nil && action != "PutParameter" {
		code := "ParameterNotFound"
		if q.ResourceId != "" {
			code = "InvalidResourceId"
		}
		return nil, faultf(code, "there is no parameter %s", name)
	}
	switch action {
	case "PutParameter":
		return c.putParameter(q)
	case "GetParameter":
		value := p.Value
		if p.Type == "SecureString" && !q.WithDecryption {
			value = "encrypted"
		}
		return map[string]any{"Parameter": map[string]any{"ARN": parameterARN(p.Name), "DataType": "text", "LastModifiedDate": seconds(p.Changed), "Name": p.Name, "Type": p.Type, "Value": value, "Version": p.Version}}, nil
	case "DeleteParameter":
		delete(c.params, name)
		return struct{}{}, nil
	case "ListTagsForResource":
		return map[string]any{"TagList": p.Tags}, nil
	}
	c.fail("ssm: action %s is not known", action)
	return nil, &fault{http.StatusNotImplemented, "InvalidAction", action}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (c *Cloud) putParameter(q ssmRequest) (any, error) {
	p := c.params[q.Name]
	switch {
	case p != nil && !q.Overwrite:
		return nil, faultf("ParameterAlreadyExists", "there is a parameter %s", q.Name)
	case p != nil && len(q.Tags) > 0:
		return nil, faultf("ValidationException", "tags and overwrite exclude each other")
	case len(q.Value) > 4096 || q.Value == "":
		return nil, faultf("ValidationException", "a value of %d bytes", len(q.Value))
	case p == nil:
		p = &parameter{Name: q.Name, Tags: q.Tags}
		c.params[q.Name] = p
	case p.Type != q.Type:
		c.fail("ssm: parameter %s becomes a %s", q.Name, q.Type)
	}
	p.Type, p.Value, p.Changed, p.KeyID = q.Type, q.Value, time.Now(), ""
	if q.Description != "" {
		p.Description = q.Description
	}
	if p.Type == "SecureString" {
		p.KeyID = "alias/aws/ssm"
		if q.KeyId != "" {
			p.KeyID = q.KeyId
		}
	}
	p.Version++
	return map[string]any{"Version": p.Version, "Tier": "Standard"}, nil
}

func (c *Cloud) describeParameters(q ssmRequest) any {
	out := []map[string]any{}
	for _, f := range q.ParameterFilters {
		if f.Key != "Name" || f.Option != "Equals" {
			c.fail("ssm: filter %s %s is not known", f.Key, f.Option)
		}
		for _, name := range f.Values {
			if p := c.params[name]; p != nil {
				m := map[string]any{"ARN": parameterARN(p.Name), "Name": p.Name, "Type": p.Type, "Version": p.Version, "Tier": "Standard", "DataType": "text", "LastModifiedDate": seconds(p.Changed), "Description": p.Description}
				if p.KeyID != "" {
					m["KeyId"] = p.KeyID
				}
				out = append(out, m)
			}
		}
	}
	return map[string]any{"Parameters": out}
}

// Parameter returns type and value of a parameter, and when it was written.
func (c *Cloud) Parameter(name string) (kind, value string, changed time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.params[name]; p != nil {
		return p.Type, p.Value, p.Changed
	}
	return "", "", time.Time{}
}

// Age makes a parameter one that was written longer ago.
func (c *Cloud) Age(name string, by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.params[name].Changed = c.params[name].Changed.Add(-by)
}

// Write gives a parameter another value.
func (c *Cloud) Write(name, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.params[name].Value = value
}
