// Package builder is the agent on a builder's host: it finds the coordinator of
// its cluster, checks in, stays reachable, and leaves when it is told to.
//
// # Life
//
//	          a coordinator          the poll brings
//	          claims it              the teardown
//	looking ------------> claimed --------------------> leaving ----> departed (nil)
//	   |                     |                             ^
//	   | nobody did in       | not heard for two leases ---+   (nil: it was used and is free)
//	   | time: Unclaimed     | replaced: ErrReplaced           (error, nothing to say good-bye to)
//	   v                     v
//	 error                 error
//
// When its context ends it leaves from wherever it is, and Run returns why.
//
// A coordinator is ours when it serves our cluster id AND its list of builders
// holds our name. Any other is passed over: two runs, or two clusters of one run,
// share a tailnet. A cluster that has failed or stopped counts too, so that a
// late builder gets its teardown and ends well.
//
// # Lease
//
// The coordinator's silence is counted from the sending of the last request that
// it acknowledged: from then on it may not have heard of us either. All of it is
// monotonic time. Time in which this process did not run, because it or its machine was
// stopped, is nobody's silence: it asks once more before it leaves. Nothing said here
// depends on the tailnet's idea of who is online, which is minutes behind.
//
// When the coordinator has not acknowledged anything for one lease, it takes this builder
// for lost and builds elsewhere what it had sent here. So what it has begun here is ended
// then (guard.go), and nothing may begin until it is heard again.
//
// What a coordinator answers is checked before it is believed, and cleaned before
// it is printed: this agent runs before it knows whom it talks to.
//
// # What was done here
//
// While it is claimed, the agent looks each second how many builds run, and adds up
// their time. The check-ins that tell its vitals, every 10 s, tell it, and so does the
// departure, without looking once more: whoever released the builder waits. A build that
// begins and ends between two looks is missed; so what is told is what was seen.
package builder
