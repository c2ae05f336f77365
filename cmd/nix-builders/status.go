package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

var statusCommand = command{
	name:    "status",
	args:    "[--watch] [--json]",
	summary: "show the cluster",
	detail: `Asks the coordinator that runs on this host or, elsewhere on the tailnet, the one
that NIX_BUILDERS_API names (http://HOST:8378/v1).

  --watch   show it anew at each change, until it has stopped
  --json    as JSON, one cluster a line, as the API has it`,
	run: func(ctx context.Context, a *app, args []string) error {
		var watch, asJSON bool
		args, err := a.flags("status", args, func(fs *flag.FlagSet) {
			fs.BoolVar(&watch, "watch", false, "")
			fs.BoolVar(&asJSON, "json", false, "")
		})
		if err != nil {
			return err
		}
		if len(args) > 0 {
			return usagef("status takes no argument %q", clip(args[0]))
		}
		api, err := a.set.reach()
		if err != nil {
			return err
		}
		c, err := api.Cluster(ctx)
		if err != nil {
			return err
		}
		for {
			if err := a.show(c, watch, asJSON); err != nil {
				return err
			}
			if !watch || c.Phase == "stopped" {
				return nil
			}
			if c, err = nextCluster(ctx, api, c); errors.Is(err, context.Canceled) {
				return nil // the person has seen enough
			} else if err != nil {
				return err
			}
		}
	},
}

// refresh is how often a watched cluster is shown though nothing happened: ages and
// vitals grow old without a new revision.
const refresh = 10 * time.Second

// nextCluster waits for the cluster's next revision, at most refresh. A stopping
// cluster answers at once, so the pace is kept here.
func nextCluster(ctx context.Context, api *apiclient.API, c apiclient.Cluster) (apiclient.Cluster, error) {
	if c.Phase == "stopping" || c.Phase == "failed" {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return c, context.Cause(ctx)
		}
		return api.Cluster(ctx)
	}
	return api.AwaitCluster(ctx, c.Revision, refresh)
}

func (a *app) show(c apiclient.Cluster, watch, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(c)
	}
	if watch && isTerminal(a.stdout) {
		fmt.Fprint(a.stdout, "\x1b[H\x1b[2J")
	}
	writeCluster(a.stdout, c, time.Now())
	return nil
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
