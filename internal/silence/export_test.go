package silence

import "time"

// Times are when an idle connection has been found dead at the latest, and how long
// what was sent may be unacknowledged.
func Times(quiet time.Duration) (idle, unanswered time.Duration) {
	b := bound(quiet)
	alive := b.keepAlive()
	unanswered = b.unanswered()
	probes := (unanswered - alive.Idle + alive.Interval - 1) / alive.Interval // after the first
	return alive.Idle + max(probes, 1)*alive.Interval, unanswered
}
