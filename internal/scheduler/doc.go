// Package scheduler decides which builder gets which build, and when. It is a queue with a
// unix socket: Nix' build hooks (package hook) connect, one a build, and are told where
// to build the moment that there is room. Nobody polls.
//
//	     try              queue             run
//	hook ----> accepted ---------> waiting -----> running --done--> (gone)
//	  |   \                           ^              |
//	  |    `-> declined, postponed    `---- queue ---' the builder was lost, or was to blame
//	  |
//	  `- resume: a hook whose scheduler has died tells the next one what it holds
//
// A build that is accepted while a slot is free has that slot from then on, so that Nix can
// name the builder at once. What a hook holds is free again when its connection ends.
//
// The scheduler is told of machines as they are ([Scheduler.Set]) and knows nothing of
// clusters, leases or tailnets.
package scheduler
