package hook

import "syscall"

// childAttributes are none: a child whose hook is gone ends when it writes to it.
func childAttributes() *syscall.SysProcAttr { return nil }
