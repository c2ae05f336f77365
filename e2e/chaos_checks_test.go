package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// cluster is the cluster as the API shows it.
func (w *world) cluster(ctx context.Context) (c apiclient.Cluster, err error) {
	text, err := w.Host(w.Coordinator).OutputAs(ctx, testbed.Runner, "curl", "-sS", "--fail-with-body", "--max-time", "5", w.watch.base+"/cluster")
	if err == nil {
		err = json.Unmarshal([]byte(text), &c)
	}
	return c, err
}

// settled waits until every host is a builder that is ready and was heard meanwhile, by its
// own word, the API's, the events' and the machines file's.
func (w *world) settled(when string) {
	w.t.Helper()
	began := time.Now()
	for {
		why := w.unsettled(began)
		if why == "" || w.t.Failed() {
			return
		}
		if time.Since(began) > 2*w.lease+2*slack {
			w.wrong("%s, after %v: %s", when, time.Since(began).Round(time.Second), why)
			return
		}
		_ = pause(w.t.Context(), 50*time.Millisecond)
	}
}

// unsettled says what is not as it should be, and was not since then; empty if all is.
func (w *world) unsettled(since time.Time) string {
	c, err := w.cluster(w.t.Context())
	if err != nil {
		return err.Error()
	}
	var ready, theirs []string
	for _, b := range w.lent {
		select {
		case <-b.p.Done():
			w.wrong("%s has ended; it printed:\n%s", b.p, b.p.Output())
			return "an agent has ended"
		default:
		}
		if !claimed(b.p) {
			return b.name + " is not claimed yet"
		}
		if !w.backSince(c, b, since) {
			now, _ := builderOf(c, b.name)
			return fmt.Sprintf("%s is not ready or was not heard since: %s", b.name, show(now))
		}
		theirs = append(theirs, b.name)
	}
	for _, b := range c.Builders {
		if b.State == apiclient.BuilderStateReady {
			ready = append(ready, b.Name)
		}
	}
	slices.Sort(ready)
	slices.Sort(theirs)
	if diff := cmp.Diff(theirs, ready); diff != "" {
		return fmt.Sprintf("builders that are ready (-want +got):\n%s\n%s", diff, show(c))
	}
	same, diff := w.watch.agrees(c)
	if !same {
		return fmt.Sprintf("the API is at event %d and the stream is not", c.Event)
	}
	if diff != "" {
		w.wrong("at event %d: %s", c.Event, diff)
	}
	named, err := w.watch.named()
	if err != nil {
		w.wrong("the machines file: %v", err)
	}
	slices.Sort(named)
	if diff := cmp.Diff(ready, named); diff != "" {
		return fmt.Sprintf("the machines file (-ready +named):\n%s", diff)
	}
	return ""
}

// quiet checks, while nobody builds, that nothing is left of builds: no hook, and no
// connection to a builder.
func (w *world) quiet(when string) {
	w.t.Helper()
	began := time.Now()
	for {
		why := w.unsettled(began)
		if why == "" {
			if left := w.building(); left != "" {
				why = "left of builds:\n" + left
			}
		}
		if why == "" || w.t.Failed() {
			return
		}
		if time.Since(began) > w.lease+slack {
			w.wrong("%s, after %v of quiet: %s", when, time.Since(began).Round(time.Second), why)
			return
		}
		_ = pause(w.t.Context(), 50*time.Millisecond)
	}
}

// building lists the coordinator's processes that have to do with builds.
func (w *world) building() string {
	all, err := w.Host(w.Coordinator).Processes()
	if err != nil {
		return err.Error()
	}
	var left []string
	for _, p := range all {
		argv := strings.Join(p.Argv, " ")
		if filepath.Base(p.Argv[0]) == "ssh" || strings.Contains(argv, "build-remote") ||
			strings.Contains(argv, " build-hook ") || strings.Contains(argv, "nix-builders dial") {
			left = append(left, p.String())
		}
	}
	return strings.Join(left, "\n")
}

// processes lists what runs on a host.
func (w *world) processes(host string) string {
	all, err := w.Host(host).Processes()
	var s strings.Builder
	for _, p := range all {
		fmt.Fprintln(&s, p)
	}
	if err != nil {
		fmt.Fprintln(&s, err)
	}
	return s.String()
}

// stalled notes that the server does not run from now on, for d.
func (w *world) stalled(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stalls = append(w.stalls, stall{time.Now(), d})
}

// stalledSince is for how long the server did not run since then.
func (w *world) stalledSince(then time.Time) (d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.stalls {
		if end := s.from.Add(s.long); end.After(then) {
			d += s.long
		}
	}
	return d
}
