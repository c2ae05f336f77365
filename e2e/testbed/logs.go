package testbed

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Logs writes what the host has logged: its own first process, and everything
// in its /var/log, also after its death.
func (h *Host) Logs(w io.Writer) error { return h.writeLogs(w, 0) }

// writeLogs writes the last lines of each log, all of them if lines is 0.
func (h *Host) writeLogs(w io.Writer, lines int) error {
	files, err := filepath.Glob(filepath.Join(h.dir, "upper/var/log/*.log"))
	if err != nil {
		return err
	}
	for _, f := range append([]string{filepath.Join(h.dir, "host.log")}, files...) {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		text = bytes.TrimSpace(text)
		if len(text) == 0 {
			continue
		}
		if lines > 0 {
			text = tail(text, lines)
		}
		if _, err := fmt.Fprintf(w, "==> %s: %s <==\n%s\n", h.Name(), filepath.Base(f), text); err != nil {
			return err
		}
	}
	return nil
}
