package auth

import (
	"fmt"
	"slices"
	"strings"
)

// CertFields are the names in a client's certificate that rules may use. Of a field
// that is there more than once it is the first.
type CertFields struct {
	CN  string // common name
	O   string // organization
	OU  string // organizational unit
	DNS string // subject alternative name of type DNS
}

// The placeholders that are written with a name, %{NAME}.
const (
	placeCN  = "cert.cn"
	placeO   = "cert.o"
	placeOU  = "cert.ou"
	placeDNS = "cert.san.dns"
)

// validPlaceholder tells whether %{name} may be in a rule.
func validPlaceholder(name string) error {
	all := []string{placeCN, placeO, placeOU, placeDNS}
	if slices.Contains(all, name) {
		return nil
	}
	return fmt.Errorf("placeholder %%{%.40s} is unknown: write %%u, %%c or one of %%{%s}", name, strings.Join(all, "}, %{"))
}

// Named tells whether the rule has a placeholder with a name, which members of a
// feature level below 7 do not know.
func (r Rule) Named() bool { return strings.Contains(r.Filter, "%{") }

// checkPlaceholders refuses names that mean nothing, so that a slip of the pen is
// not a rule that never matches.
func checkPlaceholders(filter string) error {
	for rest := filter; ; {
		_, after, found := strings.Cut(rest, "%{")
		if !found {
			return nil
		}
		name, behind, closed := strings.Cut(after, "}")
		if !closed {
			return fmt.Errorf("placeholder %%{%.40s has no }: write it, such as %%{%s}", after, placeCN)
		}
		if err := validPlaceholder(name); err != nil {
			return err
		}
		rest = behind
	}
}

func hasPlaceholder(filter string) bool {
	return strings.Contains(filter, "%u") || strings.Contains(filter, "%c") || strings.Contains(filter, "%{")
}

// stands returns what stands for the placeholder that text begins with, and how
// long that is; 0 if it begins with none.
func (w *Who) stands(text string) (place, what, value string, length int) {
	switch {
	case strings.HasPrefix(text, "%u"):
		return "%u", "user name", w.User, 2
	case strings.HasPrefix(text, "%c"):
		return "%c", "client id", w.ClientID, 2
	}
	name, found := strings.CutPrefix(text, "%{")
	if !found {
		return "", "", "", 0
	}
	name, _, closed := strings.Cut(name, "}")
	if !closed {
		return "", "", "", 0
	}
	place, length = "%{"+name+"}", len(name)+3
	switch name {
	case placeCN:
		return place, "common name of the certificate", w.Cert.CN, length
	case placeO:
		return place, "organization in the certificate", w.Cert.O, length
	case placeOU:
		return place, "organizational unit in the certificate", w.Cert.OU, length
	case placeDNS:
		return place, "DNS name in the certificate", w.Cert.DNS, length
	}
	return "", "", "", 0
}

// expand puts what a client is called in place of the placeholders. never says why
// the result matches nothing.
func expand(filter string, w *Who) (_, never string) {
	if !strings.Contains(filter, "%") {
		return filter, ""
	}
	var b strings.Builder
	// One pass, so that a name that contains %c stays what it is.
	for rest := filter; rest != ""; {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			b.WriteString(rest)
			break
		}
		b.WriteString(rest[:i])
		place, what, value, length := w.stands(rest[i:])
		if length == 0 {
			b.WriteByte('%')
			rest = rest[i+1:]
			continue
		}
		if never = unusable(place, what, value); never != "" {
			return "", never
		}
		b.WriteString(value)
		rest = rest[i+length:]
	}
	out := b.String()
	if out[0] == '$' && filter[0] != '$' {
		// Otherwise a client id would open $SYS.
		return "", "a name that begins with $ never stands at the beginning of a filter"
	}
	return out, ""
}

func unusable(placeholder, what, name string) string {
	switch {
	case name == "":
		return "the " + what + " for " + placeholder + " is empty"
	case strings.ContainsAny(name, "/+#\x00"):
		return "a " + what + " with /, + or # in it never stands for " + placeholder
	}
	return ""
}
