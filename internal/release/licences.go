package release

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A licence is a file that must go where the programs go.
type licence struct {
	name string // in the archive
	text []byte
}

// linked is what `go list` tells of a package that a program is made of.
type linked struct {
	ImportPath string
	Dir        string
	Standard   bool
	Module     *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// licences returns the licences of all that is linked into the programs for the target,
// and the modules that they are of, as MODULE VERSION, both sorted. A module without one
// is an error: nobody may pass it on.
func (m *Module) licences(ctx context.Context, t Target) (files []licence, modules []string, err error) {
	dirs := make(map[string]string) // directory in the archive, by directory with a licence to look for
	roots := make(map[string]bool)  // directories in the archive that must hold one
	for _, p := range m.programs("") {
		args := slices.Concat([]string{"list", "-deps", "-json=ImportPath,Dir,Standard,Module"}, p.flags, []string{p.pkg})
		out, err := m.run(ctx, m.goCommand(ctx, m.Go, t, args...))
		if err != nil {
			return nil, nil, fmt.Errorf("licences of %s: %w", p.name, err)
		}
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var pkg linked
			if err := d.Decode(&pkg); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, nil, fmt.Errorf("licences of %s: go list: %w", p.name, err)
			}
			if pkg.Standard || pkg.Module == nil || pkg.Module.Main {
				continue
			}
			// Two programs may hold two versions of a module.
			root := "licences/" + pkg.Module.Path + "@" + pkg.Module.Version
			if !roots[root] {
				roots[root] = true
				modules = append(modules, pkg.Module.Path+" "+pkg.Module.Version)
			}
			// A directory within a module may be under a licence of its own.
			for dir := pkg.Dir; ; dir = filepath.Dir(dir) {
				rel, err := filepath.Rel(pkg.Module.Dir, dir)
				if err != nil || !filepath.IsLocal(rel) {
					return nil, nil, fmt.Errorf("licences: %s is not in its module", pkg.ImportPath)
				}
				dirs[dir] = path.Join(root, filepath.ToSlash(rel))
				if rel == "." {
					break
				}
			}
		}
	}
	// Go's own library is linked in too.
	out, err := m.run(ctx, m.goCommand(ctx, m.Go, Host(), "env", "GOROOT"))
	if err != nil {
		return nil, nil, fmt.Errorf("licences: %w", err)
	}
	goroot := strings.TrimSpace(string(out))
	dirs[goroot], roots["licences/go"] = "licences/go", true

	found := make(map[string]bool)
	for dir, in := range dirs {
		here, err := licencesIn(dir, in)
		if err != nil {
			return nil, nil, fmt.Errorf("licences: %w", err)
		}
		found[in] = len(here) > 0
		files = append(files, here...)
	}
	for root := range roots {
		if !found[root] {
			return nil, nil, fmt.Errorf("licences: %s has none: it may not be linked in, or it is in a file by another name", strings.TrimPrefix(root, "licences/"))
		}
	}
	slices.SortFunc(files, func(a, b licence) int { return strings.Compare(a.name, b.name) })
	slices.Sort(modules)
	return files, modules, nil
}

// licencesIn returns the files of a directory that are, or belong to, a licence.
func licencesIn(dir, in string) (files []licence, err error) {
	// Not license.go, and not a directory of other people's licences.
	named := regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying|copyright|notice|patents|authors)([-._][^/]*)?$`)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !named.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, licence{in + "/" + e.Name(), text})
	}
	return files, nil
}
