package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// TestHookFunctionally drives the build hook the way that Nix' own functional tests drive
// remote building: an ordinary user on one host, without a daemon, with a store for each
// builder and one to build for, all of them in a directory. All that it takes is settings and
// nix-builders scheduler.
func TestHookFunctionally(t *testing.T) {
	for _, suite := range []string{image.Trixie, image.Sid} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel() // it mostly waits
			lab := startLab(t, testbed.Config{Suite: suite})
			for _, s := range ownStories {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					s.tell(newOwn(t, lab.Host(testbed.Coordinator)))
				})
			}
		})
	}
}

// own are the stores of an ordinary user, and a scheduler for them.
type own struct {
	t    *testing.T
	host *testbed.Host
	dir  string // of all of it
	hook string // Nix' setting of that; empty for Nix' own
	stop func() // ends the scheduler
}

func newOwn(t *testing.T, host *testbed.Host) *own {
	t.Helper()
	o := &own{t: t, host: host, dir: output(t, host, testbed.Runner, "mktemp", "-d", "/tmp/own.XXXXXX"), stop: func() {}}
	for _, name := range []string{"own.nix", "tools.nix"} {
		text, err := os.ReadFile(filepath.Join("fleet", "nix", name))
		if err != nil {
			t.Fatal(err)
		}
		o.write(name, string(text))
	}
	o.hook = "/usr/local/bin/nix-builders build-hook " + o.dir + "/s"
	return o
}

func (o *own) write(name, text string) {
	o.t.Helper()
	cmd := o.host.CommandAs(within(o.t, patience), testbed.Runner, "sh", "-euc", `cat > "$1.new"; mv "$1.new" "$1"`, "sh", filepath.Join(o.dir, name))
	cmd.Stdin = strings.NewReader(text)
	if _, err := testbed.Output(cmd); err != nil {
		o.t.Fatal(err)
	}
}

// builder is the line of a builder that has the store of that name.
func (o *own) builder(store string, slots int) string {
	return fmt.Sprintf("ssh-ng://localhost?remote-store=%s/%s x86_64-linux - %d 1", o.dir, store, slots)
}

// schedule starts a scheduler for these builders and returns when it is served.
func (o *own) schedule(builders ...string) {
	o.t.Helper()
	o.machines(builders...)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := o.host.CommandAs(ctx, testbed.Runner, "nix-builders", "scheduler", "--socket", o.dir+"/s", "--machines", o.dir+"/machines")
	out, err := cmd.StdoutPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.stop = func() {
		cancel()
		_ = cmd.Wait() // it was killed
		o.stop = func() {}
		if o.t.Failed() {
			o.t.Logf("the scheduler's log:\n%s", log.String())
		}
	}
	o.t.Cleanup(func() { o.stop() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "serving ") {
		o.t.Fatalf("the scheduler says %q: %v", line, err)
	}
}

// machines replaces the machines file.
func (o *own) machines(builders ...string) {
	o.t.Helper()
	o.write("machines", strings.Join(builders, "\n")+"\n")
}

// A run is a command of Nix for the user's store.
type run struct {
	o       *own
	cmd     *exec.Cmd
	printed bytes.Buffer
}

// start starts the build of an attribute that nothing has built yet.
func (o *own) start(attribute string, args ...string) *run {
	o.t.Helper()
	return o.command(append([]string{"nix", "build", "-L", "--no-link", "--print-out-paths", "--store", o.dir + "/here",
		"--file", o.dir + "/own.nix", attribute, "--argstr", "tag", uniqueTag()}, args...)...)
}

func (o *own) command(argv ...string) *run {
	o.t.Helper()
	r := &run{o: o, cmd: o.host.CommandAs(within(o.t, 2*patience), testbed.Runner, argv...)}
	config := "experimental-features = nix-command ca-derivations\nsubstituters =\nbuilders = @" + o.dir + "/machines\n"
	if o.hook != "" {
		config += "build-hook = " + o.hook + "\n"
	}
	r.cmd.Env = append(r.cmd.Env, "NIX_CONFIG="+config, "NIX_CONF_DIR="+o.dir+"/etc", "NIX_BUILDERS_UNKNOWN=is no setting")
	r.cmd.Stdout, r.cmd.Stderr = &r.printed, &r.printed
	if err := r.cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	return r
}

// wait returns the exit code.
func (r *run) wait() int {
	r.o.t.Helper()
	err := r.cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		r.o.t.Fatal(err)
	}
	return r.cmd.ProcessState.ExitCode()
}

// want is for the exit code and for what is printed.
func (r *run) want(code int, said ...string) string {
	r.o.t.Helper()
	if got := r.wait(); got != code {
		r.o.t.Errorf("it ended with %d, want %d", got, code)
	}
	printed := r.printed.String()
	for _, text := range said {
		if !strings.Contains(printed, text) {
			r.o.t.Errorf("it does not say %q", text)
		}
	}
	if r.o.t.Failed() {
		r.o.t.Logf("%s\nprinted:\n%s", r.cmd, printed)
	}
	return printed
}

// here is the text of an output in the user's store.
func (o *own) here(printed string) string {
	o.t.Helper()
	path := storePath.FindString(printed[strings.LastIndex(strings.TrimSpace(printed), "\n")+1:])
	return output(o.t, o.host, testbed.Runner, "cat", o.dir+"/here"+path)
}

// hooks counts the processes of builds of this user's stores.
func (o *own) hooks() int {
	o.t.Helper()
	return strings.Count(output(o.t, o.host, testbed.Root, "sh", "-c", "pgrep -f '"+o.dir+"/s [0-9]|store "+o.dir+"' || true")+"\n", "\n") - 1
}

var ownStories = []struct {
	name string
	tell func(*own)
}{
	{"a build", func(o *own) {
		o.schedule(o.builder("b1", 1))
		printed := o.start("plain", "--max-jobs", "0").want(0, "on 'ssh-ng://localhost?remote-store="+o.dir+"/b1'", "> a word")
		if got := o.here(printed); got != "plain" {
			o.t.Errorf("the output has %q", got)
		}
	}},
	{"a socket in the environment", func(o *own) {
		o.schedule(o.builder("b1", 1))
		o.hook = "/usr/local/bin/nix-builders build-hook"
		r := o.command("env", "NIX_BUILDERS_HOOK_SOCKET="+o.dir+"/s", "nix", "build", "-v", "--no-link", "--store", o.dir+"/here",
			"--file", o.dir+"/own.nix", "both", "--argstr", "tag", uniqueTag(), "--argstr", "seconds", "1", "--max-jobs", "0")
		r.want(0, "after waiting") // Nix' own hook never says so
	}},
	{"two at once on one slot", func(o *own) {
		o.schedule(o.builder("b1", 1))
		o.start("both", "--argstr", "seconds", "1", "--max-jobs", "0", "-v").want(0, "on 'the next builder that is free'", "after waiting")
	}},
	{"two clients", func(o *own) {
		o.schedule(o.builder("b1", 1), o.builder("b2", 1))
		// Two that make a new store at once fail each other, in Nix' own hands.
		o.command("nix", "store", "info", "--store", o.dir+"/here").want(0)
		a, b := o.start("both", "--argstr", "seconds", "1", "--max-jobs", "0"), o.start("both", "--argstr", "seconds", "1", "--max-jobs", "0")
		a.want(0)
		b.want(0)
	}},
	{"features", func(o *own) {
		// As Nix' own test has it: by each kind of store.
		o.schedule(
			"ssh://localhost?remote-store="+o.dir+"/b1?system-features=foo - - 1 1 foo",
			o.dir+"/b2?system-features=bar - - 1 1 bar",
			"ssh-ng://localhost?remote-store="+o.dir+"/b3?system-features=baz - - 1 1 baz",
			"ssh-ng://localhost?remote-store="+o.dir+"/b4 - - 1 1 - dull", // which nothing wants
		)
		printed := o.start("features", "--max-jobs", "0").want(0)
		if got := o.here(printed); got != "foo\nbar\nbaz" {
			o.t.Errorf("the output has %q", got)
		}
		for _, text := range []string{"needs-foo-", "needs-bar-", "needs-baz-"} {
			if strings.Count(printed, text) == 0 {
				o.t.Errorf("%s was not built:\n%s", text, printed)
			}
		}
		if strings.Contains(printed, o.dir+"/b4'") {
			o.t.Errorf("a builder has built what lacks its feature:\n%s", printed)
		}
	}},
	{"no builders wanted", func(o *own) {
		o.schedule(o.builder("b1", 1))
		printed := o.start("plain", "--builders", "").want(0)
		if strings.Contains(printed, "on 'ssh-ng") {
			o.t.Errorf("it was sent away:\n%s", printed)
		}
	}},
	{"no machines", func(o *own) {
		o.schedule()
		o.start("plain").want(0)
		o.stop()
		o.must("rm", o.dir+"/machines")
		o.start("plain").want(0)
	}},
	{"no scheduler", func(o *own) {
		o.machines(o.builder("b1", 1))
		o.start("plain", "--max-jobs", "0").want(0, "on 'ssh-ng://localhost?remote-store="+o.dir+"/b1'")
	}},
	{"other builders wanted", func(o *own) {
		o.schedule(o.builder("b1", 1))
		for _, attribute := range []string{"plain", "fails", "wrongHash"} {
			same := o.start(attribute, "--max-jobs", "0", "-v", "--builders", o.builder("b2", 1))
			code := same.wait()
			o.hook = ""
			stock := o.start(attribute, "--max-jobs", "0", "-v", "--builders", o.builder("b2", 1))
			if want := stock.wait(); code != want {
				o.t.Errorf("%s ends with %d, want %d", attribute, code, want)
			}
			if got, want := canonical(same.printed.String()), canonical(stock.printed.String()); got != want {
				o.t.Errorf("%s prints\n%s\nwant\n%s", attribute, got, want)
			}
			o.hook = "/usr/local/bin/nix-builders build-hook " + o.dir + "/s"
		}
	}},
	{"fixed output", func(o *own) {
		o.schedule(o.builder("b1", 1))
		o.start("fixed", "--max-jobs", "0").want(0)
		o.start("wrongHash", "--max-jobs", "0").want(1, "hash mismatch", "specified:", "got:")
	}},
	{"content-addressed", func(o *own) {
		o.schedule(o.builder("b1", 1) + " ca-derivations")
		printed := o.start("addressed", "--max-jobs", "0").want(0)
		if got := o.here(printed); got == "" {
			o.t.Error("its output is empty")
		}
	}},
	{"a build that fails", func(o *own) {
		o.schedule(o.builder("b1", 1), o.builder("b2", 1))
		if printed := o.start("fails", "--max-jobs", "0").want(1, "> the last words", "failed with exit code 3"); strings.Contains(printed, "moves from") {
			o.t.Errorf("it was tried elsewhere:\n%s", printed)
		}
	}},
	{"timeout", func(o *own) {
		o.schedule(o.builder("b1", 1))
		o.start("endless", "--max-jobs", "0", "--option", "timeout", "2").want(1, "timed out after 2 seconds")
		eventually(o.t, "without builds", func() bool { return o.hooks() == 0 })
	}},
	{"silence", func(o *own) {
		o.schedule(o.builder("b1", 1))
		o.start("slow", "--max-jobs", "0", "--option", "max-silent-time", "2").want(1, "> a word", "timed out after 2 seconds of silence")
		eventually(o.t, "without builds", func() bool { return o.hooks() == 0 })
	}},
	{"interrupted", func(o *own) {
		o.schedule(o.builder("b1", 1))
		r := o.start("endless", "--max-jobs", "0")
		eventually(o.t, "a build", func() bool { return o.hooks() >= 2 })
		if err := testbed.Signal(r.cmd, syscall.SIGINT); err != nil {
			o.t.Fatal(err)
		}
		began := time.Now()
		r.want(1)
		eventually(o.t, "without builds", func() bool { return o.hooks() == 0 })
		o.t.Logf("all of it was gone %v later", time.Since(began).Round(time.Millisecond))
	}},
	{"a builder is taken away", func(o *own) {
		o.schedule(o.builder("b1", 1))
		r := o.start("slow", "--argstr", "seconds", "3", "--max-jobs", "0")
		eventually(o.t, "a build", func() bool { return o.hooks() >= 2 })
		o.machines(o.builder("b2", 1))
		if printed := r.want(0, "moves from "); strings.Contains(printed, "error:") {
			o.t.Errorf("a person is shown an error:\n%s", printed)
		}
	}},
	{"a builder's store can't be reached", func(o *own) {
		o.schedule("ssh-ng://localhost?remote-program=false x86_64-linux - 1 9", o.builder("b2", 1))
		if printed := o.start("plain", "--max-jobs", "0").want(0, "moves from ssh-ng://localhost?remote-program=false to "); strings.Contains(printed, "\nerror:") {
			o.t.Errorf("a person is shown an error:\n%s", printed)
		}
	}},
	{"the scheduler is started anew", func(o *own) {
		o.schedule(o.builder("b1", 1))
		r := o.start("slow", "--argstr", "seconds", "4", "--max-jobs", "0")
		eventually(o.t, "a build", func() bool { return o.hooks() >= 2 })
		o.stop()
		o.start("plain", "--max-jobs", "0", "--builders", o.builder("b2", 1)).want(0)
		o.schedule(o.builder("b1", 1))
		if printed := r.want(0); strings.Contains(printed, "moves from") {
			o.t.Errorf("the build has moved:\n%s", printed)
		}
	}},
}

func (o *own) must(argv ...string) string {
	o.t.Helper()
	return output(o.t, o.host, testbed.Runner, argv...)
}

var (
	hashes  = regexp.MustCompile(`[0-9a-z]{32}-|sha256-[A-Za-z0-9+/]+=`)
	tags    = regexp.MustCompile(`-\d{15,}`)
	copying = regexp.MustCompile(`(?m)^copying path .*\n|^copying \d+ paths\.\.\.\n`) // the first copies more
)

// canonical is what was printed without what differs between two builds of the same.
func canonical(printed string) string {
	return tags.ReplaceAllString(copying.ReplaceAllString(hashes.ReplaceAllString(printed, "HASH-"), ""), "-TAG")
}
