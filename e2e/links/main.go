// Links shows or ends the links of a host's Nix to builders, for tests that look at a host
// from outside: with no argument it prints a line for each, the builder's name and the pid
// of ssh; "links end NAME..." ends those to the named builders and prints them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/nix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	end := len(args) > 0 && args[0] == "end"
	if len(args) > 0 && !end {
		return fmt.Errorf("want no argument, or end NAME..., not %q", args)
	}
	links, err := nix.Links(context.Background())
	if err != nil {
		return err
	}
	if end {
		links = slices.DeleteFunc(links, func(l nix.Link) bool { return !slices.Contains(args[1:], l.Builder) })
	}
	errs := make([]error, len(links))
	var wg sync.WaitGroup
	for i, l := range links {
		if end {
			wg.Go(func() { errs[i] = l.End() })
		}
		fmt.Println(l.Builder, l.Process.PID)
	}
	wg.Wait()
	return errors.Join(errs...)
}
