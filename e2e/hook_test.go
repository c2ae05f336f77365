package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/fleet"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// TestBuildHook builds one of everything through the cluster's build hook, on each version
// of Nix that the lab has. What a person sees is what Nix's own hook would have shown, and
// in some cases more.
func TestBuildHook(t *testing.T) {
	for _, suite := range []string{image.Trixie, image.Sid} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel() // it mostly waits
			// As whoever wants content-addressed derivations built remotely has to say.
			addressed := "extra-experimental-features = ca-derivations\nextra-system-features = ca-derivations"
			lab := startLab(t, testbed.Config{
				Builders: 2, Suite: suite,
				NixConf: map[string]string{testbed.Coordinator: addressed, testbed.Builder(1): addressed, testbed.Builder(2): addressed},
			})
			h := &hooked{rig: newRig(t, lab, "hook-"+suite, 2), suite: suite}
			h.Env["NIX_BUILDERS_MAX_JOBS"] = "2"
			h.rig.ready()
			for _, s := range hookStories {
				t.Run(s.name, func(t *testing.T) {
					// Failures are the story's own.
					whole := h.t
					h.t = t
					defer func() { h.t = whole }()
					s.tell(h)
				})
			}
			h.stop()
			h.wantReleased()
		})
	}
}

// hooked is a cluster that is ready, for one story after the other.
type hooked struct {
	*rig
	suite string
}

// story starts the build of an attribute of stories.nix on the builders.
func (h *hooked) story(attribute string, args ...string) *fleet.Process {
	h.t.Helper()
	return h.build("stories.nix", append([]string{attribute}, args...)...)
}

// text is what is in the one output of a build that succeeded.
func (h *hooked) text(p *fleet.Process) string {
	h.t.Helper()
	return strings.TrimSpace(output(h.t, h.Host(h.Coordinator), testbed.Runner, "cat", h.built(p)))
}

// onBuilder wants a text to be the name of a builder's host.
func (h *hooked) onBuilder(text string) {
	h.t.Helper()
	if !strings.HasPrefix(text, "builder-") {
		h.t.Errorf("it was built on %q, want a builder", text)
	}
}

// buildsThere are the builds on the builders.
func (h *hooked) buildsThere() (n int) {
	h.t.Helper()
	for _, host := range h.Builders {
		n += h.building(host)
	}
	return n
}

var hookStories = []struct {
	name string
	tell func(*hooked)
}{
	{"names the builder", func(h *hooked) {
		p := h.story("plain")
		host := h.text(p)
		h.onBuilder(host)
		h.says(p, fmt.Sprintf("-plain-%s.drv' on '%s'", tagOf(p), strings.ToLower(h.NameOf(host))))
	}},
	{"log", func(h *hooked) {
		p := h.story("loud")
		h.onBuilder(h.text(p))
		h.says(p, "> line 1 of ", "> line 1000 of ")
		log := h.must(h.Coordinator, "nix", "log", h.built(p))
		if n := strings.Count(log, "\n") + 1; n != 1000 {
			h.t.Errorf("nix log has %d lines, want 1000:\n%.300s\n...%s", n, log, log[max(0, len(log)-300):])
		}
	}},
	{"a build that fails", func(h *hooked) {
		p := h.story("fails")
		h.wantExit(p, 1)
		h.says(p, "> the compiler is unhappy with line 42", "failed with exit code 3")
		// As it was said, and among the last lines of the log.
		if n := strings.Count(p.Output(), "> the compiler is unhappy"); n != 2 {
			h.t.Errorf("it is said %d times, want twice:\n%s", n, p.Output())
		}
	}},
	{"keep going", func(h *hooked) {
		p := h.story("half", "--keep-going")
		h.wantExit(p, 1)
		h.says(p, "failed with exit code 3")
		// The other half is there: it is not built again.
		q, err := h.BuildAnywhere(h.t.Context(), testbed.Runner, "stories.nix", tagOf(p), "plain", "--max-jobs", "0", "--builders", "")
		if err != nil {
			h.t.Fatal(err)
		}
		h.onBuilder(h.text(q))
	}},
	{"a wrong hash", func(h *hooked) {
		p := h.story("wrongHash")
		if code := h.exit(p); code == 0 {
			h.t.Error("a build with a wrong hash succeeded")
		}
		h.says(p, "hash mismatch", "specified:", "got:")
	}},
	{"fixed output", func(h *hooked) {
		p := h.story("fixed")
		if got := h.text(p); got != tagOf(p) {
			h.t.Errorf("its output has %q, want %q", got, tagOf(p))
		}
	}},
	{"content-addressed", func(h *hooked) {
		p := h.story("addressed", "--extra-experimental-features", "ca-derivations")
		h.onBuilder(h.text(p))
	}},
	{"several outputs", func(h *hooked) {
		p := h.story("several^*")
		h.wantExit(p, 0)
		if paths := storePath.FindAllString(p.Output(), -1); len(paths) != 3 {
			h.t.Errorf("%d outputs are here, want 3:\n%s", len(paths), p.Output())
		}
	}},
	{"import from derivation", func(h *hooked) {
		p := h.story("imported")
		if got, want := h.text(p), "from "+tagOf(p); got != want {
			h.t.Errorf("its output has %q, want %q", got, want)
		}
	}},
	{"a builtin builder", func(h *hooked) {
		p, err := h.Start(h.t.Context(), h.Coordinator, testbed.Root, "busybox", "httpd", "-f", "-p", "8099", "-h", "/opt/bb/bin")
		if err != nil {
			h.t.Fatal(err)
		}
		h.started = append(h.started, p)
		url := fmt.Sprintf("http://%s:8099/busybox", h.Host(h.Coordinator).IP())
		h.wantExit(h.story("fetched", "--argstr", "url", url), 0)
		h.wantExit(h.buildAnywhere("stories.nix", "fetched", "--argstr", "url", url), 0)
	}},
	{"prefers to be local", func(h *hooked) {
		if got := h.text(h.buildAnywhere("stories.nix", "local")); got != h.Coordinator {
			h.t.Errorf("it was built on %q, want the coordinator", got)
		}
		h.onBuilder(h.text(h.story("local")))
	}},
	{"no builders wanted", func(h *hooked) {
		if got := h.text(h.buildAnywhere("stories.nix", "plain", "--builders", "")); got != h.Coordinator {
			h.t.Errorf("with --builders '' it was built on %q, want the coordinator", got)
		}
	}},
	{"the coordinator takes what builders have no room for", func(h *hooked) {
		p := h.buildAnywhere("fan-in.nix", "--arg", "leaves", "8", "--argstr", "seconds", "2", "--max-jobs", "2")
		where := hostsOf(h.where(p))
		if len(where) != 3 {
			h.t.Errorf("8 builds with 4 slots, and 2 here, were built on %v", where)
		}
	}},
	{"a feature that nobody has", func(h *hooked) {
		p := h.story("needsFeature")
		h.exitsWithin(p, 1, 20*time.Second)
		h.says(p, "nobody-has-this")
	}},
	{"timeout", func(h *hooked) {
		began := time.Now()
		p := h.story("endless", "--option", "timeout", "3")
		if code := h.exit(p); code == 0 {
			h.t.Error("a build that never ends succeeded")
		}
		h.says(p, "timed out after 3 seconds")
		h.endsSoon(began.Add(3 * time.Second))
	}},
	{"silence", func(h *hooked) {
		began := time.Now()
		p := h.story("silent", "--option", "max-silent-time", "3")
		if code := h.exit(p); code == 0 {
			h.t.Error("a build that is silent for ever succeeded")
		}
		h.says(p, "timed out after 3 seconds of silence")
		h.endsSoon(began.Add(3 * time.Second))
	}},
	{"keep failed", func(h *hooked) {
		p := h.story("fails", "--keep-failed")
		h.wantExit(p, 1)
		if h.suite == image.Sid { // older ones keep it as well, and say nothing
			h.says(p, "kept on the remote builder")
		}
	}},
	{"several clients", func(h *hooked) {
		var all []*fleet.Process
		for _, user := range []string{testbed.Runner, testbed.Root, testbed.Runner} {
			p, err := h.Build(h.t.Context(), user, "fan-in.nix", uniqueTag(), "--arg", "leaves", "4", "--argstr", "seconds", "0.2")
			if err != nil {
				h.t.Fatal(err)
			}
			all = append(all, p)
		}
		for _, p := range all {
			h.where(p)
		}
	}},
	{"two clients want the same", func(h *hooked) {
		tag := uniqueTag()
		var both []*fleet.Process
		for range 2 {
			p, err := h.Build(h.t.Context(), testbed.Runner, "fan-in.nix", tag, "--arg", "leaves", "3", "--argstr", "seconds", "1")
			if err != nil {
				h.t.Fatal(err)
			}
			both = append(both, p)
		}
		if a, b := h.built(both[0]), h.built(both[1]); a != b {
			h.t.Errorf("two clients got %s and %s", a, b)
		}
	}},
	{"more jobs than slots", func(h *hooked) {
		p := h.build("fan-in.nix", "--arg", "leaves", "30", "--argstr", "seconds", "0.1")
		if n := len(h.where(p)); n != 31 {
			h.t.Errorf("%d parts of 31 were built", n)
		}
	}},
	{"interrupted", func(h *hooked) {
		p := h.build("fan-in.nix", "--arg", "leaves", "8", "--argstr", "seconds", "600")
		eventually(h.t, "4 builds on the builders", func() bool { return h.buildsThere() == 4 })
		h.signal(p, syscall.SIGINT)
		began := time.Now()
		if code := h.exit(p); code == 0 {
			h.t.Error("an interrupted build succeeded")
		}
		h.endsSoon(began)
	}},
}

// endsSoon wants no build on the builders, and no hook here.
func (h *hooked) endsSoon(since time.Time) {
	h.t.Helper()
	eventually(h.t, "without builds", func() bool { return h.buildsThere() == 0 })
	h.t.Logf("the builders were idle %v later", time.Since(since).Round(100*time.Millisecond))
	eventually(h.t, "without hooks", func() bool {
		return h.count(h.Coordinator, "pgrep -f 'build-hook [/]|[_]_build-remote' || true") == 0
	})
}

// tagOf is what made the derivations of a build new.
func tagOf(p *fleet.Process) string {
	_, rest, _ := strings.Cut(p.String(), "--argstr tag ")
	tag, _, _ := strings.Cut(rest, " ")
	return tag
}

// TestHookConfiguration looks at how Nix's daemon learns of the hook, however it is run, and
// that clients of an ordinary user are not told of it.
func TestHookConfiguration(t *testing.T) {
	for _, by := range []struct {
		name    string
		systemd bool
	}{{"by-hand", false}, {"service", true}} {
		t.Run(by.name, func(t *testing.T) {
			t.Parallel()
			lab := startLab(t, testbed.Config{Builders: 1, Systemd: by.systemd})
			h := &hooked{rig: newRig(t, lab, by.name, 1), suite: image.Trixie}
			before := h.files(h.Coordinator)
			h.rig.ready()
			p := h.story("plain")
			h.onBuilder(h.text(p))
			h.wantHook(p)
			if strings.Contains(p.Output(), "warning:") {
				t.Errorf("an ordinary user is warned:\n%s", p.Output())
			}
			// Root's own Nix has the store to itself, and no daemon.
			p, err := h.Build(t.Context(), testbed.Root, "stories.nix", uniqueTag(), "plain")
			if err != nil {
				t.Fatal(err)
			}
			h.onBuilder(h.text(p))
			h.wantHook(p)
			h.stop()
			h.wantReleased()
			h.leave()
			if after := h.files(h.Coordinator); fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("before:\n%v\nafter:\n%v", before, after)
			}
			if got := h.text(h.buildAnywhere("stories.nix", "plain")); got != h.Coordinator {
				t.Errorf("after the stop it was built on %q, want the coordinator", got)
			}
		})
	}
}

// wantHook wants a build to have come by our hook: Nix's own would have named a store.
func (h *hooked) wantHook(p *fleet.Process) {
	h.t.Helper()
	h.says(p, "on 'nix-builder-")
	if strings.Contains(p.Output(), "on 'ssh-ng://") {
		h.t.Errorf("it was dispatched by Nix's own hook:\n%s", p.Output())
	}
}

// TestNoBuildIsLost takes a builder away in the middle of its builds, in each of the ways
// that there are. The builds are done elsewhere, and a person is told in one line.
func TestNoBuildIsLost(t *testing.T) {
	ways := []struct {
		name   string
		strike func(context.Context, *testbed.Host) error
	}{
		{"killed", func(ctx context.Context, h *testbed.Host) error { return h.Kill(ctx) }},
		{"cut", func(ctx context.Context, h *testbed.Host) error { return h.Cut(ctx) }},
		{"agent", func(ctx context.Context, h *testbed.Host) error {
			return h.Run(ctx, "pkill", "-9", "-f", "nix-builders builder")
		}},
		{"cancelled", func(ctx context.Context, h *testbed.Host) error {
			return h.Run(ctx, "pkill", "-INT", "-f", "nix-builders builder")
		}},
		{"daemon", func(ctx context.Context, h *testbed.Host) error {
			return h.Run(ctx, "pkill", "-9", "-f", "nix-daemon --stdio")
		}},
	}
	for _, suite := range []string{image.Trixie, image.Sid} {
		for _, way := range ways {
			t.Run(way.name+"-"+suite, func(t *testing.T) {
				t.Parallel()
				lab := startLab(t, testbed.Config{Builders: 2, Suite: suite})
				h := &hooked{rig: newRig(t, lab, way.name+"-"+suite, 2), suite: suite}
				h.Env["NIX_BUILDERS_MAX_JOBS"] = "2"
				h.Env["NIX_BUILDERS_LEASE"] = "6"
				h.rig.ready()
				victim := testbed.Builder(2)
				p := h.build("fan-in.nix", "--arg", "leaves", "6", "--argstr", "seconds", "3")
				eventually(t, "two builds on "+victim, func() bool { return h.building(victim) == 2 })
				if err := way.strike(within(t, patience), h.Host(victim)); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				where := h.where(p)
				t.Logf("nix build ended %v after it", time.Since(began).Round(100*time.Millisecond))
				if len(where) != 7 {
					t.Errorf("%d parts of 7 were built: %v", len(where), where)
				}
				// Others may have come before it was known that it is lost.
				if n := strings.Count(p.Output(), " moves from "); n < 2 || n > 4 {
					t.Errorf("%d moves were told of, want at least 2:\n%s", n, p.Output())
				}
				if strings.Contains(p.Output(), "\nerror:") {
					t.Errorf("a person is shown an error:\n%s", p.Output())
				}
			})
		}
	}
}
