package fleet

import (
	"context"
	"embed"
	"fmt"
)

// expressions are what the lab's Nix builds.
//
//go:embed nix/*.nix
var expressions embed.FS

// expressionDir is where the coordinator's host has them.
const expressionDir = "/opt/nix"

// Build starts nix build of an expression from nix/ on the coordinator's host, as this
// user: everything is left to the builders. tag makes the derivations new.
func (f *Fleet) Build(ctx context.Context, user, expression, tag string, args ...string) (*Process, error) {
	return f.BuildAnywhere(ctx, user, expression, tag, append([]string{"--max-jobs", "0"}, args...)...)
}

// BuildAnywhere is Build, but where to build is Nix's to say, as in most people's steps.
func (f *Fleet) BuildAnywhere(ctx context.Context, user, expression, tag string, args ...string) (*Process, error) {
	if err := f.InstallExpressions(ctx); err != nil {
		return nil, err
	}
	argv := append([]string{"nix", "build", "--print-build-logs", "--no-link", "--print-out-paths",
		"--file", expressionDir + "/" + expression, "--argstr", "tag", tag}, args...)
	return f.Start(ctx, f.Coordinator, user, argv...)
}

// InstallExpressions puts the expressions where Build looks for them, /opt/nix.
func (f *Fleet) InstallExpressions(ctx context.Context) error {
	entries, err := expressions.ReadDir("nix")
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := expressions.ReadFile("nix/" + e.Name())
		if err != nil {
			return err
		}
		if err := f.Host(f.Coordinator).WriteFile(ctx, expressionDir+"/"+e.Name(), text, 0o644); err != nil {
			return fmt.Errorf("install expressions: %w", err)
		}
	}
	return nil
}
