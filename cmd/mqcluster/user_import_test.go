package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/admin"
)

func TestParseImport(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []admin.UserEntry
		err        string
	}{
		{name: "password", text: "a:secret\nb: with : colons \n", want: []admin.UserEntry{
			{Name: "a", Password: []byte("secret")}, {Name: "b", Password: []byte(" with : colons ")}}},
		{name: "hash", text: "a:$argon2id$v=19$m=1024,t=1,p=1$c2FsdA$c3Vt", want: []admin.UserEntry{
			{Name: "a", Hash: "$argon2id$v=19$m=1024,t=1,p=1$c2FsdA$c3Vt"}}},
		{name: "skipped lines", text: "# devices\r\n\r\n \na:p\r\n", want: []admin.UserEntry{{Name: "a", Password: []byte("p")}}},
		{name: "no colon", text: "a:p\nhunter2\n", err: "line 2 of the users has no colon"},
		{name: "no name", text: ":hunter2\n", err: "line 1 of the users has no name"},
		{name: "no password", text: "a:\n", err: "line 1 of the users has no password"},
		{name: "long password", text: "a:" + strings.Repeat("x", maxSecret+1), err: "longer than the 65535 bytes"},
		{name: "long line", text: strings.Repeat("x", 3*maxSecret), err: "write one user on each line"},
		{name: "nobody", text: "# none\n", err: "there are no users"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseImport(strings.NewReader(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "hunter2") {
					t.Fatalf("got error %v, want %q and no password", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is read is as many users as there are lines for them, each with a name
// and either a password or a hash.
func FuzzParseImport(f *testing.F) {
	for _, seed := range []string{"a:b\n", "a:$argon2id$x\n#c\n\n", "a\n", ":\n", "a:b\r\nc::d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		users, err := parseImport(strings.NewReader(text))
		if err == nil && (len(users) == 0 || len(users) > strings.Count(text, "\n")+1) {
			t.Errorf("%d users", len(users))
		}
		for _, u := range users {
			if u.Name == "" || strings.ContainsAny(u.Name, ":\n") || (u.Hash == "") == (len(u.Password) == 0) {
				t.Errorf("%+v", u)
			}
		}
	})
}
