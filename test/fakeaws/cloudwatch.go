//go:build linux

package fakeaws

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Number is a value that somebody put.
type Number struct {
	Name  string
	Value float64
	// Dimensions by name.
	Dimensions map[string]string
}

// metricActions are those that are known.
func (c *Cloud) metricActions() map[string]func(*call) (record, error) {
	return map[string]func(*call) (record, error){
		"PutMetricData": c.putMetricData, "PutMetricAlarm": c.putAlarm, "DescribeAlarms": c.describeAlarms, "DeleteAlarms": c.deleteAlarms,
		"ListTagsForResource": func(q *call) (record, error) {
			r := c.findAny(q.get("ResourceARN"))
			return record{"Tags": r.records("tags")}, nil
		},
	}
}

func dimensions(parts []*form) (list []record, named map[string]string) {
	named = map[string]string{}
	for _, d := range parts {
		list = append(list, record{"Name": d.get("Name"), "Value": d.get("Value")})
		named[d.get("Name")] = d.get("Value")
	}
	return list, named
}

func (c *Cloud) putMetricData(q *call) (record, error) {
	if q.get("Namespace") == "" {
		return nil, faultf("MissingParameter", "the namespace is missing")
	}
	data := q.forms("MetricData.member")
	if len(data) == 0 {
		return nil, faultf("MissingParameter", "there is no number")
	}
	for _, d := range data {
		value, err := strconv.ParseFloat(d.get("Value"), 64)
		if err != nil {
			return nil, faultf("InvalidParameterValue", "%q is no number", d.get("Value"))
		}
		_, named := dimensions(d.forms("Dimensions.member"))
		c.numbers = append(c.numbers, Number{Name: d.get("MetricName"), Value: value, Dimensions: named})
	}
	return nil, nil
}

func (c *Cloud) putAlarm(q *call) (record, error) {
	name := q.get("AlarmName")
	list, _ := dimensions(q.forms("Dimensions.member"))
	a := record{"AlarmArn": arn("cloudwatch", "alarm:"+name), "id": arn("cloudwatch", "alarm:"+name), "AlarmActions": q.list("AlarmActions.member"), "OKActions": q.list("OKActions.member"),
		"InsufficientDataActions": []string{}, "Dimensions": list, "StateValue": "INSUFFICIENT_DATA", "StateUpdatedTimestamp": time.Now()}
	for _, field := range []string{"AlarmName", "AlarmDescription", "ActionsEnabled", "MetricName", "Namespace", "Statistic", "Period", "EvaluationPeriods", "Threshold", "ComparisonOperator", "TreatMissingData"} {
		if q.get(field) == "" {
			return nil, faultf("MissingParameter", "%s is missing", field)
		}
		a[field] = q.get(field)
	}
	if tags := tagsOf(q.forms("Tags.member"), "Key", "Value"); len(tags) > 0 {
		a["tags"] = tags
	}
	c.put("alarm", a.text("AlarmArn"), a)
	return nil, nil
}

func (c *Cloud) describeAlarms(q *call) (record, error) {
	q.ignore("AlarmTypes", "MaxRecords")
	wanted, out := q.list("AlarmNames.member"), []record{}
	for _, a := range c.all("alarm") {
		if len(wanted) == 0 || slices.Contains(wanted, a.text("AlarmName")) {
			shown := a.with(nil)
			delete(shown, "tags")
			delete(shown, "id")
			out = append(out, shown)
		}
	}
	return record{"MetricAlarms": out}, nil
}

func (c *Cloud) deleteAlarms(q *call) (record, error) {
	for _, name := range q.list("AlarmNames.member") {
		delete(c.things["alarm"], arn("cloudwatch", "alarm:"+name))
	}
	return nil, nil
}

// Numbers lists all that were put, in their order.
func (c *Cloud) Numbers() []Number {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.numbers)
}

// Alarms lists what alarms look at: the name of the metric and the node, if it is
// about one.
func (c *Cloud) Alarms() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.all("alarm") {
		what := []string{a.text("MetricName")}
		for _, d := range a.records("Dimensions") {
			if d["Name"] == "Node" {
				what = append(what, d.text("Value"))
			}
		}
		out = append(out, strings.Join(what, " "))
	}
	slices.Sort(out)
	return out
}
