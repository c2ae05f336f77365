package proc

import "golang.org/x/sys/unix"

// parents gives the parent of each process.
func parents() (map[int]int, error) {
	list, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil, err
	}
	all := map[int]int{}
	for _, p := range list {
		all[int(p.Proc.P_pid)] = int(p.Eproc.Ppid)
	}
	return all, nil
}
