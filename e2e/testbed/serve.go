package testbed

import (
	"log"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

// runSwitch holds the switch's network namespace, which whoever started it
// configures from outside.
func runSwitch(_ string, ready func()) error {
	ready()
	for { // not select {}: a process with nothing to wait for is ended as deadlocked
		time.Sleep(time.Hour)
	}
}

// runControl is the lab's control server.
func runControl(dir string, ready func()) error {
	var info labInfo
	if err := readJSON(filepath.Join(dir, "lab.json"), &info); err != nil {
		return err
	}
	cfg := control.Config{
		Addr:           address(controlIndex),
		Port:           controlPort,
		Policy:         info.Control.Policy,
		AuthKeys:       info.Control.AuthKeys,
		EphemeralAfter: info.Control.EphemeralAfter,
		KeepAlive:      info.Control.KeepAlive,
		Logf:           log.Printf,
	}
	// Its address appears a moment after its namespace.
	var s *control.Server
	for deadline := time.Now().Add(10 * time.Second); ; {
		var err error
		if s, err = control.Start(cfg); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "control.sock"))
	if err != nil {
		return err
	}
	ready()
	return (&http.Server{Handler: s.AdminHandler(), ReadHeaderTimeout: 10 * time.Second}).Serve(ln)
}
