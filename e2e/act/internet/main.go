// Internet is, on a host of a lab, the part of the Internet that a workflow run
// meets: Tailscale's servers under their own names, which are the lab's control
// server behind TLS, and a server of release files.
//
//	internet CONTROL CERTIFICATE KEY FILES
package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: internet CONTROL CERTIFICATE KEY FILES")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		log.Fatal(err)
	}
}

func run(control, certificate, key, files string) error {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", ":443", &tls.Config{
		Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		return err
	}
	plain, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	releases, err := net.Listen("tcp", ":8000")
	if err != nil {
		return err
	}
	failed := make(chan error, 3)
	go func() { failed <- forward(secure, control) }()
	go func() { failed <- forward(plain, control) }()
	go func() {
		s := &http.Server{Handler: http.FileServer(http.Dir(files)), ReadHeaderTimeout: 10 * time.Second}
		failed <- s.Serve(releases)
	}()
	fmt.Println("ready")
	return <-failed
}

// forward connects whoever comes to the address.
func forward(ln net.Listener, address string) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			to, err := net.DialTimeout("tcp", address, 10*time.Second)
			if err != nil {
				log.Print(err)
				return
			}
			defer to.Close()
			ended := make(chan error, 2)
			go func() { ended <- pass(to, conn) }()
			go func() { ended <- pass(conn, to) }()
			<-ended // either side: the control protocol has no half-open connections
		}()
	}
}

func pass(to io.Writer, from io.Reader) error {
	_, err := io.Copy(to, from)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
