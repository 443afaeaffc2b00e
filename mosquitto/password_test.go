package mosquitto

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParsePasswords reads a file that mosquitto_passwd of 2.0.11 wrote.
func TestParsePasswords(t *testing.T) {
	data, err := os.ReadFile("testdata/passwd")
	if err != nil {
		t.Fatal(err)
	}
	users, notes, err := ParsePasswords("passwd", data)
	if err != nil || len(users) != 2 || len(notes) != 2 {
		t.Fatal(users, notes, err)
	}
	if u := users[0]; u.Name != "u1" || !strings.HasPrefix(u.Hash, "$7$101$") || u.Line != 1 {
		t.Error(u)
	}
	if u := users[1]; u.Name != "u2" || !strings.HasPrefix(u.Hash, "$6$") {
		t.Error(u)
	}
	for _, n := range notes {
		if n.Verdict != Taken || strings.Contains(n.String(), "==") {
			t.Error(n)
		}
	}
}

func TestPasswordLines(t *testing.T) {
	const good = "$6$Bpqlu/yzRoOHDuZP$r52jxiNfrf9iJO/vPxTcW/ehpVb3j98S+y08SxUDZZFKuf0QxHiFE7LZCFdDVC+IinP7N09aFb2Gkm+mR3vimA=="
	for line, want := range map[string]string{
		"u:" + good:                         "taken",
		"u:$argon2id$v=19$x$y$z":            "taken",
		":" + good:                          "name is empty",
		"u":                                 "no password",
		"u:plain":                           "plain text",
		"u:$6$!$x":                          "no salt",
		"u:$6$Bpqlu/yz$aaaa":                "not complete",
		"u:$7$0$Bpqlu/yz$aaaa":              "iterations",
		"u:$7$9999999$Bpqlu/yz$aa":          "iterations",
		"u:$5$a$b":                          "not known",
		"u:" + strings.Repeat("$", maxLine): "longer than",
	} {
		_, notes, err := ParsePasswords("p", []byte("# comment\n\n"+line))
		if err != nil || len(notes) != 1 || !strings.Contains(notes[0].String(), want) || notes[0].Line != 3 {
			t.Errorf("%.40s: %v, %v", line, notes, err)
		}
	}
	users, notes, _ := ParsePasswords("p", []byte("u:"+good+"\nu:$argon2id$1$2\r\n"))
	if diff := cmp.Diff([]Password{{Line: 2, Name: "u", Hash: "$argon2id$1$2"}}, users); diff != "" || notes[0].Verdict != NotNeeded {
		t.Error(diff, notes)
	}
}

func FuzzPasswords(f *testing.F) {
	data, err := os.ReadFile("testdata/passwd")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		users, notes, err := ParsePasswords("p", data)
		if err == nil && len(users) > len(notes) {
			t.Error("a user without a note")
		}
	})
}
