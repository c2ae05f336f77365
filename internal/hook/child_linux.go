package hook

import "syscall"

// childAttributes make a child end with us, as we end with Nix. The kernel takes the death of
// the thread that started it for ours; Go's threads end with the process.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
