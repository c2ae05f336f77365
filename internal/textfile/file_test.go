package textfile_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/textfile"
)

func TestAFileThatPutMadeGoesAgain(t *testing.T) {
	dir := t.TempDir()
	f := textfile.File{Path: filepath.Join(dir, "a/b/config"), Mode: 0o600, DirMode: 0o700}
	if _, err := f.Put(t.Context(), cluster, "x\n", textfile.Top); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{"a": 0o700, "a/b": 0o700, "a/b/config": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	// What made the file must outlive later changes of the block.
	if _, err := f.Put(t.Context(), cluster, "y\n", textfile.Top); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Take(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if changed, err := f.Take(t.Context(), cluster); changed || err != nil {
		t.Errorf("Take without a directory = %v, %v", changed, err)
	}
}

// Filter touches its own block only, and Take still undoes what Put did.
func TestFilter(t *testing.T) {
	f := textfile.File{Path: filepath.Join(t.TempDir(), "machines")}
	without := func(word string) (changed bool) {
		t.Helper()
		changed, err := f.Filter(t.Context(), cluster, func(line string) bool { return line != word })
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	if without("a") || os.WriteFile(f.Path, []byte("a\nb"), 0o600) != nil || without("a") {
		t.Error("a file without a block was changed")
	}
	if _, err := f.Put(t.Context(), cluster, "a\nb\nc\n", textfile.Bottom); err != nil {
		t.Fatal(err)
	}
	whole := read(t, f.Path)
	if without("x") || !without("b") || without("b") {
		t.Error("Filter does not tell whether it changed the file")
	}
	if diff := cmp.Diff(strings.Replace(whole, "\na\nb\nc\n", "\na\nc\n", 1), read(t, f.Path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if _, err := f.Take(t.Context(), cluster); err != nil || read(t, f.Path) != "a\nb" {
		t.Errorf("after Take: %q, %v", read(t, f.Path), err)
	}
}

func TestAFileThatPutMadeStaysWhenOthersUseIt(t *testing.T) {
	f := textfile.File{Path: filepath.Join(t.TempDir(), "nix/nix.conf")}
	if _, err := f.Put(t.Context(), cluster, "x\n", textfile.Bottom); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Path, []byte(read(t, f.Path)+"theirs\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Take(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("theirs\n", read(t, f.Path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAnEmptyFileThatWasThereStays(t *testing.T) {
	path := write(t, "")
	put(t, path, "x\n", textfile.Bottom)
	take(t, path)
	if got := read(t, path); got != "" {
		t.Errorf("the file holds %q", got)
	}
}

func TestSymbolicLinksStay(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "real/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"linked":    "real/deep",              // a linked directory
		"one":       "linked/two",             // relative, through it
		"real/two":  "x",                      // (not the one above)
		"dangling":  "real/absent",            // to a file that Put makes
		"loop":      "loop",                   //
		"absolute":  dir + "/real/conf",       //
		"real/conf": "deep/../deep/conf.real", //
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ path, real string }{
		{"one", "real/deep/two"},
		{"dangling", "real/absent"},
		{"absolute", "real/deep/conf.real"},
	} {
		path, real := filepath.Join(dir, tc.path), filepath.Join(dir, tc.real)
		put(t, path, "x\n", textfile.Bottom)
		if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSymlink {
			t.Errorf("%s is no link any more: %v, %v", tc.path, info, err)
		}
		if info, err := os.Lstat(real); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s is not the file: %v, %v", tc.real, info, err)
		}
		take(t, path)
		if _, err := os.Lstat(real); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left behind: %v", tc.real, err)
		}
	}
	f := textfile.File{Path: filepath.Join(dir, "loop")}
	if _, err := f.Put(t.Context(), cluster, "x\n", textfile.Bottom); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("Put through a loop of links: %v", err)
	}
}

func TestModeAndOwnerStay(t *testing.T) {
	path := write(t, "a\n")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 12345, 23456
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	put(t, path, "x\n", textfile.Bottom)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if got := st.Mode & 0o7777; got != 0o640 || int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("mode %o, owner %d:%d; want 640, %d:%d", got, st.Uid, st.Gid, uid, gid)
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, "/dev/null", "nix.conf", ""} {
		f := textfile.File{Path: path}
		if _, err := f.Put(t.Context(), cluster, "x\n", textfile.Bottom); err == nil {
			t.Errorf("Put into %q was accepted", path)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestWritersTakeTurns(t *testing.T) {
	path := write(t, "theirs\n")
	f := textfile.File{Path: path}
	const writers, rounds = 8, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			name := fmt.Sprintf("o/r/%d/1", w)
			for r := range rounds {
				if _, err := f.Put(t.Context(), name, fmt.Sprintf("%d\n", r), textfile.Where(r%2)); err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
			}
			if w%2 == 0 {
				if changed, err := f.Take(t.Context(), name); err != nil || !changed {
					t.Errorf("writer %d: Take = %v, %v", w, changed, err)
				}
			}
		})
	}
	wg.Wait()
	for w := range writers {
		changed, err := f.Take(t.Context(), fmt.Sprintf("o/r/%d/1", w))
		if err != nil || changed == (w%2 == 0) {
			t.Errorf("writer %d: its block is there: %v, %v", w, changed, err)
		}
	}
	if diff := cmp.Diff("theirs\n", read(t, path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAHeldLockIsWaitedForWithinTheContext(t *testing.T) {
	path := write(t, "a\n")
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	f := textfile.File{Path: path}
	if _, err := f.Put(ctx, cluster, "x\n", textfile.Bottom); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Put under another's lock: %v", err)
	}
	if got := read(t, path); got != "a\n" {
		t.Errorf("the file became %q", got)
	}
}
