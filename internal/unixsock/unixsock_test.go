package unixsock_test

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/unixsock"
)

func TestListen(t *testing.T) {
	for _, test := range []struct {
		name string
		gid  int
		want fs.FileMode
	}{
		{"for its owner", -1, 0o600},
		{"for a group", os.Getgid(), 0o660},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "s")
			ln, err := unixsock.Listen(path, test.gid)
			if err != nil {
				t.Fatal(err)
			}
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, fi.Mode().Perm()); diff != "" {
				t.Errorf("mode (-want +got):\n%s", diff)
			}
			if conn, err := net.Dial("unix", path); err != nil {
				t.Error(err)
			} else {
				conn.Close()
			}
			if err := ln.Close(); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestWhatIsInTheWay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := unixsock.Listen(file, -1); err == nil {
		t.Error("a file was taken for a socket")
	}
	if text, _ := os.ReadFile(file); string(text) != "precious" {
		t.Error("the file is gone")
	}

	served := filepath.Join(dir, "served")
	first, err := unixsock.Listen(served, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := unixsock.Listen(served, -1); err == nil {
		t.Error("a socket in use was taken over")
	}

	path := filepath.Join(dir, "dead")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	second, err := unixsock.Listen(path, -1)
	if err != nil {
		t.Fatalf("a dead socket: %v", err)
	}
	second.Close()
}
