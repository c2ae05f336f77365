package summary_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/golden"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/summary"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// at is so many seconds after noon.
func at(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }

func TestSmall(t *testing.T) {
	r := small()
	golden.Equal(t, "small.md", r.Markdown())
	golden.Equal(t, "small.txt", r.Text())
	wellFormed(t, r)
}

// small is a run where all went well, as its stop sees it.
func small() summary.Run {
	return summary.Run{
		Cluster: "acme/site/42/1", Began: at(0), Stopped: at(900), At: at(902),
		Builders: []summary.Builder{
			{
				Name: "nix-builder-a1-ubuntu-24.04-1", Fate: summary.Released, State: "departed", Reason: "left as it was told to",
				Systems: []string{"x86_64-linux", "i686-linux"}, Cores: 4, Joined: at(31), Ready: at(34), Left: at(901),
				PeakBuilds: new(4), Busy: new(40 * time.Minute),
			},
			{
				Name: "nix-builder-a1-macos-26-1", Fate: summary.Released, State: "departed", Reason: "left as it was told to",
				Systems: []string{"aarch64-darwin"}, Cores: 3, Joined: at(55), Ready: at(60), Left: at(900),
				PeakBuilds: new(0), Busy: new(time.Duration(0)),
			},
		},
	}
}

// The same builders when the coordinator's job is over.
func TestAfterTheStop(t *testing.T) {
	r := small()
	told := r.Told()
	r.At, r.Final = at(1500), true
	golden.Equal(t, "after.md", r.Later(told))
	golden.Equal(t, "after.txt", r.LaterText(told))
	golden.Equal(t, "final.md", r.Markdown())

	r.Builders[0].Fate, r.Builders[0].Left = summary.Remaining, time.Time{}
	told.States[r.Builders[0].Name] = "ready"
	if got := r.LaterText(told); !strings.Contains(got, "Since 12:15:02: nix-builder-a1-ubuntu-24.04-1 did not leave") {
		t.Errorf("a builder that changed: %q", got)
	}
	// A second stop has nothing to add.
	again := small()
	if got := again.Later(again.Told()); got != "" {
		t.Errorf("told twice: %q", got)
	}
}

func TestWithoutEarlyStop(t *testing.T) {
	r := small()
	r.Final = true
	for i := range r.Builders {
		r.Builders[i].Left = r.At
	}
	for what, text := range map[string]string{"Markdown": r.Markdown(), "text": r.Text()} {
		if !strings.Contains(text, "held until the end of this job. Call stop-nix-builders") {
			t.Errorf("%s of a run that was not stopped early:\n%s", what, text)
		}
	}
}

func TestEmpty(t *testing.T) {
	wellFormed(t, summary.Run{})
	r := summary.Run{Cluster: "c"}
	if got := r.Text(); !strings.HasPrefix(got, "Distributed Nix builds: no builders.\n") {
		t.Errorf("text: %q", got)
	}
}

// A builder of every fate, made of what the API tells.
func TestFates(t *testing.T) {
	c, stop, events := trouble()
	r := summary.Of(at(700), c, stop, events)
	r.Began = at(5)
	golden.Equal(t, "trouble.md", r.Markdown())
	golden.Equal(t, "trouble.txt", r.Text())
	wellFormed(t, r)
	got := map[string]summary.Fate{}
	for _, b := range r.Builders {
		got[b.Name] = b.Fate
	}
	want := map[string]summary.Fate{
		"good": summary.Released, "freed": summary.Released, "unready": summary.Unready, "missing": summary.Missing, "cancelled": summary.OwnWay,
		"lost": summary.Lost, "rejected": summary.Rejected, "stuck": summary.Remaining, "silent": summary.Remaining, "late": summary.Released,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fates (-want +got):\n%s", diff)
	}
}

func trouble() (apiclient.Cluster, apiclient.StopReport, []apiclient.Event) {
	c := apiclient.Cluster{Id: "acme/site/42/2", Phase: "stopping"}
	stop := apiclient.StopReport{StoppedAt: at(600), Faults: &[]string{"restore the host's files: /etc/nix/nix.conf: no space left on device"}}
	add := func(name string, state apiclient.BuilderState, reason string, joined, ready, left int, after *float64, gone bool) {
		opt := func(s int) *time.Time {
			if s == 0 {
				return nil
			}
			return new(at(s))
		}
		b := apiclient.Builder{Name: name, State: state, Reason: reason, JoinedAt: opt(joined), ReadyAt: opt(ready), LeftAt: opt(left)}
		if joined > 0 {
			b.Offer = &apiclient.Offer{Systems: []string{"x86_64-linux"}, Cores: 4}
		}
		if ready > 0 {
			b.Vitals = &apiclient.Vitals{PeakBuilds: new(2), BusySeconds: new(95.5)}
		}
		c.Builders = append(c.Builders, b)
		stop.Builders = append(stop.Builders, apiclient.Released{Name: name, State: state, Reason: reason, Left: gone, AfterSeconds: after})
	}
	add("good", "departed", "left as it was told to", 10, 12, 601, new(1.0), true)
	add("unready", "departed", "left as it was told to", 10, 0, 601, new(1.0), true)
	add("freed", "departed", "left as it was told to", 10, 12, 401, nil, true) // when the cluster failed
	add("missing", "expected", "never checked in", 0, 0, 0, nil, true)
	add("cancelled", "departed", "left: its job was cancelled", 11, 13, 300, nil, true)
	add("lost", "lost", "silent for 45.1s", 11, 13, 200, nil, true)
	add("rejected", "rejected", "its store is read-only", 11, 0, 0, nil, true)
	add("stuck", "ready", "its store answered", 12, 15, 0, nil, false)
	add("silent", "lost", "silent for 45s", 12, 15, 645, nil, false)
	add("late", "departed", "left as it was told to", 12, 15, 660, new(60.0), false)
	event := func(kind apiclient.EventType, builder string, s int, reason string) apiclient.Event {
		return apiclient.Event{Type: kind, At: at(s), Builder: &builder, Reason: reason}
	}
	events := []apiclient.Event{
		event("builder.lost", "good", 100, "silent for 45.3s"),
		event("builder.joined", "good", 110, "heard again"),
		event("builder.lost", "lost", 200, "silent for 45.1s"),
		{Type: "cluster.failed", At: at(400), Reason: "only 3 of 10 builders were ready within 6m40s"},
	}
	return c, stop, events
}

// As many builders as a matrix may have, each with the longest reason.
func TestLarge(t *testing.T) {
	r := summary.Run{Cluster: strings.Repeat("c", 512), Began: at(0), Stopped: at(900), At: at(960)}
	for i := range 256 {
		b := summary.Builder{
			Name: fmt.Sprintf("nix-builder-a1-ubuntu-24.04-arm-%d", i+1), Fate: summary.Released, State: "departed",
			Systems: []string{[]string{"x86_64-linux", "aarch64-linux", "aarch64-darwin"}[i%3]}, Cores: 4,
			Joined: at(20 + i), Ready: at(25 + i), Left: at(900 + i%7), PeakBuilds: new(i % 5), Busy: new(time.Duration(i) * time.Second),
		}
		if i%16 == 5 {
			b.Fate, b.State, b.Reason = summary.Lost, "lost", strings.Repeat("<|`&silence ", 90)
			r.Losses = append(r.Losses, summary.Loss{Builder: b.Name, At: at(800), Reason: b.Reason})
		}
		r.Builders = append(r.Builders, b)
	}
	wellFormed(t, r)
	golden.Equal(t, "large.md", r.Markdown())
	for i := range r.Builders {
		r.Builders[i].Fate, r.Builders[i].Reason = summary.Lost, strings.Repeat("<|`&silence ", 90)
	}
	wellFormed(t, r)
}

// What others say stays text, whatever it is.
func TestHostile(t *testing.T) {
	r := summary.Run{
		Cluster: "acme/<b>/1/1\n# Heading", Failed: "| a | b |\n\n</table>", Began: at(0), At: at(60), Stopped: at(50),
		Builders: []summary.Builder{
			{
				Name: "a|b`c`<script>alert(1)</script>\n::error::x", Fate: summary.Lost, State: "lost",
				Reason: "![x](https://example.com/x.png) **bold** _it_ ~~no~~ $x$ @user #1 :smile: www.example.com &lt; \u202eright to left\u2066 \x1b[31m ```\n```",
				Joined: at(5), Ready: at(6), Left: at(40), Systems: []string{"x86_64-linux :crit, 2026", "click\nsection x"},
			},
			{Name: "click", Fate: summary.Released, State: "departed", Joined: at(5), Ready: at(6), Left: at(50), Systems: []string{"%%{init: {}}%%"}},
			{Name: "section x;#:,", Fate: summary.Released, State: "departed", Joined: at(5), Left: at(50)},
			{Name: "", Fate: summary.Fate(99), State: "odd", Joined: at(50), Left: at(5), PeakBuilds: new(-1), Busy: new(-time.Hour)},
		},
		Losses: []summary.Loss{{Builder: "- [ ] task", At: at(40), Reason: "1. list"}},
		Faults: []string{"```", "> quote"},
	}
	golden.Equal(t, "hostile.md", r.Markdown())
	golden.Equal(t, "hostile.txt", r.Text())
	wellFormed(t, r)
}
