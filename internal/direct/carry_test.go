package direct_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/direct"
)

func TestCarry(t *testing.T) {
	r := serve(t, "exec cat")
	sent := random(3 << 20)
	var out bytes.Buffer
	if err := direct.Carry(r.connect(), bytes.NewReader(sent), &out); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sent, out.Bytes()) {
		t.Errorf("%d bytes came back of %d, or others", out.Len(), len(sent))
	}
}

// When the builder ends, nobody waits for the input to.
func TestCarryEndsWithTheBuilder(t *testing.T) {
	r := serve(t, "echo farewell")
	in, never, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer never.Close()
	defer in.Close()
	var out bytes.Buffer
	if err := direct.Carry(r.connect(), in, &out); err != nil || out.String() != "farewell\n" {
		t.Errorf("it said %q, %v", out.String(), err)
	}
}

func TestCarryTellsOfAReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = io.ReadFull(conn, make([]byte, 1))
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := io.WriteString(other, "x"); err != nil {
		t.Fatal(err)
	}
	if err := direct.Carry(conn, in, io.Discard); err == nil {
		t.Error("a reset connection ended well")
	}
}

// What a store sends, through both ends of the transport, against what the kernel can do
// between the same pipes and sockets.
func BenchmarkPump(b *testing.B) {
	const size = 256 << 20
	r := serve(b, "exec head -c 268435456 /dev/zero")
	for name, carry := range map[string]func(net.Conn, io.Writer) error{
		"blocks": func(c net.Conn, w io.Writer) error { return direct.Carry(c, blocked(b), w) },
		"io.Copy": func(c net.Conn, w io.Writer) error {
			_, err := io.Copy(w, c) // splice
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				out, in, err := os.Pipe()
				if err != nil {
					b.Fatal(err)
				}
				read := make(chan int64, 1)
				go func() {
					n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{out}, make([]byte, 256<<10))
					read <- n
				}()
				conn := r.connect()
				if err := carry(conn, in); err != nil {
					b.Fatal(err)
				}
				conn.Close()
				in.Close()
				if n := <-read; n != size {
					b.Fatalf("%d bytes came", n)
				}
				out.Close()
			}
		})
	}
}

// BenchmarkConnect is what a build waits for until its store answers.
func BenchmarkConnect(b *testing.B) {
	for name, spare := range map[string]int{"none": 0, "spare": 4} {
		b.Run(name, func(b *testing.B) {
			r := serve(b, "exec cat", func(c *direct.Config) { c.Spare = spare })
			for b.Loop() {
				conn := r.connect()
				if err := exchange(conn, []byte("x")); err != nil {
					b.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}

// blocked is an input that says nothing.
func blocked(b *testing.B) io.Reader {
	in, other, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); other.Close() })
	return in
}

// A builder that has gone without a word is found by the kernel; one that goes in words is
// found at once.
func TestCarryEndsWithAFence(t *testing.T) {
	r := serve(t, stubborn)
	conn := r.connect()
	ids := processes(t, conn)
	done := make(chan error, 1)
	in, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() { done <- direct.Carry(conn, in, io.Discard) }()
	r.Fence("the test says so")
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("a fence is not noticed")
	}
	gone(t, ids)
}
