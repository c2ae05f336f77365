package called

import (
	"fmt"
	"os"
	"path/filepath"
)

// Beside is the path of the program of that name which lies beside this one, if it does. What
// this one is called through may be a link that lies elsewhere.
func Beside(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return filepath.Join(filepath.Dir(self), name), nil
}
