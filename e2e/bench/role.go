package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// serverRole is the part of a process that is a coordinator and nothing else, so that
// its memory is the coordinator's: bench-server DIR BUILDERS [PROFILE]. It prints the base
// URL of its API and serves until its standard input ends.
const serverRole = "bench-server"

// roles are the parts that this program plays for itself.
func roles() map[string]func(args []string) error {
	return map[string]func([]string) error{serverRole: serve, crowdRole: playCrowd}
}

// playRole plays the part that the arguments name, if they do, and returns its exit status.
func playRole(args []string) (status int, played bool) {
	if len(args) == 0 {
		return 0, false
	}
	play, ok := roles()[args[0]]
	if !ok {
		return 0, false
	}
	if err := play(args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		return 1, true
	}
	return 0, true
}

func serve(args []string) error {
	if len(args) < 2 {
		return errors.New("want a directory and a number of builders")
	}
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if len(args) > 2 {
		stop, err := startProfile(args[2])
		if err != nil {
			return err
		}
		defer stop()
	}
	of := pollsCrowd(size)
	l, base, err := listen()
	if err != nil {
		return err
	}
	c, err := coordinate(args[0], of, of.whoIs, nil, l)
	if err != nil {
		return err
	}
	fmt.Println(base)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() { // a line asks for a heap profile
		if len(args) > 2 {
			if err := heapProfile(filepath.Join(args[2], in.Text())); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
	return c.end()
}

func startProfile(dir string) (stop func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, "server-cpu.pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

func heapProfile(file string) error {
	runtime.GC()
	for _, kind := range []string{"heap", "goroutine"} {
		f, err := os.Create(file + "-" + kind + ".pprof")
		if err != nil {
			return err
		}
		if err := errors.Join(pprof.Lookup(kind).WriteTo(f, 0), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// A server is a process that plays serverRole.
type server struct {
	base string
	pid  int
	in   io.WriteCloser
	out  *bufio.Reader
	cmd  *exec.Cmd
}

func startServer(ctx context.Context, dir string, size int, profile string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{serverRole, dir, strconv.Itoa(size)}
	if profile != "" {
		args = append(args, profile)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 10 * time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{pid: cmd.Process.Pid, in: in, out: bufio.NewReader(out), cmd: cmd}
	line, err := s.out.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a server: %w", err), s.end())
	}
	s.base = strings.TrimSpace(line)
	return s, nil
}

// profile makes the server write its heap to the profiles' directory, if there is one.
func (s *server) profile(name string) error {
	if _, err := fmt.Fprintln(s.in, name); err != nil {
		return err
	}
	_, err := s.out.ReadString('\n')
	return err
}

func (s *server) end() error {
	return errors.Join(s.in.Close(), s.cmd.Wait())
}
