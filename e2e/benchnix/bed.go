package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

const (
	labBuilders  = 4
	slots        = 4          // of each builder, whatever cores it has
	expressions  = "/opt/nix" // where fleet installs them
	machinesFile = "/etc/nix/machines"
)

// A bed is the lab of one suite.
type bed struct {
	suite  string
	lab    *testbed.Lab
	ledger *ledger
	conf   string // nix.conf as the host came with it
	nix    string // the version of Nix
	options
	logf func(format string, args ...any)

	clusters, tags int // made so far
}

// withBed makes the lab of a suite for the time of use; nothing of it is left.
func withBed(ctx context.Context, suite string, o options, logf func(string, ...any), use func(*bed) error) (err error) {
	cfg := testbed.Config{
		Name: fmt.Sprintf("benchnix-%d-%s", os.Getpid(), suite), Builders: labBuilders, Suite: suite,
		Programs: testbed.Programs("./e2e/benchnix"),
	}
	testbed.FromEnv(&cfg, os.Getenv)
	b := &bed{suite: suite, options: o, logf: logf}
	if b.ledger, err = openLedger(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.ledger.close()) }()
	if b.lab, err = testbed.Up(ctx, cfg); err != nil {
		return err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, b.lab.Down(down))
	}()
	co := b.lab.Host(testbed.Coordinator)
	conf, err := co.ReadFile(ctx, "/etc/nix/nix.conf")
	if err != nil {
		return err
	}
	b.conf = string(conf)
	version, err := co.Output(ctx, "nix", "--version")
	if err != nil {
		return err
	}
	b.nix = version[strings.LastIndexByte(version, ' ')+1:]
	return use(b)
}

// A cluster is one of the program's, on the bed's hosts.
type cluster struct {
	*fleet.Fleet
	bed *bed

	builders map[string]*fleet.Process // that have to end well, by host
	lost     bool                      // whether one was given up
}

func (c *cluster) coordinator() *testbed.Host { return c.Host(c.Coordinator) }

// A size says what cluster to gather.
type size struct {
	builders int           // that are there from the beginning, on the lab's first hosts
	later    int           // that are expected too, and come later
	lease    time.Duration // 0: the program's default
}

// withCluster gathers a cluster for the time of use.
func (b *bed) withCluster(ctx context.Context, s size, use func(*cluster) error) (err error) {
	b.clusters++
	f := fleet.New(b.lab, fmt.Sprintf("n%d", b.clusters), s.builders+s.later)
	f.Env["NIX_BUILDERS_MAX_JOBS"] = strconv.Itoa(slots)
	f.Env["NIX_BUILDERS_MIN_BUILDERS"] = strconv.Itoa(s.builders)
	if s.lease > 0 {
		f.Env["NIX_BUILDERS_LEASE"] = strconv.Itoa(int(s.lease.Seconds()))
	}
	c := &cluster{Fleet: f, bed: b, builders: map[string]*fleet.Process{}}
	defer func() {
		if ctx.Err() != nil {
			return // the lab goes as a whole
		}
		end, cancel := context.WithTimeout(ctx, 3*time.Minute)
		defer cancel()
		err = errors.Join(err, c.end(end))
	}()
	if err := c.gather(ctx, s); err != nil {
		return fmt.Errorf("gather %d builders: %w", s.builders, err)
	}
	return use(c)
}

// gather starts the program everywhere. Its processes live until life ends.
func (c *cluster) gather(life context.Context, s size) error {
	ctx, cancel := context.WithTimeout(life, 3*time.Minute)
	defer cancel()
	expected := c.Builders
	c.Builders = expected[:s.builders:s.builders]
	for _, host := range c.Builders {
		if err := c.startBuilder(life, host); err != nil {
			return err
		}
	}
	var names []string
	for _, host := range expected {
		names = append(names, c.NameOf(host))
	}
	step, err := c.StartCoordinator(ctx, map[string]string{"NIX_BUILDERS_BUILDERS": strings.Join(names, " ")})
	if err != nil {
		return err
	}
	if err := well(ctx, step); err != nil {
		return err
	}
	if err := c.InstallExpressions(ctx); err != nil {
		return err
	}
	if err := c.prepareStock(ctx); err != nil {
		return err
	}
	return c.bed.ledger.enrol(c.coordinator())
}

func (c *cluster) startBuilder(ctx context.Context, host string) error {
	p, err := c.StartBuilder(ctx, host, nil)
	if err != nil {
		return err
	}
	c.builders[host] = p
	return nil
}

// lose gives a builder up: its end is not waited for, and its host starts anew.
func (c *cluster) lose(ctx context.Context, host string) error {
	delete(c.builders, host)
	c.lost = true
	return c.Host(host).Restart(ctx)
}

// end releases all builders that are left and leaves no cluster behind. Where that fails,
// all hosts start anew, so that the next cluster finds nothing of this one.
func (c *cluster) end(ctx context.Context) error {
	err := c.leave(ctx)
	if err == nil {
		return nil
	}
	var restarting errgroup.Group
	for _, h := range c.Lab.Hosts() {
		restarting.Go(func() error { return h.Restart(ctx) })
	}
	return errors.Join(err, restarting.Wait())
}

func (c *cluster) leave(ctx context.Context) error {
	stop, err := c.Start(ctx, c.Coordinator, testbed.Root, "stop-nix-builders")
	if err != nil {
		return err
	}
	if err := well(ctx, stop); err != nil && !c.lost { // it says who did not answer
		return err
	}
	leave, err := c.Start(ctx, c.Coordinator, testbed.Root, "nix-builders", "leave")
	if err != nil {
		return err
	}
	if err := well(ctx, leave); err != nil {
		return err
	}
	var ending errgroup.Group
	for _, p := range c.builders {
		ending.Go(func() error { return well(ctx, p) })
	}
	return ending.Wait()
}

// well waits for the end of a process, which must be a good one.
func well(ctx context.Context, p *fleet.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	code, err := p.Wait(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: exit code %d:\n%s", p, code, p.Output())
	}
	return err
}
