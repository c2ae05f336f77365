package hook

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// A seat is a hook's place at the scheduler, whichever process that is: when the connection
// ends it looks for the next scheduler and tells that how things are. One goroutine has it.
type seat struct {
	socket string
	// now is what a scheduler that knows nothing is to be told: an OpResume.
	now func() scheduler.Message

	client *scheduler.Client      // nil while there is none
	away   time.Time              // since when, if so
	found  chan *scheduler.Client // holds the next one
	stop   context.CancelFunc     // ends the search; nil while there is none
}

const (
	dialLimit = 250 * time.Millisecond // for a scheduler to welcome a hook
	// Pauses between two looks for the next scheduler.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

func dial(ctx context.Context, socket string) (*scheduler.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	return scheduler.Dial(ctx, socket)
}

func newSeat(socket string, c *scheduler.Client, now func() scheduler.Message) *seat {
	s := &seat{socket: socket, now: now, client: c, found: make(chan *scheduler.Client, 1)}
	if c == nil {
		s.lose()
	}
	return s
}

func closeClient(c *scheduler.Client) {
	if c != nil {
		c.Close()
	}
}

// messages are what the scheduler says; nil while there is none. When it is closed, call lose.
func (s *seat) messages() <-chan scheduler.Message {
	if s.client == nil {
		return nil
	}
	return s.client.Messages()
}

// tell tells the scheduler, if there is one; the next one is told how things are then.
func (s *seat) tell(m scheduler.Message) {
	if s.client != nil && s.client.Send(m) != nil {
		s.lose()
	}
}

// lose gives up a connection that has ended, if there was one, and begins to look for the next.
func (s *seat) lose() {
	closeClient(s.client)
	s.client, s.away = nil, time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() {
		pause := backoff.NewExponentialBackOff()
		pause.InitialInterval, pause.MaxInterval = firstPause, longestPause
		c, err := backoff.Retry(ctx, func() (*scheduler.Client, error) { return dial(ctx, s.socket) },
			backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0))
		switch {
		case err != nil: // the search was ended
		case ctx.Err() != nil:
			c.Close()
		default:
			s.found <- c
		}
	}()
}

// take sits down at the scheduler that was found.
func (s *seat) take(c *scheduler.Client) {
	s.stop()
	s.client, s.stop = c, nil
	s.tell(s.now())
}

// leave ends it all.
func (s *seat) leave() {
	if s.stop != nil {
		s.stop()
	}
	select {
	case c := <-s.found:
		c.Close()
	default:
	}
	closeClient(s.client)
	s.client = nil
}
