package host

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// OOMKills counts the processes that the kernel has ended for want of memory since it was
// booted, of this host and of all in its containers.
func OOMKills() (int64, error) {
	const path = "/proc/vmstat"
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("count out-of-memory kills: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if count, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			return strconv.ParseInt(count, 10, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("count out-of-memory kills: %w", err)
	}
	return 0, fmt.Errorf("count out-of-memory kills: %s does not tell", path)
}
