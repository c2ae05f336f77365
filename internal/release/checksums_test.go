package release_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

func TestChecksums(t *testing.T) {
	sum := strings.Repeat("0123456789abcdef", 4)
	c := release.Checksums{Version: "v1.2.3", Go: "go1.26.8", Source: sum, Assets: map[string]string{"b.tar.gz": sum, "a.tar.gz": sum}}
	const want = `# The release that install.sh takes. Made by ` + "`go run ./release`" + `; see docs/releasing.md.
version v1.2.3
go go1.26.8
source 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  a.tar.gz
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  b.tar.gz
`
	if diff := cmp.Diff(want, c.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	got, err := release.Parse(c.String())
	if diff := cmp.Diff(c, got); err != nil || diff != "" {
		t.Errorf("read again: %v (-want +got):\n%s", err, diff)
	}
}

func TestBadChecksums(t *testing.T) {
	for _, text := range []string{
		"", "# nothing\n", "source abc\n", "version v1\nabc  a.tar.gz\n", "version v1\n" + strings.Repeat("g", 64) + "  a.tar.gz\n",
		"version v1\n" + strings.Repeat("a", 64) + "\n",
	} {
		if c, err := release.Parse(text); err == nil {
			t.Errorf("Parse(%q) = %+v", text, c)
		}
	}
}

// What is committed is either no release or a whole one.
func TestCommittedChecksums(t *testing.T) {
	text, err := os.ReadFile("../../" + release.File)
	if err != nil {
		t.Fatal(err)
	}
	c, err := release.Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), c.String()); diff != "" {
		t.Errorf("%s is not as the release program writes it (-have +want):\n%s", release.File, diff)
	}
	if c.Version == release.None {
		return
	}
	if err := release.CheckVersion(c.Version); err != nil {
		t.Error(err)
	}
	for _, target := range release.Targets() {
		if _, ok := c.Assets[release.Asset(c.Version, target)]; !ok {
			t.Errorf("the release %s has nothing for %s", c.Version, target)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"v1.2.3": true, "v0.0.0-snapshot": true, "v1.2.3-rc.1": true, "v10.20.30": true,
		"": false, "1.2.3": false, "v1.2": false, "v1.2.3 -X main.x=y": false, "v1.2.3/../x": false, "none": false, "v1.2.3-": false,
	} {
		if err := release.CheckVersion(version); (err == nil) != ok {
			t.Errorf("CheckVersion(%q): %v", version, err)
		}
	}
}
