package direct

import (
	"fmt"
	"io"
	"net"
	"os"
)

// Carry carries bytes between a connection to a store and the streams of who uses it, and
// returns when the connection has ended. When the input ends the builder is told, which
// ends the connection soon.
//
// It leaves a read of the input behind, for nothing can end that: the process is to end.
func Carry(conn net.Conn, in io.Reader, out io.Writer) error {
	for _, stream := range []any{in, out} {
		if f, ok := stream.(*os.File); ok {
			widen(f)
		}
	}
	input := make(chan struct{}) // closed when it has ended
	go func() {
		err := pump(conn, in)
		close(input)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil && half.CloseWrite() == nil {
			return
		}
		conn.Close()
	}()
	err := pump(out, conn)
	if err == nil || closed(input) { // it ended first: an error is but its echo
		return nil
	}
	return fmt.Errorf("connection to the builder: %w", err)
}
