package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is what the linker was told (-X main.version=v1.2.3) by whoever made a release or
// built for the action; empty in every other build. Nothing sets it later.
var version string

var versionCommand = command{
	name:    "version",
	summary: "print the version and how this program was built",
	run: func(_ context.Context, a *app, _ []string) error {
		_, err := fmt.Fprintf(a.stdout, "nix-builders %s %s %s/%s\n", programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	},
}

// programVersion is the version of this program, else what Go knows of its source.
func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	known := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			known += " " + s.Value
		}
	}
	return known
}
