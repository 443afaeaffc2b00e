package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/google/go-cmp/cmp"
)

// serveSession accepts one connection, resumes a session that is owed messages
// one to five, and returns what the client sent after its CONNECT.
func serveSession(listener net.Listener, qos byte) (sent []string, err error) {
	conn, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := packets.ReadPacket(conn); err != nil {
		return nil, err
	}
	ack := packets.NewControlPacket(packets.CONNACK)
	ack.Content.(*packets.Connack).SessionPresent = true
	if _, err := ack.WriteTo(conn); err != nil {
		return nil, err
	}
	for i, word := range []string{"one", "two", "three", "four", "five"} {
		p := packets.NewControlPacket(packets.PUBLISH)
		publish := p.Content.(*packets.Publish)
		publish.Topic, publish.QoS, publish.PacketID, publish.Payload = "t", qos, uint16(i+1), []byte(word)
		if _, err := p.WriteTo(conn); err != nil {
			return nil, err
		}
	}
	for {
		p, err := packets.ReadPacket(conn)
		if errors.Is(err, io.EOF) {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
		switch p.Type {
		case packets.SUBSCRIBE:
			ack := packets.NewControlPacket(packets.SUBACK)
			ack.Content.(*packets.Suback).PacketID = p.PacketID()
			ack.Content.(*packets.Suback).Reasons = []byte{1}
			if _, err := ack.WriteTo(conn); err != nil {
				return sent, err
			}
			continue // its place among the others is open
		case packets.PINGREQ:
			continue // the library's, at once
		case packets.DISCONNECT:
			return append(sent, "DISCONNECT"), nil
		}
		sent = append(sent, p.PacketType()+" "+strconv.Itoa(int(p.PacketID())))
	}
}

// With -C, the messages that were printed are acknowledged, all of them, before
// the goodbye, and no others: those stay in the session.
func TestSubAcknowledgesWhatItPrinted(t *testing.T) {
	for _, test := range []struct {
		qos, ack string
	}{{"1", "PUBACK"}, {"2", "PUBREC"}} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		type outcome struct {
			sent []string
			err  error
		}
		ended := make(chan outcome, 1)
		go func() {
			sent, err := serveSession(listener, test.qos[0]-'0')
			ended <- outcome{sent, err}
		}()
		var out, errs bytes.Buffer
		app := &App{In: strings.NewReader(""), Out: &out, Err: &errs}
		port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
		code := app.Main(t.Context(), []string{"sub", "-h", "127.0.0.1", "-p", port, "--plaintext", "-i", "x", "-c", "-t", "t", "-q", test.qos, "-C", "2"})
		if code != 0 || out.String() != "one\ntwo\n" {
			t.Errorf("exit code %d, %q, %s", code, out.String(), errs.String())
		}
		got := <-ended
		if got.err != nil {
			t.Error(got.err)
		}
		if diff := cmp.Diff([]string{test.ack + " 1", test.ack + " 2", "DISCONNECT"}, got.sent); diff != "" {
			t.Errorf("QoS %s: %s", test.qos, diff)
		}
	}
}
