// Package unixsock listens on unix sockets whose files are never too open and outlive
// nobody: what a dead process left is replaced, what is served or is no socket is not.
package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// dialWait bounds the question whether somebody serves a socket that is there already.
const dialWait = time.Second

// Listen listens at path. The socket is open to its owner and to the group gid, mode 0660;
// if gid is negative, to its owner alone, mode 0600. Closing the listener removes the file.
//
// The socket is made under another name, gets its owner and mode there and is moved into
// place: at its path it is never more open than that.
func Listen(path string, gid int) (net.Listener, error) {
	ln, err := listen(path, gid)
	if err != nil {
		return nil, fmt.Errorf("listen on a socket: %w", err)
	}
	return &listener{Listener: ln, path: path}, nil
}

func listen(path string, gid int) (_ net.Listener, err error) {
	if err := removeDead(path); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(filepath.Dir(path), ".s-") // 0700; a socket's path has little room
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	temp := filepath.Join(private, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // the file is elsewhere by then
	mode := fs.FileMode(0o600)
	if gid >= 0 {
		mode = 0o660
		err = os.Chown(temp, -1, gid)
	}
	if err = errors.Join(err, os.Chmod(temp, mode)); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// removeDead takes a socket away that nobody serves any more. A path that is something
// else, or is served, is an error.
func removeDead(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way and is not a socket", path)
	}
	if conn, err := net.DialTimeout("unix", path, dialWait); err == nil {
		conn.Close()
		return fmt.Errorf("%s: another process serves it", path)
	}
	return os.Remove(path)
}

// listener removes its socket file when it is closed.
type listener struct {
	net.Listener
	path string
}

func (l *listener) Close() error {
	os.Remove(l.path)
	return l.Listener.Close()
}
