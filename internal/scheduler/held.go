package scheduler

// maxHeld bounds what is remembered of a machine's store: so many paths at least, twice as
// many at most.
const maxHeld = 1 << 14

// held are the store paths that a machine is known to have: those that builds there needed
// or made, and in place of outputs whose names nobody knows ahead, the derivations that made
// them. What no build has needed for longest is forgotten first, in bulk: what is added goes
// to the young half, and when that is full it becomes the old one.
type held struct {
	young, old map[path]struct{}
}

func (h *held) add(paths []path) {
	for _, p := range paths {
		if h.young == nil || len(h.young) >= maxHeld {
			h.young, h.old = make(map[path]struct{}), h.young
		}
		h.young[p] = struct{}{}
	}
}

// count tells how many of the paths are there.
func (h *held) count(paths []path) int {
	n := 0
	for _, p := range paths {
		_, young := h.young[p]
		_, old := h.old[p]
		if young || old {
			n++
		}
	}
	return n
}
