package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/nix-community/go-nix/pkg/nixhash"
)

// Built is a build that ended well.
type Built struct {
	Machine    string   // the builder that has its outputs and its inputs
	Derivation string   // store path
	Outputs    []string // store paths; empty if they are not known
	Inputs     []string // store paths
}

// IndexConfig is what an Index is made from.
type IndexConfig struct {
	Key signature.SecretKey
	// Info asks the coordinator's store for a path: all of a [Path] but its signature and its
	// holders. An error means that it can't be offered, at least not now.
	Info func(ctx context.Context, path string) (Path, error)
	// Outputs asks that store for the outputs of a derivation.
	Outputs func(ctx context.Context, derivation string) ([]string, error)
	// Sized is told the size of the NAR of each path once, and for each derivation that was
	// built those of all its outputs, in bytes. It must not block. May be nil.
	Sized func(path string, bytes int64)
	Log   *slog.Logger // if nil, nothing is logged
}

// Bounds of an index.
const (
	maxPaths   = 50_000
	maxQueue   = 4096 // builds that nobody has looked at yet
	maxHolders = 16   // that are named; more serve nobody faster
	maxRefs    = 4096 // references of a path that is offered

	pagePaths = 250
	pageBytes = 2 << 20 // about; a page has one path at least

	askTime = 10 * time.Second // of one question to the store
)

// An Index knows which builder has which path. [Index.Run] keeps it.
type Index struct {
	cfg   IndexConfig
	log   *slog.Logger
	queue chan Built

	mu     sync.Mutex // guards all below
	paths  map[string]*indexed
	order  []*indexed    // by their last change; an entry may stand in it for an earlier one, too
	at     []int64       // the change that each entry of order stands for
	cursor int64         // of the last change
	news   chan struct{} // closed at the next change; nil if nobody waits
}

// indexed is a path and when it changed last.
type indexed struct {
	Path
	changed int64
}

// NewIndex returns an index of nothing.
func NewIndex(cfg IndexConfig) *Index {
	if cfg.Sized == nil {
		cfg.Sized = func(string, int64) {}
	}
	return &Index{
		cfg: cfg, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
		queue: make(chan Built, maxQueue),
		paths: make(map[string]*indexed),
		// Whoever has the cursor of an earlier index gets all of this one.
		cursor: time.Now().UnixMilli(),
	}
}

// Key is the public key that signs the paths.
func (x *Index) Key() string { return x.cfg.Key.ToPublicKey().String() }

// Built takes a build over, and never waits: what comes too fast is left out.
func (x *Index) Built(b Built) {
	select {
	case x.queue <- b:
	default:
		x.log.Debug("too many builds at once: nobody is told who has its paths", "derivation", b.Derivation)
	}
}

// Run keeps the index until ctx ends.
func (x *Index) Run(ctx context.Context) {
	for {
		select {
		case b := <-x.queue:
			x.learn(ctx, b)
		case <-ctx.Done():
			return
		}
	}
}

// learn notes what a builder has since a build. Outputs first: what others wait for.
func (x *Index) learn(ctx context.Context, b Built) {
	outputs := b.Outputs
	if len(outputs) == 0 {
		var err error
		ask, cancel := context.WithTimeout(ctx, askTime)
		if outputs, err = x.cfg.Outputs(ask, b.Derivation); err != nil {
			x.log.Debug("the outputs of a build are not known", "derivation", b.Derivation, "error", err)
		}
		cancel()
	}
	x.noteAll(ctx, b.Machine, outputs)
	if bytes := x.size(outputs); bytes > 0 { // else none of them is known
		x.cfg.Sized(b.Derivation, bytes)
	}
	x.noteAll(ctx, b.Machine, b.Inputs)
}

func (x *Index) noteAll(ctx context.Context, machine string, paths []string) {
	for _, p := range paths {
		if ctx.Err() != nil {
			return
		}
		if err := x.note(ctx, machine, p); err != nil {
			x.log.Debug("a path is not offered", "path", p, "error", err)
		}
	}
}

// size adds up those of the paths that are known.
func (x *Index) size(paths []string) (bytes int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range paths {
		if known := x.paths[p]; known != nil {
			bytes += known.NarSize
		}
	}
	return bytes
}

var errFull = errors.New("the index is full")

// note notes that a builder has a path.
func (x *Index) note(ctx context.Context, machine, name string) error {
	x.mu.Lock()
	known, full := x.paths[name], len(x.paths) >= maxPaths
	if known != nil {
		if len(known.Holders) < maxHolders && !slices.Contains(known.Holders, machine) {
			known.Holders = append(slices.Clone(known.Holders), machine) // pages share it
			x.changedLocked(known)
		}
		x.mu.Unlock()
		return nil
	}
	x.mu.Unlock()
	if full {
		return errFull
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	p, err := x.cfg.Info(ctx, name)
	if err != nil {
		return err
	}
	if len(p.References) > maxRefs {
		return fmt.Errorf("it has %d references", len(p.References))
	}
	if p.Signature, err = sign(x.cfg.Key, p); err != nil {
		return err
	}
	p.Holders = []string{machine}
	x.cfg.Sized(name, p.NarSize)
	x.mu.Lock()
	defer x.mu.Unlock()
	added := &indexed{Path: p}
	x.paths[name] = added
	x.changedLocked(added)
	return nil
}

// changedLocked gives a path the next cursor and wakes who waits for one.
func (x *Index) changedLocked(p *indexed) {
	x.cursor++
	p.changed = x.cursor
	if len(x.order) > 2*len(x.paths)+pagePaths { // most of it stands for earlier changes
		keep := 0
		for i, o := range x.order {
			if o.changed == x.at[i] {
				x.order[keep], x.at[keep] = o, x.at[i]
				keep++
			}
		}
		clear(x.order[keep:])
		x.order, x.at = x.order[:keep], x.at[:keep]
	}
	x.order, x.at = append(x.order, p), append(x.at, x.cursor)
	if x.news != nil {
		close(x.news)
		x.news = nil
	}
}

// Page returns what has changed since the cursor after, or waits for something to, until
// wait has passed or ctx ends. Peers are not the index's to know.
func (x *Index) Page(ctx context.Context, after int64, wait time.Duration) Page {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		page, news := x.page(after)
		if len(page.Paths) > 0 {
			return page
		}
		select {
		case <-news:
		case <-timer.C:
			return page
		case <-ctx.Done():
			return page
		}
	}
}

func (x *Index) page(after int64) (page Page, news <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	from, _ := slices.BinarySearch(x.at, after+1)
	page.Cursor = after
	size := 0
	for i := from; i < len(x.order) && len(page.Paths) < pagePaths && size < pageBytes; i++ {
		p := x.order[i]
		page.Cursor = x.at[i]
		if p.changed != x.at[i] {
			continue // it comes later
		}
		page.Paths = append(page.Paths, p.Path)
		for _, words := range [][]string{{p.Path.Path, p.NarHash, p.Deriver, p.CA, p.Signature}, p.References, p.Holders} {
			for _, w := range words {
				size += len(w) + 4
			}
		}
	}
	if x.news == nil {
		x.news = make(chan struct{})
	}
	return page, x.news
}

// sign gives the signature of a path as a narinfo has it.
func sign(key signature.SecretKey, p Path) (string, error) {
	hash, err := nixhash.ParseAny(p.NarHash, nil)
	if err != nil {
		return "", fmt.Errorf("its hash: %w", err)
	}
	info := narinfo.NarInfo{StorePath: p.Path, NarHash: hash, NarSize: uint64(p.NarSize)}
	for _, r := range p.References {
		info.References = append(info.References, path.Base(r))
	}
	// Nix has them as a set.
	slices.Sort(info.References)
	s, err := key.Sign(nil, info.Fingerprint())
	if err != nil {
		return "", fmt.Errorf("sign it: %w", err)
	}
	return s.String(), nil
}
