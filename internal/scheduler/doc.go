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
// name the builder at once. What a hook holds is free again when its connection ends. When a
// machine is lost, the hooks whose builds run there are told, and queue again; one that only
// was promised a slot there is told nothing, and waits like others once it asks for it.
//
// The scheduler is told of machines as they are ([Scheduler.Set]) and knows nothing of
// clusters, leases or tailnets. Which machine a build gets is the matter of docs/scheduling.md
// and of one method, job.compare.
package scheduler
