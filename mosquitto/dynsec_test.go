package mosquitto

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParseDynsec reads a file that the plugin of 2.0.11 wrote.
func TestParseDynsec(t *testing.T) {
	data, err := os.ReadFile("testdata/dynamic-security.json")
	if err != nil {
		t.Fatal(err)
	}
	d, notes, err := ParseDynsec("ds.json", data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(DynsecDefault{Receive: true, Unsubscribe: true}, d.Default); diff != "" {
		t.Error(diff)
	}
	var clients []string
	for _, c := range d.Clients {
		text := c.Name + " " + strings.Join(c.Roles, ",")
		if c.Disabled {
			text += " disabled"
		}
		clients = append(clients, text)
		if !strings.HasPrefix(c.Hash, "$7$101$") || checkHash(c.Hash) != nil {
			t.Errorf("%s has hash %s", c.Name, c.Hash)
		}
	}
	if diff := cmp.Diff([]string{"admin admin", "dev1 r1,r2", "dev2 r2 disabled"}, clients); diff != "" {
		t.Error(diff)
	}
	want := []DynsecACL{
		{SubscribeLiteral, "c/+", true}, {PublishClientSend, "a/no", false}, {PublishClientSend, "a/#", true},
		{PublishClientReceive, "b/secret", false}, {SubscribePattern, "b/#", true},
	}
	if diff := cmp.Diff(want, d.Roles[1].ACLs); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"r1"}, d.AnonymousRoles); diff != "" {
		t.Error(diff)
	}
	refused := slices.DeleteFunc(slices.Clone(notes), func(n Note) bool { return n.Verdict != NotSupported })
	if len(refused) != 1 || !strings.Contains(refused[0].Text, "subscribeLiteral #") {
		t.Errorf("%v", refused)
	}
}

func TestDynsecPriorities(t *testing.T) {
	d, notes, err := ParseDynsec("f", []byte(`{"clients":[
		{"username":"a","clientid":"x","roles":[{"rolename":"low"},{"rolename":"high","priority":3},{"rolename":"none"}],
		 "groups":[{"groupname":"g","priority":1},{"groupname":"h","priority":2}]},
		{"username":"a"}, {"username":"bad","password":"x","salt":"y","iterations":1}],
		"groups":[{"groupname":"g","roles":[{"rolename":"low"},{"rolename":"g"}]},{"groupname":"h","roles":[{"rolename":"h"}]}],
		"roles":[{"rolename":"low"},{"rolename":"high"},{"rolename":"g"},{"rolename":"h"}],
		"defaultACLAccess":{"future":true,"unsubscribe":false},"anonymousGroup":"nobody"}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"high", "low", "h", "g"}, d.Clients[0].Roles); diff != "" || len(d.Clients) != 2 || d.Clients[1].Hash != "" {
		t.Error(diff, d.Clients)
	}
	for _, want := range []string{"role \"none\"", "clientid \"x\"", "an earlier client has", "cannot be verified", "no such group", "future", "unsubscribe: false"} {
		if !slices.ContainsFunc(notes, func(n Note) bool { return n.Verdict == NotSupported && strings.Contains(n.String(), want) }) {
			t.Errorf("no line about %s", want)
		}
	}
	if _, _, err := ParseDynsec("f", []byte("[]")); err == nil {
		t.Error("a list is taken")
	}
}

func FuzzDynsec(f *testing.F) {
	data, err := os.ReadFile("testdata/dynamic-security.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		d, notes, err := ParseDynsec("f", data)
		if err != nil {
			return
		}
		for _, c := range d.Clients {
			if c.Name == "" || c.Hash != "" && unusableHash(c.Name, c.Hash) != "" {
				t.Errorf("%+v", c)
			}
		}
		if len(d.Clients)+len(d.Roles) > len(notes) {
			t.Error("something has no note")
		}
	})
}
