package e2e_test

import (
	"bufio"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nixstore"
)

// What package nixstore learns from a daemon is what Nix' own commands say, before something
// is built and afterwards, though it is asked over one connection all the time.
func TestNixStore(t *testing.T)           { askStore(t, image.Trixie) }
func TestNixStoreOfNewerNix(t *testing.T) { askStore(t, image.Sid) }

func askStore(t *testing.T, suite string) {
	t.Parallel()
	lab := startLab(t, testbed.Config{
		Suite: suite, Programs: []string{"./e2e/storeinfo"},
		NixConf: map[string]string{testbed.Coordinator: "extra-experimental-features = ca-derivations"},
	})
	s := newAsked(t, lab)

	t.Run("several outputs", func(t *testing.T) {
		drv := s.instantiate(t, "several")
		outputs := s.ask(t, drv).Outputs
		if diff := cmp.Diff([]string{"dev", "doc", "out"}, slices.Sorted(maps.Keys(outputs))); diff != "" {
			t.Fatalf("outputs of %s (-want +got):\n%s", drv, diff)
		}
		paths := slices.Sorted(maps.Values(outputs))
		if diff := cmp.Diff(slices.Sorted(slices.Values(s.query(t, "--outputs", drv))), paths); diff != "" {
			t.Errorf("paths of the outputs (-want +got):\n%s", diff)
		}
		for _, path := range paths {
			if got := s.ask(t, path); !got.Invalid {
				t.Errorf("%s is not built, and the answer is %s", path, show(got))
			}
		}
		output(t, s.host, testbed.Root, "nix-store", "--realise", drv)
		for _, path := range paths {
			s.same(t, path)
		}
		if got := s.ask(t, outputs["doc"]); got.Info == nil || !slices.Contains(got.Info.References, outputs["out"]) {
			t.Errorf("%s names %s, and the answer is %s", outputs["doc"], outputs["out"], show(got))
		}
		// A derivation has many references, and what it was made of has a content address.
		s.same(t, drv)
		for _, path := range s.query(t, "--references", drv) {
			if info := s.same(t, path); !strings.HasPrefix(info.CA, "fixed:r:sha256:") {
				t.Errorf("the content address of %s is %q", path, info.CA)
			}
		}
	})

	t.Run("known once it is built", func(t *testing.T) {
		drv := s.instantiate(t, "addressed")
		if diff := cmp.Diff(map[string]string{"out": ""}, s.ask(t, drv).Outputs); diff != "" {
			t.Errorf("before the build (-want +got):\n%s", diff)
		}
		path := output(t, s.host, testbed.Root, "nix-store", "--realise", drv)
		if diff := cmp.Diff(map[string]string{"out": path}, s.ask(t, drv).Outputs); diff != "" {
			t.Errorf("after the build (-want +got):\n%s", diff)
		}
		if info := s.same(t, path); !strings.HasPrefix(info.CA, "fixed:r:sha256:") {
			t.Errorf("the content address of %s is %q", path, info.CA)
		}
	})

	t.Run("no store path", func(t *testing.T) {
		got := s.ask(t, "/etc/passwd")
		contains(t, "the error", got.Error, "/etc/passwd", "is not in the Nix store")
		if strings.ContainsAny(got.Error, "\n\x1b") {
			t.Errorf("the error is not one plain line: %q", got.Error)
		}
	})
}

// asked is a host whose daemon is asked by one storeinfo.
type asked struct {
	host    *testbed.Host
	tag     string
	paths   io.Writer
	answers *bufio.Reader
	log     transcript
}

// A storeAnswer is what storeinfo says of a path.
type storeAnswer struct {
	Info    *nixstore.Info
	Outputs map[string]string
	Invalid bool
	Error   string
}

func newAsked(t *testing.T, lab *testbed.Lab) *asked {
	t.Helper()
	c := newCluster(t, lab, "store", 0)
	if err := c.InstallExpressions(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	s := &asked{host: lab.Host(testbed.Coordinator), tag: uniqueTag()}
	// Whom Nix does not trust learns as much.
	cmd := s.host.CommandAs(t.Context(), testbed.Runner, "storeinfo")
	paths, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = &s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // it is killed with the test's context
	s.paths, s.answers = paths, bufio.NewReader(answers)
	return s
}

// ask asks storeinfo, which bounds how long that takes.
func (s *asked) ask(t *testing.T, path string) (a storeAnswer) {
	t.Helper()
	if _, err := io.WriteString(s.paths, path+"\n"); err != nil {
		t.Fatal(err)
	}
	line, err := s.answers.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		t.Fatalf("storeinfo answers %q: %v\n%s", line, err, &s.log)
	}
	return a
}

// query is what nix-store --query says, by word.
func (s *asked) query(t *testing.T, what, path string) []string {
	t.Helper()
	return strings.Fields(output(t, s.host, testbed.Root, "nix-store", "--query", what, path))
}

func (s *asked) instantiate(t *testing.T, attribute string) string {
	t.Helper()
	return output(t, s.host, testbed.Root, "nix-instantiate", "/opt/nix/stories.nix", "--attr", attribute, "--argstr", "tag", s.tag)
}

// same wants the answer about a valid path to be what nix-store says, and returns it.
func (s *asked) same(t *testing.T, path string) nixstore.Info {
	t.Helper()
	got := s.ask(t, path)
	if got.Info == nil {
		t.Fatalf("%s is valid, and the answer is %s", path, show(got))
	}
	want := nixstore.Info{
		Path: path, NarHash: s.query(t, "--hash", path)[0], References: s.query(t, "--references", path), CA: got.Info.CA,
	}
	if want.Deriver = s.query(t, "--deriver", path)[0]; want.Deriver == "unknown-deriver" {
		want.Deriver = ""
	}
	var err error
	if want.NarSize, err = strconv.ParseInt(s.query(t, "--size", path)[0], 10, 64); err != nil {
		t.Fatal(err)
	}
	unordered := cmpopts.SortSlices(strings.Compare)
	if diff := cmp.Diff(want, *got.Info, unordered, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-nix-store +nixstore):\n%s", path, diff)
	}
	return *got.Info
}
