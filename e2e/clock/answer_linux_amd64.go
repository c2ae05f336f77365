package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// question is the kernel's struct seccomp_notif.
type question struct {
	id         uint64
	pid, flags uint32
	call       int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// reply is the kernel's struct seccomp_notif_resp.
type reply struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// clock answers the questions of one filter.
type clock struct {
	file string
	last time.Duration // what the file said last
	code vdso
}

// answer takes the listener from the socket that is its file 3 and answers until nobody is
// left who could ask.
func answer(file string) error {
	code, err := ownVDSO()
	if err != nil {
		return err
	}
	c := &clock{file: file, code: code}
	listener, err := receive(3)
	if err != nil {
		return err
	}
	for {
		ready := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return fmt.Errorf("wait for questions: %w", err)
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			return nil // the last of them has ended
		}
		var q question
		switch err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&q)); {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
			continue // who asked was killed
		case err != nil:
			return fmt.Errorf("take a question: %w", err)
		}
		r := c.reply(q)
		if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

// receive takes the listener, and says on the same socket that it has it.
func receive(socket int) (listener int, err error) {
	defer unix.Close(socket)
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("receive: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return 0, fmt.Errorf("receive: %d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return 0, fmt.Errorf("receive: %d files: %w", len(fds), err)
	}
	if _, err := unix.Write(socket, []byte{0}); err != nil {
		return 0, fmt.Errorf("receive: %w", err)
	}
	return fds[0], nil
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// reply answers one question. What can't be answered is an error of the call, which a
// program that asks for the time does not expect: the test sees it fail.
func (c *clock) reply(q question) reply {
	r := reply{id: q.id}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", q.pid), os.O_RDWR, 0)
	if err == nil {
		defer memory.Close()
		var took bool
		if r.value, took, err = c.take(q, memory); err == nil && !took {
			r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
		}
	}
	if err != nil {
		r.errno = -int32(unix.EIO)
	}
	return r
}

// take answers the question into the memory of who asks it. It does not take those that
// the kernel is to answer.
func (c *clock) take(q question, memory *os.File) (value int64, took bool, err error) {
	put := func(at uint64, seconds, parts int64) error {
		if at == 0 {
			return nil
		}
		text := binary.LittleEndian.AppendUint64(nil, uint64(seconds))
		_, err := memory.WriteAt(binary.LittleEndian.AppendUint64(text, uint64(parts)), int64(at))
		return err
	}
	switch q.call {
	case unix.SYS_CLOCK_GETTIME:
		now, err := c.now(int32(q.args[0]))
		if err != nil {
			return 0, true, err
		}
		return 0, true, put(q.args[1], now.Unix(), int64(now.Nanosecond()))
	case unix.SYS_GETTIMEOFDAY:
		now, err := c.now(unix.CLOCK_REALTIME)
		if err != nil {
			return 0, true, err
		}
		if err := put(q.args[1], 0, 0); err != nil { // the time zone: two numbers of four bytes
			return 0, true, err
		}
		return 0, true, put(q.args[0], now.Unix(), int64(now.Nanosecond()/1000))
	case unix.SYS_TIME:
		now, err := c.now(unix.CLOCK_REALTIME_COARSE)
		if err != nil {
			return 0, true, err
		}
		if q.args[0] != 0 {
			_, err = memory.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(now.Unix())), int64(q.args[0]))
		}
		return now.Unix(), true, err
	}
	return 0, false, c.code.change(int(q.pid), memory)
}

// now is what time it is by the wrong clock.
func (c *clock) now(id int32) (time.Time, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return time.Time{}, err
	}
	text, err := os.ReadFile(c.file)
	if err != nil {
		return time.Time{}, err
	}
	// Who writes the file may have emptied it just now.
	if said := strings.TrimSpace(string(text)); said != "" {
		if c.last, err = time.ParseDuration(said); err != nil {
			return time.Time{}, err
		}
	}
	return time.Unix(ts.Sec, ts.Nsec).Add(c.last), nil
}
