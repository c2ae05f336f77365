// Package rundir is the directory that a member of a cluster keeps on its host while
// the cluster runs, STATE_DIR/CLUSTER/ROLE: how the other commands of this host find
// the server, what must be undone at the end, and the log.
//
// The directory may be read by everyone on the host; the files that hold more than
// an address are their owner's alone.
package rundir

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/proc"
)

// Roles, each with a directory of its own.
const (
	Coordinator = "coordinator"
	Builder     = "builder"
)

// A Dir is one member's directory.
type Dir struct {
	path string
}

// Server is how the coordinator of this host is reached.
type Server struct {
	Cluster    string  `json:"cluster"`
	API        string  `json:"api"`              // base URL, ends in /v1
	Socket     string  `json:"socket,omitempty"` // control socket, with userspace networking
	Supervisor proc.ID `json:"supervisor"`       // what to signal to end it
}

// Joining is a process that makes this host a member of the tailnet, or made it one, ahead
// of the role's own.
type Joining struct {
	Process proc.ID   `json:"process"`
	Started time.Time `json:"started"`
	Joined  bool      `json:"joined"`          // it did
	Error   string    `json:"error,omitempty"` // why it failed
}

// ErrNone says that no member of a cluster lives here.
var ErrNone = errors.New("no cluster runs on this host")

// New makes the directory of a member, or takes the one that is there.
func New(stateDir, cluster, role string) (*Dir, error) {
	d := At(stateDir, cluster, role)
	if err := os.MkdirAll(d.path, 0o755); err != nil {
		return nil, fmt.Errorf("make the cluster's directory: %w", err)
	}
	return d, nil
}

// At names the directory of a member without making it.
func At(stateDir, cluster, role string) *Dir {
	return &Dir{path: filepath.Join(stateDir, dirName(cluster), role)}
}

// Find returns the directories of all clusters that have a member of this role here.
func Find(stateDir, role string) ([]*Dir, error) {
	entries, err := os.ReadDir(stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for clusters: %w", err)
	}
	var dirs []*Dir
	for _, e := range entries {
		path := filepath.Join(stateDir, e.Name(), role)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			dirs = append(dirs, &Dir{path: path})
		}
	}
	return dirs, nil
}

// maxName is how much of an id is readable in its directory's name. Unix sockets lie in it,
// and their paths have room for 103 bytes on macOS.
const maxName = 24

// dirName is what is harmless of a cluster's id, for people, and a digest of all of it,
// so that no two clusters share a name, whatever the file system thinks of case.
func dirName(cluster string) string {
	readable := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '_':
			return r
		}
		return '-'
	}, cluster)
	readable = strings.Trim(readable[:min(len(readable), maxName)], "-.")
	digest := sha256.Sum256([]byte(cluster))
	return strings.TrimPrefix(readable+"-"+hex.EncodeToString(digest[:8]), "-")
}

// Path returns the path of a file in the directory.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// LogPath is where the detached server writes.
func (d *Dir) LogPath() string { return d.Path("coordinator.log") }

// JournalPath is where the cluster's state is kept.
func (d *Dir) JournalPath() string { return d.Path("state.json") }

// SaveServer says how the server is reached.
func (d *Dir) SaveServer(s Server) error { return d.Save("server.json", 0o644, s) }

// Server reads what SaveServer wrote. ErrNone if there is nothing.
func (d *Dir) Server() (Server, error) {
	var s Server
	if err := d.Load("server.json", &s); err != nil {
		return Server{}, err
	}
	return s, nil
}

// JoinLogPath is where a detached joining writes.
func (d *Dir) JoinLogPath() string { return d.Path("join.log") }

// SaveJoining says who joins, or how that ended.
func (d *Dir) SaveJoining(j Joining) error { return d.Save("joining.json", 0o644, j) }

// Joining reads what SaveJoining wrote. ErrNone if there is nothing.
func (d *Dir) Joining() (Joining, error) {
	var j Joining
	if err := d.Load("joining.json", &j); err != nil {
		return Joining{}, err
	}
	return j, nil
}

// Save writes v as JSON, at once or not at all.
func (d *Dir) Save(name string, mode fs.FileMode, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	if err := renameio.WriteFile(d.Path(name), append(b, '\n'), mode, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return nil
}

// Load reads what Save wrote. ErrNone if there is no such file.
func (d *Dir) Load(name string, v any) error {
	b, err := os.ReadFile(d.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", d.Path(name), ErrNone)
	}
	if err != nil {
		return fmt.Errorf("read the cluster's directory: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", d.Path(name), err)
	}
	return nil
}

// Has tells whether there is such a file.
func (d *Dir) Has(name string) bool {
	_, err := os.Stat(d.Path(name))
	return err == nil
}

// Clear removes all but the named files, and the directory with the last of them.
func (d *Dir) Clear(keep ...string) error {
	if !slices.ContainsFunc(keep, d.Has) {
		return d.Remove()
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("clear the cluster's directory: %w", err)
	}
	var problems []error
	for _, e := range entries {
		if !slices.Contains(keep, e.Name()) {
			problems = append(problems, os.RemoveAll(d.Path(e.Name())))
		}
	}
	return errors.Join(problems...)
}

// Remove takes the directory away, and those above it that are empty then: the
// cluster's, and the one of all clusters.
func (d *Dir) Remove() error {
	if err := os.RemoveAll(d.path); err != nil {
		return fmt.Errorf("remove the cluster's directory: %w", err)
	}
	// Not empty when the other role or another cluster lives here too, or not there: all
	// are fine.
	cluster := filepath.Dir(d.path)
	if os.Remove(cluster) == nil {
		_ = os.Remove(filepath.Dir(cluster))
	}
	return nil
}
