package identity

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/xdg-go/scram"

	"github.com/mqcluster/mqcluster/auth"
)

func server(t *testing.T, users map[string]string) ScramServer {
	t.Helper()
	keys := map[string]string{}
	for user, password := range users {
		k, err := DeriveScram([]byte(password))
		if err != nil {
			t.Fatal(err)
		}
		keys[user] = k.String()
	}
	return ScramServer{Mock: []byte("0123456789abcdef0123456789abcdef"), Keys: func(user string) string { return keys[user] }}
}

// login runs a whole exchange and returns what the client thinks of it.
func login(t *testing.T, s ScramServer, user, password string) (*Conversation, *scram.ClientConversation, error) {
	t.Helper()
	client, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	cc := client.NewConversation()
	sc, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for {
		text, err := cc.Step(said)
		if err != nil {
			return sc, cc, err
		}
		reply, done, err := sc.Next([]byte(text))
		if err != nil {
			return sc, cc, err
		}
		if said = string(reply); done {
			_, err = cc.Step(said)
			return sc, cc, err
		}
	}
}

func TestScram(t *testing.T) {
	s := server(t, map[string]string{"dev1": "correct horse", "müller": "pässword", "dev,2=": "x"})
	for _, tt := range []struct {
		name, user, password string
		ok                   bool
	}{
		{"right", "dev1", "correct horse", true},
		{"right, not ASCII", "müller", "pässword", true},
		{"right, a name that is escaped", "dev,2=", "x", true},
		{"wrong password", "dev1", "correct horse ", false},
		{"another's password", "dev1", "pässword", false},
		{"unknown user", "nobody", "correct horse", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sc, cc, err := login(t, s, tt.user, tt.password)
			if tt.ok != (err == nil) || tt.ok && (sc.User() != tt.user || !cc.Valid()) {
				t.Errorf("%v: user %q, the client believes the server: %v", err, sc.User(), cc.Valid())
			}
			if !tt.ok && !errors.Is(err, auth.ErrProof) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestScramUnknown: what is said to an unknown user is of the same form as what is
// said to a known one, and the same each time, on every node.
func TestScramUnknown(t *testing.T) {
	s := server(t, map[string]string{"dev1": "x"})
	challenge := func(s ScramServer, user string) (salt string, rest []string) {
		t.Helper()
		c, err := s.Begin()
		if err != nil {
			t.Fatal(err)
		}
		reply, _, err := c.Next([]byte("n,,n=" + user + ",r=clientnonce"))
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(string(reply), ",")
		if len(parts) != 3 {
			t.Fatalf("the challenge is %q", reply)
		}
		return parts[1], []string{parts[0][:len("r=clientnonce")], parts[2]}
	}
	other := server(t, nil) // another node, with the same secret
	s1, r1 := challenge(s, "nobody")
	s2, r2 := challenge(other, "nobody")
	s3, r3 := challenge(s, "somebody")
	k1, rk := challenge(s, "dev1")
	k2, _ := challenge(s, "dev1")
	if s1 != s2 || s1 == s3 || k1 != k2 {
		t.Errorf("salts: unknown %s and %s, another unknown %s, known %s and %s", s1, s2, s3, k1, k2)
	}
	if diff := cmp.Diff([][]string{rk, rk, rk}, [][]string{r1, r2, r3}); diff != "" || len(s1) != len(k1) {
		t.Errorf("the challenges differ in more than the salt: %s", diff)
	}
	s.Mock = []byte("another secret")
	if s4, _ := challenge(s, "nobody"); s4 == s1 {
		t.Error("the salt does not follow from the secret")
	}
}

// TestScramReplay: what a client said in one exchange is worth nothing in another.
func TestScramReplay(t *testing.T) {
	s := server(t, map[string]string{"dev1": "x"})
	client, err := scram.SHA256.NewClient("dev1", "x", "")
	if err != nil {
		t.Fatal(err)
	}
	cc := client.NewConversation()
	first, _ := cc.Step("")
	one, _ := s.Begin()
	reply, _, err := one.Next([]byte(first))
	if err != nil {
		t.Fatal(err)
	}
	final, err := cc.Step(string(reply))
	if err != nil {
		t.Fatal(err)
	}
	if _, done, err := one.Next([]byte(final)); err != nil || !done {
		t.Fatal(done, err)
	}
	two, _ := s.Begin()
	if _, _, err := two.Next([]byte(first)); err != nil {
		t.Fatal(err)
	}
	if _, done, err := two.Next([]byte(final)); done || !errors.Is(err, auth.ErrProof) {
		t.Errorf("a recorded exchange was taken: %v %v", done, err)
	}
	if _, done, err := one.Next([]byte(final)); done || err == nil {
		t.Errorf("an exchange went on after its end: %v %v", done, err)
	}
}

func TestScramNonsense(t *testing.T) {
	s := server(t, map[string]string{"dev1": "x"})
	for _, text := range []string{
		"", "n,,", "n,,n=dev1", "p=tls-unique,,n=dev1,r=abc", "n,a=admin,n=dev1,r=abc", "n,,m=x,n=dev1,r=abc", "\xff", strings.Repeat("x", 5000), "n,,n==,r=abc",
	} {
		c, err := s.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, done, err := c.Next([]byte(text)); done || !errors.Is(err, auth.ErrProof) {
			t.Errorf("%.40q: done %v, %v", text, done, err)
		}
	}
}

func TestScramKeysText(t *testing.T) {
	k, err := DeriveScram([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseScram(k.String())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(k, got); diff != "" {
		t.Error(diff)
	}
	other, _ := DeriveScram([]byte("x"))
	if string(other.Salt) == string(k.Salt) {
		t.Error("two users have one salt")
	}
	for _, bad := range []string{"", "x", strings.Replace(k.String(), "15000", "1", 1), strings.Replace(k.String(), "15000", "99999999", 1), k.String() + "A", k.String()[:90]} {
		if _, err := ParseScram(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := DeriveScram([]byte{0xff, 0xfe}); err == nil {
		t.Error("a password that is no text has keys")
	}
}

func FuzzScram(f *testing.F) {
	f.Add("n,,n=dev1,r=abc", "c=biws,r=abc,p=AAAA")
	f.Add("y,a=dev1,n=dev1,r=abc", "c=eSws,r=abc,p=")
	f.Fuzz(func(t *testing.T, first, final string) {
		s := ScramServer{Mock: []byte("secret"), Keys: func(string) string { return final }}
		c, err := s.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, done, err := c.Next([]byte(first)); err == nil {
			if _, done, err = c.Next([]byte(final)); done || err == nil {
				t.Fatalf("%q and %q proved a user that has no keys", first, final)
			}
		} else if done {
			t.Fatal("done with an error")
		}
	})
}
