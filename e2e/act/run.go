package act

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// Workflow is a workflow that somebody starts.
type Workflow struct {
	Text    string
	Event   string            // what starts it; if empty, workflow_dispatch
	Secrets map[string]string // of the repository
	Vars    map[string]string // of the repository
	// Repository is a directory with what a checkout gets, beside the workflow.
	Repository string
	// CheckedOut puts the repository into every job's workspace, for a workflow that
	// takes that for granted.
	CheckedOut bool
	// RunID and Attempt are the run's. If 0, a number of its own, and 1.
	RunID, Attempt int
	// Job, if not empty, is the only job that runs, with those that it needs.
	Job string
	// Env is in the environment of every step, as if GitHub had put it there.
	Env map[string]string
	// AtEnd, if not nil, is called for each job when the run is over, before its host
	// is thrown away.
	AtEnd func(*Job)
	// NoSudo, if not nil, says whose runner is not to have sudo.
	NoSudo func(*Job) bool
}

// Run is a workflow run.
type Run struct {
	ID, Attempt int

	bed      *Bed
	workflow Workflow
	dir      string
	cmd      *exec.Cmd
	done     chan struct{} // closed when act has ended and the hosts are gone
	serving  sync.WaitGroup

	mu     sync.Mutex
	log    bytes.Buffer      // what act prints; guarded by mu
	jobs   map[string]*berth // by temporary directory; guarded by mu
	faults []error           // of the bed; guarded by mu
}

// Run starts a workflow. It is over with the test at the latest.
func (b *Bed) Run(t testing.TB, w Workflow) *Run {
	t.Helper()
	n := int(b.runs.Add(1))
	if w.RunID == 0 {
		w.RunID = 4710 + n
	}
	w.Attempt = max(w.Attempt, 1)
	if w.Event == "" {
		w.Event = "workflow_dispatch"
	}
	r := &Run{
		ID: w.RunID, Attempt: w.Attempt, bed: b, workflow: w, dir: b.dir("runs", strconv.Itoa(n)),
		done: make(chan struct{}), jobs: map[string]*berth{},
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ln, err := r.prepare()
	if err == nil {
		r.cmd = r.command()
		err = r.start(ctx, ln)
	}
	if err != nil {
		cancel()
		t.Fatalf("run a workflow: %v", err)
	}
	t.Cleanup(func() {
		defer cancel()
		select {
		case <-r.done:
		default:
			cancel()
			_ = r.cmd.Process.Kill()
			<-r.done
		}
		if err := errors.Join(r.faults...); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run %d: %v", r.ID, err)
		}
		if t.Failed() {
			t.Logf("run %d:\n%s", r.ID, chatter.ReplaceAllString(r.Log(), ""))
		}
	})
	return r
}

// chatter is what act tells of itself.
var chatter = regexp.MustCompile(`(?m)^.*(?:LocalRepositoryCache|::set-output::|Couldn't get a valid docker).*\n`)

// prepare makes the run's directory.
func (r *Run) prepare() (net.Listener, error) {
	for _, d := range []string{"shims", "cache", "home", "work/.github/workflows"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"bash", "sh", "node"} {
		if err := image.CopyFile(filepath.Join(r.bed.dir(), "..", "bin", "shim"), filepath.Join(r.dir, "shims", name)); err != nil {
			return nil, err
		}
	}
	work := filepath.Join(r.dir, "work")
	if r.workflow.Repository != "" {
		if err := os.CopyFS(work, os.DirFS(r.workflow.Repository)); err != nil {
			return nil, err
		}
	}
	// A dotenv file reads these escapes.
	quote := func(m map[string]string) (text string) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			text += k + "=" + strconv.Quote(m[k]) + "\n"
		}
		return text
	}
	for name, text := range map[string]string{
		"work/.github/workflows/workflow.yml": r.workflow.Text,
		"secrets":                             quote(r.workflow.Secrets),
		"vars":                                quote(r.workflow.Vars),
		"env":                                 "",
		"inputs":                              "",
	} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if err := own(r.dir); err != nil {
		return nil, err
	}
	return r.listen()
}

// own gives a directory and all in it to the user that act runs as.
func own(dir string) error {
	return filepath.Walk(dir, func(name string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Lchown(name, uid, uid))
	})
}

// logWriter adds to what act has printed.
type logWriter struct{ r *Run }

func (w logWriter) Write(b []byte) (int, error) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	return w.r.log.Write(b)
}

// start starts act and what serves it, until act has ended.
func (r *Run) start(ctx context.Context, ln net.Listener) error {
	go r.portal(ctx, ln)
	started := make(chan error)
	go func() {
		// The thread that starts act must live as long: its end is the signal for act
		// to die.
		runtime.LockOSThread()
		err := r.cmd.Start()
		started <- err
		if err != nil {
			ln.Close()
			return
		}
		_ = r.cmd.Wait() // its log says what there is to say
		r.serving.Wait() // steps that were cancelled are still ending
		ln.Close()
		if err := r.tidy(ctx); err != nil {
			r.fault(err)
		}
		close(r.done)
	}()
	return <-started
}

// tidy notes what is left on the hosts, and throws them away.
func (r *Run) tidy(ctx context.Context) error {
	jobs := r.Jobs()
	errs := make([]error, len(jobs))
	var wg sync.WaitGroup
	for i, j := range jobs {
		wg.Go(func() {
			left, err := j.Host.Processes()
			if err != nil {
				errs[i] = err
				return
			}
			j.Left = slices.DeleteFunc(left, func(p testbed.Process) bool { return filepath.Base(p.Argv[0]) == "nix-daemon" })
			if r.workflow.AtEnd != nil {
				r.workflow.AtEnd(j)
			}
			errs[i] = j.Host.Remove(ctx)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// fault notes an error of the bed itself, for which the test fails.
func (r *Run) fault(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, err)
	fmt.Fprintf(&r.log, "bed: %v\n", err)
}

// fillWorkspace puts the repository into a job's workspace.
func (r *Run) fillWorkspace(_ context.Context, _ *Job, workspace string) error {
	if !r.workflow.CheckedOut {
		return nil
	}
	if err := os.CopyFS(workspace, os.DirFS(r.workflow.Repository)); err != nil {
		return err
	}
	return own(workspace)
}

// Log is what act has printed so far, as a person sees it.
func (r *Run) Log() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// Jobs are the jobs that have a host, in the order of their names.
func (r *Run) Jobs() []*Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*Job
	for _, b := range r.jobs {
		if b.job != nil {
			all = append(all, b.job)
		}
	}
	slices.SortFunc(all, func(a, b *Job) int { return strings.Compare(a.String()+a.Host.Name(), b.String()+b.Host.Name()) })
	return all
}

// Cancel does what a person does who cancels the run.
func (r *Run) Cancel() error { return r.cmd.Process.Signal(syscall.SIGINT) }

// Wait returns when the run is over and its hosts are gone, and reports whether
// it succeeded.
func (r *Run) Wait(ctx context.Context) (ok bool, err error) {
	select {
	case <-r.done:
		return r.cmd.ProcessState.Success(), nil
	case <-ctx.Done():
		return false, fmt.Errorf("run %d is not over: %w", r.ID, context.Cause(ctx))
	}
}

// Dir is where act keeps all that it writes.
func (r *Run) Dir() string { return r.dir }
