package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launch becomes the program, with a child that answers its questions for the time. It
// returns only if it can't.
func launch(file string, argv []string) error {
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket pair: %w", err)
	}
	far := os.NewFile(uintptr(pair[1]), "socket")
	answerer := exec.Command("/proc/self/exe", answerCommand, file)
	answerer.ExtraFiles = []*os.File{far}
	// What ends the program's group is not to end the answers to what is left of it.
	answerer.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := answerer.Start(); err != nil {
		return fmt.Errorf("start answering: %w", err)
	}
	far.Close()

	runtime.LockOSThread() // the filter is this thread's, which becomes the program
	listener, err := filter()
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		return fmt.Errorf("hand the questions over: %w", err)
	}
	if n, err := unix.Read(pair[0], make([]byte, 1)); err != nil || n != 1 {
		return fmt.Errorf("nobody answers (%d bytes, %v)", n, err)
	}
	return fmt.Errorf("run %s: %w", program, syscall.Exec(program, argv, os.Environ()))
}

// filter makes this thread and its descendants ask the listener.
func filter() (listener int, err error) {
	const arch, nr, arg0 = 4, 0, 16 // where a filter finds them
	const clockGettime = 4          // instructions from the end
	asked := []uint32{unix.SYS_BRK, unix.SYS_ARCH_PRCTL, unix.SYS_GETTIMEOFDAY, unix.SYS_TIME}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	end := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	is := func(value uint32, yes, no int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: uint8(yes), Jf: uint8(no)}
	}
	program := []unix.SockFilter{
		load(arch),
		is(unix.AUDIT_ARCH_X86_64, 1, 0),
		end(unix.SECCOMP_RET_ALLOW),
		load(nr),
	}
	for i, call := range asked {
		program = append(program, is(call, len(asked)-i+clockGettime, 0))
	}
	program = append(program,
		is(unix.SYS_CLOCK_GETTIME, 0, 3),
		load(arg0),
		is(unix.CLOCK_REALTIME, 2, 0),
		is(unix.CLOCK_REALTIME_COARSE, 1, 0),
		end(unix.SECCOMP_RET_ALLOW),
		end(unix.SECCOMP_RET_USER_NOTIF),
	)
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	// A question that was taken is waited for, whatever signals come: Go's threads get
	// many, and each would ask it anew.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, fmt.Errorf("seccomp: %w", errno)
	}
	return int(fd), nil
}
