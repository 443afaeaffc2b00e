package history

// account is the state of one user.
type account struct {
	exists, disabled bool
	secret           string
}

// change and login are inputs of an account; known tells whether the change was
// said to be done.
type change struct {
	verb, secret string
	known        bool
}
type login struct {
	secret string
	in     bool
}

// judgeUsers judges that changes of users and logins are linearizable, user by
// user: once a change is done no node takes the old password any more.
func (c *check) judgeUsers() {
	type key struct {
		history string
		seq     int
	}
	open := map[key]Event{}
	byUser := map[string][]*operation{}
	var users []string
	add := func(user string, o *operation) {
		if byUser[user] == nil {
			users = append(users, user)
		}
		byUser[user] = append(byUser[user], o)
	}
	for _, e := range c.events {
		k := key{e.History, e.Seq}
		switch e.Kind {
		case UserAsked, LoginAsked:
			open[k] = e
		case UserDone:
			asked := open[k]
			delete(open, k)
			o := &operation{call: asked.At, done: e.At, input: change{asked.Note, asked.Secret, e.Reason == 0}, shows: []Event{asked, e}}
			if e.Reason != 0 {
				o.done, o.maybe = forever, true
			}
			add(e.User, o)
		case LoginDone:
			asked := open[k]
			delete(open, k)
			if in, told := verdict(e.Reason); told {
				c.report.Stats.UserReads++
				add(e.User, &operation{call: asked.At, done: e.At, read: true, input: login{asked.Secret, in}, shows: []Event{asked, e}})
			}
		}
	}
	for _, e := range c.events { // of changes that were under way at the end
		if asked, is := open[key{e.History, e.Seq}]; is && e.Kind == UserAsked && asked.At == e.At {
			add(e.User, &operation{call: e.At, done: forever, maybe: true, input: change{e.Note, e.Secret, false}, shows: []Event{e}})
		}
	}
	for _, u := range users {
		c.judgeRegister(RuleUsers, "user "+u, register{initial: account{}, step: stepAccount}, byUser[u])
	}
}

// verdict tells whether a CONNACK says that the password is right, or wrong; told
// is false if it says something else, such as that the node has no lease.
func verdict(reason byte) (in, told bool) {
	switch reason {
	case 0:
		return true, true
	case 0x04, 0x05, 0x86, 0x87, 0x8a: // 3.1.1: bad user name or password, not authorized; the same and banned
		return false, true
	}
	return false, false
}

func stepAccount(state, input any) []any {
	a := state.(account)
	switch in := input.(type) {
	case login:
		if in.in == (a.exists && !a.disabled && a.secret == in.secret) {
			return []any{a}
		}
		return nil
	case change:
		next, ok := a.after(in)
		if ok || !in.known {
			return []any{next}
		}
	}
	return nil
}

// after is the account after a change, the same if it cannot be.
func (a account) after(c change) (next account, ok bool) {
	if c.verb == "add" {
		if a.exists {
			return a, false
		}
		return account{exists: true, secret: c.secret}, true
	}
	if !a.exists {
		return a, false
	}
	switch c.verb {
	case "passwd":
		a.secret = c.secret
	case "disable":
		a.disabled = true
	case "enable":
		a.disabled = false
	case "rm":
		a = account{}
	}
	return a, true
}
