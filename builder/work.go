package builder

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// work is what was seen of the builds on this host. Builds are looked at now and then,
// so what begins and ends between two looks is missed.
type work struct {
	builds int           // that ran at the last look
	peak   int           // the most that ran at one
	busy   time.Duration // how long each build ran, summed
	at     time.Time     // of the last look; zero: the next one begins anew
	looked bool          // at least once
}

// maxGap is the time between two looks over which nobody knows what ran: this process
// was stopped, or the host.
const maxGap = 2 * lookMost

// maxBusy is the most seconds that the contract lets a builder tell.
const maxBusy = 1e9

// saw notes how many builds run now. Where their number changed since the last look, it
// is taken to have done so halfway.
func (w *work) saw(now time.Time, builds int) {
	builds = min(max(builds, 0), maxBuilds)
	if gap := now.Sub(w.at); !w.at.IsZero() && gap <= maxGap {
		w.busy += gap * time.Duration(w.builds+builds) / 2
	}
	w.builds, w.at, w.looked = builds, now, true
	w.peak = max(w.peak, builds)
}

// missed notes that nobody could look: the time until the next look is not counted.
func (w *work) missed() { w.at = time.Time{} }

// in returns v with what was seen.
func (w *work) in(v apiclient.Vitals) apiclient.Vitals {
	if w.looked {
		v.PeakBuilds, v.BusySeconds = new(max(w.peak, v.Builds)), new(min(w.busy.Seconds(), maxBusy))
	}
	return v
}

func (w *work) String() string {
	if w.peak == 0 {
		return "no build was seen here"
	}
	return fmt.Sprintf("at most %s at a time, %v of build time seen", builds(w.peak), w.busy.Round(time.Second))
}

// Pauses between two looks. A host where a look takes long is looked at more seldom: looking
// costs a builder that idles no more than lookShare-th of one processor.
const (
	lookLeast = time.Second
	lookMost  = 15 * time.Second
	lookShare = 500
)

// lookWindow is of how many looks the quickest tells what one costs: on a host that is busy
// with builds, of all times, any of them has to wait for a processor.
const lookWindow = 4

// look looks how many builds run, and returns when to look again.
func (s *sampler) look(ctx context.Context) (pause time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, vitalsTime)
	defer cancel()
	began := time.Now()
	n, err := s.a.Builds(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.a.Log.Debug("count builds", "error", err)
		}
		s.work.missed()
		return lookMost
	}
	now := time.Now()
	s.work.saw(now, n)
	s.took = append(s.took[max(0, len(s.took)-lookWindow+1):], now.Sub(began))
	if len(s.took) < lookWindow {
		return lookLeast
	}
	return min(max(lookLeast, lookShare*slices.Min(s.took)), lookMost)
}
