// Internet is, on a host of a lab, the part of the Internet that a workflow run
// meets: Tailscale's servers under their own names, which are the lab's control
// server behind TLS, a server of release files, and the name server that knows
// them.
//
//	internet ADDRESS CONTROL CERTIFICATE KEY FILES NAME...
package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"
)

func main() {
	if len(os.Args) < 7 {
		log.Fatal("usage: internet ADDRESS CONTROL CERTIFICATE KEY FILES NAME...")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6:]); err != nil {
		log.Fatal(err)
	}
}

func run(address, control, certificate, key, files string, names []string) error {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
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
	questions, err := net.ListenPacket("udp", ":53")
	if err != nil {
		return err
	}
	failed := make(chan error, 4)
	go func() { failed <- answerNames(questions, names, ip) }()
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
