package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Tree names a process and all that descend from it, parents before their children. Those
// whose parent has died are not found: they are the system's. It is empty if there is no
// such process.
func Tree(pid int) ([]ID, error) {
	parents, err := parents()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]int{}
	for child, parent := range parents {
		children[parent] = append(children[parent], child)
	}
	var tree []ID
	next := []int{pid}
	for len(next) > 0 {
		pid, next = next[0], next[1:]
		if id, err := Of(pid); err == nil { // else it has just ended
			tree = append(tree, id)
		}
		next = append(next, children[pid]...)
	}
	return tree, nil
}

// KillTree ends the process with all that descend from it, and returns when they are gone
// or ctx ends. Each is stopped first, so that none gets a child unseen.
func (id ID) KillTree(ctx context.Context) error {
	if !id.Alive() {
		return nil
	}
	stopped := map[ID]bool{}
	for more := true; more && ctx.Err() == nil; {
		tree, err := Tree(id.PID)
		if err != nil {
			return err
		}
		more = false
		for _, p := range tree {
			if !stopped[p] {
				stopped[p], more = true, true
				_ = p.Signal(syscall.SIGSTOP) // who may not be stopped may not be killed either
			}
		}
	}
	var problems []error
	for p := range stopped {
		if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			problems = append(problems, fmt.Errorf("kill process %d: %w", p.PID, err))
			delete(stopped, p)
		}
	}
	for p := range stopped {
		if !p.Await(ctx) {
			problems = append(problems, fmt.Errorf("process %d is still there after it was killed", p.PID))
		}
	}
	return errors.Join(problems...)
}
