package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// The program's parts on the hosts: one sends bytes to whoever connects, the other takes
// them and says how long that took. It is the least that a copy over this link can cost.
const (
	pourRole  = "pour"  // pour ADDRESS BYTES
	drainRole = "drain" // drain ADDRESS
	pourPort  = "9999"
)

// playRole plays the part that the arguments name, if they do, and returns its exit status.
func playRole(args []string) (status int, played bool) {
	var err error
	switch {
	case len(args) == 3 && args[0] == pourRole:
		err = pour(args[1], args[2])
	case len(args) == 2 && args[0] == drainRole:
		err = drain(args[1])
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		return 1, true
	}
	return 0, true
}

func pour(address, bytes string) error {
	n, err := strconv.ParseInt(bytes, 10, 64)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	fmt.Println("listening")
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	block := make([]byte, 256<<10)
	for n > 0 {
		m, err := conn.Write(block[:min(n, int64(len(block)))])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

func drain(address string) error {
	conn, err := net.DialTimeout("tcp", address, 30*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	began := time.Now()
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 256<<10)); err != nil {
		return err
	}
	fmt.Println(time.Since(began).Seconds())
	return nil
}

// throughput lets bytes come from a builder to the coordinator, and returns how long that
// took and what CPU the coordinator had for it.
func (c *cluster) throughput(ctx context.Context, host string, bytes int64) (wall, cpu time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	address, err := c.address(ctx, host)
	if err != nil {
		return 0, 0, err
	}
	source := c.Host(host).Command(ctx, "benchnix", pourRole, net.JoinHostPort(address, pourPort), strconv.FormatInt(bytes, 10))
	out, err := source.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := source.Start(); err != nil {
		return 0, 0, err
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		return 0, 0, errors.Join(fmt.Errorf("no source on %s: %w", host, err), source.Wait())
	}
	sink := c.coordinator().Command(ctx, "benchnix", drainRole, net.JoinHostPort(address, pourPort))
	c.bed.ledger.place(sink)
	before, err := c.bed.ledger.cpu()
	if err != nil {
		return 0, 0, err
	}
	text, err := testbed.Output(sink)
	if err != nil {
		return 0, 0, fmt.Errorf("take bytes from %s: %w", host, err)
	}
	after, err := c.bed.ledger.cpu()
	if err != nil {
		return 0, 0, err
	}
	seconds, err := strconv.ParseFloat(text, 64)
	return time.Duration(seconds * float64(time.Second)), after - before, errors.Join(err, source.Wait())
}
