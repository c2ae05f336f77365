// Package act runs whole workflows as GitHub would, each job on a machine of its
// own: act reads the workflow and decides what runs when, and the hosts of a lab
// are the runners.
//
//	act (one process, an ordinary user of this machine)
//	  |  bash, sh, node
//	shim ----- portal ------> program on the job's host, as the user runner
//	           (the test)     with that host's processes, network, /nix, HOME
//
// Act runs in its host mode, with nothing on its PATH but shims named bash, sh
// and node. A shim hands what it is to run to the portal in the test's process,
// which runs it on the host of the job. The directory in which act keeps the
// actions, the workspaces and the files behind GITHUB_ENV and the like is the
// lab's shared one, which each host sees under the same name.
//
// What differs from GitHub, because act does:
//
//   - `$/x` in an action or a called workflow is written out as the runner
//     resolves it, OWNER/REPOSITORY/x@REF, in the copy of the action ([Bed]);
//   - a matrix runs four jobs at a time unless it says max-parallel;
//   - act kills a step that is cancelled. The portal does what GitHub's runner
//     does instead: SIGINT, after 7.5 s SIGTERM, after 2.5 s more SIGKILL, to the
//     step's own process, as the user runner; and until it is gone, nothing else
//     of that job begins.
//
// # Life of a host
//
//	          a job's first program           the run is over
//	(none) ---------------------------> job's -----------------> thrown away
//
// A host is booted for a job and never used for another. What is on it when the
// run is over, [Job.Left] tells.
//
// # Who owns what
//
// The lab owns everything on disk and every process, act among them: what a test
// leaves, however it ends, goes with the lab ([testbed.Start]).
package act
