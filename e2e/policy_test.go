package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// withoutRule is what people see who left it out of their policy.
type withoutRule struct {
	rule string // as ruleNames has it
	take func(*control.Policy)
	tell func(*policyStory)
}

// A policyStory is a run on a tailnet whose policy lacks one rule.
type policyStory struct{ *rig }

var withoutRules = []withoutRule{
	{
		"tagOwners " + builderTag + ": " + builderTag,
		func(p *control.Policy) { p.TagOwners[builderTag] = []string{"autogroup:admin"} },
		func(s *policyStory) { s.oauthIsRefused(builderTag) },
	},
	{
		"tagOwners " + coordinatorTag + ": " + coordinatorTag,
		func(p *control.Policy) { p.TagOwners[coordinatorTag] = []string{"autogroup:admin"} },
		func(s *policyStory) { s.oauthIsRefused(coordinatorTag) },
	},
	{
		"grants: " + builderTag + " to " + coordinatorTag,
		func(p *control.Policy) { p.Grants = p.Grants[1:] },
		(*policyStory).builderIsNotClaimed,
	},
	{
		"grants: " + builderTag + " to " + coordinatorTag + ", tcp:8378",
		func(p *control.Policy) { p.Grants[0].IP = []string{"tcp:8380"} },
		(*policyStory).builderIsNotClaimed,
	},
	{
		"grants: " + coordinatorTag + " to " + builderTag,
		func(p *control.Policy) { p.Grants = slices.Delete(p.Grants, 1, 2) },
		(*policyStory).portsAreClosed,
	},
	{
		"grants: " + coordinatorTag + " to " + builderTag + ", tcp:8379",
		func(p *control.Policy) { p.Grants[1].IP = []string{"tcp:22"} },
		(*policyStory).goesOverSSH,
	},
	{
		"grants: " + coordinatorTag + " to " + builderTag + ", tcp:22",
		func(p *control.Policy) { p.Grants[1].IP = []string{"tcp:8379"} },
		(*policyStory).sshPortIsClosed,
	},
	{
		"grants: " + builderTag + " to " + builderTag,
		func(p *control.Policy) { p.Grants = p.Grants[:2] },
		(*policyStory).nothingIsShared,
	},
	{
		"grants: " + builderTag + " to " + builderTag + ", tcp:8379",
		func(p *control.Policy) { p.Grants[2].IP = []string{"tcp:22"} },
		(*policyStory).nothingIsShared,
	},
	{
		"ssh: " + coordinatorTag + " to " + builderTag,
		func(p *control.Policy) { p.SSH = nil },
		(*policyStory).sshIsRefused,
	},
	{
		"ssh: " + coordinatorTag + " to " + builderTag + ", root",
		func(p *control.Policy) { p.SSH[0].Users = []string{"autogroup:nonroot"} },
		(*policyStory).sshIsRefused,
	},
}

// ruleNames are the parts of a policy that can be left out one by one. That administrators
// may make keys is not among them: that is seen in Tailscale's console, not in a run.
func ruleNames(p control.Policy) (names []string) {
	for _, tag := range slices.Sorted(maps.Keys(p.TagOwners)) {
		for _, owner := range p.TagOwners[tag] {
			if owner != "autogroup:admin" {
				names = append(names, fmt.Sprintf("tagOwners %s: %s", tag, owner))
			}
		}
	}
	add := func(section string, src, dst, parts []string) {
		rule := fmt.Sprintf("%s: %s to %s", section, strings.Join(src, " "), strings.Join(dst, " "))
		names = append(names, rule)
		for _, part := range parts {
			names = append(names, rule+", "+part)
		}
	}
	for _, g := range p.Grants {
		add("grants", g.Src, g.Dst, g.IP)
	}
	for _, r := range p.SSH {
		add("ssh", r.Src, r.Dst, r.Users)
	}
	return names
}

// Every rule of the policy that people are told to paste is needed, and who left one out is
// told to look at the policy. That all of it is enough is what every other test shows.
func TestPolicyRules(t *testing.T) {
	whole, err := fleet.Policy()
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, w := range withoutRules {
		told = append(told, w.rule)
	}
	if diff := cmp.Diff(ruleNames(whole), told); diff != "" {
		t.Fatalf("the rules are not the stories (-rules +stories):\n%s", diff)
	}
	for i, w := range withoutRules {
		t.Run("without "+w.rule, func(t *testing.T) {
			t.Parallel()             // it mostly waits
			p, err := fleet.Policy() // a copy of this story's own
			if err != nil {
				t.Fatal(err)
			}
			w.take(&p)
			lab := testbed.Start(t, testbed.Config{
				Name: fmt.Sprintf("policyrule%d-%d", i, os.Getpid()), Builders: 2, Control: testbed.ControlConfig{Policy: &p}})
			w.tell(&policyStory{newRig(t, lab, fmt.Sprintf("rule%d", i), 1)})
		})
	}
	t.Run("the first version's policy", func(t *testing.T) {
		t.Parallel()
		p, err := control.DefaultPolicy() // whoever has it need not change it
		if err != nil {
			t.Fatal(err)
		}
		lab := testbed.Start(t, testbed.Config{
			Name: fmt.Sprintf("policyold-%d", os.Getpid()), Builders: 1, Control: testbed.ControlConfig{Policy: &p}})
		r := newRig(t, lab, "old", 1)
		r.up()
		r.stop()
		r.wantReleased()
		r.leave()
	})
	for _, tag := range []string{builderTag, coordinatorTag} {
		t.Run("without "+tag, func(t *testing.T) {
			p, err := fleet.Policy()
			if err != nil {
				t.Fatal(err)
			}
			delete(p.TagOwners, tag)
			// Tailscale's editor does not take such a file, and neither does the lab.
			if err := p.Validate(); err == nil || !strings.Contains(err.Error(), tag+" is not in tagOwners") {
				t.Errorf("a policy with rules for a tag that nobody owns: %v", err)
			}
		})
	}
}

// oauthIsRefused: an OAuth client that has both tags can't hand out this one.
func (s *policyStory) oauthIsRefused(tag string) {
	s.t.Helper()
	secret := control.OAuthKey(s.Lab.LoginServer())
	env := []string{"NIX_BUILDERS_AUTH_KEY_FILE=", "NIX_BUILDERS_AUTH_KEY=" + secret, "NIX_BUILDERS_GATHER_TIMEOUT=5"}
	refused := s.builder
	if tag == coordinatorTag {
		refused = func(_ string, env ...string) *fleet.Process { return s.coordinator(env...) }
	}
	p := refused(testbed.Builder(1), env...)
	s.wantExit(p, 1)
	s.says(p, "the tailnet does not grant the tags", "tagOwners", "requested tags")
}

// builderIsNotClaimed: the builder can't call the coordinator, and both say what may be why.
func (s *policyStory) builderIsNotClaimed() {
	s.t.Helper()
	name := s.NameOf(testbed.Builder(1))
	b := s.builder(testbed.Builder(1), "NIX_BUILDERS_BUILDER_TIMEOUT=8") // a question has 5 s
	c := s.coordinator("NIX_BUILDERS_GATHER_TIMEOUT=8")
	s.wantExit(c, 1)
	s.says(c, name+": expected for", "never checked in", "tailnet's policy let "+builderTag, "reach "+coordinatorTag+" on port 8378")
	s.wantExit(b, 1)
	s.says(b, "nobody claimed builder "+name, "does the tailnet's policy let builders reach it")
}

// portsAreClosed: the builder is claimed, but nothing reaches it.
func (s *policyStory) portsAreClosed() {
	s.t.Helper()
	// Who connects directly gives up after 8 s, and an ssh after 10 s.
	s.storeDoesNotAnswer("25", "does the tailnet policy let the coordinator reach port 22 of the builder?")
}

// nothingIsShared: builders use what the coordinator sends.
func (s *policyStory) nothingIsShared() {
	s.t.Helper()
	s.Builders = []string{testbed.Builder(1), testbed.Builder(2)}
	h := &hooked{rig: s.rig}
	h.Env["NIX_BUILDERS_MAX_JOBS"] = "2"
	h.rig.ready(shareEnv)
	before := h.tailnetBytes(h.Coordinator)
	h.sharedBy(h.build("passed-on.nix"), 2)
	if n := h.tailnetBytes(h.Coordinator) - before; n < payload {
		s.t.Errorf("the coordinator sent %d bytes of the %d that a builder needed and could have from nobody else", n, payload)
	}
	s.stop()
	s.wantReleased()
	s.leave()
}

// goesOverSSH: the builder is used all the same, and the coordinator says why it costs more.
func (s *policyStory) goesOverSSH() {
	s.t.Helper()
	s.builder(testbed.Builder(1))
	step := s.coordinator()
	s.wantExit(step, 0)
	s.says(step, "its store answered over SSH alone: ", "does the tailnet policy let the coordinator reach port 8379 of the builder?")
	d := &directStory{s.rig}
	d.reached("ssh-ng://root@", 1)
	d.where(d.build("fan-in.nix", "--arg", "leaves", "1", "--argstr", "seconds", "0"))
	s.stop()
	s.wantReleased()
	s.leave()
}

// sshPortIsClosed: where an agent can't serve, SSH does not reach the builder either.
func (s *policyStory) sshPortIsClosed() {
	s.t.Helper()
	s.Env["NIX_BUILDERS_TRANSPORT"] = "ssh"
	s.storeDoesNotAnswer("15", "does the tailnet policy let the coordinator reach port 22 of the builder?")
}

// sshIsRefused: SSH reaches the builder, and may not log in.
func (s *policyStory) sshIsRefused() {
	s.t.Helper()
	s.Env["NIX_BUILDERS_TRANSPORT"] = "ssh"
	s.storeDoesNotAnswer("8", "let the coordinator's tag ssh to the builder's tag as root in the tailnet policy")
}

// storeDoesNotAnswer: the builder is claimed, but Nix can't open its store.
func (s *policyStory) storeDoesNotAnswer(timeout, why string) {
	s.t.Helper()
	b := s.builder(testbed.Builder(1))
	s.awaitLine(b, "looking for the coordinator")
	c := s.coordinator("NIX_BUILDERS_GATHER_TIMEOUT=" + timeout)
	s.wantExit(c, 1)
	s.says(c, s.NameOf(testbed.Builder(1))+": joined for", why, `as root ("ssh" rules)`, `port 22 ("grants")`)
	// That the run failed is not the builder's failure.
	s.wantExit(b, 0)
}
