package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"io"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/plan"
)

// maxCounts is far more than 256 entries need.
const maxCounts = 1 << 20

var planCommand = command{
	name:    "plan",
	args:    "[--suffix WORD] [COUNTS]",
	summary: "turn builder counts into a job matrix and host names",
	detail: `COUNTS is a JSON object from runner label to number of builders,
{"ubuntu-24.04": 2, "macos-26": 1}; without it, it is read from standard input.

Prints lines for $GITHUB_OUTPUT:
  builder_matrix=JSON     one {"os", "id"} for each builder
  builders_list=NAMES     their host names, for the coordinator
  run_suffix=WORD         what tells this run's names from another's

  --suffix WORD           use WORD (a-z, 0-9) instead of a random suffix`,
	run: func(_ context.Context, a *app, args []string) error {
		var suffix string
		args, err := a.flags("plan", args, func(fs *flag.FlagSet) { fs.StringVar(&suffix, "suffix", "", "") })
		if err != nil {
			return err
		}
		var counts []byte
		switch len(args) {
		case 0:
			if counts, err = io.ReadAll(io.LimitReader(a.stdin, maxCounts)); err != nil {
				return fmt.Errorf("read counts from standard input: %w", err)
			}
		case 1:
			counts = []byte(args[0])
		default:
			return usagef("more than one argument; is the JSON quoted?")
		}
		if suffix == "" {
			b := make([]byte, 3)
			rand.Read(b)
			suffix = hex.EncodeToString(b)
		}
		p, err := plan.Parse(counts, suffix)
		if err != nil {
			return &usageError{err}
		}
		return p.WriteOutputs(a.stdout)
	},
}
