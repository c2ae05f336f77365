package feed

import "sync/atomic"

// A Count is of paths that went over the tailnet.
type Count struct {
	Paths int64
	Bytes int64 // of their NARs
}

// tally adds up a Count.
type tally struct{ paths, bytes atomic.Int64 }

func (t *tally) add(size int64) {
	t.paths.Add(1)
	t.bytes.Add(size)
}

func (t *tally) count() Count { return Count{Paths: t.paths.Load(), Bytes: t.bytes.Load()} }
