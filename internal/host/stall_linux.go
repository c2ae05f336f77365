package host

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/prometheus/procfs"
)

// stall reads Linux' pressure stall information, which a kernel may be built or booted
// without.
func stall(resource string) (*float64, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, fmt.Errorf("measure waiting for %s: %w", resource, err)
	}
	psi, err := proc.PSIStatsForResource(resource)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EOPNOTSUPP):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("measure waiting for %s: %w", resource, err)
	case psi.Full == nil:
		return nil, nil
	}
	return &psi.Full.Avg10, nil
}
