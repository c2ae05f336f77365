package e2e_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/release"
)

// install.sh gets along with the tools of busybox, which know less than GNU's: an ordinary
// user of a host that has little else installs a release, and is refused another's.
func TestInstallWithBusybox(t *testing.T) {
	testbed.Require(t)
	h := startLab(t, testbed.Config{Programs: []string{}}).Host(testbed.Coordinator)
	const version = "v1.2.3"
	action := t.TempDir()
	asset := release.Asset(version, release.Target{OS: "linux", Arch: runtime.GOARCH})
	archive := archiveOf(t, map[string]string{"nix-builders": "#!/bin/sh\necho nix-builders " + version + " here\n", "tailscaled": "#!/bin/sh\n"})
	script, err := os.ReadFile("../install.sh")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"action/install.sh": string(script),
		"action/go.mod":     "module example.com/small\n", "action/cmd/a b/main.go": "package main\n", "action/e2e/no.go": "package no\n",
		"mirror/" + version + "/" + asset: string(archive),
	}
	for name, text := range files {
		writeTo(t, filepath.Join(action, name), text)
	}
	digest, err := release.Digest(filepath.Join(action, "action"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(archive)
	writeTo(t, filepath.Join(action, "action", release.File), release.Checksums{
		Version: version, Go: "go1.26.0", Source: digest, Assets: map[string]string{asset: hex.EncodeToString(sum[:])},
	}.String())
	pack(t, h, action, "/srv", ".")

	// Busybox under the names that install.sh calls, and beside it a bash and a curl.
	output(t, h, testbed.Root, "sh", "-euc", `
		mkdir /opt/little
		/opt/bb/bin/busybox --install -s /opt/little
		ln -sf /usr/bin/bash /usr/bin/curl /opt/little/
		rm -f /opt/little/wget`)
	if err := h.Spawn(t.Context(), "mirror", "/opt/bb/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8099", "-h", "/srv/mirror"); err != nil {
		t.Fatal(err)
	}
	const mirror = "http://127.0.0.1:8099"
	eventually(t, "a server of releases", func() bool {
		_, err := h.Output(within(t, patience), "curl", "-fsSo", "/dev/null", mirror+"/"+version+"/"+asset)
		return err == nil
	})
	install := func(dir string) (string, error) {
		return h.OutputAs(within(t, patience), testbed.Runner, "env", "PATH=/opt/little", "SETUP_NIX_BUILDERS_MIRROR="+mirror,
			"RUNNER_TOOL_CACHE=/home/runner/cache", "bash", "/srv/action/install.sh", dir)
	}

	for _, from := range []string{"from " + mirror, "from /home/runner/cache"} {
		said, err := install("/home/runner/a dir")
		if want := "nix-builders " + version + " here, " + from; err != nil || !strings.HasPrefix(said, want) {
			t.Errorf("install.sh: %v: %q, want %q...", err, said, want)
		}
	}
	if got, want := output(t, h, testbed.Runner, "sh", "-c", "cd '/home/runner/a dir'; bin/tailscaled; ls -A . bin; bin/nix-builders"),
		".:\nbin\n\nbin:\nnix-builders\ntailscale\ntailscaled\nnix-builders "+version+" here"; got != want {
		t.Errorf("installed %q, want %q", got, want)
	}

	output(t, h, testbed.Root, "sh", "-c", fmt.Sprintf("rm -rf /home/runner/cache; echo more >>/srv/mirror/%s/%s", version, asset))
	if said, err := install("/home/runner/other"); err == nil || !strings.Contains(err.Error(), "Somebody has changed it") {
		t.Errorf("install.sh with another archive: %v: %q", err, said)
	}
	if got := output(t, h, testbed.Runner, "ls", "-A", "/home/runner/other"); got != "" {
		t.Errorf("it left %q", got)
	}
}

// archiveOf makes an archive of programs, as a release is one.
func archiveOf(t *testing.T, programs map[string]string) []byte {
	t.Helper()
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	w := tar.NewWriter(gz)
	for name, text := range programs {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, text)
	}
	if err := w.WriteHeader(&tar.Header{Name: "tailscale", Typeflag: tar.TypeSymlink, Linkname: "tailscaled"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

func writeTo(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
