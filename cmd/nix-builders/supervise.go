package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

var superviseCommand = command{
	name:    "supervise",
	summary: "keep the coordinator's server running (started by coordinator)",
	detail: `Starts nix-builders serve and starts it again when it dies: the cluster's state is in
a file, its builders check in again. A server that dies too often, or says that it
can't run, is given up.`,
	run: func(ctx context.Context, a *app, args []string) error {
		if len(args) > 0 {
			return usagef("supervise takes no arguments")
		}
		return a.supervise(ctx)
	},
}

const (
	// serverDeaths within serverDeathsSpan are too many.
	serverDeaths     = 5
	serverDeathsSpan = time.Minute
	// shutdownBound is what a signalled server may take: less than the 7.5 s that
	// GitHub leaves between its signals.
	shutdownBound = 7 * time.Second
)

func (a *app) supervise(ctx context.Context) error {
	var deaths []time.Time
	for {
		err := a.runServer(ctx)
		var exit *exec.ExitError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return err
		case errors.As(err, &exit) && exit.ExitCode() == exitUsage:
			return fmt.Errorf("the server can't run: %w", err)
		}
		now := time.Now()
		deaths = append(deaths, now)
		if n := len(deaths); n >= serverDeaths && now.Sub(deaths[n-serverDeaths]) < serverDeathsSpan {
			return fmt.Errorf("the server died %d times within %v, last with: %w", serverDeaths, serverDeathsSpan, err)
		}
		a.log.Error("the server died and is started again", "error", err)
		select {
		case <-time.After(200 * time.Millisecond << min(len(deaths), 4)):
		case <-ctx.Done():
			return nil
		}
	}
}

// runServer runs one server until it ends, or ends it when ctx does. The server reads
// its standard input: when the supervisor dies, that ends and the server with it.
func (a *app) runServer(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "serve", "--lifeline")
	cmd.Stdout, cmd.Stderr = a.stdout, a.stderr
	cmd.Env = append(os.Environ(), supervisorVar+"="+fmt.Sprint(os.Getpid()))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = shutdownBound
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	defer lifeline.Close()
	if err := cmd.Run(); err != nil && !(ctx.Err() != nil && cmd.ProcessState != nil && cmd.ProcessState.Success()) {
		return err
	}
	return nil
}

// supervisorVar tells a server whom to name in server.json. It is no setting.
const supervisorVar = "_NIX_BUILDERS_SUPERVISOR"

// detach starts the supervisor as a process that outlives this one and the step that
// it runs in: its own session, no terminal, its output in the cluster's log.
func detach(d *rundir.Dir) (proc.ID, error) {
	self, err := os.Executable()
	if err != nil {
		return proc.ID{}, fmt.Errorf("find this program: %w", err)
	}
	log, err := os.OpenFile(d.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return proc.ID{}, fmt.Errorf("open the server's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(self, "supervise")
	cmd.Dir = "/"
	cmd.Env = detachedEnv(os.Environ())
	if d.Has(webhookSecretFile) {
		cmd.Env = append(cmd.Env, webhookFileVar+"="+d.Path(webhookSecretFile))
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return proc.ID{}, fmt.Errorf("start the server: %w", err)
	}
	id, err := proc.Of(cmd.Process.Pid)
	// Reaped here for as long as this process lives, so that its end is seen.
	go func() { _ = cmd.Wait() }()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		_ = cmd.Process.Kill() // it is of no use to anyone, and has just been started
		return proc.ID{}, fmt.Errorf("start the server: %w", err)
	}
	return id, nil
}

// endSupervisor ends a supervisor, and with it its server, in order; the hard way if it
// takes too long.
func endSupervisor(supervisor proc.ID) error {
	// When it has to be killed its server follows: see runServer.
	return endProcess("server", supervisor, shutdownBound+shutdownBound/2)
}

// detachedEnv leaves out what the server must not have: secrets, of which it has its own
// in a file, the extra lines for Nix, which have their place, and the mark by which GitHub's runner finds and kills a step's processes.
func detachedEnv(env []string) []string {
	var kept []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "RUNNER_TRACKING_ID", keyVar, keyFileVar, webhookVar, webhookFileVar, prefix + "_EXTRA_NIX_CONFIG":
		default:
			kept = append(kept, kv)
		}
	}
	return kept
}
