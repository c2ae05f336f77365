package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// A way is a way of building on other machines.
type way string

// The ways that are measured beside each other.
const (
	// stock is what Nix does by itself, with no setting of ours: not of Nix, not of ssh.
	stock way = "stock"
	// stockAES is stock with a cipher that the processor knows.
	stockAES way = "stock, aes128-gcm"
	// stockShared is stock with one connection a builder, which is open already.
	stockShared way = "stock, ControlMaster"
	// ours is what the program has set up.
	ours way = "ours"
	// link is no way of building: it is what the tailnet itself lets through.
	link way = "TCP alone"
)

// allWays are in the order of the table's columns.
var allWays = []way{stock, stockAES, stockShared, ours, link}

// stockDir holds all that the stock ways read. None of it is what the program writes.
const stockDir = "/opt/stock"

// sshConfig is what is special about a way's ssh.
func (w way) sshConfig() string {
	switch w {
	case stockAES:
		return "Ciphers aes128-gcm@openssh.com\n"
	case stockShared:
		return "ControlMaster auto\nControlPath " + stockDir + "/%n.sock\nControlPersist 600\n"
	}
	return ""
}

func (w way) sshFile() string {
	return stockDir + "/ssh-" + strings.NewReplacer(" ", "-", ",", "").Replace(string(w))
}

// env is the environment that makes a client of Nix build in this way. Root's client
// opens the store itself and starts the hooks, so no daemon has a say.
func (w way) env() []string {
	if w == ours {
		return nil
	}
	return []string{
		"NIX_CONF_DIR=" + stockDir + "/nix", // its machines file is the default for builders
		"NIX_USER_CONF_FILES=/dev/null",
		"NIX_SSHOPTS=-F " + w.sshFile(), // and so neither root's nor the system's
	}
}

// prepareStock writes what the stock ways read, and opens each builder's store once in
// each: keys are known then, and what all derivations need is there.
func (c *cluster) prepareStock(ctx context.Context) error {
	if err := c.writeStock(ctx); err != nil {
		return err
	}
	busybox, err := c.stockNix(ctx, "eval", "--raw", "--file", expressions+"/tools.nix", "busybox")
	if err != nil {
		return err
	}
	for _, host := range c.Builders {
		if _, err := c.stockNix(ctx, "copy", "--no-check-sigs", "--to", "ssh-ng://"+host, busybox); err != nil {
			return err
		}
	}
	return c.trueStock(ctx)
}

func (c *cluster) writeStock(ctx context.Context) error {
	hosts, err := c.stockHosts(ctx)
	if err != nil {
		return err
	}
	files := map[string]string{"nix/nix.conf": c.bed.conf, "nix/machines": c.machines(c.Builders), "known_hosts": ""}
	for _, w := range []way{stock, stockAES, stockShared} {
		files[strings.TrimPrefix(w.sshFile(), stockDir+"/")] = hosts + "Host *\n" + w.sshConfig() +
			"User root\nUserKnownHostsFile " + stockDir + "/known_hosts\nStrictHostKeyChecking accept-new\nLogLevel ERROR\n"
	}
	for name, text := range files {
		if err := c.coordinator().WriteFile(ctx, stockDir+"/"+name, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// machines is a stock machines file of these hosts.
func (c *cluster) machines(hosts []string) string {
	var b strings.Builder
	for _, host := range hosts {
		fmt.Fprintf(&b, "ssh-ng://%s x86_64-linux - %d 1\n", host, slots)
	}
	return b.String()
}

// stockHosts is the part of ssh's configuration that says where hosts are. A host that
// has not joined yet is not there.
func (c *cluster) stockHosts(ctx context.Context) (string, error) {
	var b strings.Builder
	for _, host := range c.Builders {
		address, err := c.address(ctx, host)
		if err != nil {
			return "", err
		}
		if address != "" {
			fmt.Fprintf(&b, "Host %s\nHostName %s\n", host, address)
		}
	}
	return b.String(), nil
}

// address is the builder's on the tailnet, "" if it is not there.
func (c *cluster) address(ctx context.Context, host string) (string, error) {
	nodes, err := c.Lab.Control().Nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range nodes {
		if n.Name == c.LabelOf(host) && len(n.IPs) > 0 {
			return n.IPs[0].String(), nil
		}
	}
	return "", nil
}

// trueStock makes sure that nothing of ours is in what the stock ways see.
func (c *cluster) trueStock(ctx context.Context) error {
	text, err := c.stockNix(ctx, "config", "show")
	if err != nil {
		return err
	}
	have := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		have[name] = value
	}
	for name, want := range map[string]string{
		"build-poll-interval": "5", "builders-use-substitutes": "false", "builders": "@" + stockDir + "/nix/machines",
	} {
		if have[name] != want {
			return fmt.Errorf("the stock ways see %s = %q, not %q", name, have[name], want)
		}
	}
	if hook := have["build-hook"]; !strings.HasSuffix(hook, "nix __build-remote") {
		return fmt.Errorf("the stock ways see build-hook = %q, not Nix's own", hook)
	}
	return nil
}

// stockNix runs a command of Nix in the stock way.
func (c *cluster) stockNix(ctx context.Context, args ...string) (string, error) {
	cmd := c.coordinator().Command(ctx, append([]string{"nix"}, args...)...)
	cmd.Env = append(cmd.Env, stock.env()...)
	out, err := testbed.Output(cmd)
	if err != nil {
		err = fmt.Errorf("nix %s: %w", args[0], err)
	}
	return out, err
}

// begin makes ready what a way has open before its builds, and returns what closes it.
func (c *cluster) begin(ctx context.Context, w way) (end func(context.Context) error, err error) {
	if w != stockShared {
		return func(context.Context) error { return nil }, nil
	}
	const each = `for b in "$@"; do ssh -F "$0" `
	if err := c.coordinator().Run(ctx, append([]string{"sh", "-euc", each + `-fN "$b" </dev/null >/dev/null 2>&1; done`, w.sshFile()}, c.Builders...)...); err != nil {
		return nil, fmt.Errorf("open shared connections: %w", err)
	}
	return func(ctx context.Context) error {
		// One whose builder is gone is gone too.
		return c.coordinator().Run(ctx, append([]string{"sh", "-c", each + `-O exit "$b" >/dev/null 2>&1; done; true`, w.sshFile()}, c.Builders...)...)
	}, nil
}
