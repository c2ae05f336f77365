package release

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const modulePath = "github.com/Misaka13514/setup-distributed-nix-builds"

// A Target is a platform, in Go's words.
type Target struct{ OS, Arch string }

func (t Target) String() string { return t.OS + "/" + t.Arch }

// Host is the platform that this program runs on.
func Host() Target { return Target{runtime.GOOS, runtime.GOARCH} }

// Targets are the platforms that a release is made for: those of GitHub's runners that
// have Nix.
func Targets() []Target {
	return []Target{{"darwin", "amd64"}, {"darwin", "arm64"}, {"linux", "amd64"}, {"linux", "arm64"}}
}

// A Module is a copy of this module's source that programs are built from.
type Module struct {
	// Dir is its root.
	Dir string
	// Go is the version of Go that makes releases, such as go1.26.8: the toolchain
	// that go.mod names.
	Go string
	// Tailscale is the version of tailscale.com that go.mod and tools/go.mod require.
	Tailscale string

	stderr   io.Writer         // for progress, and the go command's own
	settings map[string]string // of the go command, that say where modules come from and builds are kept
}

// Open finds the module that dir is in. Progress and the go command's messages go to stderr.
func Open(ctx context.Context, dir string, stderr io.Writer) (*Module, error) {
	m := &Module{Dir: dir, stderr: stderr}
	keep := []string{
		"GOAUTH", "GOCACHE", "GOCACHEPROG", "GOINSECURE", "GOMODCACHE", "GONOPROXY", "GONOSUMDB", "GOPATH", "GOPRIVATE", "GOPROXY",
		"GOSUMDB", "GOTMPDIR", "GOTOOLCHAIN", "GOVCS",
	}
	out, err := m.run(ctx, exec.CommandContext(ctx, "go", append([]string{"env", "-json", "GOMOD"}, keep...)...))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(out, &m.settings); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	elsewhere := fmt.Errorf("release: %s is not in the source of %s: change to it", dir, modulePath)
	gomod := m.settings["GOMOD"]
	if gomod == "" || gomod == os.DevNull {
		return nil, elsewhere
	}
	delete(m.settings, "GOMOD")
	m.Dir = filepath.Dir(gomod)

	product, err := m.modfile(ctx, "go.mod")
	if err != nil {
		return nil, err
	}
	if product.Module.Path != modulePath {
		return nil, elsewhere
	}
	tools, err := m.modfile(ctx, "tools/go.mod")
	if err != nil {
		return nil, err
	}
	m.Go = product.Toolchain
	if m.Go == "" {
		m.Go = "go" + product.Go
	}
	m.Tailscale = product.requires("tailscale.com")
	// The client in nix-builders and the daemon beside it must be one version.
	if v := tools.requires("tailscale.com"); v == "" || v != m.Tailscale {
		return nil, fmt.Errorf("release: go.mod requires tailscale.com %s and tools/go.mod %s: make them one version", m.Tailscale, v)
	}
	return m, nil
}

// modfile is what `go mod edit -json` tells of a go.mod.
type modfile struct {
	Module    struct{ Path string }
	Go        string
	Toolchain string
	Require   []struct{ Path, Version string }
}

func (f modfile) requires(path string) string {
	for _, r := range f.Require {
		if r.Path == path {
			return r.Version
		}
	}
	return ""
}

func (m *Module) modfile(ctx context.Context, name string) (f modfile, err error) {
	out, err := m.run(ctx, exec.CommandContext(ctx, "go", "mod", "edit", "-json", name))
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(out, &f); err != nil {
		return f, fmt.Errorf("go mod edit -json %s: %w", name, err)
	}
	return f, nil
}

// goCommand returns a go command for the target whose result depends on nothing but the
// module: of Go's settings only those stand that say where modules come from and where
// builds are kept. If toolchain is not empty, it is the one to use.
func (m *Module) goCommand(ctx context.Context, toolchain string, t Target, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	for _, setting := range cmd.Environ() {
		if !strings.HasPrefix(setting, "GO") && !strings.HasPrefix(setting, "CGO_") {
			cmd.Env = append(cmd.Env, setting)
		}
	}
	for name, value := range m.settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if toolchain != "" {
		cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+toolchain)
	}
	cmd.Env = append(cmd.Env,
		"GOENV=off", "GOFLAGS=", "GOWORK=off", "GO111MODULE=on", "GOEXPERIMENT=", "GODEBUG=", "GOFIPS140=off",
		"CGO_ENABLED=0", "GOOS="+t.OS, "GOARCH="+t.Arch, "GOAMD64=v1", "GOARM64=v8.0")
	return cmd
}

// run runs a go command, which ends with ctx, in the module and returns what it prints.
func (m *Module) run(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	cmd.Dir = m.Dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, m.stderr
	cmd.WaitDelay = 10 * time.Second // what it has started may hold its output open
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s: %w", strings.Join(cmd.Args[:2], " "), err)
	}
	return out.Bytes(), nil
}
