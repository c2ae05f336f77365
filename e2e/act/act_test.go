package act_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/act"
)

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 90*time.Second, fmt.Errorf("not within 90 s"))
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute: not %s", what)
		}
	}
}

const isolation = `
on: workflow_dispatch
jobs:
  job:
    strategy:
      matrix:
        os: [ubuntu-24.04, macos-26]
    runs-on: ${{ matrix.os }}
    steps:
      - run: |
          touch /tmp/mine "$HOME/mine" "$GITHUB_WORKSPACE/mine"
          ls /tmp $HOME $GITHUB_WORKSPACE
          echo "I am $(id -un) on $(hostname) in $PWD, attempt $GITHUB_RUN_ATTEMPT of $GITHUB_REPOSITORY/$GITHUB_RUN_ID"
          sudo -n id -un
          ! command -v nix
          setsid --fork sleep 1000 >/dev/null 2>&1
          echo "X=via env" >>"$GITHUB_ENV"
          mkdir "$RUNNER_TEMP/bin"
          printf '#!/bin/sh\necho my tool\n' >"$RUNNER_TEMP/bin/tool"
          chmod +x "$RUNNER_TEMP/bin/tool"
          echo "$RUNNER_TEMP/bin" >>"$GITHUB_PATH"
          echo "# A summary of ${{ matrix.os }}" >>"$GITHUB_STEP_SUMMARY"
      - run: |
          echo "$X"
          tool
          exit 7
`

// Each job has a machine to itself, and its steps see what earlier ones left there.
func TestJobsAreOnMachinesOfTheirOwn(t *testing.T) {
	b := act.Start(t, act.Config{})
	r := b.Run(t, act.Workflow{Text: isolation, RunID: 4711, Attempt: 3})
	ok, err := r.Wait(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if ok {
		t.Error("a run whose jobs fail succeeded")
	}
	jobs := r.Jobs()
	if len(jobs) != 2 || jobs[0].Host == jobs[1].Host {
		t.Fatalf("jobs: %v", jobs)
	}
	for i, want := range []string{"job macos-26", "job ubuntu-24.04"} {
		j := jobs[i]
		if j.String() != want {
			t.Errorf("job %q, want %q", j, want)
		}
		steps := j.Steps()
		if len(steps) != 2 || steps[0].Code != 0 || steps[1].Code != 7 {
			t.Fatalf("steps of %s: %+v", j, steps)
		}
		workspace := steps[0].Env["GITHUB_WORKSPACE"]
		wantOutput := fmt.Sprintf("/home/runner:\nmine\n\n/tmp:\nmine\n\n%s:\nmine\n"+
			"I am runner on %s in %s, attempt 3 of acme/site/4711\nroot\nvia env\nmy tool\n", workspace, j.Host.Name(), workspace)
		if diff := cmp.Diff(sortBlocks(wantOutput), sortBlocks(j.Output())); diff != "" {
			t.Errorf("output of %s (-want +got):\n%s", j, diff)
		}
		if want := "# A summary of " + j.Label + "\n"; j.Summary() != want {
			t.Errorf("summary %q, want %q", j.Summary(), want)
		}
		if len(j.Left) != 1 || j.Left[0].Argv[0] != "sleep" {
			t.Errorf("left on %s: %v", j.Host.Name(), j.Left)
		}
	}
	if hosts := b.Lab.Hosts(); len(hosts) != 1 {
		t.Errorf("hosts are left: %v", hosts)
	}
}

// sortBlocks makes the order of ls's directories, which are named at random, not matter.
func sortBlocks(text string) []string { return strings.Split(text, "\n\n") }

const patient = `
on: workflow_dispatch
jobs:
  job:
    runs-on: ubuntu-24.04
    steps:
      - run: |
          trap 'echo interrupted; exit 130' INT
          echo ready
          while :; do sleep 0.05; done
      - run: echo never
      - if: always()
        run: echo afterwards
`

// A cancelled step is interrupted, gets its time, and only then the job goes on.
func TestCancel(t *testing.T) {
	b := act.Start(t, act.Config{})
	r := b.Run(t, act.Workflow{Text: patient})
	eventually(t, "ready", func() bool { return len(r.Jobs()) > 0 && strings.Contains(r.Jobs()[0].Output(), "ready") })
	if err := r.Cancel(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Wait(bounded(t)); err != nil {
		t.Fatal(err)
	}
	j := r.Jobs()[0]
	if got, want := j.Output(), "ready\ninterrupted\nafterwards\n"; got != want {
		t.Errorf("the job printed %q, want %q", got, want)
	}
	s := j.Steps()[0]
	if diff := cmp.Diff([]syscall.Signal{syscall.SIGINT}, s.Signals); diff != "" || s.Code != 130 {
		t.Errorf("code %d after the signals (-want +got):\n%s", s.Code, diff)
	}
	if _, err := os.Stat(s.Env["GITHUB_WORKSPACE"]); err == nil {
		t.Error("the workspace is still there")
	}
}
