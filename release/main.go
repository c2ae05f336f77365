// Command release makes what users download; docs/releasing.md says how a release is cut.
// It is about its flags only: package internal/release does the work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

const usage = `Builds nix-builders and the tailscale that belongs to it, for every platform, into
archives whose bytes depend on the source alone. Run it anywhere in the source.

usage: go run ./release -version V -o DIR [-platforms LIST] [-write]
       go run ./release -programs DIR
       go run ./release -digest

  -version V       the release's version, such as v1.2.3 or v0.0.0-snapshot
  -o DIR           where the archives go, and checksums.txt beside them
  -platforms LIST  only these, such as linux/amd64,darwin/arm64 (default: all)
  -write           write the checksums to release/checksums.txt too: install.sh
                   then takes this release for this very source
  -programs DIR    only build the programs, for this machine, into DIR, with
                   whatever Go there is: nix-builders, tailscale, tailscaled
  -digest          only print the source's digest, by which install.sh tells
                   whether a release was built from the source beside it

A release of one's own for one platform, as a test of the action wants it, made in
a copy of the source (go -C COPY run ./release ...):

  go run ./release -version v0.0.0-snapshot -o DIR -platforms linux/amd64 -write

Then serve DIR/* under MIRROR/v0.0.0-snapshot/ and call install.sh with
SETUP_NIX_BUILDERS_MIRROR=MIRROR. Warm it takes seconds, cold some minutes for
each platform.
`

// buildTime bounds a build of the programs for a job. With a cold cache it takes about
// three minutes of one core's time.
const buildTime = 30 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case err != nil:
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	version, out, platforms, programs string
	write, digest                     bool
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	fs := flag.NewFlagSet("release", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.version, "version", "", "")
	fs.StringVar(&o.out, "o", "", "")
	fs.StringVar(&o.platforms, "platforms", "", "")
	fs.StringVar(&o.programs, "programs", "", "")
	fs.BoolVar(&o.write, "write", false, "")
	fs.BoolVar(&o.digest, "digest", false, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%q is not a flag; -h lists them", fs.Arg(0))
	}
	m, err := release.Open(ctx, ".", stderr)
	if err != nil {
		return err
	}
	switch {
	case o.digest:
		digest, err := release.Digest(m.Dir)
		if err == nil {
			_, err = fmt.Fprintln(stdout, digest)
		}
		return err
	case o.programs != "":
		digest, err := release.Digest(m.Dir)
		if err != nil {
			return err
		}
		// A download that hangs must not hold up a job for hours.
		ctx, cancel := context.WithTimeoutCause(ctx, buildTime, fmt.Errorf("not within %v", buildTime))
		defer cancel()
		return m.Build(ctx, o.programs, "source-"+digest[:12], release.Host(), false)
	case o.version == "" || o.out == "":
		return errors.New("a release needs -version and -o; -h tells more")
	}
	targets, err := parseTargets(o.platforms)
	if err != nil {
		return err
	}
	checksums, err := m.Make(ctx, o.out, o.version, targets)
	if err != nil {
		return err
	}
	if o.write {
		if err := os.WriteFile(filepath.Join(m.Dir, filepath.FromSlash(release.File)), []byte(checksums.String()), 0o644); err != nil {
			return err
		}
	}
	_, err = fmt.Fprint(stdout, checksums)
	return err
}

// parseTargets reads a list such as "linux/amd64,darwin/arm64". None: all.
func parseTargets(list string) (targets []release.Target, err error) {
	if list == "" {
		return release.Targets(), nil
	}
	for _, name := range strings.Split(list, ",") {
		i := slices.IndexFunc(release.Targets(), func(t release.Target) bool { return t.String() == name })
		if i < 0 {
			return nil, fmt.Errorf("there are no releases for the platform %q, but for %v", name, release.Targets())
		}
		targets = append(targets, release.Targets()[i])
	}
	return targets, nil
}
