package act

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/image"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

// The action as workflows name it.
const (
	repository = "Misaka13514/setup-distributed-nix-builds"
	ref        = "main"
)

// copyTree copies what git knows, or would take, of the module's directory, as it
// is now.
func copyTree(ctx context.Context, module, to string) error {
	cmd := exec.CommandContext(ctx, "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = module
	list, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		err := copyFile(filepath.Join(module, name), filepath.Join(to, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted, and git not told yet
			return err
		}
	}
	return nil
}

// copyFile copies a file or a symbolic link, making the directories above it.
func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// selfReference is `uses: $/x`, which names a directory of the repository that
// the file is in, at the same commit.
var selfReference = regexp.MustCompile(`(?m)^(\s*(?:- )?uses:\s*)\$/(\S+)`)

// render writes every self reference in the copy out, as GitHub's runner does,
// for act does not know them.
func render(dir string) error {
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || filepath.Ext(name) != ".yml" {
			return err
		}
		return edit(name, func(text string) (string, error) {
			return selfReference.ReplaceAllString(text, "${1}"+repository+"/${2}@"+ref), nil
		})
	})
}

// edit changes a file's text.
func edit(name string, change func(string) (string, error)) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	changed, err := change(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if changed == string(text) {
		return nil
	}
	return os.WriteFile(name, []byte(changed), 0o644)
}

// setBinary gives the action's input binary a default.
func setBinary(dir string) func(string) (string, error) {
	input := regexp.MustCompile(`(?m)^(  binary:\n(?:    .*\n)*?    default: )""$`)
	return func(text string) (string, error) {
		if !input.MatchString(text) {
			return "", errors.New(`there is no input "binary" with an empty default`)
		}
		return input.ReplaceAllString(text, `${1}"`+dir+`"`), nil
	}
}

// release makes a release of the copy, for this machine's platform alone, and serves
// it to hosts.
func (b *Bed) release(ctx context.Context, cache image.Cache) error {
	const version = "v0.0.0-snapshot"
	digest, err := release.Digest(b.action)
	if err != nil {
		return err
	}
	dir, err := cache.Once(ctx, "release-"+digest[:16]+"-"+runtime.GOARCH, func(dir string) error {
		var stderr strings.Builder
		m, err := release.Open(ctx, b.action, &stderr)
		if err == nil {
			_, err = m.Make(ctx, dir, version, []release.Target{release.Host()})
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, stderr.String())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.CopyFS(b.dir("release", version), os.DirFS(dir)); err != nil {
		return err
	}
	checksums := filepath.Join(b.action, "release", "checksums.txt")
	if err := os.Remove(checksums); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return copyFile(filepath.Join(dir, "checksums.txt"), checksums)
}

// thirdParty is a use of somebody else's action at a commit.
var thirdParty = regexp.MustCompile(`uses:\s*([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)(?:/[^@\s]*)?@(\S+)`)

// standIns returns which directory stands for which action: the copy for our own,
// and for whatever else the action, its workflows and the examples use, what is
// in e2e/standins under that repository's name.
func (b *Bed) standIns(module string) (map[string]string, error) {
	all := map[string]string{repository + "@" + ref: b.action}
	files := []string{"action.yml", "plan/action.yml", ".github/workflows/*.yml", "examples/*.yml", "e2e/testdata/*.yml"}
	for _, pattern := range files {
		names, err := filepath.Glob(filepath.Join(b.action, pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			for _, m := range thirdParty.FindAllStringSubmatch(string(text), -1) {
				if m[1] == repository {
					continue
				}
				from := filepath.Join(module, "e2e", "standins", filepath.Base(m[1]))
				if _, err := os.Stat(from); err != nil {
					continue // act says so, where it is used
				}
				all[m[1]+"@"+m[2]] = b.dir("standins", filepath.Base(m[1]))
			}
		}
	}
	if err := os.CopyFS(b.dir("standins"), os.DirFS(filepath.Join(module, "e2e", "standins"))); err != nil {
		return nil, err
	}
	// An action sees its own repository only, so each gets what they share.
	names, err := filepath.Glob(b.dir("standins", "*", "main.js"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := copyFile(b.dir("standins", sharedScript), filepath.Join(filepath.Dir(name), sharedScript)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// sharedScript is what the stand-ins' scripts require.
const sharedScript = "stand-in.js"
