package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// AdminHandler serves what [Client] calls. It belongs on a socket that no node
// can reach.
func (s *Server) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nodes", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(s.reg.list())
	})
	mux.HandleFunc("DELETE /nodes/{id}", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(s.reg.remove(r.PathValue("id"), "removed by the administrator"))
	})
	mux.HandleFunc("GET /policy", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(s.reg.getPolicy())
	})
	mux.HandleFunc("PUT /policy", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(io.LimitReader(r.Body, requestLimit))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p, err := ParsePolicy(text)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		s.reg.setPolicy(p)
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// Client administers a [Server] in another process. Its methods are those of
// the server.
type Client struct{ http *http.Client }

// Dial returns a client of the server whose [Server.AdminHandler] is served on
// the unix socket. Nothing is sent yet.
func Dial(socket string) *Client {
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true, // nothing to close, then
	}}}
}

// Nodes returns the tailnet's nodes, in the order they joined.
func (c *Client) Nodes(ctx context.Context) (nodes []Node, err error) {
	return nodes, c.do(ctx, "GET", "/nodes", nil, &nodes)
}

// Policy returns the policy in force.
func (c *Client) Policy(ctx context.Context) (p Policy, err error) {
	return p, c.do(ctx, "GET", "/policy", nil, &p)
}

// SetPolicy replaces the policy; nodes get it at once.
func (c *Client) SetPolicy(ctx context.Context, p Policy) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("set policy: %w", err)
	}
	return c.do(ctx, "PUT", "/policy", text, nil)
}

// RemoveNode deletes the node with this id. It reports whether there was one.
func (c *Client) RemoveNode(ctx context.Context, id string) (found bool, err error) {
	return found, c.do(ctx, "DELETE", "/nodes/"+id, nil, &found)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("control server: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("control server: %s %s: %w", method, path, err)
	}
	if res.StatusCode >= 300 {
		return errors.New(string(bytes.TrimSpace(text)))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}
