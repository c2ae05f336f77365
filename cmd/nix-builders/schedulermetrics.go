package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// schedulerMetrics reads the scheduler when somebody asks, so that it can't be out of date.
type schedulerMetrics struct {
	scheduler                             *scheduler.Scheduler
	waiting, running, tries, ended, waits *prometheus.Desc
}

// schedulerCollector makes metrics of what a scheduler has and had.
func schedulerCollector(s *scheduler.Scheduler) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("nix_builders_"+name, help, labels, nil)
	}
	return schedulerMetrics{
		scheduler: s,
		waiting:   desc("queue_length", "Builds that wait for a slot, by system.", "system"),
		running:   desc("builds_running", "Slots that builds have, by builder.", "builder"),
		tries:     desc("build_tries_total", "Builds that Nix asked about, by what it was answered.", "answer"),
		ended: desc("builds_total", "Builds on builders by how they ended there: built, failed, moved to another, gave-up; refused: none was left for it.",
			"outcome"),
		waits: desc("queue_seconds", "How long builds waited for their slot."),
	}
}

func (m schedulerMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.waiting, m.running, m.tries, m.ended, m.waits} {
		out <- d
	}
}

func (m schedulerMetrics) Collect(out chan<- prometheus.Metric) {
	stats := m.scheduler.Stats()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, label string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, label)
	}
	for system, n := range stats.Waiting {
		send(m.waiting, prometheus.GaugeValue, float64(n), system)
	}
	for builder, n := range stats.Running {
		send(m.running, prometheus.GaugeValue, float64(n), builder)
	}
	for answer, n := range stats.Answers {
		send(m.tries, prometheus.CounterValue, float64(n), answer)
	}
	for outcome, n := range stats.Ended {
		send(m.ended, prometheus.CounterValue, float64(n), outcome)
	}
	send(m.ended, prometheus.CounterValue, float64(stats.Refused), "refused")
	buckets := make(map[float64]uint64, len(stats.Waits.Buckets))
	for _, b := range stats.Waits.Buckets {
		buckets[b.Most.Seconds()] = b.Count
	}
	out <- prometheus.MustNewConstHistogram(m.waits, stats.Waits.Count, stats.Waits.Sum.Seconds(), buckets)
}
