package measure

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// A Machine is what the numbers depend on beside the code.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory_bytes"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Target string `json:"target"` // GOOS/GOARCH
}

// ThisMachine asks the kernel; what it does not say stays empty.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Target: runtime.GOOS + "/" + runtime.GOARCH}
	m.CPU, _ = ProcField("/proc/cpuinfo", "model name")
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	if total, ok := ProcField("/proc/meminfo", "MemTotal"); ok {
		m.Memory = Kibibytes(total)
	}
	return m
}

func (m Machine) String() string {
	return fmt.Sprintf("%d cores (%s), %.0f GiB memory, Linux %s, %s %s",
		m.Cores, m.CPU, float64(m.Memory)/(1<<30), m.Kernel, m.Go, m.Target)
}

// ProcField returns the value of the first line "NAME: VALUE" of a file in /proc.
func ProcField(file, name string) (string, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

// Kibibytes reads "123 kB" as the kernel writes it.
func Kibibytes(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(s, " kB"), 10, 64) // 0 is plainly wrong in the table
	return n << 10
}
