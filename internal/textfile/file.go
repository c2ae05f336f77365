package textfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

const (
	maxSize  = 16 << 20         // no configuration file is larger; do not read a device for ever
	lockWait = 10 * time.Second // writers hold the lock for milliseconds
	maxLinks = 40               // symbolic links followed, as the kernel has it
)

// File is a text file of somebody else's.
type File struct {
	// Path is absolute. Symbolic links are followed.
	Path string
	// Mode is for a file that Put makes. If zero, 0644. An existing file keeps its mode.
	Mode fs.FileMode
	// DirMode is for directories that Put makes. If zero, 0755.
	DirMode fs.FileMode
}

// Put makes body the block called name, and tells whether that changed the file. The file
// is made if it does not exist.
func (f File) Put(ctx context.Context, name, body string, where Where) (changed bool, err error) {
	defer f.wrap("put", &err)
	for range 3 {
		changed, err = f.put(ctx, name, body, where)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// Another writer's Take removed the directory that it, or we, had made.
	}
	return changed, err
}

func (f File) put(ctx context.Context, name, body string, where Where) (changed bool, err error) {
	path, err := resolve(f.Path)
	if err != nil {
		return false, err
	}
	dirs, err := makeDirs(filepath.Dir(path), or(f.DirMode, 0o755))
	if err != nil {
		return false, err
	}
	unlock, err := lock(ctx, filepath.Dir(path))
	if err != nil {
		return false, err
	}
	defer unlock()
	old, info, err := read(path)
	if err != nil {
		return false, err
	}
	text, err := put(old, escape(name), body, where, notes{madeFile: info == nil, madeDirs: dirs})
	if err != nil || info != nil && text == old {
		return false, err
	}
	return true, replace(path, text, info, or(f.Mode, 0o644))
}

// Filter leaves of the block called name those lines that keep is true for, and tells
// whether that changed the file. Lines come without their ends. Where there is no block,
// nothing is done.
func (f File) Filter(ctx context.Context, name string, keep func(line string) bool) (changed bool, err error) {
	defer f.wrap("filter", &err)
	return f.ifThere(ctx, func(path, old string, info fs.FileInfo) (bool, error) {
		text, err := filter(old, escape(name), keep)
		if err != nil || text == old {
			return false, err
		}
		return true, replace(path, text, info, 0)
	})
}

// ifThere lets change have the file, under the directory's lock, unless there is none.
func (f File) ifThere(ctx context.Context, change func(path, old string, info fs.FileInfo) (bool, error)) (bool, error) {
	path, err := resolve(f.Path)
	if err != nil {
		return false, err
	}
	unlock, err := lock(ctx, filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	old, info, err := read(path)
	if err != nil || info == nil {
		return false, err
	}
	return change(path, old, info)
}

// Take cuts the block called name out of the file, and tells whether it was there. A file
// that Put made is removed when nothing else is left in it, and so are directories that
// Put made and nobody uses.
func (f File) Take(ctx context.Context, name string) (changed bool, err error) {
	defer f.wrap("take", &err)
	return f.ifThere(ctx, func(path, old string, info fs.FileInfo) (bool, error) {
		text, n, found, err := take(old, escape(name))
		if err != nil || !found {
			return false, err
		}
		if text != "" || !n.madeFile {
			return true, replace(path, text, info, 0)
		}
		if err := os.Remove(path); err != nil {
			return false, err
		}
		for dir := filepath.Dir(path); n.madeDirs > 0; n.madeDirs-- {
			if os.Remove(dir) != nil {
				break // somebody else uses it by now, so it is theirs
			}
			dir = filepath.Dir(dir)
		}
		return true, nil
	})
}

func (f File) wrap(verb string, err *error) {
	if *err != nil {
		*err = fmt.Errorf("%s nix-builders block in %s: %w", verb, f.Path, *err)
	}
}

func or(mode, otherwise fs.FileMode) fs.FileMode {
	if mode == 0 {
		return otherwise
	}
	return mode
}

// resolve follows symbolic links, also those that lead to nothing yet: the file to make is
// then the link's target, so that the link stays what it was.
func resolve(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", errors.New("the path is not absolute")
	}
	path = filepath.Clean(path)
	for range maxLinks {
		target, err := os.Readlink(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EINVAL) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			// Against the real directory: ".." of a linked directory is its target's parent.
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return "", err
			}
			target = filepath.Join(dir, target)
		}
		path = filepath.Clean(target)
	}
	return "", syscall.ELOOP
}

// makeDirs makes dir and what is missing above it, and counts what it made.
func makeDirs(dir string, mode fs.FileMode) (made int, err error) {
	err = os.Mkdir(dir, mode)
	switch {
	case err == nil:
		// Mkdir masks the mode; the caller's mode is what is wanted.
		return 1, os.Chmod(dir, mode)
	case errors.Is(err, fs.ErrExist):
		return 0, nil
	case !errors.Is(err, fs.ErrNotExist):
		return 0, err
	}
	made, err = makeDirs(filepath.Dir(dir), mode)
	if err != nil {
		return made, err
	}
	more, err := makeDirs(dir, mode)
	return made + more, err
}

// lock takes the writers' lock on dir. The files themselves can't be locked: each write
// puts another inode in their place.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, errors.New("another writer holds the lock"))
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil // closing the only descriptor unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			d.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			d.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// read gives the file's text; info is nil when there is no file.
func read(path string) (text string, info fs.FileInfo, err error) {
	info, err = os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	if !info.Mode().IsRegular() {
		return "", nil, fmt.Errorf("it is not a regular file (%s)", info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return "", nil, err
	}
	if len(data) > maxSize {
		return "", nil, fmt.Errorf("it is larger than %d MiB", maxSize>>20)
	}
	return string(data), info, nil
}

// replace puts text in the file's place. The file of info, unless nil, gives mode and owner.
func replace(path, text string, info fs.FileInfo, mode fs.FileMode) error {
	if info != nil {
		mode = info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	}
	// The temporary file stands beside the file: a rename across file systems is not one.
	p, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer p.Cleanup() // no effect once replaced
	if info != nil {
		if err := keepOwner(p.File, info, mode); err != nil {
			return err
		}
	}
	if _, err := p.WriteString(text); err != nil {
		return err
	}
	return p.CloseAtomicallyReplace()
}

// keepOwner gives the new file the old one's owner. A writer that is neither root nor the
// owner can't, and must not hand the file to itself unasked.
func keepOwner(f *os.File, info fs.FileInfo, mode fs.FileMode) error {
	old, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("its owner can't be read")
	}
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if s, ok := now.Sys().(*syscall.Stat_t); ok && s.Uid == old.Uid && s.Gid == old.Gid {
		return nil
	}
	if err := f.Chown(int(old.Uid), int(old.Gid)); err != nil {
		return err
	}
	return f.Chmod(mode) // chown clears set-id bits
}
