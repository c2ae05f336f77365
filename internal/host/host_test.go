package host_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/host"
)

func TestThisHost(t *testing.T) {
	if n := host.Cores(); n < 1 {
		t.Errorf("Cores() = %d", n)
	}
	total, available, err := host.Memory(t.Context())
	if err != nil || total < 64<<20 || available == 0 || available > total {
		t.Errorf("Memory() = %d, %d, %v", total, available, err)
	}
	dir := t.TempDir()
	total, free, err := host.Disk(t.Context(), dir)
	if err != nil || free == 0 || total < free {
		t.Errorf("Disk(%s) = %d, %d, %v", dir, total, free, err)
	}
	if _, _, err := host.Disk(t.Context(), filepath.Join(dir, "absent")); err == nil {
		t.Error("Disk of a path that does not exist gave no error")
	}
}

// Whether the kernel tells is its own matter; if it does, these are shares of time.
func TestStalls(t *testing.T) {
	memory, io, err := host.Stalls()
	if err != nil {
		t.Fatal(err)
	}
	_, told := os.Stat("/proc/pressure/memory")
	for what, stall := range map[string]*float64{"memory": memory, "io": io} {
		if (stall != nil) != (told == nil) || stall != nil && (*stall < 0 || *stall > 100) {
			t.Errorf("%s: %v, and /proc/pressure: %v", what, stall, told)
		}
	}
}

func TestCPUMeterTellsWorkFromRest(t *testing.T) {
	var m host.CPUMeter
	boot, err := m.Percent(t.Context())
	if err != nil || boot < 0 || boot > 100 {
		t.Fatalf("since boot: %v, %v", boot, err)
	}
	// Work until the kernel's clock, which ticks in hundredths, has seen it.
	var busy float64
	for n := 0; busy == 0 && n < 1<<12; n++ {
		x := uint64(n)
		for range 1 << 22 {
			x = x*6364136223846793005 + 1442695040888963407
		}
		if x == 42 {
			t.Log(x) // keeps the loop
		}
		if busy, err = m.Percent(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if busy <= 0 || busy > 100 {
		t.Errorf("while working: %v %%", busy)
	}
}
