package coordinator_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

func TestValidate(t *testing.T) {
	type in = coordinator.CheckIn
	repeat := func(n int, format string) (items []string) {
		for i := range n {
			items = append(items, fmt.Sprintf(format, i))
		}
		return items
	}
	for _, tc := range []struct {
		field string // empty: valid
		set   func(*in)
	}{
		{"", func(c *in) {}},
		{"", func(c *in) { c.Vitals = nil }},
		{"", func(c *in) { c.Offer.Features, c.Offer.HostKeys = nil, nil }},
		{"/cluster", func(c *in) { c.Cluster = "" }},
		{"", func(c *in) { c.Cluster = strings.Repeat("ü", 512) }},
		{"/cluster", func(c *in) { c.Cluster = strings.Repeat("ü", 513) }},
		{"/cluster", func(c *in) { c.Cluster = "a\xff" }},
		{"/name", func(c *in) { c.Name = "" }},
		{"/name", func(c *in) { c.Name = "-b" }},
		{"/name", func(c *in) { c.Name = "b." }},
		{"/name", func(c *in) { c.Name = "b\n" }},
		{"/name", func(c *in) { c.Name = "b c" }},
		{"", func(c *in) { c.Name = strings.Repeat("b", 253) }},
		{"/name", func(c *in) { c.Name = strings.Repeat("b", 254) }},
		{"/instance", func(c *in) { c.Instance = uuid.Nil }},
		{"/offer/systems", func(c *in) { c.Offer.Systems = nil }},
		{"", func(c *in) { c.Offer.Systems = repeat(16, "x86-linux%d") }},
		{"/offer/systems", func(c *in) { c.Offer.Systems = repeat(17, "x86-linux%d") }},
		{"/offer/systems/1", func(c *in) { c.Offer.Systems = []string{"x86_64-linux", "x86_64-linux"} }},
		{"/offer/systems/0", func(c *in) { c.Offer.Systems = []string{"linux"} }},
		{"/offer/systems/0", func(c *in) { c.Offer.Systems = []string{"X86-linux"} }},
		{"/offer/systems/0", func(c *in) { c.Offer.Systems = []string{"a-" + strings.Repeat("x", 63)} }},
		{"/offer/cores", func(c *in) { c.Offer.Cores = 0 }},
		{"", func(c *in) { c.Offer.Cores = 4096 }},
		{"/offer/cores", func(c *in) { c.Offer.Cores = 4097 }},
		{"/offer/cores", func(c *in) { c.Offer.Cores = math.MinInt }},
		{"/offer/memory_bytes", func(c *in) { c.Offer.MemoryBytes = 0 }},
		{"", func(c *in) { c.Offer.MemoryBytes = 1 << 50 }},
		{"/offer/memory_bytes", func(c *in) { c.Offer.MemoryBytes = 1<<50 + 1 }},
		{"", func(c *in) { c.Offer.StoreFreeBytes = 0 }},
		{"/offer/store_free_bytes", func(c *in) { c.Offer.StoreFreeBytes = -1 }},
		{"/offer/store_free_bytes", func(c *in) { c.Offer.StoreFreeBytes = 1<<60 + 1 }},
		{"/offer/features", func(c *in) { c.Offer.Features = repeat(65, "f%d") }},
		{"/offer/features/1", func(c *in) { c.Offer.Features = []string{"a", "a,b"} }},
		{"/offer/features/2", func(c *in) { c.Offer.Features = []string{"a", "b", "a"} }},
		{"/offer/features/0", func(c *in) { c.Offer.Features = []string{""} }},
		{"/offer/nix_version", func(c *in) { c.Offer.NixVersion = "" }},
		{"/offer/nix_version", func(c *in) { c.Offer.NixVersion = "2 3" }},
		{"/offer/store_program", func(c *in) { c.Offer.StoreProgram = "nix-daemon" }},
		{"/offer/store_program", func(c *in) { c.Offer.StoreProgram = "/bin/nix-daemon --evil" }},
		{"/offer/store_program", func(c *in) { c.Offer.StoreProgram = "/" }},
		{"/offer/store_program", func(c *in) { c.Offer.StoreProgram = "/" + strings.Repeat("x", 1024) }},
		{"/offer/host_keys", func(c *in) { c.Offer.HostKeys = repeat(9, "ssh-ed25519 AAAAAAAA%d") }},
		{"/offer/host_keys/0", func(c *in) { c.Offer.HostKeys = []string{"ssh-ed25519AAAAAAAAAAA"} }},
		{"/offer/host_keys/0", func(c *in) { c.Offer.HostKeys = []string{"a b"} }},
		{"", func(c *in) { c.Offer.MaxJobs, c.Offer.SpeedFactor = new(1), new(1) }},
		{"", func(c *in) { c.Offer.MaxJobs, c.Offer.SpeedFactor = new(4096), new(1000) }},
		{"/offer/max_jobs", func(c *in) { c.Offer.MaxJobs = new(0) }},
		{"/offer/max_jobs", func(c *in) { c.Offer.MaxJobs = new(4097) }},
		{"/offer/speed_factor", func(c *in) { c.Offer.SpeedFactor = new(0) }},
		{"/offer/speed_factor", func(c *in) { c.Offer.SpeedFactor = new(1001) }},
		{"", func(c *in) { c.Offer.StorePort = new(65535) }},
		{"/offer/store_port", func(c *in) { c.Offer.StorePort = new(0) }},
		{"/offer/store_port", func(c *in) { c.Offer.StorePort = new(65536) }},
		{"/vitals/cpu_percent", func(c *in) { c.Vitals.CPUPercent = math.NaN() }},
		{"/vitals/cpu_percent", func(c *in) { c.Vitals.CPUPercent = math.Inf(1) }},
		{"/vitals/cpu_percent", func(c *in) { c.Vitals.CPUPercent = -0.1 }},
		{"/vitals/cpu_percent", func(c *in) { c.Vitals.CPUPercent = 100.1 }},
		{"", func(c *in) { c.Vitals.CPUPercent = 100 }},
		{"/vitals/memory_free_bytes", func(c *in) { c.Vitals.MemoryFreeBytes = -1 }},
		{"/vitals/store_free_bytes", func(c *in) { c.Vitals.StoreFreeBytes = math.MaxInt64 }},
		{"/vitals/builds", func(c *in) { c.Vitals.Builds = 65537 }},
		{"", func(c *in) { c.Vitals.PeakBuilds, c.Vitals.BusySeconds = new(0), new(0.0) }},
		{"", func(c *in) { c.Vitals.PeakBuilds, c.Vitals.BusySeconds = new(65536), new(1e9) }},
		{"/vitals/peak_builds", func(c *in) { c.Vitals.PeakBuilds = new(-1) }},
		{"/vitals/peak_builds", func(c *in) { c.Vitals.PeakBuilds = new(65537) }},
		{"/vitals/busy_seconds", func(c *in) { c.Vitals.BusySeconds = new(-0.5) }},
		{"/vitals/busy_seconds", func(c *in) { c.Vitals.BusySeconds = new(1.1e9) }},
		{"/vitals/busy_seconds", func(c *in) { c.Vitals.BusySeconds = new(math.NaN()) }},
		{"/vitals/busy_seconds", func(c *in) { c.Vitals.BusySeconds = new(math.Inf(1)) }},
	} {
		c := checkIn("b1", uuid.New())
		c.Vitals = &coordinator.Vitals{}
		tc.set(&c)
		err := c.Validate()
		switch {
		case tc.field == "" && err != nil:
			t.Errorf("%v, want it valid", err)
		case tc.field != "" && (err == nil || err.Field != tc.field || err.Why == ""):
			t.Errorf("Validate = %v, want an error at %s", err, tc.field)
		}
	}
}

func TestDepartureValidate(t *testing.T) {
	for _, tc := range []struct {
		d     coordinator.Departure
		field string
	}{
		{coordinator.Departure{Reason: coordinator.DepartTeardown}, ""},
		{coordinator.Departure{Reason: coordinator.DepartTimeout, Detail: strings.Repeat("ü", 1024)}, ""},
		{coordinator.Departure{Reason: coordinator.DepartCancelled, Detail: strings.Repeat("ü", 1025)}, "/detail"},
		{coordinator.Departure{Reason: coordinator.DepartFailed, Detail: "\xff"}, "/detail"},
		{coordinator.Departure{}, "/reason"},
		{coordinator.Departure{Reason: "Teardown"}, "/reason"},
		{coordinator.Departure{Reason: coordinator.DepartTeardown, Vitals: &coordinator.Vitals{Builds: 1}}, ""},
		{coordinator.Departure{Reason: coordinator.DepartTeardown, Vitals: &coordinator.Vitals{Builds: -1}}, "/vitals/builds"},
		{coordinator.Departure{Vitals: &coordinator.Vitals{Builds: -1}}, "/reason"},
	} {
		err := tc.d.Validate()
		if (err == nil) != (tc.field == "") || err != nil && err.Field != tc.field {
			t.Errorf("Validate(%.40v) = %v, want %q", tc.d, err, tc.field)
		}
	}
}

// Whatever is valid is taken by a cluster that expects it, and shown in one line each.
func FuzzValidate(f *testing.F) {
	o := offer()
	f.Add(clusterID, "b1", o.Systems[0], o.Features[0], o.NixVersion, o.StoreProgram, o.HostKeys[0], 4, int64(1), 1.5)
	f.Add("c", "b 1", "x", "", "2", "/", "k k", -1, int64(-1), math.NaN())
	f.Fuzz(func(t *testing.T, cluster, name, system, feature, version, program, key string, cores int, bytes int64, cpu float64) {
		in := coordinator.CheckIn{
			Cluster: cluster, Name: name, Instance: uuid.New(),
			Offer: coordinator.Offer{
				Systems: []string{system}, Features: []string{feature}, HostKeys: []string{key},
				Cores: cores, MemoryBytes: bytes, StoreFreeBytes: bytes, NixVersion: version, StoreProgram: program,
				MaxJobs: &cores,
			},
			Vitals: &coordinator.Vitals{
				CPUPercent: cpu, MemoryFreeBytes: bytes, StoreFreeBytes: bytes, Builds: cores,
				PeakBuilds: &cores, BusySeconds: &cpu,
			},
		}
		if err := in.Validate(); err != nil {
			if !strings.HasPrefix(err.Field, "/") || err.Why == "" {
				t.Errorf("error %+v names no field or no reason", err)
			}
			return
		}
		for _, text := range []string{name, system, feature, version, program, key} {
			if strings.ContainsAny(text, "\n\r\x00\x1b,#\"'\\$`;&|") {
				t.Errorf("%q is valid", text)
			}
		}
		c, err := coordinator.New(coordinator.Config{ID: cluster, Builders: []string{name}})
		if err != nil {
			t.Fatalf("New = %v", err)
		}
		if _, _, err := c.CheckIn(t.Context(), node(strings.ToLower(name)), in); err != nil {
			t.Errorf("CheckIn = %v", err)
		}
	})
}
