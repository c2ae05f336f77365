package hook_test

import (
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/hook"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// What Nix 2.26 and 2.34 say, as a person sees it without colours.
const (
	on          = "error: build of '/nix/store/x-a.drv' on 'ssh-ng://b1' failed: "
	failed226   = on + "builder for '/nix/store/x-a.drv' failed with exit code 3;\n       last 1 log lines:\n       > bad line"
	failed234   = on + "Cannot build '/nix/store/x-a.drv'.\n       Reason: builder failed with exit code 3.\n       Output paths:\n         /nix/store/y-a\n       Last 1 log lines:\n       > bad line"
	killed226   = on + "builder for '/nix/store/x-a.drv' failed due to signal 9 (Killed)"
	killed234   = on + "Cannot build '/nix/store/x-a.drv'.\n       Reason: builder failed due to signal 9 (Killed).\n       Output paths:\n         /nix/store/y-a"
	compiler    = on + "builder for '/nix/store/x-a.drv' failed with exit code 1;\n       last 1 log lines:\n       > g++: fatal error: Killed signal terminated program cc1plus"
	cargo       = on + "builder for '/nix/store/x-a.drv' failed with exit code 101;\n       last 1 log lines:\n       >   process didn't exit successfully: `rustc --crate-name a` (signal: 9, SIGKILL: kill)"
	ghc         = on + "builder for '/nix/store/x-a.drv' failed with exit code 1;\n       last 1 log lines:\n       > `ghc' failed in phase `C Compiler'. (Exit code: -9)"
	cabal       = on + "builder for '/nix/store/x-a.drv' failed with exit code 1;\n       last 1 log lines:\n       > Setup: ExitFailure (-9)"
	recipe      = on + "builder for '/nix/store/x-a.drv' failed with exit code 2;\n       last 1 log lines:\n       > make: *** [Makefile:3: all] Error 137"
	python      = on + "builder for '/nix/store/x-a.drv' failed with exit code 1;\n       last 1 log lines:\n       > subprocess.CalledProcessError: Command 'cc' died with <Signals.SIGKILL: 9>."
	wrongHash   = on + "hash mismatch in fixed-output derivation '/nix/store/x-a.drv':\n  specified: sha256-A\n  got: sha256-B"
	liar        = on + "builder for '/nix/store/x-a.drv' failed with exit code 1;\n       last 2 log lines:\n       > No space left on device\n       > Nix daemon disconnected unexpectedly"
	noRoom226   = on + "builder for '/nix/store/x-a.drv' failed with exit code 1;\n       last 1 log lines:\n       > write error\n       For full logs, run:\n         nix log /nix/store/x-a.drv\nnote: build failure may have been caused by lack of free disk space"
	noRoom      = "error: writing to file: No space left on device"
	gone        = "error: Nix daemon disconnected unexpectedly (maybe it crashed?)"
	cannot      = "cannot build on 'ssh-ng://b1': error: failed to start SSH connection to 'b1': Connection refused"
	unsigned    = "error: cannot add path '/nix/store/y-a' because it lacks a signature by a trusted key"
	unheardOf   = "error: the moon is in the wrong phase"
	wrongSystem = on + "a 'riscv64-linux' with features {} is required to build '/nix/store/x-a.drv', but I am a 'x86_64-linux' with features {}"
	interrupted = on + "interrupted by the user"
	noOutput    = on + "builder for '/nix/store/x-a.drv' failed to produce output path for output 'out' at '/nix/store/y-a'"
	setUp       = on + "while setting up the build environment\n\nerror: mounting /proc: Operation not permitted"
	timedOut    = on + "building of '/nix/store/x-a.drv' timed out after 3 seconds of silence"
	notFound    = on + "unable to download 'https://example.org/a': HTTP error 404 ('')"
	noName      = on + "unable to download 'https://example.org/a': Could not resolve hostname (6)"
)

func TestJudge(t *testing.T) {
	unknown := scheduler.Condition{Unknown: "nobody here knows"}
	oom := scheduler.Condition{OOMKills: 2}
	one := scheduler.Condition{OOMKills: 1}
	full := scheduler.Condition{DiskFull: true}
	leaving := scheduler.Condition{Leaving: true}
	for _, tc := range []struct {
		name, text string
		blame      string
		condition  scheduler.Condition
		again      bool
		final      bool
		reason     string
	}{
		{name: "it fails", text: failed226, blame: "build", final: true},
		{name: "it fails in 2.34", text: failed234, blame: "build", final: true},
		{name: "it fails, and nobody knows the builder", text: failed234, blame: "build", condition: unknown, final: true},
		{name: "it fails while others run out of memory", text: failed226, blame: "build", condition: oom, final: true},
		{name: "it fails on a full disk", text: failed226, blame: "build", condition: full, reason: "its disk was full"},
		{name: "it fails on a builder that leaves", text: failed234, blame: "build", condition: leaving, reason: "it is about to leave"},
		{name: "killed by whom?", text: killed226, blame: "kill", final: true},
		{name: "killed, nobody knows", text: killed234, blame: "kill", condition: unknown, reason: "Reason: builder failed due to signal 9"},
		{name: "killed there too", text: killed234, blame: "kill", condition: unknown, again: true, final: true},
		{name: "killed for memory", text: killed234, blame: "kill", condition: oom, reason: "2 processes were killed"},
		{name: "a compiler is killed for memory", text: compiler, blame: "build", condition: oom, reason: "2 processes were killed"},
		{name: "a process of rustc's is killed for memory", text: cargo, blame: "build", condition: oom, reason: "2 processes were killed"},
		{name: "a process of ghc's is killed for memory", text: ghc, blame: "build", condition: oom, reason: "2 processes were killed"},
		{name: "a process of cabal's is killed for memory", text: cabal, blame: "build", condition: oom, reason: "2 processes were killed"},
		{name: "a recipe is killed for memory", text: recipe, blame: "build", condition: oom, reason: "2 processes were killed"},
		{name: "a child of Python's is killed for memory", text: python, blame: "build", condition: oom, reason: "2 processes were killed"},
		{name: "a single process is killed for memory", text: killed234, blame: "kill", condition: one, reason: "it ran out of memory, and a process was killed"},
		{name: "a process of rustc's is killed", text: cargo, blame: "build", final: true},
		{name: "a compiler is killed", text: compiler, blame: "build", final: true},
		{name: "no output after a kill", text: noOutput, blame: "build", condition: leaving, reason: "it is about to leave"},
		{name: "a hash is wrong, wherever", text: wrongHash, blame: "verdict", condition: full, final: true},
		{name: "its log lies", text: liar, blame: "build", final: true},
		{name: "Nix suspects the disk", text: noRoom226, blame: "disk", condition: unknown, reason: "failed with exit code 1"},
		{name: "Nix suspects the disk in vain", text: noRoom226, blame: "disk", final: true},
		{name: "no room", text: noRoom, blame: "disk", condition: full, reason: "its disk was full"},
		{name: "no room, but there is", text: noRoom, blame: "disk", final: true},
		{name: "no room, nobody knows", text: noRoom, blame: "disk", condition: unknown, reason: "writing to file: No space left on device"},
		{name: "the daemon is gone", text: gone, blame: "machine", reason: "Nix daemon disconnected unexpectedly (maybe it crashed?)"},
		{name: "gone on each", text: gone, blame: "machine", again: true, reason: "Nix daemon disconnected"},
		{name: "no way there", text: cannot, blame: "machine", reason: "cannot build on"},
		{name: "no signature", text: unsigned, blame: "verdict", final: true},
		{name: "wrong system", text: wrongSystem, blame: "verdict", condition: leaving, final: true},
		{name: "its daemon is interrupted", text: interrupted, blame: "machine", reason: "interrupted by the user"},
		{name: "a builder that can't set up", text: setUp, blame: "nobody knows", reason: "while setting up"},
		{name: "none can set up", text: setUp, blame: "nobody knows", again: true, final: true},
		{name: "timed out there", text: timedOut, blame: "verdict", final: true},
		{name: "nothing to download", text: notFound, blame: "build", final: true},
		{name: "no name to download from", text: noName, blame: "nobody knows", reason: "Could not resolve"},
		{name: "unheard of", text: unheardOf, blame: "nobody knows", reason: "the moon is in the wrong phase"},
		{name: "unheard of, twice", text: unheardOf, blame: "nobody knows", again: true, final: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := hook.Diagnose(tc.text); got != tc.blame {
				t.Errorf("the blame is on %s, want %s", got, tc.blame)
			}
			final, reason := hook.Judge(tc.text, tc.condition, tc.again)
			if final != tc.final || !strings.Contains(reason, tc.reason) {
				t.Errorf("final: %v, want %v; reason %q, want %q", final, tc.final, reason, tc.reason)
			}
			if !final && (reason == "" || len(reason) > 200 || strings.Contains(reason, "\n")) {
				t.Errorf("%q is no reason for a person", reason)
			}
		})
	}
}
