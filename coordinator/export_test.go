package coordinator

// The tables of allowed transitions, for the test that walks through them.
var (
	Transitions      = transitions
	PhaseTransitions = phaseTransitions
)

// Subscriptions is how many streams the cluster feeds.
func (c *Cluster) Subscriptions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.subs)
}

// Present is how many builders the cluster counts as there.
func (c *Cluster) Present() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.present
}
