package e2e_test

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	godiff "github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/act"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

// runTime bounds one workflow run.
const runTime = 3 * time.Minute

// A stage is where workflows run for a test, and what is asked of every one of them: that
// nothing is left of it on any runner or on the tailnet, and that nobody was told a secret.
type stage struct {
	*act.Bed
	t *testing.T
}

func newStage(t *testing.T) *stage {
	return &stage{act.Start(t, act.Config{Release: true}), t}
}

// play is a workflow run that a test watches.
type play struct {
	*act.Run
	t       *testing.T
	s       *stage
	secrets []string

	mu    sync.Mutex
	marks []string // what is wrong on hosts at the run's end; guarded by mu
}

// begin starts a workflow.
func (s *stage) begin(t *testing.T, w act.Workflow) *play {
	t.Helper()
	p := &play{t: t, s: s}
	for _, secret := range w.Secrets {
		p.secrets = append(p.secrets, secret)
		if base, _, ok := strings.Cut(secret, "?"); ok {
			p.secrets = append(p.secrets, base)
		}
	}
	if token := w.Env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]; token != "" {
		p.secrets = append(p.secrets, token)
	}
	w.AtEnd = p.inspect
	p.Run = s.Run(t, w)
	return p
}

// ends waits for the run's end, which has to be this, and asks what is asked of every run.
func (p *play) ends(ok bool) {
	p.t.Helper()
	got, err := p.Wait(within(p.t, runTime))
	if err != nil {
		p.t.Fatal(err)
	}
	if got != ok {
		p.t.Errorf("the run succeeded: %t, want %t", got, ok)
	}
	for _, m := range p.marks {
		p.t.Error(m)
	}
	for _, j := range p.Jobs() {
		for _, s := range j.Steps() {
			if s.Lingering {
				p.t.Errorf("%s: somebody else holds the output of %q open after its end", j, s.Argv)
			}
		}
		p.noSecret("the output of "+j.String(), withoutMasks(j.Output()))
		p.noSecret("the summary of "+j.String(), j.Summary())
	}
	p.noSecret("the log", p.Log())
	err = filepath.WalkDir(p.Dir(), func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || name == filepath.Join(p.Dir(), "secrets") {
			return err
		}
		text, err := os.ReadFile(name)
		p.noSecret(name, string(text))
		return err
	})
	if err != nil {
		p.t.Error(err)
	}
	nodes, err := p.s.Lab.Control().Nodes(within(p.t, patience))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, j := range p.Jobs() {
		for _, n := range nodes {
			if name := strings.ReplaceAll(hostnameOf(j), ".", "-"); n.Name == name {
				p.t.Errorf("%s is still on the tailnet", name)
			}
		}
	}
}

// together plays the rest of a test's runs side by side, and then wants the tailnet to be
// empty.
func (s *stage) together(t *testing.T, plays func(t *testing.T)) {
	t.Helper()
	t.Run("together", plays)
	nodes, err := s.Lab.Control().Nodes(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		t.Errorf("still on the tailnet: %s", n.Name)
	}
}

// withoutMasks takes out what only the runner hears.
func withoutMasks(output string) string {
	return regexp.MustCompile(`(?m)^::add-mask::.*$`).ReplaceAllString(output, "")
}

// identityToken is what each of GitHub's looks like.
var identityToken = regexp.MustCompile(`eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+`)

func (p *play) noSecret(where, text string) {
	p.t.Helper()
	for _, secret := range p.secrets {
		if i := strings.Index(text, secret); i >= 0 {
			p.t.Errorf("%s has a secret: %q", where, text[max(0, i-80):i])
		}
	}
	if found := identityToken.FindString(text); found != "" {
		p.t.Errorf("%s has an identity token", where)
	}
}

// job returns the only job of that id, and of that label if one is given.
func (p *play) job(id string, label ...string) *act.Job {
	p.t.Helper()
	var found []*act.Job
	for _, j := range p.Jobs() {
		if j.ID == id && (len(label) == 0 || j.Label == label[0]) {
			found = append(found, j)
		}
	}
	if len(found) != 1 {
		p.t.Fatalf("%d jobs are %s %v: %v", len(found), id, label, p.Jobs())
	}
	return found[0]
}

// says waits until a job has printed this.
func (p *play) says(id, text string) {
	p.t.Helper()
	eventually(p.t, id+" saying "+text, func() bool {
		return slices.ContainsFunc(p.Jobs(), func(j *act.Job) bool { return j.ID == id && strings.Contains(j.Output(), text) })
	})
}

// outcomes checks, by the id of a job, how many of them ended well, and how many did not.
func (p *play) outcomes(want map[string]string) {
	p.t.Helper()
	good, bad := map[string]int{}, map[string]int{}
	for _, j := range p.Jobs() {
		if j.OK() {
			good[j.ID]++
		} else {
			bad[j.ID]++
		}
	}
	got := map[string]string{}
	for id := range want {
		got[id] = fmt.Sprintf("%d succeeded, %d failed", good[id], bad[id])
	}
	if diff := godiff.Diff(want, got); diff != "" {
		p.t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

// built is a line in which a derivation of the flake says where it was built.
var built = regexp.MustCompile(`> (\S+)(?: \d+ for (\S+))? on (runner-\d+)`)

// builds checks that every builder built something, for its own system, and that nobody
// else did, unless the coordinator's cores count too. As many as late may have come too late
// for that.
func (p *play) builds(coordinatorToo bool, late int) {
	p.t.Helper()
	by := map[string]int{}
	systems := map[string]string{}
	var idle []string
	for _, m := range built.FindAllStringSubmatch(p.job("coordinator").Output(), -1) {
		by[m[3]]++
		if system := cmp.Or(m[2], "x86_64-linux"); systems[m[3]] == "" || m[2] != "" {
			systems[m[3]] = system
		}
	}
	for _, j := range p.Jobs() {
		if j.ID != "builder" {
			continue
		}
		if by[j.Host.Name()] == 0 {
			idle = append(idle, fmt.Sprintf("%s on %s", j, j.Host.Name()))
		}
		if got, want := systems[j.Host.Name()], systemOf(j.Label); by[j.Host.Name()] > 0 && got != want {
			p.t.Errorf("%s built for %s, not %s", j, got, want)
		}
		delete(by, j.Host.Name())
	}
	if len(idle) > late {
		p.t.Errorf("%v built nothing: %v", idle, by)
	}
	if coordinatorToo {
		delete(by, p.job("coordinator").Host.Name())
	}
	if len(by) > 0 {
		p.t.Errorf("others built too: %v, with the coordinator on %s", by, p.job("coordinator").Host.Name())
	}
}

// systemOf is the Nix system of machines with the label.
func systemOf(label string) string {
	return cmp.Or(map[string]string{
		"ubuntu-24.04-arm": "aarch64-linux", "macos-26-intel": "x86_64-darwin", "macos-26": "aarch64-darwin",
	}[label], "x86_64-linux")
}

// summarised checks that the coordinator's summary page tells of every builder.
func (p *play) summarised() {
	p.t.Helper()
	page := p.job("coordinator").Summary()
	for _, j := range p.Jobs() {
		if j.ID != "builder" {
			continue
		}
		if name := hostnameOf(j); !strings.Contains(page, name) {
			p.t.Errorf("the summary does not tell of %s:\n%s", name, page)
		}
	}
}

// hostnameOf is what a job calls its host on the tailnet.
func hostnameOf(j *act.Job) string {
	for _, s := range j.Steps() {
		if name := s.Env["NIX_BUILDERS_HOSTNAME"]; name != "" {
			return name
		}
	}
	return ""
}

// oauth are the secrets of a repository as the README has it.
func oauth() map[string]string { return map[string]string{"TS_OAUTH_SECRET": control.OAuthSecret} }

// systems are those of GitHub's machines.
var systems = []string{"x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin"}

// repository makes what workflows check out.
func (s *stage) repository(t *testing.T, systems ...string) string {
	t.Helper()
	dir, err := s.Repository(within(t, patience), systems...)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
