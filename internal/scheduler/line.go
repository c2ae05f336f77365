package scheduler

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// maxLine bounds a message. The inputs of the largest systems that are built at once
	// take a tenth of it.
	maxLine = 16 << 20
	// writeWait bounds how long either end takes to take a message.
	writeWait = 10 * time.Second
)

// readMessage reads the next line. It keeps no room for the next: hundreds of hooks wait, and
// each has said much once.
func readMessage(r *bufio.Reader) (m Message, err error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return m, fmt.Errorf("a message is longer than %d bytes", maxLine)
		}
		if err == nil && line == nil {
			line = part // decoded before the next read
			break
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err == io.EOF && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return m, err
	}
	if err := json.Unmarshal(bytes.TrimSpace(line), &m); err != nil {
		return m, fmt.Errorf("a message is none: %w", err)
	}
	return m, nil
}

// writeMessage writes a line within writeWait.
func writeMessage(conn net.Conn, m Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	_, err = conn.Write(append(line, '\n'))
	return err
}
