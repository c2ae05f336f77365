// Shim stands where act looks for bash, sh and node. What act wants to run it
// hands to the portal of the test, whose socket lies beside its own directory,
// and the portal runs it on the host of act's job: the shim passes on what is
// printed there, and ends as that program ends. When act kills the shim, to
// cancel a job, the portal learns it by the end of the connection.
package main

import (
	"encoding/gob"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/act/wire"
)

func main() {
	// Act asks where node is, to call it by its full name ever after: past us.
	// Without an answer it keeps to the name.
	if slices.Contains(os.Args, "console.log(process.execPath)") {
		os.Exit(1)
	}
	code, err := run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "shim: %v\n", err)
		os.Exit(125)
	}
	os.Exit(code)
}

func run() (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	conn, err := net.Dial("unix", filepath.Join(filepath.Dir(self), "..", wire.Socket))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := gob.NewEncoder(conn).Encode(wire.Request{Argv: os.Args, Env: os.Environ(), Dir: dir}); err != nil {
		return 0, err
	}
	for dec := gob.NewDecoder(conn); ; {
		var a wire.Answer
		if err := dec.Decode(&a); err != nil {
			return 0, fmt.Errorf("the portal is gone: %w", err)
		}
		if len(a.Output) > 0 {
			if _, err := os.Stdout.Write(a.Output); err != nil {
				return 0, err
			}
		}
		if a.Done {
			return a.Code, nil
		}
	}
}
