package main

import (
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// answerNames is the Internet's name server: it knows these names, all at one
// address, and that there are no others.
func answerNames(conn net.PacketConn, names []string, address netip.Addr) error {
	known := map[string]bool{}
	for _, n := range names {
		known[n+"."] = true
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		answer, err := answerName(buf[:n], known, address)
		if err != nil {
			continue // not a question
		}
		if _, err := conn.WriteTo(answer, from); err != nil {
			return err
		}
	}
}

func answerName(message []byte, known map[string]bool, address netip.Addr) ([]byte, error) {
	var p dnsmessage.Parser
	asked, err := p.Start(message)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: asked.ID, Response: true, Authoritative: true,
			RecursionDesired: asked.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{q},
	}
	switch {
	case !known[strings.ToLower(q.Name.String())]:
		answer.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		answer.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
			Body:   &dnsmessage.AResource{A: address.As4()},
		}}
	}
	return answer.Pack()
}
