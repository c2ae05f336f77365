package main

import (
	"context"
	"fmt"
	"io"
	"net"
)

var dialCommand = command{
	name:    "dial",
	args:    "HOST PORT",
	summary: "connect standard input and output to a port of a tailnet peer",
	detail: `What ssh's ProxyCommand runs where tailscaled works in user space and the host has no
route to its peers. Ends when either side closes.`,
	run: func(ctx context.Context, a *app, args []string) error {
		if len(args) != 2 {
			return usagef("want HOST PORT")
		}
		conn, err := a.set.client().Dial(ctx, "tcp", net.JoinHostPort(args[0], args[1]))
		if err != nil {
			return err
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		// When the input ends the peer is told, and may still answer; when the peer
		// ends, so does this process, whatever the input does.
		go func() {
			if _, err := io.Copy(conn, a.stdin); err == nil {
				if half, ok := conn.(interface{ CloseWrite() error }); ok {
					_ = half.CloseWrite() // if it can't, the peer's end ends us
				}
			}
		}()
		if _, err := io.Copy(a.stdout, conn); err != nil && ctx.Err() == nil {
			return fmt.Errorf("connection to %s: %w", args[0], err)
		}
		return nil
	},
}
