// Package wire is what a shim and the portal of a test say to each other: one
// request, then answers, of which the last is marked.
package wire

// Socket is the name of the portal's socket, beside the directory of the shims.
const Socket = "portal.sock"

// Request asks to run a program on the host of the job that the environment is of.
type Request struct {
	Argv []string
	Env  []string
	Dir  string
}

// Answer is some of what the program printed, or its end.
type Answer struct {
	Output []byte
	Done   bool
	Code   int // of the program, when it is done
}
