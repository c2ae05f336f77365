package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

var joinCommand = command{
	name:    "join",
	args:    "[--detach] ROLE",
	summary: "join the tailnet ahead of builder or coordinator",
	detail: `Makes this host a member of the tailnet for its ROLE, builder or coordinator. That command
then takes the membership over, and has no need of a key; nix-builders leave ends it.

Needs NIX_BUILDERS_HOSTNAME, an auth key or NIX_BUILDERS_CLIENT_ID where nobody is logged
in yet, and outside GitHub NIX_BUILDERS_CLUSTER.

  --detach   return at once and go on in the background; builder or coordinator wait for
             it, and say why if it fails`,
	run: func(ctx context.Context, a *app, args []string) error {
		var detach bool
		args, err := a.flags("join", args, func(fs *flag.FlagSet) { fs.BoolVar(&detach, "detach", false, "") })
		if err != nil {
			return err
		}
		if len(args) != 1 || args[0] != rundir.Builder && args[0] != rundir.Coordinator {
			return usagef("want one role, builder or coordinator, not %q", clip(fmt.Sprint(args)))
		}
		role := args[0]
		if err := a.checkMember(role); err != nil {
			return err
		}
		front := a.needsFront(role)
		if err := a.takeSecrets(ctx, need{front: front, login: true}); err != nil {
			return err
		}
		switch {
		case front && detach:
			return a.front(ctx, "join", "--detach", role)
		case front:
			return a.front(ctx, "join", role)
		case detach:
			return a.joinDetached(role)
		}
		return a.joinHere(ctx, role)
	},
}

// checkMember says what is wrong with the settings of a member of the tailnet.
func (a *app) checkMember(role string) error {
	if err := a.set.require("CLUSTER", "HOSTNAME"); err != nil {
		return &usageError{err}
	}
	if _, err := a.tags(role); err != nil {
		return &usageError{err}
	}
	return nil
}

// memberDir is the directory of this host's member, made if need be. Nobody else may be
// about to join for it.
func (a *app) memberDir(role string) (*rundir.Dir, error) {
	d, err := rundir.New(a.set.Files.StateDir, a.set.Cluster.Cluster, role)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: run it as root, or set NIX_BUILDERS_STATE_DIR to a directory of yours", err)
	}
	return d, err
}

// startJoining is memberDir for a process that is going to join.
func (a *app) startJoining(role string) (*rundir.Dir, error) {
	d, err := a.memberDir(role)
	if err != nil {
		return nil, err
	}
	j, err := d.Joining()
	if err == nil && j.Process.Alive() && j.Process.PID != os.Getpid() {
		return nil, fmt.Errorf("this host is joining the tailnet already (pid %d); nix-builders leave ends that", j.Process.PID)
	}
	if err != nil && !errors.Is(err, rundir.ErrNone) {
		return nil, err
	}
	return d, nil
}

// joinDetached starts a process that joins and returns when that has the secrets.
func (a *app) joinDetached(role string) error {
	d, err := a.startJoining(role)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log, err := os.OpenFile(d.JoinLogPath(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(self, asRootCommand.name, "--detached", "join", role)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // the rest is handed over
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start to join: %w", err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start to join: %w", err)
	}
	// It waits for its settings, so nobody finds it at work before it is written down.
	id, err := proc.Of(cmd.Process.Pid)
	if err == nil {
		err = d.SaveJoining(rundir.Joining{Process: id, Started: time.Now()})
	}
	if err == nil {
		err = writeHandover(stdin, a.handover())
	}
	if err != nil {
		_ = cmd.Process.Kill() // it has done nothing yet
		_ = cmd.Wait()
		return errors.Join(fmt.Errorf("start to join: %w", err), d.Remove())
	}
	fmt.Fprintf(a.stdout, "Joining the tailnet as %s in the background (pid %d).\n", a.set.Tailnet.Hostname, id.PID)
	return cmd.Process.Release()
}

// joinHere joins in this process, and notes how it went for who waits for it.
func (a *app) joinHere(ctx context.Context, role string) error {
	d, err := a.startJoining(role)
	if err != nil {
		return err
	}
	self, err := proc.Of(os.Getpid())
	if err != nil {
		return fmt.Errorf("find this process: %w", err)
	}
	j := rundir.Joining{Process: self, Started: time.Now()}
	if err := d.SaveJoining(j); err != nil {
		return err
	}
	_, err = a.join(ctx, d, role)
	if j.Joined = err == nil; err != nil {
		j.Error = err.Error()
	}
	return errors.Join(err, d.SaveJoining(j))
}

// awaitJoining waits for a joining of this host that an earlier step began, and tells
// why it failed. No joining: nil.
func (a *app) awaitJoining(ctx context.Context, d *rundir.Dir) error {
	j, err := d.Joining()
	if errors.Is(err, rundir.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	if j.Process.Alive() {
		fmt.Fprintf(a.stdout, "Waiting for the tailnet; joining since %s.\n", span(time.Since(j.Started)))
		// What began to join undoes that by itself when its time is over.
		bound := time.Duration(a.set.Tailnet.JoinTimeout) + endBound
		bounded, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("not within %v", bound))
		defer cancel()
		if !j.Process.Await(bounded) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return a.joinFailed(d, context.Cause(bounded).Error())
		}
		if j, err = d.Joining(); err != nil {
			return err
		}
	}
	if j.Error != "" {
		return a.joinFailed(d, j.Error)
	}
	if !j.Joined {
		return a.joinFailed(d, fmt.Sprintf("the process that did it (pid %d) died", j.Process.PID))
	}
	return nil
}

// errJoinFailed says that an earlier step's joining failed.
var errJoinFailed = errors.New("join the tailnet, which an earlier step began")

// joinFailed shows what the process that joined logged.
func (a *app) joinFailed(d *rundir.Dir, reason string) error {
	if log := tail(d.JoinLogPath(), 40); log != "" {
		fmt.Fprintf(a.stderr, "%s:\n%s\n", d.JoinLogPath(), log)
	}
	return fmt.Errorf("%w: %s", errJoinFailed, reason)
}

// endBound is what a process that undoes its joining may take.
const endBound = 6500 * time.Millisecond

// endProcess ends a process in order, the hard way if it takes longer than the bound.
func endProcess(what string, id proc.ID, bound time.Duration) error {
	err := id.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end the %s (pid %d): %w", what, id.PID, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	if id.Await(ctx) {
		return nil
	}
	if err := id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the %s (pid %d): %w", what, id.PID, err)
	}
	return fmt.Errorf("the %s (pid %d) did not end in order and was killed", what, id.PID)
}
