package measure

import (
	"bytes"
	"fmt"
	"os"

	"github.com/google/renameio/v2"
)

// Update puts the table into the document, between two lines: a comment that begins with
// the command that writes there, and the comment of an end.
func Update(file, command string, table []byte) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("update the document: %w", err)
	}
	begin, end := []byte("<!-- begin: "+command+" -->\n"), []byte("<!-- end -->\n")
	before, rest, ok := bytes.Cut(text, begin)
	_, after, ok2 := bytes.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("update the document: %s has no line %q with %q after it", file, begin, end)
	}
	text = bytes.Join([][]byte{before, begin, []byte("\n"), table, []byte("\n"), end, after}, nil)
	if err := renameio.WriteFile(file, text, 0o644, renameio.WithExistingPermissions()); err != nil {
		return fmt.Errorf("update the document: %w", err)
	}
	return nil
}
