package testbed

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
)

// Lab is a lab that is up. Its methods may be called from any goroutine.
type Lab struct {
	name string
	dir  string // all of the lab's files
	info labInfo

	mu    sync.Mutex
	hosts map[string]*Host // guarded by mu
	// booting are the places in the network of hosts to be; guarded by mu.
	booting map[string]int
}

// labInfo is what lab.json holds: all that [Open] needs.
type labInfo struct {
	Root    string        `json:"root"` // the image's root file system
	Systemd bool          `json:"systemd,omitempty"`
	Shared  bool          `json:"shared,omitempty"`
	Control ControlConfig `json:"control"`
}

var nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

func locate(parent, name string) (dir string, err error) {
	name = cmp.Or(name, "default")
	if !nameRE.MatchString(name) {
		return "", fmt.Errorf("lab name %q: want at most 32 lower-case letters, digits and dashes", name)
	}
	return filepath.Join(cmp.Or(parent, DefaultDir), name), nil
}

// Up makes the lab, in place of one of the same name that may be there, and
// boots its hosts. Images and programs that are not in the cache are made first,
// which takes minutes. On error nothing is left.
func Up(ctx context.Context, cfg Config) (*Lab, error) {
	if missing := Missing(); len(missing) > 0 {
		return nil, &missingError{missing}
	}
	dir, err := locate(cfg.Dir, cfg.Name)
	if err != nil {
		return nil, err
	}
	art, err := makeArtefacts(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("lab %s: %w", filepath.Base(dir), err)
	}
	unlock, err := image.Lock(ctx, dir+".lock", cfg.Logf)
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", filepath.Base(dir), err)
	}
	defer unlock()
	if err := removeLab(ctx, dir); err != nil {
		return nil, err
	}
	l := &Lab{name: filepath.Base(dir), dir: dir, hosts: map[string]*Host{}, info: labInfo{
		Root: art.root, Systemd: cfg.Systemd, Shared: cfg.Shared, Control: cfg.Control,
	}}
	if err := l.up(ctx, cfg, art); err != nil {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("lab %s: %w", l.name, err), removeLab(cleanup, dir))
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context, cfg Config, art artefacts) error {
	if err := os.MkdirAll(filepath.Join(l.dir, "hosts"), 0o755); err != nil {
		return err
	}
	if cfg.Shared {
		if err := os.Mkdir(l.Shared(), 0o755); err != nil {
			return err
		}
	}
	if err := art.install(ctx, filepath.Join(l.dir, "bin")); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(l.dir, "lab.json"), l.info); err != nil {
		return err
	}
	if _, err := l.start(ctx, roleSwitch, l.dir); err != nil {
		return err
	}
	if _, err := l.start(ctx, roleControl, l.dir); err != nil {
		return err
	}
	names := []string{Coordinator}
	for i := range cfg.Builders {
		names = append(names, Builder(i+1))
	}
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			_, errs[i] = l.boot(ctx, HostSpec{
				Name: name, NixConf: cfg.NixConf[name], StoreSize: cfg.StoreSize[name], Delay: cfg.Delay[name],
			}, 10+i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Open finds the lab of that name below the directory of all labs (if empty,
// [DefaultDir]), made by another process.
func Open(parent, name string) (*Lab, error) {
	dir, err := locate(parent, name)
	if err != nil {
		return nil, err
	}
	l := &Lab{name: filepath.Base(dir), dir: dir, hosts: map[string]*Host{}}
	if err := readJSON(filepath.Join(dir, "lab.json"), &l.info); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab %s is not up: run \"up\" first", l.name)
	} else if err != nil {
		return nil, fmt.Errorf("open lab %s: %w", l.name, err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "hosts"))
	if err != nil {
		return nil, fmt.Errorf("open lab %s: %w", l.name, err)
	}
	for _, e := range entries {
		h := &Host{lab: l, dir: filepath.Join(dir, "hosts", e.Name())}
		if err := readJSON(filepath.Join(h.dir, "host.json"), &h.info); err != nil {
			return nil, fmt.Errorf("open lab %s: %w", l.name, err)
		}
		l.hosts[h.info.Name] = h
	}
	return l, nil
}

// Down removes the lab and all it holds. It is idempotent.
func (l *Lab) Down(ctx context.Context) error { return down(ctx, l.dir) }

// Down removes the lab of that name, also one that crashed or never came up. It
// is idempotent.
func Down(ctx context.Context, parent, name string) error {
	dir, err := locate(parent, name)
	if err != nil {
		return err
	}
	return down(ctx, dir)
}

func down(ctx context.Context, dir string) error {
	if _, err := os.Stat(filepath.Dir(dir)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := image.Lock(ctx, dir+".lock", nil)
	if err != nil {
		return fmt.Errorf("lab %s: %w", filepath.Base(dir), err)
	}
	defer unlock()
	return removeLab(ctx, dir)
}

// removeLab kills all of the lab, waits for its end and deletes the directory. The caller holds the lab's lock.
func removeLab(ctx context.Context, dir string) error {
	if err := killMembers(ctx, dir, dir); err != nil {
		return fmt.Errorf("lab %s: %w", filepath.Base(dir), err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("lab %s: %w", filepath.Base(dir), err)
	}
	return nil
}

// Name returns the lab's name.
func (l *Lab) Name() string { return l.name }

// LoginServer is the URL that hosts reach the control server at.
func (l *Lab) LoginServer() string {
	return fmt.Sprintf("http://%s:%d", address(controlIndex), controlPort)
}

// Control administers the lab's control server.
func (l *Lab) Control() *control.Client { return control.Dial(filepath.Join(l.dir, "control.sock")) }

// Host returns the host of that name. It panics if the lab has none: a test that
// names a host has to boot it.
func (l *Lab) Host(name string) *Host {
	h, ok := l.Lookup(name)
	if !ok {
		panic(fmt.Sprintf("lab %s has no host %q", l.name, name))
	}
	return h
}

// Lookup returns the host of that name, if the lab has it.
func (l *Lab) Lookup(name string) (*Host, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, ok := l.hosts[name]
	return h, ok
}

// Hosts returns all hosts, the dead too, in the order they were first booted.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*Host
	for _, h := range l.hosts {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *Host) int { return cmp.Compare(a.info.Index, b.info.Index) })
	return all
}

// Shared is the directory that every host sees under this very name, if the lab
// was made with one.
func (l *Lab) Shared() string { return filepath.Join(l.dir, "shared") }

// Boot adds a host to the lab and waits until its nix-daemon answers; that of a
// fresh host nobody has installed yet.
func (l *Lab) Boot(ctx context.Context, spec HostSpec) (*Host, error) {
	index, err := l.reserve(spec.Name)
	if err != nil {
		return nil, err
	}
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.booting, spec.Name)
	}()
	return l.boot(ctx, spec, index)
}

// reserve finds a place in the network for a host that is to be booted.
func (l *Lab) reserve(name string) (index int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := map[int]bool{}
	for _, h := range l.hosts {
		taken[h.info.Index] = true
	}
	for _, i := range l.booting {
		taken[i] = true
	}
	if _, ok := l.booting[name]; ok || l.hosts[name] != nil {
		return 0, fmt.Errorf("lab %s has a host %q already", l.name, name)
	}
	for index = 10; taken[index]; index++ {
	}
	if l.booting == nil {
		l.booting = map[string]int{}
	}
	l.booting[name] = index
	return index, nil
}

func writeJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

func readJSON(file string, v any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}
