package act

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// Job is one job of a run, on its host.
type Job struct {
	ID     string         // as the workflow calls it
	Matrix map[string]any // its values of the matrix
	Label  string         // what machine it asked for, if the matrix says so
	Host   *testbed.Host  // removed when the run is over
	// Left are the processes that were on the host when the run was over, without
	// Nix's daemon.
	Left []testbed.Process

	turn  sync.Mutex // held by the step that runs
	mu    sync.Mutex
	steps []*Step // guarded by mu
}

// Steps are the programs that the job ran so far, the one that runs among them.
func (j *Job) Steps() []*Step {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.steps)
}

func (j *Job) add(s *Step) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.steps = append(j.steps, s)
}

// Output is all that the job's steps printed so far.
func (j *Job) Output() string {
	var all strings.Builder
	for _, s := range j.Steps() {
		all.WriteString(s.Output())
	}
	return all.String()
}

// Summary is the job's summary page.
func (j *Job) Summary() string {
	var all strings.Builder
	for _, s := range j.Steps() {
		select {
		case <-s.done:
			all.WriteString(s.Summary)
		default:
		}
	}
	return all.String()
}

// OK reports whether every step so far ended well. Act itself has one result for
// all jobs of a matrix.
func (j *Job) OK() bool {
	return !slices.ContainsFunc(j.Steps(), func(s *Step) bool {
		select {
		case <-s.done:
			return s.Code != 0
		default:
			return false
		}
	})
}

func (j *Job) String() string {
	if j.Label == "" {
		return j.ID
	}
	return j.ID + " " + j.Label
}

// job returns the job that the environment is of, which its temporary directory
// tells, with a host for it.
func (r *Run) job(ctx context.Context, env map[string]string) (*Job, error) {
	dir := env["RUNNER_TEMP"]
	if dir == "" {
		return nil, errors.New("act runs it outside of any job")
	}
	r.mu.Lock()
	b := r.jobs[dir]
	if b == nil {
		b = &berth{}
		r.jobs[dir] = b
	}
	r.mu.Unlock()
	b.once.Do(func() {
		j, err := r.board(ctx, env)
		r.mu.Lock()
		defer r.mu.Unlock()
		b.job, b.err = j, err
	})
	return b.job, b.err
}

// berth is a job's place on a host.
type berth struct {
	once sync.Once // for the job's first program
	job  *Job      // guarded by the run's mu until once is done
	err  error     // set by once
}

// board boots a host for a job.
func (r *Run) board(ctx context.Context, env map[string]string) (*Job, error) {
	j := &Job{ID: env["GITHUB_JOB"]}
	if err := json.Unmarshal([]byte(env[matrixVariable]), &j.Matrix); err != nil {
		return nil, fmt.Errorf("read the matrix of job %s: %w", j.ID, err)
	}
	j.Label = label(j.Matrix)
	var err error
	if j.Host, err = r.bed.boot(ctx, j, r.workflow); err != nil {
		return nil, err
	}
	return j, r.fillWorkspace(ctx, j, env["GITHUB_WORKSPACE"])
}

// matrixVariable is how a job's environment tells the portal of its matrix. The
// job does not see it.
const matrixVariable = "LAB_MATRIX"

// label finds the label of the machine in a matrix: the value called os.
func label(v any) string {
	m, ok := v.(map[string]any)
	if !ok {
		return ""
	}
	switch os := m["os"].(type) {
	case string:
		return os
	case []any:
		if len(os) > 0 {
			return fmt.Sprint(os[0])
		}
	}
	for _, inner := range m {
		if l := label(inner); l != "" {
			return l
		}
	}
	return ""
}

// system is the Nix system of GitHub's machines with that label.
func system(label string) string {
	switch {
	case strings.HasPrefix(label, "macos") && strings.HasSuffix(label, "-intel"):
		return "x86_64-darwin"
	case strings.HasPrefix(label, "macos"):
		return "aarch64-darwin"
	case strings.HasSuffix(label, "-arm"):
		return "aarch64-linux"
	}
	return "x86_64-linux"
}
