package scheduler

// maxRecent bounds what is remembered of store paths in one place: so many at least, twice
// as many at most.
const maxRecent = 1 << 14

// recent remembers something of each of the paths that were added last. What is added goes
// to the young half, and when that is full it becomes the old one: so what nobody has added
// for longest is forgotten first, in bulk.
type recent[V any] struct {
	young, old map[path]V
}

func (r *recent[V]) add(p path, v V) {
	if r.young == nil || len(r.young) >= maxRecent {
		r.young, r.old = make(map[path]V), r.young
	}
	r.young[p] = v
}

func (r *recent[V]) get(p path) (v V, ok bool) {
	if v, ok = r.young[p]; !ok {
		v, ok = r.old[p]
	}
	return v, ok
}

// held are the store paths that a machine is known to have: those that builds there needed
// or made, and in place of outputs whose names nobody knows ahead, the derivations that made
// them.
type held struct{ recent[struct{}] }

func (h *held) add(paths []path) {
	for _, p := range paths {
		h.recent.add(p, struct{}{})
	}
}

// sizes are those of store paths, in bytes, and of derivations: all that they made.
type sizes struct{ recent[int64] }

// unknownSize is what a path counts whose size nobody has told.
const unknownSize = 1 << 20

// held adds up the sizes of those of the paths that are there.
func (s *sizes) held(h *held, paths []path) (bytes int64) {
	for _, p := range paths {
		if _, there := h.get(p); !there {
			continue
		}
		size, known := s.get(p)
		if !known {
			size = unknownSize
		}
		bytes += size
	}
	return bytes
}
