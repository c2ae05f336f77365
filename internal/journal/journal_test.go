package journal_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/journal"
)

const cluster = "octo/repo/1234/1"

func open(t *testing.T, dir, cluster string) *journal.File {
	t.Helper()
	f, err := journal.Open(filepath.Join(dir, "state.json"), cluster)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func sample() coordinator.Record {
	at := time.Date(2026, 11, 23, 9, 0, 0, 123456789, time.UTC)
	after := 250 * time.Millisecond
	return coordinator.Record{
		Version: coordinator.RecordVersion, ID: cluster,
		Phase: coordinator.Stopping, Reason: "stop requested", Since: at,
		StoppedAt: at, StopReason: "stop requested", Revision: 99, Event: 7,
		Slots: []coordinator.SlotRecord{
			{Name: "b1", State: coordinator.Departed, Reason: "left", Since: at, ID: uuid.New(), Instance: uuid.New(),
				Node: coordinator.Node{ID: "n1", Name: "b1", FQDN: "b1.example.ts.net.", Addr: netip.MustParseAddr("100.64.0.7")}, LeftAt: at, LeftAfter: &after,
				Offer: &coordinator.Offer{Systems: []string{"x86_64-linux"}, Cores: 4, NixVersion: "2.34.1", StoreProgram: "/nix/bin/nix-daemon"}},
			{Name: "b2", Reason: "never checked in", Since: at},
		},
		Former: []coordinator.Former{{ID: uuid.New(), Instance: uuid.New(), Node: "n1"}},
	}
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, cluster)
	if _, ok, err := f.Load(); ok || err != nil {
		t.Fatalf("Load of nothing = %v, %v; want none and no error", ok, err)
	}
	want := sample()
	for range 2 { // the second replaces the first
		want.Event++
		if err := f.Save(want); err != nil {
			t.Fatal(err)
		}
	}
	got, ok, err := open(t, dir, cluster).Load()
	if err != nil || !ok {
		t.Fatalf("Load = %v, %v", ok, err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestModes(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, cluster)
	if err := f.Save(sample()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.Path(), 0o644); err != nil { // somebody loosens it
		t.Fatal(err)
	}
	if err := f.Save(sample()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode = %v, want -rw-------", info.Mode())
	}
	entries, err := os.ReadDir(filepath.Dir(f.Path()))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("the directory holds %v, want the state alone", entries)
	}
}

func TestDamaged(t *testing.T) {
	good := func() string {
		f := open(t, t.TempDir(), cluster)
		if err := f.Save(sample()); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(f.Path())
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}()
	for name, content := range map[string]string{
		"empty":     "",
		"truncated": good[:len(good)/2],
		"more":      good + good,
		"no JSON":   "\x00\x00\x00\x00",
		"bad phase": strings.Replace(good, `"stopping"`, `"resting"`, 1),
		"bad uuid":  strings.Replace(good, `"instance":"`, `"instance":"x`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, t.TempDir(), cluster)
			if err := os.WriteFile(f.Path(), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, ok, err := f.Load()
			if err == nil || ok {
				t.Fatalf("Load = %v, %v; want an error", ok, err)
			}
			for _, part := range []string{f.Path(), "is damaged", "remove the file"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			_, err = coordinator.New(coordinator.Config{ID: cluster, Builders: []string{"b1"}, Journal: f})
			if err == nil || !strings.Contains(err.Error(), f.Path()) {
				t.Errorf("New = %v, want an error that names %s", err, f.Path())
			}
		})
	}
}

func TestOtherCluster(t *testing.T) {
	dir := t.TempDir()
	mine, other := open(t, dir, cluster), open(t, dir, "octo/repo/1234/2")
	if err := mine.Save(sample()); err != nil {
		t.Fatal(err)
	}
	if err := other.Save(sample()); err == nil || !strings.Contains(err.Error(), other.Path()) {
		t.Errorf("Save of another cluster's record = %v, want an error that names %s", err, other.Path())
	}
	if _, ok, err := other.Load(); err == nil || ok || !strings.Contains(err.Error(), cluster) {
		t.Errorf("Load of another cluster's state = %v, %v; want an error that names %s", ok, err, cluster)
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, cluster)
	left := filepath.Join(filepath.Dir(f.Path()), ".state.json123")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir, cluster)
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", left, err)
	}
}

func TestSaveFails(t *testing.T) {
	f := open(t, t.TempDir(), cluster)
	if err := os.RemoveAll(filepath.Dir(f.Path())); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(sample()); err == nil {
		t.Error("Save where there is no directory succeeded")
	}
}

// A cluster goes on from the file: the same ids, the next event, the stop.
func TestClusterGoesOn(t *testing.T) {
	dir := t.TempDir()
	boot := func() *coordinator.Cluster {
		c, err := coordinator.New(coordinator.Config{ID: cluster, Builders: []string{"b1", "b2"}, Journal: open(t, dir, cluster)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	node := coordinator.Node{ID: "n1", Name: "b1", Addr: netip.MustParseAddr("100.64.0.7")}
	in := coordinator.CheckIn{Cluster: cluster, Name: "b1", Instance: uuid.New(), Offer: coordinator.Offer{
		Systems: []string{"x86_64-linux"}, Cores: 4, MemoryBytes: 1 << 30, NixVersion: "2.34.1", StoreProgram: "/nix/bin/nix-daemon",
	}}
	first, _, err := boot().CheckIn(t.Context(), node, in)
	if err != nil {
		t.Fatal(err)
	}
	c := boot()
	second, created, err := c.CheckIn(t.Context(), node, in)
	if err != nil || created || second.ID != first.ID {
		t.Errorf("after a restart the builder is %v (new: %v, %v), want %v", second.ID, created, err, first.ID)
	}
	if _, err := c.Stop(t.Context(), coordinator.StopRequest{By: "a test"}); !errors.Is(err, coordinator.ErrRemain) {
		t.Errorf("Stop = %v, want b1 to remain", err)
	}
	before := c.View()
	c = boot()
	teardown, err := c.AwaitTeardown(t.Context(), node, first.ID, time.Minute)
	if err != nil || teardown.Phase != coordinator.Stopping || teardown.Reason != "stop requested by a test" {
		t.Errorf("poll after a restart = %+v, %v; want the teardown", teardown, err)
	}
	if after := c.View(); after.Event != before.Event || after.Revision <= before.Revision {
		t.Errorf("event %d to %d, revision %d to %d", before.Event, after.Event, before.Revision, after.Revision)
	}
}
