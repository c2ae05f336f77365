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
		// When the input ends the peer is told, and may still answer where the
		// connection has two halves; one through tailscaled has not, and ends whole.
		// It has to, at once: Nix kills its ssh, and waits until everything that ssh
		// started has let go of its streams.
		input := make(chan struct{}) // closed when it ended
		go func() {
			_, err := io.Copy(conn, a.stdin)
			close(input)
			if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil && half.CloseWrite() == nil {
				return
			}
			conn.Close()
		}()
		// When the peer ends, so does this process, whatever the input does.
		_, err = io.Copy(a.stdout, conn)
		select {
		case <-input: // it ended first: an error is but its echo
			return nil
		default:
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("connection to %s: %w", args[0], err)
		}
		return nil
	},
}
