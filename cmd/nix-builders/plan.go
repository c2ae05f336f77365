package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/actions"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/plan"
)

// maxWanted is far more than 256 entries need.
const maxWanted = 1 << 20

// defaultDryRun is how long Nix may evaluate what is to be built: it may fetch inputs, and
// a big configuration takes minutes.
const defaultDryRun = 10 * time.Minute

var planCommand = command{
	name:    "plan",
	args:    "[--suffix WORD] [--installables TEXT] [BUILDERS]",
	summary: "turn what builders are wanted into a job matrix and host names",
	detail: `BUILDERS is JSON; without it, it is read from standard input. Either counts, an
object from runner label to number of builders,
  {"ubuntu-24.04": 2, "macos-26": 1}
or a list of labels and of objects that say more:
  ["macos-26", {"runs-on": ["self-hosted", "big"], "count": 2, "name": "big",
                "max_jobs": 8, "speed_factor": 2}]

Prints lines for $GITHUB_OUTPUT:
  matrix=JSON             one {"os", "id", "name"} for each builder: what runs-on
                          takes, an id, its host name; and max_jobs and
                          speed_factor where they were given
  builders=NAMES          their host names, for the coordinator
  suffix=WORD             what tells this run's names from another's
  count=N                 how many builders there are
  needed=BOOLEAN          whether there is anything to build
and the first three again as builder_matrix, builders_list and run_suffix.

  --suffix WORD           use WORD (a-z, 0-9) instead of a random suffix
  --installables TEXT     ask Nix (nix build --dry-run) for what is left to build of
                          these installables, separated by white space; needed is
                          false if that is nothing. If Nix can't tell, needed is
                          true, with a warning. Without it, needed is true.
  --timeout DURATION      how long Nix may take for its answer; default 10m`,
	run: func(ctx context.Context, a *app, args []string) error {
		var (
			suffix       string
			installables []string
			timeout      = defaultDryRun
		)
		args, err := a.flags("plan", args, func(fs *flag.FlagSet) {
			fs.StringVar(&suffix, "suffix", "", "")
			fs.Func("installables", "", func(text string) error {
				installables = append(installables, strings.Fields(text)...)
				return nil
			})
			fs.DurationVar(&timeout, "timeout", timeout, "")
		})
		if err != nil {
			return err
		}
		var wanted []byte
		switch len(args) {
		case 0:
			if wanted, err = io.ReadAll(io.LimitReader(a.stdin, maxWanted)); err != nil {
				return fmt.Errorf("read builders from standard input: %w", err)
			}
		case 1:
			wanted = []byte(args[0])
		default:
			return usagef("more than one argument; is the JSON quoted?")
		}
		if timeout <= 0 {
			return usagef("--timeout %v: want more than 0", timeout)
		}
		if suffix == "" {
			b := make([]byte, 3)
			rand.Read(b)
			suffix = hex.EncodeToString(b)
		}
		p, err := plan.Parse(wanted, suffix)
		if err != nil {
			return &usageError{err}
		}
		needed, err := a.clusterNeeded(ctx, installables, timeout)
		if err != nil {
			return err
		}
		if a.onGitHub {
			// Where standard output is no log but the step's outputs.
			fmt.Fprintf(a.stderr, "Planned %d builders: %s\n", len(p.Builders), strings.Join(p.Hosts(), " "))
		}
		return p.WriteOutputs(a.stdout, needed)
	},
}

// clusterNeeded asks Nix whether any of the installables is left to build. What Nix can't
// tell is answered with yes: a cluster that was not needed costs minutes, one that is
// missing the build. Only being cancelled is an error.
func (a *app) clusterNeeded(ctx context.Context, installables []string, timeout time.Duration) (bool, error) {
	if len(installables) == 0 {
		return true, nil
	}
	// Standard output holds nothing but the plan's lines.
	out, log := a.stderr, (*actions.Log)(nil)
	if a.onGitHub {
		log = actions.NewLog(a.stderr)
		out = log
		log.Group("Asking Nix what is left to build")
	}
	asking, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	missing, err := plan.Nix{
		Env: a.planEnvironment(),
		Say: func(line string) { fmt.Fprintln(out, line) },
	}.Missing(asking, installables)
	if log != nil {
		log.EndGroup()
	}
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case err != nil && log != nil:
		log.Warning("Cluster planned unseen", fmt.Sprintf("The builders are started without knowing whether there is work for them: %v", err))
	case err != nil:
		fmt.Fprintf(out, "warning: the cluster is planned without knowing whether there is work for it: %v\n", err)
	case missing == 0:
		fmt.Fprintln(out, "Nothing is left to build: the cluster is not needed.")
	case missing == 1:
		fmt.Fprintln(out, "1 derivation is left to build: the cluster is needed.")
	default:
		fmt.Fprintf(out, "%d derivations are left to build: the cluster is needed.\n", missing)
	}
	return err != nil || missing > 0, nil
}

// planEnvironment is what Nix gets: ours, with the configuration that the build will have.
func (a *app) planEnvironment() []string {
	config := []string{os.Getenv("NIX_CONFIG"), a.set.Files.ExtraNixConfig}
	return append(os.Environ(), "NIX_CONFIG="+strings.Join(config, "\n"))
}
