package mosquitto

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// Password is a user of a password file.
type Password struct {
	Line int
	Name string
	// Hash is as the file has it: $6$SALT$SUM, $7$ITERATIONS$SALT$SUM or $argon2id$….
	Hash string
}

// The sizes of what mosquitto hashes.
const (
	sumLen        = 64 // SHA-512, in bytes
	maxSalt       = 64 // bytes
	maxIterations = 1_000_000
)

// ParsePasswords reads a password file. Of a name that comes twice the last entry
// counts, as for mosquitto. A line that is no user is in the notes and nowhere
// else; an error is about the whole file.
func ParsePasswords(file string, data []byte) ([]Password, []Note, error) {
	if err := bounded(file, data); err != nil {
		return nil, nil, err
	}
	var out []Password
	var notes []Note
	at := map[string]int{}     // of names in out
	noteAt := map[string]int{} // of their notes
	for n, line := range lines(data) {
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		name, hash, _ := strings.Cut(line, ":")
		hash = strings.TrimSpace(hash)
		name = strings.TrimSpace(name)
		// The hash stays out of the report.
		text := name + ":" + hashKind(hash)
		if len(line) > maxLine {
			notes = append(notes, noted(file, n, text, NotSupported, fmt.Sprintf("the line is longer than %d bytes: add this user with mqcluster user add", maxLine)))
			continue
		}
		if why := unusableHash(name, hash); why != "" {
			notes = append(notes, noted(file, n, text, NotSupported, why))
			continue
		}
		p := Password{Line: n, Name: name, Hash: hash}
		if i, twice := at[name]; twice {
			notes[noteAt[name]].Verdict, notes[noteAt[name]].Why = NotNeeded, fmt.Sprintf("line %d has the same user, and the last one counts", n)
			out[i] = p
		} else {
			at[name] = len(out)
			out = append(out, p)
		}
		noteAt[name] = len(notes)
		notes = append(notes, noted(file, n, text, Taken, "the same password goes on working and is hashed with argon2id at the next login"))
	}
	return out, notes, nil
}

// hashKind names the form of a hash, for the report.
func hashKind(hash string) string {
	if hash == "" {
		return "(no password)"
	}
	if rest, ok := strings.CutPrefix(hash, "$"); ok {
		if kind, _, more := strings.Cut(rest, "$"); more && len(kind) < 16 {
			return "$" + kind + "$…"
		}
	}
	return "(plain text)"
}

// unusableHash says why an entry cannot be taken, or "".
func unusableHash(name, hash string) string {
	switch {
	case name == "":
		return "the user name is empty: add the user under a name with mqcluster user add"
	case hash == "":
		return "it has no password, and mosquitto does not let it in either: give it one with mqcluster user add"
	case hash[0] != '$':
		return "the password is plain text, which mosquitto with TLS does not accept either: hash the file with mosquitto_passwd -U and import again"
	}
	if strings.HasPrefix(hash, "$argon2id$") {
		return "" // its parameters are the business of whoever verifies it
	}
	if err := checkHash(hash); err != nil {
		return fmt.Sprintf("%v: set a new password with mqcluster user add", err)
	}
	return ""
}

// checkHash checks the forms of mosquitto itself.
func checkHash(hash string) error {
	parts := strings.Split(hash, "$") // "", kind, …
	var salt, sum string
	switch {
	case len(parts) == 4 && parts[1] == "6":
		salt, sum = parts[2], parts[3]
	case len(parts) == 5 && parts[1] == "7":
		if n, err := strconv.Atoi(parts[2]); err != nil || n < 1 || n > maxIterations {
			return fmt.Errorf("the hash has %.20q iterations, possible are 1 to %d", parts[2], maxIterations)
		}
		salt, sum = parts[3], parts[4]
	default:
		return fmt.Errorf("the hash has a form that is not known")
	}
	if b, err := base64.StdEncoding.DecodeString(salt); err != nil || len(b) == 0 || len(b) > maxSalt {
		return fmt.Errorf("the hash has no salt that can be read")
	}
	if b, err := base64.StdEncoding.DecodeString(sum); err != nil || len(b) != sumLen {
		return fmt.Errorf("the hash is not complete")
	}
	return nil
}
