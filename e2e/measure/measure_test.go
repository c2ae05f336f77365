package measure_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/measure"
)

func TestRowsShowWhatWasMeasured(t *testing.T) {
	for _, tt := range []struct {
		row                    *measure.Row
		result, aimed, verdict string
	}{
		{measure.New("none", measure.Seconds, measure.Runs), "nothing measured", "", ""},
		{measure.New("one", measure.Bytes, measure.Runs).Add(12_345_678), "12.3 MB", "", ""},
		{
			measure.New("few", measure.Seconds, measure.Runs).Took(3*time.Second, time.Second, 20*time.Millisecond).Below(3),
			"20.0 ms / 1.00 s / 3.00 s (min / median / max of 3)", "< 3.00 s", "**missed**",
		},
		{
			measure.New("crowd", measure.Percent, measure.Many).Add(1, 2, 3, 4).Below(5),
			"2.00 % / 4.00 % / 4.00 % (p50 / p99 / max of 4)", "< 5.00 %", "met",
		},
	} {
		t.Run(tt.row.What, func(t *testing.T) {
			want := []string{tt.result, tt.aimed, tt.verdict}
			if diff := cmp.Diff(want, []string{tt.row.Result(), tt.row.Aimed(), tt.row.Verdict()}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestUpdateWritesBetweenItsMarksOnly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	const text = "before\n<!-- begin: a -->\nold\n<!-- end -->\nbetween\n<!-- begin: b -->\n<!-- end -->\nafter\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := measure.Update(file, "b", []byte("| table |\n")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(text, "b -->\n", "b -->\n\n| table |\n\n", 1)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := measure.Update(file, "c", nil); err == nil || !strings.Contains(err.Error(), `has no line "<!-- begin: c -->`) {
		t.Errorf("a document without the marks: %v", err)
	}
}
