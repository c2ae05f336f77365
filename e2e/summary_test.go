package e2e_test

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// What a workflow's steps hand over to GitHub, and what people read there: outputs,
// variables, messages beside the run, and the summary of what became of the builders.
func TestSummary(t *testing.T) {
	t.Parallel() // it mostly waits
	lab := startLab(t, testbed.Config{Builders: 3})
	b1, b2, b3 := testbed.Builder(1), testbed.Builder(2), testbed.Builder(3)

	t.Run("one is killed and one says ugly things", func(t *testing.T) {
		w := newWorkflow(t, lab, "summary", 3)
		w.Env["NIX_BUILDERS_LEASE"] = "6"
		gather := w.gather(b1, b2, b3)
		w.wantExit(gather.Process, 0)

		now := w.await("ready", func(now apiclient.Cluster) bool { return now.Phase == apiclient.PhaseReady })
		gather.checkOutputs(now)
		gather.wantCommands("group", "endgroup", "notice")
		if got := gather.message("notice", "The builders are ready"); !strings.HasPrefix(got, "3 of 3 builders after ") {
			t.Errorf("notice: %q", got)
		}
		if got := gather.read("summary"); got != "" {
			t.Errorf("a summary before the end:\n%s", got)
		}
		env := gather.pairs("env")
		if diff := cmp.Diff(map[string]string{"NIX_BUILDERS_API": w.api()}, env); diff != "" {
			t.Errorf("variables (-want +got):\n%s", diff)
		}

		build, err := w.Build(t.Context(), testbed.Runner, "fan-in.nix", w.Suffix)
		if err != nil {
			t.Fatal(err)
		}
		w.wantExit(build, 0)

		// The reason of a departure is the builder's own words.
		ugly, _ := builderOf(now, w.NameOf(b2))
		w.must(b2, "curl", "-sS", "--fail-with-body", "--max-time", "10", "--json",
			`{"reason": "failed", "detail": "\n::error::caught\r##[error]caught <img src=x> | [a](b) `+"```"+`"}`,
			fmt.Sprintf("%s/builders/%s/departure", w.api(), ugly.Id))
		if err := lab.Host(b1).Kill(within(t, patience)); err != nil {
			t.Fatal(err)
		}
		w.awaitState(b1, "lost")
		w.awaitState(b2, "departed")

		stop := w.run("stop", []string{"NIX_BUILDERS_API=" + env["NIX_BUILDERS_API"]}, "stop-nix-builders")
		w.wantExit(stop.Process, 0)
		stop.wantCommands("warning")
		if got := stop.message("warning", "Builders were lost"); !strings.HasPrefix(got, w.NameOf(b1)+" (silent for ") {
			t.Errorf("warning: %q", got)
		}
		told := stop.read("summary")
		contains(t, "the summary of the stop", told,
			"### Distributed Nix builds: of 3 builders, 1 was released, 1 was lost, 1 left by itself\n",
			"| "+w.NameOf(b1)+" | x86_64-linux ", " | lost: silent for ",
			" | left: something went wrong on it (&#58;&#58;error&#58;&#58;caught &#35;&#35;&#91;error&#93;caught &#60;img src=x&#62; &#124; ",
			"| "+w.NameOf(b3)+" | x86_64-linux ", " | released |\n",
			"```mermaid\ngantt\n", "· "+w.NameOf(b1)+" :crit, ",
			"of the coordinator so far", "Those that were released do not wait for the rest of this job.",
			"- Lost: "+w.NameOf(b1)+". Was the job cancelled",
		)
		if !strings.Contains(told, " of builds, up to ") && !strings.Contains(told, " | no build seen | ") {
			t.Errorf("the summary does not say what was seen of builds:\n%s", told)
		}
		contains(t, "the log of the stop", stop.Output(), "Distributed Nix builds: of 3 builders", "lost: silent for ", "Released 1 of 1 builders")
		if strings.Contains(stop.Output(), "left after") {
			t.Errorf("the stop tells departures twice:\n%s", stop.Output())
		}
		// Once is enough.
		again := w.run("again", nil, "stop-nix-builders")
		w.wantExit(again.Process, 0)
		again.wantCommands()
		if got := again.read("summary"); got != "" {
			t.Errorf("the second stop adds to the summary:\n%s", got)
		}

		post := w.run("post", nil, "nix-builders", "leave")
		w.wantExit(post.Process, 0)
		post.wantCommands("group", "endgroup")
		contains(t, "the summary of the post step", post.read("summary"), "after the stop", "- The early stop saved ")
		contains(t, "the log of the post step", post.Output(), "The early stop saved ", "::group::Log of the coordinator's server")
		if got := post.read("summary"); strings.Contains(got, "gantt") {
			t.Errorf("the post step repeats the summary:\n%s", got)
		}
		if err := lab.Host(b1).Restart(within(t, patience)); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("never stopped", func(t *testing.T) {
		w := newWorkflow(t, lab, "unstopped", 2)
		w.wantExit(w.gather(b1, b2).Process, 0)
		post := w.run("post", nil, "nix-builders", "leave")
		w.wantExit(post.Process, 0)
		post.wantCommands("group", "endgroup")
		contains(t, "the summary of the post step", post.read("summary"),
			"### Distributed Nix builds: all 2 builders were released\n", "held until the end of this job. Call stop-nix-builders", "of the coordinator.")
		contains(t, "the log of the post step", post.Output(), "Distributed Nix builds: all 2 builders were released.")
		w.wantReleased()
	})

	t.Run("one is missing, in a second attempt", func(t *testing.T) {
		w := newWorkflow(t, lab, "second", 2)
		w.Env["NIX_BUILDERS_GATHER_TIMEOUT"], w.Env["GITHUB_RUN_ATTEMPT"] = "8", "2"
		gather := w.gather(b1)
		w.wantExit(gather.Process, 1)
		gather.wantCommands("group", "endgroup", "error")
		contains(t, "the error", gather.message("error", "Builders are missing"),
			"tag:nix-ci-coordinator on port 8378", "This is attempt 2 of the run", `"Re-run all jobs"`)
		contains(t, "the log", gather.Output(), "1 of 2 builders are ready, 2 are needed", w.NameOf(b2)+": expected for")
		if got := gather.pairs("output"); len(got) > 0 {
			t.Errorf("outputs of a cluster that is not ready: %v", got)
		}
		post := w.run("post", nil, "nix-builders", "leave")
		w.wantExit(post.Process, 0)
		contains(t, "the summary", post.read("summary"),
			"### Distributed Nix builds: the builders did not get ready: of 2 builders, 1 was released, 1 never came\n", "- Never came: "+w.NameOf(b2))

		// Nor does a builder wait for a coordinator of another attempt.
		alone := w.step(b2, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey, "NIX_BUILDERS_BUILDER_TIMEOUT=3"}, "nix-builders", "builder")
		w.wantExit(alone, 1)
		contains(t, "the builder", alone.Output(), "::error title=Nobody claimed this builder::nobody claimed builder "+w.NameOf(b2), "This is attempt 2 of the run")
	})

	t.Run("one does not leave", func(t *testing.T) {
		w := newWorkflow(t, lab, "stuck", 2)
		w.wantExit(w.gather(b1, b2).Process, 0)
		if err := lab.Host(b1).Cut(within(t, patience)); err != nil {
			t.Fatal(err)
		}
		stop := w.run("stop", nil, "stop-nix-builders", "--wait", "2s")
		w.wantExit(stop.Process, 1)
		stop.wantCommands("warning")
		contains(t, "the warning", stop.message("warning", "Builders did not leave"), w.NameOf(b1)+" (", "cancel its job")
		contains(t, "the summary", stop.read("summary"), "of 2 builders, 1 was released, 1 did not leave\n", " | did not leave, is still ready |")
		if err := lab.Host(b1).Heal(within(t, patience)); err != nil {
			t.Fatal(err)
		}
		w.awaitState(b1, "departed")
		post := w.run("post", nil, "nix-builders", "leave")
		w.wantExit(post.Process, 0)
		contains(t, "the summary of the post step", post.read("summary"), w.NameOf(b1)+" released.", "The early stop saved ")
	})
}

// A workflow is a job whose steps run on GitHub, as far as they can tell.
type workflow struct{ job }

func newWorkflow(t *testing.T, lab *testbed.Lab, suffix string, builders int) workflow {
	w := workflow{newJob(t, lab, suffix, builders)}
	w.Env["GITHUB_ACTIONS"], w.Env["GITHUB_RUN_ATTEMPT"] = "true", "1"
	return w
}

// A workflowStep is a step with the files that GitHub's runner makes for it.
type workflowStep struct {
	*fleet.Process
	w   workflow
	dir string
}

// run runs a step on the coordinator's host, with files of its own.
func (w workflow) run(name string, env []string, argv ...string) workflowStep {
	w.t.Helper()
	s := workflowStep{w: w, dir: path.Join("/home/runner/_temp", w.Suffix, name)}
	code, printed := w.as(testbed.Runner, w.Coordinator, "sh", "-c", `mkdir -p "$1" && cd "$1" && touch output env path state summary`, "sh", s.dir)
	if code != 0 {
		w.t.Fatalf("make the step's files: code %d: %s", code, printed)
	}
	env = append([]string{
		"GITHUB_OUTPUT=" + s.dir + "/output", "GITHUB_ENV=" + s.dir + "/env", "GITHUB_PATH=" + s.dir + "/path",
		"GITHUB_STATE=" + s.dir + "/state", "GITHUB_STEP_SUMMARY=" + s.dir + "/summary",
	}, env...)
	s.Process = w.step(w.Coordinator, env, argv...)
	return s
}

// gather starts builders, and the coordinator's step to its end.
func (w workflow) gather(hosts ...string) workflowStep {
	w.t.Helper()
	for _, host := range hosts {
		w.builders[host] = w.step(host, []string{"NIX_BUILDERS_AUTH_KEY=" + control.CIKey}, "nix-builders", "builder")
	}
	w.join(w.Coordinator)
	return w.run("gather", nil, "nix-builders", "coordinator")
}

func (s workflowStep) read(file string) string {
	s.w.t.Helper()
	return output(s.w.t, s.w.Host(s.w.Coordinator), testbed.Runner, "cat", s.dir+"/"+file)
}

// pairs reads a file of assignments as GitHub's runner does.
func (s workflowStep) pairs(file string) map[string]string {
	s.w.t.Helper()
	all := map[string]string{}
	for rest := s.read(file); rest != ""; {
		line, after, _ := strings.Cut(rest, "\n")
		rest = after
		name, value, plain := strings.Cut(line, "=")
		if before, end, heredoc := strings.Cut(line, "<<"); heredoc && len(before) < len(name) {
			name = before
			if value, after, plain = strings.Cut(rest, "\n"+end+"\n"); plain {
				rest = after
			}
		}
		if !plain {
			s.w.t.Fatalf("%s: the runner can't read %q", file, line)
		}
		all[name] = value
	}
	return all
}

// checkOutputs compares the outputs with the cluster that they are about.
func (s workflowStep) checkOutputs(c apiclient.Cluster) {
	s.w.t.Helper()
	type builder struct {
		Name    string   `json:"name"`
		Systems []string `json:"systems"`
		Cores   int      `json:"cores"`
		MaxJobs int      `json:"max_jobs"`
	}
	var builders []builder
	systems, cores, jobs := []string{}, 0, 0
	for _, b := range c.Builders {
		builders = append(builders, builder{b.Name, b.Offer.Systems, b.Offer.Cores, *b.MaxJobs})
		systems = append(systems, b.Offer.Systems...)
		cores, jobs = cores+b.Offer.Cores, jobs+*b.MaxJobs
	}
	slices.Sort(systems)
	list, _ := json.Marshal(builders)
	systemList, _ := json.Marshal(slices.Compact(systems))
	got := s.pairs("output")
	if seconds, err := strconv.ParseFloat(got["gather_seconds"], 64); err != nil || seconds <= 0 || seconds > patience.Seconds() {
		s.w.t.Errorf("gather_seconds: %q", got["gather_seconds"])
	}
	delete(got, "gather_seconds")
	want := map[string]string{
		"api": s.w.api(), "builders": string(list), "systems": string(systemList), "machines_file": "/etc/nix/machines",
		"builders_ready": strconv.Itoa(len(builders)), "builders_expected": strconv.Itoa(len(s.w.Builders)),
		"cores": strconv.Itoa(cores), "max_jobs": strconv.Itoa(jobs),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.w.t.Errorf("outputs (-want +got):\n%s", diff)
	}
}

// A workflowCommand is a line of a log that GitHub's runner obeys.
type workflowCommand struct{ name, properties, data string }

// commands are the lines of the log that GitHub's runner would obey, of the newer form and
// of the older one, which counts anywhere in a line.
func (s workflowStep) commands() (all []workflowCommand) {
	for line := range strings.Lines(strings.ReplaceAll(s.Output(), "\r", "\n")) {
		line = strings.TrimRight(line, "\n")
		if _, old, ok := strings.Cut(line, "##["); ok {
			all = append(all, workflowCommand{name: "##[" + old})
			continue
		}
		if text, ok := strings.CutPrefix(strings.TrimLeftFunc(line, unicode.IsSpace), "::"); ok {
			head, data, _ := strings.Cut(text, "::")
			name, properties, _ := strings.Cut(head, " ")
			unescape := strings.NewReplacer("%3A", ":", "%2C", ",", "%0D", "\r", "%0A", "\n", "%25", "%")
			all = append(all, workflowCommand{name, unescape.Replace(properties), unescape.Replace(data)})
		}
	}
	return all
}

// wantCommands checks the names of the log's commands, in their order.
func (s workflowStep) wantCommands(want ...string) {
	s.w.t.Helper()
	var got []string
	for _, c := range s.commands() {
		got = append(got, c.name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.w.t.Errorf("%s: commands (-want +got):\n%s\nin:\n%s", s, diff, s.Output())
	}
}

// message is what one of those commands says.
func (s workflowStep) message(name, title string) string {
	for _, c := range s.commands() {
		if c.name == name && c.properties == "title="+title {
			return c.data
		}
	}
	return ""
}
