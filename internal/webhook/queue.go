package webhook

import (
	"sync"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

// queue is a bounded queue of events that never makes its writer wait: when it is full, the
// oldest event makes room. One goroutine reads.
type queue struct {
	most int

	mu     sync.Mutex // guards what follows
	events []coordinator.Event
	closed bool

	changed chan struct{} // holds a token after every put and after close
}

func newQueue(most int) *queue {
	return &queue{most: most, changed: make(chan struct{}, 1)}
}

// put adds e and reports whether an older event was dropped for it.
func (q *queue) put(e coordinator.Event) (droppedOne bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) == q.most {
		q.events = q.events[1:]
		droppedOne = true
	}
	q.events = append(q.events, e)
	q.tell()
	return droppedOne
}

// close lets next return false once the queue is empty.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.tell()
}

func (q *queue) tell() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// next waits for the oldest event and takes it out; false says that there will be no more.
func (q *queue) next() (coordinator.Event, bool) {
	for {
		q.mu.Lock()
		if len(q.events) > 0 {
			e := q.events[0]
			q.events = q.events[1:]
			q.mu.Unlock()
			return e, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return coordinator.Event{}, false
		}
		<-q.changed
	}
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.events)
}
