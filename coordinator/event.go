package coordinator

import "time"

// Event is one transition of a cluster or of a builder.
type Event struct {
	Number  int64 // from 1, without gaps, also over restarts
	Type    EventType
	At      time.Time // wall clock, UTC
	Cluster string
	Builder string // name; empty for events of the cluster
	From    string // state or phase before
	To      string // state or phase after
	Reason  string
}

// EventType is the kind of an [Event], as it stands on the wire.
type EventType string

// The kinds of events.
const (
	ClusterReady    EventType = "cluster.ready"
	ClusterFailed   EventType = "cluster.failed"
	ClusterStopping EventType = "cluster.stopping"
	ClusterStopped  EventType = "cluster.stopped"

	BuilderJoined   EventType = "builder.joined"
	BuilderReady    EventType = "builder.ready"
	BuilderCordoned EventType = "builder.cordoned"
	BuilderDraining EventType = "builder.draining"
	BuilderLost     EventType = "builder.lost"
	BuilderDeparted EventType = "builder.departed"
	BuilderRejected EventType = "builder.rejected"
	BuilderReleased EventType = "builder.released" // told to leave by name; its state is unchanged
)
