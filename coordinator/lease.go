package coordinator

import (
	"fmt"
	"strings"
	"time"
)

// leaseEndLocked is when the slot's holder is lost if nothing is heard of it until then.
func (c *Cluster) leaseEndLocked(s *slot) time.Time {
	end := s.heard.Add(c.cfg.Lease)
	if s.broke.IsZero() {
		return end
	}
	if grace := s.broke.Add(c.cfg.grace()); grace.Before(end) {
		return grace
	}
	return end
}

// brokeLocked notes that the connection of the slot's poll has ended before its answer:
// the builder calls again within the grace, or it is gone.
func (c *Cluster) brokeLocked(s *slot) {
	if !s.State.Present() || !s.broke.IsZero() {
		return
	}
	s.broke = time.Now()
	select {
	case c.sooner <- struct{}{}:
	default: // Run looks anyway
	}
}

// obituary says how long a builder was not heard and how it was when it last told: a
// dead runner takes its log with it.
func (s *slot) obituary(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "silent for %v, last heard at %s", now.Sub(s.heard).Round(time.Second/10), s.heard.UTC().Format("15:04:05Z"))
	if !s.broke.IsZero() {
		b.WriteString(", its connection ended")
	}
	if s.Vitals == nil {
		return b.String()
	}
	if s.told.IsZero() {
		b.WriteString("; its last vitals:")
	} else {
		fmt.Fprintf(&b, "; its vitals %v before the end:", now.Sub(s.told).Round(time.Second))
	}
	fmt.Fprintf(&b, " %s", s.Vitals.describe(s.Offer))
	return b.String()
}

// describe is v in words, memory out of what the offer says there is.
func (v *Vitals) describe(o *Offer) string {
	parts := []string{fmt.Sprintf("cpu %.0f %%", v.CPUPercent)}
	memory := "memory " + gib(v.MemoryFreeBytes)
	if o != nil {
		memory += " of " + gib(o.MemoryBytes)
	}
	parts = append(parts, memory+" free")
	disk := "/nix " + gib(v.StoreFreeBytes)
	if v.StoreTotalBytes != nil {
		disk += " of " + gib(*v.StoreTotalBytes)
	}
	parts = append(parts, disk+" free")
	for _, p := range []struct {
		what  string
		stall *float64
	}{{"memory", v.MemoryStallPercent}, {"disk", v.IOStallPercent}} {
		if p.stall != nil {
			parts = append(parts, fmt.Sprintf("stalled on %s %.0f %% of the time", p.what, *p.stall))
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("builds: %d", v.Builds)), ", ")
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
