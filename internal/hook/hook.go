package hook

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// Config is what a hook is started with.
type Config struct {
	Socket    string   // the scheduler's; empty for none
	Machines  string   // machines file of the scheduler's machines; if empty, it says itself
	Verbosity string   // as Nix gives it
	Nix       string   // program of the Nix that called, see FindNix
	Env       []string // for Nix' own hook
	// Patience is how long a build that waits has no scheduler before it does without. If
	// zero, 60 s.
	Patience time.Duration
	// Hope is for how long it is tried, and no builder even begins. If zero, 20 s.
	Hope time.Duration

	Stdin, Stderr *os.File
	// Log and LogRead are the descriptors 4 and 5. They must be held until the process ends.
	Log, LogRead *os.File
}

// Exit is how the process is to end, so that Nix sees what it would have seen of its own hook.
type Exit struct {
	Code   int
	Signal syscall.Signal // if not zero: by this signal
}

// exitTimedOut is what Nix takes for a build that exceeded one of its limits.
const exitTimedOut = 101

const (
	// tryLimit is for the scheduler's answer to a request, which Nix waits for.
	tryLimit = 500 * time.Millisecond
	// conditionLimit is for its answer about a builder.
	conditionLimit = 3 * time.Second
	// awayLimit is for a new scheduler to come while a build waits.
	awayLimit = time.Minute
	// maxTries is how often a build is begun, since it may be what ends its builders.
	maxTries = 4
	// vainLimit is for builders to begin anything: they all refuse for a moment when it was
	// the coordinator that they did not hear. The scheduler sees to the pauses.
	vainLimit = 20 * time.Second
)

// A hook is one process of Nix' build hook.
type hook struct {
	Config
	in    *source
	out   *reporter
	begun chan struct{} // closed when there is something that must not be left behind

	settings settings
	limits   limits
	request  *request // that was accepted, as are the next three
	build    *scheduler.Build
	inputs   []string // store paths
	outputs  []string // names of those that are wanted

	seat    *seat
	promise string   // the machine whose name Nix was told; empty if none
	running string   // the machine that builds now; empty if none does
	avoid   []string // machines where it failed
	tries   int      // that have failed
	starts  int      // of them, those in which the build began
	vain    vain
}

// vain are the last tries in a row in which no builder began the build.
type vain struct {
	tries int
	since time.Time // of the first
}

// Run is the whole life of a hook. It returns how to end the process. If ctx ends, so does
// the build. An error is one that Nix' user is to see.
func Run(ctx context.Context, c Config) (Exit, error) {
	verbosity, err := strconv.Atoi(c.Verbosity)
	if err != nil {
		verbosity = levelInfo
	}
	h := &hook{
		Config: c, in: newSource(c.Stdin), out: &reporter{w: c.Stderr, verbosity: verbosity},
		begun: make(chan struct{}),
	}
	exit, err := h.run(ctx)
	if err != nil && ctx.Err() == nil {
		h.out.say(levelError, "error: %v", err) // Nix shows nothing else
		return Exit{Code: 1}, nil
	}
	return exit, err
}

func (h *hook) run(ctx context.Context) (Exit, error) {
	if h.Socket == "" {
		return Exit{}, h.become()
	}
	client, err := dial(ctx, h.Socket)
	if err != nil && !h.restarts() {
		return Exit{}, h.become()
	}
	type result struct {
		exit Exit
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		exit, err := h.serve(ctx, client)
		ended <- result{exit, err}
	}()
	select {
	case r := <-ended:
		return r.exit, r.err
	case <-ctx.Done():
	}
	select {
	case <-h.begun: // it is ended in order
		r := <-ended
		return r.exit, r.err
	default:
		// Reading from Nix can't be interrupted: it ends with the process.
		return Exit{}, context.Cause(ctx)
	}
}

// serve answers Nix' requests, and does what the first one that is accepted asks for. The
// client is nil if the scheduler does not answer now.
func (h *hook) serve(ctx context.Context, client *scheduler.Client) (Exit, error) {
	all, err := h.in.settings()
	if err == io.EOF {
		closeClient(client)
		return Exit{}, nil // Nix has ended
	}
	told := h.in.cut()
	builders := strings.TrimSpace(all.get("builders"))
	switch {
	case err != nil: // Nix' own hook understands it, or says why not
		return h.leaveTo(ctx, client, told)
	case builders == "":
		closeClient(client)
		h.out.answer(declinePermanently)
		return Exit{}, nil
	case builders != h.ours(client):
		return h.leaveTo(ctx, client, told)
	}
	h.settings = all
	for {
		q, err := h.in.request()
		if err == io.EOF {
			closeClient(client)
			return Exit{}, nil
		}
		if err != nil {
			return h.leaveTo(ctx, client, append(told, h.in.cut()...))
		}
		asked := h.in.cut()
		b := q.describe()
		m := scheduler.Message{Op: scheduler.OpTry, Build: b, Local: q.local(all)}
		var answer scheduler.Message
		answer, client, err = h.ask(ctx, client, m)
		switch {
		case err != nil && h.listed(q, builders):
			closeClient(client)
			h.request, h.build = q, b
			return h.accepted(ctx, nil)
		case err != nil:
			return h.leaveTo(ctx, client, append(told, asked...))
		case answer.Op == scheduler.OpAccept:
			h.request, h.build, h.promise = q, b, answer.Machine
			return h.accepted(ctx, client)
		case answer.Op == scheduler.OpDeclinePermanently:
			client.Close()
			h.out.answer(declinePermanently)
			return Exit{}, nil
		case answer.Op == scheduler.OpPostpone:
			h.out.answer("postpone")
		default:
			if answer.Reason != "" {
				// As Nix' own hook has it: what can be built here is no matter of concern.
				level := levelWarn
				if q.suits(all) {
					level = levelChatty
				}
				h.out.say(level, "'%s': %s", q.derivation, answer.Reason)
			}
			h.out.answer("decline")
		}
	}
}

const declinePermanently = "decline-permanently"

// leaveTo has Nix' own hook do what the scheduler will not be asked for.
func (h *hook) leaveTo(ctx context.Context, c *scheduler.Client, read []byte) (Exit, error) {
	closeClient(c)
	close(h.begun)
	return h.handOver(ctx, read)
}

// ask has a request answered. The scheduler may be another than it was at the last one: the
// client that was asked last is returned too.
func (h *hook) ask(ctx context.Context, c *scheduler.Client, m scheduler.Message) (scheduler.Message, *scheduler.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	once := func() (scheduler.Message, error) {
		if c == nil {
			return m, errAway
		}
		if err := c.Send(m); err != nil {
			return m, err
		}
		return c.Recv(ctx)
	}
	answer, err := once()
	if err != nil && ctx.Err() == nil { // that scheduler is gone
		closeClient(c)
		c = nil
		var next *scheduler.Client
		if next, err = dial(ctx, h.Socket); err == nil {
			c = next
			answer, err = once()
		}
	}
	return answer, c, err
}

// accepted has the build done that was accepted; client is nil while there is no scheduler.
func (h *hook) accepted(ctx context.Context, client *scheduler.Client) (Exit, error) {
	name := h.promise
	if name == "" {
		name = "the next builder that is free"
	}
	h.out.answer("accept\n" + name)
	h.limits = limits{h.request.derivation, h.settings.seconds("timeout"), h.settings.seconds("max-silent-time")}
	h.seat = newSeat(h.Socket, client, h.resume)
	defer h.seat.leave()
	var err error
	if h.inputs, err = h.in.words(); err == nil {
		h.outputs, err = h.in.words()
	}
	close(h.begun)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return Exit{Code: 1}, nil // Nix has ended
		}
		return Exit{}, err
	}
	ctx, done := h.whileNixReads(ctx)
	defer done()
	exit, err := h.work(ctx)
	if errors.Is(err, errNixGone) {
		return Exit{Code: 1}, nil // as above
	}
	return exit, err
}

// resume is what a scheduler is told that knows nothing of this build.
func (h *hook) resume() scheduler.Message {
	return scheduler.Message{
		Op: scheduler.OpResume, Build: h.build, Inputs: h.inputs, Avoid: h.avoid, Tries: h.tries, Machine: h.running,
	}
}
