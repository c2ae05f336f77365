package hook_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/hook"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

func TestBuild(t *testing.T) {
	r := newRig(t, nil, machine("b1", "builds"))
	n := start(t, r.socket)
	began := time.Now()
	n.asks()
	if name := n.accepted(); name != "b1" {
		t.Errorf("Nix is told %q, want b1", name)
	}
	t.Logf("answered within %v of the question, and of the start", time.Since(began))
	n.wantEnd(0, []string{
		`"text":"copying dependencies to 'b1'"`, `"text":"copying outputs from 'b1'"`,
		"copying path '/nix/store/y-a' from 'b1'",
		// What a build says is its own.
		`"fields":["from ssh-ng://b1.example?builds"]`,
		// Nix would take 101 to be a line of the build's log.
		`"text":"downloading 'http://peer'","type":0}`,
	}, "moves", "after waiting")
	r.wantBuilt("b1")
	if word, err := bufio.NewReader(n.log).ReadString('\n'); word != "a word of ssh\n" {
		t.Errorf("4 says %q, %v", word, err)
	}
}

// Whatever is wrong with the first builder, the build is done on the second; and a person is
// told so in one line.
func TestMoves(t *testing.T) {
	for manner, reason := range map[string]string{
		"drops":     "Nix daemon disconnected unexpectedly",
		"declines":  "cannot build on 'b1': connection refused",
		"postpones": "Nix finds no free slot there",
		"mute":      "ended without a word, with exit code 0",
		"dies":      "ended without a word, with exit code 137",
		"odd":       "the moon over b1 is in the wrong phase",
		"is-killed": "failed due to signal 9", // nobody here knows why
	} {
		t.Run(manner, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil, machine("b1", manner))
			n := start(t, r.socket)
			n.asks()
			n.accepted()
			r.Set([]scheduler.Machine{machine("b1", manner), machine("b2", "builds")})
			line := n.until("warning:")
			if want := "'" + drv + "' moves from b1 to b2: "; !strings.Contains(line, want) || !strings.Contains(line, reason) {
				t.Errorf("it says %q, want %q and %q", line, want, reason)
			}
			n.wantEnd(0, []string{"moves from"}, `"level":0`)
			said := n.said.String()
			if strings.Contains(said, `"start","id":8`) && strings.Count(said, `{"action":"stop","id":8}`) != strings.Count(said, `"start","id":8`) {
				t.Errorf("an activity is left open:\n%s", said)
			}
			r.wantBuilt("b2")
		})
	}
}

func TestFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		machines  []string // manners
		condition *scheduler.Condition
		code      int
		said      []string
		unsaid    []string
	}{
		"its own": {machines: []string{"fails", "builds"}, code: 1,
			said: []string{"failed with exit code 3"}, unsaid: []string{"moves"}},
		"the same on two": {machines: []string{"odd", "odd", "builds"}, code: 1,
			said: []string{"moves from", `"level":0,"msg":"\u001b`}},
		"on each": {machines: []string{"drops", "drops", "drops", "drops", "builds"}, code: 1,
			said: []string{"was begun 4 times and never finished", `"level":0,"msg":"\u001b`}},
		"begun nowhere at first": {machines: []string{"declines", "declines", "declines", "declines", "declines", "builds"}, code: 0,
			said: []string{"moves from b5 to b6"}, unsaid: []string{`"level":0`}},
		"begun nowhere": {machines: []string{"declines", "declines"}, code: 1,
			said: []string{"and none began; the last time on b", `"level":0,"msg":"cannot build on`}},
		"killed, and no wonder": {machines: []string{"is-killed", "builds"}, condition: &scheduler.Condition{OOMKills: 3}, code: 0,
			said: []string{"it ran out of memory, and 3 processes were killed"}, unsaid: []string{`"level":0`}},
		"killed by itself": {machines: []string{"is-killed", "builds"}, condition: &scheduler.Condition{}, code: 1,
			said: []string{"failed due to signal 9"}, unsaid: []string{"moves"}},
		"on a full disk": {machines: []string{"fails", "builds"}, condition: &scheduler.Condition{DiskFull: true}, code: 0,
			said: []string{"its disk was full"}, unsaid: []string{`"level":0`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var all []scheduler.Machine
			for i, manner := range tc.machines {
				m := machine(fmt.Sprintf("b%d", i+1), manner)
				m.Speed = 10 - i // the first is wanted first
				all = append(all, m)
			}
			r := newRig(t, tc.condition, all...)
			n := start(t, r.socket)
			n.asks()
			n.accepted()
			n.wantEnd(tc.code, tc.said, tc.unsaid...)
			r.idle()
		})
	}
}

// hanging starts a build that hangs on b1, and returns what stands for its ssh.
func hanging(t *testing.T, r *rig, settings ...string) (*nix, proc.ID) {
	t.Helper()
	n := start(t, r.socket)
	n.asks(settings...)
	n.accepted()
	_, rest, _ := strings.Cut(n.until("ssh is"), "ssh is ")
	var pid int
	if _, err := fmt.Sscan(rest, &pid); err != nil {
		t.Fatal(err)
	}
	ssh, err := proc.Of(pid)
	if err != nil {
		t.Fatal(err)
	}
	return n, ssh
}

func wantGone(t *testing.T, ssh proc.ID) {
	t.Helper()
	if ssh.Alive() {
		t.Error("what the build has started is still there")
	}
}

func TestLostBuilder(t *testing.T) {
	r := newRig(t, nil, machine("b1", "hangs"))
	n, ssh := hanging(t, r)
	r.Set([]scheduler.Machine{machine("b2", "builds")})
	began := time.Now()
	n.until("moves from b1 to b2: it is gone")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to move", took)
	}
	wantGone(t, ssh)
	n.wantEnd(0, nil, `"level":0`)
	r.wantBuilt("b2")
}

func TestLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		manner   string
		settings []string
		said     string
	}{
		"time":            {"talks", []string{"timeout", "1"}, "timed out after 1 seconds"},
		"silence":         {"hangs", []string{"max-silent-time", "1"}, "timed out after 1 seconds of silence"},
		"time before all": {"talks", []string{"timeout", "3", "max-silent-time", "2"}, "timed out after 3 seconds"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil, machine("b1", tc.manner))
			n := start(t, r.socket)
			n.asks(tc.settings...)
			n.accepted()
			n.wantEnd(101, []string{"building of '" + drv + "' " + tc.said + `"`}, "moves")
			r.idle()
		})
	}
}

// The scheduler's process ends and another comes: a build that runs goes on and is known to
// the next, and one that waits gets its slot from that.
func TestSchedulerComesBack(t *testing.T) {
	r := newRig(t, nil, machine("b1", "hangs"))
	n, ssh := hanging(t, r)
	waiting := start(t, r.socket)
	waiting.asks()
	if name := waiting.accepted(); name == "b1" {
		t.Error("a slot was promised twice")
	}
	r.end()
	coming := machine("b1", "hangs") // so nobody gets its slot who is back earlier
	coming.State = scheduler.Coming
	r.serve(nil, coming)
	t.Cleanup(func() { r.end() })
	r.eventually("the build is known again", func() bool { return r.Running()["b1"] == 1 })
	r.Set([]scheduler.Machine{machine("b1", "hangs"), machine("b2", "builds")})
	waiting.until("builds on 'b2' after waiting")
	waiting.wantEnd(0, nil, "moves")
	if !ssh.Alive() {
		t.Fatal("the build has not gone on")
	}
	r.Set([]scheduler.Machine{machine("b2", "builds")})
	n.until("moves from b1 to b2")
	n.wantEnd(0, nil)
	wantGone(t, ssh)
}

// No scheduler comes any more: Nix' own hook looks for a builder.
func TestSchedulerStaysAway(t *testing.T) {
	for manner, want := range map[string]struct {
		code int
		said string
	}{
		"builds":         {0, `"building on 'ssh-ng://other?builds'"`},
		"postpones-once": {0, `"building on 'ssh-ng://other?postpones-once'"`},
		"declines":       {1, "and Nix has no builder for it"},
		"fails":          {1, "failed with exit code 3"},
	} {
		t.Run(manner, func(t *testing.T) {
			t.Parallel()
			busy := machine("b1", "builds")
			busy.State = scheduler.Coming
			r := newRig(t, nil)
			r.end()
			r.builders = "ssh-ng://other?" + manner
			r.serve(nil, busy)
			t.Cleanup(func() { r.end() })
			n := start(t, r.socket, "PATIENCE=1ms")
			n.asks("builders", r.builders) // the last one counts
			n.accepted()
			r.eventually("it waits", func() bool { return r.Stats().Waiting[system] == 1 })
			r.end()
			n.wantEnd(want.code, []string{"Nix looks for a builder", want.said})
		})
	}
}

func TestLeftToNix(t *testing.T) {
	silent := func(t *testing.T) string { // a scheduler that welcomes and says no more
		dir, err := os.MkdirTemp("", "hook")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		ln, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(conn, `{"op":"welcome","builders":"@/etc/nix/machines"}`)
			}
		}()
		return ln.Addr().String()
	}
	mute := func(t *testing.T) string { // one that does not even welcome
		dir := filepath.Dir(silent(t))
		ln, err := net.Listen("unix", filepath.Join(dir, "mute"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return ln.Addr().String()
	}
	for name, tc := range map[string]struct {
		socket   func(*testing.T) string
		builders string
	}{
		"no scheduler":          {func(t *testing.T) string { return filepath.Join(t.TempDir(), "none") }, "@/etc/nix/machines"},
		"no socket":             {func(*testing.T) string { return "" }, "@/etc/nix/machines"},
		"a mute scheduler":      {mute, "@/etc/nix/machines"},
		"no answer":             {silent, "@/etc/nix/machines"},
		"other builders wanted": {func(t *testing.T) string { return newRig(t, nil, machine("b1", "builds")).socket }, "ssh://mine"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "told")
			socket := tc.socket(t)
			if socket == "" {
				socket = "/" // BE_HOOK must not be empty
			}
			n := start(t, socket, "COPY_TO="+file)
			told := hook.Say([]string{"builders", tc.builders, "system", system}, 1, system, drv, "kvm")
			told = append(told, bytes.Repeat([]byte("and whatever else, \x00 and \xff"), 10_000)...)
			began := time.Now()
			n.tell(told)
			if line := n.line(); line != "# decline" {
				t.Errorf("it says %q, want what Nix' own hook does", line)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v to answer", took)
			}
			n.tell([]byte("more"))
			n.stdin.Close()
			if code := n.ends(); code != 42 {
				t.Errorf("it ended with %d, want Nix' own hook's 42", code)
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if want := append(told, "more"...); !bytes.Equal(got, want) {
				t.Errorf("Nix' own hook was told %d bytes, want the very %d that were said", len(got), len(want))
			}
		})
	}
}

// A request that was answered is not asked again: Nix' own hook is told of the open one only.
func TestSchedulerEndsBetweenRequests(t *testing.T) {
	r := newRig(t, nil, machine("b1", "builds"))
	file := filepath.Join(t.TempDir(), "told")
	n := start(t, r.socket, "COPY_TO="+file)
	n.tell(hook.Say(settingsWith(), 0, "riscv64-linux", drv))
	n.until("no builder can do it")
	n.until("# decline")
	r.end()
	n.tell(hook.SayTry(0, system, drv))
	n.stdin.Close()
	if code := n.ends(); code != 42 {
		t.Errorf("it ended with %d, want 42", code)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := hook.Say(settingsWith(), 0, system, drv); !bytes.Equal(got, want) {
		t.Errorf("Nix' own hook was told %d bytes, want %d: the settings and the open request", len(got), len(want))
	}
}

func TestNoBuildersWanted(t *testing.T) {
	for name, builders := range map[string]string{"empty": "", "blank": " \n"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, machine("b1", "builds"))
			n := start(t, r.socket)
			n.tell(hook.Say([]string{"builders", builders}, 0, system, drv))
			n.wantEnd(0, []string{"# decline-permanently"})
		})
	}
	r := newRig(t, nil)
	n := start(t, r.socket)
	n.asks()
	n.wantEnd(0, []string{"# decline-permanently"})
}

func TestSignals(t *testing.T) {
	t.Run("while it builds", func(t *testing.T) {
		r := newRig(t, nil, machine("b1", "hangs"))
		n, ssh := hanging(t, r)
		if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		n.wantEnd(130, nil, "moves")
		wantGone(t, ssh)
		r.idle()
	})
	t.Run("while it waits", func(t *testing.T) {
		busy := machine("b1", "builds")
		busy.State = scheduler.Coming
		r := newRig(t, nil, busy)
		n := start(t, r.socket)
		n.asks()
		n.accepted()
		r.eventually("it waits", func() bool { return r.Stats().Waiting[system] == 1 })
		if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		n.wantEnd(130, nil)
		r.eventually("nobody waits", func() bool { return r.Stats().Waiting[system] == 0 })
	})
	t.Run("while Nix says nothing", func(t *testing.T) {
		r := newRig(t, nil, machine("b1", "builds"))
		n := start(t, r.socket)
		n.tell(hook.Say(settingsWith(), 0, "riscv64-linux", drv))
		n.until("# decline")
		if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		n.wantEnd(130, nil)
	})
	t.Run("killed", func(t *testing.T) {
		r := newRig(t, nil, machine("b1", "hangs"))
		n, ssh := hanging(t, r)
		if err := syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		n.ends()
		r.idle()
		r.eventually("all of it is gone", func() bool { return !ssh.Alive() })
	})
}

// Lines longer than what is looked at in one piece arrive as they were.
func TestLongLines(t *testing.T) {
	r := newRig(t, nil, machine("b1", "long"))
	n := start(t, r.socket)
	n.asks()
	n.accepted()
	n.wantEnd(0, nil)
	want := `@nix {"action":"result","fields":["` + strings.Repeat("x", 3<<20) + `"],"id":8,"type":101}` + "\n"
	if !strings.Contains(n.said.String(), want) {
		t.Error("a long line arrives changed")
	}
}

func TestLocal(t *testing.T) {
	base := []string{"system", system, "extra-platforms", "i686-linux armv7l-linux", "system-features", "kvm big-parallel", "max-jobs", "4"}
	for name, tc := range map[string]struct {
		said []byte
		want bool
	}{
		"it could":       {hook.Say(base, 1, system, drv), true},
		"with features":  {hook.Say(base, 1, "i686-linux", drv, "kvm"), true},
		"has no slot":    {hook.Say(base, 0, system, drv), false},
		"another system": {hook.Say(base, 1, "aarch64-linux", drv), false},
		"a feature":      {hook.Say(base, 1, system, drv, "kvm", "nixos-test"), false},
		"builds nothing": {hook.Say(append(base, "max-jobs", "0"), 1, system, drv), false},
	} {
		got, err := hook.Local(tc.said)
		if diff := cmp.Diff(tc.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

// Whatever is said, what is kept and what is left are together what was said.
func FuzzRead(f *testing.F) {
	f.Add(hook.Say(settingsWith(), 1, system, drv, "kvm"))
	f.Add(append(hook.Say(nil, 0, system, drv), hook.SayTry(7, "", "")...))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, said []byte) {
		tape, rest, _, err := hook.ReadAll(bytes.NewReader(said))
		if err == nil {
			t.Error("it never ends")
		}
		if got := append(tape, rest...); !bytes.Equal(got, said) {
			t.Errorf("of %x it kept %x and left %x", said, tape, rest)
		}
	})
}
