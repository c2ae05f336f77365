package textfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/textfile"
)

const cluster = "owner/repo/1/1"

// write makes a file with text in a new directory and gives its path.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nix.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func put(t testing.TB, path, body string, where textfile.Where) bool {
	t.Helper()
	changed, err := textfile.File{Path: path}.Put(t.Context(), cluster, body, where)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func take(t testing.TB, path string) bool {
	t.Helper()
	changed, err := textfile.File{Path: path}.Take(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestPut(t *testing.T) {
	const (
		open  = "# BEGIN nix-builders owner/repo/1/1\n"
		close = "# END nix-builders owner/repo/1/1\n"
	)
	for _, tc := range []struct {
		name, old, body string
		where           textfile.Where
		want            string
	}{
		{name: "bottom", old: "a = 1\n", body: "b = 2\n", want: "a = 1\n" + open + "b = 2\n" + close},
		{name: "top", old: "a = 1\n", body: "b = 2\n", where: textfile.Top, want: open + "b = 2\n" + close + "a = 1\n"},
		{name: "body without newline", old: "a = 1\n", body: "b = 2", want: "a = 1\n" + open + "b = 2\n" + close},
		{name: "empty body", old: "a = 1\n", want: "a = 1\n" + open + close},
		{name: "empty file", body: "b = 2\n", want: open + "b = 2\n" + close},
		{name: "no final newline", old: "a = 1", body: "b\n",
			want: "a = 1\n# BEGIN nix-builders owner/repo/1/1 [newline]\nb\n" + close},
		{name: "no final newline, top", old: "a = 1", body: "b\n", where: textfile.Top, want: open + "b\n" + close + "a = 1"},
		{name: "in place, whatever the place asked for", old: "a\n" + open + "old\n" + close + "c\n", body: "new\n",
			where: textfile.Top, want: "a\n" + open + "new\n" + close + "c\n"},
		{name: "CRLF around", old: "a\r\n" + open + "old\n" + close + "c\r\n", body: "new\n",
			want: "a\r\n" + open + "new\n" + close + "c\r\n"},
		{name: "converted to CRLF", old: "a\r\n" + strings.ReplaceAll(open+"old\n"+close, "\n", "\r\n"), body: "new\n",
			want: "a\r\n" + open + "new\n" + close},
		{name: "beside another cluster's",
			old:  "# BEGIN nix-builders owner/repo/1/12\nx\n# END nix-builders owner/repo/1/12\n",
			body: "b\n",
			want: "# BEGIN nix-builders owner/repo/1/12\nx\n# END nix-builders owner/repo/1/12\n" + open + "b\n" + close},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := write(t, tc.old)
			if !put(t, path, tc.body, tc.where) {
				t.Error("the first Put says that it changed nothing")
			}
			if diff := cmp.Diff(tc.want, read(t, path)); diff != "" {
				t.Errorf("after Put (-want +got):\n%s", diff)
			}
			before, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if put(t, path, tc.body, tc.where) {
				t.Error("the second Put says that it changed the file")
			}
			after, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if !os.SameFile(before, after) {
				t.Error("a Put that changes nothing wrote the file")
			}
		})
	}
}

func TestTakeFromAFileThatOthersEdited(t *testing.T) {
	path := write(t, "a = 1")
	put(t, path, "b = 2\n", textfile.Bottom)
	edited := "first\n" + strings.Replace(read(t, path), "a = 1", "a = 3", 1) + "last\n"
	if err := os.WriteFile(path, []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	if !take(t, path) {
		t.Error("Take found nothing")
	}
	if diff := cmp.Diff("first\na = 3\nlast\n", read(t, path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if take(t, path) {
		t.Error("the second Take found something")
	}
}

func TestTakeFromAConvertedFile(t *testing.T) {
	path := write(t, "a")
	put(t, path, "b\n", textfile.Bottom)
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(read(t, path), "\n", "\r\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	take(t, path)
	if diff := cmp.Diff("a", read(t, path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBrokenMarkersLeaveTheFileAlone(t *testing.T) {
	const (
		open  = "# BEGIN nix-builders owner/repo/1/1\n"
		close = "# END nix-builders owner/repo/1/1\n"
	)
	for name, text := range map[string]string{
		"not ended":     "a\n" + open + "b\n",
		"not begun":     "a\n" + close,
		"reversed":      close + open,
		"twice":         open + close + open + close,
		"nested":        open + open + close + close,
		"ended twice":   open + close + close,
		"unknown note":  "# BEGIN nix-builders owner/repo/1/1 [moon]\n" + close,
		"broken note":   "# BEGIN nix-builders owner/repo/1/1 [file\n" + close,
		"absurd note":   "# BEGIN nix-builders owner/repo/1/1 [directories 9999]\n" + close,
		"trailing text": "# BEGIN nix-builders owner/repo/1/1 and more\n" + close,
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, text)
			f := textfile.File{Path: path}
			for verb, do := range map[string]func() (bool, error){
				"put":  func() (bool, error) { return f.Put(t.Context(), cluster, "x\n", textfile.Bottom) },
				"take": func() (bool, error) { return f.Take(t.Context(), cluster) },
			} {
				changed, err := do()
				if changed || !errors.Is(err, textfile.ErrMarkers) {
					t.Errorf("%s = %v, %v; want false and ErrMarkers", verb, changed, err)
				}
				if err != nil && !strings.Contains(err.Error(), path) {
					t.Errorf("%s: %v does not name the file", verb, err)
				}
			}
			if diff := cmp.Diff(text, read(t, path)); diff != "" {
				t.Errorf("the file changed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestABlockWithMarkersOfItsOwnIsRefused(t *testing.T) {
	path := write(t, "a\n")
	f := textfile.File{Path: path}
	for _, body := range []string{"# END nix-builders " + cluster + "\n", "x\n# BEGIN nix-builders " + cluster} {
		if _, err := f.Put(t.Context(), cluster, body, textfile.Bottom); err == nil {
			t.Errorf("Put(%q) was accepted", body)
		}
	}
	if got := read(t, path); got != "a\n" {
		t.Errorf("the file became %q", got)
	}
}

// FuzzPutTake holds that whatever a file held, and whatever the cluster and the block are
// called, taking what was put gives the file back, byte by byte.
func FuzzPutTake(f *testing.F) {
	f.Add("", "b\n", cluster, false)
	f.Add("a", "b", cluster, true)
	f.Add("a\r", "\n", "x\ny", false)
	f.Add("a\n\n", "b\n", "", false)
	f.Add("# BEGIN nix-builders x\n", "# END nix-builders x\n", "x ]", true)
	f.Fuzz(func(t *testing.T, old, body, name string, top bool) {
		path := write(t, old)
		file := textfile.File{Path: path}
		where := textfile.Bottom
		if top {
			where = textfile.Top
		}
		if _, err := file.Put(t.Context(), name, body, where); err != nil {
			if read(t, path) != old {
				t.Errorf("a refused Put changed the file")
			}
			return
		}
		if _, err := file.Put(t.Context(), name, body+"#\n", where); err != nil {
			return // only a body that is half a marker
		}
		taken := strings.Contains(old, "# BEGIN nix-builders ")
		if _, err := file.Take(t.Context(), name); err != nil {
			t.Fatalf("take what was put: %v", err)
		}
		if got := read(t, path); got != old && !taken {
			t.Errorf("put %q into %q and took it: %q", body, old, got)
		}
	})
}
