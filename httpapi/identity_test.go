package httpapi_test

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/pipenet"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// Who may make which call: every call by every kind of caller.
func TestWhoMayCall(t *testing.T) {
	const (
		yes       = "" // the call gets through to its handler
		forbidden = string(problem.Forbidden)
		notYours  = string(problem.NotYours)
		unsure    = string(problem.Unavailable)
	)
	callers := []struct {
		name string
		addr netip.Addr
	}{
		{"own node", self.Addr}, {"b1", builder1.Addr}, {"b2", builder2.Addr}, {"other coordinator", other.Addr},
		{"untagged", untagged.Addr}, {"may read", reader.Addr}, {"may stop", stopper.Addr},
		{"stranger", stranger}, {"sleepy", sleepy},
	}
	calls := []struct {
		name string
		call func(context.Context, *apiclient.API, *http.Client, uuid.UUID) error
		want []string // one a caller
	}{
		{"check in as b1", func(ctx context.Context, api *apiclient.API, _ *http.Client, _ uuid.UUID) error {
			_, _, err := api.CheckIn(ctx, checkIn("b1"))
			return err
		}, []string{forbidden, yes, notYours, forbidden, forbidden, forbidden, forbidden, forbidden, unsure}},
		{"poll b1's teardown", func(ctx context.Context, api *apiclient.API, _ *http.Client, b1 uuid.UUID) error {
			_, err := api.AwaitTeardown(ctx, b1, 0)
			return err
		}, []string{forbidden, yes, notYours, forbidden, forbidden, forbidden, forbidden, forbidden, unsure}},
		{"read the cluster", func(ctx context.Context, api *apiclient.API, _ *http.Client, _ uuid.UUID) error {
			_, err := api.Cluster(ctx)
			return err
		}, []string{yes, yes, yes, yes, forbidden, yes, forbidden, forbidden, unsure}},
		{"list paths", func(ctx context.Context, api *apiclient.API, _ *http.Client, _ uuid.UUID) error {
			_, err := api.Paths(ctx, 0, 0)
			return err
		}, []string{yes, yes, yes, yes, forbidden, yes, forbidden, forbidden, unsure}},
		{"stream events", get("/events"),
			[]string{yes, yes, yes, yes, forbidden, yes, forbidden, forbidden, unsure}},
		{"read metrics", get("/metrics"),
			[]string{yes, yes, yes, yes, forbidden, yes, forbidden, forbidden, unsure}},
		{"read the contract", get("/openapi.yaml"),
			[]string{yes, yes, yes, yes, forbidden, yes, forbidden, forbidden, unsure}},
		{"ask for health", func(ctx context.Context, api *apiclient.API, _ *http.Client, _ uuid.UUID) error {
			return api.Health(ctx)
		}, []string{yes, yes, yes, yes, yes, yes, yes, yes, yes}},
		{"say that b1 departs", func(ctx context.Context, api *apiclient.API, _ *http.Client, b1 uuid.UUID) error {
			return api.Depart(ctx, b1, apiclient.Departure{Reason: apiclient.DepartureReasonCancelled})
		}, []string{forbidden, yes, notYours, forbidden, forbidden, forbidden, forbidden, forbidden, unsure}},
		{"stop", func(ctx context.Context, api *apiclient.API, _ *http.Client, _ uuid.UUID) error {
			_, err := api.Stop(ctx, 0)
			return err
		}, []string{yes, forbidden, forbidden, forbidden, forbidden, forbidden, yes, forbidden, unsure}},
	}
	for _, call := range calls {
		t.Run(call.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				b1 := w.join(builder1)
				for i, from := range callers {
					hc := w.http(from.addr)
					api, err := apiclient.New(base, hc)
					if err != nil {
						t.Fatal(err)
					}
					got := ""
					switch err := call.call(t.Context(), api, hc, b1.Id); {
					case err == nil, isKind(err, problem.BuildersRemain):
					default:
						got = kindOf(err)
					}
					if got != call.want[i] {
						t.Errorf("%s: got %q, want %q", from.name, got, call.want[i])
					}
				}
			})
		})
	}
}

// get makes a call of reading path, as far as its status.
func get(path string) func(context.Context, *apiclient.API, *http.Client, uuid.UUID) error {
	return func(ctx context.Context, _ *apiclient.API, hc *http.Client, _ uuid.UUID) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
		if err != nil {
			return err
		}
		res, err := hc.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return problemIn(res)
		}
		return nil
	}
}

func TestDetailOfForbidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, _, err := w.api(untagged).CheckIn(t.Context(), checkIn("b1"))
		if want := "laptop has no tags"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("an untagged node is told %q, want it to say %q", err, want)
		}
		res := w.do(t, stranger, http.MethodGet, "/cluster", "", "")
		if p := problemIn(res); p.Detail != "the tailnet does not know you" {
			t.Errorf("a stranger is told %q", p.Detail)
		}
		start := time.Now()
		res = w.do(t, sleepy, http.MethodGet, "/cluster", "", "")
		if kindOf(problemIn(res)) != string(problem.Unavailable) {
			t.Errorf("when WhoIs hangs: %s", res.Status)
		}
		within(t, "an answer without WhoIs", time.Since(start), 5*time.Second)
	})
}

// Who may not call is told so before they have sent their body.
func TestIdentityComesBeforeTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		start := time.Now()
		conn, err := w.net.Dial(t.Context(), untagged.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		res := exchange(t, conn, "POST /v1/check-ins HTTP/1.1\r\nHost: nix-coordinator\r\n"+
			"Content-Type: application/json\r\nContent-Length: 5000\r\n\r\n")
		if got := kindOf(problemIn(res)); got != string(problem.Forbidden) || !res.Close {
			t.Errorf("the answer is %s, and that the connection closes is %v", got, res.Close)
		}
		within(t, "the answer", time.Since(start), 0)
		_, _ = io.ReadAll(conn)
		within(t, "the connection", time.Since(start), 10*time.Second)
	})
}

// Over a local listener calls the coordinator's own node, and the tailnet is not asked.
func TestLocalListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newServer(t, newCluster(t), func(cfg *httpapi.Config) {
			cfg.WhoIs = func(context.Context, string) (httpapi.Caller, error) {
				t.Error("WhoIs was asked")
				return httpapi.Caller{}, context.Canceled
			}
		})
		local := pipenet.Listen("[::1]:8378")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(ctx, httpapi.Local(local)) }()
		defer func() {
			cancel()
			<-ended // not before: its clock stands still when the test is over
		}()
		transport := local.Transport(netip.MustParseAddr("::1"))
		defer transport.CloseIdleConnections()
		api, err := apiclient.New("http://[::1]:8378/v1", &http.Client{Transport: held(t, transport)})
		if err != nil {
			t.Fatal(err)
		}
		report, err := api.Stop(t.Context(), 0)
		if err != nil || report.Phase != apiclient.PhaseStopped {
			t.Errorf("stop: %+v, %v", report, err)
		}
		_, _, err = api.CheckIn(t.Context(), checkIn("b1"))
		wantProblem(t, err, problem.Forbidden, "")
	})
}

// A node can't take all that the server has.
func TestRequestsPerNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *httpapi.Config) { cfg.Limits.PerNode = 3 })
		view := w.cluster.View()
		for range 3 {
			go func() { _, _ = w.api(reader).AwaitCluster(t.Context(), view.Revision, 10*time.Second) }()
		}
		synctest.Wait()
		_, err := w.api(reader).Cluster(t.Context())
		wantProblem(t, err, problem.TooManyRequests, "")
		if _, err := w.api(other).Cluster(t.Context()); err != nil {
			t.Errorf("another node is refused too: %v", err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if _, err := w.api(reader).Cluster(t.Context()); err != nil {
			t.Errorf("when the requests have ended: %v", err)
		}
	})
}

// The reason of a stop names who asked for it.
func TestStopNamesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.api(stopper).Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		sub := w.cluster.Follow(0, 8)
		defer sub.Close()
		e := <-sub.C()
		if e.Type != coordinator.ClusterStopping || !strings.Contains(e.Reason, "stopper@example.com on stopper") {
			t.Errorf("event: %+v", e)
		}
	})
}

func TestCallerString(t *testing.T) {
	got := map[string]string{}
	for want, c := range map[string]httpapi.Caller{
		"b1":                           builder1,
		"reader@example.com on reader": reader,
		"node n-1":                     {ID: "n-1"},
		"the coordinator's host":       {Self: true},
	} {
		got[want] = c.String()
	}
	for want, is := range got {
		if diff := cmp.Diff(want, is); diff != "" {
			t.Error(diff)
		}
	}
}
