package hook

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/nix-community/go-nix/pkg/derivation"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
)

// maxDerivation bounds the derivations that are read. Larger ones are built too, only the
// scheduler knows less of them.
const maxDerivation = 8 << 20

// describe tells the scheduler what it can know of a build. A derivation that can't be read,
// because its store is elsewhere or its format new, is no error.
func (q *request) describe() *scheduler.Build {
	b := &scheduler.Build{Derivation: q.derivation, System: q.system, Features: q.features}
	drv, err := readDerivation(q.derivation)
	if err != nil {
		return b
	}
	b.Sources = drv.InputSources
	b.Derivations = slices.Sorted(maps.Keys(drv.InputDerivations))
	for _, o := range drv.Outputs {
		if o != nil && o.Path != "" { // else it is known once it is built
			b.Outputs = append(b.Outputs, o.Path)
		}
	}
	slices.Sort(b.Outputs)
	return b
}

func readDerivation(path string) (*derivation.Derivation, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxDerivation {
		return nil, fmt.Errorf("%s is no file of a derivation's size", path)
	}
	// It gives what it has read though a rule be broken that newer Nix does not have.
	drv, err := derivation.ReadDerivation(io.LimitReader(f, maxDerivation))
	if drv == nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return drv, nil
}
