package nix_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the real Nix says of lines is tested on real hosts; here, what becomes of it.
func TestCheckConf(t *testing.T) {
	for name, test := range map[string]struct {
		script   string
		warnings []string
		err      string
	}{
		"good":    {script: `test "$NIX_CONFIG" = "timeout = 1" && test "$3 $4" = "config show" && pwd | grep -qx /`},
		"warning": {script: `echo "warning: unknown setting 'timeuot'" >&2; echo other >&2`, warnings: []string{"unknown setting 'timeuot'"}},
		"old": {script: `case $3 in show-config) ;; *) echo "error: 'config' is not a recognised command" >&2; exit 1;; esac
			echo "warning: 'show-config' is a deprecated alias" >&2`},
		"syntax": {script: `echo "error: syntax error in configuration line 'x' in 'NIX_CONFIG'" >&2; exit 1`,
			err: "syntax error in configuration line 'x' in 'NIX_CONFIG'"},
	} {
		t.Run(name, func(t *testing.T) {
			warnings, err := install(t, test.script).CheckConf(t.Context(), "timeout = 1", "/")
			if diff := cmp.Diff(test.warnings, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
}

func TestCheckConfIsGivenUp(t *testing.T) {
	over := errors.New("the job is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if _, err := install(t, "exec sleep 60").CheckConf(ctx, "", "/"); !errors.Is(err, over) {
		t.Errorf("error %v, want why it was given up", err)
	}
}
