// Package testbed boots real hosts on one machine: each has its own network,
// processes, host name, root file system and /nix, a multi-user nix-daemon, and
// the Tailscale programs, and all of them share a switch and a control server
// of their own ([github.com/Misaka13514/setup-distributed-nix-builds/e2e/control]).
// To the programs under test it is a handful of freshly started runners.
//
//	+-------------------- one lab --------------------+
//	|  switch (bridge in its own network namespace)   |
//	|    |.1         |.10            |.11     |.12     |
//	|  control   coordinator     builder-1  builder-2 |
//	+--------------------------------------------------+
//
// # Life
//
// [Up] makes a lab, [Open] finds one that is up, [Lab.Down] removes it. A host
// runs from [Lab.Boot] until [Host.Kill]; [Host.Restart] boots it again with the
// disk it had. [Host.Cut] takes its cable out and [Host.Heal] puts it back;
// [Host.Delay] makes the cable longer. [Host.Freeze] stops the time of its programs and
// [Host.Thaw] lets it go on.
//
//	        Boot            Cut
//	(none) -----> running <-----> cut off
//	                 |      Heal     |
//	                 +----- Kill ----+---> dead --Restart--> running
//
// # Who owns what
//
// A lab owns its directory and whatever runs the program in it. Each host, the
// switch and the control server is one process with namespaces of its own, and
// nothing else holds these: no named network namespace, no mount outside, no
// link outside. When the process is gone the kernel has taken all of it back.
// Processes are found by what they run, never by a number in a file, so there is
// no stale state to act on: a lab that crashed is removed by [Down] or by the
// next [Up] of the same name. Two labs share nothing but the images in the
// cache.
//
// It needs Linux and root; [Require] says what is missing.
package testbed
