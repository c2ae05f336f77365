package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/machinesfile"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/unixsock"
)

var schedulerCommand = command{
	name:    "scheduler",
	args:    "--socket PATH [--machines FILE] [--builders SETTING]",
	summary: "hand out the slots of a machines file, without a cluster",
	detail: `Serves nix-builders build-hook as the coordinator does, for the machines of any file
that Nix could read. Needs no root and no tailnet. The file is read anew when it changes:
builds on a machine that is no longer there go to others. Ends on SIGINT and SIGTERM.

  --socket PATH       where it is served; for its own user alone
  --machines FILE     as Nix has it; one that is empty or missing means no machines
  --builders SETTING  what Nix' setting builders is where these machines are meant;
                      default: @FILE`,
	run: func(ctx context.Context, a *app, args []string) error {
		var o schedulerOptions
		args, err := a.flags("scheduler", args, func(fs *flag.FlagSet) {
			fs.StringVar(&o.socket, "socket", "", "")
			fs.StringVar(&o.machines, "machines", "", "")
			fs.StringVar(&o.builders, "builders", "", "")
		})
		switch {
		case err != nil:
			return err
		case len(args) > 0:
			return usagef("scheduler takes no argument %q", clip(args[0]))
		case o.socket == "":
			return usagef("want --socket PATH")
		case o.builders == "" && o.machines != "":
			o.builders = "@" + o.machines
		}
		return a.schedule(ctx, o)
	},
}

type schedulerOptions struct {
	socket, machines, builders string
}

const (
	machinesPause = time.Second // between two looks at the machines file
	machinesMost  = 1 << 20     // bytes of it
)

// schedule serves a scheduler until ctx ends.
func (a *app) schedule(ctx context.Context, o schedulerOptions) error {
	s, err := scheduler.New(scheduler.Config{Builders: o.builders, Log: a.log})
	if err != nil {
		return err
	}
	text, err := readMachines(o.machines)
	if err != nil {
		return err
	}
	machines, err := machinesOf(text)
	if err != nil {
		return &usageError{fmt.Errorf("read %s: %w", o.machines, err)}
	}
	s.Set(machines)
	ln, err := unixsock.Listen(o.socket, -1)
	if err != nil {
		return err
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return s.Serve(ctx, ln) })
	if o.machines != "" {
		parts.Go(func() error {
			a.followMachines(ctx, o.machines, text, s)
			return nil
		})
	}
	fmt.Fprintf(a.stdout, "serving %s, machines: %d\n", o.socket, len(machines))
	return parts.Wait()
}

// followMachines tells the scheduler of the file's changes until ctx ends. A file that can't
// be understood changes nothing.
func (a *app) followMachines(ctx context.Context, path, text string, s *scheduler.Scheduler) {
	tick := time.NewTicker(machinesPause)
	defer tick.Stop()
	said := "" // the last complaint, so that it is made once
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now, err := readMachines(path)
		if err == nil && now == text {
			continue
		}
		var machines []scheduler.Machine
		if err == nil {
			machines, err = machinesOf(now)
		}
		if err != nil {
			if err.Error() != said {
				a.log.Warn("machines file not taken over; what it said before still holds", "file", path, "error", err)
			}
			said = err.Error()
			continue
		}
		text, said = now, ""
		s.Set(machines)
		a.log.Info("machines file taken over", "file", path, "machines", len(machines))
	}
}

// readMachines reads a machines file. One that is not there has no machines, as for Nix.
func readMachines(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the machines file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, machinesMost+1))
	if err == nil && len(text) > machinesMost {
		err = fmt.Errorf("%s is larger than %d bytes", path, machinesMost)
	}
	if err != nil {
		return "", fmt.Errorf("read the machines file: %w", err)
	}
	return string(text), nil
}

// machinesOf makes machines of a machines file's text. Each is called by its store's URI; a
// store that is there again gets a number.
func machinesOf(text string) ([]scheduler.Machine, error) {
	listed, err := machinesfile.Parse(text, hostSystem())
	if err != nil {
		return nil, err
	}
	seen := make(map[string]int)
	machines := make([]scheduler.Machine, 0, len(listed))
	for _, m := range listed {
		name := m.Store
		if seen[m.Store]++; seen[m.Store] > 1 {
			name = fmt.Sprintf("%s (%d)", m.Store, seen[m.Store])
		}
		machines = append(machines, scheduler.Machine{
			Name: name, State: scheduler.Ready, Line: m.Line,
			Systems: m.Systems, Features: m.Features, Mandatory: m.Mandatory,
			Slots: m.MaxJobs,
			// Nix has fractions, and only the ratio counts.
			Speed: int(math.Round(max(1, min(m.Speed*speedUnit, math.MaxInt32)))),
		})
	}
	return machines, nil
}

// speedUnit is the speed of a machine whose factor is 1.
const speedUnit = 1000

// hostSystem is the Nix system that this program was made for.
func hostSystem() string {
	arch := runtime.GOARCH
	switch arch {
	case "amd64":
		arch = "x86_64"
	case "arm64":
		arch = "aarch64"
	case "386":
		arch = "i686"
	}
	return arch + "-" + runtime.GOOS
}
