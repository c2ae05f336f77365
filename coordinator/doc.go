// Package coordinator is the domain: one ephemeral cluster, its builders, and what
// they may do to each other. It knows no HTTP, no tailnet and no Nix; callers give
// it the identity of who calls, and a [Dispatch] and a [Journal] to act through.
//
// # The life of a cluster
//
//	            quorum met
//	gathering ──────────────▶ ready ────┐
//	   │  │                             │ Stop
//	   │  └─────────────────────────────┤
//	   │ quorum not met in time         ▼        nobody is there
//	   └──────────────▶ failed ────▶ stopping ──────────────────▶ stopped
//
// Phases only go forwards. A failed cluster releases its builders as a stopping one
// does. A stopped one goes on answering, so that late builders get their teardown.
//
// # The life of a builder
//
//	                        store answered        short of disk or memory
//	expected ──────▶ joined ──────────────▶ ready ◀─────────────▶ cordoned
//	                 ▲ ▲ │ │                 │ │    has room again    │
//	                 │ │ │ │                 │ └──────── drain ───────┤
//	                 │ │ │ │                 │             ▼          │
//	     heard again │ │ │ └──── silent ─────┤         draining       │
//	                 │ │ │         ▼         │             │          │
//	                 │ └───────── lost       │             │          │
//	    new instance │   │         │         │             │          │
//	     or new node │   └────── leaves ─────┴─────────────┴──────────┘
//	                 │             ▼
//	                 └───────── departed
//
// Cordoned and draining builders fall silent too, and are lost then. From joined, ready
// and cordoned a builder can also be rejected, when it is found unusable; it is told to
// leave and then departs or is lost. A new instance, or another node where the holder is
// lost or departed, makes any of these joined again, with a new id. The tables in
// transitions.go are the whole of it: one method makes each builder's transition and
// one each phase's. Every transition has a reason and a time and becomes an [Event] and
// a line of the log.
//
// Ready means that Nix may send builds. A cordoned builder ends those it has; once the
// cluster is ready, one that is short of something is cordoned, but never the last that
// can build what it builds. A draining one ends those it has and is then released.
//
// # Leases
//
// The arrival of each check-in and poll renews a builder's lease. That a connection
// is open renews nothing: its other end may be gone without a word. So polls last a
// third of the lease. A poll whose connection breaks before its answer leaves the
// builder a third of the lease to call again. All decisions about time use the monotonic
// clock of this process; the wall clock is for display. When this process itself did not
// run for a while, everybody gets a grace, for what they sent is still to be read.
//
// # What is told is saved
//
// Every change that matters is saved in the journal before anyone hears of it:
// before a check-in or a departure is answered, an event published, or a poll ended
// by a stop. A restarted coordinator goes on with the same ids, event numbers and
// stop; its builders get a new lease, a cluster that was gathering starts its time for
// the quorum anew, and a drain its own. Calls that come while a save runs share the next one.
// Vitals are saved along with the next change that matters; those of a builder that
// left or was lost are what it last told, and stay.
//
// # Who owns what
//
// [Cluster.Run] owns the package's goroutines: itself, with one timer for all leases, and
// one for each drain that an earlier process left unfinished.
// Everything else happens in the goroutines of the callers; 10,000 polls wait for
// the closing of one channel. One mutex guards the data and is not held across any
// wait. A call to [Dispatch] that does not end in time is left to itself.
package coordinator
