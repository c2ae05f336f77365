package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// WriteOutputs writes the plan as the lines that $GITHUB_OUTPUT takes, in one write:
// matrix (JSON array), builders (host names separated by spaces), suffix, count and
// needed. The first three have a second name each, by which workflows knew them before
// there was a plan action.
func (p Plan) WriteOutputs(w io.Writer, needed bool) error {
	text, err := json.Marshal(p.Builders)
	if err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	matrix := string(text)
	hosts := strings.Join(p.Hosts(), " ")
	var b bytes.Buffer
	for _, o := range []struct {
		name  string
		value any
	}{
		{"matrix", matrix}, {"builders", hosts}, {"suffix", p.Suffix},
		{"builder_matrix", matrix}, {"builders_list", hosts}, {"run_suffix", p.Suffix},
		{"count", len(p.Builders)}, {"needed", needed},
	} {
		fmt.Fprintf(&b, "%s=%v\n", o.name, o.value)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	return nil
}
