package tailnet

import "time"

// SilenceTimes are when an idle connection has been found dead at the latest, and how long
// what was sent may be unacknowledged.
func SilenceTimes(quiet time.Duration) (idle, unanswered time.Duration) {
	s := silence(quiet)
	alive := s.keepAlive()
	unanswered = s.unanswered()
	probes := (unanswered - alive.Idle + alive.Interval - 1) / alive.Interval // after the first
	return alive.Idle + max(probes, 1)*alive.Interval, unanswered
}
