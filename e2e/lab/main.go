// Command lab boots real hosts on this machine and lets one work on them by
// hand: the same hosts, by the same code, as the end-to-end tests use.
//
// Life: each call does one thing and ends; what it starts lives on. The lab's
// state is in the lab's directory and nowhere else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

const usage = `Boots real hosts on this machine: each has its own network, /nix, nix-daemon
and Tailscale programs. They share a switch and a control server (a tailnet of
their own, without an account). Needs Linux and root.

usage: go run ./e2e/lab COMMAND

  prepare                  install what is missing, make the image and build the
                           programs, once; the other commands are fast then
  up [--builders N]        boot "coordinator" and "builder-1" to "builder-N"
     [--suite trixie|sid]  (default 3), in place of a lab of the same name
     [--fake-arm N]        let builder-N pass for aarch64-linux too
     [--bare]              without nix-builders, for when it doesn't build
  exec HOST -- CMD ARG...  run CMD on HOST as root; its exit status is CMD's
     [--user runner]       as an ordinary user, whom Nix does not trust
  join HOST [TAG...]       start the host's tailscaled and log it in, with tags,
                           serving Tailscale SSH; without, as a person's node
  status                   the hosts and the nodes of the tailnet
  nodes                    the nodes of the tailnet, as JSON
  policy [FILE]            show the tailnet's policy, or set it from FILE
  logs HOST                what the host has logged, also after its death
  cut HOST, heal HOST      take the host's cable out: silence, no resets;
                           and put it back
  delay HOST DURATION      make everything take so much longer on its cable, each
                           way (15ms; 0 takes it away)
  kill HOST                end the host, as kill -9 of everything on it
  restart HOST             boot it again, with the disk it had
  down                     remove all of it, also after a crash

Every command takes --name NAME to work on another lab than "default"; labs
don't touch each other. The environment:

  NIX_BUILDERS_LAB_CACHE   where images and programs are kept (default: the
                           user's cache directory)
  NIX_BUILDERS_LAB_MIRROR  the Debian mirror for an image (default: apt's)
  NIX_BUILDERS_LAB_SUITE   the Debian suite, and so the version of Nix
                           (default: trixie)

A first look:

  sudo env "PATH=$PATH" "HOME=$HOME" go run ./e2e/lab up --builders 1
  sudo env "PATH=$PATH" "HOME=$HOME" go run ./e2e/lab exec builder-1 -- bash
  sudo env "PATH=$PATH" "HOME=$HOME" go run ./e2e/lab down
`

func main() {
	testbed.Role(os.Args[1:]) // returns only for a person's command
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	var status exitStatus
	switch {
	case err == nil:
	case errors.As(err, &status): // the command on a host has said why
		os.Exit(int(status))
	default:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// exitStatus is the failure of a command on a host.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// options are what a command was given.
type options struct {
	name, user, suite string
	builders, fakeArm int
	bare              bool
	args              []string // what is not a flag, before "--"
	argv              []string // what is after "--"
}

// parse takes flags and arguments in any order, up to "--".
func parse(command string, args []string) (o options, err error) {
	if i := slices.Index(args, "--"); i >= 0 {
		args, o.argv = args[:i], args[i+1:]
	}
	fs := flag.NewFlagSet(command, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.name, "name", "default", "")
	switch command {
	case "up":
		fs.IntVar(&o.builders, "builders", 3, "")
		fs.IntVar(&o.fakeArm, "fake-arm", 0, "")
		fs.BoolVar(&o.bare, "bare", false, "")
		fs.StringVar(&o.suite, "suite", "", "")
	case "prepare":
		fs.StringVar(&o.suite, "suite", "", "")
	case "exec":
		fs.StringVar(&o.user, "user", testbed.Root, "")
	}
	for {
		if err := fs.Parse(args); err != nil {
			return o, err
		}
		if args = fs.Args(); len(args) == 0 {
			return o, nil
		}
		o.args = append(o.args, args[0])
		args = args[1:]
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		_, err := io.WriteString(stdout, usage)
		return err
	}
	o, err := parse(args[0], args[1:])
	if errors.Is(err, flag.ErrHelp) {
		_, err = io.WriteString(stdout, usage)
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w: see \"lab help\"", args[0], err)
	}
	c := cli{options: o, getenv: getenv, stdin: stdin, stdout: stdout, stderr: stderr}
	commands := map[string]struct {
		run        func(context.Context) error
		needs, may int // arguments
	}{
		"prepare": {c.prepare, 0, 0},
		"up":      {c.up, 0, 0},
		"exec":    {c.exec, 1, 1},
		"join":    {c.join, 1, 9},
		"status":  {c.status, 0, 0},
		"nodes":   {c.nodes, 0, 0},
		"policy":  {c.policy, 0, 1},
		"logs":    {c.logs, 1, 1},
		"cut":     {c.onHost((*testbed.Host).Cut), 1, 1},
		"heal":    {c.onHost((*testbed.Host).Heal), 1, 1},
		"delay":   {c.delay, 2, 2},
		"kill":    {c.onHost((*testbed.Host).Kill), 1, 1},
		"restart": {c.onHost((*testbed.Host).Restart), 1, 1},
		"down":    {c.down, 0, 0},
	}
	cmd, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("there is no command %q: see \"lab help\"", args[0])
	}
	if n := len(o.args); n < cmd.needs || n > cmd.may {
		return fmt.Errorf("%s: wrong number of arguments (%s): see \"lab help\"", args[0], strings.Join(o.args, " "))
	}
	return cmd.run(ctx)
}
