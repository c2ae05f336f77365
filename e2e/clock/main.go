// Command clock runs a program by a wall clock that is wrong, and that a test can move
// while the program runs. The machine's own clock stays as it is.
//
//	clock FILE PROGRAM [ARGUMENT...]   run the program by the clock that FILE moves
//	clock show                         print what time it is, again and again
//
// FILE holds by how much the clock is wrong, as Go writes durations: -1h, 90s, 0s. It is
// read whenever the program or one of its descendants asks for the time. The monotonic
// clock is true at all times.
//
// # How
//
// The program's process gets a filter (seccomp) that hands its questions for the time to a
// process that answers them. A program does not usually ask the kernel, but code that the
// kernel has lent it, the vDSO. The filter hands over the calls too with which each new
// program begins, before it looks at the time; that is when its copy of that code is
// changed, so that it asks the kernel as well. The answering process ends with the last of
// those that it answers.
//
// What a program has the kernel wait for, and the times of files, are true.
//
// It needs Linux on amd64, and root.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	args := os.Args[1:]
	var err error
	switch {
	case len(args) == 1 && args[0] == "show":
		show()
	case len(args) == 2 && args[0] == answerCommand:
		err = answer(args[1])
	case len(args) >= 2:
		err = launch(args[0], args[1:])
	default:
		err = fmt.Errorf("usage: clock FILE PROGRAM [ARGUMENT...], or clock show")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "clock: %v\n", err)
		os.Exit(1)
	}
}

// answerCommand is the first argument of the process that answers.
const answerCommand = "answer"

// show prints the time by the wall clock and since the start by the monotonic clock, both
// in milliseconds.
func show() {
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		now := time.Now()
		fmt.Println(now.UnixMilli(), now.Sub(start).Milliseconds())
	}
}
