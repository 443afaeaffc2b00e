package fsm

import (
	"testing"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"google.golang.org/protobuf/proto"
)

// TestDecodeGolden: the entries of every version are read as the protobuf library
// reads them.
func TestDecodeGolden(t *testing.T) {
	var d decoder
	packs := 0
	for _, l := range readLogs(t, golden("log.bin")) {
		if d.readEntry(l.Data) {
			packs++
		}
		sameEntry(t, &d, l.Data)
	}
	if packs == 0 {
		t.Fatal("no entry was read without the library")
	}
}

func sameEntry(t *testing.T, d *decoder, data []byte) {
	t.Helper()
	var want logpb.Entry
	wantErr := proto.Unmarshal(data, &want)
	var topics routing.Topics[matching]
	got, err := d.decode(data, &topics)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%x: error %v, want %v", data, err, wantErr)
	}
	if err == nil && !proto.Equal(got, &want) {
		t.Fatalf("%x:\n got %v\nwant %v", data, got, &want)
	}
}

// FuzzDecode: any bytes are read as the protobuf library reads them, whatever was
// read before.
func FuzzDecode(f *testing.F) {
	expiry := uint32(7)
	for _, p := range []*logpb.Publish{
		{Client: "c", Epoch: 1 << 40, Topic: "a/b", Payload: []byte("p"), Qos: 2, Retain: true, PacketId: 9, Properties: []byte{1, 1}, Expiry: &expiry},
		{Client: "c", Topic: "ü"}, {},
	} {
		e := &logpb.Entry{Stamp: -1, Command: &logpb.Entry_Pack{Pack: &logpb.Pack{Node: "n", Incarnation: 3, Number: 4, Items: []*logpb.Item{
			{Kind: &logpb.Item_Publish{Publish: p}}, {Kind: &logpb.Item_Rel{Rel: &logpb.Rel{Client: "c"}}}, {},
		}}}}
		data, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, data[:len(data)-1])
		f.Add(append(data, data...), data[2:])
	}
	f.Fuzz(func(t *testing.T, before, data []byte) {
		var d decoder
		_, _ = d.decode(before, new(routing.Topics[matching]))
		sameEntry(t, &d, data)
	})
}
