package httpapi

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// metrics are the server's own. Their labels take few values, whatever callers send:
// routes, known methods, statuses, kinds of problems.
type metrics struct {
	exposition http.Handler
	requests   *prometheus.CounterVec
	checkIns   *prometheus.CounterVec
	open       *prometheus.GaugeVec
	stops      *prometheus.HistogramVec
	refused    prometheus.Counter
}

func newMetrics(cluster *coordinator.Cluster, more []prometheus.Collector) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nix_builders_http_requests_total",
			Help: "Requests that were answered, by route, method and status (499: the caller had left).",
		}, []string{"route", "method", "status"}),
		checkIns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nix_builders_check_ins_total",
			Help: "Check-ins by outcome: accepted, or the kind of problem.",
		}, []string{"outcome"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nix_builders_waiting_requests",
			Help: "Requests that wait: polls for teardown, blocking queries of the cluster and of paths, event streams.",
		}, []string{"for"}),
		stops: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "nix_builders_stop_duration_seconds",
			Help:    "How long calls of stop-nix-builders took, by whether all left or some remain.",
			Buckets: []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"outcome"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nix_builders_connections_refused_total",
			Help: "Connections that were closed at once because there were too many.",
		}),
	}
	for _, kind := range []string{"teardown", "cluster", "events", "paths"} {
		m.open.WithLabelValues(kind)
	}
	registry := prometheus.NewRegistry()
	own := []prometheus.Collector{
		m.requests, m.checkIns, m.open, m.stops, m.refused, newClusterCollector(cluster),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	for _, c := range append(own, more...) {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	m.exposition = promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true})
	return m, nil
}

// serve answers with the text format, the one that the contract names, whatever the caller
// would take.
func (m *metrics) serve(w http.ResponseWriter, r *http.Request) {
	r = r.Clone(r.Context())
	r.Header.Del("Accept")
	m.exposition.ServeHTTP(w, r)
}

// count counts requests as they are answered.
func (m *metrics) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := w.(middleware.WrapResponseWriter)
		if !ok {
			answer = middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		}
		defer func() {
			route := chi.RouteContext(r.Context()).RoutePattern()
			if route == "" || strings.HasSuffix(route, "*") {
				route = "other" // no call was found
			}
			method := "other"
			switch r.Method {
			case http.MethodGet, http.MethodHead, http.MethodPost:
				method = r.Method
			}
			status := answer.Status()
			if status == 0 {
				status = http.StatusOK
			}
			m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
		}()
		next.ServeHTTP(answer, r)
	})
}

// checkedIn counts a check-in that ended with err.
func (m *metrics) checkedIn(err error) {
	outcome := "accepted"
	if err != nil {
		p, _ := problemOf(err)
		outcome = string(problem.FromURI(p.Type))
	}
	m.checkIns.WithLabelValues(outcome).Inc()
}

// opened counts a request that waits, until done is called.
func (m *metrics) opened(kind string) (done func()) {
	gauge := m.open.WithLabelValues(kind)
	gauge.Inc()
	return gauge.Dec
}

func (m *metrics) stopped(took time.Duration, outcome string) {
	m.stops.WithLabelValues(outcome).Observe(took.Seconds())
}

// clusterCollector reads the cluster when somebody asks, so that it can't be out of date.
type clusterCollector struct {
	cluster                                *coordinator.Cluster
	phase, builders, quorum, events, slots *prometheus.Desc
	transitions                            *prometheus.Desc
}

func newClusterCollector(c *coordinator.Cluster) clusterCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("nix_builders_"+name, help, labels, nil)
	}
	return clusterCollector{
		cluster:     c,
		phase:       desc("cluster_phase", "1 for the phase that the cluster is in, 0 for the others.", "phase"),
		builders:    desc("builders", "Builders by state.", "state"),
		quorum:      desc("quorum", "Builders that must be ready before builds start."),
		events:      desc("events_total", "Events since the cluster began."),
		transitions: desc("builder_transitions_total", "How often builders entered each state since this server began.", "state"),
		slots:       desc("slots", "Builds at a time that Nix may send to the builders that are ready."),
	}
}

func (c clusterCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.phase, c.builders, c.quorum, c.events, c.slots, c.transitions} {
		out <- d
	}
}

func (c clusterCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	view := c.cluster.View()
	for p := coordinator.Gathering; p <= coordinator.Stopped; p++ {
		is := 0
		if p == view.Phase {
			is = 1
		}
		gauge(c.phase, is, p.String())
	}
	count := map[coordinator.State]int{}
	slots := 0
	for _, b := range view.Builders {
		count[b.State]++
		if b.State == coordinator.StateReady && !b.Leaving {
			slots += b.MaxJobs
		}
	}
	for st := coordinator.Expected; st <= coordinator.Rejected; st++ {
		gauge(c.builders, count[st], st.String())
		out <- prometheus.MustNewConstMetric(c.transitions, prometheus.CounterValue, float64(c.cluster.Entered(st)), st.String())
	}
	gauge(c.quorum, view.Quorum)
	gauge(c.slots, slots)
	out <- prometheus.MustNewConstMetric(c.events, prometheus.CounterValue, float64(view.Event))
}
