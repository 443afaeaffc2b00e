package main

import (
	"errors"
	"fmt"

	"github.com/eclipse/paho.golang/paho"
	"github.com/xdg-go/scram"
)

// methodScram is the one method of enhanced authentication that pub and sub know.
const methodScram = "SCRAM-SHA-256"

// scramLogin is one login: broker and client prove to each other that they know the
// password, and neither tells it.
type scramLogin struct {
	conv *scram.ClientConversation
	err  error
}

func newScramLogin(user string, password []byte) (*scramLogin, error) {
	client, err := scram.SHA256.NewClient(user, string(password), "")
	if err != nil {
		return nil, fmt.Errorf("user name or password have characters that %s does not allow: %w", methodScram, err)
	}
	return &scramLogin{conv: client.NewConversation()}, nil
}

// first is the data of the CONNECT.
func (l *scramLogin) first() ([]byte, error) {
	text, err := l.conv.Step("")
	return []byte(text), err
}

// Authenticate implements paho.Auther: it answers the broker's challenge.
func (l *scramLogin) Authenticate(a *paho.Auth) *paho.Auth {
	answer := &paho.Auth{ReasonCode: 0x18, Properties: &paho.AuthProperties{AuthMethod: methodScram}}
	if l.err != nil || a.Properties == nil {
		return answer
	}
	text, err := l.conv.Step(string(a.Properties.AuthData))
	if err != nil {
		l.err = err // and the broker refuses what is empty
		return answer
	}
	answer.Properties.AuthData = []byte(text)
	return answer
}

// Authenticated implements paho.Auther.
func (l *scramLogin) Authenticated() {}

// judge tells whether the broker has proved that it knows the password, too.
func (l *scramLogin) judge(ack *paho.Connack) error {
	if ack.Properties == nil {
		return errImpostor
	}
	if _, err := l.conv.Step(string(ack.Properties.AuthData)); err != nil || !l.conv.Valid() {
		return errImpostor
	}
	return nil
}

var errImpostor = errors.New("the broker did not prove that it knows the password: somebody may be in its place")
