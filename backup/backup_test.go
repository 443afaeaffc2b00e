package backup_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/backup"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/proto"
)

var header = backup.Header{
	ClusterID: "0123456789abcdef", ClusterName: "park", Node: "a", Version: "v1.2.3", Level: 2, Index: 42,
	LogTime: time.UnixMilli(1_700_000_000_000).UTC(), Taken: time.Unix(1_700_000_001, 0).UTC(), Nodes: []string{"a", "b"},
}

// records are a small state, in order.
func records(t testing.TB) (out [][2][]byte) {
	t.Helper()
	add := func(k string, m proto.Message) {
		v, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, [2][]byte{[]byte(k), v})
	}
	out = append(out,
		[2][]byte{[]byte("Mapplied"), binary.BigEndian.AppendUint64(nil, 42)},
		[2][]byte{[]byte("Mstamp"), binary.BigEndian.AppendUint64(nil, 1_700_000_000_000)})
	add("auser:dev1", &logpb.Acl{Subject: "user:dev1", Rules: []*logpb.Rule{{Allow: true, Action: 3, Filter: "#"}}})
	add("m\x00\x00\x00\x00\x00\x00\x00\x01", &logpb.Message{Topic: "t", Payload: bytes.Repeat([]byte("large"), 45_000), Qos: 1})
	add("sdev1", &logpb.Session{Client: "dev1", Incarnation: 7, Owner: "a", Will: &logpb.Will{Topic: "w"}})
	add("udev1", &logpb.User{Name: "dev1"})
	return out
}

// stream is those records as a stream.
func stream(t testing.TB) []byte {
	t.Helper()
	return streamOf(t, records(t))
}

func streamOf(t testing.TB, records [][2][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, header)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := w.Put(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.PutCA(backup.CA{Cert: []byte("cert"), Key: []byte("key")}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.End(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// shortRecords are records without the large one.
func shortRecords(t testing.TB) [][2][]byte {
	t.Helper()
	return slices.DeleteFunc(records(t), func(r [2][]byte) bool { return len(r[1]) > 1000 })
}

func seal(t testing.TB, data []byte) ([]byte, backup.Key) {
	t.Helper()
	secret, recipient, err := backup.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	to, err := backup.Recipient(recipient)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := backup.Seal(&out, to)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := backup.SecretKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), key
}

// open reads a file whole.
func open(file []byte, key backup.Key, put func(k, v []byte) error) (*backup.Whole, error) {
	r, err := key.Open(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	return backup.Read(r, put)
}

func TestRoundTrip(t *testing.T) {
	file, key := seal(t, stream(t))
	var got [][2][]byte
	whole, err := open(file, key, func(k, v []byte) error {
		got = append(got, [2][]byte{bytes.Clone(k), bytes.Clone(v)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(records(t), got); d != "" {
		t.Error(d)
	}
	want := header
	want.Format = backup.Format
	if d := cmp.Diff(want, whole.Header); d != "" {
		t.Error(d)
	}
	c := whole.Contents
	if c.Users != 1 || c.ACLs != 1 || c.Sessions != 1 || c.Connected != 1 || c.Wills != 1 || c.Messages != 1 || c.Records != 6 {
		t.Errorf("contents: %+v", c)
	}
	if whole.CA == nil || string(whole.CA.Key) != "key" {
		t.Errorf("CA: %v", whole.CA)
	}
}

// Every byte of a file counts, and so does its end.
func TestDamagedFileIsRefused(t *testing.T) {
	file, key := seal(t, stream(t))
	if len(file) < 3*64<<10 {
		t.Fatalf("the file of %d bytes has no three chunks", len(file))
	}
	// Every byte of the head and of the ends of chunks, and some of what is between.
	for at := range file {
		if at > 400 && at%4099 != 0 && len(file)-at > 100 {
			continue
		}
		bad := bytes.Clone(file)
		bad[at] ^= 1 << (at % 8)
		if _, err := open(bad, key, nil); err == nil {
			t.Fatalf("byte %d of %d was flipped and nobody saw it", at, len(file))
		}
		if _, err := open(file[:at], key, nil); err == nil {
			t.Fatalf("%d bytes of %d were taken for a whole file", at, len(file))
		}
	}
	if _, err := open(append(bytes.Clone(file), 0), key, nil); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("a byte more: %v", err)
	}
	_, other := seal(t, nil)
	if _, err := open(file, other, nil); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("another key: %v", err)
	}
}

// A stream that was cut in the clear, before it was encrypted, is no backup.
func TestCutStreamIsRefused(t *testing.T) {
	whole := stream(t)
	for at := 0; at < len(whole); at += 1 + at/50 {
		if _, err := backup.Read(bytes.NewReader(whole[:at]), nil); !errors.Is(err, backup.ErrDamaged) {
			t.Fatalf("%d bytes of %d: %v", at, len(whole), err)
		}
	}
	for _, tt := range []struct{ name, from, to, want string }{
		{"another format", `"format":1`, `"format":2`, "format 2"},
		{"a newer level", `"feature_level":2`, `"feature_level":9`, "feature level 9"},
		{"another count", `"users":1`, `"users":2`, "what its end says"},
	} {
		bad := bytes.Replace(whole, []byte(tt.from), []byte(tt.to), 1)
		if bytes.Equal(bad, whole) {
			t.Fatalf("%s: %s is not in the stream", tt.name, tt.from)
		}
		if _, err := backup.Read(bytes.NewReader(bad), nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestPassphrase(t *testing.T) {
	to, err := backup.Passphrase([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := backup.Seal(&file, to)
	if err == nil {
		_, err = w.Write(stream(t))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	for phrase, ok := range map[string]bool{"correct horse": true, "battery staple": false} {
		key, err := backup.PassphraseKey([]byte(phrase))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(file.Bytes(), key, nil); (err == nil) != ok {
			t.Errorf("%s: %v", phrase, err)
		}
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cluster.mqb")
	write := func(text string, err error) error {
		_, got := backup.WriteFile(path, func(w io.Writer) error {
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
			return err
		})
		return got
	}
	there := func(want string) {
		t.Helper()
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(path)
		if want == "" && len(names) != 0 || want != "" && (len(names) != 1 || string(got) != want) {
			t.Errorf("there is %v with %q, want %q", names, got, want)
		}
	}
	broken := errors.New("broken")
	if err := write("half", broken); !errors.Is(err, broken) {
		t.Errorf("an error of the writer: %v", err)
	}
	there("")
	if err := write("whole", nil); err != nil {
		t.Fatal(err)
	}
	there("whole")
	if err := write("half", broken); !errors.Is(err, broken) {
		t.Errorf("an error of the writer: %v", err)
	}
	there("whole") // the one before stays
}

func FuzzRead(f *testing.F) {
	whole := stream(f)
	f.Add(streamOf(f, shortRecords(f))) // so that mutations reach what is inside
	f.Add(whole[:400])
	f.Fuzz(func(t *testing.T, data []byte) {
		n := uint64(0)
		got, err := backup.Read(bytes.NewReader(data), func(_, _ []byte) error { n++; return nil })
		if err == nil && got.Contents.Records != n {
			t.Errorf("%d records, told %d", n, got.Contents.Records)
		}
	})
}

// The bytes of format 1 are read for ever. UPDATE_GOLDEN=1 writes them while the
// format is not released.
func TestGoldenStream(t *testing.T) {
	path := filepath.Join("testdata", "v1", "stream")
	short := streamOf(t, shortRecords(t))
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, short, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := backup.Read(bytes.NewReader(want), nil)
	if err != nil || whole.Contents.Records != 5 || whole.Index != 42 {
		t.Errorf("%+v %v", whole, err)
	}
	if whole != nil && whole.Level == header.Level && !bytes.Equal(want, short) {
		t.Error("this version writes format 1 in another way")
	}
}
