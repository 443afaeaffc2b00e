package rawmqtt

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// pair returns a client and the server's side of its connection.
func pair(t *testing.T, version byte) (client, server *Client) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			accepted <- conn
		}
		close(accepted)
	}()
	client, err = Dial(t.Context(), ln.Addr().String(), nil, version)
	if err != nil {
		t.Fatal(err)
	}
	conn, ok := <-accepted
	if !ok {
		t.Fatal("accept failed")
	}
	server = New(conn, 4)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// answer runs f for each packet the server reads until the connection ends.
func answer(server *Client, f func(p *Packet)) {
	go func() {
		for {
			p, err := server.Read(DefaultTimeout)
			if err != nil {
				return
			}
			f(p)
		}
	}()
}

func TestClientSteps(t *testing.T) {
	client, server := pair(t, 5)
	answer(server, func(p *Packet) {
		switch p.Type {
		case CONNECT:
			server.Send(ConnackPacket(server.Version, true, 0))
		case SUBSCRIBE:
			// A message before the SUBACK, in two pieces with it.
			b := Publish{Topic: "a", QoS: 1, ID: 5, Payload: []byte("early")}.Packet(5)
			b = append(b, SubackPacket(5, SUBACK, p.ID, 1)...)
			server.Send(b[:len(b)-3])
			server.Send(b[len(b)-3:])
		case PUBLISH, PUBREL:
			server.Ack(p)
		case PUBACK:
			server.Send(DisconnectPacket(5, 0x8e))
			server.Close()
		}
	})
	ack, err := client.Connect(Connect{ClientID: "c"})
	if err != nil || !ack.SessionPresent {
		t.Fatalf("Connect: %v, %v", ack, err)
	}
	if p, err := client.Subscribe(9, Sub("a", 1)); err != nil || p.Reasons[0] != 1 {
		t.Fatalf("Subscribe: %v, %v", p, err)
	}
	if p, err := client.PublishAcked(Publish{Topic: "x", QoS: 2, ID: 3}); err != nil || p.Type != PUBCOMP {
		t.Fatalf("PublishAcked: %v, %v", p, err)
	}
	early, err := client.Read(time.Second)
	if err != nil || string(early.Payload) != "early" {
		t.Fatalf("Read: %v, %v", early, err)
	}
	if err := client.Ack(early); err != nil {
		t.Fatal(err)
	}
	rest, err := client.AwaitClose(DefaultTimeout)
	if err != nil || len(rest) != 1 || rest[0].Reason != 0x8e {
		t.Fatalf("AwaitClose: %v, %v", rest, err)
	}
	if _, err := client.Read(time.Second); !errors.Is(err, io.EOF) {
		t.Errorf("Read after the end: %v, want EOF", err)
	}
}

func TestTimeoutKeepsWhatCame(t *testing.T) {
	client, server := pair(t, 4)
	frame := Publish{Topic: "a", Payload: []byte("whole")}.Packet(4)
	server.Send(frame[:4])
	if _, err := client.Read(10 * time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Fatalf("Read of half a packet: %v, want ErrTimeout", err)
	}
	server.Send(frame[4:])
	if p, err := client.Read(DefaultTimeout); err != nil || string(p.Payload) != "whole" {
		t.Fatalf("Read: %v, %v", p, err)
	}
}

func TestAutoAck(t *testing.T) {
	client, server := pair(t, 4)
	client.AutoAck = true
	server.Send(Publish{Topic: "a", QoS: 2, ID: 8}.Packet(4))
	if _, err := client.Read(DefaultTimeout); err != nil {
		t.Fatal(err)
	}
	if p, err := server.Await(PUBREC, 8); err != nil {
		t.Fatalf("server: %v, %v", p, err)
	}
}
