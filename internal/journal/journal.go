// Package journal keeps a cluster's state in a file, so that a coordinator that is
// started again goes on where the last one ended: builders keep their ids, events
// their numbers, and a stop stays a stop.
//
// The file is for the user that the coordinator runs as alone: what builders offer is
// nobody else's business. A save replaces it in one step and returns when the disk has
// it. One coordinator at a time may use a cluster's file.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

const maxSize = 256 << 20 // bytes; some 10,000 builders need a tenth of it

// File is the state file of one cluster. It implements [coordinator.Journal].
type File struct {
	cluster string
	path    string
}

var _ coordinator.Journal = (*File)(nil)

// Open takes the file at path, which need not be there, as the cluster's, and removes
// what a crash left beside it. Its directory must be there.
func Open(path, cluster string) (*File, error) {
	f := &File{cluster: cluster, path: path}
	if err := f.sweep(); err != nil {
		return nil, fmt.Errorf("open journal of cluster %s: %w", cluster, err)
	}
	return f, nil
}

// Path is where the state is.
func (f *File) Path() string { return f.path }

// Load returns what was saved last, and false if nothing ever was. Its errors name
// the file and what to do.
func (f *File) Load() (coordinator.Record, bool, error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return coordinator.Record{}, false, nil
	}
	if err != nil {
		return coordinator.Record{}, false, fmt.Errorf("load journal: %w", err)
	}
	defer file.Close() // only read
	record, err := decode(file)
	if err != nil {
		return coordinator.Record{}, false, fmt.Errorf("load journal: %s is damaged (%w); if the cluster's builders may be forgotten, remove the file and start again", f.path, err)
	}
	if record.ID != f.cluster {
		return coordinator.Record{}, false, fmt.Errorf("load journal: %s holds the state of cluster %q and not of %q; give each cluster a state directory of its own", f.path, record.ID, f.cluster)
	}
	return record, true, nil
}

// decode reads one record and nothing else.
func decode(r io.Reader) (record coordinator.Record, err error) {
	limited := &io.LimitedReader{R: r, N: maxSize + 1}
	d := json.NewDecoder(limited)
	if err := d.Decode(&record); err != nil {
		return record, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return record, errors.New("there is more after its end")
	}
	if limited.N <= 0 {
		return record, fmt.Errorf("it is larger than %d bytes", maxSize)
	}
	return record, nil
}

// Save returns when the record would survive the machine's crash.
func (f *File) Save(record coordinator.Record) error {
	if record.ID != f.cluster {
		return fmt.Errorf("save journal: the record is of cluster %q and %s of %q", record.ID, f.path, f.cluster)
	}
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("save journal: %w", err)
	}
	if err := replace(f.path, data); err != nil {
		return fmt.Errorf("save journal: %w", err)
	}
	return nil
}

// replace puts the data in the place of the file in one step that lasts. The mode is
// ours, whatever the old file's was.
func replace(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	pending, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pending.Cleanup()) }() // nothing once replaced
	if _, err := pending.Write(data); err != nil {
		return err
	}
	if err := pending.CloseAtomicallyReplace(); err != nil { // syncs the file
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in the directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sweep removes temporary files that a crash left behind.
func (f *File) sweep() error {
	dir := filepath.Dir(f.path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "."+filepath.Base(f.path)) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}
