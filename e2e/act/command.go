package act

import (
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// labels are those of machines that a workflow may ask for.
var labels = []string{
	"ubuntu-latest", "ubuntu-24.04", "ubuntu-24.04-arm", "ubuntu-22.04", "ubuntu-slim",
	"macos-latest", "macos-15", "macos-15-intel", "macos-26", "macos-26-intel",
}

func (r *Run) command() *exec.Cmd {
	in := func(name string) string { return filepath.Join(r.dir, name) }
	args := []string{
		r.workflow.Event, "--directory", in("work"), "--workflows", in("work/.github/workflows/workflow.yml"),
		"--secret-file", in("secrets"), "--var-file", in("vars"), "--env-file", in("env"), "--input-file", in("inputs"),
		"--action-cache-path", in("cache"), "--no-cache-server", "--concurrent-jobs", "16", "--rm",
	}
	for _, l := range labels {
		args = append(args, "--platform", l+"=-self-hosted")
	}
	for _, name := range slices.Sorted(maps.Keys(r.bed.actions)) {
		args = append(args, "--local-repository", name+"="+r.bed.actions[name])
	}
	for k, v := range map[string]string{
		"GITHUB_RUN_ID":           strconv.Itoa(r.ID),
		"GITHUB_RUN_ATTEMPT":      strconv.Itoa(r.Attempt),
		"GITHUB_REPOSITORY":       "acme/site",
		"GITHUB_REPOSITORY_OWNER": "acme",
		"GITHUB_REF":              "refs/heads/main",
		"SHA_REF":                 strings.Repeat("0", 40),
		matrixVariable:            "${{ toJSON(matrix) }}",
	} {
		args = append(args, "--env", k+"="+v)
	}
	if r.workflow.Job != "" {
		args = append(args, "--job", r.workflow.Job)
	}
	cmd := exec.Command(r.bed.act, args...)
	cmd.Dir = in("work")
	// All of it reaches the jobs, which is why there is so little; see environment.
	cmd.Env = []string{"PATH=" + in("shims"), "HOME=" + in("home")}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uid, Gid: uid},
		Setpgid:    true,
	}
	dieWithParent(cmd)
	cmd.Stdout, cmd.Stderr = logWriter{r}, logWriter{r}
	return cmd
}

// environment is what a step of the job sees, from what act has given it.
func (r *Run) environment(j *Job, act map[string]string) map[string]string {
	env := maps.Clone(act)
	for _, name := range []string{matrixVariable, "ACT"} {
		delete(env, name)
	}
	env["PATH"] = strings.ReplaceAll(env["PATH"], filepath.Join(r.dir, "shims"), hostPath)
	maps.Copy(env, map[string]string{
		"HOME": "/home/runner", "USER": testbed.Runner, "LANG": "C.UTF-8",
		"RUNNER_NAME": j.Host.Name(), "RUNNER_ENVIRONMENT": "github-hosted",
		// By it GitHub's runner finds what a job has left running, to kill it.
		"RUNNER_TRACKING_ID": "github_" + j.Host.Name(),
		// Nothing of the lab is to be told to Tailscale.
		"NIX_BUILDERS_TAILSCALED_LOGS": "false",
		"SETUP_NIX_BUILDERS_MIRROR":    r.bed.mirror(),
	})
	maps.Copy(env, r.workflow.Env)
	return env
}

// hostPath is where a runner looks for programs.
const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
