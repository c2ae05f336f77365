package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// event is one of an event stream, as it came.
type event struct{ id, kind, data string }

// stream is curl that reads the event stream.
type stream struct {
	cmd  *exec.Cmd
	body *bufio.Reader
}

// listen opens the event stream; args are more of curl's. It is closed with the test.
func (c caller) listen(t *testing.T, args ...string) *stream {
	t.Helper()
	argv := append([]string{"curl", "-sS", "--fail-with-body", "--no-buffer"}, args...)
	cmd := c.host.CommandAs(within(t, 3*patience), testbed.Runner, append(argv, c.base+"/events")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &stream{cmd, bufio.NewReader(out)}
}

// next waits for an event. io.EOF says that the server has ended the stream well.
func (s *stream) next() (event, error) {
	var e event
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			if failed := s.cmd.Wait(); failed != nil {
				err = fmt.Errorf("curl: %w", failed)
			}
			return e, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.kind = value
		case "data":
			e.data = value
		case "":
			if e.kind != "" {
				return e, nil
			}
		}
	}
}

// rest are the events up to the end of the stream.
func (s *stream) rest(t *testing.T) (all []apiclient.Event) {
	t.Helper()
	for {
		e, err := s.next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatalf("the event stream broke: %v", err)
		}
		all = append(all, decode[apiclient.Event](t, []byte(e.data)))
	}
}

// close ends curl.
func (s *stream) close() {
	_ = s.cmd.Cancel()
	_ = s.cmd.Wait()
}
