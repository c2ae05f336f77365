package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/actions"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// A step is the step of a workflow on GitHub that a command runs in.
type step struct {
	log     *actions.Log // what standard output leads to
	err     *actions.Log // what standard error leads to
	files   actions.Files
	attempt int // of the run; more than 1 when it was run again

	stdout, stderr io.Writer // the same streams, for a process that guards its own
}

// enterStep makes the output of a command that runs in a step the step's log, in which
// what others say is no command to GitHub's runner.
func (a *app) enterStep(c command) {
	if a.onGitHub = os.Getenv("GITHUB_ACTIONS") == "true"; !a.onGitHub {
		return
	}
	switch c.name {
	case "join", "coordinator", "builder", "stop", "leave":
	default:
		return // what it prints is for programs, or for a person who asked for it
	}
	if a.behindFront && a.lifeline == nil {
		return // no step waits for it; it prints to a file
	}
	attempt, err := strconv.Atoi(os.Getenv("GITHUB_RUN_ATTEMPT"))
	if err != nil {
		attempt = 1
	}
	a.step = &step{
		log: actions.NewLog(a.stdout), err: actions.NewLog(a.stderr), attempt: attempt,
		files: actions.Files{
			Output: os.Getenv("GITHUB_OUTPUT"), Env: os.Getenv("GITHUB_ENV"), Path: os.Getenv("GITHUB_PATH"),
			State: os.Getenv("GITHUB_STATE"), Summary: os.Getenv("GITHUB_STEP_SUMMARY"),
		},
		stdout: a.stdout, stderr: a.stderr,
	}
	a.stdout, a.stderr = a.step.log, a.step.err
}

// streams are the output's files, for a process that is this program itself: what that
// tells GitHub's runner must not be guarded a second time.
func (a *app) streams() (stdout, stderr io.Writer) {
	if a.step == nil {
		return a.stdout, a.stderr
	}
	return a.step.stdout, a.step.stderr
}

// group folds what is printed until end is called, on GitHub. end may be called again.
func (a *app) group(title string) (end func()) {
	if a.step == nil {
		return func() {}
	}
	a.step.log.Group(title)
	ended := false
	return func() {
		if !ended {
			a.step.log.EndGroup()
		}
		ended = true
	}
}

// rerun is what a person has to know whose run is not the first attempt; empty for others.
func (a *app) rerun() string {
	if a.step == nil || a.step.attempt < 2 {
		return ""
	}
	return fmt.Sprintf(`This is attempt %d of the run. "Re-run failed jobs" runs only jobs that failed: if the coordinator's and all builders' jobs are not among them, choose "Re-run all jobs".`, a.step.attempt)
}

// A titledError is an error whose message has a title of its own on GitHub.
type titledError struct {
	title string
	error
}

func (e *titledError) Unwrap() error { return e.error }

// tellError tells a person why a command failed: beside the run on GitHub, and in the
// log elsewhere.
func (a *app) tellError(c command, err error) {
	if !a.onGitHub {
		fmt.Fprintf(a.stderr, "nix-builders %s: %v\n", c.name, err)
		return
	}
	title, message := "nix-builders "+c.name, err.Error()
	if titled := (*titledError)(nil); errors.As(err, &titled) {
		title = titled.title
	}
	unclaimed := (*builder.UnclaimedError)(nil)
	switch {
	case errors.As(err, &unclaimed):
		title = "Nobody claimed this builder"
		if more := a.rerun(); more != "" {
			message += "\n" + more
		}
	case errors.Is(err, errJoinFailed), errors.Is(err, tailnet.ErrKeyRefused), errors.Is(err, tailnet.ErrTagsRefused),
		errors.Is(err, tailnet.ErrNeedsApproval), errors.Is(err, tailnet.ErrNotReady):
		title = "This host did not get onto the tailnet"
	}
	switch {
	case a.step != nil:
		a.step.err.Error(title, message)
	case c.name == "dial", c.name == "serve", c.name == "supervise", c.name == asRootCommand.name, a.behindFront:
		fmt.Fprintf(a.stderr, "nix-builders %s: %v\n", c.name, err) // to a file
	default:
		actions.NewLog(a.stderr).Error(title, message)
	}
}
