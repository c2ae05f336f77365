package coordinator

import (
	"cmp"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
)

// slot is the place of one expected builder. Its label never changes; the rest is
// guarded by [Cluster.mu].
type slot struct {
	SlotRecord // what outlives the process

	label string    // what the tailnet makes of Name
	note  string    // what the last store check said; stands in for Reason while joined
	way   string    // by which its store answers, see Reached
	heard time.Time // monotonic: arrival of the last poll or check-in
	// broke is when the connection of a poll ended before its answer, since heard.
	// Zero if none did.
	broke time.Time
	told  time.Time // when Vitals were told; zero if not to this process
	// strain is what the holder is short of, in words; empty if of nothing.
	strain string
	// poll is closed to end the one poll that waits for this slot. Nil if none does.
	poll chan struct{}
}

// Former is a holder of a builder's place that lost it to a newer check-in.
type Former struct {
	ID       uuid.UUID `json:"id"`
	Instance uuid.UUID `json:"instance"`
	Node     string    `json:"node"`
}

// maxFormer bounds how many former holders are known. Of those forgotten, the id
// is unknown instead of replaced.
const maxFormer = 1024

// endPollLocked ends the poll that waits for the slot, if one does; the poll then
// looks for itself at what holds.
func (s *slot) endPollLocked() {
	if s.poll != nil {
		close(s.poll)
		s.poll = nil
	}
}

// findLocked returns the slot whose holder has the id, for the node that may act
// for it.
func (c *Cluster) findLocked(node Node, id uuid.UUID) (*slot, error) {
	if s, ok := c.byID[id]; ok {
		if s.Node.ID != node.ID {
			return nil, ErrNotYours
		}
		return s, nil
	}
	if f, ok := c.former[id]; ok {
		if f.Node != node.ID {
			return nil, ErrNotYours
		}
		return nil, ErrReplaced
	}
	return nil, ErrUnknownBuilder
}

// holderLocked is findLocked for the coordinator's own use, which needs no node.
func (c *Cluster) holderLocked(id uuid.UUID) (*slot, error) {
	if s, ok := c.byID[id]; ok {
		return s, nil
	}
	if _, ok := c.former[id]; ok {
		return nil, ErrReplaced
	}
	return nil, ErrUnknownBuilder
}

// retireLocked notes that the slot's holder is its holder no more.
func (c *Cluster) retireLocked(s *slot) {
	if s.ID == uuid.Nil {
		return
	}
	delete(c.byID, s.ID)
	c.rememberLocked(Former{ID: s.ID, Instance: s.Instance, Node: s.Node.ID})
	s.endPollLocked()
}

func (c *Cluster) rememberLocked(f Former) {
	if len(c.formerOrder) == maxFormer {
		delete(c.former, c.formerOrder[0])
		c.formerOrder = c.formerOrder[1:]
	}
	c.former[f.ID] = f
	c.formerOrder = append(c.formerOrder, f.ID)
}

// heardLocked renews the lease of the slot's holder and brings it back if it was lost.
func (c *Cluster) heardLocked(s *slot) {
	s.heard, s.broke = time.Now(), time.Time{}
	if s.State == Lost {
		c.mustMoveLocked(s, Joined, "heard again; its store must answer anew")
	}
}

// learnVitals takes over what the slot's holder told of itself, if it told anything.
// What it did is never less than was known: what it told before may arrive later.
func (s *slot) learnVitals(told *Vitals) {
	if told == nil {
		return
	}
	vitals := told.clone()
	if s.Vitals != nil {
		vitals.PeakBuilds = greater(vitals.PeakBuilds, s.Vitals.PeakBuilds)
		vitals.BusySeconds = greater(vitals.BusySeconds, s.Vitals.BusySeconds)
	}
	s.Vitals, s.told = &vitals, time.Now()
	s.strain = s.strained()
}

// greater returns the greater of two values that may be missing.
func greater[T cmp.Ordered](a, b *T) *T {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}

// mustMoveLocked is moveLocked where the caller has seen that the table allows it.
func (c *Cluster) mustMoveLocked(s *slot, to State, reason string) {
	if err := c.moveLocked(s, to, reason); err != nil {
		panic("coordinator: " + err.Error())
	}
}

// maxReason bounds the texts that others give as reasons, in bytes.
const maxReason = 2048

// oneLine makes a text of others fit for a log line and a table: no control
// characters, no line breaks, not over long.
func oneLine(text string) string {
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return text
}
