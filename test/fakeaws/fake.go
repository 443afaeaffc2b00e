//go:build linux

package fakeaws

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Where and whose everything is.
const (
	Region  = "eu-central-1"
	account = "123456789012"
	// Key and Secret are those of the operator, who may do everything.
	Key    = "AKIAOPERATOROPERATOR"
	Secret = "operators-secret-for-tests"
)

// Config says where a Cloud lives.
type Config struct {
	// Dir keeps machines and volumes; its path has to be short, and its file system
	// one that an overlay may lie on.
	Dir string
	// Address is where the API and metadata listen: host:port on the loopback.
	Address string
	// Balancer is the address of 127.0.0.0/8 that every balancer listens at.
	Balancer string
}

// A Cloud is one account in one region.
type Cloud struct {
	cfg    Config
	log    *slog.Logger
	server *http.Server
	served sync.WaitGroup

	mu       sync.Mutex
	failures []string
	actions  map[string]int // how often each was asked for
	things   map[string]map[string]record
	roles    map[string]*role
	secrets  map[string]credential // by access key
	params   map[string]*parameter
	buckets  map[string]*bucket
	numbers  []Number
	machines map[string]*machine
	volumes  map[string]*volume
	fronts   map[string]*front
}

// A credential belongs to the operator, where role is "", or to a role.
type credential struct{ secret, session, role string }

// Open starts a cloud in which there is nothing.
func Open(cfg Config, log *slog.Logger) (*Cloud, error) {
	l, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for the API: %w", err)
	}
	c := &Cloud{
		cfg: cfg, log: log, actions: map[string]int{},
		things: map[string]map[string]record{}, roles: map[string]*role{}, params: map[string]*parameter{},
		buckets: map[string]*bucket{}, machines: map[string]*machine{}, volumes: map[string]*volume{}, fronts: map[string]*front{},
		secrets: map[string]credential{Key: {secret: Secret}},
	}
	c.cfg.Address = l.Addr().String()
	c.server = &http.Server{Handler: http.HandlerFunc(c.serve)}
	c.served.Go(func() { _ = c.server.Serve(l) }) // ends with Close
	return c, nil
}

// URL is the endpoint of every service.
func (c *Cloud) URL() string { return "http://" + c.cfg.Address }

// Close ends what runs and removes what there is.
func (c *Cloud) Close() error {
	err := c.server.Close()
	c.mu.Lock()
	for _, f := range c.fronts {
		f.close()
	}
	for _, m := range c.machines {
		m.kill()
	}
	for _, v := range c.volumes {
		err = errors.Join(err, v.detach())
	}
	c.mu.Unlock()
	c.served.Wait()
	return err
}

// Failures are what the fake was asked for and does not know, or must not see.
func (c *Cloud) Failures() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.failures)
}

// fail notes a failure. mu is held.
func (c *Cloud) fail(format string, args ...any) {
	c.failures = append(c.failures, fmt.Sprintf(format, args...))
}

// Left lists everything that there is.
func (c *Cloud) Left() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, all := range c.things {
		for id := range all {
			if kind != "machine" || all[id].text("state") != "terminated" {
				out = append(out, kind+" "+id)
			}
		}
	}
	for name := range c.roles {
		out = append(out, "role "+name)
	}
	for name := range c.params {
		out = append(out, "parameter "+name)
	}
	for name := range c.buckets {
		out = append(out, "bucket "+name)
	}
	for id := range c.volumes {
		out = append(out, "volume "+id)
	}
	for id, m := range c.machines {
		if m.runs() {
			out = append(out, "running machine "+id)
		}
	}
	slices.Sort(out)
	return out
}

// A fault is an answer that says no.
type fault struct {
	status        int
	code, message string
}

func (f *fault) Error() string { return f.code + ": " + f.message }

func faultf(code, format string, args ...any) *fault {
	return &fault{status: http.StatusBadRequest, code: code, message: fmt.Sprintf(format, args...)}
}

// A call is one request that was let in.
type call struct {
	service, action string
	*form
	role string // "" for the operator
}

// id makes a new name of a thing.
func newID(prefix string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + "-0" + hex.EncodeToString(b[:])
}

// serve lets a request in by its signature and gives it to its service.
func (c *Cloud) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<30))
	if err != nil {
		return
	}
	sig, err := parseSignature(r.Header.Get("Authorization"))
	c.mu.Lock()
	defer c.mu.Unlock()
	who, known := c.secrets[sig.key]
	if err == nil && !known {
		err = fmt.Errorf("the access key %q is not known", sig.key)
	}
	if err == nil && r.Header.Get("X-Amz-Security-Token") != who.session {
		err = errors.New("the session token is another one")
	}
	if err == nil {
		err = sig.check(r, body, who.secret)
	}
	if err != nil {
		c.fail("%s %s: %v", r.Method, r.URL, err)
		answerXML(w, "ErrorResponse", errorRecord(&fault{http.StatusForbidden, "SignatureDoesNotMatch", err.Error()}), "member", http.StatusForbidden)
		return
	}
	switch sig.service {
	case "s3":
		c.serveS3(w, r, body, who.role)
	case "ssm":
		c.serveSSM(w, r, body, who.role)
	case "ec2", "elasticloadbalancing", "iam", "monitoring", "sts":
		values, err := url.ParseQuery(string(body))
		if err != nil {
			c.fail("%s: %v", sig.service, err)
		}
		c.serveQuery(w, &call{service: sig.service, action: values.Get("Action"), form: newForm(values), role: who.role})
	default:
		c.fail("service %s is not known (%s %s)", sig.service, r.Method, r.URL)
		w.WriteHeader(http.StatusNotImplemented)
	}
}

// serveQuery answers the services of the query protocol. mu is held.
func (c *Cloud) serveQuery(w http.ResponseWriter, q *call) {
	tables := map[string]map[string]func(*call) (record, error){
		"ec2": c.ec2Actions(), "elasticloadbalancing": c.elbActions(), "iam": c.iamActions(),
		"monitoring": c.metricActions(), "sts": c.stsActions(),
	}
	item := "member"
	if q.service == "ec2" {
		item = "item"
	}
	c.actions[q.service+":"+q.action]++
	handler := tables[q.service][q.action]
	if handler == nil {
		c.fail("%s: action %s is not known: %v", q.service, q.action, q.values)
		c.answerFault(w, q, &fault{http.StatusNotImplemented, "InvalidAction", "fakeaws does not know " + q.action}, item)
		return
	}
	if q.role != "" {
		facts := map[string]string{"cloudwatch:namespace": q.values.Get("Namespace")}
		name := map[string]string{"monitoring": "cloudwatch"}[q.service] + ":" + q.action
		if err := c.authorize(q.role, name, "*", facts); err != nil {
			c.answerFault(w, q, err, item)
			return
		}
	}
	out, err := handler(q)
	if unknown := q.unknown(); len(unknown) > 0 {
		c.fail("%s: %s has parameters that are not known: %v", q.service, q.action, unknown)
	}
	if err != nil {
		c.answerFault(w, q, err, item)
		return
	}
	if out == nil {
		out = record{}
	}
	if q.service == "ec2" {
		if _, ok := out["return"]; !ok && len(out) == 0 {
			out["return"] = true
		}
		answerXML(w, q.action+"Response", out.with(record{"requestId": newID("r")}), item, http.StatusOK)
		return
	}
	answerXML(w, q.action+"Response", record{q.action + "Result": out, "ResponseMetadata": record{"RequestId": newID("r")}}, item, http.StatusOK)
}

// answerFault says no in the form of the service.
func (c *Cloud) answerFault(w http.ResponseWriter, q *call, err error, item string) {
	var f *fault
	if !errors.As(err, &f) {
		f = &fault{http.StatusInternalServerError, "InternalError", err.Error()}
		c.fail("%s: %s: %v", q.service, q.action, err)
	}
	c.log.Debug("refused", "service", q.service, "action", q.action, "err", f)
	if q.service == "ec2" {
		answerXML(w, "Response", record{"Errors": record{"Error": record{"Code": f.code, "Message": f.message}}, "RequestID": newID("r")}, item, f.status)
		return
	}
	answerXML(w, "ErrorResponse", errorRecord(f), item, f.status)
}

func errorRecord(f *fault) record {
	return record{"Error": record{"Type": "Sender", "Code": f.code, "Message": f.message}, "RequestId": newID("r")}
}

func answerXML(w http.ResponseWriter, name string, out record, item string, status int) {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>`)
	writeXML(&b, name, out, item)
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // who has gone asks again
}

// authorize tells whether a role may do something. mu is held.
func (c *Cloud) authorize(role, action, resource string, facts map[string]string) error {
	r := c.roles[role]
	if r == nil {
		return &fault{http.StatusForbidden, "AccessDenied", "there is no role " + role}
	}
	for name, text := range r.policies {
		var p policy
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return fmt.Errorf("policy %s of %s: %w", name, role, err)
		}
		ok, err := p.allows(action, resource, facts)
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
	}
	return &fault{http.StatusForbidden, "AccessDenied", fmt.Sprintf("role %s may not %s on %s", role, action, resource)}
}

// put keeps a thing, new or changed.
func (c *Cloud) put(kind, id string, thing record) record {
	if c.things[kind] == nil {
		c.things[kind] = map[string]record{}
	}
	c.things[kind][id] = thing
	return thing
}

// thing finds one, or says that there is none with the code of its service.
func (c *Cloud) thing(kind, id, code string) (record, error) {
	if t, ok := c.things[kind][id]; ok {
		return t, nil
	}
	return nil, faultf(code, "the %s '%s' does not exist", kind, id)
}

// all returns the things of a kind, in the order of their names.
func (c *Cloud) all(kind string) (out []record) {
	ids := make([]string, 0, len(c.things[kind]))
	for id := range c.things[kind] {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		out = append(out, c.things[kind][id])
	}
	return out
}

// tagsOf reads the tags of a form's part: Key and Value.
func tagsOf(parts []*form, key, value string) (out []record) {
	for _, p := range parts {
		out = append(out, record{key: p.get(key1(key)), value: p.get(key1(value))})
	}
	return out
}

// key1 is the name of a field of an answer as requests spell it.
func key1(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

// stsActions says who asks.
func (c *Cloud) stsActions() map[string]func(*call) (record, error) {
	return map[string]func(*call) (record, error){
		"GetCallerIdentity": func(*call) (record, error) {
			return record{"Account": account, "Arn": "arn:aws:iam::" + account + ":user/operator", "UserId": "AIDAOPERATOR"}, nil
		},
	}
}
