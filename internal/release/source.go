package release

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sourceFiles are the files that the programs are made of beside those in Go.
func sourceFiles() []string {
	return []string{"go.mod", "go.sum", "openapi.yaml", "tools/go.mod", "tools/go.sum"}
}

// SourceFiles returns the names of the files below root that the programs are made of,
// slash-separated and sorted: Go files but for tests, e2e, testdata and whatever begins
// with a dot, and the files that are named in sourceFiles. install.sh finds the same with find(1).
func SourceFiles(root string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch hidden := strings.HasPrefix(d.Name(), "."); {
		case d.IsDir() && (hidden || name == "e2e" || d.Name() == "testdata" || d.Name() == "node_modules"):
			return fs.SkipDir
		case hidden || !d.Type().IsRegular():
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"), slices.Contains(sourceFiles(), name):
			names = append(names, name)
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// Digest is the SHA-256, in hexadecimal, of what sha256sum prints for all source files:
//
//	sha256sum ./builder/agent.go ./builder/claim.go ... | sha256sum
//
// install.sh computes it for the copy that the runner has of the action, and uses a
// release only if it was built from this very source.
func Digest(root string) (string, error) {
	names, err := SourceFiles(root)
	if err != nil {
		return "", fmt.Errorf("digest of the source: %w", err)
	}
	all := sha256.New()
	for _, name := range names {
		sum, err := fileSum(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return "", fmt.Errorf("digest of the source: %w", err)
		}
		fmt.Fprintf(all, "%s  ./%s\n", sum, name)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// fileSum is the SHA-256 of a file, in hexadecimal.
func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // only read
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
