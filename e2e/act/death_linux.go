package act

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill what cmd starts when this process is no more.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL }
