// Demo runs the project's main job on real parts of this machine, for a person to watch:
// one coordinator and three builders on hosts of their own find each other over a real
// tailnet, a plain nix build uses all of them, and one command releases them.
//
//	make demo
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

const (
	builders = 3
	patience = 5 * time.Minute // for all of it, once the lab's parts are in the cache
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	policy, err := fleet.Policy()
	if err != nil {
		return err
	}
	cfg := testbed.Config{Name: "demo", Builders: builders, Logf: say, Control: testbed.ControlConfig{Policy: &policy}}
	if err := testbed.Prepare(ctx, cfg); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := time.Now()

	heading("Boot a coordinator and %d builders, each with its own network, /nix and nix-daemon", builders)
	lab, err := testbed.Up(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		heading("Take the lab down")
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, lab.Down(cleanup))
		left, e := testbed.Leftovers("", lab.Name())
		if err = errors.Join(err, e); err == nil && len(left) > 0 {
			err = fmt.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		}
		if err == nil {
			say("Nothing is left: no process, mount, namespace or tailnet node. The demo took %v.", time.Since(begin).Round(100*time.Millisecond))
		}
	}()
	f := fleet.New(lab, "demo1", builders)
	f.Out = os.Stdout

	heading("Start the builders and the coordinator; they find each other on the tailnet")
	running, err := f.Up(ctx)
	if err != nil {
		return err
	}

	heading("nix build --max-jobs 0, as an ordinary user: 12 leaves and one that needs them all")
	if err := build(ctx, f); err != nil {
		return err
	}

	heading("nix-builders status")
	if err := must(f.Start(ctx, f.Coordinator, "runner", "nix-builders", "status"))(ctx); err != nil {
		return err
	}

	heading("stop-nix-builders")
	if err := must(f.Start(ctx, f.Coordinator, "runner", "stop-nix-builders"))(ctx); err != nil {
		return err
	}
	for _, host := range f.Builders {
		code, err := running[host].Wait(ctx)
		if err != nil || code != 0 {
			return fmt.Errorf("%s ended with code %d: %v", host, code, err)
		}
	}
	say("All builders ended with exit code 0.")

	heading("nix-builders leave, the coordinator's last step")
	if err := must(f.Start(ctx, f.Coordinator, "root", "nix-builders", "leave"))(ctx); err != nil {
		return err
	}
	nodes, err := lab.Control().Nodes(ctx)
	if err != nil {
		return err
	}
	if len(nodes) > 0 {
		return fmt.Errorf("%d nodes are still on the tailnet", len(nodes))
	}
	return nil
}

// build builds, shows what came out, and holds every builder to have had a part in it.
func build(ctx context.Context, f *fleet.Fleet) error {
	p, err := f.Build(ctx, "runner", "fan-in.nix", fmt.Sprint(time.Now().UnixNano()))
	if err != nil {
		return err
	}
	if err := must(p, nil)(ctx); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(p.Output()), "\n")
	out, err := f.Host(f.Coordinator).Output(ctx, "cat", lines[len(lines)-1])
	if err != nil {
		return err
	}
	say("\nWhat was built where:\n%s", out)
	for _, host := range f.Builders {
		if !strings.Contains(out, "on "+host+"\n") && !strings.HasSuffix(out, "on "+host) {
			return fmt.Errorf("%s built nothing", host)
		}
	}
	return nil
}

// must waits for a process to end well.
func must(p *fleet.Process, err error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err != nil {
			return err
		}
		code, err := p.Wait(ctx)
		if err == nil && code != 0 {
			err = fmt.Errorf("%s ended with code %d", p, code)
		}
		return err
	}
}

func heading(format string, args ...any) { say("\n== "+format, args...) }

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
