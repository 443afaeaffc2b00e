package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// fakeBackups writes parts, and then ends with err.
type fakeBackups struct {
	parts []string
	err   error
	asked BackupRequest
}

func (f *fakeBackups) Backup(_ context.Context, r BackupRequest, w io.Writer) error {
	f.asked = r
	for _, p := range f.parts {
		if _, err := io.WriteString(w, p); err != nil {
			return err
		}
	}
	return f.err
}

// full takes so many bytes.
type full struct{ room int }

var errFull = errors.New("no room")

func (w *full) Write(p []byte) (int, error) {
	if w.room -= len(p); w.room < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// A stream comes whole, or the caller is told why not, wherever it ended.
func TestBackupStream(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 1<<16)
	refused := &Error{Unavailable, "the disk is nearly full: make room"}
	for _, tt := range []struct {
		name  string
		parts []string
		err   error
	}{
		{"whole", []string{"a", large, "b"}, nil},
		{"refused before it begins", nil, refused},
		{"ended early", []string{"a", large}, refused},
		{"ended early by another error", []string{"a"}, errors.New("broken")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeBackups{parts: tt.parts, err: tt.err}
			_, c, _ := open(t, Deps{Backend: Backend{Backups: f}})
			var got bytes.Buffer
			err := c.Backup(t.Context(), BackupRequest{CAKey: true}, &got)
			if (err == nil) != (tt.err == nil) || err != nil && err.Error() != tt.err.Error() {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if !f.asked.CAKey || got.String() != strings.Join(tt.parts, "") {
				t.Errorf("asked %+v, got %d bytes", f.asked, got.Len())
			}
		})
	}
	t.Run("nowhere to write", func(t *testing.T) {
		f := &fakeBackups{parts: []string{large, large}}
		_, c, _ := open(t, Deps{Backend: Backend{Backups: f}})
		if err := c.Backup(t.Context(), BackupRequest{}, &full{1000}); !errors.Is(err, errFull) {
			t.Errorf("error %v", err)
		}
	})
}
