package direct

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	storePath = "/store"
	// upgrade is the protocol that a connection to the store changes to.
	upgrade   = "nix-daemon"
	switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + "\r\n\r\n"

	// switchTime bounds the writing of the answer.
	switchTime = 10 * time.Second
	// lingerTime is how long a caller may take to hear what a process said at its end.
	lingerTime = time.Second
)

// A session is one connection that a process serves. It ends when either of them does, or
// when it is cut.
type session struct {
	conn net.Conn
	over chan struct{} // closed when it is cut
	cut  func()        // may be called again
}

// store makes the connection of a request a session.
func (s *Server) store(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), upgrade) {
		w.Header().Set("Upgrade", upgrade)
		w.Header().Set("Connection", "Upgrade")
		http.Error(w, "the store is served after an upgrade to "+upgrade, http.StatusUpgradeRequired)
		return
	}
	over := make(chan struct{})
	ss := &session{over: over, cut: sync.OnceFunc(func() { close(over) })}
	if refusal := s.enter(ss); refusal != "" {
		http.Error(w, refusal, http.StatusServiceUnavailable)
		return
	}
	defer s.leave(ss)
	d, err := s.daemon()
	if err != nil {
		s.log.Error("serve the store", "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	conn, early, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.end(d, s.limits.Fence)
		http.Error(w, "this connection can't be upgraded", http.StatusHTTPVersionNotSupported)
		return
	}
	ss.conn = conn
	// What came with the request's head.
	head, _ := early.Reader.Peek(early.Reader.Buffered())
	s.serve(ss, d, head)
}

// enter counts a session, or says why it can't be.
func (s *Server) enter(ss *session) (refusal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fenced != "":
		return "this builder takes no builds: " + s.fenced
	case len(s.sessions) >= s.limits.Sessions:
		return "this builder has too many connections"
	}
	s.sessions[ss] = true
	s.work.Add(1)
	return ""
}

func (s *Server) leave(ss *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, ss)
	s.work.Done()
}

// serve carries bytes between a connection and its process until both have ended.
func (s *Server) serve(ss *session, d *daemon, head []byte) {
	defer ss.conn.Close()
	_ = ss.conn.SetWriteDeadline(time.Now().Add(switchTime))
	_, err := io.WriteString(ss.conn, switching)
	_ = ss.conn.SetWriteDeadline(time.Time{})
	if err != nil {
		s.end(d, s.limits.Fence)
		return
	}
	heard, said := make(chan struct{}), make(chan struct{}) // closed when there will be no more of it
	var pumps sync.WaitGroup
	pumps.Go(func() {
		defer close(heard)
		if _, err := d.in.Write(head); err == nil {
			_ = pump(d.in, ss.conn) // whatever ended it, the session has ended
		}
	})
	pumps.Go(func() {
		defer close(said)
		_ = pump(ss.conn, d.out)
	})
	select {
	case <-heard: // the caller has gone, or asks no more
	case <-said: // the process has ended, or the caller takes nothing
		hangUp(ss.conn, heard, ss.over)
	case <-ss.over:
	}
	if closed(ss.over) {
		ss.conn.Close()
	}
	if err := d.end(s.limits.Grace, ss.over, s.limits.Fence); err != nil {
		s.log.Error("end a process that served the store", "error", err)
	}
	select {
	case <-said: // all that it said at its end
	case <-ss.over:
	case <-time.After(lingerTime):
	}
	ss.conn.Close()
	d.out.Close()
	pumps.Wait()
	s.discard(d)
}

// hangUp lets the caller hear what was said before the connection ends: what is unread at
// our end when it is closed would take it away.
func hangUp(conn net.Conn, heard, over <-chan struct{}) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	select {
	case <-heard:
	case <-over:
	case <-time.After(lingerTime):
	}
}
