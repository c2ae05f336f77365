package nix_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

// The test's own program plays the daemon: it is started with these variables.
const (
	playSocket = "NIX_TEST_PLAY_SOCKET" // where to listen
	playRecord = "NIX_TEST_PLAY_RECORD" // where to note each start, a life a line
	playHello  = "NIX_TEST_PLAY_HELLO"  // what to greet with, instead of Nix' greeting
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(playSocket); socket != "" {
		if err := playDaemon(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// life is one start of the played daemon.
type life struct {
	PID  int
	Args []string
	Env  []string
	Dir  string
}

func playDaemon(socket string) error {
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	line, err := json.Marshal(life{os.Getpid(), os.Args, os.Environ(), dir})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(os.Getenv(playRecord), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	f.Close()
	fmt.Println("listening")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			var hello [8]byte
			if _, err := io.ReadFull(conn, hello[:]); err == nil && string(hello[:]) == "cxin\x00\x00\x00\x00" {
				answer := os.Getenv(playHello)
				if answer == "" {
					answer = "oixd\x00\x00\x00\x00"
				}
				io.WriteString(conn, answer)
			}
		}()
	}
}

// stage is a directory with a played daemon.
type stage struct {
	t              *testing.T
	dir            string
	socket, record string
}

func newStage(t *testing.T) *stage {
	// Not t.TempDir: a unix socket's path has 107 bytes at most.
	dir, err := os.MkdirTemp("", "nixd")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, dir: dir, socket: filepath.Join(dir, "socket"), record: filepath.Join(dir, "record")}
	t.Cleanup(func() {
		for _, l := range s.lives() {
			syscall.Kill(l.PID, syscall.SIGKILL)
		}
		os.RemoveAll(dir)
	})
	return s
}

// lives gives the starts so far.
func (s *stage) lives() (all []life) {
	data, _ := os.ReadFile(s.record)
	for line := range strings.Lines(string(data)) {
		var l life
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// start starts the daemon and returns when it listens.
func (s *stage) start(hello string) *exec.Cmd {
	s.t.Helper()
	out, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	before := len(s.lives())
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := &exec.Cmd{
		Path: exe, Args: []string{"nix-daemon", "--option", "with space"}, Dir: s.dir, Stdout: out, Stderr: out,
		Env: []string{playSocket + "=" + s.socket, playRecord + "=" + s.record, playHello + "=" + hello, "KEPT=yes", "EMPTY="},
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); len(s.lives()) == before; {
		if time.Now().After(deadline) {
			s.t.Fatal("the played daemon does not start")
		}
		time.Sleep(5 * time.Millisecond) // another process' doing, which no fake clock knows
	}
	return cmd
}

func TestRestartABareDaemon(t *testing.T) {
	s := newStage(t)
	old := s.start("")
	go old.Wait()
	d := nix.Daemon{Socket: s.socket, Respawn: 50 * time.Millisecond}
	if err := d.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	lives := s.lives()
	if len(lives) != 2 || lives[0].PID == lives[1].PID {
		t.Fatalf("its lives: %+v", lives)
	}
	for _, l := range lives {
		slices.Sort(l.Env)
	}
	lives[0].PID = lives[1].PID
	if diff := cmp.Diff(lives[0], lives[1]); diff != "" {
		t.Errorf("it was started otherwise (-before +after):\n%s", diff)
	}
	if sid, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", lives[1].PID)); err != nil || strings.Fields(string(sid))[5] != fmt.Sprint(lives[1].PID) {
		t.Errorf("it is not in a session of its own: %s, %v", sid, err)
	}
	log, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil || strings.Count(string(log), "listening") != 2 {
		t.Errorf("its output does not go where it went: %q, %v", log, err)
	}
}

func TestRestartADaemonThatItsParentStartsAgain(t *testing.T) {
	s := newStage(t)
	old := s.start("")
	respawned := make(chan *exec.Cmd, 1)
	go func() {
		old.Wait()
		respawned <- s.start("")
	}()
	if err := (nix.Daemon{Socket: s.socket, Respawn: 10 * time.Second}).Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	cmd := <-respawned
	go cmd.Wait()
	if lives := s.lives(); len(lives) != 2 || lives[1].PID != cmd.Process.Pid {
		t.Errorf("its lives: %+v, its parent's: %d", lives, cmd.Process.Pid)
	}
}

func TestNoDaemonIsNotRestarted(t *testing.T) {
	s := newStage(t)
	if err := (nix.Daemon{Socket: s.socket}).Restart(t.Context()); err != nil {
		t.Errorf("without a socket: %v", err)
	}
	// A daemon that was killed leaves its socket behind.
	cmd := s.start("")
	cmd.Process.Kill()
	cmd.Wait()
	if err := (nix.Daemon{Socket: s.socket}).Restart(t.Context()); err != nil {
		t.Errorf("with a socket nobody listens on: %v", err)
	}
	if lives := s.lives(); len(lives) != 1 {
		t.Errorf("it was started: %+v", lives)
	}
}

func TestAStrangerIsNotKilled(t *testing.T) {
	s := newStage(t)
	cmd := s.start("HTTP/1.1 400")
	err := nix.Daemon{Socket: s.socket}.Restart(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no Nix daemon") {
		t.Errorf("Restart: %v", err)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger is gone: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
}
