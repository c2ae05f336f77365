// Nix-builders turns the runners of one workflow run into a distributed Nix build
// cluster: it is the coordinator, each builder, and the commands around them.
//
// This package only connects the others: settings come from the environment, each
// subcommand has a file of its own, and what they do is done elsewhere.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	// exitCancelled is what a shell makes of a program that SIGINT ended.
	exitCancelled = 130
)

// A command is one subcommand. Its run gets the arguments that follow its name.
type command struct {
	name    string
	args    string // for the usage line
	summary string
	detail  string
	// bare commands are started by programs that are not ours, such as Nix: they have no
	// settings, for the environment is another's, and must be quick.
	bare bool
	run  func(ctx context.Context, a *app, args []string) error
}

// An app is what every command gets: the streams, the settings and the log.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	set            *settings
	log            *slog.Logger
	began          time.Time
	onGitHub       bool  // where a workflow's step prints
	step           *step // nil where the output is not a step's log, see enterStep

	secrets     secrets   // see takeSecrets
	behindFront bool      // another process handed over settings and secrets, see front
	lifeline    io.Reader // if not nil, the command ends when it does
}

func commands() []command {
	asRoot := asRootCommand
	asRoot.run = func(ctx context.Context, a *app, args []string) error { return a.asRoot(ctx, args) }
	return []command{
		planCommand,
		joinCommand,
		coordinatorCommand,
		builderCommand,
		statusCommand,
		stopCommand,
		leaveCommand,
		dialCommand,
		dialStoreCommand,
		serveStoreCommand,
		serveCommand,
		superviseCommand,
		schedulerCommand,
		buildHookCommand,
		asRoot,
		versionCommand,
	}
}

func main() { os.Exit(run(os.Args)) }

func run(argv []string) int {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	args := argv[1:]
	// The coordinator installs us on PATH under the name that workflows call.
	if filepath.Base(argv[0]) == "stop-nix-builders" {
		args = append([]string{"stop"}, args...)
	}
	if len(args) == 0 {
		a.usage(a.stderr)
		return exitUsage
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		a.usage(a.stdout)
		return exitOK
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return a.execute(context.Background(), c, args[1:])
		}
	}
	fmt.Fprintf(a.stderr, "nix-builders: there is no command %q; nix-builders --help lists them\n", clip(args[0]))
	return exitUsage
}

func (a *app) execute(ctx context.Context, c command, args []string) int {
	if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "-help") {
		a.commandUsage(c)
		return exitOK
	}
	a.began = time.Now()
	a.enterStep(c)
	var err error
	if c.bare {
		a.set = &settings{Log: logSettings{LogFormat: "text", LogLevel: "info"}}
	} else if a.set, err = loadSettings(); err != nil {
		return a.fail(c, &usageError{err})
	}
	a.log = newLogger(a.stderr, a.set.Log)
	ctx, cancel := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if a.lifeline != nil {
		ctx, cancel = withLifeline(ctx, a.lifeline)
		defer cancel()
	}
	err = c.run(ctx, a, args)
	if ctx.Err() != nil && (errors.Is(err, context.Cause(ctx)) || errors.Is(err, context.Canceled)) {
		fmt.Fprintf(a.stderr, "nix-builders %s: cancelled\n", c.name)
		return exitCancelled
	}
	if err != nil {
		return a.fail(c, err)
	}
	return exitOK
}

// fail tells err and returns the exit code.
func (a *app) fail(c command, err error) int {
	if errors.Is(err, flag.ErrHelp) {
		a.commandUsage(c)
		return exitOK
	}
	// An error that has told its story on the streams already only sets the code.
	if quiet := (*exitError)(nil); errors.As(err, &quiet) {
		return quiet.code
	}
	a.tellError(c, err)
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// A usageError is a command line or environment that can't be: exit code 2.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// An exitError ends the program with a code after everything was said.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// flags parses a command's own flags; what is wrong with them is a usage error.
func (a *app) flags(c string, args []string, define func(*flag.FlagSet)) ([]string, error) {
	fs := flag.NewFlagSet(c, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	define(fs)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, &usageError{err}
	}
	return fs.Args(), nil
}

func newLogger(w io.Writer, s logSettings) *slog.Logger {
	var level slog.Level
	// check has held the level against the words that slog knows.
	_ = level.UnmarshalText([]byte(s.LogLevel))
	opts := &slog.HandlerOptions{Level: level}
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
