package httpapi_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// The life of three builders as they and a reader see it, over the API alone.
func TestLifeOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		start := time.Now()
		b1 := w.api(builder1)

		ticket, first, err := b1.CheckIn(t.Context(), checkIn("b1"))
		if err != nil || !first {
			t.Fatalf("first check-in: first=%v, %v", first, err)
		}
		again, first, err := b1.CheckIn(t.Context(), checkIn("b1"))
		if err != nil || first {
			t.Fatalf("second check-in: first=%v, %v", first, err)
		}
		if diff := cmp.Diff(ticket, again); diff != "" {
			t.Errorf("a renewed ticket differs (-first +again):\n%s", diff)
		}
		want := apiclient.Ticket{Id: ticket.Id, Cluster: clusterID, Name: "b1",
			Phase: apiclient.PhaseGathering, LeaseSeconds: 45, PollSeconds: 15}
		if diff := cmp.Diff(want, ticket); diff != "" {
			t.Errorf("ticket (-want +got):\n%s", diff)
		}
		tickets := []apiclient.Ticket{ticket, w.join(builder2), w.join(builder3)}
		for _, ticket := range tickets {
			if err := w.cluster.Verified(ticket.Id, 4, 2); err != nil {
				t.Fatal(err)
			}
		}

		cluster, err := w.api(reader).Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if cluster.Phase != apiclient.PhaseReady || cluster.Id != clusterID || len(cluster.Builders) != 3 {
			t.Errorf("cluster is %+v", cluster)
		}
		in := checkIn("b1")
		id, node, name, jobs, speed := ticket.Id, "n-b1", "b1", 4, 2
		address, silent, at := "100.64.0.11", 0.0, start.UTC()
		wantBuilder := apiclient.Builder{
			Name: "b1", State: apiclient.BuilderStateReady, Reason: "its store answered", Since: at,
			Id: &id, Node: &node, NodeName: &name, Address: &address, MaxJobs: &jobs, SpeedFactor: &speed,
			JoinedAt: &at, ReadyAt: &at, SilentSeconds: &silent, Offer: &in.Offer, Vitals: in.Vitals,
		}
		if diff := cmp.Diff(wantBuilder, cluster.Builders[0]); diff != "" {
			t.Errorf("builder (-want +got):\n%s", diff)
		}

		var agents sync.WaitGroup
		for i, c := range []httpapi.Caller{builder1, builder2, builder3} {
			api, id := w.api(c), tickets[i].Id
			agents.Go(func() {
				for {
					teardown, err := api.AwaitTeardown(t.Context(), id, 15*time.Second)
					if err != nil {
						t.Errorf("%s: %v", c.Name, err)
						return
					}
					if teardown != nil {
						break
					}
				}
				last := vitals()
				last.PeakBuilds, last.BusySeconds = new(4), new(700.25)
				d := apiclient.Departure{Reason: apiclient.DepartureReasonTeardown, Vitals: last}
				if err := api.Depart(t.Context(), id, d); err != nil {
					t.Errorf("%s: %v", c.Name, err)
				}
			})
		}
		time.Sleep(40 * time.Second)
		asked := time.Now()
		report, err := w.api(self).Stop(t.Context(), 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		within(t, "the stop", time.Since(asked), 0)
		agents.Wait()
		if report.Phase != apiclient.PhaseStopped || len(report.Builders) != 3 {
			t.Errorf("report is %+v", report)
		}
		for _, b := range report.Builders {
			if !b.Left || b.State != apiclient.BuilderStateDeparted || b.AfterSeconds == nil {
				t.Errorf("in the report: %+v", b)
			}
		}
		// What they did can still be read.
		if cluster, err = w.api(reader).Cluster(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, b := range cluster.Builders {
			if v := b.Vitals; v == nil || *v.PeakBuilds != 4 || *v.BusySeconds != 700.25 {
				t.Errorf("vitals of %s, which departed: %+v", b.Name, v)
			}
		}
		// Late comers are answered too: with the teardown, and with the phase.
		ticket, _, err = b1.CheckIn(t.Context(), checkIn("b1"))
		if err != nil || ticket.Phase != apiclient.PhaseStopped {
			t.Errorf("check-in after the stop: %+v, %v", ticket, err)
		}
		if teardown, err := b1.AwaitTeardown(t.Context(), ticket.Id, 0); err != nil || teardown == nil {
			t.Errorf("poll after the stop: %v, %v", teardown, err)
		}
	})
}

func TestPollTakesAsLongAsAsked(t *testing.T) {
	for _, test := range []struct{ ask, want time.Duration }{
		{0, 0}, {7 * time.Second, 7 * time.Second}, {300 * time.Second, 15 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			ticket := w.join(builder1)
			start := time.Now()
			teardown, err := w.api(builder1).AwaitTeardown(t.Context(), ticket.Id, test.ask)
			if err != nil || teardown != nil {
				t.Errorf("poll: %v, %v", teardown, err)
			}
			within(t, "a poll of "+test.ask.String(), time.Since(start), test.want)
		})
	}
}

func TestNewerPollEndsTheOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ticket := w.join(builder1)
		start := time.Now()
		ended := make(chan time.Duration, 1)
		go func() {
			teardown, err := w.api(builder1).AwaitTeardown(t.Context(), ticket.Id, 15*time.Second)
			if teardown != nil || err != nil {
				t.Errorf("older poll: %v, %v", teardown, err)
			}
			ended <- time.Since(start)
		}()
		time.Sleep(5 * time.Second)
		if teardown, err := w.api(builder1).AwaitTeardown(t.Context(), ticket.Id, time.Second); teardown != nil || err != nil {
			t.Errorf("newer poll: %v, %v", teardown, err)
		}
		within(t, "the older poll", <-ended, 5*time.Second)
	})
}

func TestReplacedAndUnknownBuilders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		old := w.join(builder1)
		in := checkIn("b1")
		in.Instance = uuid.New()
		if _, first, err := w.api(builder1).CheckIn(t.Context(), in); err != nil || !first {
			t.Fatalf("check-in of a new instance: first=%v, %v", first, err)
		}
		api := w.api(builder1)
		goodbye := apiclient.Departure{Reason: apiclient.DepartureReasonFailed}
		_, err := api.AwaitTeardown(t.Context(), old.Id, 0)
		wantProblem(t, err, problem.Replaced, "")
		wantProblem(t, api.Depart(t.Context(), old.Id, goodbye), problem.Replaced, "")
		_, err = api.AwaitTeardown(t.Context(), uuid.New(), 0)
		wantProblem(t, err, problem.UnknownBuilder, "")
		wantProblem(t, api.Depart(t.Context(), uuid.New(), goodbye), problem.UnknownBuilder, "")
	})
}

func TestStopThatSomeDontFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.join(builder1)
		start := time.Now()
		report, err := w.api(self).Stop(t.Context(), 3*time.Second)
		within(t, "the stop", time.Since(start), 3*time.Second)
		wantProblem(t, err, problem.BuildersRemain, "")
		left := map[string]bool{}
		for _, b := range report.Builders {
			left[b.Name] = b.Left
		}
		if diff := cmp.Diff(map[string]bool{"b1": false, "b2": true, "b3": true}, left); diff != "" {
			t.Errorf("who left (-want +got):\n%s", diff)
		}
		if !strings.Contains(err.Error(), "b1") || strings.Contains(err.Error(), "b2") {
			t.Errorf("the error does not name who remains: %v", err)
		}
	})
}

func TestReleaseByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b1, b2 := w.join(builder1), w.join(builder2)
		_, err := w.api(self).Stop(t.Context(), 0, "b1", "nobody")
		wantProblem(t, err, problem.NotExpected, "")
		if teardown, err := w.api(builder1).AwaitTeardown(t.Context(), b1.Id, 0); teardown != nil || err != nil {
			t.Fatalf("a release that was refused released b1: %v, %v", teardown, err)
		}
		var agent sync.WaitGroup
		agent.Go(func() {
			teardown, err := w.api(builder1).AwaitTeardown(t.Context(), b1.Id, 15*time.Second)
			if teardown == nil || err != nil {
				t.Errorf("b1 is not released: %v, %v", teardown, err)
			}
			_ = w.api(builder1).Depart(t.Context(), b1.Id, apiclient.Departure{Reason: apiclient.DepartureReasonTeardown})
		})
		synctest.Wait()
		report, err := w.api(self).Stop(t.Context(), 10*time.Second, "b1")
		if err != nil {
			t.Fatal(err)
		}
		agent.Wait()
		if len(report.Builders) != 1 || report.Builders[0].Name != "b1" || report.Phase != apiclient.PhaseGathering {
			t.Errorf("report of one release: %+v", report)
		}
		if teardown, err := w.api(builder2).AwaitTeardown(t.Context(), b2.Id, 0); teardown != nil || err != nil {
			t.Errorf("b2 got a teardown: %v, %v", teardown, err)
		}
		cluster, err := w.api(self).Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if b := cluster.Builders[0]; b.Leaving == nil || !*b.Leaving {
			t.Errorf("b1 does not show that it was released: %+v", b)
		}
	})
}

func TestBlockingQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		api := w.api(reader)
		now, err := api.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		same, err := api.AwaitCluster(t.Context(), now.Revision, 100*time.Second)
		if err != nil || same.Revision != now.Revision {
			t.Errorf("after a wait in which nothing happened: revision %d, %v; want %d", same.Revision, err, now.Revision)
		}
		within(t, "a query that nothing ends", time.Since(start), 100*time.Second)

		joined := make(chan struct{})
		time.AfterFunc(5*time.Second, func() {
			defer close(joined)
			w.join(builder1)
		})
		start = time.Now()
		changed, err := api.AwaitCluster(t.Context(), now.Revision, 60*time.Second)
		if err != nil || changed.Revision <= now.Revision || changed.Builders[0].State != apiclient.BuilderStateJoined {
			t.Errorf("after a check-in: %+v, %v", changed, err)
		}
		within(t, "a query that a check-in ends", time.Since(start), 5*time.Second)
		<-joined

		start = time.Now()
		if old, err := api.AwaitCluster(t.Context(), 0, 60*time.Second); err != nil || old.Revision != changed.Revision {
			t.Errorf("from an old revision: %+v, %v", old, err)
		}
		within(t, "a query from an old revision", time.Since(start), 0)
	})
}

func wantProblem(t *testing.T, err error, want problem.Slug, field string) {
	t.Helper()
	p, ok := errors.AsType[*apiclient.ProblemError](err)
	switch {
	case !ok:
		t.Errorf("got %v, want problem %s", err, want)
	case !errors.Is(err, want) || p.Status != want.Kind().Status || p.Title != want.Kind().Title || p.Field != field:
		t.Errorf("got problem %s, status %d, field %q (%v); want %s, %d, %q",
			p.Slug, p.Status, p.Field, err, want, want.Kind().Status, field)
	case p.Instance == "":
		t.Errorf("problem %s has no request id", p.Slug)
	}
}
