// Storeinfo says what package nixstore learns from a host's Nix daemon, for tests that look at
// a host from outside. It reads store paths, one a line, and answers each with a line of JSON.
// All are asked of one store, which keeps its connection as long as the program runs.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nixstore"
)

// An answer is about one path. If the path is a derivation and valid, it has its outputs too.
type answer struct {
	Info    *nixstore.Info    `json:"info,omitempty"`
	Outputs map[string]string `json:"outputs,omitempty"`
	Invalid bool              `json:"invalid,omitempty"`
	Error   string            `json:"error,omitempty"` // empty if it is only invalid
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(paths io.Reader, answers io.Writer) (err error) {
	store := new(nixstore.Store)
	defer func() { err = errors.Join(err, store.Close()) }()
	lines, out := bufio.NewScanner(paths), json.NewEncoder(answers)
	for lines.Scan() {
		if err := out.Encode(ask(store, lines.Text())); err != nil {
			return err
		}
	}
	return lines.Err()
}

func ask(store *nixstore.Store, path string) (a answer) {
	info, err := store.PathInfo(context.Background(), path)
	if err == nil {
		a.Info = &info
		if strings.HasSuffix(path, ".drv") {
			a.Outputs, err = store.Outputs(context.Background(), path)
		}
	}
	if a.Invalid = errors.Is(err, nixstore.ErrInvalid); err != nil && !a.Invalid {
		a.Error = err.Error()
	}
	return a
}
