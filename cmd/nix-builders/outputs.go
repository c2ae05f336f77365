package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/actions"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
)

// A readyBuilder is what the steps that follow learn of a builder.
type readyBuilder struct {
	Name    string   `json:"name"`
	Systems []string `json:"systems"`
	Cores   int      `json:"cores"`
	MaxJobs int      `json:"max_jobs"`
}

// readyBuilders are those that Nix builds on, in the order of the settings, and what
// they are together.
func readyBuilders(c apiclient.Cluster) (builders []readyBuilder, systems []string, cores, jobs int) {
	builders = []readyBuilder{}
	all := make(map[string]bool)
	for _, b := range c.Builders {
		if b.State != "ready" || b.Offer == nil {
			continue
		}
		one := readyBuilder{Name: b.Name, Systems: b.Offer.Systems, Cores: b.Offer.Cores}
		if b.MaxJobs != nil {
			one.MaxJobs = *b.MaxJobs
		}
		builders = append(builders, one)
		cores, jobs = cores+one.Cores, jobs+one.MaxJobs
		for _, s := range one.Systems {
			all[s] = true
		}
	}
	return builders, append([]string{}, slices.Sorted(maps.Keys(all))...), cores, jobs
}

// setOutputs gives what is known of the ready cluster to the workflow, and says in a line
// beside the run what it is. Off GitHub it does nothing.
func (a *app) setOutputs(server rundir.Server, c apiclient.Cluster, took time.Duration) error {
	if a.step == nil {
		return nil
	}
	builders, systems, cores, jobs := readyBuilders(c)
	buildersJSON, err := json.Marshal(builders)
	systemsJSON, err2 := json.Marshal(systems)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("set outputs of the step: %w", err)
	}
	if err := errors.Join(
		a.step.files.SetOutputs(
			actions.Pair{Name: "api", Value: server.API},
			actions.Pair{Name: "builders", Value: string(buildersJSON)},
			actions.Pair{Name: "systems", Value: string(systemsJSON)},
			actions.Pair{Name: "machines_file", Value: a.set.Files.MachinesFile},
			actions.Pair{Name: "builders_ready", Value: strconv.Itoa(len(builders))},
			actions.Pair{Name: "builders_expected", Value: strconv.Itoa(len(c.Builders))},
			actions.Pair{Name: "cores", Value: strconv.Itoa(cores)},
			actions.Pair{Name: "max_jobs", Value: strconv.Itoa(jobs)},
			actions.Pair{Name: "gather_seconds", Value: strconv.FormatFloat(took.Seconds(), 'f', 1, 64)},
		),
		a.step.files.SetEnv(actions.Pair{Name: prefix + "_API", Value: server.API}),
	); err != nil {
		return err
	}
	a.step.log.Notice("The builders are ready", fmt.Sprintf("%d of %d builders after %s: %d cores, %d builds at a time, for %s.",
		len(builders), len(c.Builders), span(took), cores, jobs, printable(strings.Join(systems, ", "))))
	return nil
}
