package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"tailscale.com/envknob"
	"tailscale.com/ipn/store/mem"
	"tailscale.com/net/netns"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"
)

// localNode is a node in this process.
type localNode struct {
	ts  *tsnet.Server
	dir string // removed when the node is closed
}

// Node starts a node in this process and waits until it is up: ephemeral, with
// its state in memory, and without root, for its network stack is in user
// space. Without tags it is a node of [Person]. The caller may close it;
// [Server.Close] does so too.
//
// Names and tags are the node's requests, as on its command line. The server
// must have its default auth keys.
func (s *Server) Node(ctx context.Context, hostname string, tags ...string) (*tsnet.Server, error) {
	// Marked packets and bound interfaces need root and would not take the
	// loopback. This holds for the whole process, which is a test.
	netns.SetEnabled(false)
	envknob.SetNoLogsNoSupport() // nor is anything to be sent to Tailscale
	dir, err := os.MkdirTemp("", "tsnet-")
	if err != nil {
		return nil, fmt.Errorf("start node %s: %w", hostname, err)
	}
	authKey := CIKey
	if len(tags) == 0 {
		authKey = PersonKey
	}
	n := &localNode{dir: dir, ts: &tsnet.Server{
		Dir:           dir,
		Store:         new(mem.Store),
		Hostname:      hostname,
		ControlURL:    s.url,
		AuthKey:       authKey,
		AdvertiseTags: tags,
		Ephemeral:     true,
		Logf:          logger.Discard,
		UserLogf:      logger.Discard,
	}}
	if _, err := n.ts.Up(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start node %s: %w", hostname, err), n.close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.local = append(s.local, n)
	return n.ts, nil
}

func (n *localNode) close() error {
	err := n.ts.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // the test closed it first
	}
	return errors.Join(err, os.RemoveAll(n.dir))
}
