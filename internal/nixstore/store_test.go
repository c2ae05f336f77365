package nixstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nixstore"
)

// A store goes on after its daemon was restarted, and many may ask at a time.
func TestStore(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var conns atomic.Int32
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() { _, _ = io.Copy(io.Discard, nc) }()
			_, _ = nc.Write(bytes.Join([][]byte{hello(35), info(), say(last, 0)}, nil))
			_ = nc.(*net.UnixConn).CloseWrite()
		}
	}()
	s := &nixstore.Store{Socket: socket}
	defer s.Close()
	for i := range 3 {
		if ok, err := s.Valid(t.Context(), path); !ok || err != nil {
			t.Fatalf("%d: %v, %v", i, ok, err)
		}
		if ok, err := s.Valid(t.Context(), path); ok || err != nil {
			t.Fatalf("%d: an invalid path is %v, %v", i, ok, err)
		}
	}
	if n := conns.Load(); n != 3 {
		t.Errorf("it connected %d times, want 3", n)
	}
	ln.Close()
	if _, err := s.PathInfo(t.Context(), path); err == nil {
		t.Error("nobody listens, and it has an answer")
	}
}

// Somebody waits for a daemon that is silent. Others don't wait longer than they want to, and
// the next who asks has an answer.
func TestStoreTakesTurns(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	silent := make(chan struct{}) // closed once somebody waits
	go func() {
		for first := true; ; first = false {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			if first {
				_, _ = io.ReadFull(nc, make([]byte, 8))
				close(silent)
			} else {
				_, _ = nc.Write(bytes.Join([][]byte{hello(35), info()}, nil))
			}
			go func() { _, _ = io.Copy(io.Discard, nc) }()
		}
	}()
	s := &nixstore.Store{Socket: socket}
	defer s.Close()

	why := errors.New("lost patience")
	ctx, lose := context.WithCancelCause(t.Context())
	waits := make(chan error, 1)
	go func() {
		_, err := s.PathInfo(ctx, path)
		waits <- err
	}()
	<-silent
	another, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := s.PathInfo(another, path); !errors.Is(err, why) {
		t.Errorf("another has given up, and gets %v", err)
	}
	select {
	case err := <-waits:
		t.Fatalf("another waited for the first, who got %v", err)
	default:
	}
	lose(why)
	if err := <-waits; !errors.Is(err, why) {
		t.Errorf("the first has given up, and gets %v", err)
	}
	if _, err := s.PathInfo(t.Context(), path); err != nil {
		t.Errorf("the next gets %v", err)
	}
}

// A store that was closed, or never used, makes a connection when it is needed.
func TestStoreCloses(t *testing.T) {
	s := &nixstore.Store{Socket: filepath.Join(t.TempDir(), "none")}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Outputs(t.Context(), path); err == nil {
		t.Error("nobody listens, and it has an answer")
	}
}
