package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// cli is one call of the program.
type cli struct {
	options
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
}

func (c cli) config() testbed.Config {
	cfg := testbed.Config{Name: c.name, Builders: c.builders, Suite: c.suite, Logf: c.logf}
	testbed.FromEnv(&cfg, c.getenv)
	return cfg
}

func (c cli) logf(format string, args ...any) {
	fmt.Fprintf(c.stderr, format+"\n", args...)
}

func (c cli) prepare(ctx context.Context) error {
	if err := (image.Cache{Logf: c.logf}).InstallTools(ctx); err != nil {
		return err
	}
	start := time.Now()
	if err := testbed.Prepare(ctx, c.config()); err != nil {
		return err
	}
	c.logf("ready to boot (%.1f s)", time.Since(start).Seconds())
	return nil
}

func (c cli) up(ctx context.Context) error {
	start := time.Now()
	cfg := c.config()
	if c.bare {
		cfg.Programs = []string{}
	}
	if c.fakeArm != 0 {
		cfg.NixConf = map[string]string{testbed.Builder(c.fakeArm): "extra-platforms = aarch64-linux"}
	}
	l, err := testbed.Up(ctx, cfg)
	if err != nil {
		return err
	}
	c.logf("lab %s is up (%.1f s)", l.Name(), time.Since(start).Seconds())
	return c.show(ctx, l)
}

func (c cli) open() (*testbed.Lab, error) { return testbed.Open("", c.name) }

// host finds the host that the first argument names.
func (c cli) host() (*testbed.Host, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	if h, ok := l.Lookup(c.args[0]); ok {
		return h, nil
	}
	var names []string
	for _, h := range l.Hosts() {
		names = append(names, h.Name())
	}
	return nil, fmt.Errorf("lab %s has no host %q: it has %s", l.Name(), c.args[0], strings.Join(names, ", "))
}

// onHost makes a command of what a host can do.
func (c cli) onHost(do func(*testbed.Host, context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		h, err := c.host()
		if err != nil {
			return err
		}
		return do(h, ctx)
	}
}

func (c cli) exec(context.Context) error {
	h, err := c.host()
	if err != nil {
		return err
	}
	if len(c.argv) == 0 {
		return fmt.Errorf("exec: no command: write exec %s -- CMD", h.Name())
	}
	cmd := h.Interactive(c.user, c.argv...)
	if term := c.getenv("TERM"); term != "" {
		cmd.Env = append(cmd.Env, "TERM="+term)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stdout, c.stderr
	err = cmd.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		return exitStatus(max(exit.ExitCode(), 1))
	}
	return err
}

func (c cli) join(ctx context.Context) error {
	h, err := c.host()
	if err != nil {
		return err
	}
	tags := c.args[1:]
	return h.JoinTailnet(ctx, testbed.Tailnet{Tags: tags, SSH: len(tags) > 0})
}

func (c cli) status(ctx context.Context) error {
	l, err := c.open()
	if err != nil {
		return err
	}
	return c.show(ctx, l)
}

func (c cli) show(ctx context.Context, l *testbed.Lab) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tADDRESS\tSTATE\tPROCESSES")
	for _, h := range l.Hosts() {
		state, count := "dead", 0
		if h.Alive() {
			state = "running"
			all, err := h.Processes()
			if err != nil {
				return err
			}
			count = len(all)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", h.Name(), h.IP(), state, count)
	}
	nodes, err := l.Control().Nodes(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nlogin server %s, auth keys %s (tags) and %s (a person)\n", l.LoginServer(), control.CIKey, control.PersonKey)
	if len(nodes) > 0 {
		fmt.Fprintln(w, "\nNODE\tADDRESS\tONLINE\tTAGS OR OWNER")
	}
	for _, n := range nodes {
		owner := n.User
		if len(n.Tags) > 0 {
			owner = strings.Join(n.Tags, " ")
		}
		fmt.Fprintf(w, "%s\t%s\t%t\t%s\n", n.Name, n.IPs[0], n.Online, owner)
	}
	return w.Flush()
}

func (c cli) nodes(ctx context.Context) error {
	l, err := c.open()
	if err != nil {
		return err
	}
	nodes, err := l.Control().Nodes(ctx)
	if err != nil {
		return err
	}
	return c.printJSON(nodes)
}

func (c cli) printJSON(v any) error {
	enc := json.NewEncoder(c.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (c cli) policy(ctx context.Context) error {
	l, err := c.open()
	if err != nil {
		return err
	}
	if len(c.args) == 0 {
		p, err := l.Control().Policy(ctx)
		if err != nil {
			return err
		}
		return c.printJSON(p)
	}
	text, err := os.ReadFile(c.args[0])
	if err != nil {
		return err
	}
	p, err := control.ParsePolicy(text)
	if err != nil {
		return err
	}
	return l.Control().SetPolicy(ctx, p)
}

func (c cli) delay(ctx context.Context) error {
	h, err := c.host()
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(c.args[1])
	if err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	return h.Delay(ctx, d)
}

func (c cli) logs(context.Context) error {
	h, err := c.host()
	if err != nil {
		return err
	}
	return h.Logs(c.stdout)
}

func (c cli) down(ctx context.Context) error {
	if err := testbed.Down(ctx, "", c.name); err != nil {
		return err
	}
	left, err := testbed.Leftovers("", c.name)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
	return nil
}
